"""
Threads for blocking calls into libvirt, shared by all hosts of a process.

How many calls are under way is bounded by whoever makes them (`collectors.libvirt_host.places`), so a thread is started
when none is idle, and few are enough for many hosts. Unlike those of `concurrent.futures` they do not keep the process
from ending while libvirt hangs; and results that are ready together wake the event loop once, which at thousands of
short calls a second is most of what a call costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Of one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._waking = False
        self._started = 0
        self._busy = 0

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises; cancelled, it is not waited for."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._busy += 1
        if self._busy > self._started:
            self._started += 1
            threading.Thread(target=self._work, name=f"libvirt call {self._started}", daemon=True).start()
        self._calls.put((future, call))
        return await future

    def close(self) -> None:
        """Idle threads end now, the others after their call."""
        for _ in range(self._started):
            self._calls.put(None)
        self._started = 0

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            try:
                self._done.append((future, call(), None))
            except BaseException as error:
                self._done.append((future, None, error))
            del item, future, call
            if not self._waking:
                self._waking = True
                with contextlib.suppress(RuntimeError):  # the event loop has closed
                    self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._waking = False
        while self._done:
            future, result, error = self._done.popleft()
            self._busy -= 1
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
