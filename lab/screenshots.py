"""
The pictures of the live page in docs/, taken anew: `python -m lab.screenshots` (or `make screenshots`).

A small fleet, the same at every run but for the time, in the browser that people use: light with one guest in depth,
dark, and on a phone. That guest has a past in a real stream, so its timeline is read as any other.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from api.cache import Cache
from api.history import History
from guestwire import codec, subjects
from guestwire.errors import GuestwireError
from guestwire.jetstream import Bus
from guestwire.settings import Nats
from guestwire.snapshot import (
    Body,
    DomainInterface,
    Filesystem,
    FilesystemDisk,
    FilesystemInfo,
    FilesystemList,
    GuestInterface,
    GuestOSInfo,
    GuestRef,
    Interfaces,
    IPAddress,
    Kind,
    ListMeta,
    OperatingSystem,
    User,
    UserList,
)
from lab.browser import Browser
from lab.errors import LabError
from lab.fleet import GIB, Fleet
from lab.nats_server import NatsServer
from lab.process import OwnedDirectory
from lab.serving import serving

DOCS = Path(__file__).parents[1] / "docs"
GUESTS = 240
SEED = 7
SHOP = GuestRef("shop", "db-orders-1")
CLUSTER = "lab"
MINUTE, HOUR = 60, 3600
MAC = "52:54:00:4e:12:07"
COLORS = 256


class View(NamedTuple):
    """A picture: its file, the window it is taken of, and what is looked at."""

    name: str
    width: int
    height: int
    where: str = ""
    dark: bool = False
    phone: bool = False


IN_DEPTH = f"#guest={SHOP.namespace}/{SHOP.name}"

VIEWS = (
    View("page", 1440, 900, f"#sort=-disk&{IN_DEPTH[1:]}"),
    View("page-dark", 1280, 800, "#sort=agent", dark=True),
    View("page-phone", 390, 844, phone=True),
)

FURTHER = (
    View("page-guest-dark", 1280, 1700, IN_DEPTH, dark=True),
    View("page-phone-dark", 390, 844, "#agent=disconnected", dark=True, phone=True),
    View("page-phone-guest", 390, 2200, IN_DEPTH, phone=True),
    View("page-tablet", 820, 1180, "#text=web", phone=True),
    View("page-nothing", 1280, 800, "#text=nothing-like-it"),
)
"""Not for the docs: for whoever works on the page, to look at."""


TO_THE_TIMELINE = """
const guest = document.getElementById('guest');
const [section] = [...guest.querySelectorAll('section')].filter((each) => each.innerText.startsWith('Filesystems'));
guest.scrollTop = section.offsetTop - guest.querySelector('.top').offsetHeight;
"""
"""Its facts above, the timeline below: as much of both as there is room for."""


class Past:
    """What happened to a guest: told to a stream with its times, and to the cache."""

    def __init__(self, bus: Bus, fleet: Fleet, ref: GuestRef) -> None:
        self._bus = bus
        self._fleet = fleet
        self._ref = ref

    async def agent(self, ago: float, **facts: Any) -> None:
        """Its agent came or went."""
        since = codec.now() - timedelta(seconds=ago)
        await self._publish(ago, Kind.AGENT, self._fleet.agent(self._ref, since=since, **facts))

    async def say(self, ago: float, kind: str, body: Body) -> None:
        """Something was read, so many seconds ago."""
        self._fleet.say(self._ref, kind, body)
        await self._publish(ago, kind, body)

    async def _publish(self, ago: float, kind: str, body: Body) -> None:
        part = codec.part(kind, body, codec.now() - timedelta(seconds=ago))
        agent = self._fleet.agents[self._ref]
        unique = codec.new_trace_id()
        headers = codec.event_headers(
            ref=self._ref,
            uid=agent.uid,
            cluster=CLUSTER,
            host=agent.host,
            part=part,
            message_id=unique,
            trace_id=unique,
        )
        await self._bus.js.publish(subjects.subject(CLUSTER, self._ref, kind), part.body, headers=headers)


def _system(kernel: str) -> GuestOSInfo:
    name, version = "Debian GNU/Linux", "12 (bookworm)"
    system = OperatingSystem(
        id="debian",
        name=name,
        version_id="12",
        version=version,
        pretty_name=f"{name} {version}",
        kernel_release=kernel,
        machine="x86_64",
    )
    return GuestOSInfo(FilesystemInfo(None), system, "UTC, 0", hostname=SHOP.name)


def _disks(used: float) -> FilesystemList:
    sizes = (("/", "ext4", 6.2, 20), ("/var/lib/postgresql", "xfs", used, 100), ("/boot", "ext2", 0.2, 1))
    return FilesystemList(
        tuple(
            Filesystem("vda1", mount, kind, int(taken * GIB), size * GIB, (FilesystemDisk("virtio", "a1"),))
            for mount, kind, taken, size in sizes
        ),
        ListMeta(),
    )


def _users(**minutes: float) -> UserList:
    now = int(codec.now().timestamp())
    return UserList(tuple(User(name, login_time=now - int(MINUTE * ago)) for name, ago in minutes.items()), ListMeta())


def _addresses(*addresses: str) -> Interfaces:
    nic = GuestInterface("eth0", MAC, tuple(IPAddress(address, 16) for address in addresses))
    return Interfaces((DomainInterface("net0", MAC),), (nic,))


async def tell(past: Past) -> None:
    """A day in the life of a database: it is rebooted into a new kernel, its disk fills, people come to look."""
    await past.agent(26 * HOUR, host="node7", version="7.2.17")
    await past.say(26 * HOUR, Kind.GUESTOSINFO, _system("6.1.0-39-amd64"))
    await past.say(26 * HOUR, Kind.INTERFACES, _addresses("10.0.3.7"))
    await past.say(26 * HOUR, Kind.USERLIST, _users())
    await past.say(26 * HOUR, Kind.FILESYSTEMLIST, _disks(58))
    await past.agent(3 * HOUR + 40, connected=False, responsive=None)
    await past.agent(3 * HOUR, connected=True, version="7.2.22")
    await past.say(3 * HOUR, Kind.GUESTOSINFO, _system("6.1.0-40-amd64"))
    await past.say(95 * MINUTE, Kind.FILESYSTEMLIST, _disks(81.5))
    await past.say(41 * MINUTE, Kind.USERLIST, _users(alice=41))
    await past.say(12 * MINUTE, Kind.INTERFACES, _addresses("10.0.3.7", "10.7.0.12"))
    await past.say(6 * MINUTE, Kind.FILESYSTEMLIST, _disks(96.3))
    await past.say(50, Kind.USERLIST, _users(alice=41, deploy=0.8))


@asynccontextmanager
async def small_fleet(directory: Path) -> AsyncIterator[str]:
    """Where the page is served over it."""
    server = NatsServer(directory / "nats")
    server.start()
    try:
        async with Bus(Nats(servers=(server.url,)), "screenshots") as bus:
            await bus.ensure_stream()
            cache = Cache()
            fleet = Fleet(cache, SEED)
            fleet.fill(GUESTS)
            await tell(Past(bus, fleet, SHOP))
            async with serving(cache, History(bus, CLUSTER)) as url:
                yield url
    finally:
        server.stop()


async def take(browser: Browser, url: str, view: View) -> bytes:
    """One picture, once everything is there."""
    await browser.show(view.width, view.height, dark=view.dark, phone=view.phone)
    await browser.open("about:blank")
    await browser.open(url + view.where)
    await browser.until("document.getElementById('state').dataset.state === 'live'")
    if IN_DEPTH[1:] in view.where:
        await browser.until("document.querySelectorAll('.timeline > li').length > 5")
        await browser.until("document.querySelectorAll('#guest .facts section').length > 4")
        await browser.run(TO_THE_TIMELINE)
    await browser.run("document.activeElement.blur()")
    await asyncio.sleep(1.5)  # bars grow to their length, and all is counted once more
    return in_few_colors(await browser.screenshot())


def in_few_colors(picture: bytes) -> bytes:
    """A PNG with a palette: text on plain ground needs no more, and it is a third as large."""
    result = BytesIO()
    with Image.open(BytesIO(picture)) as image:
        few = image.convert("RGB").quantize(COLORS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(result, "PNG", optimize=True)
    return result.getvalue()


async def take_all(directory: Path, views: tuple[View, ...]) -> None:
    """Write them into a directory."""
    with OwnedDirectory() as home:
        async with small_fleet(home) as url, Browser(home) as browser:
            for view in views:
                picture = await take(browser, url, view)
                file = directory / f"{view.name}.png"
                file.write_bytes(picture)
                print(f"{file}: {len(picture) / 1024:.0f} KiB", flush=True)


def main() -> int:
    """Exit status: 0, or 1 after one line that says what failed."""
    parser = argparse.ArgumentParser(prog="python -m lab.screenshots", description="takes the live page's pictures")
    parser.add_argument("--into", type=Path, default=DOCS, metavar="DIRECTORY", help="instead of docs/")
    parser.add_argument("--all", action="store_true", help="also those that are not for the docs")
    given = parser.parse_args()
    try:
        asyncio.run(take_all(given.into, (*VIEWS, *FURTHER) if given.all else VIEWS))
    except (LabError, GuestwireError, OSError) as error:
        print(f"screenshots: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
