"""
The application: every path, every error. A cache hit usually never comes here (`protocol`); when it does, the same
function makes the answer.

Routes match the path as it was sent, so that an escaped slash stays inside the name it belongs to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from api import status
from api.answers import Answer, accepts_json, joined, matches, of_bytes, of_text
from api.authorization import Access
from api.cache import Cache
from api.discovery import DOCUMENTS
from api.groups import GROUPS, Group
from api.metrics import Metrics
from guestwire.health import readiness
from guestwire.snapshot import GuestRef


class Limits(msgspec.Struct, frozen=True):
    """What a client may ask of a connection; times in seconds."""

    connections: int = 4096
    head_bytes: int = 32768
    """Request line and headers."""
    head: float = 10.0
    """From the first byte of a request to the end of its headers, and from connecting to the first byte."""
    idle: float = 60.0
    """Between an answer and the next request."""
    reading: float = 30.0
    """For the client to take an answer, once the socket is full."""


class Api:
    """The ASGI application, and what the protocol class needs of it."""

    def __init__(self, cache: Cache, metrics: Metrics, limits: Limits, access: Access | None = None) -> None:
        self.cache = cache
        self.metrics = metrics
        self.limits = limits
        self.access = access
        """None where whoever asks may read."""
        documents = [Route(path, self._document) for path in DOCUMENTS]
        self._routes = Starlette(
            routes=[
                *(Route(group.route, self._reader(group)) for group in GROUPS),
                Route("/healthz", self._alive),
                Route("/livez", self._alive),
                Route("/readyz", self._ready),
                Route("/metrics", self._metrics),
                *documents,
            ],
            exception_handlers={HTTPException: self._refused, Exception: self._failed},
        )
        self._routes.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["raw_path"].decode("ascii", "replace")
        path = path.removesuffix("/") or "/"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests[message["status"], label(path)] += 1
            await send(message)

        refusal = await self._refusal(scope, path)
        if refusal:
            await respond(refusal)(scope, receive, counted)
            return
        await self._routes({**scope, "path": path, "root_path": ""}, receive, counted)

    async def _refusal(self, scope: Scope, path: str) -> Answer | None:
        """Why this request is not for who asks. Nothing else is looked at before: a 404 would tell something, too."""
        if self.access is None:
            return None
        query = scope["query_string"].decode("latin-1")
        return await self.access.refusal(scope["state"]["peer"], scope["headers"], scope["method"], path, query)

    def _reader(self, group: Group) -> Callable[[Request], Awaitable[Response]]:
        async def read(request: Request) -> Response:
            at = request.path_params
            if at["version"] not in group.versions or at["kind"] not in group.kinds:
                return respond(status.no_such_path())
            headers = request.scope["headers"]
            if not accepts_json(joined(headers, b"accept")):
                return respond(status.not_acceptable())
            ref = GuestRef(*(unquote(at[key], errors="surrogatepass") for key in ("namespace", "name")))
            return respond(conditional(self.cache.find(group, ref, at["kind"]), joined(headers, b"if-none-match")))

        return read

    async def _document(self, request: Request) -> Response:
        acceptable = accepts_json(joined(request.scope["headers"], b"accept"))
        return respond(DOCUMENTS[request.scope["path"]] if acceptable else status.not_acceptable())

    async def _alive(self, request: Request) -> Response:
        """This is answered by the event loop itself: when it is stuck, nobody answers."""
        return respond(of_text(200, "ok\n"))

    async def _ready(self, request: Request) -> Response:
        """NATS being away is no reason to send readers elsewhere: what is known is served, with its age."""
        conditions = {"caught up": self.cache.caught_up}
        if self.access:
            conditions["told whom to trust"] = self.access.ready()
        return respond(of_text(*readiness(conditions)))

    async def _metrics(self, request: Request) -> Response:
        return respond(of_bytes(200, self.metrics.text(), content_type=CONTENT_TYPE_LATEST))

    async def _refused(self, request: Request, error: Exception) -> Response:
        """What the router turns away: no such path, or another method than GET and HEAD."""
        method = isinstance(error, HTTPException) and error.status_code == 405
        return respond(status.method_not_allowed() if method else status.no_such_path())

    async def _failed(self, request: Request, error: Exception) -> Response:
        """A bug. The server logs it."""
        return respond(status.internal_error())


def respond(answer: Answer) -> Response:
    """An answer as the framework's response."""
    response = Response(answer.body, answer.status)
    response.raw_headers = answer.headers()
    return response


def conditional(answer: Answer, if_none_match: bytes) -> Answer:
    """304 when the client has it already."""
    if if_none_match and answer.etag and matches(if_none_match, answer.etag):
        return answer.not_modified()
    return answer


def label(path: str) -> str:
    """The kind of a path, for metrics: one of five, whatever is asked for."""
    if any(path.startswith(f"/apis/{group.name}/") and path.endswith(group.kinds) for group in GROUPS):
        return "subresource"
    if path in {"/healthz", "/livez", "/readyz"}:
        return "health"
    if path == "/metrics":
        return "metrics"
    return "discovery" if path in DOCUMENTS else "other"
