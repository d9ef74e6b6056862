"""
Where a stream differs from what this project would make, and what follows from it.

The stream is its operator's: no process changes one that is there. But a limit that somebody set for another purpose
drops present values without a word, so whoever publishes says it once, and `guestwire doctor` whenever it is asked.
What an operator chooses without a consequence for readers, such as placement, compression or a description, is none.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from nats.js.api import DiscardPolicy, StreamConfig

LEAST_MESSAGE = 1024 * 1024
"""Bytes of a message: nats-server's own limit by default, which ours are made for."""


class Drift(msgspec.Struct, frozen=True):
    """One thing that is not as we would make it."""

    field: str
    """Its name in the stream's configuration."""
    text: str
    """What it is, what it would be, and what follows."""
    option: str
    """Of `nats stream edit`, to make it so; empty where the stream would have to be made anew."""


def drift(config: StreamConfig, wanted: StreamConfig) -> tuple[Drift, ...]:
    """Every difference that somebody should know of."""
    found = []
    for field, consequence, option in _EXACT:
        theirs, ours = getattr(config, field), getattr(wanted, field)
        if theirs != ours:
            change = option.format(f"{ours:g}" if isinstance(ours, float) else ours)
            found.append(Drift(field, f"{field} {_shown(theirs)}, not {_shown(ours)}{consequence}", change))
    for field, consequence, option in _LIMITS:
        limit = getattr(config, field) or -1
        if limit > 0:
            found.append(Drift(field, f"{field} {_shown(limit)}, not without limit: {consequence}", option))
    for field, consequence, option in _OFF:
        if getattr(config, field):
            found.append(Drift(field, f"{field}: {consequence}", option))
    if config.discard == DiscardPolicy.NEW:
        text = "discard new, not old: at a limit what changed is refused"
        found.append(Drift("discard", text, "--discard=old"))
    if 0 < (config.max_msg_size or -1) < LEAST_MESSAGE:
        text = f"max_msg_size {config.max_msg_size}, not without limit: larger messages are refused"
        found.append(Drift("max_msg_size", text, "--max-msg-size=-1"))
    return tuple(found)


def told(found: Sequence[Drift]) -> str:
    """In one line."""
    return "; ".join(one.text for one in found)


def mended(stream: str, found: Sequence[Drift]) -> str:
    """The command that makes it as we would; empty where none does."""
    options = [one.option for one in found if one.option]
    return f"nats stream edit {stream} {' '.join(options)}" if options else ""


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(getattr(value, "value", value))


_EXACT = (
    ("retention", ": messages vanish when they are read", ""),
    ("storage", ": it may be empty after a restart of NATS", ""),
    ("num_replicas", " copies (nats.replicas)", "--replicas={}"),
    ("max_msgs_per_subject", " for replay (nats.history)", "--max-msgs-per-subject={}"),
    ("duplicate_window", " seconds in which doubles are dropped", "--dupe-window={}s"),
)
_LIMITS = (
    ("max_age", "what has not changed for so many seconds is forgotten", "--max-age=0s"),
    ("max_bytes", "beyond it present values are dropped", "--max-bytes=-1"),
    ("max_msgs", "beyond it present values are dropped", "--max-msgs=-1"),
)
_OFF = (
    ("no_ack", "nothing is acknowledged, so everything is sent again and again", "--ack"),
    ("sealed", "nothing can be published", ""),
    ("deny_delete", "guests that are gone stay for good", ""),
    ("deny_purge", "guests that are gone stay for good", ""),
)
