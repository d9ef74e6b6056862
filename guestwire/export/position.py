"""
How far a stream has been exported, and what to make of the stream that is there now. Pure.

A stream is told from another of its name by its time of creation. Each gets an epoch of its own, and its rows are never
mixed with another's. A stream whose last revision is below the position has lost its end (a server without its disk's
last seconds): its revisions will be used again, so it is taken for another one too.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from guestwire.errors import ConfigError


class Position(msgspec.Struct, frozen=True):
    """All messages of a stream up to a revision have been exported."""

    stream: str
    created: datetime
    """When the stream was made: UTC, without a zone."""
    epoch: int = 1
    revision: int = 0


def place(known: Position | None, stream: str, created: datetime, last: int) -> Position:
    """Where to go on in the stream as it is, `last` its last revision. ConfigError when the export is of another."""
    if known is None:
        return Position(stream, created)
    if stream != known.stream:
        raise ConfigError(
            f"nats.stream: this export is of the stream {known.stream}, not of {stream}; name another file"
        )
    if created < known.created:
        raise ConfigError(
            f"nats.servers: the stream {stream} of {created:%Y-%m-%d %H:%M} is older than the one exported last, "
            f"of {known.created:%Y-%m-%d %H:%M}; another server's stream goes into another file"
        )
    if created > known.created or last < known.revision:
        return Position(stream, created, known.epoch + 1)
    return known
