"""What a real JetStream consumer holds after each way a reconcile can end; the API server's part is scripted."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.js.api import ConsumerInfo

import status_writer.consumer
import status_writer.writer
from guestwire.errors import NotConnected, Rejected, TransientError
from guestwire.jetstream import Bus
from guestwire.settings import Status
from guestwire.snapshot import GuestRef, Kind
from status_writer.outcome import Conflict
from status_writer.status_patch import Patch
from status_writer.status_patch import Vmi as Document
from status_writer.writer import StatusWriter

from .conftest import Guest, eventually, new_number


class Scripted:
    """One VMI; `patch` does what the script says next, in the end what it says last."""

    def __init__(self, ref: GuestRef, script: list[Any]) -> None:
        self.ref = ref
        self.script = script
        self.patches = 0
        self.document: Document | None = {"metadata": {"uid": "uid"}, "status": {"phase": "Running"}}

    def get(self, ref: GuestRef) -> Document | None:
        return self.document

    async def read(self, ref: GuestRef) -> Document | None:
        return self.document

    async def patch(self, ref: GuestRef, patch: Patch) -> Document | None:
        self.patches += 1
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if inspect.iscoroutinefunction(step):
            step = await step()
        if isinstance(step, BaseException):
            raise step
        if step == "hang":
            await asyncio.Event().wait()
        if step == "gone":
            self.document = None
        return self.document if step != "written" else self._written(patch)

    async def record(self, namespace: str, event: dict[str, Any]) -> None:
        raise AssertionError("no events were asked for")

    def _written(self, patch: Patch) -> Document:
        """As far as patches of conditions go."""
        conditions: list[Any] = []
        for operation in patch:
            if operation["op"] == "test" and operation["path"] == "/status/conditions":
                conditions = list(operation["value"] or [])
            elif operation["op"] == "add":
                added = operation["value"]
                conditions = [*conditions, added] if operation["path"].endswith("-") else added
        self.document = {"metadata": {"uid": "uid"}, "status": {"phase": "Running", "conditions": conditions}}
        return self.document


class Run:
    """A writer at work on one guest's message."""

    def __init__(self, bus: Bus, writer: StatusWriter, durable: str, vmis: Scripted, guest: Guest) -> None:
        self.guest = guest
        self.bus = bus
        self.writer = writer
        self.durable = durable
        self.vmis = vmis

    async def info(self) -> ConsumerInfo:
        """The consumer as the server has it."""
        info: ConsumerInfo = await self.bus.js.consumer_info(self.bus.settings.stream, self.durable)
        return info

    async def until(self, condition: Callable[[ConsumerInfo], bool]) -> ConsumerInfo:
        """The consumer, once a condition holds."""
        deadline = asyncio.get_running_loop().time() + 10
        info = await self.info()
        while not condition(info):
            assert asyncio.get_running_loop().time() < deadline, info
            await asyncio.sleep(0.02)
            info = await self.info()
        return info


def done(info: ConsumerInfo) -> bool:
    """Nothing is left to deliver or to settle."""
    return not info.num_pending and not info.num_ack_pending


@asynccontextmanager
async def at_work(bus: Bus, *script: Any, min_interval: float = 0) -> AsyncIterator[Run]:
    """A writer whose API server behaves as scripted, with one message to settle."""
    number = new_number()
    ref, durable, cluster = GuestRef("default", f"scripted-{number}"), f"scripted-{number}", f"scripted-{number}"
    vmis = Scripted(ref, list(script))
    stage = StatusWriter(bus, cluster, Status(durable=durable, min_interval=min_interval))
    stop = asyncio.Event()
    guest = Guest(bus, ref, uid="uid", cluster=cluster)
    await guest.publish(Kind.AGENT, guest.agent())
    task = asyncio.create_task(stage.run(vmis, stop))
    try:
        await eventually(lambda: stage.consuming and vmis.patches)
        yield Run(bus, stage, durable, vmis, guest)
    finally:
        stop.set()
        if "hang" in script:
            task.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(task, return_exceptions="hang" in script)


async def test_written_is_acknowledged(bus: Bus) -> None:
    """A message whose facts are written is done with."""
    async with at_work(bus, "written") as run:
        info = await run.until(done)

    assert 0 == info.num_redelivered
    assert 1 == run.vmis.patches


async def test_gone_is_acknowledged(bus: Bus) -> None:
    """A VMI that is gone when it is to be written settles its message."""
    async with at_work(bus, "gone") as run:
        await run.until(done)

    assert 1 == run.vmis.patches


@pytest.mark.parametrize(
    "failure", [TransientError("busy", delay=0.2), NotConnected("away"), ZeroDivisionError("a bug")], ids=str
)
async def test_trouble_is_delivered_again(bus: Bus, failure: Exception) -> None:
    """A message is not lost to trouble, foreseen or not: it comes again, and is written then."""
    async with at_work(bus, failure, "written") as run:
        await run.until(lambda info: bool(info.num_redelivered) or done(info))
        await run.until(done)
        second = run.vmis.document

    assert 2 == run.vmis.patches
    assert second
    assert "AgentConnected" == second["status"]["conditions"][0]["type"]


async def test_conflict_is_decided_again_at_once(bus: Bus) -> None:
    """After a conflict the VMI is read and decided again within the same reconcile."""
    async with at_work(bus, Conflict(), Conflict(), "written") as run:
        info = await run.until(done)

    assert 0 == info.num_redelivered
    assert 3 == run.vmis.patches


async def test_after_a_conflict_the_facts_are_read_again(bus: Bus) -> None:
    """
    Somebody was faster, and may have known more: what he wrote is not replaced by what was known before. Here the
    agent disconnects while the patch that says it is connected is refused.
    """

    async def faster() -> Conflict:
        await run.guest.publish(Kind.AGENT, run.guest.agent(connected=False))
        return Conflict()

    async with at_work(bus, "written", faster, "written") as run:
        await run.until(done)
        run.vmis.document = {"metadata": {"uid": "uid"}, "status": {"phase": "Running"}}
        run.writer.mark(run.vmis.ref)
        await run.until(done)
        await eventually(lambda: run.vmis.patches == 2)
        await run.until(done)
        shown = run.vmis.document

    assert {"metadata": {"uid": "uid"}, "status": {"phase": "Running"}} == shown
    assert 2 == run.vmis.patches


async def test_endless_conflict_comes_later(bus: Bus) -> None:
    """When somebody always is faster, the message comes again later instead of spinning."""
    async with at_work(bus, Conflict(), Conflict(), Conflict(), "written") as run:
        await run.until(lambda info: bool(info.num_redelivered) or done(info))
        await run.until(done)

    assert 4 == run.vmis.patches


async def test_refused_content_is_given_up(bus: Bus) -> None:
    """A message whose content the API server refuses does not come again."""
    async with at_work(bus, Rejected("no")) as run:
        info = await run.until(done)
        await asyncio.sleep(1)
        later = await run.info()

    assert 0 == info.num_redelivered
    assert 0 == later.num_redelivered
    assert 1 == run.vmis.patches


async def test_cancelled_is_not_settled(bus: Bus) -> None:
    """A reconcile that is cut off leaves its message to be delivered again, by whoever comes next."""
    async with at_work(bus, "hang") as run:
        pass
    info = await run.info()

    assert 1 == info.num_ack_pending


async def test_stop_during_an_outage_is_quick(bus: Bus) -> None:
    """A writer that is told to stop while everything fails stops, without hammering."""
    async with at_work(bus, NotConnected("away")) as run:
        before = run.vmis.patches

    assert run.vmis.patches <= before + 1


async def test_retry_now_does_not_wait(bus: Bus) -> None:
    """What failed for an outage is tried again when it is over, not when its pause is."""
    async with at_work(bus, TransientError("away", delay=30), "written") as run:
        await asyncio.sleep(0.2)
        run.writer.retry_now()
        await eventually(lambda: run.vmis.patches == 2, within=5)


async def test_marked_guest_needs_no_message(bus: Bus) -> None:
    """A change of the VMI alone starts a reconcile, which reads the facts from the stream."""
    async with at_work(bus, "written") as run:
        await run.until(done)
        run.vmis.document = {"metadata": {"uid": "uid"}, "status": {"phase": "Running"}}
        run.writer.mark(run.vmis.ref)
        await eventually(lambda: run.vmis.patches == 2, within=5)


async def test_waiting_messages_are_held(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that waits for its VMI's interval longer than JetStream would is not delivered twice."""
    monkeypatch.setattr(status_writer.consumer, "ACK_WAIT", 1.0)
    monkeypatch.setattr(status_writer.writer, "ACK_WAIT", 1.0)
    async with at_work(bus, "written", min_interval=2.5) as run:
        await run.until(done)
        began = asyncio.get_running_loop().time()
        await run.guest.publish(Kind.AGENT, run.guest.agent(commands=()))
        await run.until(lambda info: bool(info.num_ack_pending))
        await asyncio.sleep(1.5)
        waiting = await run.info()
        info = await run.until(done)
        took = asyncio.get_running_loop().time() - began

    assert 1 == waiting.num_ack_pending
    assert 0 == info.num_redelivered
    assert 2 == run.vmis.patches
    assert took >= 2


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_stop_at_any_moment(bus: Bus, turns: int) -> None:
    """However early it is told to stop, it stops: an answer of NATS that arrives together with it does not keep it."""
    number = new_number()
    stage = StatusWriter(bus, f"stopped-{number}", Status(durable=f"stopped-{number}"))
    stop = asyncio.Event()
    task = asyncio.create_task(stage.run(Scripted(GuestRef("default", "none"), []), stop))
    for _ in range(turns):
        await asyncio.sleep(0.0005)
    stop.set()
    async with asyncio.timeout(5):
        await task
