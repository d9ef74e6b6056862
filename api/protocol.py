"""
The cached read path: one dictionary lookup and one write; where reading is not open, one more lookup of who may.

uvicorn's protocol class parses; when the head of a GET or HEAD is complete and its path is one of the cache's, the
answer goes to the transport at once, without a task, a scope or an event. Everything else takes uvicorn's way to the
application, which gives the same bytes: errors, other paths and spellings, the first read of a guest, requests with a
body, pipelined requests behind one that is being answered, clients that do not read, whom nothing is known of, who
names another server.

A client says the same in all its requests but for the path. So what followed the path is remembered once uvicorn's
parser has read it, and a request that repeats it to the byte, and whose path is one of the cache's, is not parsed.

The class also keeps time, as uvicorn does only for idle connections that have had an answer: every connection has a
deadline for its next step, and `Server` sweeps over them once a second.
"""

from __future__ import annotations

import asyncio
import math
from http import HTTPStatus
from typing import Any, NamedTuple, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from api import status
from api.answers import GZIP_FROM, Answer, accepts_json, conditional
from api.app import Api
from api.authorization import Asker
from api.identity import subject_name

READS = frozenset((b"GET", b"HEAD"))

NOT_SIMPLE = frozenset((b"content-length", b"transfer-encoding", b"expect", b"upgrade"))
"""Headers of requests that have a body, or want another protocol."""

VERSION = b" HTTP/1.1\r\n"

WORDINGS = 4
"""Different ways to ask that a connection remembers at once."""

WORDING_BYTES = 4096
"""Longer ones are not worth remembering."""

STATUS_LINES = {int(code): f"HTTP/1.1 {int(code)} {code.phrase}\r\n".encode() for code in HTTPStatus}


class Wording(NamedTuple):
    """What the parser made of the header lines of a GET without a body."""

    headers: list[tuple[bytes, bytes]]
    if_none_match: bytes


class CacheProtocol(HttpToolsProtocol):
    """A connection."""

    parser: httptools.HttpRequestParser

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.api = cast("Api", config.loaded_app)
        self.limits = self.api.limits
        self.deadline = math.inf
        """When the client must have taken its next step; `loop.time()`. Never, while the application is at work."""
        self._reading_deadline = math.inf
        """When the client must have taken what was written, while the socket is full."""
        self._peer = ""
        self._asker: Asker | None = None
        self._wordings: dict[bytes, Wording] = {}
        """By what follows the path. (By its hash first, with a secret seed: see `Asker`.)"""
        self._between = True
        """Whether the parser stands between two requests."""
        self._begun = 0
        """Requests that began in what was received last."""
        self._in_head = False
        self._head_bytes = 0
        self._answered = False
        self._simple = True
        self._accept = b""
        self._if_none_match = b""
        self._date = b""
        self._date_of: list[tuple[bytes, bytes]] = []

    # --- of asyncio ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = subject_name(transport.get_extra_info("peercert"))
        self._asker = Asker(self.api.access, self._peer) if self.api.access else None
        self.deadline = self.loop.time() + self.limits.head
        if len(self.connections) > self.limits.connections:
            self._refuse(status.too_many_connections())

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._between and self._wordings and self._answered_again(data):
            return
        between, self._begun = self._between, 0
        self._head_bytes = self._head_bytes + len(data) if self._in_head else len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if between and self._between and self._begun == 1 and self._answered:
            self._remember(data)
        if not self._in_head:
            return
        if self._begun:
            self.deadline = self.loop.time() + self.limits.head
            self._head_bytes = min(self._head_bytes, self.limits.head_bytes)  # other requests may have come before it
        elif self._head_bytes > self.limits.head_bytes:
            self._refuse(status.head_too_large())

    def send_400_response(self, msg: str) -> None:
        """What uvicorn says to what is no HTTP; a Status here, as everywhere."""
        self._refuse(status.bad_request(msg))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_deadline = self.loop.time() + self.limits.reading

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reading_deadline = math.inf

    def expire(self, now: float) -> None:
        """Close the connection when a deadline has passed; cut it when even that takes too long."""
        if now >= self._reading_deadline:
            self.transport.abort()
        elif now >= self.deadline:
            self._reading_deadline = now + self.limits.reading
            if self._in_head:
                self._refuse(status.request_timeout())
            else:
                self.transport.close()

    # --- of the parser ---

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_head = True
        self._between = False
        self._begun += 1
        self._answered = False
        self._simple = True
        self._accept = b""
        self._if_none_match = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self.headers.append((name, value))
        if name == b"accept":
            self._accept = b"%b, %b" % (self._accept, value) if self._accept else value
        elif name == b"if-none-match":
            self._if_none_match = b"%b, %b" % (self._if_none_match, value) if self._if_none_match else value
        elif name in NOT_SIMPLE or (name == b"host" and not self._meant(value)):
            self._simple = False
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self.transport.is_closing() or (self._head_bytes > self.limits.head_bytes and self._head_too_large()):
            self._answered = True  # what comes behind the last answer of a connection is not read
            return
        method, answer = self.parser.get_method(), None
        if self._simple and method in READS and accepts_json(self._accept):
            answer = self._cached(self.url)
        if answer is None:
            self._pass_on()
        else:
            keep_alive = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
            self._answer(answer, keep_alive=keep_alive, head_only=method == b"HEAD")

    def on_body(self, body: bytes) -> None:
        if not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._between = True
        if not self._answered:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self.deadline = self.loop.time() + self.limits.idle
        super().on_response_complete()
        if self._busy:
            self.deadline = math.inf

    # --- ours ---

    @property
    def _busy(self) -> bool:
        """Whether the application is still at work for this connection; the newest cycle ends last."""
        return self.cycle is not None and not self.cycle.response_complete

    def _meant(self, host: bytes) -> bool:
        """Whether the client means us. What is remembered has passed this, for all requests that repeat it."""
        return self.api.hosts is None or self.api.hosts.allow(host)

    def _cached(self, path: bytes) -> Answer | None:
        """The answer to be given here, if there is one."""
        cache = self.api.cache
        answer = cache.answers.get(path)
        if answer is None or not cache.caught_up or len(answer.body) >= GZIP_FROM:
            return None
        if self._busy or self.flow.write_paused:
            return None
        if self._asker is not None and not self._asker.granted(self.headers, path):
            return None
        return conditional(answer, self._if_none_match)

    def _answered_again(self, data: bytes) -> bool:
        """Answer what differs from an earlier request in nothing but the path; False when it must be parsed."""
        line, _, rest = data.partition(VERSION)
        wording = self._wordings.get(rest)
        if wording is None or not line.startswith(b"GET "):
            return False
        self.headers, self._if_none_match = wording
        answer = self._cached(line[4:])
        if answer is None:
            return False
        self._unset_keepalive_if_required()
        self._answer(answer, keep_alive=True)
        return True

    def _remember(self, data: bytes) -> None:
        """Of a single request that was received whole, and answered here on a connection that is kept."""
        line = b"%b %b%b" % (self.parser.get_method(), self.url, VERSION)
        if len(data) - len(line) <= WORDING_BYTES and data.startswith(line):
            if len(self._wordings) >= WORDINGS:
                self._wordings.clear()
            self._wordings[data[len(line) :]] = Wording(self.headers, self._if_none_match)

    def _answer(self, answer: Answer, *, keep_alive: bool, head_only: bool = False) -> None:
        self._answered = True
        self._write(answer, keep_alive=keep_alive, head_only=head_only)
        self.server_state.total_requests += 1
        self.api.metrics.requests[answer.status, "subresource"] += 1
        self.deadline = self.loop.time() + self.limits.idle

    def _write(self, answer: Answer, *, keep_alive: bool, head_only: bool = False) -> None:
        """As uvicorn writes it: status, its own headers, the application's, and Connection at the end."""
        default_headers = self.server_state.default_headers
        if self._date_of is not default_headers:
            self._date_of = default_headers
            self._date = b"".join(b"%b: %b\r\n" % header for header in default_headers)
        self.transport.write(
            b"".join(
                (
                    STATUS_LINES[answer.status],
                    self._date,
                    answer.entity,
                    answer.head,
                    answer.age(),
                    b"\r\n" if keep_alive else b"connection: close\r\n\r\n",
                    b"" if head_only else answer.body,
                )
            )
        )
        if not keep_alive:
            self.transport.close()

    def _pass_on(self) -> None:
        """Go uvicorn's way, from where it would be by now: its scope is made here, for those who need one."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.scope["state"] = {"peer": self._peer}
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        self.deadline = math.inf
        super().on_headers_complete()

    def _head_too_large(self) -> bool:
        """Counted exactly only when more came at once than a head may have: it may be many requests."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size <= self.limits.head_bytes:
            return False
        self._refuse(status.head_too_large())
        return True

    def _refuse(self, answer: Answer) -> None:
        """An answer to what is no request yet; the last one on this connection."""
        self.api.metrics.requests[answer.status, "other"] += 1
        self._reading_deadline = self.loop.time() + self.limits.reading
        if self._busy:
            self.transport.close()
        else:
            self._write(answer, keep_alive=False)
