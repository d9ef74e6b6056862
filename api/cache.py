"""
The present value of every guest, as answers ready to be written.

A pure structure: messages go in through `apply`, in stream order; `answers` is what the protocol class looks up, `find`
what the application asks. What is served follows from the last message per subject, so two replicas answer the same
whenever they started. (It takes collectors that tell everything anew about a guest that was gone or has another uid.)
Bodies are kept as bytes and never decoded; of a guest's `agent` record what decides about an answer is kept beside
it. A kind is served under every group that has it, by one and the same answer. Answers are made when a guest is first
asked about, all of its kinds, and from then on with every change: most guests of a fill nobody asks about for long.

The stream may be deleted and made anew, and its revisions start over. A fill, from `begin` to `complete`, is therefore
a generation: within one, revisions only grow; what a later generation has not confirmed is dropped at its end, and
until then the old values are served, with their age.
"""

from __future__ import annotations

import sys
from datetime import datetime

from api import status
from api.answers import NOTHING_YET, Answer, of_body
from api.fleet import Fleet
from api.groups import GROUPS, KINDS, KUBEVIRT, Group
from api.guest import Fact, Guest, Presence, labels_of
from guestwire import codec
from guestwire.jetstream import Message
from guestwire.logs import logger
from guestwire.settings import Publish
from guestwire.snapshot import AgentState, GuestRef, Kind, Phase

log = logger("api")

LABELLED = frozenset((Kind.AGENT, Kind.GUESTOSINFO))
"""Kinds of which labels are made."""


class Cache:
    """Bounded by the number of guests: one body per guest and kind, and nothing of guests that are gone."""

    def __init__(self, silence: float = Publish().silence) -> None:
        self.silence = silence
        """Seconds without an agent record after which a guest is stale (`Guest.stale`)."""
        self.answers: dict[bytes, Answer] = {}
        """
        By path (`Group.path`): exactly the reads that find a body, of guests that were asked about before. Not to be
        used before `caught_up`.
        """
        self.caught_up = False
        """Whether a fill was ever completed."""
        self.revision = 0
        """The last message applied of this generation."""
        self.applied = 0
        """Messages applied, ever."""
        self.newest = 0.0
        """The time of the newest message, in seconds since the epoch; 0 before the first."""
        self.fleet = Fleet()
        """The guests in order, and who waits for changes."""
        self.purged: int | None = None
        """Who went up to this revision may have left the stream before the first fill; None: nobody knows."""
        self._complete = False
        self._generation = 0
        self._guests: dict[GuestRef, Guest] = {}

    def __len__(self) -> int:
        """Guests whose `agent` record is known."""
        return sum(guest.presence is not None for guest in self._guests.values())

    def begin(self) -> None:
        """A fill begins: the last message of every subject will be applied."""
        self._generation += 1
        self._complete = False
        self.revision = 0
        self.fleet.reset()

    def complete(self) -> None:
        """Everything that was in the stream when the fill began has been applied: forget what was not in it."""
        if self._generation > 1:
            self._forget_former()
        self._complete = self.caught_up = True
        self.fleet.complete(self.revision if self._generation > 1 or self.purged is None else self.purged)
        log.info("caught up with the stream", guests=len(self), revision=self.revision)

    def _forget_former(self) -> None:
        for ref, guest in list(self._guests.items()):
            facts = {kind: fact for kind, fact in guest.facts.items() if fact.generation == self._generation}
            stale = guest.presence and guest.presence.generation != self._generation
            if stale or len(facts) != len(guest.facts):
                guest.facts = facts
                guest.presence = None if stale else guest.presence
                guest.labels = labels_of(guest)
                self._settle(guest, *KINDS)
            if not guest.presence and not guest.facts:
                del self._guests[ref]

    @property
    def level(self) -> bool:
        """Whether guests can be listed: not before the first fill, nor amid another one."""
        return self._complete

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
            self._changed(guest, message.revision, kind)
        self.revision = message.revision
        self.applied += 1
        self.newest = max(self.newest, message.event.time.timestamp())
        self.fleet.advance(message.revision)
        return True

    def seen(self, ref: GuestRef, kind: str | None, at: datetime) -> None:
        """
        A kind was read no earlier than that, or all were, and what is told of it is what was read. Where that is no
        news, there is no message that says so.
        """
        guest = self._guests.get(ref)
        if guest is None or guest.presence is None:
            return
        kinds = [each for each in guest.told() if kind in {None, each} and each not in guest.presence.errors]
        for each in kinds:
            guest.presence.observed[each] = max(at, guest.observed_at(each))
        if kinds:
            self._settle(guest, *kinds)

    def guest(self, ref: GuestRef) -> Guest | None:
        """A guest whose agent record is known."""
        guest = self._guests.get(ref)
        return guest if guest and guest.presence else None

    def find(self, group: Group, ref: GuestRef, kind: str) -> Answer:
        """The answer to a read, an error among them. Order of the checks: KubeVirt's."""
        if not self.caught_up:
            return status.not_caught_up()
        guest = self._guests.get(ref)
        presence = guest.presence if guest else None
        if presence is None:
            return status.not_found(group, ref.name)
        if guest and not guest.paths:
            guest.paths = tuple((each, each.path(ref)) for each in GROUPS)
            self._settle(guest)
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
        return Fact(self._generation, message.revision, sys.intern(event.uid), event.time, message.body)

    def _guest(self, ref: GuestRef) -> Guest:
        guest = self._guests.get(ref)
        if guest is None:
            guest = self._guests[ref] = Guest(ref)
        return guest

    def _present(self, ref: GuestRef, state: AgentState, message: Message) -> None:
        guest, presence, fact = self._guest(ref), Presence.of(state, self._generation), self._fact(message)
        if state.phase == Phase.GONE:
            del self._guests[ref]
            guest.presence = None
            self._settle(guest)
            guest.presence = presence
            self._leave(guest, fact, message.revision, replaced=False)
            return
        former = guest.presence
        if former and former.generation == self._generation and former.uid != presence.uid:
            facts, paths = dict(guest.facts), guest.paths  # what is said of the new one may have come before
            self._leave(guest, guest.facts[Kind.AGENT], message.revision, replaced=True)
            guest = self._guests[ref] = Guest(ref)
            guest.facts, guest.paths = facts, paths
        guest.facts[Kind.AGENT] = fact
        guest.presence = presence
        self._changed(guest, message.revision, *guest.facts)

    def _leave(self, guest: Guest, agent: Fact, revision: int, *, replaced: bool) -> None:
        """Of a guest that went, only its last agent record is kept."""
        guest.facts = {Kind.AGENT: agent}
        guest.revision = revision
        self.fleet.left(guest, replaced=replaced)

    def _changed(self, guest: Guest, revision: int, *kinds: str) -> None:
        guest.revision = revision
        self._settle(guest, *kinds)
        if guest.presence and guest.presence.generation == self._generation:  # facts may come first
            self.fleet.changed(guest, guest.labels if LABELLED.isdisjoint(kinds) else labels_of(guest))

    def _settle(self, guest: Guest, *kinds: str) -> None:
        """Make the guest's answers those of its present state; there are none of kinds that were never told."""
        if not guest.paths:
            return
        for kind in kinds or guest.facts:
            if fact := guest.fact(kind):
                answer = of_body(fact.body, fact.revision, fact.changed_at, guest.observed_at(kind))
                for key in guest.keys(kind):
                    self.answers[key] = answer
            else:
                for key in guest.keys(kind):
                    self.answers.pop(key, None)
