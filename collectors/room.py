"""
Room for looks: how many guests of all hosts are looked at at once in this process.

More looks at once get nothing done sooner when all guests of many hosts connect at the same moment, but keep the event
loop from everything else. Whoever has not been read yet goes first, so that such a storm is over for everyone once each
guest has answered once, not when the first ones have been read four times; every fourth place is kept for the others.

A look that takes long waits for its host, not for this process: after a while its place counts as free, or a few hosts
that hardly answer would hold up all the rest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count

PLACES = 256
PATIENCE = 5.0
"""Seconds for which a look holds its place at most; in a storm it takes one or two."""
TURNS = 4
"""One in so many places goes to a guest that was read before, when others wait as well."""


class Room:
    """Not thread-safe. Each `enter` that returns is followed by `leave` with what it returned."""

    def __init__(self, places: int = PLACES, patience: float = PATIENCE) -> None:
        self._places = places
        self._patience = patience
        self._inside: dict[int, float] = {}
        """Who holds a place since when, by loop time; the earliest come first."""
        self._tickets = count()
        self._first: deque[asyncio.Future[int]] = deque()
        self._others: deque[asyncio.Future[int]] = deque()
        self._turn = 0
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, *, first: bool) -> int:
        """Wait for a place; `first` for a guest that has not been read yet."""
        if not self._first and not self._others and self._free():
            return self._take()
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        (self._first if first else self._others).append(waiting)
        self._admit()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                self.leave(waiting.result())
            raise

    def leave(self, ticket: int) -> None:
        """Give a place back."""
        self._inside.pop(ticket, None)
        self._admit()

    def _take(self) -> int:
        ticket = next(self._tickets)
        self._inside[ticket] = asyncio.get_running_loop().time()
        return ticket

    def _free(self) -> bool:
        """Whether there is a place; those held for too long are given up."""
        overdue = asyncio.get_running_loop().time() - self._patience
        while len(self._inside) >= self._places:
            ticket, since = next(iter(self._inside.items()))
            if since > overdue:
                return False
            del self._inside[ticket]
        return True

    def _admit(self) -> None:
        while (self._first or self._others) and self._free():
            self._turn += 1
            others = self._others and (not self._first or self._turn % TURNS == 0)
            waiting = (self._others if others else self._first).popleft()
            if not waiting.done():
                waiting.set_result(self._take())
        if (self._first or self._others) and self._timer is None:
            earliest = next(iter(self._inside.values()))
            self._timer = asyncio.get_running_loop().call_at(earliest + self._patience, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._admit()
