"""
Pairs each message with the value before it. Pure: what must be looked up in the stream, somebody else does.

The values before are remembered within a bound of bytes, the least recently changed forgotten first. A subject that is
not remembered is looked up in the stream as of the revision before the batch: subjects of a batch are level with the
stream there, whatever was forgotten, and wherever reading began.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime

from guestwire.change import Change, Place, previous, value
from guestwire.errors import ContractError
from guestwire.jetstream import Message
from guestwire.logs import logger
from guestwire.subjects import Address

MEMORY = 64 * 2**20
"""Bytes of values remembered; about 50,000 subjects."""

OVERHEAD = 400
"""Bytes that remembering a value costs beside its own, about."""

log = logger("changes")


class Pairing:
    """What was said last about each subject, and where reading is."""

    def __init__(self, place: Place | None, memory: int = MEMORY) -> None:
        self._stream = place.stream if place else None
        self._revision = place.revision if place else 0
        self._limit = memory
        self._snapshot = False
        self._reset = False
        self._whole = False
        """A subject that is not remembered has no value before: all were seen, and none was forgotten."""
        self._last: OrderedDict[Address, tuple[str, bytes]] = OrderedDict()
        self._size = 0

    def begin(self, stream: datetime) -> None:
        """
        The stream is read from its present values. A snapshot of the same stream that was broken off goes on where it
        was: values come in the order of their revisions.
        """
        if stream == self._stream and self._snapshot:
            return
        self._stream, self._revision, self._size = stream, 0, 0
        self._snapshot = self._reset = self._whole = True
        self._last.clear()

    def complete(self) -> None:
        """What comes from here on are changes."""
        self._snapshot = False

    def unknown(self, messages: Sequence[Message]) -> list[Address]:
        """Of which subjects the value before must be looked up, as of the revision before the first message."""
        if self._whole or self._snapshot:
            return []
        firsts: dict[Address, Message] = {}
        for message in self._new(messages):
            firsts.setdefault(message.address, message)
        return [address for address, first in firsts.items() if address not in self._last and previous(first) != 0]

    def pair(self, messages: Sequence[Message], before: Iterable[Message] = ()) -> list[Change]:
        """The changes that the messages are, `before` being what was looked up. What has come before is left out."""
        for message in before:
            self._remember(message)
        paired = [self._pair(message) for message in self._new(messages)]
        self._forget()
        return [each for each in paired if each]

    def _new(self, messages: Sequence[Message]) -> list[Message]:
        return [message for message in messages if message.revision > self._revision]

    def _pair(self, message: Message) -> Change | None:
        assert self._stream is not None  # noqa: S101 - begin() comes before messages where no place was given
        self._revision = message.revision
        old_uid, old_body = self._last.get(message.address, ("", None))
        self._remember(message)
        kind = message.address.kind
        try:
            new = value(kind, message.body)
        except ContractError as error:
            log.warning("message does not follow the contract", subject=message.address.subject, error=str(error))
            return None
        old = None
        if old_body is not None:
            try:
                old = value(kind, old_body)
            except ContractError:
                old_body = None
        reset, self._reset = self._reset, False
        return Change(
            message=message,
            old=old,
            new=new,
            old_body=old_body,
            old_uid=old_uid,
            snapshot=self._snapshot and old_body is None,
            reset=reset,
            token=str(Place(self._stream, message.revision)),
        )

    def _remember(self, message: Message) -> None:
        _, forgotten = self._last.pop(message.address, ("", None))
        if forgotten is not None:
            self._size -= len(forgotten) + OVERHEAD
        self._last[message.address] = (message.event.uid, message.body)
        self._size += len(message.body) + OVERHEAD

    def _forget(self) -> None:
        """After a batch: before, somebody may still need what is to be forgotten."""
        while self._size > self._limit:
            _, (_, body) = self._last.popitem(last=False)
            self._size -= len(body) + OVERHEAD
            self._whole = False
