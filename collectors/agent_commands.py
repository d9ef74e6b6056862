"""
The agent commands this project sends, and what it makes of the replies.

Replies come from inside a guest, so they are hostile until parsed: counts and texts are bounded, a reply of the wrong
shape is that command's failure and nobody else's. Unknown keys are ignored and missing ones take Go's zero value, as in
KubeVirt's parser (agent_parser.go); a missing `mandatory` key is an error, as in libvirt's (qemu_agent.c).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from guestwire.errors import ContractError
from guestwire.snapshot import Command, Filesystem, FilesystemDisk, GuestInterface, IPAddress, OperatingSystem, User

MOST_ENTRIES = 1000
"""Users, filesystems, interfaces, commands taken from one reply; the rest is counted as truncated."""
MOST_INNER = 100
"""Addresses of one interface, disks of one filesystem."""
MOST_TEXT = 1024
"""Characters of one text."""
MOST_BYTES = 10 * 1024 * 1024
"""libvirt's own limit for a reply (QEMU_AGENT_MAX_RESPONSE)."""
INT64_MAX = 2**63 - 1


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


class AgentInfo(msgspec.Struct, frozen=True):
    """From guest-info."""

    version: str
    commands: tuple[Command, ...]


class Reply(msgspec.Struct, frozen=True):
    """A parsed reply, and how many entries were cut from it."""

    value: Any
    truncated: int = 0


# --- the shapes of replies ---------------------------------------------------------------------------------------

Size = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]


class _Kebab(msgspec.Struct, rename="kebab"):
    pass


class _SupportedCommand(_Kebab):
    name: str = ""
    enabled: bool = False


class _Info(msgspec.Struct):
    version: str = ""
    supported_commands: list[_SupportedCommand] = []


class _OSInfo(_Kebab):
    id: str = ""
    kernel_release: str = ""
    kernel_version: str = ""
    machine: str = ""
    name: str = ""
    pretty_name: str = ""
    version: str = ""
    version_id: str = ""


class _HostName(_Kebab):
    host_name: str = ""


class _Timezone(_Kebab):
    offset: int
    zone: str = ""


class _Address(_Kebab):
    ip_address: str = ""
    prefix: Annotated[int, msgspec.Meta(ge=0, le=128)] = 0


class _Interface(_Kebab):
    name: str
    hardware_address: str = ""
    ip_addresses: list[_Address] = []


class _User(_Kebab):
    user: str = ""
    domain: str = ""
    login_time: float = 0.0


class _Disk(_Kebab):
    serial: str = ""
    bus_type: str = ""


class _Filesystem(_Kebab):
    name: str = ""
    mountpoint: str = ""
    type: str = ""
    used_bytes: Size = 0
    total_bytes: Size = 0
    disk: list[_Disk] = []


def _text(text: str) -> str:
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT]


def _info(info: _Info) -> Reply:
    kept = info.supported_commands[:MOST_ENTRIES]
    commands = tuple(Command(_text(command.name), command.enabled) for command in kept)
    return Reply(AgentInfo(_text(info.version), commands), len(info.supported_commands) - len(kept))


def _os(info: _OSInfo) -> Reply:
    return Reply(OperatingSystem(*(_text(getattr(info, name)) for name in OperatingSystem.__struct_fields__)))


def _timezone(zone: _Timezone) -> Reply:
    """`"ZONE, OFFSET"`, KubeVirt's form; the zone may be missing."""
    return Reply(f"{_text(zone.zone)}, {zone.offset}")


def _login_time(seconds: float) -> float:
    """What does not fit milliseconds in 64 bits is 0, as in KubeVirt."""
    return 0 if abs(seconds) * 1000 > INT64_MAX else seconds


def _users(users: list[_User]) -> Reply:
    kept = users[:MOST_ENTRIES]
    return Reply(
        tuple(User(_text(user.user), _text(user.domain), _login_time(user.login_time)) for user in kept),
        len(users) - len(kept),
    )


def _filesystems(filesystems: list[_Filesystem]) -> Reply:
    kept = filesystems[:MOST_ENTRIES]
    cut = len(filesystems) - len(kept) + sum(max(0, len(entry.disk) - MOST_INNER) for entry in kept)
    return Reply(
        tuple(
            Filesystem(
                disk_name=_text(entry.name),
                mount_point=_text(entry.mountpoint),
                file_system_type=_text(entry.type),
                used_bytes=entry.used_bytes,
                total_bytes=entry.total_bytes,
                disk=tuple(
                    FilesystemDisk(_text(disk.bus_type), _text(disk.serial)) for disk in entry.disk[:MOST_INNER]
                ),
            )
            for entry in kept
        ),
        cut,
    )


def _interfaces(interfaces: list[_Interface]) -> Reply:
    """An alias `eth0:1` adds its addresses to `eth0`, as libvirt does."""
    macs: dict[str, str] = {}
    addresses: dict[str, list[IPAddress]] = {}
    cut = 0
    for interface in interfaces:
        name = _text(interface.name.partition(":")[0])
        if name not in macs and len(macs) == MOST_ENTRIES:
            cut += 1
            continue
        macs[name] = macs.get(name) or _text(interface.hardware_address)
        known = addresses.setdefault(name, [])
        room = MOST_INNER - len(known)
        known += [IPAddress(_text(entry.ip_address), entry.prefix) for entry in interface.ip_addresses[:room]]
        cut += max(0, len(interface.ip_addresses) - room)
    return Reply(tuple(GuestInterface(name, mac, tuple(addresses[name])) for name, mac in macs.items()), cut)


_PARSERS: dict[AgentCommand, tuple[Any, Callable[[Any], Reply]]] = {
    AgentCommand.INFO: (_Info, _info),
    AgentCommand.FREEZE_STATUS: (str, lambda status: Reply(_text(status))),
    AgentCommand.OSINFO: (_OSInfo, _os),
    AgentCommand.HOSTNAME: (_HostName, lambda reply: Reply(_text(reply.host_name))),
    AgentCommand.TIMEZONE: (_Timezone, _timezone),
    AgentCommand.INTERFACES: (list[_Interface], _interfaces),
    AgentCommand.USERS: (list[_User], _users),
    AgentCommand.FILESYSTEMS: (list[_Filesystem], _filesystems),
}

_DECODERS = {
    command: msgspec.json.Decoder(msgspec.defstruct("Returned", [("return", shape)]))
    for command, (shape, _) in _PARSERS.items()
}


def request(command: AgentCommand) -> str:
    """The JSON that goes to the agent."""
    return f'{{"execute":"{command}"}}'


def parse(command: AgentCommand, reply: str) -> Reply:
    """What the agent said. Raises ContractError, naming the place, for anything of another shape."""
    if len(reply) > MOST_BYTES:
        raise ContractError(f"{command}: reply of {len(reply)} characters is too large")
    try:
        returned = _DECODERS[command].decode(reply)
        return _PARSERS[command][1](getattr(returned, "return"))
    except (msgspec.DecodeError, RecursionError, ValueError, OverflowError) as error:
        raise ContractError(f"{command}: unreadable reply: {str(error)[:200]}") from error
