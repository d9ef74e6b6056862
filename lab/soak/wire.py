"""What the truth and the collector of the simulated guests say to each other: a line of JSON each."""

from __future__ import annotations

from typing import Any

import msgspec

from collectors.host import Hint

MOST_BYTES = 2**20
"""A line at most."""


class Request(msgspec.Struct, omit_defaults=True):
    """To the truth. The first one of a connection, `open`, says of which host."""

    number: int
    verb: str
    subject: str = ""
    """A host, or a domain's UUID."""
    command: str = ""
    """Of the agent."""
    patience: float = 0.0
    """Seconds that the agent may take for it."""


class Answer(msgspec.Struct, omit_defaults=True):
    """To the request of that number; with `hint`, of none, what an event tells about a domain."""

    number: int
    value: Any = None
    failure: str = ""
    """How it failed, if it did: `silent`, `not running`, or `refused`."""
    hint: Hint | None = None


def line(struct: Request | Answer) -> bytes:
    """Ready to be sent."""
    return msgspec.json.encode(struct) + b"\n"
