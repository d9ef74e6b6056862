"""
The stream, in order and without a gap: the last message per subject, then every change.

An ordered consumer of our own over a plain subscription, as NATS describes it (ADR-17): ephemeral, no acknowledgements,
flow control, heartbeats; the consumer's sequence in each message shows a gap. nats-py's own numbers a message before it
may drop it for a slow reader, which then goes unnoticed, and it does not tell that the stream is another one.

Whatever goes wrong (connection, server restart, gap, silence), the answer is the same: a new consumer that starts after
the last revision taken. When the stream is not the one that was read before, it is read anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Coroutine
from datetime import datetime
from typing import NamedTuple, Protocol

import nats.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo

from guestwire.errors import ContractError, TransientError, Unanswered
from guestwire.jetstream import Bus, Message, translated
from guestwire.lifecycle import backoff, cancel
from guestwire.logs import logger
from guestwire.wire import Delivery

HEARTBEAT = 2.0
"""Seconds of silence after which the server says that there is nothing to say."""

SILENCE = 3 * HEARTBEAT
"""Seconds without a word after which the consumer is taken for lost: its server restarted, or its stream is gone."""

LOOK = 30.0
"""Seconds between two looks at the stream itself: whether it is there, and the one that is read."""

TURN = 32
"""Messages taken before others have their turn."""

log = logger("follower")


class Sink(Protocol):
    """Who takes the messages."""

    def begin(self) -> None:
        """The stream is read from its present values: at the start, and whenever it is another stream."""
        ...

    def apply(self, message: Message) -> Awaitable[None] | bool | None:
        """One message, newer than all before it since `begin`. An awaitable slows the server down until it is done."""
        ...

    def complete(self) -> None:
        """All that was in the stream at the start has been given."""
        ...


class Follower:
    """
    Gives a sink what the stream holds for a subject pattern, for ever.

    With `after` it begins behind that revision instead of with the present values, as long as the stream has it.
    """

    def __init__(
        self, bus: Bus, pattern: str, sink: Sink, *, after: int | None = None, stream: datetime | None = None
    ) -> None:
        self.skipped = 0
        """Messages that do not follow the contract."""
        self._bus = bus
        self._pattern = pattern
        self._sink = sink
        self.stream = stream
        """When the stream that is read was created, which tells it from another of its name; known from `begin` on."""
        self._revision = after or 0
        self._resumes = after is not None
        self._complete_at = 0
        """The stream's last revision when the fill began; -1 once the sink was told."""
        self._again = asyncio.Event()
        self._anew = False
        self._heard = 0.0
        self._waiting = False
        self._last = 0
        """The consumer's sequence of the last message received."""

    async def run(self) -> None:
        """Follow until cancelled. The bus has been opened; it may be down."""
        forget = self._bus.on_reconnect(self._again.set)
        try:
            await self._stay()
        finally:
            forget()

    def begin_anew(self) -> None:
        """Read the stream from its present values: something left it of which no message tells."""
        self._anew = True
        self._again.set()

    async def _stay(self) -> None:
        pauses, said = backoff(longest=5), ""
        while True:
            try:
                await self._follow()
                pauses, said = backoff(longest=5), ""
            except TransientError as error:
                self._bus.isolation.failed(error)
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
            self._place(stream)
            self._last = 0
            self._heard = asyncio.get_running_loop().time()
            inbox = self._bus.client.new_inbox()
            arrived = _Arrived()
            async with self._bus.client.listening(inbox, arrived.add), _meanwhile(self._take_all(arrived)):
                consumer = await self._bus.js.add_consumer(self._bus.settings.stream, self._config(inbox))
                if (await self._info()).created != stream.created:
                    return
                self._bus.isolation.answered()
                if not consumer.num_pending and not (consumer.delivered and consumer.delivered.consumer_seq):
                    self._complete()
                await self._until_lost()

    def _place(self, stream: StreamInfo) -> None:
        """Where to begin: behind the last revision if this is the stream it was of, else with the present values."""
        same = not self._anew and (stream.created == self.stream or (self.stream is None and self._resumes))
        self.stream, self._anew = stream.created, False
        self._resumes = self._resumes and same and stream.state.last_seq >= self._revision
        if not self._resumes:
            self._revision = 0
            self._sink.begin()
        if not self._resumes or self._complete_at == 0:
            self._complete_at = stream.state.last_seq or 1

    async def _info(self) -> StreamInfo:
        """Raises Unanswered where the one who answers does not know who leads the stream: he is cut off."""
        info = await self._bus.js.stream_info(self._bus.settings.stream)
        if info.cluster and not info.cluster.leader:
            raise Unanswered(f"stream {info.config.name}: it has no leader as far as this server knows")
        return info

    def _config(self, inbox: str) -> ConsumerConfig:
        return ConsumerConfig(
            name=secrets.token_hex(8),  # named, so that the request's subject tells the filter, as rights may demand
            description="guestwire follower",
            deliver_subject=inbox,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE if self._resumes else DeliverPolicy.LAST_PER_SUBJECT,
            opt_start_seq=self._revision + 1 if self._resumes else None,
            filter_subject=self._pattern,
            ack_policy=AckPolicy.NONE,
            max_deliver=1,
            flow_control=True,
            idle_heartbeat=HEARTBEAT,
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=5,  # nobody comes back to it: whoever was cut off makes another
        )

    async def _until_lost(self) -> None:
        loop = asyncio.get_running_loop()
        look = loop.time() + LOOK
        while not self._again.is_set():
            if loop.time() >= look:  # a server that is cut off has heartbeats to give, and no news
                look = loop.time() + LOOK
                if (await self._info()).created != self.stream:
                    return
            if self._waiting:  # the sink is slow, and the server waits for it
                self._heard = loop.time()
            silent = loop.time() - self._heard
            if silent >= SILENCE:
                if self._bus.connected:
                    log.info("the consumer is silent, making another")
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), SILENCE - silent)

    async def _take_all(self, arrived: _Arrived) -> None:
        loop = asyncio.get_running_loop()
        while True:
            some = await arrived.some()
            self._heard = loop.time()
            for msg in some:
                await self._take(msg)

    async def _take(self, msg: Delivery) -> None:
        place = _Place.of(msg.reply)
        if place is None:
            await self._control(msg)
            return
        if self._again.is_set():
            return
        if place.consumer != self._last + 1:
            log.info("a message was lost on the way, reading on from the last one", revision=self._revision)
            self._again.set()
            return
        self._last = place.consumer
        if place.stream <= self._revision:  # the server gave it twice: stored while it listed each subject's last
            return
        try:
            applied = self._sink.apply(Message.arrived(msg, place.stream))
            if applied is not None and not isinstance(applied, bool):
                self._waiting = True
                await applied
        except ContractError as error:
            self.skipped += 1
            log.warning("message does not follow the contract", subject=msg.subject, error=str(error))
        except Exception:
            self.skipped += 1
            log.exception("message could not be taken", subject=msg.subject)
        finally:
            self._waiting = False
        self._revision = place.stream
        if place.pending == 0 or self._revision >= self._complete_at:
            self._complete()

    async def _control(self, msg: Delivery) -> None:
        """Flow control asks for an answer; a heartbeat tells how far the consumer is."""
        headers = msg.headers
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
        elif int(sent) and not ask:
            self._complete()

    def _complete(self) -> None:
        """From here on the sink is level with the stream, and a lost consumer can be resumed."""
        self._resumes = True
        if self._complete_at >= 0:
            self._complete_at = -1
            self._sink.complete()


class _Arrived:
    """What was read and is not taken yet. Flow control bounds it."""

    def __init__(self) -> None:
        self._waiting: deque[Delivery] = deque()
        self._any = asyncio.Event()

    def add(self, delivery: Delivery) -> None:
        """One more."""
        self._waiting.append(delivery)
        self._any.set()

    async def some(self) -> list[Delivery]:
        """The next ones, up to a turn; before, others have theirs."""
        await (asyncio.sleep(0) if self._waiting else self._any.wait())
        waiting = self._waiting
        some = [waiting.popleft() for _ in range(min(TURN, len(waiting)))]
        if not waiting:
            self._any.clear()
        return some


class _Place(NamedTuple):
    """Where a message is: its sequence in the consumer and in the stream, and how many come after it."""

    consumer: int
    stream: int
    pending: int

    @classmethod
    def of(cls, reply: str) -> _Place | None:
        """
        From `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer's>.<time>.<pending>`, in which domain and
        account may come before the stream, and a token after the rest (ADR-15). None for anything else.
        """
        words = reply.split(".")
        if words[:2] != ["$JS", "ACK"] or len(words) < 9:
            return None
        first = 5 if len(words) == 9 else 7
        stream, consumer, _, pending = words[first : first + 4]
        if not (stream.isdigit() and consumer.isdigit() and pending.isdigit()):
            return None
        return cls(int(consumer), int(stream), int(pending))


@contextlib.asynccontextmanager
async def _meanwhile(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run beside what is inside."""
    task = asyncio.create_task(work, name="follower takes")
    try:
        yield
    finally:
        await cancel(task)
