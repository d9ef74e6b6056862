"""
Messages to the stream by themselves: each with an acknowledgement of its own, as many at once as there are.

JetStream's answer to a message is its revision, or why it was not taken. As long as it takes them all it answers in the
order of the messages, so they can share a subject for their answers, which spares the server a good part of its work.
(A cluster refuses a message, or knows it already, before those ahead of it are agreed on.) Where one was not taken,
which one is found out by sending all again with their answers told apart: ids and fences make that harmless.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import nats.errors

from guestwire.errors import NotConnected, Unanswered
from guestwire.jetstream import Bus
from guestwire.logs import logger
from guestwire.wire import Answer, Content
from publishers import metrics
from publishers.ledger import Outgoing

log = logger("publisher")

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""
JetStream's error codes for an expectation that does not hold: of what is on the stream (JSStreamWrongLastSequenceErrF),
and of what a cluster is about to put there (JSStreamWrongLastSequenceConstantErr).
"""


class Fenced(Exception):  # noqa: N818 - an outcome, handled by whoever sends
    """Someone else published this kind meanwhile."""


class TooLarge(Exception):  # noqa: N818 - an outcome, handled by whoever sends
    """The server takes no message of this size; it is not tried again."""


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """JetStream's error (NATS ADR-1)."""

    err_code: int = 0
    description: str = "no reason given"


class Acknowledgement(msgspec.Struct, frozen=True, gc=False):
    """JetStream's answer to a message, or to a batch (NATS ADR-50)."""

    seq: int = 0
    duplicate: bool = False
    error: Refusal | None = None
    batch: str = ""
    count: int = 0

    @classmethod
    def of(cls, answer: Answer) -> Acknowledgement:
        """Raises what stands in place of an answer, and DecodeError for what is no acknowledgement."""
        if isinstance(answer, nats.errors.Error):
            raise answer
        return _decoder.decode(answer)


_decoder = msgspec.json.Decoder(Acknowledgement)

Reply = Acknowledgement | nats.errors.Error | msgspec.DecodeError
"""An answer, read; or what stands in its place."""

Outcome = Fenced | TooLarge | NotConnected | None
"""None: it is on the stream."""


async def publish(bus: Bus, messages: Sequence[Outgoing]) -> list[Outcome]:
    """Send messages of different subjects, and note their revisions; what became of each."""
    with metrics.SECONDS.time():
        replies = await _request(bus, [message.content for message in messages])
    outcomes = [_settle(message, reply) for message, reply in zip(messages, replies, strict=True)]
    taken = Counter(message.part.kind for message, outcome in zip(messages, outcomes, strict=True) if outcome is None)
    for kind, number in taken.items():
        metrics.PUBLISHED.labels(kind).inc(number)
    return outcomes


async def _request(bus: Bus, contents: Sequence[Content]) -> list[Reply]:
    """The reply to each."""
    timeout = bus.settings.timeout
    replies = _read(await bus.client.request_many(contents, timeout, apart=False))
    if len(contents) == 1 or _are_of_new_messages(replies):
        return replies
    for reply in replies:
        if isinstance(reply, nats.errors.TimeoutError):  # to which of them, nobody knows
            return [other if isinstance(other, nats.errors.MaxPayloadError) else reply for other in replies]
    return _read(await bus.client.request_many(contents, timeout))


def _read(answers: Iterable[Answer]) -> list[Reply]:
    replies: list[Reply] = []
    for answer in answers:
        try:
            replies.append(answer if isinstance(answer, nats.errors.Error) else _decoder.decode(answer))
        except msgspec.DecodeError as error:
            replies.append(error)
    return replies


def _are_of_new_messages(replies: Sequence[Reply]) -> bool:
    """Whether each message that was sent is on the stream now and was not before, in this order."""
    last = 0
    for reply in replies:
        if isinstance(reply, Acknowledgement) and not reply.error and not reply.duplicate and reply.seq > last:
            last = reply.seq
        elif not isinstance(reply, nats.errors.MaxPayloadError):
            return False
    return True


def _settle(message: Outgoing, reply: Reply) -> Outcome:
    if isinstance(reply, Acknowledgement):
        if not reply.error:
            message.sent(reply.seq)
            return None
        if reply.error.err_code in WRONG_LAST_SEQUENCE:
            return Fenced(message.part.kind)
        return NotConnected(f"publish {message.subject}: {reply.error.description}")
    match reply:
        case nats.errors.MaxPayloadError():
            return _too_large(message)
        case nats.errors.NoRespondersError():
            return Unanswered(f"publish {message.subject}: JetStream is not available")
        case nats.errors.TimeoutError():
            return Unanswered(f"publish {message.subject}: {reply}")
    return NotConnected(f"publish {message.subject}: {reply or type(reply).__name__}")


def _too_large(message: Outgoing) -> TooLarge:
    message.sent(None)
    metrics.TOO_LARGE.inc()
    log.error("message is larger than the NATS server takes", subject=message.subject, bytes=len(message.part.body))
    return TooLarge(message.part.kind)
