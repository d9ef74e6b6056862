"""The VMIs as a process knows them."""

from __future__ import annotations

from typing import Any

import pytest

from guestwire.snapshot import GuestRef
from status_writer.cache import Cache

REF = GuestRef("ns", "vm")


def vmi(version: int | str, uid: str = "uid", **status: Any) -> dict[str, Any]:
    """A VMI as the API server sends it."""
    metadata = {"namespace": "ns", "name": "vm", "uid": uid, "resourceVersion": str(version), "managedFields": ["long"]}
    return {"kind": "VirtualMachineInstance", "metadata": metadata, "spec": {}, "status": status}


@pytest.fixture
def changed() -> list[GuestRef]:
    """The guests that were reported as changed."""
    return []


@pytest.fixture
def cache(changed: list[GuestRef]) -> Cache:
    """A cache with one VMI in it."""
    cache = Cache(changed.append)
    cache.watched(vmi(5, phase="Running"))
    changed.clear()
    return cache


def test_only_what_is_needed_is_kept(cache: Cache) -> None:
    """Managed fields and unknown parts of the status take no memory."""
    cache.watched(vmi(6, phase="Running", nodeName="node", volumeStatus=["long"]))

    assert {
        "metadata": {"namespace": "ns", "name": "vm", "uid": "uid", "resourceVersion": "6"},
        "spec": {},
        "status": {"phase": "Running"},
    } == cache.get(REF)


def test_changes_wake_and_others_do_not(cache: Cache, changed: list[GuestRef]) -> None:
    """A change of what the decision reads wakes; one of anything else does not."""
    cache.watched(vmi(6, phase="Running", nodeName="node"))
    assert [] == changed
    cache.watched(vmi(7, phase="Failed"))
    assert [REF] == changed
    cache.watched(vmi(8, uid="new", phase="Failed"))
    assert [REF, REF] == changed


def test_own_writes_do_not_wake(cache: Cache, changed: list[GuestRef]) -> None:
    """What a patch of our own made is known when the watch tells it."""
    cache.answered(vmi(6, phase="Running", fsFreezeStatus="frozen"))
    cache.watched(vmi(6, phase="Running", fsFreezeStatus="frozen"))

    assert [] == changed
    assert "6" == (cache.get(REF) or {})["metadata"]["resourceVersion"]


def test_an_older_event_does_not_undo_an_answer(cache: Cache) -> None:
    """A watch that is behind does not put back what our own request has already seen replaced."""
    cache.answered(vmi(10, phase="Running", fsFreezeStatus="frozen"))
    cache.watched(vmi(9, phase="Running"))

    assert "10" == (cache.get(REF) or {})["metadata"]["resourceVersion"]


def test_a_late_answer_does_not_raise_the_dead(cache: Cache, changed: list[GuestRef]) -> None:
    """The answer to a patch that arrives after the VMI's end leaves nothing behind."""
    cache.drop(REF)
    cache.answered(vmi(6))

    assert cache.get(REF) is None
    assert [REF] == changed


def test_a_list_is_the_truth(cache: Cache, changed: list[GuestRef]) -> None:
    """A list counts against later versions (a restored cluster), and what it does not name is gone."""
    cache.listed(vmi(2, phase="Failed"))
    assert "2" == (cache.get(REF) or {})["metadata"]["resourceVersion"]
    cache.keep_only([])

    assert 0 == len(cache)
    assert [REF, REF] == changed


def test_versions_that_are_no_numbers(cache: Cache) -> None:
    """Where versions cannot be compared, what comes later counts."""
    cache.watched(vmi("abc", phase="Failed"))

    assert "abc" == (cache.get(REF) or {})["metadata"]["resourceVersion"]


def test_a_watch_that_is_faster_than_the_answer_does_not_wake(cache: Cache, changed: list[GuestRef]) -> None:
    """What the watch tells of our own patch before its answer is there is no news."""
    with cache.writing(REF):
        cache.watched(vmi(6, phase="Running", fsFreezeStatus="frozen"))
        cache.answered(vmi(6, phase="Running", fsFreezeStatus="frozen"))

    assert [] == changed


def test_others_before_our_own_write_are_in_its_answer(cache: Cache, changed: list[GuestRef]) -> None:
    """The answer to a patch shows what others wrote before it, so nobody needs to look again."""
    with cache.writing(REF):
        cache.watched(vmi(6, phase="Running", guestOSInfo={}))
        cache.answered(vmi(7, phase="Running", guestOSInfo={}, fsFreezeStatus="frozen"))

    assert [] == changed


def test_others_after_our_own_write_wake(cache: Cache, changed: list[GuestRef]) -> None:
    """What others wrote after our patch is news, also when its answer comes later still."""
    with cache.writing(REF):
        cache.watched(vmi(6, phase="Running", fsFreezeStatus="frozen"))
        cache.watched(vmi(7, phase="Running"))
        cache.answered(vmi(6, phase="Running", fsFreezeStatus="frozen"))

    assert [REF] == changed
    assert "7" == (cache.get(REF) or {})["metadata"]["resourceVersion"]


def test_without_an_answer_what_was_seen_wakes(cache: Cache, changed: list[GuestRef]) -> None:
    """A patch whose answer is lost may or may not have been taken: what the watch told is looked at."""
    with cache.writing(REF):
        cache.watched(vmi(6, phase="Running", fsFreezeStatus="frozen"))

    assert [REF] == changed
