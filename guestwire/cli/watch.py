"""`guestwire watch`: changes as they come, from NATS."""

from __future__ import annotations

import asyncio

import click
import msgspec

from guestwire import client, codec, logs
from guestwire.cli import one_line_errors
from guestwire.cli.group import load_settings
from guestwire.cli.narrate import Narrator
from guestwire.jetstream import Bus, Message
from guestwire.settings import Settings
from guestwire.snapshot import GuestRef


@click.command()
@click.argument("guest", required=False, metavar="[NAMESPACE/NAME]")
@click.option("--kind", "-k", type=click.Choice(codec.kinds()), help="Only this kind of facts.")
@click.option("--namespace", "-n", help="Only guests of this namespace.")
@click.option("--new", "only_new", is_flag=True, help="Only changes from now on, not the present values.")
@click.option(
    "--output",
    "-o",
    type=click.Choice(["text", "json", "message"]),
    default="text",
    show_default=True,
    help="text: what changed, in words. json: one object a line. message: subject, headers and body as on NATS.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many messages.")
def watch(
    guest: str | None, kind: str | None, namespace: str | None, output: str, count: int | None, *, only_new: bool
) -> None:
    """
    Print the present values and then every change, as they come on NATS.

    \b
    guestwire watch                          everything
    guestwire watch prod/db1 -k userlist     who logs in on one guest
    guestwire watch -o json | jq .           for programs
    """  # noqa: D301 - click's sign for a paragraph to be left as it is
    settings = load_settings().settings
    logs.configure(settings.log)
    ref = GuestRef.parse(guest) if guest else None

    async def main() -> None:
        narrator, left = Narrator(), count
        async with Bus(settings.nats, "watch") as bus:
            async for message in client.follow(
                bus,
                cluster=settings.cluster,
                namespace=ref.namespace if ref else namespace,
                name=ref.name if ref else None,
                kind=kind,
                only_new=only_new,
            ):
                text = render(settings, message, output, narrator)
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


class Line(msgspec.Struct):
    """A change as a program reads it."""

    cluster: str
    namespace: str
    name: str
    kind: str
    revision: int
    time: str
    data: msgspec.Raw


def render(settings: Settings, message: Message, output: str, narrator: Narrator) -> str:
    """One message in the form asked for; empty when there is nothing to say."""
    address = message.address
    match output:
        case "json":
            line = Line(
                settings.cluster,
                address.ref.namespace,
                address.ref.name,
                address.kind,
                message.revision,
                codec.timestamp(message.event.time),
                msgspec.Raw(message.body),
            )
            return msgspec.json.encode(line).decode()
        case "message":
            headers = "\n".join(f"  {name}: {value}" for name, value in message.headers.items())
            body = msgspec.json.format(message.body, indent=2).decode()
            return f"{address.subject} (revision {message.revision})\n{headers}\n\n{body}\n"
        case _:
            words = narrator.tell(message)
            time = message.event.time.astimezone().strftime("%H:%M:%S")
            return f"{time}  {address.ref!s:<24} {address.kind:<15} {words}" if words else ""
