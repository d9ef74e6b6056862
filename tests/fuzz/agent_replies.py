"""
What must hold whatever a guest replies: it is a fact or a ContractError, and all that is said about the guest can be
sent, is valid JSON, and is read again as the same.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

from collectors.agent_commands import AgentCommand, Reply, parse
from collectors.bounds import RoundTrip
from collectors.domain import Domain
from collectors.guest import Guest
from guestwire import codec
from guestwire.errors import ContractError
from guestwire.kinds import BODIES
from guestwire.machine import CpuStats
from guestwire.snapshot import GuestRef, Phase

NOW = datetime(2026, 2, 3, tzinfo=UTC)
DOMAIN = Domain(
    GuestRef("ns", "vm"), "ns_vm", "uuid", "uid", Phase.RUNNING, channel=True, connected=True, interfaces=()
)
TRIP = RoundTrip(1_770_000_000_000_000_000, 1_770_000_000_012_345_678)
MOST_BODY = 900 * 1024
"""Bytes of one body; NATS takes 1 MiB with the headers."""

WORST = "\x01" * 171
"""Just longer than a text may be, and as long as any once encoded."""
_COMMAND = {"name": WORST, "enabled": True}
_DISK = {"serial": WORST, "bus-type": WORST}
_ADDRESS = {"ip-address": WORST, "prefix": 64}
_PLACE = {
    "bus-type": WORST,
    "serial": WORST,
    "dev": WORST,
    **dict.fromkeys(("bus", "target", "unit"), -(2**63) + 1),
    "pci-controller": dict.fromkeys(("domain", "bus", "slot", "function"), 2**63 - 1),
}
_COUNTERS = dict.fromkeys(
    (
        "read-sectors", "read-ios", "read-merges", "read-ticks", "write-sectors", "write-ios", "write-merges",
        "write-ticks", "discard-sectors", "discard-ios", "discard-merges", "discard-ticks", "flush-ios", "flush-ticks",
        "ios-pgr", "total-ticks", "weight-ticks",
    ),
    2**54 - 1,
)  # fmt: skip
FULLEST: dict[AgentCommand, Any] = {
    AgentCommand.INFO: {"version": WORST, "supported_commands": [_COMMAND] * 1000},
    AgentCommand.FREEZE_STATUS: WORST,
    AgentCommand.OSINFO: dict.fromkeys(
        ("id", "kernel-release", "kernel-version", "machine", "name", "pretty-name", "version", "version-id"), WORST
    ),
    AgentCommand.HOSTNAME: {"host-name": WORST},
    AgentCommand.TIMEZONE: {"zone": WORST, "offset": -(2**63) + 1},
    AgentCommand.INTERFACES: [
        {"name": f"{number}{WORST}", "hardware-address": WORST, "ip-addresses": [_ADDRESS] * 10}
        for number in range(100)
    ],
    AgentCommand.USERS: [{"user": WORST, "domain": WORST, "login-time": -1.2345678901234567e-300}] * 1000,
    AgentCommand.FILESYSTEMS: [
        {"name": WORST, "mountpoint": WORST, "type": WORST, "used-bytes": 2**63 - 1, "disk": [_DISK] * 17}
    ]
    * 100,
    AgentCommand.LOAD: dict.fromkeys(("load1m", "load5m", "load15m"), 1.2345678901234567e-300),
    AgentCommand.DISKS: [
        {"name": WORST, "partition": False, "dependencies": [WORST] * 17, "alias": WORST, "address": _PLACE}
    ]
    * 100,
    AgentCommand.CPUSTATS: [dict.fromkeys(CpuStats.__struct_fields__, 2**63 - 1)] * 2000,
    AgentCommand.DISKSTATS: [{"name": WORST, "major": 2**63 - 1, "minor": 2**63 - 1, "stats": _COUNTERS}] * 1000,
    AgentCommand.TIME: -(2**63) + 1,
    AgentCommand.VCPUS: [{"logical-id": -(2**63) + 1, "online": True, "can-offline": False}] * 1001,
}
"""For each command more than is taken of any reply; ten such filesystems alone fill a list."""
WITHOUT_BOUNDS = {AgentCommand.LOAD, AgentCommand.TIME}
"""Commands whose replies hold neither a list nor a text."""


@cache
def fullest() -> dict[AgentCommand, Reply]:
    """The most that can be taken from a reply to each command."""
    return {command: parse(command, json.dumps({"return": returned}), TRIP) for command, returned in FULLEST.items()}


def full_guest() -> Guest:
    """One that has said as much as it is let."""
    guest = Guest(DOMAIN, "host", NOW)
    for command, reply in fullest().items():
        guest.read(command, reply, NOW)
    return guest


def holds(guest: Guest, command: AgentCommand, reply: str) -> bool:
    """Let the guest reply, and look at all that is then said about it; whether the reply was readable."""
    error = ""
    try:
        guest.read(command, parse(command, reply, TRIP), NOW)
    except ContractError as refusal:
        error = str(refusal)
        guest.failed(command, error)
    assert len(error) < 300
    for part in guest.snapshot("t").parts:
        assert len(part.body) <= MOST_BODY, f"{part.kind}: {len(part.body)} bytes"
        json.loads(part.body.decode("utf-8"))
        assert part.body == codec.encode(codec.decode(part.body, BODIES[part.kind]))
    return not error
