"""A Parquet export that is killed at any moment whatsoever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from guestwire.errors import ConfigError
from guestwire.export import reading
from tests.unit.export.killed_anywhere import COUNT, export, message

SCRIPT = Path(__file__).with_name("killed_anywhere.py")


def held(directory: Path) -> tuple[list[int], list[tuple[int, str]], list[int]]:
    """Revisions of `events`, `users` (with their names) and `interfaces`."""
    try:
        db = reading.connect(directory)
    except ConfigError:
        return [], [], []
    with db:
        return (
            [row[0] for row in db.execute("SELECT revision FROM events ORDER BY ALL").fetchall()],
            db.execute("SELECT revision, user_name FROM users ORDER BY ALL").fetchall(),
            [row[0] for row in db.execute("SELECT revision FROM interfaces ORDER BY ALL").fetchall()],
        )


def expected(last: int) -> tuple[list[int], list[tuple[int, str]], list[int]]:
    """The same, up to a revision."""
    numbers = range(1, last + 1)
    users = [(number, name) for number in numbers if number % 5 for name in ("a", "b")]
    return list(numbers), users, [number for number in numbers if number % 5 == 0]


def test_killed_before_every_step(tmp_path: Path) -> None:
    """
    Whatever the moment: a reader finds every event up to the position once, with all its rows, and of later ones at
    most a batch that is not committed; the next export makes it whole, whatever its batches are.
    """
    environment = {"PYTHONPATH": str(Path(__file__).parents[3])}
    killed = int(subprocess.check_output([sys.executable, SCRIPT, tmp_path], env=environment, timeout=250))
    for step in range(1, killed + 1):
        directory = tmp_path / str(step)
        directory.mkdir(exist_ok=True)
        events, users, interfaces = held(directory)
        all_users, all_interfaces = expected(len(events))[1:]
        ahead = expected(COUNT)

        assert expected(len(events))[0] == events, step
        assert all_users == users[: len(all_users)], step
        assert ahead[1][: len(users)] == users, step
        assert all_interfaces == interfaces[: len(all_interfaces)], step
        assert ahead[2][: len(interfaces)] == interfaces, step

        export(directory, 7)

        assert expected(COUNT) == held(directory), step
    assert killed > 50


def test_messages_of_several_days() -> None:
    """The messages above are of several days, so that every batch is more than one commit."""
    assert 3 == len({message(number).event.time.date() for number in range(1, COUNT + 1)})
