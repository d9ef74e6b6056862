"""Kubernetes Events about agents."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from guestwire.errors import Rejected, TransientError
from guestwire.snapshot import AgentState, GuestRef, Phase
from status_writer.answers import Gone
from status_writer.events import BURST, REFILL, WAITING, Events, event_of

NOW = datetime(2026, 8, 22, 10, 0, tzinfo=UTC)
VMI = {"metadata": {"namespace": "ns", "name": "vm", "uid": "uid", "resourceVersion": "7"}}


def agent(*, connected: bool = True) -> AgentState:
    """A state record."""
    return AgentState(
        "ns", "vm", "uid", "ns_vm", "uuid", "host1", Phase.RUNNING, True, connected, NOW, version="7.2.22"
    )


def test_what_an_event_says() -> None:
    """Which VMI, what happened, where and when; each has a name of its own."""
    first, second = event_of(VMI, agent(), NOW), event_of(VMI, agent(connected=False), NOW + timedelta(seconds=5))

    assert ("GuestAgentConnected", "Guest agent (7.2.22) connected on host host1") == (
        first["reason"], first["message"]
    )  # fmt: skip
    assert "Guest agent disconnected on host host1" == second["message"]
    assert {**VMI["metadata"], "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance"} == (
        first["involvedObject"]
    )
    assert ("2026-08-22T10:00:00Z", "2026-08-22T10:00:05Z") == (second["firstTimestamp"], second["lastTimestamp"])
    assert first["metadata"]["name"] != second["metadata"]["name"]


def test_names_have_a_limit() -> None:
    """A VMI's name of any length makes a name that the API server takes (253 characters)."""
    long = {"metadata": {**VMI["metadata"], "name": "x" * 253}}

    assert len(event_of(long, agent(), NOW)["metadata"]["name"]) <= 253


async def recorded(events: Events, *failures: Exception) -> list[dict[str, Any]]:
    """What is sent of all that waits; the first attempts fail."""
    sent: list[dict[str, Any]] = []
    waiting = list(failures)

    async def record(namespace: str, event: dict[str, Any]) -> None:
        sent.append(event)
        if waiting:
            raise waiting.pop(0)

    task = asyncio.create_task(events.run(record))
    for _ in range(5 * WAITING):
        await asyncio.sleep(0)
    task.cancel()
    assert 0 == len(events)
    return sent


async def test_one_vmi_is_cut_off() -> None:
    """A burst of one VMI's, then one for every refill; others are not concerned, and one that is gone starts anew."""
    events = Events()
    for _ in range(3 * BURST):
        events.tell(VMI, agent(), NOW)
    assert BURST == len(await recorded(events))
    for _ in range(3):
        events.tell(VMI, agent(), NOW + timedelta(seconds=REFILL))
    events.tell({"metadata": {**VMI["metadata"], "name": "other"}}, agent(), NOW)
    assert 2 == len(await recorded(events))
    events.forget(GuestRef("ns", "vm"))
    events.tell(VMI, agent(), NOW)

    assert 1 == len(await recorded(events))


async def test_failures_hold_nothing_up() -> None:
    """What cannot be created is given up, one attempt each, and the next is sent."""
    events = Events()
    for _ in range(4):
        events.tell(VMI, agent(), NOW)

    assert 4 == len(await recorded(events, Rejected("no"), TransientError("busy"), Gone("no namespace")))


def test_the_queue_is_bounded() -> None:
    """With nobody to send them, no more than so many wait."""
    events = Events()
    for number in range(WAITING + 5):
        events.tell({"metadata": {**VMI["metadata"], "name": str(number)}}, agent(), NOW)

    assert WAITING == len(events)
