"""Agent replies: KubeVirt's mapping for honest ones, an error for the rest, bounds for all."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors import agent_commands
from collectors.agent_commands import AgentCommand, AgentInfo, Reply
from collectors.domain import Domain
from collectors.guest import UNSUPPORTED, Guest
from guestwire.errors import ContractError
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
    What old agents and Windows reply becomes KubeVirt's JSON. They are asked as a collector does, so only for what they
    list; what they lack is said to be missing, and all else is told.
    """
    guest = Guest(DOMAIN, "host", NOW)
    for command in AgentCommand:
        if not guest.supports(command):
            guest.failed(command, UNSUPPORTED)
            continue
        reply = recorded["replies"][command]
        if "error" in reply:
            guest.failed(command, reply["error"]["desc"])
        else:
            said = agent_commands.parse(command, json.dumps(reply))
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
