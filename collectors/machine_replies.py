"""
Replies to the commands behind `guestwire.machine`: their shapes (QEMU's qga/qapi-schema.json), and what the contract
makes of them.

An optional key that is missing stays unknown; a mandatory one that is missing, and a number that a 64-bit integer
cannot hold, make the reply unreadable.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from collectors.bounds import INT64_MAX, MOST_INNER, Bounds
from collectors.replies import Kebab, Size
from guestwire.errors import ContractError
from guestwire.machine import (
    Clock,
    CpuStats,
    CpuStatsList,
    Disk,
    DiskAddress,
    Disks,
    DiskStats,
    DiskStatsList,
    Load,
    Vcpu,
    Vcpus,
)

SECTOR = 512
"""Bytes of a sector in /proc/diskstats, whatever the device's own are."""

Average = Annotated[float, msgspec.Meta(ge=0)]
Integer = Annotated[int, msgspec.Meta(ge=-INT64_MAX, le=INT64_MAX)]
Sectors = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX // SECTOR)]


# --- shapes ------------------------------------------------------------------------------------------------------


class LoadReply(msgspec.Struct, gc=False):
    load1m: Average
    load5m: Average
    load15m: Average


class PciAddress(msgspec.Struct, gc=False):
    domain: Integer
    bus: Integer
    slot: Integer
    function: Integer


class AddressEntry(Kebab):
    bus_type: str
    bus: Integer
    target: Integer
    unit: Integer
    pci_controller: PciAddress | None = None
    serial: str = ""
    dev: str = ""


class DiskEntry(Kebab):
    name: str
    partition: bool
    dependencies: tuple[str, ...] | None = None
    alias: str = ""
    address: AddressEntry | None = None


class CpuEntry(msgspec.Struct, gc=False):
    cpu: Size
    user: Size
    nice: Size
    system: Size
    idle: Size
    iowait: Size | None = None
    irq: Size | None = None
    softirq: Size | None = None
    steal: Size | None = None
    guest: Size | None = None
    guestnice: Size | None = None


class DiskCounters(Kebab):
    read_sectors: Sectors | None = None
    read_ios: Size | None = None
    read_merges: Size | None = None
    read_ticks: Size | None = None
    write_sectors: Sectors | None = None
    write_ios: Size | None = None
    write_merges: Size | None = None
    write_ticks: Size | None = None
    discard_sectors: Sectors | None = None
    discard_ios: Size | None = None
    discard_merges: Size | None = None
    discard_ticks: Size | None = None
    flush_ios: Size | None = None
    flush_ticks: Size | None = None
    ios_pgr: Size | None = None
    total_ticks: Size | None = None
    weight_ticks: Size | None = None


class DiskStatsEntry(msgspec.Struct, gc=False):
    name: str
    major: Size
    minor: Size
    stats: DiskCounters


class VcpuEntry(Kebab):
    logical_id: Integer
    online: bool
    can_offline: bool | None = None


# --- from shapes to the contract ---------------------------------------------------------------------------------


def load(_bounds: Bounds, reply: LoadReply) -> Load:
    """As it is."""
    return Load(reply.load1m, reply.load5m, reply.load15m)


def _pci(address: PciAddress | None) -> str:
    """Empty also for the agent's own sign of an address it does not know: -1."""
    if address is None or min(address.domain, address.bus, address.slot, address.function) < 0:
        return ""
    return f"{address.domain:04x}:{address.bus:02x}:{address.slot:02x}.{address.function:x}"


def disks(bounds: Bounds, reply: list[DiskEntry]) -> Disks:
    """SMART values are left out: they change all the time, and belong to the host's monitoring."""

    def address(entry: AddressEntry) -> DiskAddress:
        return DiskAddress(
            bus_type=bounds.text(entry.bus_type),
            bus=entry.bus,
            target=entry.target,
            unit=entry.unit,
            pci=_pci(entry.pci_controller),
            serial=bounds.text(entry.serial),
            dev=bounds.text(entry.dev),
        )

    def disk(entry: DiskEntry) -> Disk:
        names = entry.dependencies
        return Disk(
            name=bounds.text(entry.name),
            partition=entry.partition,
            dependencies=None if names is None else bounds.entries(names, bounds.text, MOST_INNER),
            alias=bounds.text(entry.alias),
            address=None if entry.address is None else address(entry.address),
        )

    return Disks(bounds.entries(reply, disk))


def cpustats(bounds: Bounds, reply: list[CpuEntry]) -> CpuStatsList:
    """The agent's own milliseconds."""

    def cpu(entry: CpuEntry) -> CpuStats:
        return CpuStats(*(getattr(entry, name) for name in CpuStats.__struct_fields__))

    return CpuStatsList(bounds.entries(reply, cpu))


def _bytes(sectors: int | None) -> int | None:
    return None if sectors is None else sectors * SECTOR


def diskstats(bounds: Bounds, reply: list[DiskStatsEntry]) -> DiskStatsList:
    """Sectors become bytes; the kernel's ticks are milliseconds."""

    def disk(entry: DiskStatsEntry) -> DiskStats:
        stats = entry.stats
        return DiskStats(
            name=bounds.text(entry.name),
            major=entry.major,
            minor=entry.minor,
            read_bytes=_bytes(stats.read_sectors),
            read_requests=stats.read_ios,
            read_merges=stats.read_merges,
            read_time=stats.read_ticks,
            write_bytes=_bytes(stats.write_sectors),
            write_requests=stats.write_ios,
            write_merges=stats.write_merges,
            write_time=stats.write_ticks,
            discard_bytes=_bytes(stats.discard_sectors),
            discard_requests=stats.discard_ios,
            discard_merges=stats.discard_merges,
            discard_time=stats.discard_ticks,
            flush_requests=stats.flush_ios,
            flush_time=stats.flush_ticks,
            in_flight=stats.ios_pgr,
            busy_time=stats.total_ticks,
            queue_time=stats.weight_ticks,
        )

    return DiskStatsList(bounds.entries(reply, disk))


def time(bounds: Bounds, reply: Integer) -> Clock:
    """From the guest's nanoseconds since the epoch; microseconds are kept."""
    trip = bounds.trip
    if trip is None:
        raise ContractError("guest-get-time: nobody measured when it was answered")
    half = max(0, trip.answered - trip.sent) / 2
    offset = reply - (trip.sent + trip.answered) // 2
    return Clock(round(offset / 1e9, 6), round(half / 1e9, 6))


def vcpus(bounds: Bounds, reply: list[VcpuEntry]) -> Vcpus:
    """In the order of their ids: the agent's order has no meaning."""

    def vcpu(entry: VcpuEntry) -> Vcpu:
        return Vcpu(entry.logical_id, entry.online, entry.can_offline)

    return Vcpus(bounds.entries(sorted(reply, key=lambda entry: entry.logical_id), vcpu))
