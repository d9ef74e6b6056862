"""
For subscribers: the present values, then every change with the value before it, from a token that can be stored.

    async for change in guestwire.changes("nats://127.0.0.1:4222", kinds=["userlist"]):
        print(change.ref, change.old, change.new)

What the consumer is given last, it continues behind: the stream is in one order, so a revision of it says all. That
holds inside a snapshot too, whose values come in the order of their revisions: all that is missing of one that was
broken off, and all that came since, lies behind the last revision given. Nothing is kept on the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from guestwire import codec, subjects
from guestwire.change import Change, Place
from guestwire.errors import ConfigError, NotConnected
from guestwire.feed import BACKLOG, Begin, Complete, Feed
from guestwire.jetstream import Bus, Message, translated
from guestwire.lifecycle import backoff
from guestwire.pairing import MEMORY, Pairing
from guestwire.settings import Nats
from guestwire.subjects import Address

Servers = str | Iterable[str] | Nats | Bus
"""Addresses of NATS servers; or settings, with credentials and so on; or a connection, which stays open afterwards."""

Since = str | int | datetime | timedelta | Place | None
"""A token; a revision; a time, or how long ago, by the server's clock at the arrival of messages."""

BATCH = 1000
"""Messages paired at once, and subjects looked up by one request (nats-server allows 1024)."""

TRIES = 3
"""Lookups that may fail in a row on a connection that is up, before it is said that they do."""


async def changes(
    servers: Servers | None = None,
    *,
    cluster: str | None = None,
    namespace: str | None = None,
    name: str | None = None,
    kinds: Collection[str] | None = None,
    since: Since = None,
    live: bool = True,
    caught_up: Callable[[], None] | None = None,
    backlog: int = BACKLOG,
    memory: int = MEMORY,
) -> AsyncGenerator[Change, None]:
    """
    The present value of every subject, marked as `snapshot`, then each change as it comes, in order, for ever.

    With `since` what came after it instead, without a snapshot: as many of the messages of each subject as history
    keeps (64), and always its last. Where the token's stream is not there any more, another in its place, a snapshot of
    that one comes, whose first has `reset`. A token is good for the filters it was given with.

    Without `live` it ends when all that was there at the start has been given; `caught_up` is called at that moment.
    At most `backlog` messages wait for a slow reader, the server keeps the rest; `memory` bounds the bytes of values
    kept to tell the one before, which are otherwise looked up in the stream. Close it, with `contextlib.aclosing` for
    instance, when you leave before its end.

    A message that does not follow the contract is logged and left out. Lost connections are mended meanwhile. Raises
    ConfigError for arguments that are wrong; NotConnected where the stream cannot be asked at the start with `since`,
    or does not answer lookups: go on with the last token then.
    """
    wanted = _kinds(kinds)
    pattern = subjects.pattern(
        cluster=cluster, namespace=namespace, name=name, kind=next(iter(wanted)) if len(wanted) == 1 else None
    )
    async with _connection(servers) as bus:
        place = await locate(bus, since, pattern)
        pairing = Pairing(place, memory)
        after, stream = (place.revision, place.stream) if place else (None, None)
        async with Feed(bus, pattern, after=after, stream=stream, size=backlog) as feed:
            while True:
                taken = await feed.batch(BATCH)
                if isinstance(taken, Begin):
                    pairing.begin(taken.stream)
                elif isinstance(taken, Complete):
                    pairing.complete()
                    if caught_up:
                        caught_up()
                    if not live:
                        return
                else:
                    messages = [each for each in taken if not wanted or each.address.kind in wanted]
                    before = await _before(bus, pairing.unknown(messages), messages)
                    for change in pairing.pair(messages, before):
                        yield change


async def locate(bus: Bus, since: Since, pattern: str = subjects.pattern()) -> Place | None:
    """
    The place in the stream from which on a pattern's messages came since; None stays None. Raises ConfigError for what
    says no place, NotConnected when the stream cannot be asked.
    """
    match since:
        case None | Place():
            return since
        case str():
            return Place.parse(since)
        case bool() | int() if since < 0 or isinstance(since, bool):
            raise ConfigError(f"since: {since!r} is no revision")
        case timedelta() if since < timedelta(0):
            raise ConfigError(f"since: {since} ago is not in the past")
        case datetime() if since.tzinfo is None:
            raise ConfigError(f"since: {since} has no time zone")
    with translated(f"stream {bus.settings.stream}"):
        stream = (await bus.js.stream_info(bus.settings.stream)).created
    if stream is None:
        raise NotConnected(f"stream {bus.settings.stream}: it does not say when it was created")
    if isinstance(since, int):
        return Place(stream, since)
    try:
        moment = datetime.now(UTC) - since if isinstance(since, timedelta) else since.astimezone(UTC)
    except OverflowError:
        raise ConfigError(f"since: {since} is out of range") from None
    return Place(stream, await _revision_before(bus, moment, pattern))


async def _revision_before(bus: Bus, moment: datetime, pattern: str) -> int:
    """
    Where the server would let a consumer begin that wants messages from then on. One is made to find that out, with its
    filter in the request's subject: who may follow may ask this too.
    """
    config = ConsumerConfig(
        name=secrets.token_hex(8),
        description="guestwire since",
        deliver_policy=DeliverPolicy.BY_START_TIME,
        opt_start_time=moment,
        filter_subject=pattern,
        ack_policy=AckPolicy.NONE,
        mem_storage=True,
        num_replicas=1,
        inactive_threshold=1,
    )
    with translated(f"since {moment}"):
        consumer = await bus.js.add_consumer(bus.settings.stream, config)
    return (consumer.delivered and consumer.delivered.stream_seq) or 0


async def _before(bus: Bus, unknown: list[Address], messages: Sequence[Message]) -> list[Message]:
    """The last messages of subjects before those that came now."""
    revision = messages[0].revision - 1 if messages else 0
    if not unknown or not revision:
        return []
    request = {"multi_last": [address.subject for address in unknown], "up_to_seq": revision}
    tries = 0
    for pause in backoff(longest=5):
        try:
            return await bus.get(request, "values before")
        except NotConnected:
            tries = tries + 1 if bus.connected else 0
            if tries == TRIES:
                raise
        await asyncio.sleep(pause)
    raise AssertionError


def _kinds(kinds: Collection[str] | None) -> frozenset[str]:
    """Those wanted; empty for all."""
    if kinds is None:
        return frozenset()
    wanted = {kinds} if isinstance(kinds, str) else set(kinds)
    if not wanted:
        raise ConfigError("kinds: none at all; leave it out for all of them")
    if unknown := wanted - set(codec.kinds()):
        raise ConfigError(f"kinds: there is no {min(unknown)!r}; there are {', '.join(codec.kinds())}")
    return frozenset(str(kind) for kind in wanted)


@contextlib.asynccontextmanager
async def _connection(servers: Servers | None) -> AsyncIterator[Bus]:
    if isinstance(servers, Bus):
        yield servers
        return
    if servers is None:
        servers = Nats()
    elif not isinstance(servers, Nats):
        servers = Nats(servers=(servers,) if isinstance(servers, str) else tuple(servers))
    async with Bus(servers, "changes") as bus:
        yield bus
