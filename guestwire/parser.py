"""
nats-py's parser, with a short way for the messages of subscriptions that take them raw.

nats-py looks for each message with several patterns, keeps what it found in a dictionary, cuts the message off the
buffer twice and waits for a coroutine. Of messages that are taken raw there may be tens of thousands a second,
acknowledgements and what is read from the stream, and they come one after another: while they do, one pattern finds
each, and the buffer is cut once. Anything else in between is nats-py's to parse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

Take = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Subject, reply, body, headers."""

_MESSAGE = re.compile(rb"MSG ([^ \r\n]+) (\d+) (?:([^ \r\n]+) )?()(\d+)\r\n")
_WITH_HEADERS = re.compile(rb"HMSG ([^ \r\n]+) (\d+) (?:([^ \r\n]+) )?(\d+) (\d+)\r\n")


class RawParser(Parser):
    """`takers` by the number of their subscription; `stats` is the client's, which counts what arrives."""

    def __init__(self, client: object, takers: Mapping[int, Take], stats: dict[str, int]) -> None:
        super().__init__(client)
        self._takers = takers
        self._stats = stats

    async def parse(self, data: bytes = b"") -> None:
        """What was read from the server."""
        if self.state == AWAITING_CONTROL_LINE:
            data = bytes(self.buf) + data
            end, partial = self._take(data)
            data = data[end:]
            self.buf.clear()
            if partial:
                self.buf.extend(data)
                return
        await super().parse(data)

    def _take(self, data: bytes) -> tuple[int, bool]:
        """How far there is nothing but messages that are taken raw, and whether a part of one follows."""
        at = messages = size = head = total = 0
        subject = reply = line = b""
        take: Take | None = None
        partial = False
        while True:
            if not line or not data.startswith(line, at):  # acknowledgements of many messages repeat it
                found = (_WITH_HEADERS if data.startswith(b"H", at) else _MESSAGE).match(data, at)
                if not found:
                    break
                line = found[0]
                subject, reply = found[1], found[3] or b""
                take, head, total = self._takers.get(int(found[2])), int(found[4] or 0), int(found[5])
            begin = at + len(line)
            body, end = begin + head, begin + total
            partial = take is not None and len(data) < end + 2
            if take is None or partial:
                break
            take(subject, reply, data[body:end], data[begin:body] if head else None)
            at, messages, size = end + 2, messages + 1, size + total
        self._stats["in_msgs"] += messages
        self._stats["in_bytes"] += size
        return at, partial
