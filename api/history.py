"""
What happened to a guest: the messages that the stream still holds about it, newest first, as differences.

Nothing of it is kept here. A request reads the guest's subjects from the stream, up to a limit; so many at once, and so
many that wait. What changed nothing that counts, a heartbeat, is left out, and so is what is behind the
page that is asked for. A first message, of a kind or of another guest with the same name, has nothing to differ from.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import status
from api.answers import Answer, accepts_json, joined, of_bytes, packed, respond
from api.cache import Cache
from api.groups import GUESTWIRE
from api.names import guest_at
from guestwire import client
from guestwire.difference import Difference, difference
from guestwire.errors import ContractError, TransientError
from guestwire.jetstream import Bus, Message, translated
from guestwire.kinds import BODIES
from guestwire.logs import logger
from guestwire.snapshot import GuestRef

log = logger("api")

(SUBRESOURCE,) = GUESTWIRE.further

AT_ONCE = 4
"""Requests that read from the stream."""

WAITING = 64
"""Requests that wait for their turn; who comes then is sent away."""

MOST_MESSAGES = 4096
"""Messages kept for one answer, the newest; a stream of ours holds 64 of a kind."""

LONGEST = 10.0
"""Seconds for reading them."""

MOST_DIFFERENCES = 50
"""Of one message; the rest is counted."""

PAGE, LONGEST_PAGE = 50, 500
"""Entries of an answer, unless asked for another number, and at most."""


class Change(Difference, omit_defaults=True, frozen=True):
    """A difference; what is null is not written."""

    old: Any = None
    new: Any = None


class Entry(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """A message, and how it differs from the one of its kind before it."""

    revision: int
    time: datetime
    kind: str
    host: str
    uid: str
    first: bool = False
    """There is no message before it to differ from."""
    differences: tuple[Change, ...] = ()
    omitted: int = 0
    """Differences that are left out."""


class Metadata(msgspec.Struct, omit_defaults=True, frozen=True):
    """Whose history, and where it goes on: `before` of the next page; 0 at the end."""

    namespace: str
    name: str
    before: int = 0


class GuestHistory(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A page of it."""

    api_version: Literal["guestwire.io/v1"] = "guestwire.io/v1"
    items: list[Entry]
    kind: Literal["GuestHistory"] = "GuestHistory"
    metadata: Metadata


class Page(msgspec.Struct, frozen=True):
    """What is asked for."""

    limit: int = PAGE
    kind: str | None = None
    before: int = 2**63
    """Only what is older than this revision."""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Page:
        """Raises ValueError that names the parameter."""
        kind = query.get("kind") or None
        if kind not in {None, *BODIES}:
            raise ValueError(f"kind: {kind!r:.40} is none of {', '.join(BODIES)}")
        numbers = {name: query[name] for name in ("limit", "before") if query.get(name)}
        for name, text in numbers.items():
            if not (text.isascii() and text.isdigit() and len(text) < 19):
                raise ValueError(f"{name}: {text!r:.40} is no whole number")
        limit = int(numbers.get("limit", PAGE)) or PAGE
        return cls(min(limit, LONGEST_PAGE), kind, int(numbers.get("before", 2**63)))


class History:
    """Of the guests of one cluster, read by a connection that may be down; None where there is no stream."""

    def __init__(self, bus: Bus | None, cluster: str) -> None:
        self._bus = bus
        self._cluster = cluster
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    def routes(self, cache: Cache) -> list[Route]:
        """The subresource; `cache` knows who is there."""

        async def read(request: Request) -> Response:
            headers = request.scope["headers"]
            if not accepts_json(joined(headers, b"accept")):
                return respond(status.not_acceptable())
            if not cache.caught_up:
                return respond(status.not_caught_up())
            ref = guest_at(request.path_params)
            there = cache.guest(ref) is not None
            return respond(await packed(await self.answer(ref, request.query_params, there=there), headers))

        return [Route(GUESTWIRE.route.replace("{version}", "v1").replace("{kind}", SUBRESOURCE), read)]

    async def answer(self, ref: GuestRef, query: Mapping[str, str], *, there: bool) -> Answer:
        """A page, or the error; `there` tells whether the guest is known, which may have no history."""
        try:
            page = Page.of(query)
        except ValueError as error:
            return status.bad_request(str(error))
        if self._bus is None:
            return unavailable("there is no stream to read it from")
        if self._waiting >= WAITING:
            return unavailable("too many histories are being read")
        self._waiting += 1
        try:
            async with self._turns:
                messages = await self._read(self._bus, ref, page)
                entries = await _entries(messages, page)
        except TransientError as error:
            return unavailable(f"the stream cannot be read: {error}")
        finally:
            self._waiting -= 1
        if not messages and not there:
            return status.not_found(GUESTWIRE, ref.name)
        before = entries[-1].revision if len(entries) == page.limit else 0
        history = GuestHistory(items=entries, metadata=Metadata(ref.namespace, ref.name, before))
        return of_bytes(200, msgspec.json.encode(history))

    async def _read(self, bus: Bus, ref: GuestRef, page: Page) -> list[Message]:
        """
        In the order of the stream. By a consumer, whose subjects a server can limit to those of a cluster, as it cannot
        with direct gets (deploy/nats).
        """
        messages: deque[Message] = deque(maxlen=MOST_MESSAGES)
        past = client.follow(
            bus, cluster=self._cluster, namespace=ref.namespace, name=ref.name, kind=page.kind, after=0, live=False
        )
        with translated(f"history of {ref}"):
            async with asyncio.timeout(LONGEST), aclosing(past):
                async for message in past:
                    if message.revision >= page.before:
                        break
                    messages.append(message)
        return list(messages)


async def _entries(messages: list[Message], page: Page) -> list[Entry]:
    """Newest first, and no more than needed."""
    before: dict[str, Message] = {}
    pairs: list[tuple[Message, Message | None]] = []
    for message in messages:
        former = before.get(message.address.kind)
        pairs.append((message, former if former and former.event.uid == message.event.uid else None))
        before[message.address.kind] = message
    entries: list[Entry] = []
    for count, (message, former) in enumerate(reversed(pairs)):
        if len(entries) == page.limit:
            break
        if entry := _entry(message, former):
            entries.append(entry)
        if count % 8 == 7:
            await asyncio.sleep(0)  # others have their turn
    return entries


def _entry(message: Message, former: Message | None) -> Entry | None:
    """None for what tells nothing."""
    event, kind = message.event, message.address.kind
    about = (message.revision, event.time, kind, event.host, event.uid)
    if former is None:
        return Entry(*about, first=True)
    try:
        found = difference(kind, former.body, message.body)
    except ContractError as error:
        log.debug("no difference can be told", subject=message.address.subject, error=str(error))
        return Entry(*about)
    if not found:
        return None
    told = tuple(Change(each.path, each.old, each.new) for each in found[:MOST_DIFFERENCES])
    return Entry(*about, differences=told, omitted=len(found) - len(told))


def unavailable(why: str) -> Answer:
    """503: it may work again in a moment."""
    details = status.Details(retry_after_seconds=1)
    refusal = status.Status(message=why, reason="ServiceUnavailable", details=details, code=503)
    return refusal.answer(b"retry-after: 1\r\n")
