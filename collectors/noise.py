"""
Which moves of a fact are news, of facts that move all the time.

A reading replaces what was told when it moved by more than a share, or when a smaller move is some age old. Whatever
else changes, a mount, a disk, a processor, always counts. Of counters no value is news by itself, as they only grow:
what a subscriber makes of them is the activity between two messages. So a reading is told as soon as the activity since
the last one told differs from the activity told before; who reads only what was told is never further off than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from guestwire.machine import Clock, CpuStats, CpuStatsList, DiskStatsList, Load
from guestwire.settings import Collect
from guestwire.snapshot import Filesystem

ONE_CPU = 1.0
"""The load that moves of a smaller load are measured against."""


class Sample(NamedTuple):
    """A value, and when it was read; None when another process read it."""

    value: Any
    at: datetime | None


class Limits(msgspec.Struct, frozen=True):
    """What the settings say; ages in seconds."""

    usage_share: float = 0.0
    usage_age: float = 0.0
    activity_share: float = 0.0
    activity_age: float = 0.0

    @classmethod
    def of(cls, settings: Collect) -> Limits:
        """Those that are set."""
        return cls(settings.usage_share, settings.usage_age, settings.activity_share, settings.activity_age)


class Small(NamedTuple):
    """A rule for one kind of facts."""

    move: Callable[[Sample | None, Sample, Sample, float], bool]
    """
    Whether a move is small, from the sample told before the last, the last told, the present one, and the share. Called
    with values that differ.
    """
    is_usage: bool = False
    """Whether the limits are those of usage, not of activity."""
    looks_back: bool = False
    """Whether it needs the sample told before the last."""

    def limits(self, limits: Limits) -> tuple[float, float]:
        """The share and the age that hold for it."""
        if self.is_usage:
            return limits.usage_share, limits.usage_age
        return limits.activity_share, limits.activity_age


# --- usage -------------------------------------------------------------------------------------------------------


def _usage(_earlier: Sample | None, told: Sample, present: Sample, share: float) -> bool:
    """Used bytes of the same filesystems, by a share of their size."""
    return len(told.value) == len(present.value) and all(
        _hardly_fuller(was, now, share) for was, now in zip(told.value, present.value, strict=True)
    )


def _hardly_fuller(told: Filesystem, present: Filesystem, share: float) -> bool:
    if msgspec.structs.replace(told, used_bytes=present.used_bytes) != present:
        return False
    moved = abs(told.used_bytes - present.used_bytes)
    return moved == 0 or moved < share * present.total_bytes


# --- activity ----------------------------------------------------------------------------------------------------


def _load(_earlier: Sample | None, told: Sample, present: Sample, share: float) -> bool:
    """Each average, by a share of itself, or of one CPU where it is less."""
    was: Load = told.value
    now: Load = present.value
    return all(
        abs(one - other) < share * max(one, other, ONE_CPU)
        for one, other in ((was.load1m, now.load1m), (was.load5m, now.load5m), (was.load15m, now.load15m))
    )


def _cpus(earlier: Sample | None, told: Sample, present: Sample, share: float) -> bool:
    """The busy share of each CPU's time."""
    before = _busy_cpus(earlier.value, told.value) if earlier else None
    return _alike(before, _busy_cpus(told.value, present.value), share)


def _busy_cpus(was: CpuStatsList, now: CpuStatsList) -> list[float] | None:
    """Between two readings, per CPU; None where the CPUs are others, or a counter went backwards (a reboot)."""
    if [cpu.cpu for cpu in was.cpus] != [cpu.cpu for cpu in now.cpus]:
        return None
    return _shares((_ticks(before), _ticks(after)) for before, after in zip(was.cpus, now.cpus, strict=True))


def _ticks(cpu: CpuStats) -> tuple[int, int]:
    """Busy and all; `guest` and `guestnice` are inside `user` and `nice`, and waiting for I/O is idling."""
    idle = cpu.idle + (cpu.iowait or 0)
    busy = cpu.user + cpu.nice + cpu.system + (cpu.irq or 0) + (cpu.softirq or 0) + (cpu.steal or 0)
    return busy, busy + idle


def _disks(earlier: Sample | None, told: Sample, present: Sample, share: float) -> bool:
    """The utilization of each disk: the share of time with a request under way."""
    before = _busy_disks(earlier, told) if earlier else None
    return _alike(before, _busy_disks(told, present), share)


def _busy_disks(was: Sample, now: Sample) -> list[float] | None:
    """Between two samples, per disk; None where the disks are others, a counter went backwards, or time is unknown."""
    before: DiskStatsList = was.value
    after: DiskStatsList = now.value
    if was.at is None or now.at is None or [disk.name for disk in before.disks] != [disk.name for disk in after.disks]:
        return None
    passed = int((now.at - was.at).total_seconds() * 1000)
    return _shares(
        ((one.busy_time or 0, 0), (other.busy_time or 0, passed))
        for one, other in zip(before.disks, after.disks, strict=True)
    )


def _shares(pairs: Iterable[tuple[tuple[int, int], tuple[int, int]]]) -> list[float] | None:
    """From (busy, all) before and after."""
    found = []
    for (busy, total), (busy_now, total_now) in pairs:
        if busy_now < busy or total_now < total:
            return None
        found.append(min(1.0, (busy_now - busy) / max(1, total_now - total)))
    return found


def _alike(told: Sequence[float] | None, present: Sequence[float] | None, share: float) -> bool:
    if told is None or present is None or len(told) != len(present):
        return False
    return all(abs(one - other) < share for one, other in zip(told, present, strict=True))


def _clock(_earlier: Sample | None, told: Sample, present: Sample, _share: float) -> bool:
    """What the uncertainty of both readings explains."""
    was: Clock = told.value
    now: Clock = present.value
    return abs(was.offset - now.offset) <= was.uncertainty + now.uncertainty


USAGE = Small(_usage, is_usage=True)
LOAD = Small(_load)
CPUS = Small(_cpus, looks_back=True)
DISKS = Small(_disks, looks_back=True)
CLOCK = Small(_clock)
