"""Tokens, moments, and the pairing of messages with the values before them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from guestwire.change import Change, Place
from guestwire.cli.group import group
from guestwire.cli.stream import when
from guestwire.codec import Event
from guestwire.errors import ConfigError
from guestwire.jetstream import Message
from guestwire.pairing import Pairing
from guestwire.snapshot import GuestRef
from guestwire.subjects import Address

CREATED = datetime(2026, 1, 2, tzinfo=UTC)
EVENT = Event("id", "/guestwire/c/h", "uid", CREATED, "")


@given(st.datetimes(datetime(1971, 1, 1), datetime(2500, 1, 1), timezones=st.just(UTC)), st.integers(0, 2**62))  # noqa: DTZ001
def test_token(created: datetime, revision: int) -> None:
    """A place comes back from its token, to the microsecond; the token is one word."""
    place = Place(created, revision)

    assert place == Place.parse(str(place))
    assert str(place).replace("-", "").isalnum()


@given(st.text(max_size=30) | st.from_regex(r"1-[0-9a-f]{1,20}-[0-9]{1,25}", fullmatch=True))
def test_no_token(text: str) -> None:
    """Whatever is written, a place that is taken from it says so itself; else one line names the argument."""
    told = ""
    try:
        told = str(Place.parse(text))
    except ConfigError as error:
        told = str(error)

    assert told.startswith("since: ") or Place.parse(told) == Place.parse(text)


def message(revision: int, guest: int) -> Message:
    """A message about a guest, of a kind whose body is any object."""
    body = f'{{"revision":{revision}}}'.encode()
    return Message(Address("c", GuestRef("ns", str(guest)), "later"), revision, EVENT, body, {})


class Stream:
    """What a stream would answer."""

    def __init__(self, guests: Iterable[int]) -> None:
        self.messages = [message(revision, guest) for revision, guest in enumerate(guests, 1)]

    def before(self, address: Address, revision: int) -> Message | None:
        """The last message of a subject below a revision."""
        found = [each for each in self.messages if each.address == address and each.revision < revision]
        return found[-1] if found else None

    def read(self, pairing: Pairing, batches: Iterable[int], after: int = 0) -> list[Change]:
        """All that came after a revision, in batches, with the lookups that pairing asks for."""
        rest, paired = self.messages[after:], []
        for size in [*batches, len(rest)]:
            batch, rest = rest[:size], rest[size:]
            looked_up = [self.before(address, batch[0].revision) for address in pairing.unknown(batch)]
            paired += pairing.pair(batch, [each for each in looked_up if each])
        return paired


@given(
    st.lists(st.integers(0, 4), max_size=30),
    st.lists(st.integers(1, 5), max_size=8),
    st.integers(0, 30),
    st.sampled_from([0, 900, 10**6]),
)
def test_the_value_before(guests: list[int], batches: list[int], after: int, memory: int) -> None:
    """Wherever reading begins, however messages come in batches, however little is remembered: it is the one before."""
    stream, after = Stream(guests), min(after, len(guests))
    changes = stream.read(Pairing(Place(CREATED, after), memory), batches, after)

    assert list(range(after + 1, len(guests) + 1)) == [change.revision for change in changes]
    for change in changes:
        before = stream.before(change.message.address, change.revision)
        assert (before.body if before else None) == change.old_body
        assert Place(CREATED, change.revision) == Place.parse(change.token)


def test_a_snapshot_that_was_broken_off() -> None:
    """A snapshot that begins again amid itself gives nothing twice; that of another stream gives everything."""
    pairing, messages = Pairing(None), Stream([1, 2, 3]).messages
    pairing.begin(CREATED)
    first = pairing.pair(messages[:2])
    pairing.begin(CREATED)
    second = pairing.pair(messages)
    pairing.begin(CREATED + timedelta(seconds=1))
    third = pairing.pair(messages)

    assert [[1, 2], [3], [1, 2, 3]] == [[change.revision for change in part] for part in (first, second, third)]
    assert [[True, False], [False], [True, False, False]] == [
        [change.reset for change in part] for part in (first, second, third)
    ]
    assert all(change.snapshot for change in [*first, *second, *third])


def test_nothing_is_looked_up_behind_a_snapshot() -> None:
    """Who has seen everything asks for nothing: a subject that is new then has no value before."""
    pairing, messages = Pairing(None), Stream([1, 2, 1, 3]).messages
    pairing.begin(CREATED)
    pairing.pair(messages[:2])
    pairing.complete()

    assert [] == pairing.unknown(messages[2:])
    assert [messages[0].body, None] == [change.old_body for change in pairing.pair(messages[2:])]


def test_moments() -> None:
    """How long ago, a time, a revision, a token."""
    assert [timedelta(seconds=90), timedelta(minutes=15), timedelta(hours=1.5), timedelta(days=7), 4711] == [
        when(text) for text in ("90s", "15m", "1.5h", "7d", "4711")
    ]
    assert CREATED == when("2026-01-02T00:00:00Z") == when("2026-01-02T01:00:00+01:00")
    assert Place(CREATED, 7) == when(f"token:{Place(CREATED, 7)}")


@pytest.mark.parametrize("command", [["watch"], ["diff"], ["history", "a/b", "userlist"]])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("yesterday", "is no moment"),
        ("2026-01-31T12:00:00", "has no time zone"),
        ("token:nonsense", "holds no token"),
        ("999999999999999d", "too long ago"),
        ("2026-01-31T12:00:00+99:00", "is no moment"),
    ],
)
def test_no_moment(command: list[str], text: str, words: str) -> None:
    """A moment that is none: status 2, and a line that names the option."""
    result = CliRunner().invoke(group, [*command, "--since", text])

    assert 2 == result.exit_code
    assert "--since" in result.output.splitlines()[-1]
    assert words in result.output.splitlines()[-1]
