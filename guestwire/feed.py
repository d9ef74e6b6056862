"""
The stream as something to take from, at the reader's own pace.

A follower pushes; this keeps what it pushes until it is asked for. Where more than the backlog waits, the follower is
held up, does not answer flow control, and the server keeps the rest: nothing is dropped, and nothing grows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from datetime import datetime
from types import TracebackType
from typing import Self

import msgspec

from guestwire.follower import Follower
from guestwire.jetstream import Bus, Message
from guestwire.lifecycle import cancel

BACKLOG = 4096
"""Messages that wait to be taken."""


class Begin(msgspec.Struct, frozen=True):
    """The present values of a stream follow: at the start, or because it is another stream."""

    stream: datetime
    """When it was created."""


class Complete(msgspec.Struct, frozen=True):
    """All that was in the stream at the start has been given."""


class Feed:
    """
    Messages of a subject pattern, and marks between them; an async context manager, read by one task.

    With `after` it begins behind that revision, and with `stream`, the time of its creation, only if it is that stream.
    """

    def __init__(
        self, bus: Bus, pattern: str, *, after: int | None = None, stream: datetime | None = None, size: int = BACKLOG
    ) -> None:
        self._follower = Follower(bus, pattern, self, after=after, stream=stream)
        self._following: asyncio.Task[None] | None = None
        self._waiting: deque[Message | Begin | Complete] = deque()
        self._size = size
        self._some = asyncio.Event()
        self._room = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follower.run(), name="follower")
        self._following.add_done_callback(lambda _: self._some.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._following:
            await cancel(self._following)

    async def take(self) -> Message | Begin | Complete:
        """The next one. Raises what ended the follower, should that happen."""
        while not self._waiting:
            self._some.clear()
            if self._following and self._following.done():
                await self._following
            await self._some.wait()
        return self._pop()

    async def batch(self, longest: int) -> list[Message] | Begin | Complete:
        """The next mark, or the messages that wait before one."""
        taken = await self.take()
        if not isinstance(taken, Message):
            return taken
        messages = [taken]
        while len(messages) < longest and self._waiting and isinstance(following := self._waiting[0], Message):
            messages.append(following)
            self._pop()
        return messages

    def _pop(self) -> Message | Begin | Complete:
        popped = self._waiting.popleft()
        if len(self._waiting) <= self._size // 2:
            self._room.set()
        return popped

    # --- the follower's sink -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """The present values follow."""
        assert self._follower.stream is not None  # noqa: S101 - it is known by now
        self._put(Begin(self._follower.stream))

    def apply(self, message: Message) -> Awaitable[None] | None:
        """Keep it until it is asked for."""
        self._put(message)
        if len(self._waiting) < self._size:
            return None
        self._room.clear()
        return self._until_room()

    def complete(self) -> None:
        """Mark the place."""
        self._put(Complete())

    def _put(self, what: Message | Begin | Complete) -> None:
        self._waiting.append(what)
        self._some.set()

    async def _until_room(self) -> None:
        await self._room.wait()
