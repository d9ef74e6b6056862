"""
What is taken of an agent's reply at most.

Replies come from inside a guest, so what is said about it is bounded in its encoded form, whatever its characters, and
what was left out is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

S = TypeVar("S")
T = TypeVar("T")

MOST_ENTRIES = 1000
"""Users, filesystems, interfaces, disks, processors, commands taken from one reply."""
MOST_INNER = 100
"""Addresses of one interface, disks of one filesystem."""
MOST_TEXT = 1024
"""Bytes of one text, as JSON: a control character takes six."""
MOST_LIST = 400 * 1024
"""
Bytes of one list, as JSON. NATS takes 1 MiB at once, and `guestosinfo` holds up to two lists, the commands and the
first filesystems, beside some thirty texts.
"""
MOST_BYTES = 10 * 1024 * 1024
"""libvirt's own limit for a reply (QEMU_AGENT_MAX_RESPONSE)."""
MOST_OBJECTS = 250_000
"""
JSON objects of a reply: each costs a hundred bytes of memory once decoded, also an empty one. Replies that say anything
in their objects reach MOST_BYTES first.
"""
INT64_MAX = 2**63 - 1

_ESCAPED = len(r"\u0001")
"""Bytes that one character takes as JSON, at most."""


class RoundTrip(msgspec.Struct, frozen=True):
    """When a command was sent and answered, by this machine's clock, in nanoseconds since the epoch."""

    sent: int
    answered: int


class Bounds:
    """Takes from one reply what a message can hold, and counts what it leaves."""

    def __init__(self, trip: RoundTrip | None = None) -> None:
        self.truncated = 0
        self.trip = trip
        """Of the reply, where it was measured."""

    def text(self, text: str) -> str:
        """The text, or as much from its beginning as MOST_TEXT allows."""
        if len(text) <= MOST_TEXT // _ESCAPED:
            return text
        kept = text[:MOST_TEXT]
        while (excess := _size(kept) - len('""') - MOST_TEXT) > 0:
            kept = kept[: -math.ceil(excess / _ESCAPED)]
        self.truncated += kept != text
        return kept

    def entries(self, given: Sequence[S], make: Callable[[S], T], most: int = MOST_ENTRIES) -> tuple[T, ...]:
        """What is made of the first entries, as many as `most` and MOST_LIST allow."""
        kept: list[T] = []
        room = MOST_LIST
        for entry in given[:most]:
            shortened, made = self.truncated, make(entry)
            room -= _size(made) + len(",")
            if room < 0:
                self.truncated = shortened
                break
            kept.append(made)
        self.truncated += len(given) - len(kept)
        return tuple(kept)


def _size(value: object) -> int:
    """Bytes as JSON."""
    return len(_encoder.encode(value))


_encoder = msgspec.json.Encoder()
