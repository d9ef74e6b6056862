"""
Kubernetes Events on a VMI: its guest agent connected, or disconnected.

They are for people who read `kubectl describe`, so they are sent beside the patches and never hold one up: a queue of
`WAITING`, one attempt each, and what fails is counted. One VMI gets `BURST` of them, and then one more for every
`REFILL` seconds, as client-go's recorder does (tools/record/events_cache.go EventSourceObjectSpamFilter, with a smaller
burst): a guest whose agent crashes in a loop must not fill the API server's store.

The writer whose patch changed the condition records it, so several replicas record it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from guestwire.errors import GuestwireError
from guestwire.logs import logger
from guestwire.snapshot import AgentState, GuestRef
from status_writer.answers import Gone
from status_writer.conditions import rfc3339
from status_writer.metrics import EVENTS
from status_writer.pace import Bucket

log = logger("status")

BURST = 10
REFILL = 300.0
WAITING = 1000
CONNECTED, DISCONNECTED = "GuestAgentConnected", "GuestAgentDisconnected"

Record = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Creates an Event in a namespace."""


class Events:
    """Sends while `run` runs."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(WAITING)
        self._buckets: dict[GuestRef, Bucket] = {}
        self._said = ""

    def __len__(self) -> int:
        """Events that wait."""
        return self._queue.qsize()

    def tell(self, vmi: Mapping[str, Any], agent: AgentState, moment: datetime) -> None:
        """The VMI's condition has changed to what the record says, at `moment`."""
        ref = GuestRef(vmi["metadata"]["namespace"], vmi["metadata"]["name"])
        bucket = self._buckets.setdefault(ref, Bucket(1 / REFILL, BURST))
        if bucket.take(moment.timestamp()) or self._queue.full():
            EVENTS.labels("limited").inc()
            return
        self._queue.put_nowait((ref.namespace, event_of(vmi, agent, moment)))

    def forget(self, ref: GuestRef) -> None:
        """The VMI is gone."""
        self._buckets.pop(ref, None)

    async def run(self, record: Record) -> None:
        """Until cancelled."""
        while True:
            namespace, event = await self._queue.get()
            try:
                await record(namespace, event)
            except (GuestwireError, Gone) as error:
                EVENTS.labels("failed").inc()
                if str(error) != self._said:
                    self._said = str(error)
                    log.warning("cannot record events", error=self._said)
            else:
                EVENTS.labels("recorded").inc()
                self._said = ""


def event_of(vmi: Mapping[str, Any], agent: AgentState, moment: datetime) -> dict[str, Any]:
    """The Event (core/v1) about a VMI."""
    metadata = vmi["metadata"]
    reason, verb = (CONNECTED, "connected") if agent.connected else (DISCONNECTED, "disconnected")
    version = f" ({agent.version})" if agent.version and agent.connected else ""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": metadata["namespace"], "name": f"{metadata['name'][:200]}.{uuid4().hex[:16]}"},
        "involvedObject": {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": "Normal",
        "reason": reason,
        "message": f"Guest agent{version} {verb} on host {agent.host}",
        "source": {"component": "guestwire", "host": agent.host},
        "reportingComponent": "guestwire",
        "firstTimestamp": rfc3339(agent.since),
        "lastTimestamp": rfc3339(moment),
        "count": 1,
    }
