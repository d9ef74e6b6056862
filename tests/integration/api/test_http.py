"""What is on the wire: both ways to an answer, conditions, connections, limits."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from guestwire import codec
from guestwire.cli import get
from guestwire.errors import GuestwireError
from guestwire.snapshot import GuestRef, Phase

V1 = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm1"
USERLIST = f"{V1}/userlist"
GUEST = "/apis/guestwire.io/v1/namespaces/default/guests/vm1"
BODY = b'{"items":[{"userName":"root"}],"metadata":{}}'

CANNOT = 'Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "vm1"'

SLOW = "Content-Length: 0"
"""A request that has a body, be it an empty one, is left to the application."""


async def test_answer(alone: Any) -> None:
    """A read gets the message's bytes, typed, with revision, time of change, age and the rule to ask again."""
    reply = await alone.get()

    assert (200, BODY) == (reply.status, reply.body)
    assert ("application/json", '"2"', "nosniff", "no-cache") == (
        reply["content-type"],
        reply["etag"],
        reply["x-content-type-options"],
        reply["cache-control"],
    )
    assert reply["last-modified"].endswith("GMT")
    assert int(reply["age"]) in range(5)
    assert reply["date"].endswith("GMT")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Connection: close",),
        ("Connection: keep-alive",),
        ('If-None-Match: "2"',),
        ('If-None-Match: W/"2"', "Connection: close"),
        ('If-None-Match: "1", "3"',),
        ('If-None-Match: "1"', 'If-None-Match: "2"'),
        ("If-None-Match: *",),
        ("Accept: application/json, */*",),
        ("Accept: text/html", "Accept: application/json"),
        ("Cookie: a=b", "X-Forwarded-For: ::1"),
    ],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_both_ways_answer_the_same(alone: Any, version: str, headers: tuple[str, ...], method: str) -> None:
    """The protocol class answers without asking the application, and as the application would, byte for byte."""
    async with alone.connected() as fast, alone.connected() as slow:
        fast.send(f"{method} {USERLIST} HTTP/{version}", "Host: localhost", *headers)
        by_protocol = await fast.reply(to_head=method == "HEAD")
        asked = alone.asked
        slow.send(f"{method} {USERLIST} HTTP/{version}", "Host: localhost", SLOW, *headers)
        by_application = await slow.reply(to_head=method == "HEAD")

        assert (0, 1) == (asked, alone.asked)
        assert by_application.timeless == by_protocol.timeless
        if by_protocol["connection"] == "close":
            assert [True, True] == [await fast.closed(), await slow.closed()]


@pytest.mark.parametrize(
    "path",
    [
        f"{V1}/userlist/",
        f"{V1}/userlist?timeout=10s",
        USERLIST.replace("/v1/", "/v1alpha3/"),
        USERLIST.replace("vm1", "%76m1"),
        f"http://api{USERLIST}",
    ],
)
async def test_other_spellings(alone: Any, path: str) -> None:
    """A trailing slash, a query, the other version and other escapes lead to the same answer."""
    assert (await alone.get()).timeless == (await alone.get(path)).timeless


async def test_names_of_any_characters(alone: Any) -> None:
    """Names of plain libvirt may hold slashes, percent signs, spaces and any letters."""
    ref = GuestRef("a/b", "Fenêtre 100%/2.old")
    alone.agent(ref=ref)
    alone.userlist("admin", ref=ref)
    path = "/apis/subresources.kubevirt.io/v1/namespaces/a%2Fb/virtualmachineinstances/{}/userlist"
    usual, spelt = path.format("Fen%C3%AAtre%20100%25%2F2.old"), path.format("Fen%c3%aatre%20100%25%2f2%2Eold")

    assert (200, 200) == ((await alone.get(usual)).status, (await alone.get(spelt)).status)
    assert (404, 'virtualmachineinstance.kubevirt.io "no/such" not found') == (
        (missing := await alone.get(path.format("no%2Fsuch"))).status,
        missing.message,
    )


async def test_our_own_group(alone: Any) -> None:
    """Under it a kind has the same bytes, revision and age as under KubeVirt's, from the same lookup."""
    one, other = await alone.get(USERLIST), await alone.get(f"{GUEST}/userlist")
    unchanged = await alone.get(f"{GUEST}/userlist", 'If-None-Match: "2"')

    assert one.timeless == other.timeless
    assert (304, b"") == (unchanged.status, unchanged.body)
    assert 0 == alone.asked


async def test_agent_record_of_a_guest_without_agent(alone: Any) -> None:
    """The agent record is answered also while there is nothing else to answer, by the protocol class too."""
    revision = alone.agent(connected=False)
    by_protocol, by_application = await alone.get(f"{GUEST}/agent"), await alone.get(f"{GUEST}/agent", SLOW)
    others = [await alone.get(f"{GUEST}/{kind}") for kind in ("userlist", "interfaces", "load")]

    assert (200, f'"{revision}"', False) == (
        by_protocol.status,
        by_protocol["etag"],
        msgspec.json.decode(by_protocol.body)["connected"],
    )
    assert by_protocol.timeless == by_application.timeless
    assert [409, 409, 409] == [other.status for other in others]
    assert 4 == alone.asked


async def test_kind_that_was_not_read(alone: Any) -> None:
    """404 that says so, and not the path that does not exist."""
    reply = await alone.get(f"{GUEST}/load")

    assert 404 == reply.status
    assert reply.message.startswith('load of guests.guestwire.io "vm1" has not been read')
    missing = await alone.get(GUEST.replace("vm1", "vm2") + "/load")
    assert (404, 'guests.guestwire.io "vm2" not found') == (missing.status, missing.message)


async def test_command_line_asks_for_any_kind(alone: Any) -> None:
    """`guestwire get` asks for KubeVirt's kinds where KubeVirt has them, and for the others where we have them."""
    client, ref = get.Client(f"http://127.0.0.1:{alone.port}"), GuestRef("default", "vm1")

    assert BODY == await asyncio.to_thread(get.read, client, ref, "userlist")
    assert b'"connected":true' in await asyncio.to_thread(get.read, client, ref, "agent")
    assert b'"kind":"Guest"' in await asyncio.to_thread(get.read, client, ref, "guest")
    with pytest.raises(GuestwireError, match=r"load of guests\.guestwire\.io"):
        await asyncio.to_thread(get.read, client, ref, "load")


async def test_command_line_asks_for_the_last_value(alone: Any) -> None:
    """Of a guest whose agent is away `guestwire get` tells how to get the last value, and gets it."""
    client, ref = get.Client(f"http://127.0.0.1:{alone.port}"), GuestRef("default", "vm1")
    alone.agent(connected=False)
    with pytest.raises(GuestwireError, match="--allow-stale gives the last value"):
        await asyncio.to_thread(get.read, client, ref, "userlist")

    assert BODY == await asyncio.to_thread(lambda: get.read(client, ref, "userlist", allowStale="true"))
    with pytest.raises(GuestwireError, match=r"^maxAge: "):
        await asyncio.to_thread(lambda: get.read(client, ref, "userlist", maxAge="soon"))


async def test_nothing_collected_yet(alone: Any) -> None:
    """A kind that has not been read yet is answered in KubeVirt's empty form, which nobody may keep."""
    reply = await alone.get(f"{V1}/guestosinfo", "If-None-Match: *")

    assert (200, b'{"fsInfo":{"disks":null},"os":{},"timezone":", 0"}') == (reply.status, reply.body)
    assert ("no-store", "", "") == (reply["cache-control"], reply["etag"], reply["age"])


@pytest.mark.parametrize(
    ("facts", "code", "reason", "message"),
    [
        ({"phase": Phase.GONE}, 404, "NotFound", 'virtualmachineinstance.kubevirt.io "vm1" not found'),
        (
            {"phase": Phase.STOPPED},
            409,
            "Conflict",
            f"{CANNOT}: VMI is not running",
        ),
        (
            {"connected": False},
            409,
            "Conflict",
            f"{CANNOT}: VMI does not have guest agent connected",
        ),
    ],
)
async def test_errors(alone: Any, facts: dict[str, Any], code: int, reason: str, message: str) -> None:
    """Errors are Status objects with the code of the case and KubeVirt's words."""
    alone.agent(**facts)
    reply = await alone.get()
    status = msgspec.json.decode(reply.body)

    assert (code, "application/json", "no-store") == (reply.status, reply["content-type"], reply["cache-control"])
    assert {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": {"name": "vm1", "group": "kubevirt.io", "kind": "virtualmachineinstances"},
        "code": code,
    } == status


async def test_not_caught_up(alone: Any) -> None:
    """Before the cache is filled a read is told to come back in a second, and readiness says why."""
    alone.cache.caught_up = False
    read, ready, alive = await alone.get(), await alone.get("/readyz"), await alone.get("/livez")

    assert (503, "1", "ServiceUnavailable") == (
        read.status,
        read["retry-after"],
        msgspec.json.decode(read.body)["reason"],
    )
    assert (503, b"not ready: not caught up\n") == (ready.status, ready.body)
    assert (200, b"ok\n") == (alive.status, alive.body)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_reads_only(alone: Any, method: str) -> None:
    """Any other method gets 405 and is told the right ones."""
    reply = await alone.get(USERLIST, "Content-Length: 2", method=method, body=b"{}")

    assert (405, "GET, HEAD") == (reply.status, reply["allow"])
    assert "MethodNotAllowed" == msgspec.json.decode(reply.body)["reason"]


@pytest.mark.parametrize("path", [USERLIST, USERLIST.replace("/v1/", "/v1alpha3/"), "/apis"])
async def test_not_acceptable(alone: Any, path: str) -> None:
    """Who does not take JSON gets 406."""
    reply = await alone.get(path, "Accept: text/html")

    assert (406, "only the following media types are accepted: application/json") == (reply.status, reply.message)


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/apis//",
        f"{V1}/guestosinfo/more",
        f"{V1}/interfaces",
        V1,
        USERLIST.replace("/v1/", "/v2/"),
        USERLIST.replace("vm1", ""),
        "/apis/subresources.kubevirt.io/v2",
        f"{GUEST}/weather",
        f"{GUEST}/userlist/more",
        f"{GUEST.replace('/v1/', '/v2/')}/userlist",
        GUEST.replace("/v1/", "/v2/"),
        "/%ff%fe",
    ],
)
async def test_unknown_path(alone: Any, path: str) -> None:
    """What is not a path of this API gets 404, as a Status."""
    reply = await alone.get(path)

    assert (404, "the server could not find the requested resource") == (reply.status, reply.message)


async def test_discovery(alone: Any) -> None:
    """A client finds the groups, their versions, and KubeVirt's three resources with the verb they take."""
    root, groups, group, resources, version = [
        msgspec.json.decode((await alone.get(path)).body)
        for path in ("/", "/apis", "/apis/subresources.kubevirt.io", "/apis/subresources.kubevirt.io/v1", "/version")
    ]

    assert ["guestwire.io", "subresources.kubevirt.io"] == [each["name"] for each in groups["groups"]]
    assert group in groups["groups"]
    assert ["v1", "v1alpha3"] == [each["version"] for each in group["versions"]]
    assert ("APIResourceList", "subresources.kubevirt.io/v1") == (resources["kind"], resources["groupVersion"])
    assert {
        "virtualmachineinstances/guestosinfo": (True, ["get"]),
        "virtualmachineinstances/userlist": (True, ["get"]),
        "virtualmachineinstances/filesystemlist": (True, ["get"]),
    } == {each["name"]: (each["namespaced"], each["verbs"]) for each in resources["resources"]}
    assert version["gitVersion"].startswith("v")
    for path in root["paths"]:
        assert 200 == (await alone.get(path)).status


async def test_metrics(alone: Any) -> None:
    """Requests are counted whichever way they are answered; the state of the cache can be seen."""
    for path in (USERLIST, USERLIST, f"{USERLIST}/", "/nowhere"):
        await alone.get(path)
    await alone.get(USERLIST, 'If-None-Match: "2"')

    assert 3 == await alone.metric('guestwire_api_requests_total{code="200",path="subresource"}')
    assert 1 == await alone.metric('guestwire_api_requests_total{code="304",path="subresource"}')
    assert 1 == await alone.metric('guestwire_api_requests_total{code="404",path="other"}')
    assert 2 == await alone.metric("guestwire_api_messages_applied_total")
    assert (1, 2, 1) == (
        await alone.metric("guestwire_api_cache_guests"),
        await alone.metric("guestwire_api_cache_revision"),
        await alone.metric("guestwire_api_caught_up"),
    )
    assert 0 <= await alone.metric("guestwire_api_newest_message_age_seconds") < 60


async def test_keep_alive(alone: Any) -> None:
    """Many requests on one connection, hits and others in turn, each get their own answer."""
    async with alone.connected() as connection:
        statuses = []
        for path in (USERLIST, "/livez", USERLIST, "/nowhere", USERLIST, f"{V1}/guestosinfo", USERLIST):
            connection.send(f"GET {path} HTTP/1.1", "Host: localhost")
            statuses.append((await connection.reply()).status)

    assert [200, 200, 200, 404, 200, 200, 200] == statuses


async def test_pipelining(alone: Any) -> None:
    """Requests sent at once are answered in their order, hits behind slower ones among them."""
    paths = [USERLIST, f"{USERLIST}/", USERLIST, "/livez", USERLIST, USERLIST, "/nowhere", USERLIST] * 8
    async with alone.connected() as connection:
        for path in paths:
            connection.send(f"GET {path} HTTP/1.1", "Host: localhost")
        bodies = [(await connection.reply()).body for _ in paths]

    expected = {USERLIST: BODY, f"{USERLIST}/": BODY, "/livez": b"ok\n"}
    assert [expected.get(path, bodies[6]) for path in paths] == bodies
    assert 404 == msgspec.json.decode(bodies[6])["code"]


async def test_nothing_is_answered_after_close(alone: Any) -> None:
    """A request behind one that asked to close is not answered."""
    async with alone.connected() as connection:
        connection.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost", "Connection: close")
        connection.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost")

        assert "close" == (await connection.reply())["connection"]
        assert await connection.closed()


async def test_request_in_pieces(alone: Any) -> None:
    """However the bytes of a request arrive, it is one request."""
    request = f"GET {USERLIST} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".encode() * 2
    async with alone.connected() as connection:
        for position in range(len(request)):
            connection.writer.write(request[position : position + 1])
            await connection.writer.drain()
            await asyncio.sleep(0)
        replies = [await connection.reply(), await connection.reply()]

    assert [BODY, BODY] == [reply.body for reply in replies]


async def test_get_with_a_body(alone: Any) -> None:
    """A body on a GET is read past, and the connection goes on."""
    async with alone.connected() as connection:
        connection.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost", "Content-Length: 5", body=b"GET /")
        connection.send(
            f"GET {USERLIST} HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"
        )
        connection.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost")
        replies = [await connection.reply() for _ in range(3)]

    assert [BODY] * 3 == [reply.body for reply in replies]


async def test_expect_continue(alone: Any) -> None:
    """A client that waits for leave to send a body gets its answer at once."""
    async with alone.connected() as connection:
        connection.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost", "Content-Length: 5", "Expect: 100-continue")

        assert 200 == (await connection.reply()).status


async def test_no_http(alone: Any) -> None:
    """Bytes that are no HTTP get 400, as a Status, and the connection ends."""
    async with alone.connected() as connection:
        connection.writer.write(b"\x16\x03\x01 hello\r\n\r\n")

        assert 400 == (await connection.reply()).status
        assert await connection.closed()


@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize("where", ["path", "header"])
async def test_head_too_large(alone: Any, where: str, in_pieces: bool) -> None:
    """Request line and headers have a limit, however they arrive."""
    filler = "x" * 17000
    lines = [f"GET /{filler} HTTP/1.1"] if where == "path" else [f"GET {USERLIST} HTTP/1.1", f"X-Long: {filler}"]
    request = "".join(f"{line}\r\n" for line in [*lines, "Host: localhost", ""]).encode()
    async with alone.connected() as connection:
        for piece in [request[:9000], request[9000:16500], request[16500:]] if in_pieces else [request]:
            connection.writer.write(piece)
            await asyncio.sleep(0.05)

        assert 431 == (await connection.reply()).status
        assert await connection.closed()


async def test_head_without_end(alone: Any) -> None:
    """A head that never ends is cut off at the limit, not kept."""
    async with alone.connected() as connection:
        connection.writer.write(f"GET {USERLIST} HTTP/1.1\r\nX-Long: ".encode())
        sent = 0
        with suppress(ConnectionError):
            while sent < 2**20:
                connection.writer.write(b"x" * 4096)
                await connection.writer.drain()
                sent += 4096
                await asyncio.sleep(0.01)

    assert sent < 2**17


async def test_slow_head(alone: Any) -> None:
    """Who sends a request drop by drop is cut off when the head's time is over (1 s here)."""
    loop = asyncio.get_running_loop()
    async with alone.connected() as connection:
        connection.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost")
        await connection.reply()
        began = loop.time()
        drops = asyncio.create_task(_drip(connection, b"GET /livez HTTP/1.1\r\nX: " + b"x" * 1000))
        reply = await connection.reply()
        drops.cancel()

        assert 408 == reply.status
        assert 0.9 <= loop.time() - began < 3


async def _drip(connection: Any, request: bytes) -> None:
    for byte in request:
        connection.writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


async def test_silent_connections_are_closed(alone: Any) -> None:
    """Who connects and says nothing, and who says nothing more, is let go (after 1 s and 2 s here)."""
    loop = asyncio.get_running_loop()
    async with alone.connected() as silent, alone.connected() as quiet, alone.connected() as idle:
        began = loop.time()
        quiet.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost")
        idle.send("GET /livez HTTP/1.1", "Host: localhost")
        await quiet.reply()
        await idle.reply()

        assert await silent.closed()
        assert 0.9 <= loop.time() - began < 3
        assert [True, True] == [await quiet.closed(), await idle.closed()]
        assert 1.9 <= loop.time() - began < 5


async def test_client_that_does_not_read(alone: Any) -> None:
    """Answers that nobody takes do not pile up: the connection is cut, and others are served meanwhile."""
    alone.userlist(*(f"user{number}" for number in range(40000)))
    size = len((await alone.get()).body)
    async with alone.connected() as deaf:
        deaf.writer.transport.pause_reading()
        for _ in range(60):
            deaf.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost")
        await asyncio.sleep(0.5)

        assert 200 == (await alone.get("/livez")).status
        await asyncio.sleep(3)
        deaf.writer.transport.resume_reading()
        got = 0
        with suppress(ConnectionError):
            while chunk := await deaf.reader.read(2**20):
                got += len(chunk)

    assert got < 59 * size


async def test_slow_reader_gets_everything(alone: Any) -> None:
    """A client that reads late but in time gets every answer whole."""
    revision = alone.userlist(*(f"user{number}" for number in range(40000)))
    async with alone.connected() as late:
        late.writer.transport.pause_reading()
        for _ in range(20):
            late.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost")
        await asyncio.sleep(0.6)
        late.writer.transport.resume_reading()
        replies = [await late.reply() for _ in range(20)]

    assert [f'"{revision}"'] * 20 == [reply["etag"] for reply in replies]
    assert 1 == len({reply.body for reply in replies})


async def test_too_many_connections(alone: Any) -> None:
    """Beyond the limit (8 here) a connection is turned away with 503; the others are served on."""
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(alone.connected()) for _ in range(8)]
        for connection in held:
            connection.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost")
            assert 200 == (await connection.reply()).status
        async with alone.connected() as extra:
            reply = await extra.reply()

        assert (503, "1", "close") == (reply.status, reply["retry-after"], reply["connection"])
        held[0].send(f"GET {USERLIST} HTTP/1.1", "Host: localhost")
        assert 200 == (await held[0].reply()).status


async def test_age_grows(alone: Any) -> None:
    """Age counts from the last reading, on both ways."""
    alone.userlist("root", at=codec.now() - timedelta(seconds=100))

    for path in (USERLIST, f"{USERLIST}/"):
        assert int((await alone.get(path))["age"]) in range(100, 110)
