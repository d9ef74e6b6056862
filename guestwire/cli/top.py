"""`guestwire top`: the fleet in a terminal, as it is now, from NATS."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from guestwire import logs, subjects
from guestwire.cli import one_line_errors
from guestwire.cli.fleet_table import COLUMNS
from guestwire.cli.group import load_settings
from guestwire.cli.screen import Screen
from guestwire.errors import NotConnected
from guestwire.follower import Follower
from guestwire.jetstream import Bus, translated
from guestwire.lifecycle import cancel
from guestwire.settings import Settings

if TYPE_CHECKING:
    from api.cache import Cache
    from guestwire.cli.picture import Picture

PACE = 0.5
"""Seconds between two pictures while guests change."""

TICK = 1.0
"""Seconds after which ages are counted anew."""


@click.command()
@click.option("--namespace", "-n", help="Only guests of this namespace.")
@click.option(
    "--filter", "-f", "words", default="", help="Only guests with these words: of name, OS, address, users, host."
)
@click.option(
    "--sort",
    "-s",
    type=click.Choice([column.title.lower() for column in COLUMNS]),
    default="guest",
    show_default=True,
    help="The column to sort by.",
)
@click.option("--once", is_flag=True, help="Print the table and end; also where standard output is no terminal.")
def top(namespace: str | None, words: str, sort: str, *, once: bool) -> None:
    """
    Show all guests, and what changes about them, until `q`.

    \b
    guestwire top                      everything
    guestwire top -n prod -s fullest   whose filesystems are fullest
    guestwire top --once -f alice      who has alice logged in
    """  # noqa: D301 - click's sign for a paragraph to be left as it is
    settings = load_settings().settings
    live = not once and sys.stdin.isatty() and sys.stdout.isatty()
    logs.configure(msgspec.structs.replace(settings.log, level="error") if live else settings.log)
    with one_line_errors():
        from guestwire.cli.picture import Picture  # noqa: PLC0415 - it needs the extra `api`

        picture = Picture(words, sort)
        try:
            asyncio.run(run(settings, namespace, picture, live=live))
        except KeyboardInterrupt:
            return


async def run(settings: Settings, namespace: str | None, picture: Picture, *, live: bool) -> None:
    """Follow the stream as the API does, into a cache like the API's. Raises NotConnected where there is none."""
    from api.cache import Cache  # noqa: PLC0415
    from api.purges import Purges  # noqa: PLC0415

    cache = Cache(settings.publish.silence)
    async with Bus(settings.nats, "top") as bus:
        with translated(f"stream {settings.nats.stream}"):
            await bus.js.stream_info(settings.nats.stream)
        follower = Follower(bus, subjects.pattern(cluster=settings.cluster, namespace=namespace), cache)
        purges = Purges(bus, settings.cluster, lambda: cache.fleet.guests, follower.begin_anew)
        following = asyncio.create_task(follower.run())
        looking = asyncio.create_task(purges.run())
        try:
            if live:
                await show(bus, cache, picture)
            else:
                await filled(cache, settings.nats.timeout)
                click.echo(picture.table(cache))
        finally:
            await cancel(following, looking)


async def filled(cache: Cache, timeout: float) -> None:  # noqa: ASYNC109 - of NATS, as everywhere
    """Wait for the end of the fill, as long as there is progress."""
    loop = asyncio.get_running_loop()
    applied, since = -1, loop.time()
    while not cache.level:
        if cache.applied != applied:
            applied, since = cache.applied, loop.time()
        elif loop.time() - since > timeout:
            raise NotConnected("the stream does not send what it holds")
        await asyncio.sleep(0.02)


async def show(bus: Bus, cache: Cache, picture: Picture) -> None:
    """Draw until somebody has had enough: at once after a key, else when something has changed, or time has passed."""
    with Screen() as screen:
        drawn, shown, level = 0.0, -1, False
        while True:
            now = asyncio.get_running_loop().time()
            news = cache.revision != shown or cache.level != level
            if now - drawn >= (PACE if news else TICK):
                drawn, shown, level = now, cache.revision, cache.level
                screen.draw(picture.lines(cache, screen.size, connected=bus.connected))
            try:
                async with asyncio.timeout(0.1):  # wait_for loses a Ctrl-C that comes with a key, up to Python 3.11
                    key = await screen.keys.get()
            except TimeoutError:
                continue
            drawn = 0.0
            if not picture.press(key, screen.size[1] - 4):
                return
