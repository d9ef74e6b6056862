"""
The durable pull consumer: messages as they come, for as long as the process runs.

One consumer of the stream serves every replica; each message goes to one of them. It is made when it is missing, again
when somebody deletes it, and starts with the last message of each subject: all there is to know.

NB: nats-py's `fetch(n)` holds messages back until it has n of them or its time is over. The pull request is sent by
hand instead, with heartbeats: silence means that the server has lost the request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from guestwire import subjects
from guestwire.errors import ConfigError, ContractError, TransientError
from guestwire.jetstream import Bus, Message, translated
from guestwire.lifecycle import backoff
from guestwire.logs import logger
from status_writer.facts import KINDS
from status_writer.inbox import Delivery
from status_writer.metrics import LAG, RESULTS
from status_writer.outcome import TABLE, Outcome

log = logger("status")

ACK_WAIT = 30.0
"""Seconds after which an unsettled message is delivered again, unless it was said to be in progress."""

MAX_ACK_PENDING = 1000
"""Unsettled messages over all replicas; bounds what one process holds."""

BATCH = 256
EXPIRES = 30.0
HEARTBEAT = 1.0
SILENCE = 3.0


class Consumer:
    """Calls `received` with each message. `there` tells whether messages can come."""

    def __init__(self, bus: Bus, cluster: str, durable: str, received: Callable[[Delivery], None]) -> None:
        self._bus = bus
        self._cluster = cluster
        self._durable = durable
        self._received = received
        self.there = False

    async def run(self, stop: asyncio.Event) -> None:
        """
        Until cancelled, or soon after `stop` is set: nats-py waits with asyncio.wait_for, which up to Python 3.11 loses
        a cancellation that arrives together with the answer. Raises ConfigError when a consumer of that name is
        something else.
        """
        pauses = backoff(longest=5)
        while not stop.is_set():
            try:
                await self._ensure()
                self._bus.isolation.answered()
                self.there = True
                pauses = backoff(longest=5)
                await self._receive(stop)
            except TransientError as error:
                self._bus.isolation.failed(error)
                if self.there:
                    log.warning("consumer is out of reach, trying on", consumer=self._durable, error=str(error))
                self.there = False
                await asyncio.sleep(next(pauses))

    async def _ensure(self) -> None:
        stream = self._bus.settings.stream
        with translated(f"consumer {self._durable}"):
            try:
                info = await self._bus.js.consumer_info(stream, self._durable)
            except nats.js.errors.NotFoundError:
                await self._bus.js.add_consumer(stream, self._config())
                log.info("consumer created", stream=stream, consumer=self._durable)
                return
        if sorted(info.config.filter_subjects or ()) != sorted(self._subjects()):
            raise ConfigError(
                f"status.durable: consumer {self._durable} of stream {stream} is for other subjects; "
                "name another one, or delete it"
            )

    def _subjects(self) -> list[str]:
        return [subjects.pattern(cluster=self._cluster, kind=kind) for kind in KINDS]

    def _config(self) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=self._durable,
            description="guestwire write-status",
            filter_subjects=self._subjects(),
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT,
            max_ack_pending=MAX_ACK_PENDING,
            max_deliver=-1,
        )

    async def _receive(self, stop: asyncio.Event) -> None:
        """Pull until something is wrong with the consumer, which the caller then looks at."""
        client = self._bus.client
        inbox = client.new_inbox()
        arrived: asyncio.Queue[Msg] = asyncio.Queue()  # bounded by what was pulled

        async def arrive(msg: Msg) -> None:
            arrived.put_nowait(msg)

        with translated(f"consumer {self._durable}"):
            subscription = await client.subscribe(inbox, cb=arrive)
        try:
            while await self._pull(arrived, inbox, stop):
                pass
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _pull(self, arrived: asyncio.Queue[Msg], inbox: str, stop: asyncio.Event) -> bool:
        """One pull request to its end. False when the consumer needs a look, or there is no need for more."""
        request = {"batch": BATCH, "expires": int(EXPIRES * 1e9), "idle_heartbeat": int(HEARTBEAT * 1e9)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._bus.settings.stream}.{self._durable}"
        with translated(f"consumer {self._durable}"):
            await self._bus.client.publish(subject, msgspec.json.encode(request), reply=inbox)
        credit = BATCH
        while credit and not stop.is_set():
            try:
                if arrived.empty():
                    async with asyncio.timeout(SILENCE):
                        msg = await arrived.get()
                else:
                    msg = arrived.get_nowait()
            except TimeoutError:
                return False
            status = (msg.headers or {}).get("Status")
            if status is None:
                credit -= 1
                await self._deliver(msg)
            elif status in {"404", "408"}:  # nothing more; the request is over
                return True
            elif status != "100":
                log.debug("pull request ended", status=status, description=(msg.headers or {}).get("Description"))
                return False
        return not stop.is_set()

    async def _deliver(self, msg: Msg) -> None:
        try:
            delivery = Delivery(Message.of(msg), msg)
        except ContractError as error:
            log.warning("message does not follow the contract", subject=msg.subject, error=str(error))
            RESULTS.labels(TABLE[Outcome.PERMANENT].result).inc()
            with translated("settle"):
                await msg.term()
            return
        LAG.set(msg.metadata.num_pending)
        self._received(delivery)
