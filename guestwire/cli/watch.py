"""`guestwire watch`: changes as they come, from NATS."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import click
import msgspec

from guestwire import codec, logs
from guestwire.change import Change
from guestwire.cli import one_line_errors
from guestwire.cli.doctor import plain
from guestwire.cli.group import load_settings
from guestwire.cli.narrate import tell
from guestwire.cli.stream import WHEN, kind_option, local, when
from guestwire.jetstream import Bus, translated
from guestwire.snapshot import GuestRef
from guestwire.subscription import Since, changes

HEADING = f"{'TIME':<19}  {'REVISION':>8}  {'GUEST':<24} {'KIND':<15} {'HOST':<16} CHANGE"


@click.command()
@click.argument("guest", required=False, metavar="[NAMESPACE/NAME]")
@kind_option
@click.option("--namespace", "-n", help="Only guests of this namespace.")
@click.option("--since", type=when, metavar="WHEN", help=f"What changed since, not the present values. {WHEN}")
@click.option("--new", "only_new", is_flag=True, help="Only changes from now on, not the present values.")
@click.option("--no-follow", is_flag=True, help="End with what is there, do not wait for more.")
@click.option(
    "--output",
    "-o",
    type=click.Choice(["text", "table", "json", "message"]),
    default="text",
    show_default=True,
    help="text: what changed, in words. table: the same in columns. json: one object a line. message: subject, "
    "headers and body as on NATS.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many messages.")
def watch(
    guest: str | None,
    kinds: tuple[str, ...],
    namespace: str | None,
    since: Since,
    output: str,
    count: int | None,
    *,
    only_new: bool,
    no_follow: bool,
) -> None:
    """
    Print the present values and then every change, as they come on NATS.

    \b
    guestwire watch                          everything
    guestwire watch prod/db1 -k userlist     who logs in on one guest
    guestwire watch --since 1h --no-follow   what changed in the last hour
    guestwire watch -o json | jq .           for programs

    Each object of -o json holds a token; --since token:TOKEN goes on behind it, without loss or doubles.
    """  # noqa: D301 - click's sign for a paragraph to be left as it is
    if only_new and since is not None:
        raise click.UsageError("--new and --since exclude each other")
    settings = load_settings().settings
    logs.configure(settings.log)
    ref = GuestRef.parse(guest) if guest else None

    async def main() -> None:
        left = count
        if output == "table":
            click.echo(HEADING)
        async with (
            Bus(settings.nats, "watch") as bus,
            aclosing(
                changes(
                    bus,
                    cluster=settings.cluster,
                    namespace=ref.namespace if ref else namespace,
                    name=ref.name if ref else None,
                    kinds=kinds or None,
                    since=await last_revision(bus) if only_new else since,
                    live=not no_follow,
                )
            ) as found,
        ):
            async for change in found:
                text = render(change, output)
                if text:
                    click.echo(text)
                    left = left and left - 1
                    if left == 0:
                        return

    with one_line_errors():
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            return


class Line(msgspec.Struct, omit_defaults=True, rename="camel"):
    """A change as a program reads it."""

    cluster: str
    namespace: str
    name: str
    kind: str
    revision: int
    time: str
    data: msgspec.Raw
    uid: str
    host: str
    token: str
    old: msgspec.Raw | None = None
    """The value before, where there was one and it is known."""
    old_uid: str = ""
    """Whose it was, where it was another guest's of the same name."""
    old_lost: bool = False
    snapshot: bool = False
    reset: bool = False


def render(change: Change, output: str) -> str:
    """One change in the form asked for; empty when there is nothing to say."""
    match output:
        case "json":
            return msgspec.json.encode(line(change)).decode()
        case "message":
            message = change.message
            headers = "\n".join(f"  {name}: {value}" for name, value in message.headers.items())
            body = msgspec.json.format(message.body, indent=2).decode()
            return f"{message.address.subject} (revision {message.revision})\n{headers}\n\n{body}\n"
    words = plain(tell(change))
    if not words:
        return ""
    guest = plain(str(change.ref))
    if output == "table":
        host = plain(change.host)
        time = local(change.observed_at)
        return f"{time}  {change.revision:>8}  {guest:<24} {change.kind:<15} {host:<16} {words}"
    time = change.observed_at.astimezone().strftime("%H:%M:%S")
    return f"{time}  {guest:<24} {change.kind:<15} {words}"


def line(change: Change) -> Line:
    """A change as an object of JSON."""
    return Line(
        change.cluster,
        change.ref.namespace,
        change.ref.name,
        change.kind,
        change.revision,
        codec.timestamp(change.observed_at),
        msgspec.Raw(change.body),
        change.uid,
        change.host,
        change.token,
        msgspec.Raw(change.old_body) if change.old_body is not None else None,
        change.old_uid if change.old_uid != change.uid else "",
        change.old_lost,
        change.snapshot,
        change.reset,
    )


async def last_revision(bus: Bus) -> int:
    """Where new changes begin."""
    with translated(f"stream {bus.settings.stream}"):
        return (await bus.js.stream_info(bus.settings.stream)).state.last_seq
