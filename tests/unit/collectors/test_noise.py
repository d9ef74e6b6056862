"""Which readings are told: small moves wait, large and late ones do not, and whatever is not a move never waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors import noise
from collectors.known import Known
from collectors.noise import Limits, Small
from guestwire.machine import Clock, CpuStats, CpuStatsList, DiskStats, DiskStatsList, Load
from guestwire.settings import Collect

NOW = datetime(2026, 2, 3, tzinfo=UTC)
LIMITS = Limits(usage_share=0.01, usage_age=60, activity_share=0.1, activity_age=60)


def told(rule: Small, *readings: tuple[int, Any]) -> list[int]:
    """The seconds at which readings became what is told, of those that were made."""
    known = Known()
    return [seconds for seconds, value in readings if known.take(value, NOW + timedelta(seconds=seconds), rule, LIMITS)]


def load(*averages: float) -> Load:
    """One, five, fifteen minutes."""
    one, five, fifteen = averages if len(averages) == 3 else (*averages, 0.0, 0.0)
    return Load(one, five, fifteen)


def cpus(*ticks: tuple[int, int]) -> CpuStatsList:
    """Busy and idle milliseconds per CPU."""
    return CpuStatsList(tuple(CpuStats(number, busy, 0, 0, idle) for number, (busy, idle) in enumerate(ticks)))


def disks(**busy: int | None) -> DiskStatsList:
    """Milliseconds with a request under way, by name."""
    return DiskStatsList(tuple(DiskStats(name, 254, 0, busy_time=time) for name, time in busy.items()))


def test_limits_are_settings() -> None:
    """What the settings say is what holds."""
    settings = Collect(usage_share=0.5, usage_age=1, activity_share=0.25, activity_age=2)

    assert Limits(0.5, 1, 0.25, 2) == Limits.of(settings)


def test_load() -> None:
    """A tenth of a small load is noise, a tenth of one CPU is not; of a large load it takes a tenth of that."""
    assert [0, 2, 4] == told(
        noise.LOAD,
        (0, load(0.0)),
        (1, load(0.09)),
        (2, load(0.1)),
        (3, load(0.01)),
        (4, load(20.0)),
        (5, load(21.9)),
        (6, load(18.1)),
    )


def test_load_of_each_average() -> None:
    """A long average that moved is told as well as a short one."""
    assert [0, 1] == told(noise.LOAD, (0, load(1, 1, 1)), (1, load(1, 1, 1.2)))


def test_small_moves_are_told_late() -> None:
    """What moved a little is told once the move is old enough, and the wait begins anew."""
    readings = [(seconds, load(seconds / 10000)) for seconds in range(0, 200, 10)]

    assert [0, 70, 140] == told(noise.LOAD, *readings)


def test_cpus() -> None:
    """
    Counters that only grow are told when the busy share since the last told differs from that told before: at first to
    tell a share at all, then when work begins and ends.
    """
    idle = [(10 * n, cpus((0, 10_000 * n))) for n in range(4)]
    busy = [(30 + 10 * n, cpus((10_000 * n, 30_000))) for n in range(1, 4)]
    done = [(60 + 10 * n, cpus((30_000, 30_000 + 10_000 * n))) for n in range(1, 4)]

    assert [0, 10, 40, 50, 70, 80] == told(noise.CPUS, *idle, *busy, *done)


def test_one_busy_cpu_among_many() -> None:
    """The share is that of each CPU: one that is busy does not drown among idle ones."""
    idle = [(10 * n, cpus(*[(0, 10_000 * n)] * 64)) for n in range(3)]
    busy = (30, cpus((10_000, 20_000), *[(0, 30_000)] * 63))

    assert [0, 10, 30] == told(noise.CPUS, *idle, busy)


@pytest.mark.parametrize("after", [cpus((0, 100)), cpus((0, 40_000), (0, 40_000)), CpuStatsList(()), cpus((0, 9_000))])
def test_other_cpus(after: CpuStatsList) -> None:
    """A counter that began anew, and another number of CPUs, are told at once."""
    assert [0, 10, 40] == told(noise.CPUS, *[(10 * n, cpus((0, 10_000 * n))) for n in range(4)], (40, after))


def test_disks() -> None:
    """A disk's utilization is its busy time over the time between the readings."""
    idle = [(10 * n, disks(vda=n, vdb=0)) for n in range(4)]
    busy = [(30 + 10 * n, disks(vda=5000 * n, vdb=0)) for n in range(1, 4)]

    assert [0, 10, 40, 50] == told(noise.DISKS, *idle, *busy)


def test_other_disks() -> None:
    """A disk that comes or goes is told at once; one whose busy time is unknown only after the age."""
    assert [0, 10, 30] == told(noise.DISKS, (0, disks(a=0)), (10, disks(a=1)), (20, disks(a=2)), (30, disks(a=3, b=0)))
    unknown = [(10 * n, DiskStatsList((DiskStats("a", 1, n),))) for n in range(9)]
    assert [0, 10, 80] == told(noise.DISKS, *unknown)


def test_idle_disks_are_silent() -> None:
    """Counters that do not move are no news, however old."""
    assert [0] == told(noise.DISKS, *[(100 * n, disks(vda=7)) for n in range(9)])


def test_clock() -> None:
    """What the uncertainty of two readings explains is no news, until the age; a step beyond it is."""
    assert [0, 3, 70] == told(
        noise.CLOCK,
        (0, Clock(0.0, 0.01)),
        (1, Clock(0.015, 0.01)),
        (2, Clock(-0.02, 0.01)),
        (3, Clock(0.05, 0.01)),
        (4, Clock(0.052, 0.01)),
        (10, Clock(0.05, 0.02)),
        (70, Clock(0.06, 0.01)),
    )


def test_after_a_restart_of_the_collector() -> None:
    """Counters that were recalled have no activity to compare with: the next reading tells one."""
    known = Known(fact=cpus((0, 1000)))
    readings = [(10 * n, cpus((0, 1000 + 10_000 * n))) for n in (1, 2, 3)]
    took = [known.take(value, NOW + timedelta(seconds=at), noise.CPUS, LIMITS) for at, value in readings]

    assert [True, False, False] == took


TICKS = st.integers(0, 2**63 - 1)


@given(
    st.lists(st.lists(st.tuples(TICKS, TICKS), max_size=3), min_size=2, max_size=6), st.sampled_from(["cpus", "disks"])
)
def test_any_counters(story: list[list[tuple[int, int]]], kind: str) -> None:
    """Whatever a guest counts, nothing fails, and what is told is never older than the age."""
    known, since = Known(), 0
    for number, counters in enumerate(story):
        seconds = number * 20
        if kind == "cpus":
            value: Any = cpus(*counters)
        else:
            value = disks(**{f"d{n}": busy for n, (busy, _) in enumerate(counters)})
        rule = noise.CPUS if kind == "cpus" else noise.DISKS
        if known.take(value, NOW + timedelta(seconds=seconds), rule, LIMITS) or known.fact == value:
            since = seconds
        assert seconds - since <= LIMITS.activity_age + 20
