"""
The application: every path, every error. A cache hit usually never comes here (`protocol`); when it does, the same
function makes the answer.

Routes match the path as it was sent, so that an escaped slash stays inside the name it belongs to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from api import scrape, status
from api.answers import Answer, accepts_json, conditional, joined, of_text, packed, respond
from api.authorization import Access
from api.cache import Cache
from api.documents import DOCUMENTS, find
from api.fresh import Fresh, ReadNow, Wish
from api.groups import GROUPS, GUESTWIRE, Group
from api.guests import Guests
from api.history import History
from api.hosts import Hosts
from api.metrics import Metrics
from api.names import guest_at
from api.options import OptionError
from api.static import Page
from guestwire.health import readiness
from guestwire.logs import logger

log = logger("api")


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

    def __init__(
        self,
        cache: Cache,
        metrics: Metrics,
        limits: Limits,
        access: Access | None = None,
        read_now: ReadNow | None = None,
        history: History | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        self.cache = cache
        self.metrics = metrics
        self.limits = limits
        self.access = access
        """None where whoever asks may read."""
        self.hosts = hosts
        """None where every name is as good as another."""
        self._fresh = Fresh(cache, read_now)
        self._page = Page()
        self._ending = False
        if access:
            access.when_forgotten(cache.fleet.wake_all)
        documents = [Route(path, self._document) for path in DOCUMENTS]
        self._routes = Starlette(
            routes=[
                *(history or History(None, "")).routes(cache),
                *(Route(group.route, self._reader(group)) for group in GROUPS),
                *Guests(cache, self._fresh, self._valid).routes(),
                Route("/healthz", self._alive),
                Route("/livez", self._alive),
                Route("/readyz", self._ready),
                *metrics.scrapes.routes(),
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

        try:
            answer = await self._at_the_door(scope, path)
        except Exception:
            log.exception("request failed before its route", kind=label(path))
            answer = status.internal_error()
        if answer:
            await respond(answer)(scope, receive, counted)
        else:
            await self._routes({**scope, "path": path, "root_path": ""}, receive, counted)

    async def _at_the_door(self, scope: Scope, path: str) -> Answer | None:
        """
        What is answered before anybody looks for the path: who means another server, the page's files, who may not
        read.
        """
        headers = scope["headers"]
        if self.hosts and not self.hosts.allow(joined(headers, b"host")):
            return status.misdirected()
        if file := self._page.find(scope["method"], path, headers):
            return conditional(file, joined(headers, b"if-none-match"))
        return await self._refusal(scope, path)

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
            ref = guest_at(at)
            try:
                wish = Wish.of(request.query_params)
            except OptionError as error:
                return respond(status.bad_request(str(error)))
            answer = await self._fresh.find(group, ref, at["kind"], wish)
            return respond(await packed(conditional(answer, joined(headers, b"if-none-match")), headers))

        return read

    def end(self) -> None:
        """Watches are over: the process stops."""
        self._ending = True
        self.cache.fleet.wake_all()

    def _valid(self) -> Callable[[], bool]:
        """Whether who may watch now still may, as far as that is known: who decides may have changed since."""
        access = self.access
        generation = access.generation if access else 0
        return lambda: not self._ending and (access is None or access.generation == generation)

    async def _document(self, request: Request) -> Response:
        headers = request.scope["headers"]
        answer = find(request.scope["path"], joined(headers, b"accept"))
        if answer is None:
            return respond(status.not_acceptable())
        return respond(await packed(conditional(answer, joined(headers, b"if-none-match")), headers))

    async def _alive(self, request: Request) -> Response:
        """This is answered by the event loop itself: when it is stuck, nobody answers."""
        return respond(of_text(200, "ok\n"))

    async def _ready(self, request: Request) -> Response:
        """NATS being away is no reason to send readers elsewhere: what is known is served, with its age."""
        conditions = {"caught up": self.cache.caught_up}
        if self.access:
            conditions["told whom to trust"] = self.access.ready()
        return respond(of_text(*readiness(conditions)))

    async def _refused(self, request: Request, error: Exception) -> Response:
        """What the router turns away: no such path, or another method than GET and HEAD."""
        method = isinstance(error, HTTPException) and error.status_code == 405
        return respond(status.method_not_allowed() if method else status.no_such_path())

    async def _failed(self, request: Request, error: Exception) -> Response:
        """A bug. The server logs it."""
        return respond(status.internal_error())


def label(path: str) -> str:
    """The kind of a path, for metrics: one of six, whatever is asked for."""
    if any(path.startswith(f"/apis/{group.name}/") and path.endswith(group.kinds) for group in GROUPS):
        return "subresource"
    if path.startswith(f"/apis/{GUESTWIRE.name}/") and path not in DOCUMENTS:
        return "guests"
    if path in {"/healthz", "/livez", "/readyz"}:
        return "health"
    if path in scrape.PATHS:
        return "metrics"
    return "discovery" if path in DOCUMENTS else "other"
