"""
For subscribers: the present values, then every change, in order.

    async with guestwire.client.open("nats://127.0.0.1:4222") as bus:
        async for message in guestwire.client.follow(bus, kind="userlist"):
            print(message.address.ref, message.revision, message.body)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from guestwire import subjects
from guestwire.errors import ContractError
from guestwire.jetstream import Bus, Message, log, translated
from guestwire.settings import Nats


def open(*servers: str, credentials: str = "", stream: str = "GUESTWIRE") -> Bus:  # noqa: A001 - reads client.open()
    """A connection, to be used as an async context manager."""
    return Bus(Nats(servers=servers or Nats().servers, credentials=credentials, stream=stream), "client")


async def follow(
    bus: Bus,
    *,
    cluster: str | None = None,
    namespace: str | None = None,
    name: str | None = None,
    kind: str | None = None,
    after: int | None = None,
    only_new: bool = False,
    live: bool = True,
    caught_up: Callable[[], None] | None = None,
    backlog: int = 65536,
) -> AsyncIterator[Message]:
    """
    The last message per subject, then each new one, in stream order, for ever.

    With `after` (a revision seen earlier) everything that came since instead; with `only_new` nothing old at all.
    Without `live` it ends when all that was there at the start has been given; `caught_up` is called at that moment.
    Messages that are not of the contract are logged and skipped. Raises NotConnected when the subscription cannot be
    made.
    """
    queue: asyncio.Queue[Msg] = asyncio.Queue(maxsize=backlog)
    config = ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT)
    if after is not None:
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1)
    elif only_new:
        config = ConsumerConfig(deliver_policy=DeliverPolicy.NEW)
    with translated("subscribe"):
        subscription = await bus.js.subscribe(
            subjects.pattern(cluster=cluster, namespace=namespace, name=name, kind=kind),
            stream=bus.settings.stream,
            ordered_consumer=True,
            config=config,
            cb=queue.put,
        )
        info = await subscription.consumer_info()
    try:
        behind = bool(info.num_pending or (info.delivered and info.delivered.consumer_seq))
        if not behind and caught_up:
            caught_up()
        while live or behind:
            msg = await queue.get()
            try:
                yield Message.of(msg)
            except ContractError as error:
                log.warning("message does not follow the contract", subject=msg.subject, error=str(error))
            if behind and msg.metadata.num_pending == 0:
                behind = False
                if caught_up:
                    caught_up()
    finally:
        try:
            await subscription.unsubscribe()
        except nats.errors.Error as error:
            log.debug("unsubscribe failed", error=str(error))
