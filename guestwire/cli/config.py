"""`guestwire config`."""

from __future__ import annotations

import click
import msgspec

from guestwire.cli.group import load_settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@click.option("--changed", is_flag=True, help="Only what differs from the defaults.")
def config(*, as_json: bool, changed: bool) -> None:
    """Show every setting in force, where it came from, and its name in the environment."""
    entries = [entry for entry in load_settings().entries() if not changed or entry.value != entry.default]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({entry.path: entry for entry in entries}), indent=2))
        return
    for entry in entries:
        value = msgspec.json.encode(entry.value).decode()
        click.echo(f"{click.style(entry.path, bold=True)} = {value}")
        click.echo(f"    {entry.description}")
        click.echo(f"    from {entry.source}; set {entry.variable}")
