"""Header lines, and the frames around them, are the bytes that nats-py would send."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from guestwire import codec, subjects, wire
from guestwire.codec import Event
from guestwire.snapshot import GuestRef
from guestwire.wire import Content

NOW = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1)


class Recorder(Client):
    """nats-py's client up to the point where bytes go out."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        self.sent += cmd


def by_nats_py(subject: str, reply: str, headers: dict[str, str], body: bytes) -> bytes:
    """A message as nats-py frames it."""
    recorder = Recorder()
    asyncio.run(recorder._send_publish(subject, reply, body, len(body), headers))
    return recorder.sent


def lines(ref: GuestRef, uid: str, cluster: str, host: str) -> str:
    """Of a list of users."""
    return codec.event_lines(
        ref=ref,
        uid=uid,
        cluster=cluster,
        host=host,
        kind="userlist",
        time=codec.timestamp(NOW),
        message_id="id-1",
        trace=codec.traceparent(codec.new_trace_id(), "00f067aa0ba902b7"),
    )


@given(NAMES, NAMES, NAMES, NAMES, NAMES, st.binary())
def test_frame(namespace: str, name: str, uid: str, cluster: str, host: str, body: bytes) -> None:
    """Whatever the names and the body hold, a frame is byte for byte what nats-py makes of the same message."""
    ref = GuestRef(namespace, name)
    block = lines(ref, uid, cluster, host)
    headers = dict(line.split(": ", 1) for line in block.split("\r\n")[:-1])
    subject = subjects.subject(cluster, ref, "userlist")

    assert by_nats_py(subject, "inbox.1", headers, body) == wire.frame(
        Content(subject, block, body), "inbox.1", 1 << 20
    )
    assert by_nats_py(subject, "", headers, body) == wire.frame(Content(subject, block, body), "", 1 << 20)


@given(NAMES, NAMES, NAMES, NAMES, NAMES)
def test_lines_are_read_back(namespace: str, name: str, uid: str, cluster: str, host: str) -> None:
    """nats-py's parser finds in the lines what went in, and nothing else, for no name breaks out of its line."""
    block = lines(GuestRef(namespace, name), uid, cluster, host)
    headers = Client._parse_header_lines(block.encode())
    event = Event.of(headers)

    assert 11 == len(headers)
    assert (uid, host, NOW, "id-1") == (event.uid, event.host, event.time, event.id)


def test_largest() -> None:
    """Headers count: with one byte more than the server takes a message is not framed."""
    content = Content("s", "a: b\r\n", b"x" * 100)
    size = len("NATS/1.0\r\na: b\r\n\r\n") + 100

    assert wire.frame(content, "", size).endswith(b"\r\n")
    with pytest.raises(nats.errors.MaxPayloadError):
        wire.frame(content, "", size - 1)


def test_ascii_only() -> None:
    """Text that is not ASCII cannot go into a frame, whose lengths would be wrong."""
    with pytest.raises(UnicodeEncodeError):
        wire.frame(Content("s", "a: é\r\n", b""), "", 1 << 20)
