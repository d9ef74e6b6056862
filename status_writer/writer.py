"""
The stage: NATS -> VMI status.

Level-triggered. A message, a change of the VMI and the end of a grace do one thing: they mark the guest. A reconcile
then compares what the stream knows last with what the VMI says now, and writes the difference. Lost, doubled or
reordered messages cost time, not truth. Messages are settled by the outcome of the reconcile that saw them
(`outcome.TABLE`).

Several replicas share the durable consumer and watch every VMI each; patches are guarded, so the slower one finds
nothing left to do.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from guestwire.codec import decode, now
from guestwire.errors import ContractError, NotConnected, TransientError
from guestwire.jetstream import Bus, Message, translated
from guestwire.lifecycle import backoff, cancel
from guestwire.logs import logger
from guestwire.pending import Pending
from guestwire.settings import Status
from guestwire.snapshot import AgentState, Body, GuestOSInfo, GuestRef, Interfaces, Kind
from status_writer import metrics
from status_writer.consumer import ACK_WAIT, Consumer
from status_writer.inbox import Delivery, Inbox
from status_writer.outcome import TABLE, Conflict, Outcome, of_error
from status_writer.pace import Pace
from status_writer.status_patch import Decision, Facts, Patch, Verdict, Vmi, decide

log = logger("status")

B = TypeVar("B", bound=Body)

ATTEMPTS = 3
"""Decisions in one reconcile when someone else keeps writing; after them it is tried again later."""

LONGEST_RETRY = 60.0

RETRY_REFUSED = 600.0
"""Seconds until content that was refused is tried again: rights and definitions do change, but not often."""

_OUTCOMES = {Verdict.FOREIGN: Outcome.FOREIGN}


class VmiStatus(Protocol):
    """What the writer needs of the API server."""

    def get(self, ref: GuestRef) -> Vmi | None:
        """A VMI as the watch cache has it."""

    async def read(self, ref: GuestRef) -> Vmi | None:
        """A VMI as it is now. Raises TransientError, Rejected."""

    async def patch(self, ref: GuestRef, patch: Patch) -> Vmi | None:
        """The VMI after a patch of its status; None when it is gone. Raises Conflict, TransientError, Rejected."""


class StatusWriter:
    """Runs from `run` to `stop`; `mark` tells it that a guest's VMI has changed."""

    def __init__(self, bus: Bus, cluster: str, settings: Status) -> None:
        self._bus = bus
        self._cluster = cluster
        self._settings = settings
        self._pending: Pending[GuestRef] = Pending()
        self._inbox = Inbox()
        self._pace: Pace[GuestRef] = Pace(settings.min_interval)
        self._seen: dict[GuestRef, Interfaces] = {}  # what each VMI was last compared with
        self._retries: defaultdict[GuestRef, Iterator[float]] = defaultdict(lambda: backoff(longest=LONGEST_RETRY))
        self._consumer = Consumer(bus, cluster, settings.durable, self._received)
        self._stopping = False
        metrics.PENDING.set_function(self._pending.__len__)

    @property
    def consuming(self) -> bool:
        """Whether messages can come."""
        return self._consumer.there

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
        hold = asyncio.create_task(self._hold(), name="hold")
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
            await cancel(stopped, hold, work, consume)
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
        if vmi is None:
            return self._gone(ref)
        facts = await self._facts(ref, deliveries)
        for _ in range(ATTEMPTS):
            decision = decide(vmi, facts, now(), self._settings)
            if not decision.patch:
                self._remember(ref, facts)
                return _OUTCOMES.get(decision.verdict, Outcome.UNCHANGED), decision.again
            if wait := self._pace.wait(ref, time.monotonic()):
                return Outcome.LATER, wait
            try:
                after = await self._vmis.patch(ref, decision.patch)
            except Conflict:
                metrics.CONFLICTS.inc()
                vmi = await self._vmis.read(ref)
            else:
                vmi = after
                if after is not None:
                    return self._patched(ref, decision, after, facts)
            if vmi is None:
                return self._gone(ref)
        raise Conflict(f"VMI {ref} changes faster than it can be written")

    def _patched(self, ref: GuestRef, decision: Decision, after: Vmi, facts: Facts) -> tuple[Outcome, float | None]:
        self._remember(ref, facts)
        metrics.PATCHES.inc()
        metrics.CUT.inc(decision.cut)
        repeated = self._pace.patched(ref, decision.patch, time.monotonic())
        left = decide(after, facts, now(), self._settings)
        log.info("patched", vmi=str(ref), changed=decision.paths, **({"repeated": True} if repeated else {}))
        return (Outcome.REVERTED, None) if left.patch else (Outcome.PATCHED, decision.again)

    def _gone(self, ref: GuestRef) -> tuple[Outcome, float | None]:
        self._pace.forget(ref)
        self._seen.pop(ref, None)
        return Outcome.GONE, None

    def _remember(self, ref: GuestRef, facts: Facts) -> None:
        if facts.interfaces is not None:
            self._seen[ref] = facts.interfaces

    async def _facts(self, ref: GuestRef, deliveries: Sequence[Delivery]) -> Facts:
        """
        What the stream knows last about a guest. A message in hand counts when a lagging replica of the stream answers
        with an older one. Facts about another incarnation of the guest are none.
        """
        last = await self._bus.last(self._cluster, ref)
        for message in (delivery.message for delivery in deliveries):
            kind = message.address.kind
            if kind not in last or last[kind].revision < message.revision:
                last[kind] = message
        agent = _body(last.get(Kind.AGENT), AgentState)
        if agent is None:
            return Facts()
        last = {kind: message for kind, message in last.items() if message.event.uid == agent.uid}
        state = last.get(Kind.AGENT)
        return Facts(
            agent,
            state.event.time if state else None,
            _body(last.get(Kind.INTERFACES), Interfaces),
            self._seen.get(ref),
            _body(last.get(Kind.GUESTOSINFO), GuestOSInfo),
        )

    def _tell(self, ref: GuestRef, outcome: Outcome, error: Exception | None, again: float | None) -> None:
        consequence = TABLE[outcome]
        facts = {"vmi": str(ref), "outcome": outcome.value, "result": consequence.result}
        if outcome is Outcome.PATCHED:
            return  # told with what was patched
        if outcome is Outcome.REVERTED:
            facts["hint"] = (
                "the API server accepts the patch and keeps its own status; under KubeVirt set "
                "status.impersonate_user to one of its service accounts"
            )
        if error is not None:
            facts |= {"error": str(error), "error_type": type(error).__name__, "stage": "status"}
        # An outage is told once, by whoever holds the connection, and not again for every guest.
        level = "debug" if isinstance(error, NotConnected) else consequence.level
        getattr(log, level)("reconciled", again=again, **facts)


def _body(message: Message | None, kind: type[B]) -> B | None:
    """A message's body; None, which is unknown, where there is none or it does not follow the contract."""
    if message is None:
        return None
    try:
        return decode(message.body, kind)
    except ContractError as error:
        log.warning("message does not follow the contract", subject=message.address.subject, error=str(error))
        return None
