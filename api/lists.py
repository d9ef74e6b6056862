"""
Lists: guests in the order of their names, in parts if the client likes.

A later part tells guests as they are then, under the revision the list began with: who watches from that revision is
told whatever changed in between. Nothing of a list is kept here for the next part.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import status
from api.answers import GZIP_FROM, JSON, Answer, of_bytes, ranges, respond, send_part, streamed
from api.cache import Cache
from api.fleet import Fleet
from api.forms import OBJECTS, PARTIAL, Form, ListMeta
from api.guest import Guest
from api.options import Continue, Options
from api.selectors import Selector
from api.table import Table

SLICE = 200
"""Guests between two pauses in which others have their turn."""

PATIENCE = 3.0
"""Seconds to wait for a revision that this replica has not seen yet (k8s.io/apiserver, blockTimeout)."""


def negotiate(accept: bytes, include: str, silence: float) -> Form | None:
    """
    The form a client likes best; None when there is none for it. `include`: what a table's rows hold of objects;
    `silence`: after how many seconds it calls a guest stale.
    """
    for media, parameters in ranges(accept):
        if media not in {JSON, "application/*", "*/*"}:
            continue
        wanted = parameters.get("as", "")
        if not wanted:
            return OBJECTS
        if parameters.get("g") != "meta.k8s.io" or parameters.get("v") not in {"v1", "v1beta1"}:
            continue
        if wanted == "Table":
            return Table(include, silence)
        if wanted.startswith("PartialObjectMetadata"):
            return PARTIAL
    return None


async def refusal(cache: Cache, options: Options) -> Answer | None:
    """Why there is no list of the revision that is asked for."""
    if not cache.level:
        return status.not_caught_up()
    fleet = cache.fleet
    wanted = options.start.revision if options.start else options.revision
    if not await fleet.reached(wanted, PATIENCE):
        return status.not_reached(wanted, fleet.revision)
    if options.start and wanted < fleet.floor:
        return status.expired("the continue token")
    if options.match == "Exact" and wanted != fleet.revision:
        return status.expired(f"resource version {wanted}")
    return None


class Anew(Exception):  # noqa: N818 - what happened
    """The stream is read anew: what would follow belongs to another list."""


class Listing(Response):
    """A list on its way: small ones at once, large ones as they are made, and compressed if the client likes."""

    def __init__(self, fleet: Fleet, options: Options, selector: Selector, form: Form, *, gzip: bool) -> None:
        super().__init__()
        self._fleet = fleet
        self._options = options
        self._selector = selector
        self._form = form
        self._gzip = gzip
        self._generation = fleet.generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        chunks, pending = self._chunks(), b""
        try:
            async for chunk in chunks:
                pending += chunk
                if len(pending) >= GZIP_FROM:
                    break
            else:
                await respond(of_bytes(200, pending))(scope, receive, send)
                return
        except Anew:
            await respond(status.not_caught_up())(scope, receive, send)
            return
        with suppress(Anew):  # the client sees that it is cut off
            await self._send(pending, chunks, send)

    async def _send(self, pending: bytes, chunks: AsyncIterator[bytes], send: Send) -> None:
        """What there is, and all that follows."""
        packer = zlib.compressobj(1, wbits=31) if self._gzip else None
        head = streamed(JSON, (b"vary", b"Accept-Encoding"), *([(b"content-encoding", b"gzip")] if packer else ()))
        await send({"type": "http.response.start", "status": 200, "headers": head})
        while pending:
            body = packer.compress(pending) if packer else pending
            await send_part(send, body)
            pending = await anext(chunks, b"")
        await send({"type": "http.response.body", "body": packer.flush() if packer else b""})

    async def _chunks(self) -> AsyncIterator[bytes]:
        """The list in pieces. Raises Anew."""
        start, limit = self._options.start, self._options.limit
        revision = start.revision if start else self._fleet.revision
        last, told, more = start.ref if start else None, 0, True
        yield self._form.opening()
        while more and (not limit or told < limit):
            if self._generation != self._fleet.generation:
                raise Anew
            guests, more = self._fleet.select(last, self._selector.scope, SLICE)
            entries = []
            for guest in guests:
                last = guest.ref
                if self._selected(guest):
                    entries.append(self._form.entry(guest, guest.revision))
                    if limit and told + len(entries) == limit:
                        break
            more = more or bool(guests and last != guests[-1].ref)
            if entries:
                yield (b"," if told else b"") + b",".join(entries)
            told += len(entries)
            await asyncio.sleep(0)
        meta = ListMeta(str(revision))
        if more and last:
            remaining = self._fleet.behind(last, self._selector.scope) if self._selector.everything else None
            meta = ListMeta(str(revision), Continue(revision, last.namespace, last.name).token(), remaining)
        yield self._form.closing(meta)

    def _selected(self, guest: Guest) -> bool:
        ref = guest.ref
        return self._selector.within((ref.namespace, ref.name)) and self._selector.selects(guest.labels)
