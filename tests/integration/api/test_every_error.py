"""Every error is a Status, whoever finds it: the parser, the protocol class, who decides about rights, a route."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from api.authorization import Access, Attributes, Decision
from api.identity import Headers

USERLIST = "/apis/guestwire.io/v1/namespaces/default/guests/vm1/userlist"
GUESTS = "/apis/guestwire.io/v1/guests"


async def no_http(site: Any) -> Any:
    """What is no request."""
    async with site.connected() as connection:
        connection.writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        return await connection.reply()


async def slow(site: Any) -> Any:
    """A head that does not end in time (1 s here)."""
    async with site.connected() as connection:
        connection.writer.write(b"GET /livez HTTP/1.1\r\nX: ")
        return await connection.reply()


async def one_too_many(site: Any) -> Any:
    """A connection beyond the limit (8 here)."""
    async with AsyncExitStack() as stack:
        for _ in range(8):
            held = await stack.enter_async_context(site.connected())
            held.send("GET /livez HTTP/1.1", "Host: api")
            await held.reply()
        extra = await stack.enter_async_context(site.connected())
        return await extra.reply()


async def without_agent(site: Any) -> Any:
    """A guest without a connected agent."""
    site.agent(connected=False)
    return await site.get(
        USERLIST.replace("guestwire.io", "subresources.kubevirt.io").replace("/guests/", "/virtualmachineinstances/")
    )


async def amid_the_first_fill(site: Any) -> Any:
    """Nobody knows yet what there is."""
    site.cache.caught_up = False
    return await site.get(USERLIST)


async def bug_in_a_route(site: Any) -> Any:
    """A failure that nobody foresaw, where an answer is made."""
    site.cache.guest = site.cache.find = broken
    return await site.get(f"{USERLIST}?maxAge=1h")


async def bug_of_who_decides(site: Any) -> Any:
    """A failure that nobody foresaw, before it is known who may: nothing is told."""
    site.api.access = Access([BrokenDoor()], lifetime=1, open_paths=frozenset())
    return await site.get(f"{USERLIST}/")


def broken(*_: Any) -> Any:
    """It fails."""
    raise RuntimeError("secret of the house")


class BrokenDoor:
    """Nobody gets through."""

    def key(self, peer: str, headers: Headers) -> str:
        """Everybody is the same."""
        return "anybody"

    async def decide(self, key: Any, asked: Attributes) -> Decision:
        """It fails."""
        raise RuntimeError("secret of the house")


def asked(path: str, *headers: str, method: str = "GET") -> Callable[[Any], Awaitable[Any]]:
    """A request as it comes."""

    async def ask(site: Any) -> Any:
        return await site.get(path, *headers, method=method)

    return ask


@pytest.mark.parametrize(
    ("provoke", "expected"),
    [
        (no_http, (400, "BadRequest")),
        (asked(f"{USERLIST}?maxAge=soon"), (400, "BadRequest")),
        (asked(f"{GUESTS}?limit=many"), (400, "BadRequest")),
        (asked(f"{GUESTS}?continue=elsewhere"), (400, "BadRequest")),
        (asked("/nowhere"), (404, "NotFound")),
        (asked(USERLIST.replace("vm1", "vm2")), (404, "NotFound")),
        (asked(USERLIST, method="POST"), (405, "MethodNotAllowed")),
        (asked(USERLIST, "Accept: text/html"), (406, "NotAcceptable")),
        (slow, (408, "Timeout")),
        (without_agent, (409, "Conflict")),
        (asked("/", f"X-Long: {'x' * 17000}"), (431, "RequestTooLarge")),
        (bug_in_a_route, (500, "InternalError")),
        (bug_of_who_decides, (500, "InternalError")),
        (amid_the_first_fill, (503, "ServiceUnavailable")),
        (one_too_many, (503, "ServiceUnavailable")),
        (
            asked(f"{GUESTS}?watch=true&resourceVersion=99&resourceVersionMatch=NotOlderThan&sendInitialEvents=true"),
            (504, "Timeout"),
        ),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
async def test_is_a_status(
    alone: Any, provoke: Any, expected: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    """
    Its code and reason, in a whole Status. (401 and 403 are in test_auth.py, 410 in test_guests.py, 429 in
    test_fresh.py.)
    """
    async with asyncio.timeout(20):
        reply = await provoke(alone)

    assert expected == reply.refusal
    assert b"secret" not in reply.body
    assert (expected[0] == 500) == ("secret of the house" in caplog.text)
