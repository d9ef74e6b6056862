"""The keyed queue: merged, one worker per key, delayed, drained."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guestwire.pending import Closed, Pending


async def test_merges() -> None:
    """However often a key is added, it is handed out once."""
    pending: Pending[str] = Pending()
    for _ in range(1000):
        pending.add("a")
    pending.close()

    assert "a" == await pending.take()
    pending.done("a")
    with pytest.raises(Closed):
        await pending.take()


async def test_one_worker_per_key() -> None:
    """A key added while a worker holds it comes back when that one is done, not before."""
    pending: Pending[str] = Pending()
    pending.add("a")
    key = await pending.take()
    pending.add("a")
    pending.add("b")

    assert "b" == await pending.take()
    second = asyncio.ensure_future(pending.take())
    await asyncio.sleep(0)
    assert not second.done()
    pending.done(key)
    assert "a" == await second


async def test_delay_and_sooner() -> None:
    """The earliest of several times counts; now beats later."""
    pending: Pending[str] = Pending()
    pending.add("late", delay=60)
    pending.add("late", delay=0.01)
    pending.add("never mind", delay=60)
    pending.add("never mind")

    assert "never mind" == await pending.take()
    assert "late" == await asyncio.wait_for(pending.take(), 1)
    assert 2 == len(pending)


async def test_forget() -> None:
    """A forgotten key is gone, ready or delayed."""
    pending: Pending[str] = Pending()
    pending.add("a")
    pending.add("b", delay=60)
    pending.forget("a")
    pending.forget("b")

    assert 0 == len(pending)


@pytest.mark.parametrize(("drain", "seen"), [(True, ["a", "b"]), (False, [])])
async def test_close(drain: bool, seen: list[str]) -> None:
    """Closing drains ready and delayed keys, or drops them; either way it ends."""
    pending: Pending[str] = Pending()
    pending.add("a")
    pending.add("b", delay=60)
    pending.close(drain=drain)
    pending.add("c")
    handled: list[str] = []

    async def handle(key: str) -> None:
        handled.append(key)

    await asyncio.wait_for(pending.work(3, handle), 1)
    assert seen == handled


async def test_retry_while_draining() -> None:
    """A key that a worker holds may come back after closing: nothing is lost while the grace lasts."""
    pending: Pending[str] = Pending()
    pending.add("a")
    pending.close()
    tries = 0

    async def handle(_: str) -> float | None:
        nonlocal tries
        tries += 1
        return 0.01 if tries < 3 else None

    await asyncio.wait_for(pending.work(2, handle), 1)
    assert 3 == tries


async def test_no_retry_without_draining() -> None:
    """Closed without draining, a key that a worker holds is finished and does not come back."""
    pending: Pending[str] = Pending()
    pending.add("a")
    tries = 0

    async def handle(_: str) -> float:
        nonlocal tries
        tries += 1
        pending.close(drain=False)
        pending.add("a")
        return 0.01

    await asyncio.wait_for(pending.work(2, handle), 1)
    assert 1 == tries


async def test_error_ends_the_work() -> None:
    """An exception of a handler reaches the caller."""
    pending: Pending[str] = Pending()
    pending.add("a")

    async def handle(_: str) -> None:
        raise ValueError

    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(pending.work(2, handle), 1)


async def test_cancelled_taker_loses_nothing() -> None:
    """A wake-up that meets a cancelled taker goes to another."""
    pending: Pending[int] = Pending()
    takers = [asyncio.ensure_future(pending.take()) for _ in range(10)]
    await asyncio.sleep(0)
    for key in range(5):
        pending.add(key)
    for taker in takers[:5]:
        taker.cancel()
    results = await asyncio.gather(*takers[:5], return_exceptions=True)
    got = {result for result in results if isinstance(result, int)}
    got |= {await asyncio.wait_for(taker, 1) for taker in takers[5 : 5 + 5 - len(got)]}
    for taker in takers:
        taker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*takers)

    assert {0, 1, 2, 3, 4} == got


@settings(deadline=None, max_examples=30)
@given(st.integers(), st.integers(1, 6))
def test_every_key_is_handled_after_its_last_addition(seed: int, workers: int) -> None:
    """Whatever the timing: no key is with two workers, and each is handled after it was last added."""

    async def main() -> None:
        chance = random.Random(seed)
        pending: Pending[int] = Pending()
        version: Counter[int] = Counter()
        handled: dict[int, int] = {}
        held: set[int] = set()

        async def handle(key: int) -> float | None:
            assert key not in held
            held.add(key)
            seen = version[key]
            await asyncio.sleep(chance.choice([0, 0, 0.0005]))
            held.discard(key)
            handled[key] = seen
            return chance.choice([None, None, 0.0005])

        async def feed() -> None:
            for _ in range(120):
                key = chance.randrange(5)
                version[key] += 1
                pending.add(key, delay=chance.choice([0, 0, 0.001]))
                if chance.random() < 0.2:
                    await asyncio.sleep(0)
            pending.close()

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(pending.work(workers, handle))
            group.create_task(feed())
        assert dict(version) == handled

    asyncio.run(main())
