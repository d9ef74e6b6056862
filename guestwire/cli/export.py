"""`guestwire export`."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guestwire import subjects
from guestwire.cli.group import run_stage
from guestwire.health import HealthServer
from guestwire.jetstream import Bus
from guestwire.settings import Settings

if TYPE_CHECKING:
    from guestwire.export.exporter import Store


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--to", "form", type=click.Choice(["duckdb", "parquet"]), required=True, help="A file, or a directory.")
@click.option("--cluster", help="Only guests of this cluster; of all clusters on the stream without it.")
@click.option("--namespace", "-n", help="Only guests of this namespace.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until stopped, with health pages.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1, max=3600),
    default=10.0,
    show_default=True,
    help="Seconds between two writes while following.",
)
def export(path: Path, form: str, cluster: str | None, namespace: str | None, every: float, *, follow: bool) -> None:
    """
    Write the stream's history and the present state into tables, each message once.

    Another run goes on where the last one ended, whatever ended it.

    \b
    guestwire export --to duckdb guests.duckdb
    guestwire export --to parquet guests --follow
    """  # noqa: D301 - click's sign for a paragraph to be left as it is

    async def main(settings: Settings, stop: asyncio.Event) -> None:
        from guestwire.export.exporter import Exporter  # noqa: PLC0415
        from guestwire.export.progress import Line  # noqa: PLC0415

        pattern = subjects.pattern(cluster=cluster, namespace=namespace)
        line, bus, began = Line(sys.stderr), Bus(settings.nats, "export"), time.monotonic()
        exporter = Exporter(bus, _store(form, path), pattern=pattern, follow=follow, every=every, report=line.show)

        def conditions() -> dict[str, bool]:
            return {"connected to NATS": bus.connected, "writing what comes": exporter.working}

        async with AsyncExitStack() as resources:
            if follow:
                await resources.enter_async_context(HealthServer(settings.export.health, conditions))
            resources.push_async_callback(bus.close)
            if await bus.open(stop):
                await exporter.run(stop)
                line.end(exporter.progress, time.monotonic() - began)

    run_stage(main)


def _store(form: str, path: Path) -> Store:
    if form == "duckdb":
        from guestwire.export.duckdb_store import DuckDBStore  # noqa: PLC0415

        return DuckDBStore(path)
    from guestwire.export.parquet_store import ParquetStore  # noqa: PLC0415

    return ParquetStore(path)
