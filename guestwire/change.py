"""
A change: what was said about a guest, with the value before, and the place in the stream where it was said.

A place is a revision in a stream that was created at a certain time: a stream that was deleted and made anew counts its
revisions from 1 again, and only the time tells it from the one before. As text it is a token that can be stored.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from guestwire import codec
from guestwire.difference import Difference, difference
from guestwire.errors import ConfigError, ContractError
from guestwire.jetstream import Message
from guestwire.kinds import BODIES
from guestwire.snapshot import AgentState, Body, GuestRef, Phase

Value = Body | dict[str, Any]
"""The struct of its kind (`guestwire.kinds.BODIES`); of a kind that this version does not know, the JSON object."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TOKEN = re.compile(r"1-([0-9a-f]{1,15})-(0|[1-9][0-9]{0,18})\Z")


class Place(msgspec.Struct, frozen=True):
    """Behind a revision of a stream; `str()` of it is the token."""

    stream: datetime
    """When the stream was created."""
    revision: int

    def __str__(self) -> str:
        return f"1-{(self.stream - _EPOCH) // timedelta(microseconds=1):x}-{self.revision}"

    @classmethod
    def parse(cls, token: str) -> Place:
        """From a token. ConfigError when it is none."""
        if found := _TOKEN.match(token):
            try:
                return cls(_EPOCH + timedelta(microseconds=int(found[1], 16)), int(found[2]))
            except OverflowError:
                pass
        raise ConfigError(f"since: {token[:80]!r} is no token of a change")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the stream, and the value before it."""

    message: Message
    """As it came: address, revision, headers and bytes."""
    old: Value | None
    """
    The value before; None in a snapshot, for the first value of its subject, when history no longer has the value
    before (`old_lost`), and when that was no value of its kind.
    """
    new: Value
    """Never None: of a guest that is gone the last word is an `agent` whose phase is Gone (`gone`)."""
    old_body: bytes | None
    """The bytes behind `old`."""
    old_uid: str
    """Which guest `old` was said of; another than `uid` when a guest was made anew under the same name."""
    snapshot: bool
    """A value that was there already when reading began, not a change that came since."""
    reset: bool
    """The first of a snapshot: whatever was known before is void."""
    token: str
    """`since` for going on behind this change."""

    @property
    def cluster(self) -> str:
        """The cluster or site of the guest."""
        return self.message.address.cluster

    @property
    def ref(self) -> GuestRef:
        """The guest's namespace and name."""
        return self.message.address.ref

    @property
    def kind(self) -> str:
        """What it is about."""
        return self.message.address.kind

    @property
    def uid(self) -> str:
        """Which guest of that name: KubeVirt's uid of the VMI, else the domain's UUID."""
        return self.message.event.uid

    @property
    def host(self) -> str:
        """The host whose collector saw it."""
        return self.message.event.host

    @property
    def revision(self) -> int:
        """The message's sequence in the stream."""
        return self.message.revision

    @property
    def observed_at(self) -> datetime:
        """When it was read from the guest; of `agent`, when the record was made."""
        return self.message.event.time

    @property
    def body(self) -> bytes:
        """The bytes behind `new`."""
        return self.message.body

    @property
    def gone(self) -> bool:
        """Whether this is the last word about a guest that does not exist any more: forget everything about it."""
        return isinstance(self.new, AgentState) and self.new.phase is Phase.GONE

    @property
    def old_lost(self) -> bool:
        """There was a value before, but history no longer has it: more changed meanwhile than the stream keeps."""
        return not self.snapshot and self.old_body is None and bool(previous(self.message))

    def differences(self) -> list[Difference]:
        """What differs between old and new, field by field; nothing for a heartbeat of `agent`."""
        return difference(self.kind, self.old_body, self.body)


def previous(message: Message) -> int | None:
    """The revision that the publisher demanded of the subject, and the server saw to; 0: it had none. None: untold."""
    told = message.headers.get("Nats-Expected-Last-Subject-Sequence", "")
    return int(told) if told.isdecimal() else None


def value(kind: str, body: bytes) -> Value:
    """What a body says. Raises ContractError."""
    if struct := BODIES.get(kind):
        return codec.decode(body, struct)
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"{kind}: {error}") from error
