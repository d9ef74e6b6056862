"""
Readings on demand: a NATS request makes the collector read a guest now, and answers with the new revisions.

A NATS micro service (ADR-32), `guestwire-collector`, on `guestwire.v1.<cluster>.<namespace>.<name>.read.<kind>`; the
kind `all` means every kind. Each host's collector hears every request, and the one that has the guest answers; where
nobody has it, nobody does, and the request times out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, ServiceConfig

from guestwire import __version__, subjects
from guestwire.errors import ContractError, GuestwireError
from guestwire.jetstream import Bus
from guestwire.logs import logger
from guestwire.snapshot import GuestRef, Kind
from publishers import metrics
from publishers.jetstream import JetStreamPublisher

log = logger("readings")

MOST = 64
"""Requests under way; more are refused, so that nobody can make the collector work without bound."""
ALL = "all"
READABLE = tuple(kind.value for kind in Kind if kind is not Kind.AGENT)

ReadNow = Callable[[GuestRef, Iterable[str]], Awaitable[bool]]
"""Read a guest's kinds; False when it is not here. Raises AgentUnresponsive."""


class Answer(msgspec.Struct):
    """What a request is answered with."""

    namespace: str
    name: str
    revisions: dict[str, int]
    """The stream's sequence of the last message per kind, also where nothing had changed."""


class Readings:
    """The service of one collector process; `name` tells its queue group from those of other hosts."""

    def __init__(self, bus: Bus, cluster: str, name: str, publisher: JetStreamPublisher, read_now: ReadNow) -> None:
        self._bus = bus
        self._cluster = cluster
        self._name = name
        self._publisher = publisher
        self._read_now = read_now
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Answer from now on, as long as the connection lives."""
        service = await add_service(
            self._bus.client,
            ServiceConfig(
                name="guestwire-collector",
                version=__version__,
                description="reads a guest's agent now",
                queue_group=f"collector-{subjects.encode_token(self._name)}",
            ),
        )
        subject = subjects.request(self._cluster, None, None)
        await service.add_endpoint(EndpointConfig(name="read", subject=subject, handler=self._take))

    async def _take(self, request: Request) -> None:
        if len(self._tasks) >= MOST:
            metrics.READINGS.labels("refused").inc()
            await request.respond_error("429", "too many readings are under way")
            return
        task = asyncio.create_task(self._answer(request), name=f"reading {request.subject}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request) -> None:
        try:
            ref, kind = subjects.parse_request(request.subject)
            if not await self._read_now(ref, _kinds(kind)):
                return
            revisions = await self._publisher.settled(ref)
            answer: Any = Answer(ref.namespace, ref.name, revisions)
            await request.respond(msgspec.json.encode(answer), headers={"Content-Type": "application/json"})
            metrics.READINGS.labels("ok").inc()
        except ContractError as error:
            metrics.READINGS.labels("bad").inc()
            await request.respond_error("400", str(error))
        except GuestwireError as error:
            metrics.READINGS.labels("unanswered").inc()
            await request.respond_error("504", str(error))
        except Exception:
            log.exception("reading on demand failed", subject=request.subject)
            await request.respond_error("500", "internal error")


def _kinds(kind: str) -> tuple[str, ...]:
    if kind == ALL:
        return READABLE
    if kind in READABLE:
        return (kind,)
    raise ContractError(f"no kind {kind!r}; there are {', '.join((*READABLE, ALL))}")
