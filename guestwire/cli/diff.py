"""`guestwire diff`: what is different between two moments, of a guest or of all."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import click
import msgspec

from guestwire import codec, logs
from guestwire.change import Change, Place
from guestwire.cli import one_line_errors
from guestwire.cli.doctor import plain
from guestwire.cli.group import load_settings
from guestwire.cli.narrate import tell
from guestwire.cli.stream import WHEN, connected, kind_option, lines, local, when
from guestwire.difference import Difference, difference
from guestwire.errors import GuestwireError
from guestwire.settings import Settings
from guestwire.snapshot import GuestRef
from guestwire.subjects import Address
from guestwire.subscription import Since, changes, locate


class Span(msgspec.Struct):
    """The first and the last change of a subject between two moments: all that is needed of those in between."""

    first: Change
    last: Change

    def differences(self) -> list[Difference]:
        """What is different at the end."""
        return difference(self.last.kind, self.first.old_body, self.last.body)

    @property
    def replaced(self) -> bool:
        """Whether it is another guest of the same name."""
        return self.first.old is not None and self.first.old_uid != self.last.uid


class Line(msgspec.Struct, omit_defaults=True, rename="camel"):
    """What is different of a subject, as a program reads it."""

    cluster: str
    namespace: str
    name: str
    kind: str
    revision: int
    time: str
    host: str
    uid: str
    differences: list[Difference]
    old_uid: str = ""
    old_lost: bool = False


@click.command()
@click.argument("guest", required=False, metavar="[[NAMESPACE/]NAME]")
@click.argument("kind", required=False, type=click.Choice(codec.kinds()))
@kind_option
@click.option("--namespace", "-n", help="Only guests of this namespace.")
@click.option("--since", type=when, metavar="WHEN", default="1h", show_default=True, help=f"From when on. {WHEN}")
@click.option("--until", type=when, metavar="WHEN", help="Up to when; without it, up to now.")
@click.option(
    "--output", "-o", type=click.Choice(["text", "json"]), default="text", help="For people, or one object a line."
)
def diff(
    guest: str | None,
    kind: str | None,
    kinds: tuple[str, ...],
    namespace: str | None,
    since: Since,
    until: Since,
    output: str,
) -> None:
    """
    Show what is different between two moments: of one kind of facts about a guest, of a guest, or of all guests.

    \b
    guestwire diff prod/db1 userlist --since 4711 --until 4802    between two revisions
    guestwire diff prod/db1 --since 7d                            of a guest since last week
    guestwire diff -n prod -k guestosinfo --since 2026-01-31T12:00:00Z

    Revisions are those that `guestwire history` and `guestwire watch -o table` show; each is a moment of the whole
    stream. What came and went in between is not shown.
    """  # noqa: D301 - click's mark for text that keeps its lines
    if kind and kinds:
        raise click.UsageError("KIND and --kind exclude each other")
    if guest and namespace:
        raise click.UsageError("NAME and --namespace exclude each other: write NAMESPACE/NAME")
    settings = load_settings().settings
    logs.configure(msgspec.structs.replace(settings.log, level="error"))  # it speaks to people
    ref = GuestRef.parse(guest) if guest else None

    with one_line_errors():
        spans = asyncio.run(_spans(settings, ref, namespace, (kind,) if kind else kinds, since, until))
        for span in spans.values():
            if differences := span.differences():
                click.echo(_json(span, differences) if output == "json" else _text(span, differences))


async def _spans(
    settings: Settings,
    ref: GuestRef | None,
    namespace: str | None,
    kinds: tuple[str, ...],
    since: Since,
    until: Since,
) -> dict[Address, Span]:
    """By subject, in the order in which they began to change."""
    spans: dict[Address, Span] = {}
    async with connected(settings.nats, "diff") as bus:
        start, end = await locate(bus, since), await locate(bus, until)
        if end and start and (end.stream != start.stream or end.revision < start.revision):
            raise GuestwireError("--until: that is before --since")
        found = changes(
            bus,
            cluster=settings.cluster,
            namespace=ref.namespace if ref else namespace,
            name=ref.name if ref else None,
            kinds=kinds or None,
            since=start,
            live=False,
        )
        async with aclosing(found):
            async for change in found:
                if change.snapshot:
                    raise GuestwireError("--since: the stream was made anew since then")
                if _behind(change, end):
                    break
                span = spans.setdefault(change.message.address, Span(change, change))
                span.last = change
    return spans


def _behind(change: Change, end: Place | None) -> bool:
    return end is not None and change.revision > end.revision


def _json(span: Span, differences: list[Difference]) -> str:
    last = span.last
    line = Line(
        last.cluster,
        last.ref.namespace,
        last.ref.name,
        last.kind,
        last.revision,
        codec.timestamp(last.observed_at),
        last.host,
        last.uid,
        differences,
        span.first.old_uid if span.replaced else "",
        span.first.old_lost,
    )
    return msgspec.json.encode(line).decode()


def _text(span: Span, differences: list[Difference]) -> str:
    last = span.last
    about = f"{plain(str(last.ref))} {plain(last.kind)}"
    heading = click.style(about, bold=True) + f"  {local(last.observed_at)}, revision {last.revision}"
    if span.first.old is None:
        before = "what was before is not kept" if span.first.old_lost else "nothing before"
        below = [f"  {before}; now: {plain(tell(_alone(last)))}"]
    else:
        below = lines(differences)
    if span.replaced:
        below.insert(0, f"  another guest of that name: uid {plain(span.first.old_uid)} -> {plain(last.uid)}")
    return "\n".join([heading, *(f"  {each}" for each in below)])


def _alone(change: Change) -> Change:
    """As if there was no value before it."""
    return msgspec.structs.replace(change, old=None, old_body=None)
