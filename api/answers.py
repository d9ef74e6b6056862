"""
An answer: a status, its header lines as they are written, and bytes.

There is one kind of answer for both ways out: the application makes a response of it, the protocol class writes the
same lines to the socket. Date and Connection belong to the connection and are added there; Age is counted when sent.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from email.utils import formatdate
from functools import lru_cache

import msgspec
from starlette.responses import Response
from starlette.types import Send

JSON = "application/json"
NOSNIFF = b"x-content-type-options: nosniff\r\n"
NO_STORE = b"cache-control: no-store\r\n"
REVALIDATE = b"cache-control: no-cache\r\n"
ETAG = b"etag: "
VARY = b"vary: accept-encoding\r\n"

GZIP_FROM = 128 * 1024
"""Bytes from which an answer is compressed for who accepts that (k8s.io/apiserver, defaultGzipThresholdBytes)."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Ready to be sent. Header lines end in CR LF; names are in lower case."""

    status: int
    entity: bytes
    """The lines that describe the body."""
    head: bytes
    """The other lines; an ETag comes first."""
    body: bytes
    observed: float = 0
    """When the facts were last seen to be so, in seconds since the epoch; 0 for answers without an age."""

    @property
    def etag(self) -> bytes:
        """With its quotes; empty when the answer has none."""
        return self.head[len(ETAG) : self.head.index(b"\r\n")] if self.head.startswith(ETAG) else b""

    def age(self) -> bytes:
        """The Age line of this moment. Never negative, whatever the clock of the guest's host says."""
        return b"age: %d\r\n" % max(0, int(time.time() - self.observed)) if self.observed else b""

    def not_modified(self) -> Answer:
        """304 in place of this answer: validators and freshness, no body (RFC 9110, 15.4.5)."""
        return Answer(304, b"", self.head, b"", self.observed)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The header lines of this moment, taken apart."""
        lines = (self.entity + self.head + self.age()).splitlines()
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


def of_bytes(status: int, body: bytes, *, content_type: str = JSON, head: bytes = NOSNIFF + NO_STORE) -> Answer:
    """Bytes of a type; not to be stored unless `head` says otherwise."""
    return Answer(status, _described(content_type, len(body)), head, body)


def of_text(status: int, text: str) -> Answer:
    """Plain text."""
    return of_bytes(status, text.encode(), content_type="text/plain; charset=utf-8")


def of_body(body: bytes, revision: int, changed_at: datetime, observed_at: datetime) -> Answer:
    """
    A message's body, untouched. Its revision is the ETag. Last-Modified is when it became so, Age counts from when it
    was last seen to be so: a body that is still true is not published again.
    """
    changed, observed = changed_at.timestamp(), observed_at.timestamp()
    head = b'etag: "%d"\r\nlast-modified: %b\r\n%b%b' % (revision, _date(int(changed)), NOSNIFF, REVALIDATE)
    return Answer(200, _described(JSON, len(body)), head, body, max(changed, observed))


@lru_cache(maxsize=4096)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()


@lru_cache(maxsize=4096)
def _described(content_type: str, length: int) -> bytes:
    return f"content-type: {content_type}\r\ncontent-length: {length}\r\n".encode()


NOTHING_YET = {
    "guestosinfo": of_bytes(200, b'{"fsInfo":{"disks":null},"os":{},"timezone":", 0"}'),
    "userlist": of_bytes(200, b'{"items":[],"metadata":{}}'),
    "filesystemlist": of_bytes(200, b'{"items":[],"metadata":{}}'),
}
"""
What KubeVirt answers, and so its group here, about a guest whose agent has just connected: the zero value of each type.
"""


def joined(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The values of a header as one list (RFC 9110, 5.3); empty when there is none."""
    return b", ".join(value for key, value in headers if key == name)


def matches(if_none_match: bytes, etag: bytes) -> bool:
    """Whether If-None-Match names the ETag, by weak comparison (RFC 9110, 13.1.2)."""
    if if_none_match == etag:
        return True
    tags = [tag.strip() for tag in if_none_match.split(b",")]
    return b"*" in tags or any(tag.removeprefix(b"W/") == etag for tag in tags)


def conditional(answer: Answer, if_none_match: bytes) -> Answer:
    """304 when the client has it already."""
    if if_none_match and answer.etag and matches(if_none_match, answer.etag):
        return answer.not_modified()
    return answer


def respond(answer: Answer) -> Response:
    """An answer as the framework's response."""
    response = Response(answer.body, answer.status)
    response.raw_headers = answer.headers()
    return response


def streamed(content_type: str, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The header lines of an answer whose length nobody knows yet."""
    return [*Answer(200, b"content-type: %b\r\n" % content_type.encode(), NO_STORE + NOSNIFF, b"").headers(), *more]


async def send_part(send: Send, body: bytes) -> None:
    """Bytes of such an answer, and there may be more."""
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def packed(answer: Answer, headers: Iterable[tuple[bytes, bytes]]) -> Answer:
    """Compressed, if it is large and the client accepts that; then its ETag is a weak one (RFC 9110, 8.8.1)."""
    if len(answer.body) < GZIP_FROM:
        return answer
    head = answer.head.replace(ETAG, ETAG + b"W/", 1) + VARY
    if not accepts_gzip(joined(headers, b"accept-encoding")):
        return msgspec.structs.replace(answer, head=answer.head + VARY)
    body = await asyncio.to_thread(gzip.compress, answer.body, 1)
    described = [line for line in answer.entity.splitlines(keepends=True) if not line.startswith(b"content-length")]
    entity = b"".join((*described, b"content-encoding: gzip\r\n", b"content-length: %d\r\n" % len(body)))
    return msgspec.structs.replace(answer, entity=entity, head=head, body=body)


@lru_cache(maxsize=256)
def accepts_gzip(accept_encoding: bytes) -> bool:
    """Whether an Accept-Encoding header lets gzip through; without one nothing is compressed."""
    return bool(accept_encoding.strip()) and any(media in {"gzip", "*"} for media, _ in ranges(accept_encoding))


@lru_cache(maxsize=256)
def ranges(accept: bytes) -> tuple[tuple[str, dict[str, str]], ...]:
    """The media ranges of an Accept header with their parameters, what is liked best first (RFC 9110, 12.5.1)."""
    found = sorted(_weighed(accept), key=lambda each: -each[0])
    return tuple((media, parameters) for weight, media, parameters in found if weight > 0)


@lru_cache(maxsize=256)
def accepts_json(accept: bytes) -> bool:
    """Whether an Accept header lets JSON through; the most specific range decides (RFC 9110, 12.5.1)."""
    quality: dict[str, float] = {}
    for weight, media, _ in _weighed(accept):
        quality[media] = max(weight, quality.get(media, 0.0))
    return next((quality[media] > 0 for media in (JSON, "application/*", "*/*") if media in quality), False)


def _weighed(accept: bytes) -> Iterator[tuple[float, str, dict[str, str]]]:
    """The ranges as they stand there: weight, media, other parameters. No header is as good as any range."""
    for text in (accept.decode("latin-1") if accept.strip() else "*/*").split(","):
        media, *rest = (part.strip() for part in text.split(";"))
        parameters = {name.lower(): value for name, _, value in (part.partition("=") for part in rest)}
        try:
            weight = float(parameters.pop("q", "1"))
        except ValueError:
            weight = 1.0
        yield weight, media.lower(), parameters
