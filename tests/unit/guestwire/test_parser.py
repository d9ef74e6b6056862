"""Messages that are taken raw are those that nats-py's parser finds, however they arrive."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from guestwire.parser import RawParser

RAW, OTHER = 1, 22


class Client:
    """What a parser calls; `seen` is all that came, in order."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.seen.append((sid, subject, reply, data, headers))

    async def _process_ping(self) -> None:
        self.seen.append("PING")

    async def _process_pong(self) -> None:
        self.seen.append("PONG")

    async def _process_err(self, error: str) -> None:
        self.seen.append(error)


def message(sid: int, reply: bytes, headers: bytes | None, body: bytes) -> bytes:
    """As a server sends it."""
    to = b"a.%d %d %b" % (sid, sid, reply + b" " if reply else b"")
    if headers is None:
        return b"MSG %b%d\r\n%b\r\n" % (to, len(body), body)
    return b"HMSG %b%d %d\r\n%b%b\r\n" % (to, len(headers), len(headers) + len(body), headers, body)


MESSAGES = st.builds(
    message,
    st.sampled_from([RAW, RAW, RAW, OTHER]),
    st.sampled_from([b"", b"_INBOX.x.1", b"7"]),
    st.sampled_from([None, b"NATS/1.0\r\na: 1\r\n\r\n", b"NATS/1.0 503\r\n\r\n"]),
    st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"\r\n", b"MSG a.1 1 2\r\nx", b"PING\r\n"])),
)
LINES = st.one_of(MESSAGES, MESSAGES, st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'no'\r\n"]))


async def parsed(parser: Parser, data: bytes, sizes: list[int]) -> None:
    """What comes of bytes that arrive in pieces of these sizes, over and over."""
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        await parser.parse(data[at : at + size])
        at, turn = at + size, turn + 1


@given(st.lists(LINES, max_size=12), st.lists(st.integers(1, 200), min_size=1, max_size=4))
async def test_same_as_nats_pys(lines: list[bytes], sizes: list[int]) -> None:
    """Cut into pieces anywhere, with anything in between, the same messages come in the same order, and are counted."""
    theirs, ours, stats = Client(), Client(), {"in_msgs": 0, "in_bytes": 0}
    takers = {RAW: lambda *message: ours.seen.append((RAW, *message))}
    await parsed(Parser(theirs), b"".join(lines), sizes)
    parser = RawParser(ours, takers, stats)
    await parsed(parser, b"".join(lines), sizes)

    assert theirs.seen == ours.seen
    assert b"" == parser.buf
    assert stats["in_msgs"] <= sum(seen[0] == RAW for seen in ours.seen)


async def test_nothing_is_parsed_twice() -> None:
    """A run of messages goes the short way, a piece of the last one included."""
    client, stats, taken = Client(), {"in_msgs": 0, "in_bytes": 0}, list[bytes]()
    parser = RawParser(client, {RAW: lambda _subject, _reply, body, _headers: taken.append(body)}, stats)
    data = b"".join(message(RAW, b"r", None, b"%d" % number) for number in range(1000))
    await parsed(parser, data, [1000])

    assert [b"%d" % number for number in range(1000)] == taken
    assert ([], 1000) == (client.seen, stats["in_msgs"])


async def test_reset() -> None:
    """Of a connection that ended amid a message nothing is left for the next one."""
    taken = list[bytes]()
    takers = {RAW: lambda _subject, _reply, body, _headers: taken.append(body)}
    parser = RawParser(Client(), takers, {"in_msgs": 0, "in_bytes": 0})
    for cut in range(1, len(message(RAW, b"r", None, b"first"))):
        await parser.parse(message(RAW, b"r", None, b"first")[:cut])
        parser.reset()
        await parser.parse(message(RAW, b"r", None, b"second"))

    assert {b"second"} == set(taken)


async def test_rubbish() -> None:
    """What is no protocol is refused as nats-py refuses it."""
    parser = RawParser(Client(), {RAW: lambda *_message: None}, {"in_msgs": 0, "in_bytes": 0})

    with pytest.raises(ProtocolError):
        await parser.parse(message(RAW, b"", None, b"x") + b"MSG rubbish\r\n")
