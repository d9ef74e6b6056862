"""The resource `guests`: one, a list, or a watch."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import lists, live, status, watch
from api.answers import Answer, accepts_gzip, conditional, joined, of_body, of_bytes, packed, respond
from api.cache import Cache
from api.forms import Form
from api.fresh import STALE, Fresh, Told, Wish, refuse
from api.groups import GUESTWIRE
from api.names import guest_at, plain
from api.options import OptionError, Options
from api.selectors import Selector, select
from guestwire.snapshot import BEGINNING

INCLUDES = ("Metadata", "Object", "None")


class Guests:
    """`valid` gives what tells whether a watch that begins now may go on."""

    def __init__(self, cache: Cache, fresh: Fresh, valid: Callable[[], Callable[[], bool]]) -> None:
        self._cache = cache
        self._fresh = fresh
        self._valid = valid
        self._rows = live.Rows(cache.fleet)

    def routes(self) -> list[Route]:
        """Of the one version."""
        base = f"/apis/{GUESTWIRE.name}/{GUESTWIRE.versions[0]}"
        namespaced = f"{base}/namespaces/{{namespace}}/{GUESTWIRE.resource}"
        return [
            Route(f"{base}/{GUESTWIRE.resource}", self._many),
            Route(namespaced, self._many),
            Route(f"{namespaced}/{{name}}", self._one),
        ]

    async def _many(self, request: Request) -> Response:
        namespace = request.path_params.get("namespace")
        try:
            refuse(request.query_params)
            options = Options.of(request.query_params)
            selector = select(None if namespace is None else plain(namespace), options.labels, options.fields)
        except OptionError as error:
            return respond(status.bad_request(str(error)))
        headers = request.scope["headers"]
        if options.watch and live.wanted(joined(headers, b"accept")):
            return self._live(selector, joined(headers, b"last-event-id"))
        form = _form(request, self._cache.silence)
        if isinstance(form, Answer):
            return respond(form)
        return await (self._watch if options.watch else self._list)(request, options, selector, form)

    async def _list(self, request: Request, options: Options, selector: Selector, form: Form) -> Response:
        if refusal := await lists.refusal(self._cache, options):
            return respond(refusal)
        gzip = accepts_gzip(joined(request.scope["headers"], b"accept-encoding"))
        return lists.Listing(self._cache.fleet, options, selector, form, gzip=gzip)

    async def _watch(self, request: Request, options: Options, selector: Selector, form: Form) -> Response:
        valid = self._valid()
        if refusal := await watch.refusal(self._cache, options):
            return respond(refusal)
        return watch.Watch(self._cache, options, selector, form, valid)

    def _live(self, selector: Selector, last_event_id: bytes) -> Response:
        if not self._cache.level:
            return respond(status.not_caught_up())
        if not selector.everything:
            return respond(status.bad_request("labelSelector, fieldSelector: events know only equal names"))
        return live.Live(self._cache, self._rows, selector.scope, last_event_id, self._valid())

    async def _one(self, request: Request) -> Response:
        form = _form(request, self._cache.silence)
        if isinstance(form, Answer):
            return respond(form)
        try:
            wish = Wish.of(request.query_params)
        except OptionError as error:
            return respond(status.bad_request(str(error)))
        if not self._cache.caught_up:
            return respond(status.not_caught_up())
        told = await self._fresh.whole(guest_at(request.path_params), wish)
        if isinstance(told, Answer):
            return respond(told)
        headers = request.scope["headers"]
        answer = conditional(_answer(form, told), joined(headers, b"if-none-match"))
        return respond(await packed(answer, headers))


def _answer(form: Form, told: Told) -> Answer:
    """With the validators that its form allows: a table shows ages, which are never the same."""
    guest = told.guest
    body = form.alone(guest, guest.revision)
    if form.steady:
        changed_at: datetime = max((fact.changed_at for fact in guest.facts.values()), default=BEGINNING)
        observed_at = max((guest.observed_at(kind) for kind in guest.facts), default=BEGINNING)
        answer = of_body(body, guest.revision, changed_at, observed_at)
    else:
        answer = of_bytes(200, body)
    return msgspec.structs.replace(answer, head=answer.head + STALE) if told.stale else answer


def _form(request: Request, silence: float) -> Form | Answer:
    include = request.query_params.get("includeObject", "") or INCLUDES[0]
    if include not in INCLUDES:
        return status.bad_request(f"includeObject: {include[:40]!r} is none of {', '.join(INCLUDES)}")
    accept = joined(request.scope["headers"], b"accept")
    return lists.negotiate(accept, include, silence) or status.not_acceptable()
