"""The questions of examples/analytics, asked of a simulated month whose answers are known."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from matplotlib.image import imread

from examples.analytics import answers, plot
from examples.analytics.fleet import SimulatedGuest
from examples.analytics.simulate_month import connection, simulate
from guestwire import codec
from guestwire.export.duckdb_store import DuckDBStore
from guestwire.export.exporter import Exporter
from guestwire.export.parquet_store import ParquetStore
from tests.conftest import part
from tests.integration.export.conftest import ask

NUMBERS = (*range(40), 47, 91, 171, 251)
STEP = timedelta(hours=6)
FOLDER = Path(answers.__file__).parent


@pytest.fixture(scope="module")
def end() -> datetime:
    """Of the month."""
    return codec.now().replace(minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def exports(end: datetime, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The month in both forms, from a stream that keeps 64 messages of each subject."""
    below = tmp_path_factory.mktemp("month")
    paths = {"duckdb": below / "guests.duckdb", "parquet": below / "guests"}
    missed = []

    async def month() -> None:
        async with connection(None) as bus:

            async def export(_at: datetime) -> None:
                for store in (DuckDBStore(paths["duckdb"]), ParquetStore(paths["parquet"])):
                    exporter = Exporter(bus, store)
                    await exporter.run(asyncio.Event())
                    missed.append(exporter.progress.missed)

            await simulate(bus, [SimulatedGuest(number, end) for number in NUMBERS], end, STEP, export)

    with part("nats-server"):
        asyncio.run(month())
    assert {0} == set(missed)
    return paths


@pytest.fixture
def export(form: str, exports: dict[str, Path]) -> Path:
    """The month in each form."""
    return exports[form]


@pytest.fixture
def fleet(end: datetime) -> list[SimulatedGuest]:
    """Those that exist at the month's end."""
    return [guest for guest in (SimulatedGuest(number, end) for number in NUMBERS) if guest.ends is None]


def answer(export: Path, question: str) -> list[tuple[object, ...]]:
    """The rows of one SQL file."""
    return ask(export, (FOLDER / f"{question}.sql").read_text())


@pytest.mark.timeout(280)
def test_os_and_kernel(export: Path, fleet: list[SimulatedGuest], end: datetime) -> None:
    """Every guest that exists is counted under its system and the kernel that it has at the end."""
    running: dict[tuple[str, str], int] = {}
    for guest in fleet:
        info = guest.information(end)
        key = (info.os.pretty_name, info.os.kernel_release)
        running[key] = running.get(key, 0) + 1

    assert sorted((*key, count) for key, count in running.items()) == [
        row[:3] for row in answer(export, "os_and_kernel")
    ]


def test_filling(export: Path, fleet: list[SimulatedGuest]) -> None:
    """Those filesystems that will be full within a week are found, and no other: slow ones and rotated ones are not."""
    assert {("/data", str(guest.ref)) for guest in fleet if guest.fills} == {
        (row[3], f"{row[1]}/{row[2]}") for row in answer(export, "filling")
    }


def test_logged_in(export: Path, fleet: list[SimulatedGuest], end: datetime) -> None:
    """Who is logged in at the end, and nobody who was before."""
    assert sorted((user.user_name, str(guest.ref)) for guest in fleet for user in guest.users(end)) == sorted(
        (row[0], f"{row[2]}/{row[3]}") for row in answer(export, "logged_in")
    )


def test_old_agents(export: Path, fleet: list[SimulatedGuest]) -> None:
    """Agents older than 6.0, compared by numbers: 10.0 is newer."""
    old = [guest for guest in fleet if guest.agent_is_old]

    assert [("2.12.0", "CentOS Linux 7 (Core)", len(old))] == [row[:3] for row in answer(export, "old_agents")]


def test_answers_are_shown(exports: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    """The script shows every question with its answer."""
    answers.main(exports["parquet"])
    shown = capfd.readouterr().out

    assert 4 == len(answers.QUESTIONS)
    assert [True] * 4 == [answers.title(question) in shown for question in answers.QUESTIONS]
    assert "2.12.0" in shown


def test_picture(exports: dict[str, Path], tmp_path: Path) -> None:
    """The picture has all four answers: each quarter is drawn upon in colour."""
    plot.plot(exports["duckdb"], tmp_path / "answers.png")
    picture = imread(tmp_path / "answers.png")
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    quarters = [picture[y : y + height, x : x + width, :3] for y in (0, height) for x in (0, width)]
    coloured = [int((quarter.max(axis=2) - quarter.min(axis=2) > 0.2).sum()) for quarter in quarters]

    assert all(count > 1000 for count in coloured), coloured
