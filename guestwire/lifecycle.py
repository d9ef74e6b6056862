"""
Start and stop of a process.

The first SIGTERM or SIGINT sets `stop`: the process closes its input, what is under way drains, and it ends by itself.
When the grace has passed, or at a second signal, the rest is cancelled. Should even that hang (a thread inside libvirt
cannot be cancelled), a timer ends the process at twice the grace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from guestwire.errors import GuestwireError
from guestwire.logs import logger

EXIT_FORCED = 70
"""Exit status when only the last-resort timer could end the process (EX_SOFTWARE)."""

log = logger("lifecycle")

Main = Callable[[asyncio.Event], Awaitable[None]]


def run(main: Main, *, grace: float, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> int:
    """Run `main(stop)` until it returns; the exit status. An exception of `main` is logged and ends with 1."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_run(main, grace))


async def _run(main: Main, grace: float) -> int:
    stop = asyncio.Event()
    task = asyncio.ensure_future(main(stop))
    with _signals(stop, task, grace):
        try:
            await task
        except (GuestwireError, ModuleNotFoundError):
            raise  # told in one line by the command line
        except asyncio.CancelledError:
            log.warning("stopped before everything was drained; what was under way is delivered again")
            return 1
        except Exception:
            log.exception("ended by an error")
            return 1
    return 0


@contextlib.contextmanager
def _signals(stop: asyncio.Event, task: asyncio.Future[None], grace: float) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def on_signal(name: str) -> None:
        if stop.is_set():
            log.warning("second signal: stopping at once", signal=name)
            _insist(task)
            return
        log.info("stopping", signal=name, grace=grace)
        stop.set()
        loop.call_later(grace, _insist, task)
        last_resort = threading.Timer(2 * grace, os._exit, (EXIT_FORCED,))
        last_resort.daemon = True
        last_resort.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _insist(task: asyncio.Future[Any]) -> None:
    """Cancel, again and again: up to Python 3.11 `asyncio.wait_for`, which nats-py uses, may lose a cancellation."""
    if not task.done():
        task.cancel()
        asyncio.get_running_loop().call_later(0.5, _insist, task)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """End tasks and wait until they have; what they raised is dropped."""
    for task in tasks:
        _insist(task)
    await asyncio.gather(*tasks, return_exceptions=True)


def backoff(*, first: float = 0.5, longest: float = 30.0) -> Iterator[float]:
    """Pauses that double from `first` to `longest` seconds, each shortened by up to a half at random."""
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        pause = min(pause * 2, longest)


async def sleep_unless(stop: asyncio.Event, seconds: float) -> bool:
    """Wait; True at once when `stop` is set meanwhile."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()
