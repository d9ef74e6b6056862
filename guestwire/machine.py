"""
The contract's bodies about a guest's machine: its load, processors, disks and clock, as the guest sees them.

They are this project's own form of what the agent tells. An absent field is unknown; 0, false and the empty list are
written. Counters are whole numbers below 2**63 that grow from the guest's boot on: whoever wants rates takes the
difference of two messages over the difference of their `ce-time`s; one that shrank has begun anew.
"""

from __future__ import annotations

from guestwire.snapshot import Body


class Load(Body, frozen=True):
    """Processes that ran or waited to, averaged over the last 1, 5 and 15 minutes (guest-get-load)."""

    load1m: float
    load5m: float
    load15m: float


class DiskAddress(Body, frozen=True):
    """Where a disk is attached; `pci` is its controller's address in the guest, as `0000:06:00.0`."""

    bus_type: str
    """`virtio`, `scsi`, `sata`, `usb`, ...: the agent's word."""
    bus: int
    target: int
    unit: int
    pci: str = ""
    serial: str = ""
    dev: str = ""
    """Its device node in the guest."""


class Disk(Body, frozen=True):
    """A block device or a partition of one."""

    name: str
    """Device node, or the device's UNC on Windows."""
    partition: bool
    dependencies: tuple[str, ...] | None = None
    """Names of the devices it lies on: of a logical volume the physical ones, of a partition its disk."""
    alias: str = ""
    """Its name in the device mapper."""
    address: DiskAddress | None = None
    """Of real devices only."""


class Disks(Body, frozen=True):
    """Every block device of the guest, also those without a filesystem (guest-get-disks)."""

    disks: tuple[Disk, ...]


class CpuStats(Body, frozen=True):
    """What one CPU has done since boot, in milliseconds (Linux: proc_stat(5)); `guest` time is in `user` as well."""

    cpu: int
    user: int
    nice: int
    system: int
    idle: int
    iowait: int | None = None
    irq: int | None = None
    softirq: int | None = None
    steal: int | None = None
    guest: int | None = None
    guestnice: int | None = None


class CpuStatsList(Body, frozen=True):
    """Every CPU that is online (guest-get-cpustats)."""

    cpus: tuple[CpuStats, ...]


class DiskStats(Body, frozen=True):
    """
    What one block device has done since boot (Linux: /proc/diskstats): bytes, requests, requests that were merged with
    others, and milliseconds.
    """

    name: str
    major: int
    minor: int
    read_bytes: int | None = None
    read_requests: int | None = None
    read_merges: int | None = None
    read_time: int | None = None
    write_bytes: int | None = None
    write_requests: int | None = None
    write_merges: int | None = None
    write_time: int | None = None
    discard_bytes: int | None = None
    discard_requests: int | None = None
    discard_merges: int | None = None
    discard_time: int | None = None
    flush_requests: int | None = None
    flush_time: int | None = None
    in_flight: int | None = None
    """Requests under way; not a counter."""
    busy_time: int | None = None
    """Time with any request under way: its share of the time passed is the utilization."""
    queue_time: int | None = None
    """The same, weighted with the number of requests."""


class DiskStatsList(Body, frozen=True):
    """Every block device that the guest's kernel counts (guest-get-diskstats)."""

    disks: tuple[DiskStats, ...]


class Clock(Body, frozen=True):
    """
    The guest's clock against the one of the machine that the collector runs on, at the moment of the answer
    (guest-get-time).
    """

    offset: float
    """Seconds by which the guest is ahead; negative when it is behind. Taken to be true half-way of the round trip."""
    uncertainty: float
    """Seconds by which `offset` may be wrong either way: half the round trip."""


class Vcpu(Body, frozen=True):
    """One logical processor."""

    id: int
    online: bool
    can_offline: bool | None = None


class Vcpus(Body, frozen=True):
    """Every processor the guest knows, also those that are offline (guest-get-vcpus)."""

    vcpus: tuple[Vcpu, ...]
