"""Every control command of the guest, seen through its real agent."""

from __future__ import annotations

import re
import time
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from lab.errors import LabError
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd
from lab.process import wait_until

pytestmark = pytest.mark.lab


def users(guest: Guest) -> set[str]:
    return {user["user"] for user in guest.agent_command("guest-get-users")}


def filesystems(guest: Guest) -> dict[str, dict[str, Any]]:
    return {each["mountpoint"]: each for each in guest.agent_command("guest-get-fsinfo")}


def addresses(guest: Guest) -> dict[str, set[str]]:
    """Per interface of the guest, its addresses with their prefix lengths."""
    return {
        interface["name"]: {f"{ip['ip-address']}/{ip['prefix']}" for ip in interface.get("ip-addresses", ())}
        for interface in guest.agent_command("guest-network-get-interfaces")
    }


def active(guest: Guest) -> bool:
    with guest.domain() as domain:
        return bool(domain.isActive())


def wait_agent_again(guest: Guest) -> None:
    """Wait until the agent is gone and back."""
    wait_until(lambda: not guest.agent_connected(), 20, "agent gone")
    guest.wait_agent()


def test_ping(guest: Guest) -> None:
    """The control port answers."""
    assert guest.control("ping") == "pong"


def test_unknown_command(guest: Guest) -> None:
    """A command that the guest does not know is an error that names it."""
    with pytest.raises(LabError, match="default_web refused `frobnicate now`: unknown command 'frobnicate'"):
        guest.control("frobnicate", "now")


def test_identity(guest: Guest) -> None:
    """Domain name, uid, alias and address of the NIC stand in the live XML as KubeVirt writes them."""
    with guest.domain() as domain:
        xml = ET.fromstring(domain.XMLDesc())  # noqa: S314 our own libvirt's
    uid = xml.find("./metadata/{http://kubevirt.io}kubevirt/{http://kubevirt.io}uid")
    assert xml.findtext("name") == "default_web"
    assert xml.findtext("uuid") == guest.uuid
    assert uid is not None
    assert uid.text == guest.uid
    assert [alias.get("name") for alias in xml.iterfind("./devices/interface/alias")] == ["ua-default"]
    assert [mac.get("address") for mac in xml.iterfind("./devices/interface/mac")] == [guest.mac]


def test_boot_facts(guest: Guest) -> None:
    """A booted guest reports its OS, its host name, its NIC and its disk."""
    interfaces = {
        each["name"]: each["hardware-address"] for each in guest.agent_command("guest-network-get-interfaces")
    }
    assert guest.agent_command("guest-get-osinfo")["id"] == "guestwire-lab"
    assert guest.agent_command("guest-get-host-name") == {"host-name": "web"}
    assert interfaces["eth0"] == guest.mac
    assert "10.0.2.15/24" in addresses(guest)["eth0"]
    assert [disk["dev"] for disk in filesystems(guest)["/data"]["disk"]] == ["/dev/vda"]


def test_login_logout(guest: Guest) -> None:
    """A login is reported with its time, and no longer reported after the logout."""
    before = guest.agent_command("guest-get-time") / 1e9
    guest.control("login", "alice")
    (alice,) = [user for user in guest.agent_command("guest-get-users") if user["user"] == "alice"]
    guest.control("logout", "alice")
    assert before - 1 <= alice["login-time"] <= before + 30
    assert "alice" not in users(guest)


def test_twelve_users(guest: Guest) -> None:
    """Twelve users can be logged in at once, more than KubeVirt's guestosinfo lists."""
    names = [f"user{number}" for number in range(12)]
    guest.control("login", *names)
    during = users(guest)
    guest.control("logout", *names)
    assert set(names) <= during
    assert not set(names) & users(guest)


def test_login_refusals(guest: Guest) -> None:
    """A name that is no account name cannot log in, and who is not there cannot log out."""
    with pytest.raises(LabError, match="not a user name: 'no/name'"):
        guest.control("login", "no/name")
    with pytest.raises(LabError, match="bob is not logged in"):
        guest.control("logout", "bob")


@pytest.mark.parametrize("address", ["192.0.2.7/24", "2001:db8::7/64"])
def test_address(guest: Guest, address: str) -> None:
    """An address comes and goes on an interface."""
    guest.control("address", "add", "eth0", address)
    during = addresses(guest)["eth0"]
    guest.control("address", "del", "eth0", address)
    assert address in during
    assert address not in addresses(guest)["eth0"]


def test_no_foreign_addresses(guest: Guest) -> None:
    """An interface has its link-local address and what it was given, nothing from a router."""
    assert [each for each in addresses(guest)["eth0"] if not each.startswith("fe80:")] == ["10.0.2.15/24"]


@pytest.mark.parametrize("kind", ["dummy", "veth", "bridge"])
def test_link(guest: Guest, kind: str) -> None:
    """A link of each kind comes and goes."""
    guest.control("link", "add", "extra0", kind)
    during = addresses(guest)
    guest.control("link", "del", "extra0")
    assert "extra0" in during
    assert {"lo", "eth0"} == addresses(guest).keys()


def test_link_down_up(guest: Guest) -> None:
    """A link that goes down loses its link-local address, and gets one when it comes up."""
    guest.control("link", "add", "extra0")
    guest.control("link", "down", "extra0")
    down = addresses(guest)["extra0"]
    guest.control("link", "up", "extra0")
    up = addresses(guest)["extra0"]
    guest.control("link", "del", "extra0")
    assert down == set()
    assert [each for each in up if each.startswith("fe80:")] == list(up)
    assert len(up) == 1


def test_twelve_filesystems(guest: Guest) -> None:
    """Twelve filesystems more can be mounted at once, and are gone when they are taken away."""
    mountpoints = {f"/mnt/{number}" for number in range(12)}
    for mountpoint in mountpoints:
        guest.control("filesystem", "add", mountpoint)
    during = filesystems(guest)
    for mountpoint in mountpoints:
        guest.control("filesystem", "del", mountpoint)
    assert {"/data", *mountpoints} == during.keys()
    assert {"ext4"} == {each["type"] for each in during.values()}
    assert {"/data"} == filesystems(guest).keys()


def test_fill(guest: Guest) -> None:
    """Filling a filesystem shows in its used bytes, and so does emptying it."""
    empty = filesystems(guest)["/data"]["used-bytes"]
    guest.control("fill", "/data", 20)
    full = filesystems(guest)["/data"]["used-bytes"]
    guest.control("fill", "/data", 0)
    assert 20 << 20 <= full - empty < 21 << 20
    assert filesystems(guest)["/data"]["used-bytes"] == empty


def test_fill_too_much(guest: Guest) -> None:
    """A full filesystem is an error, and leaves the guest usable."""
    with pytest.raises(LabError, match="No space left on device"):
        guest.control("fill", "/data", 500)
    guest.control("fill", "/data", 0)


def test_hostname(guest: Guest) -> None:
    """The host name changes."""
    guest.control("hostname", "db-7")
    during = guest.agent_command("guest-get-host-name")
    guest.control("hostname", "web")
    assert during == {"host-name": "db-7"}


def test_timezone(guest: Guest) -> None:
    """The time zone changes, name and offset."""
    assert guest.agent_command("guest-get-timezone")["offset"] == 0
    guest.control("timezone", "IST-5:30")
    guest.wait_agent()
    during = guest.agent_command("guest-get-timezone")
    guest.control("timezone", "UTC0")
    guest.wait_agent()
    assert during == {"zone": "IST", "offset": 19800}


def test_clock(guest: Guest) -> None:
    """The guest's clock can be set, so that it disagrees with the host's."""
    guest.control("clock", "set", 2_000_000_000)
    during = guest.agent_command("guest-get-time") / 1e9
    guest.control("clock", "set", int(time.time()))
    assert 2_000_000_000 <= during < 2_000_000_030


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_agent_ends(guest: Guest, how: str) -> None:
    """An agent that ends closes its channel and stays away until it is started."""
    guest.control("agent", how)
    wait_until(lambda: not guest.agent_connected(), 10, "channel closed")
    time.sleep(1.5)  # long enough for anything that would start it again
    stayed_away = not guest.agent_connected()
    guest.control("agent", "start")
    guest.wait_agent()
    assert stayed_away
    assert guest.agent_command("guest-ping") == {}


def test_agent_hangs(guest: Guest) -> None:
    """A hung agent keeps its channel open and answers nothing; awake again it answers."""
    guest.control("agent", "hang")
    connected = guest.agent_connected()
    with pytest.raises(LabError, match=r"[Gg]uest agent"):
        guest.agent_command("guest-ping", timeout=1)
    guest.control("agent", "wake")
    assert connected
    assert guest.agent_command("guest-ping") == {}


def test_hung_agent_restarts(guest: Guest) -> None:
    """Even a hung agent can be restarted."""
    guest.control("agent", "hang")
    guest.control("agent", "restart")
    guest.wait_agent()
    assert guest.agent_command("guest-ping") == {}


def test_agent_blocks_commands(guest: Guest) -> None:
    """An agent can be told to support less, and says so."""
    guest.control("agent", "block", "guest-get-users,guest-get-fsinfo")
    guest.wait_agent()
    during = guest.agent_command("guest-info")["supported_commands"]
    guest.control("agent", "block")
    guest.wait_agent()
    assert {"guest-get-users", "guest-get-fsinfo"} <= {each["name"] for each in during if not each["enabled"]}
    assert users(guest) == set()


def test_frozen(guest: Guest) -> None:
    """With frozen filesystems the guest can still be controlled."""
    guest.agent_command("guest-fsfreeze-freeze")
    status = guest.agent_command("guest-fsfreeze-status")
    try:
        guest.control("login", "frosty")
    finally:
        guest.agent_command("guest-fsfreeze-thaw")
    seen = users(guest)
    guest.control("logout", "frosty")
    assert status == "frozen"
    assert "frosty" in seen


def test_suspended(guest: Guest) -> None:
    """A suspended guest does not answer; resumed, its late answer is not taken for another one's."""
    guest.suspend()
    with pytest.raises(LabError, match="default_web did not answer `hostname late`"):
        guest.control("hostname", "late", timeout=0.5)
    guest.resume()
    answer = guest.control("ping")
    guest.control("hostname", "web")
    assert answer == "pong"


def test_reboot(guest: Guest) -> None:
    """A reboot takes the agent away and brings it back; who was logged in is not any more."""
    guest.control("login", "carol")
    before = users(guest)
    guest.control("reboot")
    wait_agent_again(guest)
    assert "carol" in before
    assert users(guest) == set()
    assert active(guest)


def test_poweroff(guest: Guest) -> None:
    """A guest that powers itself off leaves an inactive domain, which starts again."""
    guest.control("poweroff")
    wait_until(lambda: not active(guest), 20, "machine off")
    guest.start()
    guest.wait_agent()
    assert guest.agent_command("guest-ping") == {}


def test_crash(guest: Guest) -> None:
    """A killed QEMU process leaves an inactive domain, which starts again."""
    guest.kill()
    wait_until(lambda: not active(guest), 20, "machine off")
    guest.start()
    guest.wait_agent()
    assert guest.control("ping") == "pong"


def test_bare_transient_guest(host: Libvirtd, image: GuestImage) -> None:
    """A transient guest without agent channel and disk, with two NICs, runs and leaves no domain behind."""
    bare = Guest(
        host,
        image,
        namespace=None,
        name="plain",
        agent_channel=False,
        interfaces=("a", "b"),
        disk=False,
        persistent=False,
    )
    with bare:
        wait_until(lambda: answers(bare), 60, "guest up")
        with pytest.raises(LabError, match="QEMU guest agent is not configured"):
            bare.agent_command("guest-ping")
        with bare.domain() as domain:
            name, aliases = domain.name(), re.findall("ua-[^\"']*", domain.XMLDesc())
        bare.destroy()
        with host.connection() as connection:
            left = [domain.UUIDString() for domain in connection.listAllDomains()]
    assert name == "plain"
    assert aliases == ["ua-a", "ua-b"]
    assert len(set(bare.macs)) == 2
    assert bare.uuid not in left


def answers(guest: Guest) -> bool:
    try:
        return guest.control("ping", timeout=1) == "pong"
    except LabError:
        return False
