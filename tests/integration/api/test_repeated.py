"""Requests that repeat their headers on a connection are answered as if each were the first."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

USERLIST = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm1/userlist"
OURS = "/apis/guestwire.io/v1/namespaces/default/guests/vm1"
GET = f"GET {USERLIST} HTTP/1.1\r\nHost: localhost\r\n"


def with_body(body: str, more: str = "") -> str:
    """A request with a body, be it one that looks like another request."""
    return f"{GET}{more}Content-Length: {len(body)}\r\n\r\n{body}"


REQUESTS = (
    f"{GET}\r\n",
    f"{GET}\r\n\r\n",
    f"{GET}Accept: application/json\r\n\r\n",
    f"{GET}Accept: text/html\r\n\r\n",
    f'{GET}If-None-Match: "2"\r\n\r\n',
    f'{GET}If-None-Match: "1"\r\n\r\n',
    f"GET {USERLIST} HTTP/1.1\r\nhost:\t api \r\n\r\n",
    f"GET {OURS}/userlist HTTP/1.1\r\nHost: localhost\r\n\r\n",
    f"GET {OURS}/agent HTTP/1.1\r\nHost: localhost\r\n\r\n",
    f"GET {OURS}/filesystemlist HTTP/1.1\r\nHost: localhost\r\n\r\n",
    f"GET {USERLIST}/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    f"PUT {USERLIST} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    with_body("GET /"),
    with_body(f"{GET}\r\n"),
    with_body(f"{GET}Accept: application/json\r\n\r\n", "Accept: text/html\r\n"),
)


@pytest.mark.parametrize("seed", range(24))
async def test_random_requests(alone: Any, seed: int) -> None:
    """However requests follow each other and are cut into pieces, each gets what it gets on a connection of its own."""
    choice = random.Random(seed)
    different = [REQUESTS[0], *choice.sample(REQUESTS[1:], choice.randrange(4))]
    requests = [choice.choice(different) for _ in range(60)]
    expected = {}
    for request in different:
        async with alone.connected() as connection:
            connection.writer.write(request.encode())
            expected[request] = (await connection.reply()).timeless
    replies = []
    async with alone.connected() as connection:
        waiting = iter(requests)
        for request in waiting:
            together = [request]
            while choice.random() < 0.3 and (another := next(waiting, None)):
                together.append(another)
            data, cut = "".join(together).encode(), 0
            if choice.random() < 0.2:
                cut = choice.randrange(len(data))
                connection.writer.write(data[:cut])
                await connection.writer.drain()
                await asyncio.sleep(0.002)
            connection.writer.write(data[cut:])
            replies.extend([(await connection.reply()).timeless for _ in together])

    assert [expected[request] for request in requests] == replies


async def test_body_that_looks_like_a_request(alone: Any) -> None:
    """What came as a body and a request behind it, are two requests when it comes again."""
    request = f"{GET}\r\n".encode()
    async with alone.connected() as connection:
        connection.writer.write(f"{GET}Content-Length: {len(request)}\r\n\r\n".encode())
        await connection.reply()
        for _ in range(3):
            connection.writer.write(2 * request)
            await connection.reply()
        last = [await connection.reply() for _ in range(2)]

    assert [200, 200] == [reply.status for reply in last]


async def test_answer_changes(alone: Any) -> None:
    """A repeated request gets the value of its moment: another one, none, one again."""
    replies = []
    async with alone.connected() as connection:
        for change in (
            lambda: alone.userlist("admin"),
            lambda: alone.agent(connected=False),
            alone.agent,
            lambda: setattr(alone.cache, "caught_up", False),
            lambda: setattr(alone.cache, "caught_up", True),
        ):
            for _ in range(3):
                connection.writer.write(f'{GET}If-None-Match: "2"\r\n\r\n'.encode())
                replies.append((await connection.reply()).status)
            change()
        connection.writer.write(f'{GET}If-None-Match: "2"\r\n\r\n'.encode())
        last = await connection.reply()

    assert [304] * 3 + [200] * 3 + [409] * 3 + [200] * 3 + [503] * 3 == replies
    assert b'{"items":[{"userName":"admin"}],"metadata":{}}' == last.body


async def test_connection_in_use_is_kept(alone: Any) -> None:
    """A connection that asks the same again and again is not idle, whatever it asked before (idle is 2 s here)."""
    async with alone.connected() as connection:
        statuses = []
        for path in (USERLIST, "/livez", *[USERLIST] * 12):
            connection.send(f"GET {path} HTTP/1.1", "Host: localhost")
            statuses.append((await connection.reply()).status)
            await asyncio.sleep(0.3)

    assert [200] * 14 == statuses
