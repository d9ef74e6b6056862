"""`guestwire schema`: the contract as JSON Schemas, and as one AsyncAPI document."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from guestwire import asyncapi, codec, kinds

ASYNCAPI = "asyncapi"


@click.command()
@click.argument("what", required=False, type=click.Choice((*codec.kinds(), ASYNCAPI)))
@click.option(
    "--write", type=click.Path(file_okay=False), help="Write all schemas and the document into this directory."
)
@click.option("--check", type=click.Path(file_okay=False), help="Exit with 1 when the files there differ.")
def schema(what: str | None, write: str | None, check: str | None) -> None:
    """
    Print the JSON Schema of a kind's message body, or with `asyncapi` the whole contract (subjects, headers, bodies,
    requests) as an AsyncAPI 3 document.
    """
    if what:
        click.echo(render(what), nl=False)
    elif write:
        for name, text in files().items():
            (Path(write) / name).write_text(text)
    elif check:
        stale = [name for name, text in files().items() if _read(Path(check) / name) != text]
        if stale:
            sys.exit(f"guestwire: {check} differs from the structs for {', '.join(stale)}: run `make schema`")
    else:
        raise click.UsageError(f"name a kind or {ASYNCAPI}: {', '.join(codec.kinds())}")


def files() -> dict[str, str]:
    """Every published file: its name and text."""
    return {f"{kind}.v1.json": render(kind) for kind in codec.kinds()} | {"asyncapi.v1.json": render(ASYNCAPI)}


def render(what: str) -> str:
    """A file's text."""
    document = asyncapi.document() if what == ASYNCAPI else kinds.schema(what)
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
