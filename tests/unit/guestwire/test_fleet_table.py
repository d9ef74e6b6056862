"""The fleet as lines of text: order, widths, and what reaches the terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.summary import Fullest, Summary
from guestwire.cli import fleet_table
from guestwire.cli.fleet_table import COLUMNS, KEYS, Row, age, chosen, fitted, header, line, measure, overview, widths
from guestwire.snapshot import GuestRef

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def row(name: str, agent: str = "connected", **facts: object) -> Row:
    """A guest."""
    return Row(GuestRef("ns", name), Summary(agent, "Running", "h", **facts), agent)  # type: ignore[arg-type]


ROWS = [
    row("a", users=("alice", "bob"), fullest=Fullest("/", 0.5), observed_at=NOW),
    row("b", "disconnected"),
    row("c", "unresponsive", users=(), fullest=Fullest("/var", 0.99), observed_at=NOW - timedelta(minutes=5)),
]


@pytest.mark.parametrize(("key", "names"), [("g", "abc"), ("a", "cba"), ("u", "abc"), ("d", "cab"), ("s", "bca")])
def test_order(key: str, names: str) -> None:
    """Each column puts first what is looked for; what is not known is where it does not hide that."""
    assert names == "".join(each.ref.name for each in chosen(ROWS, "", KEYS[key], backwards=False))
    assert names[0] != chosen(ROWS, "", KEYS[key], backwards=True)[0].ref.name


@pytest.mark.parametrize(
    ("words", "names"), [("", "abc"), ("alice", "a"), ("NS/B", "b"), ("ns alice bob", "a"), ("x", "")]
)
def test_filter(words: str, names: str) -> None:
    """Every word must be found, in any of the texts."""
    assert names == "".join(each.ref.name for each in chosen(ROWS, words, COLUMNS[0], backwards=False))


def test_stale() -> None:
    """Who is stale counts and sorts as that, whatever the agent was last said to be, and is found by the word."""
    rows = [*ROWS, Row(GuestRef("ns", "d"), Summary("connected", "Running", "h"), "stale")]

    assert "d" == chosen(rows, "", KEYS["a"], backwards=False)[0].ref.name
    assert ["d"] == [each.ref.name for each in chosen(rows, "stale", COLUMNS[0], backwards=False)]
    assert overview(rows).startswith("4 guests, 1 connected, 1 disconnected, 1 unresponsive, 1 stale,")


def test_overview() -> None:
    """Counts by state, and who is logged in."""
    assert "3 guests, 1 connected, 1 disconnected, 1 unresponsive, 2 logged in" == overview(ROWS)


@pytest.mark.parametrize("width", [10, 40, 60, 80, 81, 120, 300])
def test_widths(width: int) -> None:
    """A line is never wider than the terminal; names and the time of the last look stay longest."""
    sizes = widths(width)

    assert len(header(sizes)) <= max(width, COLUMNS[0].least)
    assert sizes[0] >= COLUMNS[0].least
    assert all(sizes) == (width >= 84)


@given(st.text(), st.integers(min_value=1, max_value=40))
def test_fitted(text: str, width: int) -> None:
    """Whatever a guest says, its text takes exactly the width, and holds nothing that a terminal obeys."""
    told = fitted(text, width)

    assert width == measure(told)
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 for each in told)


def test_hostile_names() -> None:
    """Control sequences and marks that turn the direction of text are not passed on."""
    evil = row("\x1b]0;owned\x07\x1b[2J\u202egnol\n", users=("\x9b31m",))
    text = line(evil, widths(200), NOW)

    assert "ns/?]0;owned??[2J?gnol?" in text
    assert [] == [each for each in text if each in "\x1b\x07\x9b\u202e\n"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (200_000, "2d")]
)
def test_age(seconds: float, text: str) -> None:
    """In the largest unit; a clock that is ahead makes no negative age."""
    assert text == age(seconds)


def test_states_to_come() -> None:
    """A state that this version does not know is shown, and comes last."""
    rows = [row("x", "dreaming"), *ROWS]

    assert "x" == chosen(rows, "", KEYS["a"], backwards=False)[-1].ref.name
    assert len(fleet_table.AGENTS) == fleet_table.rank("dreaming")
