"""What happened to a guest, read from a real stream."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from guestwire import codec, subjects
from guestwire.jetstream import Bus
from guestwire.snapshot import AgentState, Body, GuestRef, Kind, ListMeta, Phase, Reading, User, UserList

VM = GuestRef("default", "vm1")
PATH = "/apis/guestwire.io/v1/namespaces/default/guests/{}/history"


class Told:
    """A stream, and an API that reads histories from it."""

    def __init__(self, bus: Bus, served: Any) -> None:
        self.bus = bus
        self.served = served

    async def say(self, kind: str, body: Body, uid: str = "u1", ref: GuestRef = VM) -> int:
        """Publish as a collector does; the revision."""
        part = codec.part(kind, body, codec.now())
        headers = codec.event_headers(
            ref=ref,
            uid=uid,
            cluster="local",
            host="h1",
            part=part,
            message_id=codec.new_trace_id(),
            trace_id=codec.new_trace_id(),
        )
        return int((await self.bus.js.publish(subjects.subject("local", ref, kind), part.body, headers=headers)).seq)

    async def users(self, *names: str, uid: str = "u1") -> int:
        """Who is logged in; the revision."""
        return await self.say(Kind.USERLIST, UserList(tuple(User(name) for name in names), ListMeta()), uid)

    async def agent(self, uid: str = "u1", **facts: Any) -> int:
        """Something about the agent; the revision."""
        usual: dict[str, Any] = {"phase": Phase.RUNNING, "channel": True, "connected": True, "since": SINCE}
        names: dict[str, Any] = {
            "namespace": VM.namespace,
            "name": VM.name,
            "domain": "d",
            "domain_uuid": uid,
            "host": "h1",
        }
        return await self.say(Kind.AGENT, AgentState(uid=uid, **(names | usual | facts)), uid)

    async def history(self, query: str = "", name: str = "vm1") -> tuple[int, Any]:
        """Status and document."""
        status, _, body = await self.served.get(PATH.format(name) + query)
        return status, msgspec.json.decode(body)


SINCE = codec.now()


@pytest.fixture
async def told(serve: Any, bus: Bus) -> Told:
    """An API over an empty stream."""
    served = await serve(bus=bus)
    served.fleet.fill(0)
    return Told(bus, served)


async def test_differences(told: Told) -> None:
    """Newest first: what each message changed, when, and on which host; of the first of a kind only that it was."""
    await told.agent()
    await told.users("root")
    revision = await told.users("root", "alice")
    await told.agent(connected=False)
    status, history = await told.history()
    agent, alice, root, first = history["items"]

    assert (200, "GuestHistory", {"namespace": "default", "name": "vm1"}) == (
        status,
        history["kind"],
        history["metadata"],
    )
    assert [{"path": "connected", "old": True, "new": False}] == agent["differences"]
    assert (revision, "userlist", "h1", "u1") == tuple(alice[name] for name in ("revision", "kind", "host", "uid"))
    assert [{"path": "items[alice]", "new": {"userName": "alice"}}] == alice["differences"]
    assert [True, True] == [entry["first"] for entry in (root, first)]
    assert "differences" not in root


async def test_heartbeats_are_left_out(told: Told) -> None:
    """A message by which nothing changed but the times of readings is none of the history."""
    first = await told.agent()
    for _ in range(3):
        await told.agent(readings={Kind.USERLIST: Reading(codec.now())})
    _, history = await told.history()
    changed = [each["path"] for entry in history["items"][:-1] for each in entry["differences"]]

    assert first == history["items"][-1]["revision"]
    assert [] == [path for path in changed if "observedAt" in path]
    assert len(history["items"]) <= 2


async def test_pages(told: Told) -> None:
    """`limit` and `before` give page after page, nothing twice and nothing left out; the last has no next."""
    revisions = [await told.users(f"u{number}") for number in range(7)]
    seen, query, pages = [], "?limit=3", 0
    while query:
        _, history = await told.history(query)
        seen += [entry["revision"] for entry in history["items"]]
        before = history["metadata"].get("before")
        query = f"?limit=3&before={before}" if before else ""
        pages += 1

    assert (revisions[::-1], 3) == (seen, pages)


async def test_difference_across_pages(told: Told) -> None:
    """The last entry of a page differs from the first of the next, which is not shown."""
    await told.users("root")
    await told.users("alice")
    _, history = await told.history("?limit=1")

    assert {"items[alice]", "items[root]"} == {each["path"] for each in history["items"][0]["differences"]}


async def test_kind(told: Told) -> None:
    """Of one kind, if that is asked for."""
    await told.agent()
    revision = await told.users("root")
    _, history = await told.history("?kind=userlist")

    assert [revision] == [entry["revision"] for entry in history["items"]]


async def test_another_guest_of_the_name(told: Told) -> None:
    """What a former guest of this name had is no change of this one."""
    await told.users("root", uid="u1")
    await told.users("alice", uid="u2")
    _, history = await told.history()

    assert [("u2", True), ("u1", True)] == [(entry["uid"], entry.get("first", False)) for entry in history["items"]]


async def test_all_that_is_there(told: Told) -> None:
    """All that the stream holds of a guest is read, and in the stream's order, whatever the kind."""
    bodies = [UserList((User(f"u{number}"),), ListMeta()) for number in range(60)]
    revisions = [await told.say(kind, body) for body in bodies for kind in (Kind.USERLIST, Kind.LOAD, Kind.DISKS)]
    _, history = await told.history("?limit=500")

    assert revisions[::-1] == [entry["revision"] for entry in history["items"]]


async def test_long_lists_of_differences(told: Told) -> None:
    """Of a message that changes very much, the first differences are told, and how many there are besides."""
    await told.users()
    await told.users(*(f"u{number}" for number in range(80)))
    _, history = await told.history()
    entry = history["items"][0]

    assert (50, 30) == (len(entry["differences"]), entry["omitted"])


async def test_nobody(told: Told) -> None:
    """404 for a guest that nobody knows, and nothing is kept of; one that is known may have no history."""
    told.served.fleet.agent(GuestRef("default", "vm2"))

    assert 404 == (await told.history(name="vm3"))[0]
    assert (200, []) == ((found := await told.history(name="vm2"))[0], found[1]["items"])


@pytest.mark.parametrize(
    ("query", "name"),
    [("?limit=x", "limit"), ("?before=-1", "before"), ("?kind=nothing", "kind"), ("?limit=1e9", "limit")],
)
async def test_bad_parameters(told: Told, query: str, name: str) -> None:
    """400, and the name of the parameter."""
    status, refusal = await told.history(query)

    assert (400, name) == (status, refusal["message"].partition(":")[0])


async def test_stream_away(told: Told, nats_server: Any) -> None:
    """503 while the stream cannot be read; the page says so."""
    await told.agent()
    nats_server.stop()
    status, refusal = await told.history()

    assert (503, "ServiceUnavailable") == (status, refusal["reason"])


async def test_who_may(serve: Any, bus: Bus) -> None:
    """It takes the right to the subresource `history` of that namespace."""
    served = await serve(tokens={"mine": "default"}, bus=bus)
    served.fleet.fill(1)
    served.fleet.agent(VM)
    statuses = [
        (await served.get(path, Authorization="Bearer mine"))[0]
        for path in (PATH.format("vm1"), PATH.format("vm1").replace("default", "other"))
    ]

    assert [200, 403] == statuses
