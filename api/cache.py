"""
The present value of every guest, as answers ready to be written.

A pure structure: messages go in through `apply`, in stream order; `answers` is what the protocol class looks up, `find`
what the application asks. What is served follows from the last message per subject, so two replicas answer the same
whenever they started. (It takes collectors that tell everything anew about a guest that was gone or has another uid.)
Bodies are kept as bytes and never decoded; of a guest's `agent` record what decides about an answer is kept beside
it. A kind is served under every group that has it, by one and the same answer.

The stream may be deleted and made anew, and its revisions start over. A fill, from `begin` to `complete`, is therefore
a generation: within one, revisions only grow; what a later generation has not confirmed is dropped at its end, and
until then the old values are served, with their age.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from api import status
from api.answers import NOTHING_YET, Answer, of_body
from api.groups import GROUPS, KINDS, KUBEVIRT, Group
from guestwire import codec
from guestwire.jetstream import Message
from guestwire.logs import logger
from guestwire.snapshot import AgentState, GuestRef, Kind, Phase

log = logger("api")

NEVER = datetime.fromtimestamp(0, UTC)


class Fact(msgspec.Struct, frozen=True):
    """The last message of one kind about a guest. Its uid tells an earlier guest of the same name apart."""

    generation: int
    revision: int
    uid: str
    changed_at: datetime
    body: bytes


class Presence(msgspec.Struct, frozen=True):
    """What decides about an answer, of the last `agent` message."""

    generation: int
    uid: str
    running: bool
    connected: bool
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
        return cls(generation, state.uid, running, state.connected, observed, errors)


class Guest:
    """What is known about a guest; facts may come before the first `agent` record, and are not served till then."""

    __slots__ = ("facts", "paths", "presence")

    def __init__(self, ref: GuestRef) -> None:
        self.paths = tuple((group, group.path(ref)) for group in GROUPS)
        self.presence: Presence | None = None
        self.facts: dict[str, Fact] = {}

    def fact(self, kind: str) -> Fact | None:
        """
        The fact to be served: this guest's, not that of one before it, while its agent is there. What is said of the
        agent is always served.
        """
        fact, presence = self.facts.get(kind), self.presence
        if fact is None or presence is None or fact.uid != presence.uid:
            return None
        return fact if kind == Kind.AGENT or (presence.running and presence.connected) else None

    def keys(self, kind: str) -> Iterator[bytes]:
        """Where a kind is served."""
        return (path + kind.encode() for group, path in self.paths if kind in group.kinds)


class Cache:
    """Bounded by the number of guests: one body per guest and kind, and nothing of guests that are gone."""

    def __init__(self) -> None:
        self.answers: dict[bytes, Answer] = {}
        """By path (`Group.path`): exactly the reads that find a body. Not to be used before `caught_up`."""
        self.caught_up = False
        """Whether a fill was ever completed."""
        self.revision = 0
        """The last message applied of this generation."""
        self.applied = 0
        """Messages applied, ever."""
        self.newest = 0.0
        """The time of the newest message, in seconds since the epoch; 0 before the first."""
        self._generation = 0
        self._guests: dict[GuestRef, Guest] = {}

    def __len__(self) -> int:
        """Guests whose `agent` record is known."""
        return sum(guest.presence is not None for guest in self._guests.values())

    def begin(self) -> None:
        """A fill begins: the last message of every subject will be applied."""
        self._generation += 1
        self.revision = 0

    def complete(self) -> None:
        """Everything that was in the stream when the fill began has been applied: forget what was not in it."""
        for ref, guest in list(self._guests.items()):
            facts = {kind: fact for kind, fact in guest.facts.items() if fact.generation == self._generation}
            stale = guest.presence and guest.presence.generation != self._generation
            if stale or len(facts) != len(guest.facts):
                guest.facts = facts
                guest.presence = None if stale else guest.presence
                self._settle(guest)
            if not guest.presence and not guest.facts:
                del self._guests[ref]
        self.caught_up = True
        log.info("caught up with the stream", guests=len(self), revision=self.revision)

    def apply(self, message: Message) -> bool:
        """
        Take in a message; False for one that is not newer than what was applied. Raises ContractError when the `agent`
        record cannot be decoded; the guest then stays as it was.
        """
        if message.revision <= self.revision:
            return False
        ref, kind = message.address.ref, message.address.kind
        if kind == Kind.AGENT:
            self._present(ref, codec.decode(message.body, AgentState), message)
        elif kind in KINDS:
            guest = self._guest(ref)
            guest.facts[kind] = self._fact(message)
            self._settle(guest, kind)
        self.revision = message.revision
        self.applied += 1
        self.newest = max(self.newest, message.event.time.timestamp())
        return True

    def find(self, group: Group, ref: GuestRef, kind: str) -> Answer:
        """The answer to a read, an error among them. Order of the checks: KubeVirt's."""
        if not self.caught_up:
            return status.not_caught_up()
        guest = self._guests.get(ref)
        presence = guest.presence if guest else None
        if presence is None:
            return status.not_found(group, ref.name)
        if answer := self.answers.get(group.path(ref, kind)):
            return answer
        if not presence.running:
            return status.not_running(group, ref.name)
        if not presence.connected:
            return status.no_agent(group, ref.name)
        if group is KUBEVIRT:
            return NOTHING_YET[kind]
        return status.not_read(group, ref.name, kind, presence.errors.get(kind, ""))

    def _fact(self, message: Message) -> Fact:
        event = message.event
        return Fact(self._generation, message.revision, event.uid, event.time, message.body)

    def _guest(self, ref: GuestRef) -> Guest:
        guest = self._guests.get(ref)
        if guest is None:
            guest = self._guests[ref] = Guest(ref)
        return guest

    def _present(self, ref: GuestRef, state: AgentState, message: Message) -> None:
        if state.phase == Phase.GONE:
            guest = self._guests.pop(ref, None)
            if guest:
                guest.presence = None
                self._settle(guest)
            return
        guest = self._guest(ref)
        guest.facts[Kind.AGENT] = self._fact(message)
        guest.presence = Presence.of(state, self._generation)
        self._settle(guest)

    def _settle(self, guest: Guest, *kinds: str) -> None:
        """Make the guest's answers those of its present state."""
        for kind in kinds or KINDS:
            if (fact := guest.fact(kind)) and guest.presence:
                observed_at = guest.presence.observed.get(kind, NEVER)
                answer = of_body(fact.body, fact.revision, fact.changed_at, observed_at)
                self.answers.update((key, answer) for key in guest.keys(kind))
            else:
                for key in guest.keys(kind):
                    self.answers.pop(key, None)
