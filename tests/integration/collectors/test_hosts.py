"""Many hosts in one process: fixed ones and private daemons that come and go; none harms another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from pathlib import Path

import msgspec
import pytest

from collectors.collector import Collector
from guestwire.errors import ConfigError
from guestwire.settings import Collect, Libvirt, Settings
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd

Eventually = Callable[..., Awaitable[float]]


class Heard:
    """An output that keeps the last agent record of each guest."""

    def __init__(self) -> None:
        self.agents: dict[str, AgentState] = {}

    def offer(self, snapshot: GuestSnapshot) -> None:
        """Note it."""
        self.agents[str(snapshot.ref)] = msgspec.json.decode(snapshot.parts[0].body, type=AgentState)

    def forget(self, ref: GuestRef) -> None:
        """It is elsewhere."""
        self.agents.pop(str(ref), None)

    async def recall(self, ref: GuestRef) -> dict[str, bytes]:
        """Nothing."""
        return {}

    async def recall_hosts(self, names: Collection[str]) -> list[AgentState]:
        """Nobody."""
        return []


@pytest.fixture(scope="module")
def other_host(directory: Path) -> Iterator[Libvirtd]:
    """A daemon that comes and goes."""
    daemon = Libvirtd(directory / "h2")
    yield daemon
    daemon.stop()


async def test_hosts_come_and_go(
    host: Libvirtd, other_host: Libvirtd, directory: Path, image: GuestImage, eventually: Eventually
) -> None:
    """A socket appears, its guest is read; it vanishes, its guest is gone; a host that never answers harms nobody."""
    heard, stop = Heard(), asyncio.Event()
    nowhere = "qemu+unix:///session?socket=/nowhere/libvirt-sock"
    settings = Settings(
        libvirt=Libvirt(uris=(nowhere, host.uri), sockets=(f"{directory}/h2/libvirt/libvirt-sock",), retry_max=1),
        collect=Collect(host="node"),
    )
    collector = Collector(settings, heard)
    running = asyncio.create_task(collector.run(stop))
    with Guest(host, image, name="steady"):
        await eventually(lambda: "default/steady" in heard.agents)
        assert collector.connected
        await asyncio.to_thread(other_host.start)
        passing = Guest(other_host, image, name="passing")
        await asyncio.to_thread(passing.start)
        await eventually(lambda: "default/passing" in heard.agents, within=30)
        assert 3 == len(collector.hosts)
        await asyncio.to_thread(other_host.stop)
        await eventually(lambda: heard.agents["default/passing"].phase == "Gone", within=30)
        await eventually(lambda: 2 == len(collector.hosts), within=30)
        assert "Running" == heard.agents["default/steady"].phase
    stop.set()
    await asyncio.wait_for(running, 20)


def test_nothing_to_watch() -> None:
    """Neither URIs nor sockets: one line that names the settings."""
    with pytest.raises(ConfigError, match=r"libvirt.uris: nothing to watch"):
        Collector(Settings(libvirt=Libvirt(uris=())), Heard())
