"""
The tables: their columns, and how a message becomes rows of them.

Pure. Flat and typed, one row per entry of a message, each with the message's epoch and revision, by which rows of
different tables belong together. An unknown value is NULL, also where the contract's JSON has an empty text or a 0 for
it. Times are UTC without a zone, so that no query depends on where it runs.

Nothing that a message says can end an export: what does not fit its column is NULL, a body that cannot be read is in
`events` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from guestwire import codec
from guestwire.errors import ContractError
from guestwire.jetstream import Message
from guestwire.kinds import BODIES
from guestwire.snapshot import AgentState, FilesystemList, GuestOSInfo, Interfaces, Kind, UserList

Row = tuple[Any, ...]

BIGGEST, SMALL = 2**63 - 1, 2**31 - 1


class Column(msgspec.Struct, frozen=True):
    """A column: its name, its SQL type, and what it means."""

    name: str
    type: str
    meaning: str


class Table(msgspec.Struct, frozen=True):
    """A table of rows made of the messages of one kind, or of all."""

    name: str
    meaning: str
    kind: str | None
    own: tuple[Column, ...]
    """Columns behind those of every table."""
    rows: Callable[[Any], Iterator[Row]]
    """The own columns' values for a body; of `events`, for a message."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """All of them, in order."""
        return KEY + self.own


KEY = (
    Column("epoch", "INTEGER", "which stream, from 1; one more when the stream was made anew"),
    Column("revision", "BIGINT", "of the message in that stream"),
    Column("observed_at", "TIMESTAMP", "when the guest said so (`ce-time`)"),
    Column("cluster", "VARCHAR", "cluster or site"),
    Column("namespace", "VARCHAR", "of the guest"),
    Column("name", "VARCHAR", "of the guest"),
    Column("uid", "VARCHAR", "of the guest; a guest made anew under its name has another"),
    Column("host", "VARCHAR", "whose collector said so"),
)


def moment(time: datetime | None) -> datetime | None:
    """UTC without a zone."""
    try:
        return time.astimezone(UTC).replace(tzinfo=None) if time else None
    except OverflowError:
        return None


def since_epoch(seconds: float) -> datetime | None:
    """A moment from seconds since 1970; 0 means unknown."""
    try:
        return moment(datetime.fromtimestamp(seconds, UTC)) if seconds else None
    except (OverflowError, OSError, ValueError):
        return None


def text(value: str) -> str:
    """What UTF-8 can hold: a name that it cannot is written with escapes."""
    return value.encode(errors="backslashreplace").decode()


def _integer(value: int, most: int = BIGGEST) -> int | None:
    return value if -most <= value <= most else None


def _event(message: Message) -> Iterator[Row]:
    event = message.event
    yield message.address.kind, text(event.id), text(event.trace_id), message.body.decode(errors="replace")


def _agent(agent: AgentState) -> Iterator[Row]:
    yield (
        agent.phase.value, agent.channel, agent.connected, moment(agent.since), agent.responsive, agent.reason or None,
        agent.frozen, agent.version or None, agent.domain, agent.domain_uuid,
    )  # fmt: skip


def _system(info: GuestOSInfo) -> Iterator[Row]:
    system, (zone, _, offset) = info.os, info.timezone.rpartition(", ")
    yield (
        info.hostname or None, system.id or None, system.name or None, system.pretty_name or None,
        system.version or None, system.version_id or None, system.kernel_release or None,
        system.kernel_version or None, system.machine or None, zone or None,
        int(offset) if zone and offset.lstrip("-").isdecimal() and len(offset) < 8 else None,
        info.guest_agent_version or None,
    )  # fmt: skip


def _filesystems(found: FilesystemList) -> Iterator[Row]:
    for item in found.items:
        known = item.total_bytes > 0
        yield (
            item.mount_point, item.disk_name, item.file_system_type, _integer(item.used_bytes) if known else None,
            _integer(item.total_bytes) if known else None,
        )  # fmt: skip


def _users(users: UserList) -> Iterator[Row]:
    for user in users.items:
        yield user.user_name, user.domain or None, since_epoch(user.login_time)


def _interfaces(interfaces: Interfaces) -> Iterator[Row]:
    for device in interfaces.domain:
        yield (
            device.name, device.mac or None, device.link_state or None, _integer(device.queues, SMALL) or None,
            device.passthrough, device.pci or None,
        )  # fmt: skip


def _addresses(interfaces: Interfaces) -> Iterator[Row]:
    for interface in interfaces.guest or ():
        for item in interface.addresses:
            yield interface.name, interface.mac or None, item.address, _integer(item.prefix, SMALL) or None


EVENTS = Table(
    "events", "Every message, as it was published.", None, (
        Column("kind", "VARCHAR", "of facts; kinds that are not known yet are kept as well"),
        Column("id", "VARCHAR", "of the change (`ce-id`)"),
        Column("trace_id", "VARCHAR", "shared by all messages of one look at a guest"),
        Column("body", "VARCHAR", "JSON, as published"),
    ), _event,
)  # fmt: skip

TYPED = (
    Table("agents", "What became of a guest and its agent: the messages `agent`, heartbeats too.", Kind.AGENT, (
        Column("phase", "VARCHAR", "`Running`, `Paused`, `Stopped` or `Gone`"),
        Column("channel", "BOOLEAN", "whether the domain has an agent channel"),
        Column("connected", "BOOLEAN", "whether an agent is connected"),
        Column("since", "TIMESTAMP", "since when `connected` has its value"),
        Column("responsive", "BOOLEAN", "false when commands time out"),
        Column("reason", "VARCHAR", "why it is not responsive"),
        Column("frozen", "BOOLEAN", "whether filesystems are frozen"),
        Column("version", "VARCHAR", "of the agent"),
        Column("domain", "VARCHAR", "libvirt's name of the domain"),
        Column("domain_uuid", "VARCHAR", "libvirt's UUID of the domain"),
    ), _agent),
    Table("systems", "Operating systems: the messages `guestosinfo`.", Kind.GUESTOSINFO, (
        Column("hostname", "VARCHAR", "as the guest calls itself"),
        Column("os_id", "VARCHAR", "`debian`, `mswindows`, ..."),
        Column("os_name", "VARCHAR", "`Debian GNU/Linux`"),
        Column("os_pretty_name", "VARCHAR", "`Debian GNU/Linux 13 (trixie)`"),
        Column("os_version", "VARCHAR", "`13 (trixie)`"),
        Column("os_version_id", "VARCHAR", "`13`"),
        Column("kernel_release", "VARCHAR", "`6.12.57-amd64`"),
        Column("kernel_version", "VARCHAR", "what the kernel says of its build"),
        Column("machine", "VARCHAR", "`x86_64`"),
        Column("timezone", "VARCHAR", "name of the zone"),
        Column("utc_offset", "INTEGER", "seconds east of UTC"),
        Column("agent_version", "VARCHAR", "of the agent"),
    ), _system),
    Table("filesystems", "Filesystems and how full they are: the messages `filesystemlist`.", Kind.FILESYSTEMLIST, (
        Column("mount_point", "VARCHAR", "path in the guest"),
        Column("disk_name", "VARCHAR", "device it is on"),
        Column("type", "VARCHAR", "`ext4`, `NTFS`, ..."),
        Column("used_bytes", "BIGINT", "NULL where the agent does not tell sizes"),
        Column("total_bytes", "BIGINT", "NULL where the agent does not tell sizes"),
    ), _filesystems),
    Table("users", "Who is logged in: the messages `userlist`; an empty list has no row here.", Kind.USERLIST, (
        Column("user_name", "VARCHAR", "account"),
        Column("domain", "VARCHAR", "its domain, on Windows"),
        Column("login_time", "TIMESTAMP", "when the session began, by the guest's clock"),
    ), _users),
    Table("interfaces", "Network devices of the domain: the messages `interfaces`.", Kind.INTERFACES, (
        Column("interface", "VARCHAR", "name of the device, under KubeVirt of the VMI's interface"),
        Column("mac", "VARCHAR", "address of the device"),
        Column("link_state", "VARCHAR", "`up` or `down`"),
        Column("queues", "INTEGER", "queues of the device"),
        Column("passthrough", "BOOLEAN", "whether it is a host device"),
        Column("pci", "VARCHAR", "a host device's address in the guest"),
    ), _interfaces),
    Table("addresses", "IP addresses as the guest sees them: the messages `interfaces`.", Kind.INTERFACES, (
        Column("interface", "VARCHAR", "name in the guest"),
        Column("mac", "VARCHAR", "of the interface"),
        Column("address", "VARCHAR", "IPv4 or IPv6"),
        Column("prefix", "INTEGER", "length in bits"),
    ), _addresses),
)  # fmt: skip

TABLES = (EVENTS, *TYPED)
"""All that holds history."""

_OF_KIND: dict[str, list[Table]] = {}
for _table in TYPED:
    _OF_KIND.setdefault(str(_table.kind), []).append(_table)


def rows(epoch: int, message: Message) -> Iterator[tuple[str, Row]]:
    """The rows that a message makes, each with the name of its table."""
    address, event = message.address, message.event
    key = (
        epoch, message.revision, moment(event.time), text(address.cluster), text(address.ref.namespace),
        text(address.ref.name), text(event.uid), text(event.host),
    )  # fmt: skip
    for row in _event(message):
        yield EVENTS.name, key + row
    of_kind = _OF_KIND.get(address.kind)
    if not of_kind:
        return
    try:
        body = codec.decode(message.body, BODIES[address.kind])
    except ContractError:
        return
    for table in of_kind:
        for row in table.rows(body):
            yield table.name, key + row
