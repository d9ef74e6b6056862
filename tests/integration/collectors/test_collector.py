"""The collector on a real libvirt with real guests: what it says, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from typing import Any

import msgspec
import pytest

from collectors.collector import Collector
from guestwire.settings import Collect, Libvirt, Settings
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd

UID = "0b4a5b44-6a1a-4d4c-8a83-1f3f5b0f0c01"
Eventually = Callable[..., Awaitable[float]]


@pytest.fixture(scope="module")
def guest(host: Libvirtd, image: GuestImage) -> Iterator[Guest]:
    """A guest for all tests of this module; each leaves it as it found it."""
    with Guest(host, image, namespace="prod", name="web", uid=UID) as machine:
        machine.wait_agent()
        yield machine


class Watched:
    """A collector at work, and everything it said that differed from what it had said before."""

    def __init__(self, uri: str, **collect: float) -> None:
        periods = {"users": 1.0, "interfaces": 1.0, "system": 1.0, "filesystems": 1.0, "command_timeout": 2, **collect}
        self.settings = Settings(
            libvirt=Libvirt(uris=(uri,), connections=1, retry_max=0.5), collect=msgspec.convert(periods, Collect)
        )
        self.said: list[tuple[str, str, Any]] = []
        self.latest: dict[tuple[GuestRef, str], Any] = {}
        self.recalled: dict[GuestRef, dict[str, bytes]] = {}
        self.buried: list[AgentState] = []
        self._digests: dict[tuple[GuestRef, str], str] = {}
        self._stop = asyncio.Event()
        self.collector = Collector(self.settings, self)
        self.task = asyncio.create_task(self.collector.run(self._stop))

    def offer(self, snapshot: GuestSnapshot) -> None:
        for part in snapshot.parts:
            if self._digests.get((snapshot.ref, part.kind)) != part.digest:
                self._digests[snapshot.ref, part.kind] = part.digest
                body = msgspec.json.decode(part.body)
                self.said.append((str(snapshot.ref), part.kind, body))
                self.latest[snapshot.ref, part.kind] = body
                self.recalled.setdefault(snapshot.ref, {})[part.kind] = part.body

    def forget(self, ref: GuestRef) -> None:
        """It is elsewhere."""
        self.recalled.pop(ref, None)

    async def recall(self, ref: GuestRef) -> dict[str, bytes]:
        return dict(self.recalled.get(ref, {}))

    async def recall_hosts(self, names: Collection[str]) -> list[AgentState]:
        return [agent for agent in self.buried if agent.host in names]

    def get(self, kind: str, ref: str = "prod/web") -> Any:
        """The latest body of a kind, empty before the first."""
        return self.latest.get((GuestRef.parse(ref), kind), {})

    def count(self, kind: str) -> int:
        """How often something new of that kind was said."""
        return sum(said[1] == kind for said in self.said)

    async def end(self) -> None:
        """Stop, and wait until it has."""
        self._stop.set()
        await asyncio.wait_for(self.task, 20)


@pytest.fixture
async def watched(host: Libvirtd, guest: Guest, eventually: Eventually) -> AsyncIterator[Watched]:
    """A collector that knows everything about the guest."""
    one = Watched(host.uri)
    await eventually(lambda: one.get("filesystemlist"), what="the first reading")
    yield one
    await one.end()


async def control(guest: Guest, *words: str) -> str:
    """Something happens in the guest."""
    return await asyncio.to_thread(guest.control, *words)


async def test_guests_already_there(watched: Watched, guest: Guest) -> None:
    """A guest that runs before the collector starts is read without any event."""
    agent, info = watched.get("agent"), watched.get("guestosinfo")

    assert (True, True, "Running", UID) == (agent["connected"], agent["responsive"], agent["phase"], agent["uid"])
    assert ("guestwire-lab", "x86_64", "web") == (info["os"]["id"], info["os"]["machine"], info["hostname"])
    assert ("UTC, 0", "thawed") == (info["timezone"], info["fsFreezeStatus"])
    assert [{"name": "default", "mac": guest.mac, "queues": 1, "linkState": "up"}] == watched.get("interfaces")[
        "domain"
    ]
    assert "10.0.2.15" in str(watched.get("interfaces")["guest"])
    assert ["/data"] == [entry["mountPoint"] for entry in watched.get("filesystemlist")["items"]]


async def test_unchanged_is_silent(watched: Watched) -> None:
    """Reading the same again says nothing."""
    await asyncio.sleep(1)
    before = len(watched.said)
    await asyncio.sleep(4)

    assert before == len(watched.said)


async def test_restart_is_silent(watched: Watched, host: Libvirtd, eventually: Eventually) -> None:
    """A collector that starts anew, with the last messages to recall, has nothing to add."""
    await watched.end()
    again = Watched(host.uri)
    again.recalled, again._digests = watched.recalled, watched._digests
    await asyncio.sleep(4)
    await again.end()

    assert [] == again.said


async def test_login(watched: Watched, guest: Guest, eventually: Eventually) -> None:
    """A login and a logout arrive in the list and inside guestosinfo."""
    await control(guest, "login", "alice")
    await eventually(lambda: ["alice"] == [user["userName"] for user in watched.get("userlist")["items"]])
    [user] = watched.get("userlist")["items"]
    assert [user] == watched.get("guestosinfo")["userList"]
    assert abs(user["loginTime"] - 1.7e9) < 1e9
    await control(guest, "logout", "alice")
    await eventually(lambda: [] == watched.get("userlist")["items"])


async def test_twelve_of_each(watched: Watched, guest: Guest, eventually: Eventually) -> None:
    """Ten inside guestosinfo, all of them in the lists."""
    users = [f"user{number}" for number in range(12)]
    mounts = [f"/mnt{number}" for number in range(11)]
    await control(guest, "login", *users)
    for mount in mounts:
        await control(guest, "filesystem", "add", mount)
    await eventually(lambda: len(watched.get("userlist")["items"]) == 12)
    await eventually(lambda: len(watched.get("filesystemlist")["items"]) == 12)
    await eventually(lambda: len(watched.get("guestosinfo")["userList"]) == 10)

    assert len(watched.get("guestosinfo")["fsInfo"]["disks"]) == 10
    await control(guest, "logout", *users)
    for mount in mounts:
        await control(guest, "filesystem", "del", mount)


async def test_address(watched: Watched, guest: Guest, eventually: Eventually) -> None:
    """An address that comes and goes."""
    await control(guest, "address", "add", "eth0", "10.9.8.7/24")
    await eventually(lambda: "10.9.8.7" in str(watched.get("interfaces")))
    await control(guest, "address", "del", "eth0", "10.9.8.7/24")
    await eventually(lambda: "10.9.8.7" not in str(watched.get("interfaces")))


async def test_agent_goes_and_returns(watched: Watched, guest: Guest, eventually: Eventually) -> None:
    """The record says so at once, by event; the facts stay as they were."""
    before, since = watched.get("guestosinfo"), watched.get("agent")["since"]
    await control(guest, "agent", "kill")
    await eventually(lambda: not watched.get("agent")["connected"], within=3)
    assert before == watched.get("guestosinfo")
    await control(guest, "agent", "start")
    await eventually(lambda: watched.get("agent")["connected"] and watched.get("agent").get("responsive"), within=10)

    assert since < watched.get("agent")["since"]


async def test_hung_agent(watched: Watched, guest: Guest, eventually: Eventually) -> None:
    """A hung agent stays connected, is told apart by `responsive`, and keeps its facts."""
    before = watched.get("guestosinfo")
    await control(guest, "agent", "hang")
    await eventually(lambda: watched.get("agent").get("responsive") is False, within=15)
    assert watched.get("agent")["connected"]
    assert watched.get("agent")["reason"]
    assert before == watched.get("guestosinfo")
    await control(guest, "agent", "wake")
    await eventually(lambda: watched.get("agent").get("responsive"), within=30)


async def test_frozen(watched: Watched, guest: Guest, eventually: Eventually) -> None:
    """A frozen guest says frozen and keeps its values; thawed it says so."""
    users, filesystems = watched.get("userlist"), watched.get("filesystemlist")
    await asyncio.to_thread(guest.agent_command, "guest-fsfreeze-freeze")
    await eventually(lambda: watched.get("guestosinfo")["fsFreezeStatus"] == "frozen")
    assert watched.get("agent")["frozen"]
    assert (users, filesystems) == (watched.get("userlist"), watched.get("filesystemlist"))
    await asyncio.to_thread(guest.agent_command, "guest-fsfreeze-thaw")
    await eventually(lambda: watched.get("guestosinfo")["fsFreezeStatus"] == "thawed")
    await eventually(lambda: not any(entry.get("error") for entry in watched.get("agent")["readings"].values()))


async def test_paused(watched: Watched, guest: Guest, eventually: Eventually) -> None:
    """A paused guest is connected and left alone; resuming reads it again."""
    await asyncio.to_thread(guest.suspend)
    await eventually(lambda: watched.get("agent")["phase"] == "Paused")
    assert watched.get("agent")["connected"]
    await asyncio.to_thread(guest.resume)
    await eventually(lambda: watched.get("agent")["phase"] == "Running")
    assert watched.get("agent").get("responsive") is not False


async def test_stopped_and_undefined(
    host: Libvirtd, image: GuestImage, watched: Watched, eventually: Eventually
) -> None:
    """A domain appears, stops, and is gone; it never had an agent channel, and nobody complains."""
    other = Guest(host, image, namespace=None, name="plain.vm", agent_channel=False)
    await asyncio.to_thread(other.start)
    await eventually(lambda: watched.get("agent", "default/plain.vm"))
    agent = watched.get("agent", "default/plain.vm")
    assert (False, False, other.uuid) == (agent["channel"], agent["connected"], agent["uid"])
    await asyncio.to_thread(other.destroy)
    await eventually(lambda: watched.get("agent", "default/plain.vm")["phase"] == "Stopped")
    await asyncio.to_thread(other.undefine)
    await eventually(lambda: watched.get("agent", "default/plain.vm")["phase"] == "Gone")

    assert {"agent", "interfaces"} == {kind for ref, kind, _ in watched.said if ref == "default/plain.vm"}


async def test_gone_while_away(host: Libvirtd, guest: Guest, eventually: Eventually) -> None:
    """A guest that was published from here and no longer exists gets its last word at the start."""
    first = Watched(host.uri)
    await eventually(lambda: first.get("agent"))
    await first.end()
    template = msgspec.convert(first.get("agent"), AgentState)
    second = Watched(host.uri)
    second.buried = [
        template,
        msgspec.structs.replace(template, name="dead", domain_uuid="x"),
        msgspec.structs.replace(template, name="elsewhere", domain_uuid="y", host="another"),
    ]
    await eventually(lambda: second.get("agent", "prod/dead"))
    await second.end()

    assert "Gone" == second.get("agent", "prod/dead")["phase"]
    assert {} == second.get("agent", "prod/elsewhere")


async def test_libvirtd_restarts(watched: Watched, host: Libvirtd, guest: Guest, eventually: Eventually) -> None:
    """The daemon dies; it is found again, what happened meanwhile is told, and nothing flaps."""
    said = len(watched.said)
    await asyncio.to_thread(host.kill)
    await eventually(lambda: not watched.collector.connected)
    await asyncio.to_thread(host.start)
    await control(guest, "login", "carol")
    await eventually(lambda: watched.collector.connected)
    await eventually(lambda: "carol" in str(watched.get("userlist")))
    changes = [(kind, body) for _, kind, body in watched.said[said:]]
    await control(guest, "logout", "carol")

    assert {"userlist", "guestosinfo"} == {kind for kind, _ in changes}
    await control(guest, "agent", "restart")
    await eventually(lambda: watched.count("agent") > 2, what="events after the reconnect")


async def test_cannot_connect(guest: Guest, eventually: Eventually) -> None:
    """A wrong URI is retried; stopping meanwhile works."""
    one = Watched("qemu+unix:///session?socket=/nowhere/libvirt-sock")
    await asyncio.sleep(1.5)
    assert not one.collector.connected
    await one.end()


async def test_reboot(watched: Watched, guest: Guest, eventually: Eventually) -> None:
    """A reboot disconnects and connects; the facts never flap to empty."""
    await control(guest, "reboot")
    await eventually(lambda: not watched.get("agent")["connected"], within=30)
    await eventually(lambda: watched.get("agent")["connected"] and watched.get("agent").get("responsive"), within=60)
    infos = [body for ref, kind, body in watched.said if kind == "guestosinfo" and ref == "prod/web"]

    assert all(info["os"].get("id") and info["fsInfo"]["disks"] for info in infos)
