"""Threads for blocking calls: results and errors arrive, hung calls hold up nobody, idle threads are used again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from collectors.threads import Threads


async def test_results_and_errors() -> None:
    """What a call returns or raises arrives where it is awaited, in another thread than it ran in."""
    threads = Threads()

    def refuse() -> None:
        raise ValueError("no")

    assert threading.get_ident() != await threads.run(threading.get_ident)
    with pytest.raises(ValueError, match="no"):
        await threads.run(refuse)
    threads.close()


async def test_as_many_as_needed() -> None:
    """A call never waits for a thread; one after another share one."""
    threads, gate = Threads(), threading.Barrier(20, timeout=30)
    before = set(threading.enumerate())

    def started() -> int:
        return sum(each.name.startswith("libvirt call") for each in set(threading.enumerate()) - before)

    for _ in range(50):
        await threads.run(int)
    assert 1 == started()
    await asyncio.gather(*(threads.run(gate.wait) for _ in range(20)))
    assert 20 == started()
    threads.close()


async def test_many() -> None:
    """Ten thousand calls at once from one event loop: every result is the right one."""
    threads = Threads()
    rooms = asyncio.Semaphore(16)

    async def square(number: int) -> int:
        async with rooms:
            return await threads.run(lambda: number * number)

    assert [n * n for n in range(10_000)] == await asyncio.gather(*map(square, range(10_000)))
    threads.close()


async def test_cancelled() -> None:
    """Who stops waiting leaves the call to itself; its thread is used again."""
    threads, gate = Threads(), threading.Event()
    task = asyncio.create_task(threads.run(gate.wait))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    gate.set()
    assert 0 == await threads.run(int)
    threads.close()


def test_hung_call_does_not_keep_the_process() -> None:
    """A process whose call never returns ends when its work is done."""
    program = (
        "import asyncio, threading\n"
        "from collectors.threads import Threads\n"
        "async def main():\n"
        "    call = asyncio.ensure_future(Threads().run(threading.Event().wait))\n"
        "    await asyncio.sleep(0.1)\n"
        "    call.cancel()\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert 0 == ended.returncode
