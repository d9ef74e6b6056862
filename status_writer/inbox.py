"""
Messages that were received and not settled yet, by guest.

A reconcile takes all that are there for its guest, settles them by its outcome, or puts them back. Those that wait
longer than JetStream would are said to be in progress.

Since when a guest's facts wait to be applied is remembered beyond that: a message that goes back to JetStream is still
not applied.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import nats.errors
from nats.aio.msg import Msg

from guestwire.jetstream import Message
from guestwire.snapshot import GuestRef
from status_writer.metrics import UNACKNOWLEDGED
from status_writer.outcome import Verb


@dataclass(frozen=True)
class Delivery:
    """A message, and the means to settle it."""

    message: Message
    msg: Msg


class Inbox:
    """Bounded by the consumer's limit of unsettled messages."""

    def __init__(self) -> None:
        self._waiting: defaultdict[GuestRef, list[Delivery]] = defaultdict(list)
        self._taken: dict[GuestRef, list[Delivery]] = {}
        self._unapplied: dict[GuestRef, float] = {}
        UNACKNOWLEDGED.set_function(self.__len__)

    def __len__(self) -> int:
        return sum(map(len, [*self._waiting.values(), *self._taken.values()]))

    def add(self, delivery: Delivery) -> None:
        """A message arrived."""
        ref = delivery.message.address.ref
        self._waiting[ref].append(delivery)
        self._unapplied.setdefault(ref, delivery.msg.metadata.timestamp.timestamp())

    def oldest(self) -> float:
        """Seconds since the stream took the oldest message that is not applied; 0 when all are."""
        times = list(self._unapplied.values())  # a copy: a health page asks, from another thread
        return max(0.0, time.time() - min(times)) if times else 0.0

    def applied(self, ref: GuestRef) -> None:
        """The status shows what was taken, or never will; later messages count anew."""
        self._unapplied.pop(ref, None)
        for delivery in self._waiting.get(ref, ()):
            self._unapplied.setdefault(ref, delivery.msg.metadata.timestamp.timestamp())

    def take(self, ref: GuestRef) -> Sequence[Delivery]:
        """All messages of a guest, to be settled together."""
        self._taken[ref] = self._waiting.pop(ref, [])
        return self._taken[ref]

    async def settle(self, ref: GuestRef, verb: Verb, *, delay: float = 0) -> None:
        """Tell JetStream about the messages taken; with `Verb.NONE` they wait again."""
        taken = self._taken.pop(ref, [])
        if verb is Verb.NONE:
            if taken:
                self._waiting[ref][:0] = taken
            return
        for delivery in taken:
            match verb:
                case Verb.ACK:
                    await delivery.msg.ack()
                case Verb.NAK:
                    await delivery.msg.nak(delay=delay)
                case Verb.TERM:
                    await delivery.msg.term()

    async def hold(self) -> None:
        """Put off the redelivery of everything that is here."""
        for delivery in chain(*self._waiting.values(), *self._taken.values()):
            with suppress(nats.errors.MsgAlreadyAckdError):
                await delivery.msg.in_progress()
