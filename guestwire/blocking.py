"""
Changes for scripts without asyncio: a plain iterator over what an event loop in a thread of its own receives.

The thread fetches one change whenever it is asked for one, so the bounds are those of the asynchronous iterator, and
its loop answers NATS while the script is busy with something else.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Collection
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Self

from guestwire.change import Change
from guestwire.lifecycle import cancel
from guestwire.subscription import Servers, Since, changes


def iter_changes(
    servers: Servers | None = None,
    *,
    cluster: str | None = None,
    namespace: str | None = None,
    name: str | None = None,
    kinds: Collection[str] | None = None,
    since: Since = None,
    live: bool = True,
) -> ChangeIterator:
    """`changes()` without asyncio, with the same arguments: an iterator, and a context manager that closes it."""
    return ChangeIterator(
        changes(servers, cluster=cluster, namespace=namespace, name=name, kinds=kinds, since=since, live=live)
    )


class ChangeIterator:
    """
    Blocks until there is a change. Closing it, from any thread, ends the iteration and the connection; so do leaving
    its `with`, its end, the garbage collector, and the end of the program.
    """

    def __init__(self, source: AsyncGenerator[Change, None]) -> None:
        self._reader = _Reader(source)
        self._close = weakref.finalize(self, self._reader.close)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Change:
        if not self._close.alive:
            raise StopIteration
        try:
            change = self._reader.next()
        except BaseException:
            self.close()
            raise
        if change is None:
            self.close()
            raise StopIteration
        return change

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End; a second time does nothing."""
        self._close()


class _Reader:
    """The event loop, its thread, and what reads there."""

    def __init__(self, source: AsyncGenerator[Change, None]) -> None:
        self._source = source
        self._reading: asyncio.Task[Change | None] | None = None
        self._ended = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True, name="guestwire changes")
        self._thread.start()

    def next(self) -> Change | None:
        """The next change; None at the end."""
        reading = self._next()
        try:
            return asyncio.run_coroutine_threadsafe(reading, self._loop).result()
        except CancelledError:
            return None
        finally:
            reading.close()  # where another thread closed the loop just now

    def close(self) -> None:
        """Stop reading, disconnect, and wait for the thread, unless this is it."""
        self._loop.call_soon_threadsafe(self._ended.set)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_ended())

    async def _until_ended(self) -> None:
        await self._ended.wait()
        if self._reading:
            await cancel(self._reading)
        await self._source.aclose()

    async def _next(self) -> Change | None:
        if self._ended.is_set():
            return None
        self._reading = asyncio.current_task()
        try:
            return await anext(self._source, None)
        finally:
            self._reading = None
