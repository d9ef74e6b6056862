"""Many messages at once through nats-py's connection, and what that relies on in nats-py, on a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import nats.errors
import pytest
from nats.aio.msg import Msg

from guestwire.jetstream import Bus
from guestwire.wire import Content
from lab.nats_server import NatsServer
from publishers.single import Acknowledgement

Eventually = Callable[..., Awaitable[float]]


def content(number: int, body: bytes = b"x") -> Content:
    """A message for the stream."""
    return Content(f"guestwire.v1.c.ns.vm{number}.userlist", f"Nats-Msg-Id: {number}\r\n", body)


async def test_answers(bus: Bus) -> None:
    """Each request has its own answer, in the order of the requests, also when several rounds are under way."""
    rounds = [[content(1000 * number + index) for index in range(300)] for number in range(8)]
    answers = await asyncio.gather(*(bus.client.request_many(some, 30) for some in rounds))
    revisions = [[Acknowledgement.of(answer).seq for answer in some] for some in answers]

    assert list(range(1, 2401)) == sorted(revision for some in revisions for revision in some)
    assert revisions == [sorted(some) for some in revisions]


async def test_answers_to_one_subject(bus: Bus) -> None:
    """They are in the order of the requests too, several rounds under way, a request that cannot be sent among them."""
    large = content(-1, b"x" * bus.client.max_payload)
    rounds = [
        [content(1000 * number + index) for index in range(300)] + [large, content(1000 * number + 999)]
        for number in range(8)
    ]
    answers = await asyncio.gather(*(bus.client.request_many(some, 30, apart=False) for some in rounds))

    for number, some in enumerate(answers):
        *revisions, last = [Acknowledgement.of(answer).seq for answer in some if isinstance(answer, bytes)]
        held = await bus.js.get_msg(bus.settings.stream, last)
        assert isinstance(some[300], nats.errors.MaxPayloadError)
        assert 300 == len(revisions)
        assert [*revisions, last] == sorted({*revisions, last})
        assert f"guestwire.v1.c.ns.vm{1000 * number + 999}.userlist" == held.subject


async def test_larger_than_buffers(bus: Bus) -> None:
    """More than nats-py buffers (2 MiB) goes out all the same, and in order."""
    answers = await bus.client.request_many([content(number, b"x" * 100_000) for number in range(100)], 60)

    assert list(range(1, 101)) == [Acknowledgement.of(answer).seq for answer in answers]


async def test_too_large_among_others(bus: Bus) -> None:
    """A message over the server's limit by its headers alone is not sent: the server would end the connection."""
    largest = bus.client.max_payload
    sizes = [1, largest - 10, 1]
    one, two, three = await bus.client.request_many([content(n, b"x" * size) for n, size in enumerate(sizes)], 30)

    assert isinstance(two, nats.errors.MaxPayloadError)
    assert [1, 2] == [Acknowledgement.of(answer).seq for answer in (one, three)]
    assert 0 == bus.client.stats["reconnects"]


async def test_nobody_listens(bus: Bus) -> None:
    """Where no stream takes a subject the server says so at once."""
    [answer] = await bus.client.request_many([Content("elsewhere", "a: b\r\n", b"")], 30)

    assert isinstance(answer, nats.errors.NoRespondersError)


async def test_no_answer(bus: Bus) -> None:
    """Somebody who hears and says nothing leaves its request unanswered, and the others are not held up for longer."""
    await bus.client.subscribe("silence")
    answers = await bus.client.request_many([content(1), Content("silence", "a: b\r\n", b""), content(2)], 1)

    assert [bytes, nats.errors.TimeoutError, bytes] == [type(answer) for answer in answers]


async def test_rubbish_among_answers(bus: Bus) -> None:
    """Answers that nobody asked for, late, doubled or made up, are dropped, and the connection reads on."""
    inboxes: list[str] = []

    async def answer_badly(msg: Msg) -> None:
        inboxes.append(msg.reply)
        inbox = msg.reply.rpartition(".")[0]
        for rubbish in (f"{inbox}.77", f"{inbox}.-1", f"{inbox}.x", f"{inbox.rpartition('.')[0]}.9999.0"):
            await bus.client.publish(rubbish, b"rubbish")
        await bus.client.publish(msg.reply, b"first")
        await bus.client.publish(msg.reply, b"second")

    await bus.client.subscribe("bad", cb=answer_badly)
    answers = await bus.client.request_many([Content("bad", "a: b\r\n", b"")] * 2, 30)
    await bus.client.publish(inboxes[0], b"late")
    [after] = await bus.client.request_many([content(1)], 30)

    assert [b"first", b"first"] == answers
    assert 1 == Acknowledgement.of(after).seq


async def test_other_subscriptions(bus: Bus) -> None:
    """What others subscribe to goes nats-py's way, headers and all, in the order it was sent."""
    taken: asyncio.Queue[Msg] = asyncio.Queue()
    await bus.client.subscribe("aside", cb=taken.put)
    await bus.client.publish_many([Content("aside", f"a: {number}\r\n", b"%d" % number) for number in range(1000)])
    await bus.client.publish("aside", b"last")
    messages = [await asyncio.wait_for(taken.get(), 30) for _ in range(1001)]

    assert [*(b"%d" % number for number in range(1000)), b"last"] == [message.data for message in messages]
    assert [{"a": str(number)} for number in range(1000)] == [message.headers for message in messages[:-1]]


async def test_server_dies(nats_server: NatsServer, bus: Bus, eventually: Eventually) -> None:
    """Killed amid requests: they end in time, answered or not; the connection, once it is back, has answers again."""
    busy = asyncio.gather(
        *(bus.client.request_many([content(1000 * n + i, b"x" * 10_000) for i in range(500)], 5) for n in range(8))
    )
    await asyncio.sleep(0)
    await asyncio.to_thread(nats_server.kill)
    answers = [answer for some in await asyncio.wait_for(busy, 60) for answer in some]
    with pytest.raises(ConnectionError):
        await bus.client.publish_many([content(1)])
    assert {nats.errors.TimeoutError} == {
        type(answer) for answer in await bus.client.request_many([content(1), content(2)], 30)
    }
    await asyncio.to_thread(nats_server.start)
    await eventually(lambda: bus.connected, within=60)
    [after] = await bus.client.request_many([content(-1)], 30)

    assert 4000 == len(answers)
    assert nats.errors.TimeoutError in set(map(type, answers))
    assert Acknowledgement.of(after).seq > 0


async def test_nothing_is_kept_while_away(nats_server: NatsServer, bus: Bus, eventually: Eventually) -> None:
    """What is refused because the connection is down is not sent when it is up again."""
    await asyncio.to_thread(nats_server.stop)
    await eventually(lambda: not bus.connected, within=60)
    with pytest.raises(ConnectionError):
        await bus.client.publish_many([content(number) for number in range(10)])
    await bus.client.request_many([content(number) for number in range(10)], 5)
    await asyncio.to_thread(nats_server.start)
    await eventually(lambda: bus.connected, within=60)
    await bus.client.flush()

    assert 0 == (await bus.js.stream_info(bus.settings.stream)).state.last_seq


async def test_cancelled(bus: Bus) -> None:
    """A cancellation while messages are handed over ends the caller, though nats-py keeps it to itself."""
    many = [content(number, b"x" * 500_000) for number in range(400)]
    task = asyncio.create_task(bus.client.request_many(many, 60))
    await asyncio.sleep(0.01)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)
