"""
All guests in order: by name for lists, by their changes for watches.

A watch is a position, the revision up to which everything has been told. What is still to be told is what changed after
it, and guests are told as they are now. So a watch that is slow skips what is outdated, nothing is kept for it
meanwhile, and one that comes from another replica, or comes back, goes on where it was: the order is the stream's.

What decides who has a guest at all, its coming, its going, its labels, is never skipped: the last of these changes are
kept, so that at any position it is known who has been told of it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import deque
from operator import attrgetter
from typing import NamedTuple

from api.guest import Guest, Labels
from guestwire.snapshot import GuestRef

KEPT = 50_000
"""Comings, goings and changes of labels that are kept."""

UNKNOWN: Labels = {}
"""Labels of which nobody knows; to be compared by identity."""


class Change(NamedTuple):
    """What happened to a guest in one revision."""

    revision: int
    guest: Guest
    before: Labels | None
    """Its labels; None when it was not there."""
    after: Labels | None
    """None when it is not there any more."""
    kept: bool = False
    replaced: bool = False
    """Another guest of its name came in the same revision."""


Scope = tuple[str | None, str | None]
"""Namespace and name; None for any."""


class Fleet:
    """The cache tells what changed; revisions only grow until `reset`."""

    def __init__(self) -> None:
        self.revision = 0
        """The last that was taken in."""
        self.floor = 0
        """Who is behind this revision may have missed that a guest went."""
        self.generation = 0
        """Grows with `reset`: positions of before mean nothing any more."""
        self.guests: dict[GuestRef, Guest] = {}
        """Those that are there, once their agent record is known."""
        self.watches = 0
        """Clients that watch."""
        self.names: list[GuestRef] = []
        """Theirs, sorted; complete after the fill."""
        self._filled_to = 0
        """The revision at the end of the fill: what changed up to there, and how, is not known; 0 amid the fill."""
        self._log: list[Change] = []
        self._most = 1024
        self._kept: deque[int] = deque()
        self.asleep: dict[Scope, set[Sleeper]] = {}
        self._awaited: set[asyncio.Event] = set()

    def reset(self) -> None:
        """Everything is told anew, with other revisions."""
        self.generation += 1
        self.revision = self.floor = self._filled_to = 0
        self._log.clear()
        self._kept.clear()
        self.guests.clear()
        self.wake_all()

    def complete(self, floor: int) -> None:
        """The fill is over; guests that went up to revision `floor` may have been missing from it."""
        self._log += (Change(guest.revision, guest, UNKNOWN, guest.labels) for guest in self.guests.values())
        self._log.sort(key=attrgetter("revision"))  # stable: who was replaced went before
        self._most = 2 * len(self._log) + 1024
        self.names = sorted(self.guests)
        self._filled_to = max(1, self.revision)
        self.floor = floor
        self.wake_all()

    def changed(self, guest: Guest, labels: Labels) -> None:
        """Something was said of a guest, which may be a new one; its revision is the newest, its labels are these."""
        known = self.guests.get(guest.ref) is guest
        if not known and self._filled_to and guest.ref not in self.guests:
            insort(self.names, guest.ref)
        self.guests[guest.ref] = guest
        before, guest.labels = guest.labels, labels
        if not self._filled_to:
            return  # it is told of when the fill is over
        if known and before == labels:
            self._append(Change(guest.revision, guest, labels, labels))
        else:
            self._append(Change(guest.revision, guest, before if known else None, labels, kept=True))

    def left(self, guest: Guest, *, replaced: bool = False) -> None:
        """A guest went; its revision is that of the message that said so."""
        known = self.guests.pop(guest.ref, None)
        if known and self._filled_to:
            del self.names[bisect_left(self.names, guest.ref)]
        before = guest.labels if known and self._filled_to else UNKNOWN
        self._append(Change(guest.revision, guest, before, None, kept=True, replaced=replaced))

    def advance(self, revision: int) -> None:
        """All up to this revision has been taken in."""
        self.revision = revision
        for event in self._awaited:
            event.set()

    def since(self, position: int, most: int) -> tuple[list[Change], int]:
        """What is to be told after a position, among the next `most` changes; and the position behind them."""
        begin = bisect_right(self._log, position, key=attrgetter("revision"))
        end = min(begin + most, len(self._log))
        while begin < end < len(self._log) and self._log[end].revision == self._log[end - 1].revision:
            end += 1  # a guest and its successor change at the same time
        changes = [change for change in self._log[begin:end] if self._counts(change)]
        return changes, self.revision if end == len(self._log) else self._log[end - 1].revision

    def select(self, start: GuestRef | None, scope: Scope, most: int) -> tuple[list[Guest], bool]:
        """The next guests in the order of names, behind `start`, and whether there may be more."""
        namespace, name = scope
        if namespace is not None and name is not None:
            guest = self.guests.get(GuestRef(namespace, name))
            return [guest] if guest and (start is None or guest.ref > start) else [], False
        first = GuestRef(namespace, "") if namespace is not None else None
        begin = bisect_right(self.names, start) if start and (first is None or start >= first) else 0
        if first is not None and begin == 0:
            begin = bisect_left(self.names, first)
        refs = self.names[begin : begin + most]
        within = [ref for ref in refs if namespace is None or ref.namespace == namespace]
        more = len(within) == len(refs) and begin + most < len(self.names)
        return [self.guests[ref] for ref in within if name is None or ref.name == name], more

    def behind(self, ref: GuestRef, scope: Scope) -> int:
        """How many guests follow in a namespace, or in all."""
        namespace, _ = scope
        end = bisect_left(self.names, GuestRef(namespace + "\0", "")) if namespace is not None else len(self.names)
        return max(0, end - bisect_right(self.names, ref))

    async def reached(self, revision: int, patience: float) -> bool:
        """Wait until a revision was taken in, some seconds at most."""
        if self.revision >= revision:
            return True
        event = asyncio.Event()
        self._awaited.add(event)
        try:
            async with asyncio.timeout(patience):
                while self.revision < revision:
                    event.clear()
                    await event.wait()
        except TimeoutError:
            return False
        finally:
            self._awaited.discard(event)
        return True

    def wake_all(self) -> None:
        """Whatever they wait for: they shall look again."""
        for sleepers in self.asleep.values():
            for sleeper in sleepers:
                sleeper.event.set()

    def _counts(self, change: Change) -> bool:
        """Whether it is a guest's last change, or one that is kept."""
        last = change.after is not None and change.revision == change.guest.revision
        kept = change.kept or change.revision <= self._filled_to  # of the fill's it is not known what they changed
        return last or (kept and change.revision > self.floor)

    def _compact(self) -> None:
        self._log = [each for each in self._log if self._counts(each)]
        self._most = 2 * len(self._log) + 1024

    def _append(self, change: Change) -> None:
        self._log.append(change)
        if change.kept:
            self._kept.append(change.revision)
            while len(self._kept) > KEPT:
                self.floor = max(self.floor, self._kept.popleft())
        if len(self._log) > self._most:
            self._compact()
        namespace, name = change.guest.ref.namespace, change.guest.ref.name
        for scope in ((None, None), (namespace, None), (None, name), (namespace, name)):
            for sleeper in self.asleep.get(scope, ()):
                sleeper.wake(change.revision)


class Sleeper:
    """
    A watch that has been told everything in its scope. Nothing in between concerned it when it is woken, so it goes on
    right before the change that woke it.
    """

    def __init__(self, fleet: Fleet, scope: Scope) -> None:
        self.event = asyncio.Event()
        self.position = 0
        self._fleet = fleet
        self._scope = scope

    def wake(self, revision: int) -> None:
        """For a change of that revision."""
        if not self.event.is_set():
            self.position = max(self.position, revision - 1)
            self.event.set()

    async def sleep(self, position: int) -> int:
        """Until there may be something new; the position from where to look. May be cancelled."""
        self.position = position
        self.event.clear()
        asleep = self._fleet.asleep
        asleep.setdefault(self._scope, set()).add(self)
        try:
            await self.event.wait()
        finally:
            asleep[self._scope].discard(self)
            if not asleep[self._scope]:
                del asleep[self._scope]
        return self.position
