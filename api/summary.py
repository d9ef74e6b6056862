"""
A guest in a line: what tables, the page and `guestwire top` show of it.

Bodies are decoded here, as far as a line needs them, and only for guests that are shown; of a kind that is not known
nothing is said, and never zero.
"""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address
from typing import TypeVar

import msgspec

from api.guest import Guest
from guestwire.snapshot import BEGINNING, Kind

T = TypeVar("T")

STALE = "stale"
"""In place of an agent's state, where nobody has told of the guest for long: what is known may not be so any more."""

READ_ONLY = frozenset(("squashfs", "iso9660", "erofs", "udf", "cramfs", "CDFS"))


class Fullest(msgspec.Struct, rename="camel", frozen=True):
    """The filesystem with the least room, by share."""

    mount_point: str
    used: float
    """0 to 1."""


class Summary(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """None and empty are unknown."""

    agent: str
    phase: str
    host: str
    since: datetime | None = None
    """Since when the agent is connected, or is not."""
    observed_at: datetime | None = None
    """The last reading of anything."""
    os: str = ""
    os_id: str = ""
    kernel: str = ""
    hostname: str = ""
    version: str = ""
    """Of the agent."""
    address: str = ""
    """The one to reach it by, as far as that can be told."""
    users: tuple[str, ...] | None = None
    """Each name once."""
    fullest: Fullest | None = None


class _System(msgspec.Struct, rename="camel", frozen=True):
    id: str = ""
    name: str = ""
    pretty_name: str = ""
    kernel_release: str = ""


class _Info(msgspec.Struct, rename="camel", frozen=True):
    os: _System = _System()
    hostname: str = ""
    guest_agent_version: str = ""


class _User(msgspec.Struct, rename="camel", frozen=True):
    user_name: str = ""


class _Users(msgspec.Struct, frozen=True):
    items: tuple[_User, ...]


class _Filesystem(msgspec.Struct, rename="camel", frozen=True):
    mount_point: str = ""
    file_system_type: str = ""
    used_bytes: int = 0
    total_bytes: int = 0


class _Filesystems(msgspec.Struct, frozen=True):
    items: tuple[_Filesystem, ...]


class _Nic(msgspec.Struct, frozen=True):
    mac: str = ""


class _Address(msgspec.Struct, frozen=True):
    address: str = ""


class _Interface(msgspec.Struct, frozen=True):
    mac: str = ""
    addresses: tuple[_Address, ...] = ()


class _Interfaces(msgspec.Struct, frozen=True):
    domain: tuple[_Nic, ...] = ()
    guest: tuple[_Interface, ...] = ()


_info, _users = msgspec.json.Decoder(_Info), msgspec.json.Decoder(_Users)
_filesystems, _interfaces = msgspec.json.Decoder(_Filesystems), msgspec.json.Decoder(_Interfaces)


def summarize(guest: Guest) -> Summary:
    """What is known of a guest at this moment."""
    presence = guest.presence
    if presence is None:
        return Summary("", "", "")
    info, users = _known(guest, Kind.GUESTOSINFO, _info), _known(guest, Kind.USERLIST, _users)
    filesystems, interfaces = (
        _known(guest, Kind.FILESYSTEMLIST, _filesystems),
        _known(guest, Kind.INTERFACES, _interfaces),
    )
    info = info or _Info()
    observed_at = max(presence.observed.values(), default=BEGINNING)
    return Summary(
        agent=presence.agent,
        phase=presence.phase,
        host=presence.host,
        since=presence.since,
        observed_at=observed_at if observed_at > BEGINNING else None,
        os=info.os.pretty_name or info.os.name or info.os.id,
        os_id=info.os.id,
        kernel=info.os.kernel_release,
        hostname=info.hostname,
        version=info.guest_agent_version,
        address=_reachable(interfaces) if interfaces else "",
        users=tuple(dict.fromkeys(user.user_name for user in users.items)) if users else None,
        fullest=_fullest(filesystems) if filesystems else None,
    )


def agent_now(guest: Guest, summary: Summary, now: float, silence: float) -> str:
    """The state of its agent, or that it is stale at this moment (`Guest.stale`); a summary is of a revision."""
    return STALE if guest.stale(now, silence) else summary.agent


def _known(guest: Guest, kind: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    fact = guest.fact(kind)
    try:
        return decoder.decode(fact.body) if fact else None
    except msgspec.DecodeError:  # of a version to come
        return None


def _fullest(filesystems: _Filesystems) -> Fullest | None:
    """Read-only images are always full and never in danger."""
    sized = [each for each in filesystems.items if each.total_bytes > 0 and each.file_system_type not in READ_ONLY]
    fullest = max(sized, key=lambda each: each.used_bytes / each.total_bytes, default=None)
    return Fullest(fullest.mount_point, min(1.0, fullest.used_bytes / fullest.total_bytes)) if fullest else None


def _reachable(interfaces: _Interfaces) -> str:
    """
    The first address of a device of the domain, in the domain's order, rather than of a bridge or container in the
    guest; IPv4 rather than IPv6; none that only the guest itself or its link knows.
    """
    order = {nic.mac.lower(): position for position, nic in enumerate(interfaces.domain) if nic.mac}
    candidates: list[tuple[int, int, str]] = []
    for interface in interfaces.guest:
        rank = order.get(interface.mac.lower(), len(order))
        for each in interface.addresses:
            try:
                address = ip_address(each.address)
            except ValueError:
                continue
            if not (address.is_loopback or address.is_link_local or address.is_unspecified):
                candidates.append((rank, address.version, each.address))
    return min(candidates, key=lambda each: each[:2], default=(0, 0, ""))[2]
