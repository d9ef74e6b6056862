"""
The agent commands this project sends, and what it makes of the replies.

Replies come from inside a guest, so they are hostile until parsed: what is taken from one is bounded (`Bounds`), and a
reply of the wrong shape is that command's failure and nobody else's.

Another kind of facts about a guest is a row in OPTIONAL, with the names it stands for: its command here, its kind in
`guestwire.snapshot`, its body in `guestwire.kinds`, and its longest age in `guestwire.settings`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from collectors import machine_replies as machine
from collectors import noise, replies
from collectors.bounds import MOST_BYTES, MOST_OBJECTS, Bounds, RoundTrip
from guestwire.errors import ContractError
from guestwire.snapshot import Body, Kind


class AgentCommand(StrEnum):
    """In the order in which a fresh agent is asked."""

    INFO = "guest-info"
    FREEZE_STATUS = "guest-fsfreeze-status"
    OSINFO = "guest-get-osinfo"
    HOSTNAME = "guest-get-host-name"
    TIMEZONE = "guest-get-timezone"
    INTERFACES = "guest-network-get-interfaces"
    USERS = "guest-get-users"
    FILESYSTEMS = "guest-get-fsinfo"
    LOAD = "guest-get-load"
    DISKS = "guest-get-disks"
    CPUSTATS = "guest-get-cpustats"
    DISKSTATS = "guest-get-diskstats"
    TIME = "guest-get-time"
    VCPUS = "guest-get-vcpus"


class Reply(msgspec.Struct, frozen=True):
    """A parsed reply, and how much was cut from it: entries left out, and texts shortened."""

    value: Any
    truncated: int = 0


class OptionalKind(NamedTuple):
    """
    A kind of facts that is read where its setting says so, `collect.<kind>`, and the agent lists its command. One reply
    is one body.
    """

    command: AgentCommand
    kind: Kind
    shape: Any
    """Of what the reply returns, for msgspec."""
    convert: Callable[[Bounds, Any], Body]
    small: noise.Small | None = None
    """Which moves of it are noise; None where every change is news."""


OPTIONAL = (
    OptionalKind(AgentCommand.LOAD, Kind.LOAD, machine.LoadReply, machine.load, noise.LOAD),
    OptionalKind(AgentCommand.DISKS, Kind.DISKS, list[machine.DiskEntry], machine.disks),
    OptionalKind(AgentCommand.CPUSTATS, Kind.CPUSTATS, list[machine.CpuEntry], machine.cpustats, noise.CPUS),
    OptionalKind(AgentCommand.DISKSTATS, Kind.DISKSTATS, list[machine.DiskStatsEntry], machine.diskstats, noise.DISKS),
    OptionalKind(AgentCommand.TIME, Kind.TIME, machine.Integer, machine.time, noise.CLOCK),
    OptionalKind(AgentCommand.VCPUS, Kind.VCPUS, list[machine.VcpuEntry], machine.vcpus),
)
"""All of them."""

OPTIONAL_COMMANDS = frozenset(row.command for row in OPTIONAL)

SMALL: dict[AgentCommand, noise.Small] = {
    AgentCommand.FILESYSTEMS: noise.USAGE,
    **{row.command: row.small for row in OPTIONAL if row.small},
}
"""Which moves are noise, of the commands whose replies differ all the time."""

_PARSERS: dict[AgentCommand, tuple[Any, Callable[[Bounds, Any], Any]]] = {
    AgentCommand.INFO: (replies.InfoReply, replies.info),
    AgentCommand.FREEZE_STATUS: (str, Bounds.text),
    AgentCommand.OSINFO: (replies.OSInfoReply, replies.osinfo),
    AgentCommand.HOSTNAME: (replies.HostNameReply, replies.hostname),
    AgentCommand.TIMEZONE: (replies.TimezoneReply, replies.timezone),
    AgentCommand.INTERFACES: (list[replies.InterfaceEntry], replies.interfaces),
    AgentCommand.USERS: (list[replies.UserEntry], replies.users),
    AgentCommand.FILESYSTEMS: (list[replies.FilesystemEntry], replies.filesystems),
    **{row.command: (row.shape, row.convert) for row in OPTIONAL},
}
_DECODERS = {
    command: msgspec.json.Decoder(msgspec.defstruct("Returned", [("return", shape)]))
    for command, (shape, _) in _PARSERS.items()
}


def request(command: AgentCommand) -> str:
    """The JSON that goes to the agent."""
    return f'{{"execute":"{command}"}}'


def parse(command: AgentCommand, reply: str, trip: RoundTrip | None = None) -> Reply:
    """
    What the agent said; `trip` is when, which guest-get-time needs. Raises ContractError, naming the place, for
    anything of another shape.
    """
    if len(reply) > MOST_BYTES:
        raise ContractError(f"{command}: reply of {len(reply)} characters is too large")
    if reply.count("{") > MOST_OBJECTS:
        raise ContractError(f"{command}: reply of more than {MOST_OBJECTS} objects is too large")
    bounds, (_, convert) = Bounds(trip), _PARSERS[command]
    try:
        value = convert(bounds, getattr(_DECODERS[command].decode(reply), "return"))
    except (msgspec.DecodeError, RecursionError, ValueError, OverflowError) as error:
        raise ContractError(f"{command}: unreadable reply: {str(error)[:200]}") from error
    return Reply(value, bounds.truncated)
