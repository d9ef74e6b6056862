"""
`/metrics` and `/metrics/guests`.

The first is of this process, as everywhere. Guests' metrics have a path of their own as well, because the right to a
process's metrics is given away lightly (`api.open_metrics`; the role `system:monitoring` of a cluster) and is none to
read guests. Where it cannot be had without the right to read all guests, `/metrics` holds both (`combined`).

An answer is made while it is sent; one that is small has a length nevertheless.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import AsyncGenerator, Callable

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from api import status
from api.answers import NO_STORE, NOSNIFF, VARY, accepts_gzip, joined, of_bytes, respond
from api.guest_metrics import GuestMetrics
from guestwire.settings import Api

PATHS = ("/metrics", "/metrics/guests")

AT_ONCE = 4
"""Scrapes of guests; two servers that scrape for each other's failure need two."""
SMALL = 64 * 1024
"""Bytes up to which an answer is held until it is whole."""
GZIP = 31
"""zlib's largest window, in gzip's format."""


class Scrapes:
    """What answers Prometheus: `process` gives the metrics of this one, `guests` is None where those have none."""

    def __init__(self, process: Callable[[], bytes], guests: GuestMetrics | None, *, combined: bool) -> None:
        self._process = process
        self._guests = guests
        self._combined = combined
        self._under_way = 0

    def routes(self) -> list[Route]:
        """For the application."""
        process, guests = PATHS
        return [Route(process, self._process_metrics), Route(guests, self._guest_metrics)]

    async def _process_metrics(self, request: Request) -> Response:
        """Also when guests cannot be told of: whether the cache was filled is among these."""
        guests = self._guests if self._combined else None
        if guests and self._under_way >= AT_ONCE:
            return _busy()
        return await self._answer(request, self._process(), guests if guests and guests.ready else None)

    async def _guest_metrics(self, request: Request) -> Response:
        if self._guests is None:
            return respond(status.no_such_path())
        if not self._guests.ready:
            return respond(status.not_caught_up())
        if self._under_way >= AT_ONCE:
            return _busy()
        return await self._answer(request, b"", self._guests)

    async def _answer(self, request: Request, first: bytes, guests: GuestMetrics | None) -> Response:
        """What was made when an answer turns out to be long, is sent first."""
        parts = self._text(first, guests)
        made = bytearray()
        async for part in parts:
            made += part
            if len(made) > SMALL:
                return _streamed(request, bytes(made), parts)
        return respond(of_bytes(200, bytes(made), content_type=CONTENT_TYPE_LATEST))

    async def _text(self, first: bytes, guests: GuestMetrics | None) -> AsyncGenerator[bytes]:
        yield first
        if guests:
            self._under_way += 1
            try:
                async with contextlib.aclosing(guests.text()) as parts:
                    async for part in parts:
                        yield part
            finally:
                self._under_way -= 1


def combined(api: Api) -> bool:
    """Whether everyone who gets `/metrics` may read all guests by these settings."""
    return not (api.open_metrics or api.aggregated)


def _busy() -> Response:
    refusal = status.Status(
        message="too many scrapes at once",
        reason="ServiceUnavailable",
        details=status.Details(retry_after_seconds=1),
        code=503,
    )
    return respond(refusal.answer(b"retry-after: 1\r\n"))


def _streamed(request: Request, made: bytes, parts: AsyncGenerator[bytes]) -> Response:
    gzip = accepts_gzip(joined(request.scope["headers"], b"accept-encoding"))
    lines = NOSNIFF + NO_STORE + VARY + (b"content-encoding: gzip\r\n" if gzip else b"")
    only_head = request.method == "HEAD"
    response = StreamingResponse(_sent(b"" if only_head else made, parts, gzip=gzip, only_head=only_head))
    response.raw_headers = [
        (b"content-type", CONTENT_TYPE_LATEST.encode()),
        *((name, value) for name, _, value in (line.partition(b": ") for line in lines.splitlines())),
    ]
    return response


async def _sent(made: bytes, parts: AsyncGenerator[bytes], *, gzip: bool, only_head: bool) -> AsyncGenerator[bytes]:
    """The bytes of the body; whatever happens, the making of further parts ends with it."""
    packer = zlib.compressobj(1, wbits=GZIP) if gzip else None
    async with contextlib.aclosing(parts):
        yield packer.compress(made) if packer else made
        if only_head:
            return
        async for part in parts:
            yield packer.compress(part) if packer else part
    if packer:
        yield packer.flush()
