"""Parameters of lists and watches, and how fresh a read shall be."""

from __future__ import annotations

import pytest

from api.fresh import Wish, seconds
from api.options import Continue, OptionError, Options
from guestwire.snapshot import GuestRef


def test_nothing_asked_for() -> None:
    """A plain list of everything as it is now."""
    assert Options() == Options.of({})


def test_everything_asked_for() -> None:
    """Each parameter is taken in."""
    query = {
        "watch": "true",
        "resourceVersion": "7",
        "allowWatchBookmarks": "1",
        "timeoutSeconds": "30",
        "labelSelector": "a=b",
        "fieldSelector": "metadata.name=x",
        "pretty": "true",
    }

    expected = Options(
        revision=7, any_revision=False, labels="a=b", fields="metadata.name=x", watch=True, timeout=30, bookmarks=True
    )
    assert expected == Options.of(query)


@pytest.mark.parametrize("text", ["false", "0", "False", "FALSE"])
def test_flags(text: str) -> None:
    """What is not false is true, an empty value too."""
    assert not Options.of({"watch": text}).watch
    assert Options.of({"watch": ""}).watch


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"limit": "many"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "9" * 30}, "limit"),
        ({"timeoutSeconds": "1.5"}, "timeoutSeconds"),
        ({"resourceVersion": "abc"}, "resourceVersion"),
        ({"resourceVersionMatch": "Newest", "resourceVersion": "1"}, "resourceVersionMatch"),
        ({"resourceVersionMatch": "Exact"}, "resourceVersionMatch"),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, "resourceVersionMatch"),
        ({"resourceVersionMatch": "NotOlderThan", "resourceVersion": "1", "watch": "1"}, "resourceVersionMatch"),
        ({"sendInitialEvents": "true", "watch": "1"}, "sendInitialEvents"),
        ({"sendInitialEvents": "true"}, "sendInitialEvents"),
        ({"continue": "???"}, "continue"),
        ({"continue": "bm8"}, "continue"),
        ({"continue": Continue(1, "a", "b").token(), "resourceVersion": "1"}, "resourceVersion"),
    ],
)
def test_what_cannot_be(query: dict[str, str], named: str) -> None:
    """The message begins with the parameter's name."""
    with pytest.raises(OptionError, match=f"^{named}: "):
        Options.of(query)


@pytest.mark.parametrize("ref", [GuestRef("a", "b"), GuestRef("ü ä", "x/y?&=\n"), GuestRef("", "")])
def test_continue(ref: GuestRef) -> None:
    """A token holds where a list goes on, whatever the name."""
    token = Continue(12, ref.namespace, ref.name).token()

    assert (12, ref) == (Continue.parse(token).revision, Continue.parse(token).ref)
    assert token.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    ("text", "expected"), [("5s", 5), ("500ms", 0.5), ("1m30s", 90), ("2h", 7200), ("10", 10), ("0", 0), ("1.5s", 1.5)]
)
def test_seconds(text: str, expected: float) -> None:
    """Durations as Go writes them."""
    assert expected == seconds(text)


@pytest.mark.parametrize("text", ["", "s", "-1s", "5 s", "1d", "soon", "1" * 60, "1e3"])
def test_no_seconds(text: str) -> None:
    """The parameter is named."""
    with pytest.raises(OptionError, match=r"^maxAge: "):
        seconds(text)


def test_wishes() -> None:
    """Nothing is wished for unless it is said."""
    assert Wish() == Wish.of({})
    assert Wish(5, stale=True) == Wish.of({"maxAge": "5s", "allowStale": "true"})
    with pytest.raises(OptionError, match=r"^allowStale: "):
        Wish.of({"allowStale": "maybe"})
