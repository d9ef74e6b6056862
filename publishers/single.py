"""
Messages to the stream by themselves: each with an acknowledgement of its own, as many at once as there are.

JetStream's answer to a message is its revision, or why it was not taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import nats.errors

from guestwire.errors import NotConnected, Unanswered
from guestwire.jetstream import Bus
from guestwire.logs import logger
from guestwire.wire import Answer
from publishers import metrics
from publishers.ledger import Outgoing

log = logger("publisher")

WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code for an expectation that does not hold (JSStreamWrongLastSequenceErrF)."""


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

Outcome = Fenced | TooLarge | NotConnected | None
"""None: it is on the stream."""


async def publish(bus: Bus, messages: Sequence[Outgoing]) -> list[Outcome]:
    """Send messages of different subjects, and note their revisions; what became of each."""
    with metrics.SECONDS.time():
        answers = await bus.client.request_many([message.content for message in messages], bus.settings.timeout)
    outcomes = [_settle(message, answer) for message, answer in zip(messages, answers, strict=True)]
    taken = Counter(message.part.kind for message, outcome in zip(messages, outcomes, strict=True) if outcome is None)
    for kind, number in taken.items():
        metrics.PUBLISHED.labels(kind).inc(number)
    return outcomes


def _settle(message: Outgoing, answer: Answer) -> Outcome:
    try:
        acknowledgement = Acknowledgement.of(answer)
    except nats.errors.MaxPayloadError:
        return _too_large(message)
    except nats.errors.NoRespondersError:
        return Unanswered(f"publish {message.subject}: JetStream is not available")
    except nats.errors.TimeoutError as error:
        return Unanswered(f"publish {message.subject}: {error}")
    except (nats.errors.Error, msgspec.DecodeError) as error:
        return NotConnected(f"publish {message.subject}: {error or type(error).__name__}")
    if refusal := acknowledgement.error:
        if refusal.err_code == WRONG_LAST_SEQUENCE:
            return Fenced(message.part.kind)
        return NotConnected(f"publish {message.subject}: {refusal.description}")
    message.sent(acknowledgement.seq)
    return None


def _too_large(message: Outgoing) -> TooLarge:
    message.sent(None)
    metrics.TOO_LARGE.inc()
    log.error("message is larger than the NATS server takes", subject=message.subject, bytes=len(message.part.body))
    return TooLarge(message.part.kind)
