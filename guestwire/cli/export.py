"""`guestwire export`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import click

from guestwire.cli.group import run_stage
from guestwire.jetstream import Bus
from guestwire.settings import Settings


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--to", "form", type=click.Choice(["duckdb", "parquet"]), required=True, help="A file, or a directory.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until stopped.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1, max=3600),
    default=10.0,
    show_default=True,
    help="Seconds between two writes while following.",
)
def export(path: Path, form: str, every: float, *, follow: bool) -> None:
    """
    Write the stream's history and the present state into tables, each message once.

    Another run goes on where the last one ended, whatever ended it.

    \b
    guestwire export --to duckdb guests.duckdb
    guestwire export --to parquet guests --follow
    """  # noqa: D301 - click's sign for a paragraph to be left as it is

    async def main(settings: Settings, stop: asyncio.Event) -> None:
        from guestwire.export.exporter import Exporter, Store  # noqa: PLC0415
        from guestwire.export.progress import Line  # noqa: PLC0415

        store: Store
        if form == "duckdb":
            from guestwire.export.duckdb_store import DuckDBStore  # noqa: PLC0415

            store = DuckDBStore(path)
        else:
            from guestwire.export.parquet_store import ParquetStore  # noqa: PLC0415

            store = ParquetStore(path)
        line, bus, began = Line(sys.stderr), Bus(settings.nats, "export"), time.monotonic()
        exporter = Exporter(bus, store, follow=follow, every=every, report=line.show)
        try:
            if await bus.open(stop):
                await exporter.run(stop)
                line.end(exporter.progress, time.monotonic() - began)
        finally:
            await bus.close()

    run_stage(main)
