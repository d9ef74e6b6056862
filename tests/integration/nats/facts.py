"""Guests in two namespaces, and what is published about them as a collector does."""

from __future__ import annotations

import asyncio

from guestwire import codec
from guestwire.jetstream import Bus
from guestwire.snapshot import AgentState, Body, GuestRef, GuestSnapshot, Kind, Part, Phase
from tests.publishing import publisher

PROD, TEST = GuestRef("prod", "web"), GuestRef("test", "web")


def agent(ref: GuestRef, phase: Phase = Phase.RUNNING) -> AgentState:
    """The record of a guest."""
    return AgentState(
        ref.namespace, ref.name, "u", "d", "u", "h", phase, channel=True, connected=True, since=codec.now()
    )


def fact(kind: Kind, body: Body) -> Part:
    """Read now."""
    return codec.part(kind, body, codec.now())


async def publish(bus: Bus, ref: GuestRef, *parts: Part) -> dict[str, int]:
    """As a collector does; the revision of each kind."""
    async with publisher(bus) as one:
        one.offer(GuestSnapshot(ref, "u", "h", parts, codec.new_trace_id()))
        return await asyncio.wait_for(one.settled(ref), 30)
