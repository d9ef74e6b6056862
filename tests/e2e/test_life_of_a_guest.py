"""Everything that happens in a guest's life, and exactly what is said about it on the bus."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from collectors import metrics
from guestwire.jetstream import Bus
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd

from .conftest import Bystander, collecting, listening

LOST = ("agent", {"connected": False, "responsive": None})
CONNECTED = ("agent", {"connected": True})
ANSWERS = ("agent", {"responsive": True})
STOPPED = ("agent", {"phase": "Stopped"})
RUNNING = ("agent", {"phase": "Running"})
ETH0 = ["10.0.2.15"]
LO = ["127.0.0.1", "::1"]
NIC = """<interface type="user">
  <mac address="52:54:00:00:00:02"/><model type="virtio"/><rom enabled="no"/><alias name="ua-second"/>
</interface>"""
DISK = """<disk type="file" device="disk">
  <driver name="qemu" type="raw"/><source file="{}"/><target dev="vdb" bus="virtio"/>
</disk>"""


@pytest.fixture(scope="module")
def guest(host: Libvirtd, image: GuestImage) -> Iterator[Guest]:
    """A guest for all tests of this module; each leaves it running, as it found it."""
    with Guest(host, image, namespace="prod", name="web") as machine:
        machine.wait_agent()
        yield machine


@asynccontextmanager
async def observed(bus: Bus, host: Libvirtd, guest: Guest, **collect: float) -> AsyncIterator[Bystander]:
    """A collector at work, and someone who has read all it had to say about the guest."""
    async with listening(bus, guest) as bystander, collecting(bus, host.uri, **collect):
        await bystander.settled(lambda: "filesystemlist" in bystander.latest)
        bystander.mark()
        yield bystander


@pytest.fixture
async def bystander(bus: Bus, host: Libvirtd, guest: Guest) -> AsyncIterator[Bystander]:
    """Everything about the running guest is known."""
    async with observed(bus, host, guest) as one:
        yield one


@pytest.fixture
async def patient(bus: Bus, host: Libvirtd, guest: Guest) -> AsyncIterator[Bystander]:
    """
    The same, without regular looks at filesystems: a guest that goes down unmounts them before its agent ends, and
    says so to whoever asks in that moment.
    """
    async with observed(bus, host, guest, filesystems=3600.0) as one:
        yield one


async def control(guest: Guest, *words: str | int) -> None:
    """Something happens in the guest."""
    await asyncio.to_thread(guest.control, *words)


def agent_answers(bystander: Bystander) -> bool:
    """By the record."""
    return bool(bystander.agent("connected") and bystander.agent("responsive"))


async def test_freeze_and_thaw(bystander: Bystander, guest: Guest) -> None:
    """A frozen guest says so, and why the rest is not read; it keeps its values. Thawed it says so."""
    await control(guest, "login", "alice")
    await bystander.settled(lambda: "alice" in str(bystander.latest))
    before = bystander.latest
    bystander.mark()
    await asyncio.to_thread(guest.agent_command, "guest-fsfreeze-freeze")
    try:
        await bystander.settled(lambda: bystander.agent("frozen"))
        bystander.assert_told(
            ("agent", {"frozen": True, "readings": True}), ("guestosinfo", {"fsFreezeStatus": "frozen"})
        )
        info = {**before["guestosinfo"], "fsFreezeStatus": "frozen"}
        assert {**before, "guestosinfo": info, "agent": bystander.latest["agent"]} == bystander.latest
        bystander.mark()
    finally:
        await asyncio.to_thread(guest.agent_command, "guest-fsfreeze-thaw")

    await bystander.settled(lambda: bystander.agent("frozen") is False)
    bystander.assert_told(
        ("agent", {"frozen": False}), ("guestosinfo", {"fsFreezeStatus": "thawed"}), ("agent", {"readings": False})
    )
    await control(guest, "logout", "alice")


async def test_pause_and_resume(bystander: Bystander, guest: Guest) -> None:
    """A paused guest keeps its agent: one word at either end."""
    await asyncio.to_thread(guest.suspend)
    await bystander.settled(lambda: bystander.agent("phase") == "Paused")
    await asyncio.to_thread(guest.resume)
    await bystander.settled(lambda: bystander.agent("phase") == "Running")

    bystander.assert_told(("agent", {"phase": "Paused"}), RUNNING)


async def test_reboot(patient: Bystander, guest: Guest) -> None:
    """A reboot from inside: the agent goes and comes, the phase stays, and no list is ever empty."""
    await control(guest, "reboot")
    await patient.until(lambda: not patient.agent("connected"))
    await patient.settled(lambda: agent_answers(patient))

    patient.assert_told(LOST, CONNECTED, ANSWERS)


async def test_reset(bystander: Bystander, guest: Guest) -> None:
    """The reset button is a reboot; the user who was logged in is gone only when the agent is back to say so."""
    await control(guest, "login", "alice")
    await bystander.settled(lambda: "alice" in str(bystander.latest))
    bystander.mark()

    def reset() -> None:
        with guest.domain() as domain:
            domain.reset()

    await asyncio.to_thread(reset)
    await bystander.until(lambda: not bystander.agent("connected"))
    await bystander.settled(lambda: agent_answers(bystander))

    bystander.assert_told(
        LOST, CONNECTED, ANSWERS, ("guestosinfo", {"userList": []}), ("userlist", {"items": []})
    )  # fmt: skip
    assert all(nic["addresses"] for body in bystander.bodies("interfaces") for nic in body["guest"])


async def test_agent_stops_and_starts(bystander: Bystander, guest: Guest) -> None:
    """An agent that ends takes no fact with it."""
    await control(guest, "agent", "stop")
    await bystander.settled(lambda: not bystander.agent("connected"))
    bystander.assert_told(LOST)

    await control(guest, "agent", "start")
    await bystander.settled(lambda: agent_answers(bystander))
    bystander.assert_told(LOST, CONNECTED, ANSWERS)


async def test_agent_restarts(bystander: Bystander, guest: Guest) -> None:
    """However short its absence, `since` tells of it."""
    since = bystander.agent("since")
    await control(guest, "agent", "restart")
    await bystander.settled(lambda: bystander.agent("since") > since and agent_answers(bystander))

    bystander.assert_told(LOST, CONNECTED, ANSWERS)


async def test_power_off_and_start(patient: Bystander, guest: Guest) -> None:
    """A guest that powers itself off loses its agent, then stops; started again it has nothing else to add."""
    await control(guest, "poweroff")
    await patient.settled(lambda: patient.agent("phase") == "Stopped")
    patient.assert_told(LOST, STOPPED)

    patient.mark()
    await asyncio.to_thread(guest.start)
    await patient.settled(lambda: agent_answers(patient))
    patient.assert_told(RUNNING, CONNECTED, ANSWERS)


async def test_crash_and_start(bystander: Bystander, guest: Guest) -> None:
    """A machine whose process dies is stopped; a host name that was set by hand is lost with it."""
    await control(guest, "hostname", "temporary")
    await bystander.settled(lambda: bystander.latest["guestosinfo"]["hostname"] == "temporary")
    bystander.mark()
    await asyncio.to_thread(guest.kill)
    await bystander.settled(lambda: bystander.agent("phase") == "Stopped")
    bystander.assert_told(LOST, STOPPED)

    bystander.mark()
    await asyncio.to_thread(guest.start)
    await bystander.settled(lambda: agent_answers(bystander))
    bystander.assert_told(RUNNING, CONNECTED, ANSWERS, ("guestosinfo", {"hostname": "web"}))


async def test_first_and_last(bus: Bus, host: Libvirtd, image: GuestImage) -> None:
    """From its definition to its last word; what a guest told stays readable when it is gone."""
    guest = Guest(host, image, namespace="prod", name="brief")
    with guest.host.connection() as connection:
        connection.defineXML(guest.xml)
    async with listening(bus, guest) as bystander, collecting(bus, host.uri):
        await bystander.settled(lambda: bystander.messages)
        [(_, record), interfaces] = bystander.changes()
        assert (False, "Stopped", guest.uuid) == (record["connected"], record["phase"], record["uid"])
        assert ("interfaces", {"domain": ["default"], "guest": {}}) == interfaces

        bystander.mark()
        await asyncio.to_thread(guest.start)
        await bystander.settled(lambda: "filesystemlist" in bystander.latest)
        [started, connected, (_, told), nics, (_, info), *lists] = bystander.changes()
        assert [RUNNING, CONNECTED] == [started, connected]
        assert (True, False, False) == (told["responsive"], told["frozen"], told.get("readings", False))
        assert ("interfaces", {"guest": {"lo": LO, "eth0": ETH0}}) == nics
        assert ("thawed", ["/data"], "brief") == (info["fsFreezeStatus"], info["fsInfo"], info["hostname"])
        expected = [
            ("userlist", {"items": [], "metadata": {}}),
            ("filesystemlist", {"items": ["/data"], "metadata": {}}),
        ]
        assert expected == lists

        bystander.mark()
        await asyncio.to_thread(guest.destroy)
        await bystander.settled(lambda: bystander.agent("phase") == "Stopped")
        bystander.assert_told(LOST, STOPPED)

        bystander.mark()
        await asyncio.to_thread(guest.undefine)
        await bystander.settled(lambda: bystander.agent("phase") == "Gone")
        bystander.assert_told(("agent", {"phase": "Gone"}))
        assert 5 == len(bystander.latest)


async def test_network_card_comes_and_goes(bystander: Bystander, guest: Guest) -> None:
    """A card plugged in shows on the domain's side at once, on the guest's once its driver has it; out likewise."""
    await asyncio.to_thread(_attach, guest, NIC)
    await bystander.settled(lambda: "eth1" in str(bystander.latest))
    bystander.assert_told(
        ("interfaces", {"domain": ["default", "second"]}),
        ("interfaces", {"guest": {"lo": LO, "eth0": ETH0, "eth1": []}}),
    )

    bystander.mark()
    await asyncio.to_thread(_detach, guest, NIC)
    await bystander.settled(lambda: len(bystander.latest["interfaces"]["domain"]) == 1)
    [first, *rest] = bystander.changes()
    out, without = {"domain": ["default"]}, {"guest": {"lo": LO, "eth0": ETH0}}
    # The guest lets go of its card before the machine does; who asks in between learns it in that order.
    assert sorted(map(str, [("interfaces", out), ("interfaces", without)])) == sorted(map(str, [first, *rest])) or [
        ("interfaces", out | without)
    ] == [first, *rest]


async def test_disk_comes_and_goes(bystander: Bystander, host: Libvirtd, guest: Guest) -> None:
    """A disk that nobody mounts is no fact: the agent is asked, and nothing is said."""
    file = host.directory / "second.disk"
    file.touch()
    os.truncate(file, 8 << 20)
    xml = DISK.format(host.give(file))
    hints = metrics.HINTS.labels(host.uri, "devices")._value
    before = hints.get()
    for number, change in enumerate((_attach, _detach), start=1):
        await asyncio.to_thread(change, guest, xml)
        await bystander.until(lambda number=number: before + number <= hints.get())  # type: ignore[misc]
        await bystander.quiet()

    bystander.assert_told()


async def test_clock_jumps(bystander: Bystander, guest: Guest) -> None:
    """A guest's clock is its own affair: it jumps by a year and back, and readings keep the host's time."""
    await control(guest, "login", "alice")
    await bystander.settled(lambda: "alice" in str(bystander.latest))
    bystander.mark()
    year = 365 * 24 * 3600
    for offset in (year, -year, 0):
        await control(guest, "clock", "set", int(time.time()) + offset)
        await bystander.quiet()
    bystander.assert_told()

    await control(guest, "logout", "alice")
    await bystander.settled(lambda: "alice" not in str(bystander.latest))
    bystander.assert_told(("guestosinfo", {"userList": []}), ("userlist", {"items": []}))
    assert abs(time.time() - bystander.messages[-1].event.time.timestamp()) < 60


async def test_host_name(bystander: Bystander, guest: Guest) -> None:
    """One word for each name."""
    for name in ("db-7", "web"):
        await control(guest, "hostname", name)
        await bystander.settled(lambda name=name: name == bystander.latest["guestosinfo"]["hostname"])  # type: ignore[misc]

    bystander.assert_told(("guestosinfo", {"hostname": "db-7"}), ("guestosinfo", {"hostname": "web"}))


def _attach(guest: Guest, device: str) -> None:
    with guest.domain() as domain:
        domain.attachDevice(device)


def _detach(guest: Guest, device: str) -> None:
    with guest.domain() as domain:
        domain.detachDevice(device)
