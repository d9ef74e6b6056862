"""
`/healthz`, `/readyz` and `/metrics` of a process without an HTTP server of its own.

They are answered from a thread, so that a blocked event loop shows: `/healthz` fails when the loop has not moved for
`STUCK` seconds. `/readyz` names each condition that does not hold.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from guestwire.errors import ConfigError

STUCK = 10.0
"""Seconds without a turn of the event loop that count as stuck."""

Conditions = Callable[[], Mapping[str, bool]]
"""What must hold to be ready, e.g. {"nats connected": True}. Called from a thread: read plain attributes only."""


def split_address(listen: str) -> tuple[str, int]:
    """`HOST:PORT`, with `[HOST]` for IPv6."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def readiness(conditions: Mapping[str, bool]) -> tuple[int, str]:
    """Status and text of `/readyz`."""
    missing = [name for name, holds in conditions.items() if not holds]
    return (503, "not ready: not " + ", not ".join(missing) + "\n") if missing else (200, "ok\n")


class HealthServer:
    """Serves from entering to leaving its context; `port` tells the port when the setting says 0."""

    def __init__(self, listen: str, conditions: Conditions) -> None:
        self._listen = listen
        self._conditions = conditions
        self._turned = time.monotonic()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    async def __aenter__(self) -> Self:
        try:
            self._server = ThreadingHTTPServer(split_address(self._listen), self._handler())
        except OSError as error:
            raise ConfigError(f"cannot listen on {self._listen} for /healthz: {error.strerror}") from None
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()
        self._pulse = asyncio.create_task(self._beat(), name="health pulse")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pulse.cancel()
        self._server.shutdown()
        self._server.server_close()

    async def _beat(self) -> None:
        while True:
            self._turned = time.monotonic()
            await asyncio.sleep(1)

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        match path.partition("?")[0]:
            case "/healthz" | "/livez":
                alive = time.monotonic() - self._turned < STUCK
                return (200, "text/plain", b"ok\n") if alive else (503, "text/plain", b"event loop is stuck\n")
            case "/readyz":
                status, text = readiness(self._conditions())
                return status, "text/plain", text.encode()
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY)
            case _:
                return 404, "text/plain", b"try /healthz, /readyz or /metrics\n"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                status, content_type, body = answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Probes are no news."""

        return Handler
