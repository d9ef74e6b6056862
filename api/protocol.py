"""
The cached read path: one dictionary lookup and one write; where reading is not open, one more lookup of who may.

uvicorn's protocol class parses; when the head of a GET or HEAD is complete and its path is one of the cache's, the
answer goes to the transport at once, without a task, a scope or an event. Everything else takes uvicorn's way to the
application, which gives the same bytes: errors, other paths and spellings, requests with a body, pipelined requests
behind one that is being answered, clients that do not read, whom nothing is known of.

The class also keeps time, as uvicorn does only for idle connections that have had an answer: every connection has a
deadline for its next step, and `Server` sweeps over them once a second.
"""

from __future__ import annotations

import asyncio
import math
from http import HTTPStatus
from typing import Any, cast

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

STATUS_LINES = {int(code): f"HTTP/1.1 {int(code)} {code.phrase}\r\n".encode() for code in HTTPStatus}


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
        self._in_head = False
        self._head_began = False
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
        self._head_bytes = self._head_bytes + len(data) if self._in_head else len(data)
        self._head_began = False
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        if self._head_began:
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
        self._head_began = True
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
        elif name in NOT_SIMPLE:
            self._simple = False
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self.transport.is_closing() or (self._head_bytes > self.limits.head_bytes and self._head_too_large()):
            self._answered = True  # what comes behind the last answer of a connection is not read
            return
        answer = self._cached()
        if answer is None:
            self._pass_on()
        else:
            self._answer(answer)

    def on_body(self, body: bytes) -> None:
        if not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
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

    def _cached(self) -> Answer | None:
        """The answer to be given here, if there is one."""
        if not self._simple or self._busy or self.flow.write_paused or self.parser.get_method() not in READS:
            return None
        cache = self.api.cache
        answer = cache.answers.get(self.url)
        if answer is None or not cache.caught_up or len(answer.body) >= GZIP_FROM or not accepts_json(self._accept):
            return None
        if self._asker is not None and not self._asker.granted(self.headers, self.url):
            return None
        return conditional(answer, self._if_none_match)

    def _answer(self, answer: Answer) -> None:
        self._answered = True
        keep_alive = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        self._write(answer, keep_alive=keep_alive, head_only=self.parser.get_method() == b"HEAD")
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
