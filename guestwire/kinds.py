"""The struct behind each kind of message, and its published schema."""

from __future__ import annotations

from typing import Any

import msgspec

from guestwire.machine import Clock, CpuStatsList, Disks, DiskStatsList, Load, Vcpus
from guestwire.snapshot import AgentState, Body, FilesystemList, GuestOSInfo, Interfaces, Kind, UserList

BODIES: dict[str, type[Body]] = {
    Kind.AGENT: AgentState,
    Kind.GUESTOSINFO: GuestOSInfo,
    Kind.USERLIST: UserList,
    Kind.FILESYSTEMLIST: FilesystemList,
    Kind.INTERFACES: Interfaces,
    Kind.LOAD: Load,
    Kind.DISKS: Disks,
    Kind.CPUSTATS: CpuStatsList,
    Kind.DISKSTATS: DiskStatsList,
    Kind.TIME: Clock,
    Kind.VCPUS: Vcpus,
}
"""By kind, all of them."""

OPTIONAL = (Kind.LOAD, Kind.DISKS, Kind.CPUSTATS, Kind.DISKSTATS, Kind.TIME, Kind.VCPUS)
"""Those that are read only where the setting of their name, `collect.<kind>`, says how old they may be."""


def schema(kind: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of a kind's body."""
    document = msgspec.json.schema(BODIES[kind])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:guestwire:v1:{kind}",
        **document,
    }
