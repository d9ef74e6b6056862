"""
The stage: NATS -> VMI status.

Level-triggered. A message, a change of the VMI and the end of a grace do one thing: they mark the guest. A reconcile
then compares what the stream knows last with what the VMI says now, and writes the difference. Lost, doubled or
reordered messages cost time, not truth. Messages are settled by the outcome of the reconcile that saw them
(`outcome.TABLE`).

Several replicas share the durable consumer and watch every VMI each; patches are guarded, so the slower one finds
nothing left to do. What keeps a late one from undoing a newer status is the order of a reconcile: first the VMI, then
the facts, and after a conflict both again. Whatever the VMI showed was made from facts that the stream had before.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol

from guestwire.codec import now
from guestwire.errors import NotConnected, TransientError
from guestwire.jetstream import Bus, translated
from guestwire.lifecycle import backoff, cancel
from guestwire.logs import logger
from guestwire.pending import Pending
from guestwire.settings import Status
from guestwire.snapshot import GuestRef
from status_writer import metrics
from status_writer.conditions import is_connected
from status_writer.consumer import ACK_WAIT, Consumer
from status_writer.effect import Effect
from status_writer.events import Events
from status_writer.facts import FactsReader
from status_writer.inbox import Delivery, Inbox
from status_writer.outcome import TABLE, Conflict, Outcome, of_error
from status_writer.pace import Bucket, Pace
from status_writer.status_patch import Decision, Facts, Patch, Verdict, Vmi, decide

log = logger("status")

ATTEMPTS = 3
"""Decisions in one reconcile when someone else keeps writing; after them it is tried again later."""

LONGEST_RETRY = 60.0

RETRY_REFUSED = 600.0
"""Seconds until content that was refused is tried again: rights and definitions do change, but not often."""

APPLIED = frozenset((Outcome.PATCHED, Outcome.UNCHANGED, Outcome.GONE, Outcome.FOREIGN))
"""After these nothing of what was received waits for anything."""

_OUTCOMES = {Verdict.FOREIGN: Outcome.FOREIGN}


class VmiStatus(Protocol):
    """What the writer needs of the API server."""

    def get(self, ref: GuestRef) -> Vmi | None:
        """A VMI as the watch cache has it."""

    async def read(self, ref: GuestRef) -> Vmi | None:
        """A VMI as it is now. Raises TransientError, Rejected."""

    async def patch(self, ref: GuestRef, patch: Patch) -> Vmi | None:
        """The VMI after a patch of its status; None when it is gone. Raises Conflict, TransientError, Rejected."""

    async def record(self, namespace: str, event: dict[str, Any]) -> None:
        """Create a Kubernetes Event. Raises TransientError, Rejected, Gone."""


class StatusWriter:
    """Runs from `run` to `stop`; `mark` tells it that a guest's VMI has changed."""

    def __init__(self, bus: Bus, cluster: str, settings: Status) -> None:
        self._bus = bus
        self._cluster = cluster
        self._settings = settings
        self._pending: Pending[GuestRef] = Pending()
        self._inbox = Inbox()
        self._pace: Pace[GuestRef] = Pace(settings.min_interval)
        self._bucket = Bucket(settings.max_rate, settings.max_rate)
        self._effect = Effect()
        self._events = Events()
        self._facts = FactsReader(bus, cluster)
        self._retries: defaultdict[GuestRef, Iterator[float]] = defaultdict(lambda: backoff(longest=LONGEST_RETRY))
        self._consumer = Consumer(bus, cluster, settings.durable, self._received)
        self._stopping = False
        metrics.PENDING.set_function(self._pending.__len__)
        metrics.OLDEST.set_function(self._inbox.oldest)

    @property
    def consuming(self) -> bool:
        """Whether messages can come."""
        return self._consumer.there

    @property
    def effective(self) -> bool:
        """Whether patches do something."""
        return self._effect.holds

    def mark(self, ref: GuestRef) -> None:
        """Look at a guest."""
        self._pending.add(ref)

    def retry_now(self) -> None:
        """Do not wait longer with what failed: what it failed for is there again."""
        for ref in list(self._retries):
            self._pending.add(ref)

    async def run(self, vmis: VmiStatus, stop: asyncio.Event) -> None:
        """
        Until `stop` is set and what was under way is done. The rest is delivered again, to whoever comes next.
        Raises ConfigError when the consumer is not ours to use.
        """
        self._vmis = vmis
        self._bus.on_reconnect(self.retry_now)
        ending = asyncio.Event()
        consume = asyncio.create_task(self._consumer.run(ending), name="consume")
        beside = [
            asyncio.create_task(self._hold(), name="hold"),
            asyncio.create_task(self._facts.run(), name="facts"),
            asyncio.create_task(self._events.run(vmis.record), name="events"),
        ]
        work = asyncio.create_task(self._pending.work(self._settings.workers, self._handle), name="work")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({consume, work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            ending.set()
            self._stopping = True
            self._pending.close(drain=False)
            await work
        finally:
            ending.set()
            await cancel(stopped, work, consume, *beside)
        if not consume.cancelled():
            consume.result()

    def _received(self, delivery: Delivery) -> None:
        self._inbox.add(delivery)
        self._pending.add(delivery.message.address.ref)

    async def _hold(self) -> None:
        while True:
            await asyncio.sleep(ACK_WAIT / 3)
            with suppress(TransientError), translated("in progress"):
                await self._inbox.hold()

    async def _handle(self, ref: GuestRef) -> float | None:
        """One reconcile, settled; the seconds after which the guest wants another look."""
        deliveries = self._inbox.take(ref)
        error: Exception | None = None
        again: float | None = None
        started = time.perf_counter()
        try:
            outcome, again = await self._reconcile(ref, deliveries)
        except asyncio.CancelledError:
            metrics.RESULTS.labels(TABLE[Outcome.CANCELLED].result).inc()
            raise
        except Exception as caught:
            outcome, error = of_error(caught), caught
        metrics.RECONCILE_SECONDS.observe(time.perf_counter() - started)
        metrics.RESULTS.labels(TABLE[outcome].result).inc()
        if TABLE[outcome].retry:
            again = self._pause(ref, outcome, error)
        elif outcome is not Outcome.LATER:
            self._retries.pop(ref, None)
        if outcome in APPLIED:
            self._inbox.applied(ref)
        self._tell(ref, outcome, error, again)
        try:
            with translated("settle"):
                await self._inbox.settle(ref, TABLE[outcome].verb, delay=again or 0)
        except NotConnected as problem:
            log.debug("messages stay unsettled", vmi=str(ref), error=str(problem))
        return None if self._stopping else again

    def _pause(self, ref: GuestRef, outcome: Outcome, error: Exception | None) -> float:
        told = error.delay if isinstance(error, TransientError) else None
        least = RETRY_REFUSED if outcome is Outcome.PERMANENT else 0
        return max(next(self._retries[ref]), told or 0, least)

    async def _reconcile(self, ref: GuestRef, deliveries: Sequence[Delivery]) -> tuple[Outcome, float | None]:
        vmi = self._vmis.get(ref)
        for _ in range(ATTEMPTS):
            if vmi is None:
                return self._gone(ref)
            facts = await self._facts.about(ref, vmi, (delivery.message for delivery in deliveries))
            moment = now()
            decision = decide(vmi, facts, moment, self._settings)
            if not decision.patch:
                return _OUTCOMES.get(decision.verdict, Outcome.UNCHANGED), decision.again
            if wait := self._pace.wait(ref, time.monotonic()):
                return Outcome.LATER, wait
            await self._turn()
            try:
                after = await self._vmis.patch(ref, decision.patch)
            except Conflict:
                metrics.CONFLICTS.inc()
                vmi = await self._vmis.read(ref)
            else:
                return self._patched(ref, decision, vmi, after, facts, moment) if after else self._gone(ref)
        raise Conflict(f"VMI {ref} changes faster than it can be written")

    async def _turn(self) -> None:
        """Wait until the rate of all patches allows one more."""
        while wait := self._bucket.take(time.monotonic()):  # noqa: ASYNC110 - it waits for time, not for somebody
            await asyncio.sleep(wait)

    def _patched(
        self, ref: GuestRef, decision: Decision, before: Vmi, after: Vmi, facts: Facts, moment: datetime
    ) -> tuple[Outcome, float | None]:
        metrics.PATCHES.inc()
        metrics.CUT.inc(decision.cut)
        repeated = self._pace.patched(ref, decision.patch, time.monotonic())
        if not decision.shown_by(after):
            worth_it = self._effect.not_shown(ref, decision.paths)
            return (Outcome.REVERTED if worth_it else Outcome.IN_VAIN), None
        self._effect.shown(ref)
        if self._settings.events and facts.agent and is_connected(before) != is_connected(after):
            self._events.tell(after, facts.agent, moment)
        log.info("patched", vmi=str(ref), changed=decision.paths, **({"repeated": True} if repeated else {}))
        return Outcome.PATCHED, decision.again

    def _gone(self, ref: GuestRef) -> tuple[Outcome, float | None]:
        self._pace.forget(ref)
        self._facts.forget(ref)
        self._effect.forget(ref)
        self._events.forget(ref)
        return Outcome.GONE, None

    def _tell(self, ref: GuestRef, outcome: Outcome, error: Exception | None, again: float | None) -> None:
        consequence = TABLE[outcome]
        facts = {"vmi": str(ref), "outcome": outcome.value, "result": consequence.result}
        if outcome is Outcome.PATCHED:
            return  # told with what was patched
        if error is not None:
            facts |= {"error": str(error), "error_type": type(error).__name__, "stage": "status"}
        # An outage is told once, by whoever holds the connection, and not again for every guest.
        level = "debug" if isinstance(error, NotConnected) else consequence.level
        getattr(log, level)("reconciled", again=again, **facts)
