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

from starlette.types import Send

from api import status
from api.answers import JSON, Answer, send_part
from api.cache import Cache
from api.fleet import UNKNOWN, Change
from api.forms import INITIAL_EVENTS_END, Form
from api.guest import Guest
from api.lists import PATIENCE
from api.options import Options
from api.selectors import Selector
from api.streams import Stream

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


class Watch(Stream):
    """What a selector lets through, from the revision that is asked for."""

    content_type = JSON

    def __init__(
        self, cache: Cache, options: Options, selector: Selector, form: Form, valid: Callable[[], bool]
    ) -> None:
        super().__init__(cache.fleet, selector.scope, valid)
        self._options = options
        self._selector = selector
        self._form = form
        fresh = options.any_revision if options.initial_events is None else options.initial_events
        self._told = 0 if fresh else options.revision if not options.any_revision else self._fleet.revision
        self._initial = self._fleet.revision
        self._level = not fresh
        """Whether all guests have been told that were there at the beginning, in revision `initial`."""

    async def _run(self, send: Send) -> None:
        self._fleet.watches += 1
        try:
            await self._tell(send)
        finally:
            self._fleet.watches -= 1

    async def _tell(self, send: Send) -> None:
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
                await send_part(send, b"".join(lines))
            if problem:
                return
            if self._told < self._fleet.revision:
                await asyncio.sleep(0)
            elif not lines:
                await self._sleep(min(mark, end))

    def _problem(self) -> bytes:
        """Why it cannot go on, to be told at the end."""
        if not self._lost():
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
