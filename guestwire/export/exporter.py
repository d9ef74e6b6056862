"""
From the stream into a store, each message once.

The store keeps rows and position together, so what was read and not stored is read again, and nothing else. A batch is
stored only if the stream is the same one before and after it was read: what came in between came from that one.

Everything that blocks runs in a thread. At most two batches are held: one being stored, one being filled; when both
are full the server waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

import msgspec

from guestwire import subjects
from guestwire.errors import TransientError
from guestwire.export import metrics
from guestwire.export.intake import Intake
from guestwire.export.position import Position, place
from guestwire.export.tables import moment
from guestwire.follower import Follower
from guestwire.jetstream import Bus, Message, translated
from guestwire.lifecycle import backoff, cancel, sleep_unless
from guestwire.logs import logger

log = logger("export")


class Store(Protocol):
    """Where rows go. Its methods block; GuestwireError where the disk or the file is at fault."""

    def locked(self) -> AbstractContextManager[None]:
        """Be the only writer."""
        ...

    def position(self) -> Position | None:
        """Open it, and how far it is. TransientError: somebody else has it open."""
        ...

    def append(self, position: Position, messages: Sequence[Message]) -> int:
        """Messages up to a position, all or nothing; the rows. TransientError: somebody else has it open."""
        ...

    def refresh(self, *, at_once: bool = False) -> None:
        """Bring up to date what is made of the rows, if it is time."""
        ...


class Progress(msgspec.Struct):
    """What one run has done so far."""

    messages: int = 0
    revision: int = 0
    last: int = 0
    """The stream's last revision when it was looked at."""
    missed: int = 0
    """
    Revisions since the run before that were not in the stream any more, or are not of ours. Not counted where not all
    subjects are wanted.
    """


class Exporter:
    """
    One run; `follow` goes on for ever, storing what came every so many seconds. `pattern` is of the subjects wanted; an
    export of some is continued as one of the same.
    """

    def __init__(
        self,
        bus: Bus,
        store: Store,
        *,
        pattern: str = subjects.STREAM_SUBJECT,
        follow: bool = False,
        every: float = 10.0,
        report: Callable[[Progress], None] = lambda _progress: None,
    ) -> None:
        self.progress = Progress()
        self.working = False
        """Whether nothing hinders it: the stream is there, and the store takes what came."""
        stream = bus.settings.stream
        self._whole = pattern == subjects.STREAM_SUBJECT
        self._name = stream if self._whole else f"{stream} {pattern}"
        self._pattern = pattern
        self._bus = bus
        self._store = store
        self._follow = follow
        self._every = every
        self._report = report

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, or until all is exported that was in the stream at the start; waits while NATS is away."""
        with self._store.locked():
            ended = False
            while not ended and not stop.is_set():
                position = await self._place(stop)
                if position is not None:
                    ended = await self._read(position, stop)
            await asyncio.to_thread(self._store.refresh, at_once=True)

    async def _place(self, stop: asyncio.Event) -> Position | None:
        """Where to go on; None at `stop`."""
        for attempt, pause in enumerate(backoff(longest=5)):
            try:
                known = await asyncio.to_thread(self._store.position)
                created, last = await self._stream()
            except TransientError as error:
                await self._wait(error, attempt, pause, stop)
                if stop.is_set():
                    return None
            else:
                position = place(known, self._name, created, last)
                if known and position.epoch != known.epoch:
                    log.warning("the stream was made anew", epoch=position.epoch, created=str(created))
                self.progress.revision, self.progress.last = position.revision, last
                self.working = True
                return position
        return None

    async def _read(self, position: Position, stop: asyncio.Event) -> bool:
        """Store what one stream holds from a position on. False when it is another stream now."""
        intake, resumed = Intake(), position.revision > 0
        follower = Follower(self._bus, self._pattern, intake, after=position.revision)
        following = asyncio.create_task(follower.run(), name="follower")
        waking = asyncio.create_task(_wake(stop, intake))
        try:
            while not intake.changed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(intake.due.wait(), self._every)
                ending, level = stop.is_set() or (intake.level and not self._follow), intake.level
                messages = intake.take()
                if messages:
                    before, position = position, msgspec.structs.replace(position, revision=messages[-1].revision)
                    rows = await self._append(position, messages, stop)
                    if rows is None:
                        return stop.is_set()
                    self._count(before, messages, rows, resumed=resumed)
                elif level:
                    metrics.LAG.set(0)  # the last revisions of the stream may be others' than those wanted
                resumed = resumed or level
                await asyncio.to_thread(self._store.refresh)
                if ending:
                    return True
            return False
        finally:
            await cancel(following, waking)

    async def _append(self, position: Position, messages: Sequence[Message], stop: asyncio.Event) -> int | None:
        """Store a batch, trying until it works; its rows. None when the stream is another one now, and at `stop`."""
        for attempt, pause in enumerate(backoff(longest=5)):
            try:
                created, self.progress.last = await self._stream()
                metrics.LAG.set(max(0, self.progress.last - self.progress.revision))
                if created != position.created:
                    return None
                rows = await asyncio.to_thread(self._store.append, position, messages)
            except TransientError as error:
                await self._wait(error, attempt, pause, stop)
                if stop.is_set():
                    return None
            else:
                self.working = True
                return rows
        return None

    async def _stream(self) -> tuple[datetime, int]:
        """When the stream was made, and its last revision. Raises NotConnected."""
        with translated(f"stream {self._bus.settings.stream}"):
            info = await self._bus.js.stream_info(self._bus.settings.stream)
        created = moment(info.created)
        if created is None:
            raise TransientError(f"stream {self._bus.settings.stream}: no time of creation")
        return created, info.state.last_seq

    async def _wait(self, error: TransientError, attempt: int, pause: float, stop: asyncio.Event) -> None:
        if attempt == 1:  # once: an answer may have been late behind many messages
            log.warning("cannot export, trying on", error=str(error))
            self.working = False
        await sleep_unless(stop, pause)

    def _count(self, before: Position, messages: Sequence[Message], rows: int, *, resumed: bool) -> None:
        progress, last = self.progress, messages[-1].revision
        progress.messages += len(messages)
        progress.revision = last
        metrics.MESSAGES.inc(len(messages))
        metrics.ROWS.inc(rows)
        metrics.COMMITTED.set_to_current_time()
        metrics.LAG.set(max(0, progress.last - last))
        if resumed and self._whole:  # what was gone before the first run of all is no loss
            missed = last - before.revision - len(messages)
            progress.missed += missed
            metrics.MISSED.inc(missed)
        self._report(progress)


async def _wake(stop: asyncio.Event, intake: Intake) -> None:
    await stop.wait()
    intake.due.set()
