"""Something that is said about guests, for whoever subscribes to it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from guestwire import codec, subjects
from guestwire.jetstream import Bus
from guestwire.snapshot import AgentState, Body, GuestRef, Kind, ListMeta, Part, Phase, User, UserList

NOW = datetime(2026, 2, 3, tzinfo=UTC)


class Collector:
    """Says things about guests, as a collector does, with what it demands of the stream."""

    def __init__(self, bus: Bus, cluster: str = "c") -> None:
        self._bus = bus
        self._cluster = cluster
        self._revisions: dict[str, int] = {}

    async def say(self, guest: str, kind: str, body: Body | bytes, uid: str = "uid") -> int:
        """Publish a body about `namespace/name`; its revision."""
        ref = GuestRef.parse(guest)
        encoded = body if isinstance(body, bytes) else codec.encode(body)
        subject = subjects.subject(self._cluster, ref, kind)
        part = Part(kind, encoded, "", NOW)
        last = self._revisions.get(subject, 0)
        headers = codec.event_headers(ref=ref, uid=uid, cluster=self._cluster, host="h1", part=part,
                                      message_id=f"{subject} {last}", trace_id=codec.new_trace_id())  # fmt: skip
        del headers["Nats-Msg-Id"]
        headers["Nats-Expected-Last-Subject-Sequence"] = str(last)
        self._revisions[subject] = (await self._bus.js.publish(subject, encoded, headers=headers)).seq
        return self._revisions[subject]

    async def users(self, guest: str, *names: str) -> int:
        """Who is logged in."""
        return await self.say(guest, Kind.USERLIST, users(*names))

    async def agent(self, guest: str, phase: Phase = Phase.RUNNING) -> int:
        """The agent's record."""
        ref = GuestRef.parse(guest)
        state = AgentState(ref.namespace, ref.name, "uid", "d", "u", "h1", phase, channel=True, connected=True,
                           since=NOW)  # fmt: skip
        return await self.say(guest, Kind.AGENT, state)


def users(*names: str) -> UserList:
    """A list of users."""
    return UserList(tuple(map(User, names)), ListMeta())


@pytest.fixture
def collector(bus: Bus) -> Collector:
    """Who says things."""
    return Collector(bus)
