"""
A guest as the API knows it: the last fact of each kind, and what follows from them.

Facts are bytes and stay so; of the `agent` record what decides about answers is kept beside it, and the labels by which
guests are selected. A guest of the same name with another uid is another guest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache

import msgspec

from api.groups import KINDS, Group
from guestwire.snapshot import BEGINNING, AgentState, GuestRef, Kind, Phase

LABELS = "guestwire.io/"
"""How the names of labels begin."""

Labels = Mapping[str, str]


class Fact(msgspec.Struct, frozen=True, gc=False):
    """The last message of one kind about a guest. Its uid tells an earlier guest of the same name apart."""

    generation: int
    revision: int
    uid: str
    changed_at: datetime
    body: bytes


class Presence(msgspec.Struct, frozen=True):
    """What decides about answers, of the last `agent` message."""

    generation: int
    uid: str
    running: bool
    connected: bool
    agent: str
    """In a word: connected, frozen, unresponsive, disconnected; or none, when the guest has no channel for one."""
    host: str
    phase: str
    since: datetime
    observed: dict[str, datetime]
    """When each kind was last read from the guest."""
    errors: dict[str, str]
    """What went wrong since, by kind."""

    @classmethod
    def of(cls, state: AgentState, generation: int) -> Presence:
        """A paused guest counts as running, as it does for KubeVirt."""
        running = state.phase in {Phase.RUNNING, Phase.PAUSED}
        readings = {kind: reading for kind in KINDS if (reading := state.readings.get(kind))}
        observed = {kind: reading.observed_at for kind, reading in readings.items() if reading.observed_at}
        errors = {kind: reading.error for kind, reading in readings.items() if reading.error}
        word, phase = agent_word(state), state.phase.value
        return cls(
            generation, state.uid, running, state.connected, word, state.host, phase, state.since, observed, errors
        )


class Guest:
    """One life of a guest; facts may come before the first `agent` record, and are not served till then."""

    __slots__ = ("facts", "labels", "paths", "presence", "ref", "revision")

    def __init__(self, ref: GuestRef) -> None:
        self.ref = ref
        self.presence: Presence | None = None
        self.facts: dict[str, Fact] = {}
        self.revision = 0
        """Of the newest message about it."""
        self.labels: Labels = {}
        self.paths: tuple[tuple[Group, bytes], ...] = ()
        """Where it is served, once somebody has asked about it: from then on its answers are kept ready."""

    def fact(self, kind: str) -> Fact | None:
        """
        The fact to be served: this guest's, not that of one before it, while its agent is there. What is said of the
        agent is always served.
        """
        fact, presence = self.facts.get(kind), self.presence
        if fact is None or presence is None or fact.uid != presence.uid:
            return None
        return fact if kind == Kind.AGENT or self.askable else None

    def told(self) -> list[str]:
        """The kinds of which there is such a fact, but for what is said of the agent."""
        return [kind for kind in self.facts if kind != Kind.AGENT and self.fact(kind)]

    @property
    def askable(self) -> bool:
        """Whether it runs, and its agent is there."""
        return self.presence is not None and self.presence.running and self.presence.connected

    def last_known(self, kind: str) -> Fact | None:
        """The fact whether the agent is there or not; still this guest's own."""
        fact, presence = self.facts.get(kind), self.presence
        return fact if fact and presence and fact.uid == presence.uid else None

    def stale(self, now: float, silence: float) -> bool:
        """
        Whether nobody has told of it for so many seconds: neither a change nor a heartbeat of its collector. Time alone
        makes it so, no message; so it is no part of what is told under a revision.
        """
        told_at = self.told_at
        return told_at is not None and now - told_at.timestamp() > silence

    @property
    def told_at(self) -> datetime | None:
        """When its collector last told of it, be it that nothing has changed; None before the first time."""
        agent = self.facts.get(Kind.AGENT)
        return agent.changed_at if agent else None

    def observed_at(self, kind: str) -> datetime:
        """When a kind was last read from the guest, as far as its record tells."""
        return self.presence.observed.get(kind, BEGINNING) if self.presence else BEGINNING

    def keys(self, kind: str) -> Iterator[bytes]:
        """Where a kind is served."""
        name = kind.encode()
        return (path + name for group, path in self.paths if kind in group.kinds)


class LastKnown(Guest):
    """A guest as it is, with all that was ever known of it: also of one whose agent is away."""

    __slots__ = ()

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest.ref)
        self.presence, self.facts = guest.presence, guest.facts
        self.revision, self.labels = guest.revision, guest.labels

    def fact(self, kind: str) -> Fact | None:
        """The fact whether the agent is there or not."""
        return self.last_known(kind)


class _System(msgspec.Struct, rename="camel", frozen=True):
    id: str = ""
    version_id: str = ""


class _Info(msgspec.Struct, frozen=True):
    os: _System = _System()


_info = msgspec.json.Decoder(_Info)


def agent_word(state: AgentState) -> str:
    """The state of an agent."""
    if not state.channel:
        return "none"
    if not state.connected or state.phase not in {Phase.RUNNING, Phase.PAUSED}:
        return "disconnected"
    if state.responsive is False:
        return "unresponsive"
    return "frozen" if state.frozen else "connected"


def labels_of(guest: Guest) -> Labels:
    """By which it is selected."""
    presence, system = guest.presence, _System()
    if presence is None:
        return {}
    if info := guest.fact(Kind.GUESTOSINFO):
        try:
            system = _info.decode(info.body).os
        except msgspec.DecodeError:  # of a version to come
            system = _System()
    return _labels(presence.agent, presence.host, system.id, system.version_id, presence.phase)


@lru_cache(maxsize=16384)
def _labels(agent: str, host: str, system: str, version: str, phase: str) -> Labels:
    """Many guests have the same."""
    said = {"agent": agent, "host": host, "os": system, "os-version": version, "phase": phase}
    return {LABELS + name: value for name, text in said.items() if (value := label_value(text))}


def label_value(text: str) -> str:
    """As Kubernetes allows it (apimachinery, util/validation IsValidLabelValue): what does not fit becomes `_`."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)[:63].strip("._-")
