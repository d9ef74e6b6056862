"""
Replies to the commands behind KubeVirt's facts: their shapes, and what the contract makes of them.

Unknown keys are ignored and missing ones take Go's zero value, as in KubeVirt's parser (agent_parser.go); a missing
mandatory key is an error, as in libvirt's (qemu_agent.c). Control characters pass, escaped in JSON: a reader sees what
the guest said.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from collectors.bounds import INT64_MAX, MOST_INNER, Bounds
from guestwire.snapshot import Command, Filesystem, FilesystemDisk, GuestInterface, IPAddress, OperatingSystem, User

Size = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]


class AgentInfo(msgspec.Struct, frozen=True):
    """From guest-info."""

    version: str
    commands: tuple[Command, ...]


# --- shapes ------------------------------------------------------------------------------------------------------


class Kebab(msgspec.Struct, rename="kebab", gc=False):
    """Base of most shapes: keys with dashes."""


class SupportedCommand(Kebab):
    name: str = ""
    enabled: bool = False


class InfoReply(msgspec.Struct, gc=False):
    version: str = ""
    supported_commands: tuple[SupportedCommand, ...] = ()


class OSInfoReply(Kebab):
    id: str = ""
    kernel_release: str = ""
    kernel_version: str = ""
    machine: str = ""
    name: str = ""
    pretty_name: str = ""
    version: str = ""
    version_id: str = ""


class HostNameReply(Kebab):
    host_name: str = ""


class TimezoneReply(Kebab):
    offset: Annotated[int, msgspec.Meta(ge=-INT64_MAX, le=INT64_MAX)]
    zone: str = ""


class Address(Kebab):
    ip_address: str = ""
    prefix: Annotated[int, msgspec.Meta(ge=0, le=128)] = 0


class InterfaceEntry(Kebab):
    name: str
    hardware_address: str = ""
    ip_addresses: tuple[Address, ...] = ()


class UserEntry(Kebab):
    user: str = ""
    domain: str = ""
    login_time: float = 0.0


class DiskEntry(Kebab):
    serial: str = ""
    bus_type: str = ""


class FilesystemEntry(Kebab):
    name: str = ""
    mountpoint: str = ""
    type: str = ""
    used_bytes: Size = 0
    total_bytes: Size = 0
    disk: tuple[DiskEntry, ...] = ()


# --- from shapes to the contract ---------------------------------------------------------------------------------


def info(bounds: Bounds, reply: InfoReply) -> AgentInfo:
    """Version and commands."""

    def command(entry: SupportedCommand) -> Command:
        return Command(bounds.text(entry.name), entry.enabled)

    return AgentInfo(bounds.text(reply.version), bounds.entries(reply.supported_commands, command))


def osinfo(bounds: Bounds, reply: OSInfoReply) -> OperatingSystem:
    """The eight fields."""
    return OperatingSystem(*(bounds.text(getattr(reply, name)) for name in OperatingSystem.__struct_fields__))


def hostname(bounds: Bounds, reply: HostNameReply) -> str:
    """As it is."""
    return bounds.text(reply.host_name)


def timezone(bounds: Bounds, reply: TimezoneReply) -> str:
    """`"ZONE, OFFSET"`, KubeVirt's form; the zone may be missing."""
    return f"{bounds.text(reply.zone)}, {reply.offset}"


def _login_time(seconds: float) -> float:
    """What does not fit milliseconds in 64 bits is 0, as in KubeVirt."""
    return 0 if abs(seconds) * 1000 > INT64_MAX else seconds


def users(bounds: Bounds, reply: list[UserEntry]) -> tuple[User, ...]:
    """Everyone."""

    def user(entry: UserEntry) -> User:
        return User(bounds.text(entry.user), bounds.text(entry.domain), _login_time(entry.login_time))

    return bounds.entries(reply, user)


def filesystems(bounds: Bounds, reply: list[FilesystemEntry]) -> tuple[Filesystem, ...]:
    """Every filesystem."""

    def disk(entry: DiskEntry) -> FilesystemDisk:
        return FilesystemDisk(bounds.text(entry.bus_type), bounds.text(entry.serial))

    def filesystem(entry: FilesystemEntry) -> Filesystem:
        return Filesystem(
            disk_name=bounds.text(entry.name),
            mount_point=bounds.text(entry.mountpoint),
            file_system_type=bounds.text(entry.type),
            used_bytes=entry.used_bytes,
            total_bytes=entry.total_bytes,
            disk=bounds.entries(entry.disk, disk, MOST_INNER),
        )

    return bounds.entries(reply, filesystem)


def interfaces(bounds: Bounds, reply: list[InterfaceEntry]) -> tuple[GuestInterface, ...]:
    """An alias `eth0:1` adds its addresses to `eth0`, as libvirt does."""
    macs: dict[str, str] = {}
    addresses: dict[str, list[Address]] = {}
    for entry in reply:
        name = entry.name.partition(":")[0]
        macs[name] = macs.get(name) or entry.hardware_address
        addresses.setdefault(name, []).extend(entry.ip_addresses)

    def address(entry: Address) -> IPAddress:
        return IPAddress(bounds.text(entry.ip_address), entry.prefix)

    def interface(name: str) -> GuestInterface:
        known = bounds.entries(addresses[name], address, MOST_INNER)
        return GuestInterface(bounds.text(name), bounds.text(macs[name]), known)

    return bounds.entries(list(macs), interface)
