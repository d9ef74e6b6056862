"""What a follower of the stream has brought and was not stored yet: bounded, the server waits when it is full."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from guestwire.jetstream import Message

MOST_MESSAGES, MOST_BYTES = 10_000, 16 * 1024 * 1024
"""In one batch. As many again may have come while it is stored."""


class Intake:
    """A follower's sink."""

    def __init__(self) -> None:
        self.changed = False
        """The stream is another one than the follower was made for."""
        self.level = False
        """All that was in the stream at the start is here, or was."""
        self.due = asyncio.Event()
        """Something should be done about what is here."""
        self._messages: list[Message] = []
        self._bytes = 0
        self._room = asyncio.Event()

    def begin(self) -> None:
        """The follower begins anew, as the stream is another one: what comes from now on is not wanted."""
        self.changed = True
        self.due.set()

    def apply(self, message: Message) -> Awaitable[None] | None:
        """Keep a message; where there is no room for another, the follower has to wait."""
        if self.changed:
            return None
        self._messages.append(message)
        self._bytes += len(message.body)
        if len(self._messages) < MOST_MESSAGES and self._bytes < MOST_BYTES:
            return None
        self.due.set()
        self._room.clear()
        return self._until_room()

    async def _until_room(self) -> None:
        await self._room.wait()

    def complete(self) -> None:
        """All that was in the stream at the start has come."""
        self.level = True
        self.due.set()

    def take(self) -> list[Message]:
        """All that is here, and room again."""
        taken, self._messages, self._bytes = self._messages, [], 0
        self._room.set()
        self.due.clear()
        return taken

    def __len__(self) -> int:
        return len(self._messages)
