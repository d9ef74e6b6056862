"""`guestwire schema`: the contract as JSON Schema."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from guestwire import codec, kinds


@click.command()
@click.argument("kind", required=False, type=click.Choice(codec.kinds()))
@click.option("--write", type=click.Path(file_okay=False), help="Write every kind's schema into this directory.")
@click.option("--check", type=click.Path(file_okay=False), help="Exit with 1 when the files there differ.")
def schema(kind: str | None, write: str | None, check: str | None) -> None:
    """Print the JSON Schema of a kind's message body."""
    if kind:
        click.echo(render(kind), nl=False)
    elif write:
        for name in codec.kinds():
            (Path(write) / f"{name}.v1.json").write_text(render(name))
    elif check:
        stale = [name for name in codec.kinds() if _read(Path(check) / f"{name}.v1.json") != render(name)]
        if stale:
            sys.exit(f"guestwire: {check} differs from the structs for {', '.join(stale)}: run `make schema`")
    else:
        raise click.UsageError(f"name a kind: {', '.join(codec.kinds())}")


def render(kind: str) -> str:
    """The schema file's text."""
    return msgspec.json.format(msgspec.json.encode(kinds.schema(kind)), indent=2).decode() + "\n"


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
