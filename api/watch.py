"""
Watches: a line of JSON per change, for as long as the client stays.

What is sent follows from a position in the order of changes (`fleet`) and from nothing else, so a watch costs no more
than its connection. A guest that changes twice before a slow client has read the first is told as it is then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import lru_cache

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import status
from api.answers import JSON, Answer
from api.cache import Cache
from api.fleet import UNKNOWN, Change, Sleeper
from api.forms import INITIAL_EVENTS_END, Form
from api.guest import Guest
from api.lists import PATIENCE
from api.options import Options
from api.selectors import Selector

STEP = 64
"""Changes looked at before others have their turn."""

BOOKMARKS = 60.0
"""Seconds between bookmarks."""

SHORTEST = 1800.0
"""Seconds a watch lasts when the client does not say, and up to twice that (k8s.io/apiserver, MinRequestTimeout)."""


async def refusal(cache: Cache, options: Options) -> Answer | None:
    """Why there is no watch from the revision that is asked for."""
    if not cache.level:
        return status.not_caught_up()
    fleet = cache.fleet
    if not await fleet.reached(options.revision, PATIENCE):
        return status.not_reached(options.revision, fleet.revision)
    if not options.any_revision and options.initial_events is None and options.revision < fleet.floor:
        return status.expired(f"resource version {options.revision}")
    return None


class Watch(Response):
    """One client's watch. `valid` tells whether it may go on; who makes that false wakes the fleet's sleepers."""

    def __init__(
        self, cache: Cache, options: Options, selector: Selector, form: Form, valid: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._fleet = cache.fleet
        self._generation = cache.fleet.generation
        self._options = options
        self._selector = selector
        self._form = form
        self._valid = valid
        self._sleeper = Sleeper(cache.fleet, selector.scope)
        self._left = False
        fresh = options.any_revision if options.initial_events is None else options.initial_events
        self._told = 0 if fresh else options.revision if not options.any_revision else self._fleet.revision
        """All changes up to this revision have been told."""
        self._initial = self._fleet.revision
        self._level = not fresh
        """Whether all guests have been told that were there at the beginning, in revision `initial`."""
        self._floor = self._fleet.floor
        """Who went before that, is of no interest."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        headers = [
            (b"content-type", JSON.encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] != "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            leaving = asyncio.create_task(self._notice(receive))
            self._fleet.watches += 1
            try:
                await self._run(send)
            finally:
                self._fleet.watches -= 1
                leaving.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _notice(self, receive: Receive) -> None:
        """A client that has left is noticed at once."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._wake()

    async def _run(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + (self._options.timeout or SHORTEST * (1 + random.random()))  # noqa: S311
        mark = loop.time() + BOOKMARKS
        while not self._left and self._valid() and loop.time() < end:
            problem = self._problem()
            lines = [problem] if problem else self._step()
            if not lines and loop.time() >= mark:
                lines = self._bookmark({})
                mark = loop.time() + BOOKMARKS
            if lines:
                await send({"type": "http.response.body", "body": b"".join(lines), "more_body": True})
            if problem:
                return
            if self._told < self._fleet.revision:
                await asyncio.sleep(0)
            elif not lines:
                timer = loop.call_at(min(mark, end), self._wake)
                self._told = await self._sleeper.sleep(self._told)
                timer.cancel()

    def _wake(self) -> None:
        self._sleeper.wake(self._fleet.revision + 1)

    def _problem(self) -> bytes:
        """Why it cannot go on: revisions of another stream, or too far behind."""
        floor = self._fleet.floor if self._fleet.floor > self._floor else 0
        if self._generation == self._fleet.generation and self._told >= floor:
            return b""
        return b'{"type":"ERROR","object":%b}\n' % status.expired(f"resource version {self._told}").body

    def _step(self) -> list[bytes]:
        changes, position = self._fleet.since(self._told, STEP)
        lines = [line for change in changes if (line := self._event(change))]
        self._told = position
        if not self._level and position == self._fleet.revision:
            self._level = True
            if self._options.initial_events:
                lines += self._bookmark({INITIAL_EVENTS_END: "true"})
        return lines

    def _event(self, change: Change) -> bytes:
        """What there is to say of a change; empty when that is nothing to this client."""
        ref = change.guest.ref
        if not self._selector.within((ref.namespace, ref.name)):
            return b""
        is_there = change.after is not None and self._selector.selects(change.after)
        if not self._level and change.revision <= self._initial:
            last = change.revision == change.guest.revision
            return self._line("ADDED", change) if is_there and last else b""
        was_there = change.before is not None and (change.before is UNKNOWN or self._selector.selects(change.before))
        if is_there:  # what changes amid the beginning, may not have been told
            return self._line("MODIFIED" if was_there and self._level else "ADDED", change)
        return self._line("DELETED", change) if was_there else b""

    def _line(self, event: str, change: Change) -> bytes:
        told = _alone if self._form.steady else _anew
        return b'{"type":"%b","object":%b}\n' % (
            event.encode(),
            told(self._form, change.guest, change.revision - change.replaced),
        )

    def _bookmark(self, annotations: dict[str, str]) -> list[bytes]:
        if not self._options.bookmarks:
            return []
        return [b'{"type":"BOOKMARK","object":%b}\n' % self._form.bookmark(self._told, annotations)]


def _anew(form: Form, guest: Guest, revision: int) -> bytes:
    return form.alone(guest, revision)


@lru_cache(maxsize=512)
def _alone(form: Form, guest: Guest, revision: int) -> bytes:
    """Many watch the same."""
    return form.alone(guest, revision)
