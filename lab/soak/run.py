"""
A soak from its beginning to its verdict: everything agrees, then change and faults, then everything agrees again.

Faults happen when the plan says so, each beside the others; those that hit one target wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from lab.build import LabParts
from lab.soak.agreement import settled
from lab.soak.faults import REAL_GUESTS, Fault, Kind, plan
from lab.soak.growth import LEAST_LIFE, Lives
from lab.soak.pipeline import Killable, frozen
from lab.soak.real_guests import RealGuest
from lab.soak.stage import Stage

CHANGES_A_SECOND = 10
STILL_HUNG = 5
"""Simulated agents that hang at the end, and stay so while everything is compared."""
BEGIN_SECONDS, SETTLE_SECONDS = 120.0, 120.0
"""Patience with the first agreement, and with the last."""


class Server(Killable, Protocol):
    """One that the soak starts again itself."""

    def start(self) -> None:
        """Start it again."""


class Soak:
    """One run."""

    def __init__(self, parts: LabParts, *, seconds: float, seed: str, guests: int, say: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._seed = seed
        self._guests = guests
        self._say = say
        self._stage = Stage(parts, guests, seed, say)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._lives = Lives()

    async def run(self) -> list[str]:
        """What is wrong at the end; empty when nothing is."""
        stage, say = self._stage, self._say
        say("a libvirt daemon, a NATS server and an API server start, then two guests and the pipeline")
        async with stage:
            async with self._sampling():
                problems = await self._happening()
            await stage.stop_pipeline()
            problems += [trouble for process in stage.processes for trouble in process.troubles]
            if problems:
                say(f"logs are kept in {stage.keep_logs()}")
        return problems

    async def _happening(self) -> list[str]:
        """From agreement to agreement: the differences that are left, and what has grown."""
        stage, say = self._stage, self._say
        differences = await settled(stage, BEGIN_SECONDS, say)
        if differences:
            return [f"before anything happened: {each}" for each in differences]
        say(f"all consumers agree about {self._guests + len(stage.real)} guests; changes and faults begin")
        await self._trouble()
        say("changes and faults are over; waiting until everything has settled")
        differences = await settled(stage, SETTLE_SECONDS, say)
        await self._long_enough()
        say(f"{'process':<30} {'ran':>7}   {'at most in the first half':<39}      at the end")
        for life in self._lives.present:
            say(str(life))
        return [*differences, *(line for life in self._lives.present for line in life.grown())]

    # --- trouble ------------------------------------------------------------------------------------------------

    async def _trouble(self) -> None:
        """Constant change, and the faults of the plan; when it ends, all is mended but some agents that hang."""
        stop, began = asyncio.Event(), time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._change(stop))
            for one in self._stage.real:
                group.create_task(one.change(stop))
            for fault in plan(self._seed, self._seconds, self._guests):
                await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
                self._say(str(fault))
                group.create_task(self._happens(fault), name=str(fault))
            await asyncio.sleep(max(0.0, began + self._seconds - time.monotonic()))
            stop.set()
        for guest in self._stage.truth.guests[:STILL_HUNG]:
            guest.awake.clear()

    async def _change(self, stop: asyncio.Event) -> None:
        began, steps = time.monotonic(), 0
        while not stop.is_set():
            for _ in range(int((time.monotonic() - began) * CHANGES_A_SECOND) - steps):
                self._stage.truth.step()
                steps += 1
            await asyncio.sleep(1 / CHANGES_A_SECOND)

    async def _happens(self, fault: Fault) -> None:
        async with self._locks[fault.target]:
            match fault.kind, fault.target:
                case Kind.HANG_UP, _:
                    await self._stage.truth_server.away(fault.seconds)
                case Kind.HANG, "simulated agents":
                    await self._hang(fault)
                case Kind.HANG, name:
                    await self._real(name).hang(fault.seconds)
                case Kind.KILL, name if name in REAL_GUESTS:
                    await self._real(name).crash(fault.seconds)
                case Kind.FREEZE, name:
                    with frozen(self._targets()[name]):
                        await asyncio.sleep(fault.seconds)
                case Kind.KILL, name:
                    await asyncio.to_thread(self._targets()[name].kill)
                    if server := self._servers().get(name):
                        await asyncio.sleep(fault.seconds)
                        await asyncio.to_thread(server.start)

    async def _hang(self, fault: Fault) -> None:
        guests = [self._stage.truth.guests[number] for number in fault.guests]
        for guest in guests:
            guest.awake.clear()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            for guest in guests:
                guest.awake.set()

    def _real(self, name: str) -> RealGuest:
        return next(one for one in self._stage.real if one.name == name)

    def _servers(self) -> dict[str, Server]:
        stage = self._stage
        return {"NATS": stage.nats, "libvirtd": stage.world.host, "API server": stage.cluster}

    def _targets(self) -> dict[str, Killable]:
        return {**self._servers(), **{process.name: process for process in self._stage.processes}}

    # --- verdict ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _sampling(self) -> AsyncIterator[None]:
        async def sample() -> None:
            while True:
                for process in self._stage.processes:
                    self._lives.sample(process.name, process.pid, time.monotonic())
                await asyncio.sleep(1)

        sampling = asyncio.create_task(sample())
        try:
            yield
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)

    async def _long_enough(self) -> None:
        """Until every process has run for long enough to be judged."""
        lasted = min(life.lasted for life in self._lives.present)
        await asyncio.sleep(max(0.0, LEAST_LIFE - lasted))
