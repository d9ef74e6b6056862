"""Whether all consumers agree with the truth: now, or after a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from lab.errors import LabError
from lab.soak import comparison, consumers
from lab.soak.stage import Stage

LOOK = 2.0
"""Seconds between two comparisons."""


async def differences(stage: Stage) -> list[str]:
    """A line for each, of every consumer. Raises LabError when one cannot be asked."""
    expected = await stage.expected()
    rest, wrong = await asyncio.to_thread(consumers.Rest(stage.api).said, expected)
    vmis = await asyncio.to_thread(consumers.vmis, stage.cluster)
    stored = await asyncio.to_thread(consumers.subscriber, stage.directory / "subscriber.db")
    exported, rows = await asyncio.to_thread(consumers.export, stage.directory / "export.db")
    return [
        *(f"REST: {line}" for line in wrong),
        *(f"REST: {line}" for line in comparison.bodies(expected, rest)),
        *(f"VMI: {line}" for line in comparison.statuses(expected, vmis)),
        *(f"subscriber: {line}" for line in comparison.bodies(expected, stored)),
        *(f"export: {line}" for line in comparison.bodies(expected, exported)),
        *(f"export: {line}" for line in comparison.rows(expected, rows)),
    ]


async def settled(stage: Stage, patience: float, say: Callable[[str], None]) -> list[str]:
    """None, as soon as there are none; those that are left after so many seconds."""
    began, told = time.monotonic(), ""
    while True:
        try:
            found = await differences(stage)
        except LabError as error:
            found = [str(error).splitlines()[0]]
        took = time.monotonic() - began
        if not found or took > patience:
            say(f"{len(found)} differences after {took:.0f} s")
            return found
        if (line := f"{len(found)} differences, the first: {found[0]}") != told:
            told = line
            say(line)
        await asyncio.sleep(LOOK)
