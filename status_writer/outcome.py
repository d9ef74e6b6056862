"""How a reconcile can end, and what follows for the messages that asked for it: one table, nothing else decides."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from guestwire.errors import PermanentError, TransientError


class Conflict(TransientError):  # noqa: N818 - Kubernetes' word
    """The VMI is not as it was read: someone else wrote it meanwhile. Read again, decide again."""


class Verb(StrEnum):
    """What JetStream is told about a message."""

    ACK = "ack"
    NAK = "nak"
    """With a delay; delivered again after it, to this process or another."""
    TERM = "term"
    NONE = "none"
    """Nothing is said; delivered again when the acknowledgement is overdue."""


class Outcome(StrEnum):
    """How a reconcile ended."""

    PATCHED = "patched"
    UNCHANGED = "unchanged"
    GONE = "gone"
    """There is no such VMI; should it come, its creation starts a reconcile."""
    FOREIGN = "foreign"
    """The facts are about another machine of that name."""
    REVERTED = "reverted"
    """The API server took the patch and shows something else; worth another attempt."""
    IN_VAIN = "in vain"
    """The same, too often: not tried again before there is news."""
    LATER = "later"
    """There is something to write, but the VMI was written a moment ago."""
    CONFLICT = "conflict"
    TRANSIENT = "transient"
    PERMANENT = "permanent"
    BUG = "bug"
    CANCELLED = "cancelled"


Level = Literal["debug", "info", "warning", "error", "exception"]


@dataclass(frozen=True)
class Consequence:
    """What follows: for the messages, for the counter `result`, for the log."""

    verb: Verb
    result: str
    level: Level
    retry: bool = False
    """Whether this process looks at the guest again by itself, after a pause that grows."""


TABLE: Mapping[Outcome, Consequence] = {
    Outcome.PATCHED: Consequence(Verb.ACK, "written", "info"),
    Outcome.UNCHANGED: Consequence(Verb.ACK, "unchanged", "debug"),
    Outcome.GONE: Consequence(Verb.ACK, "gone", "debug"),
    Outcome.FOREIGN: Consequence(Verb.ACK, "foreign", "debug"),
    Outcome.REVERTED: Consequence(Verb.ACK, "reverted", "debug", retry=True),
    Outcome.IN_VAIN: Consequence(Verb.ACK, "reverted", "debug"),
    Outcome.LATER: Consequence(Verb.NONE, "later", "debug"),
    Outcome.CONFLICT: Consequence(Verb.NAK, "retried", "info", retry=True),
    Outcome.TRANSIENT: Consequence(Verb.NAK, "retried", "warning", retry=True),
    Outcome.PERMANENT: Consequence(Verb.TERM, "dropped", "error", retry=True),
    Outcome.BUG: Consequence(Verb.NAK, "errors", "exception", retry=True),
    Outcome.CANCELLED: Consequence(Verb.NONE, "cancelled", "debug"),
}


def of_error(error: BaseException) -> Outcome:
    """What an exception that ended a reconcile stands for."""
    match error:
        case Conflict():
            return Outcome.CONFLICT
        case TransientError():
            return Outcome.TRANSIENT
        case PermanentError():
            return Outcome.PERMANENT
        case asyncio.CancelledError():
            return Outcome.CANCELLED
        case _:
            return Outcome.BUG
