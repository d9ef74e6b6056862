"""A soft reboot as everybody sees it who watches the VMI."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.build import LabParts
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.kube_build import KubeBinaries
from lab.process import free_port
from lab.world import World

NAMESPACE, NAME = "default", "rebooting"
GUESTWIRE = Path(sys.executable).with_name("guestwire")
PATIENCE = 120
Eventually = Callable[..., Awaitable[float]]


@pytest.fixture(scope="module")
def world(image: GuestImage, kube_binaries: KubeBinaries) -> Iterator[World]:
    """A host, a cluster, and the whole pipeline with the grace it has by default."""
    with World(LabParts(image, kube_binaries)) as one:
        often = dict.fromkeys(("COLLECT__USERS", "COLLECT__INTERFACES", "COLLECT__SYSTEM"), 0.5)
        env = one.environment(UP__NATS=f"127.0.0.1:{free_port()}", STATUS__MIN_INTERVAL=0, **often)
        with (one.directory / "up.log").open("w") as log:
            up = subprocess.Popen([GUESTWIRE, "up"], env=env, stdout=log, stderr=log)
        try:
            yield one
        finally:
            up.terminate()
            up.wait(60)


class Watch:
    """Every state of the VMI that the API server tells."""

    def __init__(self, world: World) -> None:
        self._file = world.directory / "watch.json"
        where = ["get", "vmi", NAME, "-n", NAMESPACE, "-w", "-o", "json"]
        command = [str(world.kubectl), f"--kubeconfig={world.cluster.kubeconfig}", *where]
        with self._file.open("w") as output:
            self._process = subprocess.Popen(command, stdout=output)

    def stop(self) -> None:
        """No more."""
        self._process.terminate()
        self._process.wait()

    @property
    def statuses(self) -> list[dict[str, Any]]:
        """In order."""
        found, text, position, decoder = [], self._file.read_text().strip(), 0, json.JSONDecoder()
        while position < len(text):
            try:
                document, position = decoder.raw_decode(text, position)
            except json.JSONDecodeError:  # the last one is being written
                break
            while position < len(text) and text[position].isspace():
                position += 1
            found.append(document.get("status", {}))
        return found

    @property
    def connected(self) -> list[bool]:
        """Whether the agent was shown as connected, without repetitions."""
        shown = [any(each["type"] == "AgentConnected" for each in s.get("conditions", [])) for s in self.statuses]
        return [now for before, now in zip([None, *shown], shown, strict=False) if before != now]


def facts(status: dict[str, Any]) -> tuple[Any, Any, Any]:
    """What the agent told: the system, the NIC's name in the guest, its IPv4 addresses."""
    [nic] = status.get("interfaces", [{}])
    v4 = [address for address in nic.get("ipAddresses", []) if ":" not in address]
    return status.get("guestOSInfo"), nic.get("interfaceName"), v4


async def test_soft_reboot_takes_nothing_away(world: World, eventually: Eventually) -> None:
    """During a reboot from inside the condition goes and comes; no other word of the agent's is gone for a moment."""
    uid = world.create_vmi(NAMESPACE, NAME)
    guest: Guest
    with world.guest(namespace=NAMESPACE, name=NAME, uid=uid) as guest:
        guest.wait_agent()
        watch = Watch(world)
        try:
            await eventually(lambda: watch.statuses and "10.0.2.15" in str(watch.statuses[-1]), within=PATIENCE)
            await eventually(lambda: watch.statuses[-1].get("guestOSInfo"), within=PATIENCE)
            known = len(watch.statuses)
            before = facts(watch.statuses[-1])
            guest.control("reboot")
            await eventually(lambda: watch.connected[-2:] == [False, True], within=PATIENCE)
            settled = time.monotonic() + 5
            await eventually(lambda: time.monotonic() > settled)
        finally:
            watch.stop()

    assert [True, False, True] == watch.connected[-3:]
    assert "10.0.2.15" in before[2]
    assert {str(before)} == {str(facts(status)) for status in watch.statuses[known:]}
