"""How often a VMI is written."""

from __future__ import annotations

from typing import Any

import pytest

from status_writer.pace import SLOWEST, Bucket, Pace


def patch(value: str) -> list[dict[str, Any]]:
    """A patch that says something."""
    return [{"op": "test", "path": "/x", "value": None}, {"op": "add", "path": "/x", "value": value}]


def test_first_patch_waits_for_nothing() -> None:
    """A VMI that was not written yet may be written at once."""
    assert 0 == Pace[str](1.0).wait("a", 5)


def test_interval_between_patches() -> None:
    """After a patch the VMI waits for the interval, others do not."""
    pace = Pace[str](1.0)
    pace.patched("a", patch("one"), 5)

    assert 0.75 == pace.wait("a", 5.25)
    assert 0 == pace.wait("a", 6)
    assert 0 == pace.wait("b", 5)


def test_repeating_oneself_gets_slower() -> None:
    """Against somebody who undoes the same patch again and again, attempts become rare; the guards do not matter."""
    pace = Pace[str](1.0)
    now, waits = 0.0, []
    for attempt in range(14):
        words = patch("same")
        words[0]["value"] = attempt
        repeated = pace.patched("a", words, now)
        assert repeated == (attempt > 0)
        waits.append(pace.wait("a", now))
        now += waits[-1]

    assert [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, SLOWEST, SLOWEST, SLOWEST, SLOWEST] == waits


def test_something_new_ends_the_quarrel() -> None:
    """A patch with other content is paced normally again."""
    pace = Pace[str](0.0)
    for now in (0, 1, 4):
        pace.patched("a", patch("same"), now)
    pace.patched("a", patch("new"), 20)

    assert 0 == pace.wait("a", 20)


def test_time_ends_the_quarrel() -> None:
    """The same patch much later is news: a guest comes and goes, and comes the same."""
    pace = Pace[str](1.0)
    pace.patched("a", patch("same"), 0)

    assert not pace.patched("a", patch("same"), 60)


def test_gone_vmis_are_forgotten() -> None:
    """Nothing is remembered of a VMI that is gone."""
    pace = Pace[str](1.0)
    pace.patched("a", patch("one"), 0)
    pace.forget("a")
    pace.forget("never seen")

    assert 0 == len(pace)


def test_a_bucket_lets_a_burst_through_and_then_the_rate() -> None:
    """As many as the burst at once, then one for every token that comes back; waiting costs none."""
    bucket = Bucket(10, 3)

    assert [0, 0, 0] == [bucket.take(100.0) for _ in range(3)]
    assert [0.1, 0.1] == [pytest.approx(bucket.take(100.0)) for _ in range(2)]
    assert [0, pytest.approx(0.1)] == [bucket.take(100.1), bucket.take(100.1)]
    assert [0, 0, 0, pytest.approx(0.1)] == [bucket.take(200.0) for _ in range(4)]


def test_no_rate_is_no_limit() -> None:
    """A rate of 0 lets everything through."""
    bucket = Bucket(0, 0)

    assert {0} == {bucket.take(1.0) for _ in range(1000)}
