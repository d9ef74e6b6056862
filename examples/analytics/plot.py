"""
The answers as a picture.

    python -m examples.analytics.plot guests.duckdb answers.png

Needs matplotlib.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure

from guestwire.errors import GuestwireError
from guestwire.export import reading

HERE = Path(__file__).parent
BLUE, GREY, RED = "#2b6cb0", "#cbd5e0", "#c53030"
MOST_LINES = 8


def answer(db: duckdb.DuckDBPyConnection, question: str) -> list[tuple[Any, ...]]:
    """The rows of one of the SQL files."""
    return db.execute((HERE / f"{question}.sql").read_text()).fetchall()


def systems(axes: Axes, db: duckdb.DuckDBPyConnection) -> None:
    """How many guests run which kernel of which system: the newer of two in blue."""
    rows = answer(db, "os_and_kernel")
    labels = [f"{os}\n{kernel}" for os, kernel, *_ in rows]
    newest = {os: kernel for os, kernel, *_ in rows}  # the last of each, as they are in order
    colors = [BLUE if newest[os] == kernel else GREY for os, kernel, *_ in rows]
    _bars(axes, labels, [row[2] for row in rows], colors)
    axes.set_title("Guests by system and kernel (blue: newest kernel of its system)")


def filling(axes: Axes, db: duckdb.DuckDBPyConnection) -> None:
    """The filesystems that are full soonest: two weeks of history, and where it leads."""
    rows = answer(db, "filling")
    for _, namespace, name, mount_point, used, _, days, _ in rows[:MOST_LINES]:
        history = db.execute(
            """
            SELECT observed_at, 100 * used_bytes / total_bytes FROM filesystems
            WHERE (namespace, name, mount_point) = (?, ?, ?)
              AND observed_at > (SELECT max(observed_at) FROM filesystems) - INTERVAL 14 DAYS
            ORDER BY observed_at
            """,
            [namespace, name, mount_point],
        ).fetchall()
        times, shares = [row[0] for row in history], [row[1] for row in history]
        (line,) = axes.plot(times, shares, label=f"{namespace}/{name} {mount_point}: {days} days")
        axes.plot([times[-1], times[-1] + timedelta(days=days)], [used, 100], ":", color=line.get_color())
    axes.axhline(100, color=RED, linewidth=1)
    axes.set(ylabel="% used", title=f"Filesystems that are full within a week ({len(rows)}; the first {MOST_LINES})")
    dates = ConciseDateFormatter(axes.xaxis.get_major_locator())  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(dates)
    if rows:
        axes.legend(fontsize=7, loc="lower right")


def people(axes: Axes, db: duckdb.DuckDBPyConnection) -> None:
    """On how many guests each person is logged in, by namespace."""
    rows = db.execute(
        """
        SELECT user_name, count(*) FILTER (namespace = 'prod'), count(*) FROM users_now
        GROUP BY user_name ORDER BY count(*) DESC, user_name LIMIT 15
        """
    ).fetchall()
    axes.bar([row[0] for row in rows], [row[2] for row in rows], color=GREY, label="elsewhere")
    axes.bar([row[0] for row in rows], [row[1] for row in rows], color=RED, label="in prod")
    axes.tick_params(axis="x", rotation=45)
    axes.set(ylabel="guests", title="Who is logged in now")
    axes.legend(fontsize=8)


def agents(axes: Axes, db: duckdb.DuckDBPyConnection) -> None:
    """Guests by version of their agent; the old ones in red."""
    old = {version for version, *_ in answer(db, "old_agents")}
    rows = db.execute(
        """
        SELECT agent_version, count(*) FROM guests WHERE agent_version IS NOT NULL GROUP BY agent_version
        ORDER BY any_value(regexp_extract_all(agent_version, '\\d+')::BIGINT[])
        """
    ).fetchall()
    _bars(axes, [row[0] for row in rows], [row[1] for row in rows], [RED if row[0] in old else BLUE for row in rows])
    axes.set_title("Agents by version (red: older than 6.0)")


def _bars(axes: Axes, labels: Sequence[str], lengths: Sequence[int], colors: Sequence[str]) -> None:
    places = range(len(labels))
    bars = axes.barh(places, lengths, color=colors)
    axes.set_yticks(places, labels, fontsize=7)
    axes.invert_yaxis()
    axes.bar_label(bars, fontsize=7, padding=2)
    axes.set_xlabel("guests")


def plot(export: Path, picture: Path) -> None:
    """Draw all four answers into one file; its name's ending says which format."""
    figure = Figure(figsize=(15, 10), layout="constrained")
    FigureCanvasAgg(figure)
    with reading.connect(export) as db:
        for axes, draw in zip(figure.subplots(2, 2).flat, (systems, filling, people, agents), strict=True):
            draw(axes, db)
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m examples.analytics.plot EXPORT PICTURE")
    try:
        plot(Path(sys.argv[1]), Path(sys.argv[2]))
    except GuestwireError as error:
        sys.exit(f"plot: {error}")
