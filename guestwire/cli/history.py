"""`guestwire history`: what became of one kind of facts about a guest, as far as the stream keeps it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing

import click
import msgspec

from guestwire import codec, logs
from guestwire.change import Change
from guestwire.cli import one_line_errors
from guestwire.cli.doctor import plain
from guestwire.cli.group import load_settings
from guestwire.cli.narrate import tell
from guestwire.cli.stream import WHEN, connected, lines, local, when
from guestwire.difference import Difference
from guestwire.errors import GuestwireError
from guestwire.settings import Settings
from guestwire.snapshot import GuestRef
from guestwire.subscription import Since, changes

HEADING = f"{'REVISION':>8}  {'TIME':<19}  HOST"
KEPT = 64
"""Messages that a subject can have (the most that `nats.history` may be)."""


class Entry(msgspec.Struct, omit_defaults=True, rename="camel"):
    """A message of the past as a program reads it."""

    revision: int
    time: str
    host: str
    uid: str
    differences: list[Difference]
    data: msgspec.Raw
    token: str
    old_lost: bool = False


@click.command()
@click.argument("guest", metavar="[NAMESPACE/]NAME")
@click.argument("kind", type=click.Choice(codec.kinds()))
@click.option("--since", type=when, metavar="WHEN", help=f"Only what changed since. {WHEN}")
@click.option("--last", type=click.IntRange(min=1), help="Only so many, the last ones.")
@click.option("--all", "everything", is_flag=True, help="Also messages that repeat what was known (heartbeats).")
@click.option(
    "--output", "-o", type=click.Choice(["table", "json"]), default="table", help="For people, or one object a line."
)
def history(guest: str, kind: str, since: Since, last: int | None, output: str, *, everything: bool) -> None:
    """
    Show what became of one kind of facts about a guest: when, who saw it, and what changed each time.

    \b
    guestwire history prod/db1 userlist               who logged in and out
    guestwire history prod/db1 agent --since 1d       how its agent did today

    The stream keeps the last 64 messages of each kind (nats.history), however old they are.
    """  # noqa: D301 - click's mark for text that keeps its lines
    settings = load_settings().settings
    logs.configure(msgspec.structs.replace(settings.log, level="error"))  # it speaks to people
    ref = GuestRef.parse(guest)

    async def main() -> deque[Change]:
        found: deque[Change] = deque(maxlen=last or KEPT)
        async for change in _of(settings, ref, kind, since):
            if everything or change.old is None or change.old_uid != change.uid or change.differences():
                found.append(change)
        return found

    with one_line_errors():
        found = asyncio.run(main())
        if not found and since is None:
            raise GuestwireError(f"nothing is known of {kind} of {ref} in cluster {settings.cluster}")
        if output == "table":
            click.echo(HEADING)
        for change in found:
            click.echo(_json(change) if output == "json" else _text(change))


async def _of(settings: Settings, ref: GuestRef, kind: str, since: Since) -> AsyncIterator[Change]:
    async with (
        connected(settings.nats, "history") as bus,
        aclosing(
            changes(
                bus, cluster=settings.cluster, namespace=ref.namespace, name=ref.name, kinds=[kind],
                since=0 if since is None else since, live=False,
            )
        ) as found,
    ):  # fmt: skip
        async for change in found:
            yield change


def _json(change: Change) -> str:
    entry = Entry(
        change.revision,
        codec.timestamp(change.observed_at),
        change.host,
        change.uid,
        change.differences(),
        msgspec.Raw(change.body),
        change.token,
        change.old_lost,
    )
    return msgspec.json.encode(entry).decode()


def _text(change: Change) -> str:
    heading = f"{change.revision:>8}  {local(change.observed_at)}  {plain(change.host)}"
    if change.old is None:
        before = "what was before is not kept" if change.old_lost else "the first value"
        below = [f"  {before}; from here on: {plain(tell(change))}"]
    else:
        below = lines(change.differences()) or ["  nothing changed"]
    if change.old is not None and change.old_uid != change.uid:
        below.insert(0, f"  another guest of that name: uid {plain(change.old_uid)} -> {plain(change.uid)}")
    return "\n".join([heading, *(f"          {each}" for each in below)])
