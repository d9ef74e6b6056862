"""
The stream into the cache: the last message per subject, then every change, in order and without a gap.

An ordered consumer of our own over a plain subscription, as NATS describes it (ADR-17): ephemeral, no acknowledgements,
flow control, heartbeats; the consumer's sequence in each message shows a gap. nats-py's own numbers a message before it
may drop it for a slow reader, which then goes unnoticed, and it does not tell that the stream is another one.

Whatever goes wrong (connection, server restart, gap, silence), the answer is the same: a new consumer that starts after
the last revision applied. When the stream is not the one that was read before, the cache is filled anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo

from api.cache import Cache
from guestwire import subjects
from guestwire.errors import ContractError, TransientError
from guestwire.jetstream import Bus, Message, translated
from guestwire.lifecycle import backoff
from guestwire.logs import logger

HEARTBEAT = 2.0
"""Seconds of silence after which the server says that there is nothing to say."""

SILENCE = 3 * HEARTBEAT
"""Seconds without a word after which the consumer is taken for lost: its server restarted, or its stream is gone."""

log = logger("api")


class Follower:
    """Keeps a cache equal to the stream, for ever."""

    def __init__(self, bus: Bus, cluster: str, cache: Cache) -> None:
        self.skipped = 0
        """Messages that do not follow the contract."""
        self._bus = bus
        self._pattern = subjects.pattern(cluster=cluster)
        self._cache = cache
        self._stream: datetime | None = None
        """When the stream that fills the cache was created, which tells it from another of its name."""
        self._filled = False
        """Whether the fill from that stream was completed."""
        self._again = asyncio.Event()
        self._heard = 0.0
        self._last = 0
        """The consumer's sequence of the last message received."""
        bus.on_reconnect(self._again.set)

    async def run(self) -> None:
        """Follow until cancelled. The bus has been opened; it may be down."""
        pauses, said = backoff(longest=5), ""
        while True:
            try:
                await self._follow()
                pauses, said = backoff(longest=5), ""
            except TransientError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("cannot follow the stream, trying on", error=said)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._again.wait(), next(pauses))

    async def _follow(self) -> None:
        """One consumer's life: returns when another is needed. Raises NotConnected when none can be had."""
        self._again.clear()
        with translated(f"follow {self._bus.settings.stream}"):
            stream = await self._info()
            resume = self._filled and stream.created == self._stream and stream.state.last_seq >= self._cache.revision
            if not resume:
                self._stream, self._filled = stream.created, False
                self._cache.begin()
            self._last = 0
            self._heard = asyncio.get_running_loop().time()
            inbox = self._bus.client.new_inbox()
            fill_until = stream.state.last_seq

            async def take(msg: Msg) -> None:
                await self._take(msg, fill_until)

            subscription = await self._bus.client.subscribe(inbox, cb=take)
            try:
                consumer = await self._bus.js.add_consumer(self._bus.settings.stream, self._config(inbox, resume))
                if (await self._info()).created != stream.created:
                    return
                if not consumer.num_pending and not (consumer.delivered and consumer.delivered.consumer_seq):
                    self._complete()
                await self._until_lost()
            finally:
                with contextlib.suppress(nats.errors.Error, OSError):  # the server removes a consumer nobody listens to
                    await subscription.unsubscribe()

    async def _info(self) -> StreamInfo:
        return await self._bus.js.stream_info(self._bus.settings.stream)

    def _config(self, inbox: str, resume: bool) -> ConsumerConfig:
        return ConsumerConfig(
            description="guestwire API",
            deliver_subject=inbox,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE if resume else DeliverPolicy.LAST_PER_SUBJECT,
            opt_start_seq=self._cache.revision + 1 if resume else None,
            filter_subject=self._pattern,
            ack_policy=AckPolicy.NONE,
            max_deliver=1,
            flow_control=True,
            idle_heartbeat=HEARTBEAT,
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=30,
        )

    async def _until_lost(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._again.is_set():
            silent = loop.time() - self._heard
            if silent >= SILENCE:
                if self._bus.connected:
                    log.info("the consumer is silent, making another")
                return
            try:
                await asyncio.wait_for(self._again.wait(), SILENCE - silent)
            except TimeoutError:
                continue

    async def _take(self, msg: Msg, fill_until: int) -> None:
        self._heard = asyncio.get_running_loop().time()
        if not msg.reply.startswith("$JS.ACK."):
            await self._control(msg)
            return
        metadata = msg.metadata
        if metadata.sequence.consumer != self._last + 1:
            log.info("a message was lost on the way, reading on from the last one", revision=self._cache.revision)
            self._again.set()
            return
        self._last = metadata.sequence.consumer
        try:
            self._cache.apply(Message.of(msg))
        except ContractError as error:
            self.skipped += 1
            log.warning("message does not follow the contract", subject=msg.subject, error=str(error))
        except Exception:
            self.skipped += 1
            log.exception("message could not be applied", subject=msg.subject)
        if not self._filled and (metadata.num_pending == 0 or metadata.sequence.stream >= fill_until):
            self._complete()

    async def _control(self, msg: Msg) -> None:
        """Flow control asks for an answer; a heartbeat tells how far the consumer is."""
        headers = msg.headers or {}
        ask = msg.reply or headers.get("Nats-Consumer-Stalled")
        if ask:
            try:
                await self._bus.client.publish(ask)
            except nats.errors.Error as error:
                log.debug("flow control could not be answered", error=str(error))
        sent = headers.get("Nats-Last-Consumer", "")
        if not sent.isdigit():
            return
        if int(sent) != self._last:
            self._again.set()
        elif not self._filled and int(sent) and not ask:
            self._complete()

    def _complete(self) -> None:
        if self._filled:
            return
        self._filled = True
        self._cache.complete()
        log.info("caught up with the stream", guests=len(self._cache), revision=self._cache.revision)
