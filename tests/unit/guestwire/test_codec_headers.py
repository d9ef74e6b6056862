"""Headers read where they are asked for are the headers that nats-py finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from guestwire import codec
from guestwire.codec import Event
from guestwire.errors import ContractError
from guestwire.headers import Headers
from guestwire.snapshot import GuestRef

LINES = (
    b"ce-id: i\r\nce-source: /guestwire/c/h%252F1\r\nce-guestuid: u%25\r\nce-time: 2026-02-03T04:05:06Z\r\n"
    b"traceparent: 00-aa-bb-01\r\n"
)


TEXT = st.text(min_size=1, max_size=20)
LINE = st.one_of(st.binary(), st.sampled_from([b"a: 1", b"a:2 ", b"b : 3", b"a b: 4", b": 5", b"\xe9: 6"])).map(
    lambda line: line.replace(b"\r\n", b"")
)


@given(st.lists(LINE))
def test_all(lines: list[bytes]) -> None:
    """Whatever arrives, the names and values are nats-py's."""
    block = b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    expected = Client._parse_header_lines(block)
    headers = Headers(b"NATS/1.0\r\n" + block)

    assert expected == dict(headers)
    assert expected == {name: headers[name] for name in expected}
    assert len(expected) == len(headers)


@given(st.lists(LINE.filter(lambda line: (name := line.partition(b":")[0]) == name.strip())))
def test_one(lines: list[bytes]) -> None:
    """A header that is asked for before all were read has the value that nats-py finds, the last of that name."""
    block = b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    expected = Client._parse_header_lines(block)

    assert expected == {name: Headers(b"NATS/1.0\r\n" + block)[name] for name in expected}


def test_missing() -> None:
    """A name that is not there is missing, whether all were read before or not; so is everything where nothing is."""
    headers = Headers(b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\n\r\n")

    assert (None, "7") == (headers.get("Nats-Last"), headers.get("Nats-Last-Consumer"))
    assert ["Nats-Last-Consumer"] == list(headers)
    assert "Nats-Last" not in headers
    assert {} == dict(Headers(b""))


@pytest.mark.parametrize("lines", [LINES, LINES.upper().replace(b"H%252F1", b"h%252F1").replace(b"/GUEST", b"/guest")])
def test_event(lines: bytes) -> None:
    """An event is read from them whatever the case of their names, and decoded."""
    event = Event.of(Headers(b"NATS/1.0\r\n" + lines + b"\r\n"))

    assert ("h/1", "u%", "aa") == (event.host, event.uid.lower(), event.trace_id.lower())


@given(TEXT, TEXT, TEXT, st.sampled_from([b"", b"Nats-Batch-Id: 1\r\n", b"ce-id: other\r\n", b"traceparent: x\r\n"]))
def test_event_as_written(name: str, host: str, uid: str, further: bytes) -> None:
    """Read at once, an event says what it says read name by name, whatever stands behind it."""
    lines = codec.event_lines(
        ref=GuestRef(name, name),
        uid=uid,
        cluster=host,
        host=host,
        kind="userlist",
        time=codec.timestamp(codec.now()),
        message_id="m",
        trace=codec.traceparent(codec.new_trace_id(), "00f067aa0ba902b7"),
    )
    headers = Headers(b"NATS/1.0\r\n" + lines.encode() + further + b"\r\n")
    event = Event.of(headers)

    assert Event.of(dict(headers)) == event
    assert (uid, host) == (event.uid, event.host)


def test_event_incomplete() -> None:
    """Without one of them it is no event of ours."""
    for name in (b"ce-id", b"ce-source", b"ce-guestuid", b"ce-time"):
        with pytest.raises(ContractError, match=name.decode()):
            Event.of(Headers(b"NATS/1.0\r\n" + LINES.replace(name, b"ce-other") + b"\r\n"))
