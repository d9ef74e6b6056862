"""The `guestwire` command: its options, its settings, and the commands below it, loaded when called."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

import click

from guestwire import __version__, lifecycle, logs, settings
from guestwire.cli import COMMANDS, load_command, one_line_errors
from guestwire.settings import Loaded, Settings


class Commands(click.Group):
    """Commands by name, each imported only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return cast("click.Command", load_command(cmd_name)) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="guestwire")
@click.option(
    "--config",
    "-c",
    type=click.Path(dir_okay=False),
    help="TOML file of settings (default: $GUESTWIRE_CONFIG). The environment wins over it.",
)
@click.pass_context
def group(ctx: click.Context, config: str | None) -> None:
    """
    What QEMU guest agents know about virtual machines, the moment it changes: on NATS, in VMI status, over REST.

    On a host with libvirt, `guestwire up` runs it all. Every setting has a name in the environment:
    `guestwire config` lists them.
    """
    ctx.obj = config


def load_settings() -> Loaded:
    """The settings in force, from the file of `--config` and the environment; ends the process when they are wrong."""
    with one_line_errors():
        return settings.load(click.get_current_context().find_root().obj)


def run_stage(
    main: Callable[[Settings, asyncio.Event], Awaitable[None]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run one process of the pipeline, `await main(settings, stop)`, to its end, and exit with its status."""
    loaded = load_settings()
    logs.configure(loaded.settings.log)

    with one_line_errors():
        sys.exit(
            lifecycle.run(
                partial(main, loaded.settings), grace=loaded.settings.shutdown_grace, loop_factory=loop_factory
            )
        )
