"""
The agent commands this project sends, and what it makes of the replies.

Replies come from inside a guest, so they are hostile until parsed: what is taken from one is bounded in its encoded
form, whatever its characters; a reply of the wrong shape is that command's failure and nobody else's. Unknown keys are
ignored and missing ones take Go's zero value, as in KubeVirt's parser (agent_parser.go); a missing `mandatory` key is
an error, as in libvirt's (qemu_agent.c). Control characters pass, escaped in JSON: a reader sees what the guest said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec

from guestwire.errors import ContractError
from guestwire.snapshot import Command, Filesystem, FilesystemDisk, GuestInterface, IPAddress, OperatingSystem, User

S = TypeVar("S")
T = TypeVar("T")

MOST_ENTRIES = 1000
"""Users, filesystems, interfaces, commands taken from one reply."""
MOST_INNER = 100
"""Addresses of one interface, disks of one filesystem."""
MOST_TEXT = 1024
"""Bytes of one text, as JSON: a control character takes six."""
MOST_LIST = 400 * 1024
"""
Bytes of one list, as JSON. NATS takes 1 MiB at once, and `guestosinfo` holds up to two lists, the commands and the
first filesystems, beside some thirty texts.
"""
MOST_BYTES = 10 * 1024 * 1024
"""libvirt's own limit for a reply (QEMU_AGENT_MAX_RESPONSE)."""
MOST_OBJECTS = 250_000
"""
JSON objects of a reply: each costs a hundred bytes of memory once decoded, also an empty one. Replies that say anything
in their objects reach MOST_BYTES first.
"""
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
    """A parsed reply, and how much was cut from it: entries left out, and texts shortened."""

    value: Any
    truncated: int = 0


# --- the shapes of replies ---------------------------------------------------------------------------------------

Size = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]


class _Kebab(msgspec.Struct, rename="kebab", gc=False):
    pass


class _SupportedCommand(_Kebab):
    name: str = ""
    enabled: bool = False


class _Info(msgspec.Struct, gc=False):
    version: str = ""
    supported_commands: tuple[_SupportedCommand, ...] = ()


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
    offset: Annotated[int, msgspec.Meta(ge=-INT64_MAX, le=INT64_MAX)]
    zone: str = ""


class _Address(_Kebab):
    ip_address: str = ""
    prefix: Annotated[int, msgspec.Meta(ge=0, le=128)] = 0


class _Interface(_Kebab):
    name: str
    hardware_address: str = ""
    ip_addresses: tuple[_Address, ...] = ()


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
    disk: tuple[_Disk, ...] = ()


# --- from shapes to the contract ---------------------------------------------------------------------------------


class _Bounds:
    """Takes from one reply what a message can hold, and counts what it leaves."""

    def __init__(self) -> None:
        self.truncated = 0

    def text(self, text: str) -> str:
        """The text, or as much from its beginning as MOST_TEXT allows."""
        kept = text[:MOST_TEXT]
        while (excess := _size(kept) - len('""') - MOST_TEXT) > 0:
            kept = kept[: -math.ceil(excess / len(r"\u0001"))]
        self.truncated += kept != text
        return kept

    def entries(self, given: Sequence[S], make: Callable[[S], T], most: int = MOST_ENTRIES) -> tuple[T, ...]:
        """What is made of the first entries, as many as `most` and MOST_LIST allow."""
        kept: list[T] = []
        room = MOST_LIST
        for entry in given[:most]:
            shortened, made = self.truncated, make(entry)
            room -= _size(made) + len(",")
            if room < 0:
                self.truncated = shortened
                break
            kept.append(made)
        self.truncated += len(given) - len(kept)
        return tuple(kept)


def _size(value: object) -> int:
    """Bytes as JSON."""
    return len(_encoder.encode(value))


def _info(bounds: _Bounds, info: _Info) -> AgentInfo:
    def command(entry: _SupportedCommand) -> Command:
        return Command(bounds.text(entry.name), entry.enabled)

    return AgentInfo(bounds.text(info.version), bounds.entries(info.supported_commands, command))


def _os(bounds: _Bounds, info: _OSInfo) -> OperatingSystem:
    return OperatingSystem(*(bounds.text(getattr(info, name)) for name in OperatingSystem.__struct_fields__))


def _hostname(bounds: _Bounds, reply: _HostName) -> str:
    return bounds.text(reply.host_name)


def _timezone(bounds: _Bounds, zone: _Timezone) -> str:
    """`"ZONE, OFFSET"`, KubeVirt's form; the zone may be missing."""
    return f"{bounds.text(zone.zone)}, {zone.offset}"


def _login_time(seconds: float) -> float:
    """What does not fit milliseconds in 64 bits is 0, as in KubeVirt."""
    return 0 if abs(seconds) * 1000 > INT64_MAX else seconds


def _users(bounds: _Bounds, users: list[_User]) -> tuple[User, ...]:
    def user(entry: _User) -> User:
        return User(bounds.text(entry.user), bounds.text(entry.domain), _login_time(entry.login_time))

    return bounds.entries(users, user)


def _filesystems(bounds: _Bounds, filesystems: list[_Filesystem]) -> tuple[Filesystem, ...]:
    def disk(entry: _Disk) -> FilesystemDisk:
        return FilesystemDisk(bounds.text(entry.bus_type), bounds.text(entry.serial))

    def filesystem(entry: _Filesystem) -> Filesystem:
        return Filesystem(
            disk_name=bounds.text(entry.name),
            mount_point=bounds.text(entry.mountpoint),
            file_system_type=bounds.text(entry.type),
            used_bytes=entry.used_bytes,
            total_bytes=entry.total_bytes,
            disk=bounds.entries(entry.disk, disk, MOST_INNER),
        )

    return bounds.entries(filesystems, filesystem)


def _interfaces(bounds: _Bounds, interfaces: list[_Interface]) -> tuple[GuestInterface, ...]:
    """An alias `eth0:1` adds its addresses to `eth0`, as libvirt does."""
    macs: dict[str, str] = {}
    addresses: dict[str, list[_Address]] = {}
    for entry in interfaces:
        name = entry.name.partition(":")[0]
        macs[name] = macs.get(name) or entry.hardware_address
        addresses.setdefault(name, []).extend(entry.ip_addresses)

    def address(entry: _Address) -> IPAddress:
        return IPAddress(bounds.text(entry.ip_address), entry.prefix)

    def interface(name: str) -> GuestInterface:
        known = bounds.entries(addresses[name], address, MOST_INNER)
        return GuestInterface(bounds.text(name), bounds.text(macs[name]), known)

    return bounds.entries(list(macs), interface)


_PARSERS: dict[AgentCommand, tuple[Any, Callable[[_Bounds, Any], Any]]] = {
    AgentCommand.INFO: (_Info, _info),
    AgentCommand.FREEZE_STATUS: (str, _Bounds.text),
    AgentCommand.OSINFO: (_OSInfo, _os),
    AgentCommand.HOSTNAME: (_HostName, _hostname),
    AgentCommand.TIMEZONE: (_Timezone, _timezone),
    AgentCommand.INTERFACES: (list[_Interface], _interfaces),
    AgentCommand.USERS: (list[_User], _users),
    AgentCommand.FILESYSTEMS: (list[_Filesystem], _filesystems),
}

_encoder = msgspec.json.Encoder()
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
    if reply.count("{") > MOST_OBJECTS:
        raise ContractError(f"{command}: reply of more than {MOST_OBJECTS} objects is too large")
    bounds, (_, convert) = _Bounds(), _PARSERS[command]
    try:
        value = convert(bounds, getattr(_DECODERS[command].decode(reply), "return"))
    except (msgspec.DecodeError, RecursionError, ValueError, OverflowError) as error:
        raise ContractError(f"{command}: unreadable reply: {str(error)[:200]}") from error
    return Reply(value, bounds.truncated)
