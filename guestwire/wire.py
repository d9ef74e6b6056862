"""
nats-py's client, with a short way for many messages at once.

nats-py makes every message of a dictionary, wakes its flusher for each, and turns every message that arrives into an
object, a dictionary, a queue entry and a task's turn. That is more work than the server has with it. `Wire` hands over
messages that are framed already in large pieces, and takes what arrives as bytes where the parser finds it
(`guestwire.parser`).
Connecting and reconnecting, subscriptions, pings and the buffer are nats-py's as ever.

A connection that is given up is let go of at once. nats-py first waits until all is sent, and a server that stands
still, or whose host is gone without a word, takes nothing; one whose handshake failed it forgets, open.

nats-py offers no public way to do any of it. This relies on eleven private parts of it: `_pending` and
`_pending_data_size` (what its flusher is to send), `_transport` and its `_io_writer`; `_ps` (its parser),
`_process_msg()` (called for each message, raw), `_max_payload`, `_subs` and `Subscription._id`; `_attempt_reconnect()`
and `_connect_to_server()` (called before another connection is tried). No other module does, and
`tests/integration/publishers/test_wire.py` and `tests/integration/nats/test_handshake.py` prove that they are what is
assumed here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import count

import msgspec
import nats.errors
from nats.aio.client import Client, Srv

from guestwire.headers import Headers
from guestwire.parser import RawParser, Take

PIECE = 64 * 1024
"""Bytes that are handed over at once: enough to make the cost of doing so vanish, and no more than the server reads."""
LINE_END = b"\r\n"
BLOCK_BEGIN = "NATS/1.0\r\n"

Answer = bytes | nats.errors.Error
"""What the receiver said; or TimeoutError, NoRespondersError, MaxPayloadError in its place."""


class Content(msgspec.Struct, frozen=True, gc=False):
    """A message: `headers` are lines of printable ASCII, each with CR LF at its end; see `codec.event_lines`."""

    subject: str
    headers: str
    body: bytes


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A message as it arrived."""

    subject: str
    reply: str
    body: bytes
    headers: Headers


class Wire(Client):
    """A connection to NATS."""

    def __init__(self) -> None:
        super().__init__()
        self._rounds: dict[bytes, _Round] = {}
        self._numbers = count()
        self._answers_to = b""
        self._takers: dict[int, Take] = {}
        """By the number of a subscription, for those whose messages do not go nats-py's way."""
        self._ps = RawParser(self, self._takers, self.stats)

    def abort(self) -> None:
        """End the connection without sending what is buffered."""
        writer = getattr(self._transport, "_io_writer", None)
        if isinstance(writer, asyncio.StreamWriter):
            writer.transport.abort()

    async def _attempt_reconnect(self) -> None:
        self.abort()
        await super()._attempt_reconnect()

    async def _connect_to_server(self, s: Srv) -> None:
        self.abort()
        await super()._connect_to_server(s)

    async def publish_many(self, contents: Iterable[Content]) -> None:
        """
        Hand over messages, in order. Raises MaxPayloadError before anything of such a message is sent, and
        ConnectionError when the connection is down: nothing is kept to be sent later.
        """
        frames = (frame(content, "", self._max_payload) for content in contents)
        await self._hand_over(frames)

    async def request_many(
        self,
        contents: Sequence[Content],
        timeout: float,  # noqa: ASYNC109
        *,
        apart: bool = True,
    ) -> list[Answer]:
        """
        Hand over messages, in order, and wait up to `timeout` seconds for an answer to each; the answers in the same
        order. A connection lost meanwhile leaves answers out; the messages may have arrived all the same.

        Answers come by a subject each. If they are not to be told `apart` they share one, which saves the server a
        good part of its work (it looks for the way to a subject once), and are taken to be in the order in which they
        arrive.
        """
        if not self._answers_to:
            await self._listen_to_answers()
        number = str(next(self._numbers))
        waiting = self._rounds[number.encode()] = _Round(len(contents))
        inbox = self._answers_to.decode() + number
        try:
            async with asyncio.timeout(timeout):
                await self._hand_over(self._requests(contents, waiting, inbox, apart))
                await waiting.complete
        except OSError:  # also TimeoutError: what was not heard stays unanswered
            pass
        finally:
            del self._rounds[number.encode()]
        return waiting.answers

    def _requests(self, contents: Iterable[Content], waiting: _Round, inbox: str, apart: bool) -> Iterable[bytes]:
        for index, content in enumerate(contents):
            try:
                yield frame(content, f"{inbox}.{index}" if apart else inbox, self._max_payload)
            except nats.errors.MaxPayloadError as error:
                waiting.take(index, error)

    @contextlib.asynccontextmanager
    async def listening(self, subject: str, take: Callable[[Delivery], None]) -> AsyncIterator[None]:
        """
        Subscribe, and have each message given to `take` when it is read: a plain function that only puts it somewhere.
        Nothing is dropped for a slow reader; flow control bounds what waits.
        """
        number = await self._subscribe(
            subject, lambda to, reply, body, raw: take(Delivery(to.decode(), reply.decode(), body, Headers(raw or b"")))
        )
        subscription = self._subs[number]
        try:
            yield
        finally:
            del self._takers[number]
            with contextlib.suppress(nats.errors.Error, OSError):  # the server forgets who is not connected
                await subscription.unsubscribe()

    async def _subscribe(self, subject: str, take: Take) -> int:
        subscription = await self.subscribe(subject)
        number: int = subscription._id  # noqa: SLF001
        self._takers[number] = take
        return number

    async def _listen_to_answers(self) -> None:
        inbox = self.new_inbox()
        self._answers_to = f"{inbox}.".encode()
        await self._subscribe(f"{inbox}.>", self._take_answer)

    async def _hand_over(self, frames: Iterable[bytes]) -> None:
        piece: list[bytes] = []
        size = 0
        for each in frames:
            piece.append(each)
            size += len(each)
            if size >= PIECE:
                await self._hand_over_piece(piece, size)
                piece, size = [], 0
        if piece:
            await self._hand_over_piece(piece, size)

    async def _hand_over_piece(self, piece: list[bytes], size: int) -> None:
        if not self.is_connected or self._transport is None:
            raise ConnectionError("not connected")
        self.stats["out_msgs"] += len(piece)
        self.stats["out_bytes"] += size
        # At once: nats-py's flusher has its turn only after everybody else who has something to send, and the server
        # would have nothing to do until then. What is waiting for the flusher goes first.
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        self._transport.writelines([*pending, b"".join(piece)])
        # It waits while too much is buffered.
        await self._transport.drain()  # type: ignore[no-untyped-call]

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        take = self._takers.get(sid)
        if take is None:
            await super()._process_msg(sid, subject, reply, data, headers or b"")
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        take(subject, reply, data, headers)

    def _take_answer(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        nobody = headers and headers.startswith(b"NATS/1.0 503")
        answer = nats.errors.NoRespondersError() if nobody else data
        to = subject[len(self._answers_to) :]
        if waiting := self._rounds.get(to):
            waiting.take_next(answer)
            return
        number, _, index = to.partition(b".")
        if index.isdigit() and (waiting := self._rounds.get(number)):
            waiting.take(int(index), answer)


class _Round:
    """Requests that were handed over together, and their answers so far."""

    __slots__ = ("_left", "_next", "_unanswered", "answers", "complete")

    def __init__(self, requests: int) -> None:
        self._unanswered = nats.errors.TimeoutError("no answer")
        self.answers: list[Answer] = [self._unanswered] * requests
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = requests
        self._next = 0

    def take(self, index: int, answer: Answer) -> None:
        """An answer; a second one to the same request, or one that nobody asked for, changes nothing."""
        answers = self.answers
        if index >= len(answers) or answers[index] is not self._unanswered:
            return
        answers[index] = answer
        self._left -= 1
        if not self._left and not self.complete.done():
            self.complete.set_result(None)

    def take_next(self, answer: Answer) -> None:
        """An answer to the first request that has none."""
        index = self._next
        while index < len(self.answers) and self.answers[index] is not self._unanswered:
            index += 1
        self._next = index + 1
        self.take(index, answer)


def frame(content: Content, reply: str, largest: int) -> bytes:
    """
    A message as NATS's protocol has it (HPUB). Raises MaxPayloadError where headers and body together are more than the
    server takes: it would close the connection, and nats-py counts the body alone.
    """
    lines, body = content.headers, content.body
    block = len(BLOCK_BEGIN) + len(lines) + len(LINE_END)
    total = block + len(body)
    if total > largest:
        raise nats.errors.MaxPayloadError
    head = f"HPUB {content.subject} {reply} {block} {total}\r\n{BLOCK_BEGIN}{lines}\r\n"
    return b"".join((head.encode("ascii"), body, LINE_END))
