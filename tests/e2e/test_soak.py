"""The soak itself: a minute of it, and that a difference does not escape it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from guestwire.snapshot import Phase
from lab.build import LabParts
from lab.guest_image import GuestImage
from lab.kube_build import KubeBinaries
from lab.soak.agreement import differences, settled
from lab.soak.pipeline import frozen
from lab.soak.stage import Stage

pytestmark = pytest.mark.lab

GUESTS = 8


@pytest.mark.timeout(400)
def test_a_minute(image: GuestImage, kube_binaries: KubeBinaries) -> None:
    """Under constant change and a minute of faults: all consumers agree with the guests, and nothing has grown."""
    argv = [sys.executable, "-m", "lab.soak", "--minutes", "1", "--seed", os.environ.get("SEED", "ci")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=380, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.fixture
async def stage(image: GuestImage, kube_binaries: KubeBinaries) -> AsyncIterator[Stage]:
    """A small one, settled."""
    async with Stage(LabParts(image, kube_binaries), GUESTS, "s", print) as one:
        assert [] == await settled(one, 60, print)
        yield one


async def test_planted_differences(stage: Stage) -> None:
    """
    While a collector is frozen, what changes is unknown to everybody, and each consumer is told off for it. When it
    runs on, all agree again.
    """
    by_name = {process.name: process for process in stage.processes}
    renumbered, gone, paused, *_ = stage.truth.guests
    with frozen(by_name["collector of simulated guests"]):
        renumbered.addresses.append("10.99.0.1")
        gone.there = False
        paused.phase = Phase.PAUSED
        found = await differences(stage)
    of_consumers = {
        consumer: {
            guest.name for guest in stage.truth.guests for line in found if consumer in line and guest.name in line
        }
        for consumer in ("REST", "VMI", "subscriber", "export")
    }
    everywhere = {renumbered.name, gone.name, paused.name}

    assert {"REST": everywhere, "subscriber": everywhere, "export": everywhere} == {
        consumer: guests for consumer, guests in of_consumers.items() if consumer != "VMI"
    }
    assert {renumbered.name, gone.name} == of_consumers["VMI"]  # a paused one keeps its status
    assert [] == await settled(stage, 60, print)
