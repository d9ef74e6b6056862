"""Agent replies: KubeVirt's mapping for honest ones, an error for the rest, bounds for all."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors import agent_commands
from collectors.agent_commands import AgentCommand, Reply
from collectors.bounds import RoundTrip
from collectors.domain import Domain
from collectors.guest import UNSUPPORTED, Guest
from collectors.replies import AgentInfo
from collectors.schedule import periods
from guestwire.errors import ContractError
from guestwire.machine import Clock, CpuStats, Disk, DiskAddress, DiskStats, Load, Vcpu
from guestwire.settings import Collect
from guestwire.snapshot import (
    Command,
    Filesystem,
    FilesystemDisk,
    GuestInterface,
    GuestRef,
    IPAddress,
    OperatingSystem,
    Phase,
    User,
)

NOW = datetime(2026, 2, 3, tzinfo=UTC)
DOMAIN = Domain(
    GuestRef("ns", "vm"), "ns_vm", "uuid", "uid", Phase.RUNNING, channel=True, connected=True, interfaces=()
)
RECORDED = [
    pytest.param(
        json.loads(path.read_text(encoding="utf-8")),
        id=path.stem,
    )
    for path in sorted((Path(__file__).parent / "recorded").glob("*.json"))
]


def parse(command: AgentCommand, returned: Any) -> Reply:
    """A reply that returns this value."""
    return agent_commands.parse(command, json.dumps({"return": returned}))


def test_info() -> None:
    """Version and commands; `success-response` is dropped."""
    returned = {
        "version": "7.2.22",
        "supported_commands": [
            {"name": "guest-ping", "enabled": True, "success-response": True},
            {"name": "guest-exec", "enabled": False, "success-response": True},
        ],
    }

    assert Reply(AgentInfo("7.2.22", (Command("guest-ping", True), Command("guest-exec", False)))) == parse(
        AgentCommand.INFO, returned
    )


def test_osinfo() -> None:
    """The eight fields, each optional; variants are not KubeVirt's."""
    returned = {"id": "fedora", "pretty-name": "Fedora 39", "version-id": "39", "kernel-release": "6.5", "variant": "x"}
    expected = OperatingSystem(id="fedora", pretty_name="Fedora 39", version_id="39", kernel_release="6.5")

    assert Reply(expected) == parse(AgentCommand.OSINFO, returned)
    assert Reply(OperatingSystem()) == parse(AgentCommand.OSINFO, {})


def test_timezone() -> None:
    """Zone and offset; the zone may be missing, the offset may not."""
    assert Reply("CET, 3600") == parse(AgentCommand.TIMEZONE, {"zone": "CET", "offset": 3600})
    assert Reply(", -18000") == parse(AgentCommand.TIMEZONE, {"offset": -18000})
    with pytest.raises(ContractError, match="offset"):
        parse(AgentCommand.TIMEZONE, {"zone": "CET"})


def test_users() -> None:
    """Domain for Windows, fractional login times, 0 for a time beyond KubeVirt's milliseconds."""
    returned = [
        {"user": "bob", "login-time": 1580467675.876078},
        {"user": "Administrator", "domain": "WIN", "login-time": 1700000000},
        {"user": "eve", "login-time": 1e300},
    ]

    assert (User("bob", "", 1580467675.876078), User("Administrator", "WIN", 1700000000), User("eve")) == parse(
        AgentCommand.USERS, returned
    ).value


def test_filesystems() -> None:
    """Sizes of 64 bits, 0 where the agent does not tell, disks by bus and serial."""
    returned = [
        {
            "name": "vda1",
            "mountpoint": "/",
            "type": "ext4",
            "used-bytes": 2**53 + 1,
            "total-bytes": 2**62,
            "disk": [{"bus-type": "scsi", "serial": "s-1", "bus": 0}],
        },
        {"name": "sda1", "mountpoint": "C:\\", "type": "NTFS", "disk": []},
    ]

    assert (
        Filesystem("vda1", "/", "ext4", 2**53 + 1, 2**62, (FilesystemDisk("scsi", "s-1"),)),
        Filesystem("sda1", "C:\\", "NTFS", 0, 0),
    ) == parse(AgentCommand.FILESYSTEMS, returned).value


def test_interfaces() -> None:
    """Addresses in the agent's order; an alias adds to its interface; the loopback stays in this view."""
    returned = [
        {"name": "lo", "hardware-address": "00:00:00:00:00:00"},
        {
            "name": "eth0",
            "hardware-address": "02:00:00:00:00:01",
            "ip-addresses": [{"ip-address": "10.0.0.1", "prefix": 24}],
        },
        {"name": "eth0:1", "ip-addresses": [{"ip-address": "10.0.0.2", "ip-address-type": "ipv4", "prefix": 24}]},
    ]

    assert (
        GuestInterface("lo", "00:00:00:00:00:00"),
        GuestInterface("eth0", "02:00:00:00:00:01", (IPAddress("10.0.0.1", 24), IPAddress("10.0.0.2", 24))),
    ) == parse(AgentCommand.INTERFACES, returned).value


def test_load() -> None:
    """Three averages, all of them mandatory; whole ones are numbers too."""
    assert Reply(Load(0.5, 1, 0.0)) == parse(AgentCommand.LOAD, {"load1m": 0.5, "load5m": 1, "load15m": 0.0})
    with pytest.raises(ContractError, match="load15m"):
        parse(AgentCommand.LOAD, {"load1m": 0.5, "load5m": 1})


def test_disks() -> None:
    """A disk with its address, a partition on it, a logical volume; an unknown controller is -1, SMART is left out."""
    pci = {"domain": 0, "bus": 3, "slot": 31, "function": 7}
    unknown = dict.fromkeys(pci, -1)
    place = {"bus-type": "virtio", "bus": 0, "target": 1, "unit": 2}
    returned = [
        {
            "name": "/dev/vda",
            "partition": False,
            "dependencies": [],
            "address": {**place, "pci-controller": pci, "serial": "s-1", "dev": "/dev/vda"},
            "smart": {"type": "nvme", "critical-warning": 0},
        },
        {"name": "/dev/vda1", "partition": True, "dependencies": ["/dev/vda"]},
        {"name": "/dev/dm-0", "partition": False, "alias": "vg-root", "dependencies": ["/dev/vda1", "/dev/vdb"]},
        {"name": "\\\\.\\PhysicalDrive0", "partition": False, "address": {**place, "pci-controller": unknown}},
    ]

    assert (
        Disk(
            "/dev/vda",
            partition=False,
            dependencies=(),
            address=DiskAddress("virtio", 0, 1, 2, "0000:03:1f.7", "s-1", "/dev/vda"),
        ),
        Disk("/dev/vda1", partition=True, dependencies=("/dev/vda",)),
        Disk("/dev/dm-0", partition=False, dependencies=("/dev/vda1", "/dev/vdb"), alias="vg-root"),
        Disk("\\\\.\\PhysicalDrive0", partition=False, address=DiskAddress("virtio", 0, 1, 2)),
    ) == parse(AgentCommand.DISKS, returned).value.disks


def test_cpustats() -> None:
    """Milliseconds as the agent has them; what an old kernel does not count is unknown, not 0."""
    first = {"type": "linux", "cpu": 0, "user": 1, "nice": 2, "system": 3, "idle": 2**63 - 1}
    returned = [{**first, "iowait": 0, "irq": 5, "softirq": 6, "steal": 7, "guest": 8, "guestnice": 9}, first]

    assert (
        CpuStats(0, 1, 2, 3, 2**63 - 1, 0, 5, 6, 7, 8, 9),
        CpuStats(0, 1, 2, 3, 2**63 - 1),
    ) == parse(AgentCommand.CPUSTATS, returned).value.cpus


def test_diskstats() -> None:
    """Sectors are bytes, ticks milliseconds; what a kernel does not count is unknown."""
    stats = {
        "read-sectors": 24, "read-ios": 9, "read-merges": 1, "read-ticks": 8, "write-sectors": 2, "write-ios": 3,
        "write-merges": 4, "write-ticks": 12, "discard-sectors": 1, "discard-ios": 2, "discard-merges": 3,
        "discard-ticks": 4, "flush-ios": 5, "flush-ticks": 6, "ios-pgr": 0, "total-ticks": 16, "weight-ticks": 27,
    }  # fmt: skip
    returned = [{"name": "vda", "major": 254, "minor": 0, "stats": stats}, {"name": "sr0", "major": 11, "minor": 0,
                "stats": {}}]  # fmt: skip

    assert (
        DiskStats(
            "vda", 254, 0,
            read_bytes=24 * 512, read_requests=9, read_merges=1, read_time=8,
            write_bytes=1024, write_requests=3, write_merges=4, write_time=12,
            discard_bytes=512, discard_requests=2, discard_merges=3, discard_time=4,
            flush_requests=5, flush_time=6, in_flight=0, busy_time=16, queue_time=27,
        ),
        DiskStats("sr0", 11, 0),
    ) == parse(AgentCommand.DISKSTATS, returned).value.disks  # fmt: skip
    largest = {"read-sectors": (2**63 - 1) // 512}
    [disk] = parse(AgentCommand.DISKSTATS, [{**returned[1], "stats": largest}]).value.disks
    assert 2**63 - 512 == disk.read_bytes


@pytest.mark.parametrize(
    ("sent", "answered", "guest", "expected"),
    [
        (10_000_000_000, 10_040_000_000, 10_020_000_000, Clock(0.0, 0.02)),
        (10_000_000_000, 10_040_000_000, 10_000_000_000, Clock(-0.02, 0.02)),
        (10_000_000_000, 10_000_000_000, 13_600_000_000_000, Clock(13590.0, 0.0)),
        (10_000_000_000, 9_000_000_000, 9_500_000_000, Clock(0.0, 0.0)),
        (1_795_454_509_000_000_000, 1_795_454_509_010_000_000, 0, Clock(-1795454509.005, 0.005)),
    ],
    ids=["in step", "behind", "ahead", "our own clock stepped back", "never set"],
)
def test_time(sent: int, answered: int, guest: int, expected: Clock) -> None:
    """The offset holds half-way of the round trip, and is uncertain by half of it."""
    reply = agent_commands.parse(AgentCommand.TIME, f'{{"return":{guest}}}', RoundTrip(sent, answered))

    assert Reply(expected) == reply


def test_time_that_nobody_measured() -> None:
    """Without the moments of asking and answering there is no offset."""
    with pytest.raises(ContractError, match="guest-get-time"):
        parse(AgentCommand.TIME, 1)


@given(st.integers(0, 10**19 // 2), st.integers(0, 10**10), st.integers(-(10**15), 10**15), st.floats(0, 1))
def test_offset_is_within_its_uncertainty(sent: int, took: int, ahead: int, share: float) -> None:
    """Wherever in the round trip the guest looked at its clock, the true offset is within the uncertainty."""
    looked = sent + int(took * share)
    clock: Clock = agent_commands.parse(
        AgentCommand.TIME, f'{{"return":{looked + ahead}}}', RoundTrip(sent, sent + took)
    ).value

    assert abs(clock.offset - ahead / 1e9) <= clock.uncertainty + 2e-6


def test_vcpus() -> None:
    """By id, whatever the agent's order; whether one may go offline may be unknown."""
    returned = [{"logical-id": 1, "online": False, "can-offline": True}, {"logical-id": 0, "online": True}]

    assert (Vcpu(0, online=True), Vcpu(1, online=False, can_offline=True)) == parse(
        AgentCommand.VCPUS, returned
    ).value.vcpus


@pytest.mark.parametrize("command", list(AgentCommand))
@pytest.mark.parametrize(
    "reply",
    ["", "{", "null", "[]", "{}", '{"return": null}', '{"return": 1}', '{"return": [[]]}', '{"error": {}}',
     "[" * 100_000, '{"return": ' + "[" * 100_000, '{"return": [{"user": 1, "name": 1}]}', '{"return": NaN}', "\x00",
     '{"return": [{"name": "\\ud800", "user": "\\ud800"}]}'],
)  # fmt: skip
def test_nonsense(command: AgentCommand, reply: str) -> None:
    """A reply of the wrong shape is a short error that names the command."""
    with pytest.raises(ContractError, match=command) as raised:
        agent_commands.parse(command, reply)

    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("recorded", RECORDED)
def test_recorded(recorded: dict[str, Any]) -> None:
    """
    What old agents and Windows reply becomes KubeVirt's JSON, and what new ones have to say our own. They are asked as
    a collector does, so only for what they list; what they lack is said to be missing, and all else is told.
    """
    guest = Guest(DOMAIN, "host", NOW)
    settings = msgspec.convert(recorded.get("collect", {}), Collect)
    for command in periods(settings, DOMAIN.ref.namespace):
        if not guest.supports(command):
            guest.failed(command, UNSUPPORTED)
            continue
        reply = recorded["replies"][command]
        if "error" in reply:
            guest.failed(command, reply["error"]["desc"])
        else:
            said = agent_commands.parse(command, json.dumps(reply), RoundTrip(*recorded.get("trip", (0, 0))))
            assert 0 == said.truncated
            guest.read(command, said, NOW)
    bodies = {part.kind: json.loads(part.body) for part in guest.snapshot("t").parts}
    agent = bodies["agent"]
    bodies["agent"] = {field: agent[field] for field in ("version", "frozen", "commands", "readings") if field in agent}

    assert recorded["expected"] == bodies


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(["user", "name"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.sampled_from(AgentCommand), JSON)
def test_anything(command: AgentCommand, returned: Any) -> None:
    """Whatever a guest says is a reply or a ContractError."""
    with contextlib.suppress(ContractError):
        assert isinstance(parse(command, returned), Reply)
