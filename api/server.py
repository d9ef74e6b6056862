"""
The process: NATS to cache, cache to HTTP.

It listens before NATS is there and goes on serving when NATS is away. At the first signal it stops accepting, finishes
the requests under way, and then stops following the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from typing import cast

import uvicorn

from api import hosts
from api.app import Api, Limits
from api.cache import Cache
from api.history import History
from api.metrics import Metrics
from api.protocol import CacheProtocol
from api.purges import Purges
from api.security import Security, exposed
from api.tls import Tls
from guestwire import client, settings, subjects
from guestwire.errors import ConfigError, TransientError
from guestwire.follower import Follower
from guestwire.health import split_address
from guestwire.jetstream import Bus
from guestwire.lifecycle import cancel
from guestwire.logs import logger
from guestwire.settings import Settings
from guestwire.snapshot import GuestRef
from guestwire.subscription import locate

log = logger("api")

SPARE_FILES = 64
"""Open files besides connections: NATS, the event loop, libraries."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which gives a handshake a minute; it is the head of the first request to us."""
        await super().startup([])
        config = self.config
        protocol = partial(CacheProtocol, config, self.server_state, self.lifespan.state)
        patience = cast("Api", config.loaded_app).limits.head if config.ssl else None
        for listening in sockets or ():
            server = await asyncio.get_running_loop().create_server(
                protocol, sock=listening, ssl=config.ssl, ssl_handshake_timeout=patience, backlog=config.backlog
            )
            self.servers.append(server)

    def end_connections(self) -> None:
        """After what they are answering now, as at the end of the process; clients come again, on new ones."""
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second, by uvicorn; once a second every connection is looked at."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                cast("CacheProtocol", connection).expire(now)
        return await super().on_tick(counter)


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop`. Raises ConfigError for an address that cannot or must not be listened on."""
    security = Security(settings.api)
    listening = listen(settings.api)
    bus = Bus(settings.nats, "api")
    cache = Cache(settings.publish.silence)
    follower = Follower(bus, subjects.pattern(cluster=settings.cluster), cache)
    metrics = Metrics(cache, connected=lambda: bus.connected, skipped=lambda: follower.skipped, api=settings.api)
    allow_connections(settings.api.connections)
    limits = Limits(connections=settings.api.connections)
    reading, history = partial(read_now, bus, settings), History(bus, settings.cluster)
    names = hosts.of_settings(settings.api, listening.getsockname()[0])
    api = Api(cache, metrics, limits, security.access, reading, history, names)
    server = Server(config(api, settings.shutdown_grace, security.tls))

    async def follow() -> None:
        if await bus.open(stop):
            cache.purged = await purged(bus, settings.cluster, settings.publish.retention)
            purges = Purges(bus, settings.cluster, lambda: cache.fleet.guests, follower.begin_anew)
            looking = asyncio.create_task(purges.run(), name="purges")
            try:
                await follower.run()
            finally:
                await cancel(looking)

    following = asyncio.create_task(follow())
    serving = asyncio.create_task(server.serve([listening]))
    securing = asyncio.create_task(security.run(server.end_connections))
    stopping = asyncio.create_task(stop.wait())
    log.info("serving", address="{}:{}".format(*listening.getsockname()), readers=security.asked)
    try:
        await asyncio.wait((following, serving, securing, stopping), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        api.end()
        await serving
        for task in (following, securing):
            if task.done():
                task.result()
    finally:
        await cancel(following, securing, serving, stopping)
        await bus.close()


async def read_now(bus: Bus, settings: Settings, ref: GuestRef, kind: str) -> Mapping[str, int]:
    """Have a guest's kind read by its collector. Raises TransientError."""
    return await client.read_now(bus, ref, cluster=settings.cluster, kind=kind, timeout=settings.api.read_timeout)


async def purged(bus: Bus, cluster: str, retention: float) -> int | None:
    """
    The revision up to which guests that went may have left the stream: the last one of before the retention. None when
    that cannot be found out. (A retention of 0 keeps them.)
    """
    if not retention:
        return 0
    for pause in (1, 3, 0):
        try:
            place = await locate(bus, timedelta(seconds=retention), subjects.pattern(cluster=cluster))
        except TransientError as error:
            log.info("cannot tell yet what has left the stream", error=str(error))
            await asyncio.sleep(pause)
        else:
            return place.revision if place else None
    return None


def config(api: Api, grace: float, tls: Tls | None = None) -> uvicorn.Config:
    """How uvicorn is used; `grace` in seconds."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what bad clients do is counted, not logged
    return uvicorn.Config(
        api,
        interface="asgi3",
        http=CacheProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=int(api.limits.idle),
        timeout_graceful_shutdown=max(1, int(grace) - 1),
        ssl_context_factory=(lambda _config, _default: tls.context) if tls else None,
    )


def allow_connections(count: int) -> None:
    """Raise this process's limit of open files to fit, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
            )


def listen(api: settings.Api) -> socket.socket:
    """The listening socket: of a loopback address, unless the settings are secure enough, or insist."""
    host, port = split_address(api.listen)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        problem = exposed(api)
        if problem and not ip_address(address[0]).is_loopback:
            raise ConfigError(f"api.listen: {api.listen} is no loopback address, and {problem}")
        return socket.create_server((str(address[0]), port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"api.listen: cannot listen on {api.listen}: {error}") from None
