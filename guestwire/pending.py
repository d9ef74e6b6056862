"""
Keys that need attention: the one queue between stages.

An event only adds a key; whoever takes the key looks at the present state. Equal keys merge, so the queue is bounded by
the number of guests however many events arrive, and a key is never with two workers at once: added again meanwhile, it
comes back when the first is done. (The idea is that of Kubernetes' client-go workqueue.)
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Closed(Exception):  # noqa: N818 - the end of a queue is no error
    """No key is left, and none will come."""


class Pending(Generic[K]):
    """Not thread-safe: another thread goes through `loop.call_soon_threadsafe(pending.add, key)`."""

    def __init__(self) -> None:
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()  # in _ready
        self._held: set[K] = set()  # with a worker
        self._again: set[K] = set()  # added while held
        self._due: dict[K, float] = {}  # delayed keys and their times, by loop.time()
        self._heap: list[tuple[float, int, K]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        self._takers: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._draining = False

    def __len__(self) -> int:
        """Keys that are ready, held or delayed."""
        return len(self._waiting) + len(self._held) + len(self._due)

    def add(self, key: K, *, delay: float = 0) -> None:
        """
        Mark a key. With a delay (seconds) it becomes ready later, or sooner if it is already due sooner; without
        one at once. After `close` nothing new is taken; while draining, keys that a worker holds may come back.
        """
        if self._closed and not (self._draining and key in self._held):
            return
        if delay > 0 and not self._closed:
            self._add_later(key, delay)
            return
        if self._due:
            self._due.pop(key, None)
        if key in self._held:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            if self._takers:
                self._wake()

    def forget(self, key: K) -> None:
        """Take back whatever is planned for a key; a worker that holds it ends as it likes."""
        self._due.pop(key, None)
        self._again.discard(key)
        if key in self._waiting:
            self._waiting.discard(key)
            self._ready.remove(key)

    def close(self, *, drain: bool = True) -> None:
        """End the input. Draining, delayed keys become ready now; else only held keys are finished."""
        self._closed, self._draining = True, drain
        if self._timer:
            self._timer.cancel()
        if drain:
            for key in sorted(self._due, key=self._due.__getitem__):
                if key in self._held:
                    self._again.add(key)
                elif key not in self._waiting:
                    self._waiting.add(key)
                    self._ready.append(key)
        else:
            self._ready.clear()
            self._waiting.clear()
            self._again.clear()
        self._due.clear()
        while self._takers:
            self._wake()

    async def take(self) -> K:
        """The next key, held until `done`. Raises Closed at the end."""
        while not self._ready:
            if self._closed and not self._held:
                raise Closed
            taker = asyncio.get_running_loop().create_future()
            self._takers.append(taker)
            try:
                await taker
            except asyncio.CancelledError:
                # A wake-up that arrived together with the cancellation belongs to someone else.
                if taker.done() and not taker.cancelled():
                    self._wake()
                raise
            finally:
                if taker in self._takers:
                    self._takers.remove(taker)
        [key] = self._pop(1)
        return key

    def done(self, key: K) -> None:
        """Give a key back; it is ready again if it was added meanwhile."""
        self._give_back([key])

    async def work(self, workers: int, handle: Callable[[K], Awaitable[float | None]]) -> None:
        """
        Run `workers` at once until the queue is closed and empty. `handle` returns the seconds after which it wants
        to see the key again, or None. An exception of its ends all workers.
        """

        async def handle_one(keys: list[K]) -> dict[K, float]:
            again = await handle(keys[0])
            return {} if again is None else {keys[0]: again}

        await self.work_many(workers, 1, handle_one)

    async def work_many(self, workers: int, most: int, handle: Callable[[list[K]], Awaitable[dict[K, float]]]) -> None:
        """The same with up to `most` keys at a time: those that are ready when a worker takes one."""

        async def worker() -> None:
            while True:
                try:
                    keys = [await self.take()]
                except Closed:
                    return
                keys += self._pop(most - 1)
                again: dict[K, float] = {}
                try:
                    again = await handle(keys)
                finally:
                    for key, delay in again.items():
                        self.add(key, delay=delay)
                    self._give_back(keys)

        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(worker(), name=f"worker {number}")

    def _add_later(self, key: K, delay: float) -> None:
        due = asyncio.get_running_loop().time() + delay
        if key in self._waiting or key in self._again or self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        if self._heap[0][0] == due:
            self._arm(due)

    def _arm(self, due: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due, self._ripen)

    def _ripen(self) -> None:
        moment = asyncio.get_running_loop().time()
        while self._heap and (self._heap[0][0] <= moment or self._due.get(self._heap[0][2]) != self._heap[0][0]):
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                self.add(key)
        if self._heap:
            self._arm(self._heap[0][0])

    def _pop(self, most: int) -> list[K]:
        ready = self._ready
        keys = [ready.popleft() for _ in range(min(most, len(ready)))]
        self._waiting.difference_update(keys)
        self._held.update(keys)
        return keys

    def _give_back(self, keys: list[K]) -> None:
        self._held.difference_update(keys)
        for key in keys if self._again else ():
            if key in self._again:
                self._again.discard(key)
                self._waiting.add(key)
                self._ready.append(key)
                self._wake()
        if self._closed and not self._held and not self._ready:
            while self._takers:
                self._wake()

    def _wake(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return
