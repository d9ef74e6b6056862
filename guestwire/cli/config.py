"""`guestwire config`."""

from __future__ import annotations

from collections.abc import Iterable

import click
import msgspec

from guestwire.cli.group import load_settings
from guestwire.settings import Entry, Loaded, Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@click.option("--changed", is_flag=True, help="Only what differs from the defaults.")
@click.option("--markdown", is_flag=True, help="A table of the defaults, for the documentation.")
def config(*, as_json: bool, changed: bool, markdown: bool) -> None:
    """Show every setting in force, where it came from, and its name in the environment."""
    if markdown:
        click.echo(table(Loaded(Settings(), {}).entries()), nl=False)
        return
    entries = [entry for entry in load_settings().entries() if not changed or entry.value != entry.default]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({entry.path: entry for entry in entries}), indent=2))
        return
    for entry in entries:
        value = msgspec.json.encode(entry.value).decode()
        click.echo(f"{click.style(entry.path, bold=True)} = {value}")
        click.echo(f"    {entry.description}")
        click.echo(f"    from {entry.source}; set {entry.variable}")


def table(entries: Iterable[Entry]) -> str:
    """Settings as a Markdown table."""
    rows = [("Setting", "Default", "In the environment", "Meaning"), ("---",) * 4]
    for entry in entries:
        default = msgspec.json.encode(entry.default).decode()
        rows.append((f"`{entry.path}`", f"`{default}`", f"`{entry.variable}`", entry.description))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
