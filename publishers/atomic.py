"""
JetStream's atomic batches: many messages, one acknowledgement, all or nothing (NATS ADR-50).

Every message of a batch may carry its own message id and fence; one that does not hold refuses the whole batch. Needs a
stream with `allow_atomic`, which a server before 2.12 does not know.
"""

from __future__ import annotations

import random
from collections.abc import Collection

from guestwire.jetstream import Bus, translated
from guestwire.logs import logger
from guestwire.wire import Content
from publishers import metrics
from publishers.ledger import Outgoing
from publishers.single import Acknowledgement

log = logger("publisher")

MOST_MESSAGES = 1000
"""The server's limit for one batch."""
MOST_BYTES = 4 * 1024 * 1024
"""Bodies of one batch: the server holds them in memory until it is whole."""
HEADERS_BYTES = 16 * 1024
"""More than the headers of a message take; they count towards the server's largest message."""


class Refused(Exception):  # noqa: N818 - an outcome, handled by whoever sends
    """The server took none of the messages; the text is its reason."""


class Batch:
    """Messages that go out together: `add`, then `publish` once."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._messages: list[Outgoing] = []
        self._bytes = 0

    def add(self, messages: Collection[Outgoing]) -> bool:
        """Take some messages, or none of them when one does not fit."""
        largest = self._bus.client.max_payload - HEADERS_BYTES
        size = self._bytes + sum(len(message.part.body) for message in messages)
        if len(self._messages) + len(messages) > MOST_MESSAGES or size > MOST_BYTES:
            return False
        if any(len(message.part.body) > largest for message in messages):
            return False
        self._messages.extend(messages)
        self._bytes = size
        return True

    async def publish(self) -> None:
        """
        Send them and note their revisions. Raises Refused, and NotConnected when nothing was heard: then all of them
        may be on the stream, or none.
        """
        if not self._messages:
            return
        with metrics.SECONDS.time():
            revision = await self._committed()
        for offset, message in enumerate(self._messages):
            message.sent(revision + offset)
            metrics.PUBLISHED.labels(message.part.kind).inc()
        log.debug("published a batch", messages=len(self._messages), revision=revision)

    async def _committed(self) -> int:
        """The revision of the first message; the others follow."""
        batch, count = f"{random.getrandbits(128):032x}", len(self._messages)
        contents = [
            _with(message.content, f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\n")
            for number, message in enumerate(self._messages, 1)
        ]
        commit = _with(contents[-1], "Nats-Batch-Commit: 1\r\n")
        with translated(f"publish {count} messages"):
            await self._bus.client.publish_many(contents[:-1])
            [answer] = await self._bus.client.request_many([commit], self._bus.settings.timeout)
            acknowledgement = Acknowledgement.of(answer)
        if acknowledgement.error:
            raise Refused(acknowledgement.error.description)
        if (acknowledgement.batch, acknowledgement.count) != (batch, count):
            raise Refused("the server does not know atomic batches")
        return acknowledgement.seq - count + 1


def _with(content: Content, lines: str) -> Content:
    """A message with more header lines."""
    return Content(content.subject, content.headers + lines, content.body)
