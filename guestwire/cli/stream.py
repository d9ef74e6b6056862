"""What the commands that read the stream's history share: how a moment and a difference are written, a connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import click
import msgspec

from guestwire import codec
from guestwire.change import Place
from guestwire.cli.doctor import plain
from guestwire.difference import Difference, Value
from guestwire.errors import ConfigError, NotConnected
from guestwire.jetstream import Bus
from guestwire.settings import Nats

WHEN = "WHEN is 90s, 15m, 1h or 7d ago, a time (RFC 3339), a revision, or token:TOKEN."
"""For the help of an option of the type below."""

kind_option = click.option(
    "--kind",
    "-k",
    "kinds",
    multiple=True,
    type=click.Choice(codec.kinds()),
    help="Only this kind of facts; may be given more than once.",
)

LONGEST = 120
"""Characters of a value that are shown to people."""

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
DURATION = re.compile(rf"(\d+(?:\.\d+)?)([{''.join(UNITS)}])\Z")


def when(text: str) -> timedelta | datetime | int | Place:
    """The type of an option: a moment in the stream."""
    try:
        if text.startswith("token:"):
            return Place.parse(text.removeprefix("token:"))
        if text.isascii() and text.isdigit() and len(text) < 19:
            return int(text)
        if found := DURATION.match(text):
            return timedelta(**{UNITS[found[2]]: float(found[1])})
        moment = datetime.fromisoformat(text)
    except ConfigError:
        raise click.BadParameter(f"{text!r} holds no token of a change.") from None
    except OverflowError:
        raise click.BadParameter(f"{text!r} is too long ago.") from None
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no moment; write how long ago (90s, 15m, 1h, 7d), a time (2026-01-31T12:00:00Z), "
            "a revision, or token:TOKEN."
        ) from None
    if moment.tzinfo is None:
        raise click.BadParameter(f"{text!r} has no time zone; for UTC write Z behind the time.")
    return moment


@asynccontextmanager
async def connected(nats: Nats, name: str) -> AsyncIterator[Bus]:
    """A connection, now or not at all: whoever asks once does not want to wait for a server to come."""
    bus, stop = Bus(nats, name), asyncio.Event()
    asyncio.get_running_loop().call_later(nats.timeout, stop.set)
    if not await bus.open(stop):
        raise NotConnected(f"cannot reach NATS at {', '.join(nats.servers)}")
    try:
        yield bus
    finally:
        await bus.close()


def local(moment: datetime) -> str:
    """A moment on the clock of whoever reads, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def lines(differences: list[Difference]) -> list[str]:
    """Differences for people: what came, what went, and `path: old -> new`."""
    return [_line(each) for each in differences]


def _line(each: Difference) -> str:
    path = plain(each.path)
    if each.old is None:
        return click.style(f"+ {path}: {_shown(each.new)}", fg="green")
    if each.new is None:
        return click.style(f"- {path}: {_shown(each.old)}", fg="red")
    return f"  {path}: {_shown(each.old)} -> {_shown(each.new)}"


def _shown(value: Value) -> str:
    """A value for a line on a terminal: what a guest says may be long, and cannot command it."""
    text = plain(msgspec.json.encode(value).decode())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
