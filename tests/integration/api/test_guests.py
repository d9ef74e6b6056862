"""The resource `guests` over a socket: one, lists, watches, tables."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from api.app import Limits
from guestwire import codec
from guestwire.snapshot import GuestRef, Phase

BASE = "/apis/guestwire.io/v1"
ALL = f"{BASE}/guests"
IN_DEFAULT = f"{BASE}/namespaces/default/guests"
TABLE = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


class Events:
    """The events of a watch, one after another."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._buffer = b""

    async def next(self) -> dict[str, Any]:
        """The next; an empty one at the end."""
        async with asyncio.timeout(30):
            while b"\n" not in self._buffer:
                size = int((await self._reader.readline()).strip() or b"0", 16)
                if not size:
                    return {}
                self._buffer += await self._reader.readexactly(size)
                await self._reader.readline()
        line, _, self._buffer = self._buffer.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event

    async def told(self, count: int) -> list[tuple[str, str]]:
        """Type and name of the next ones."""
        return [
            (event["type"], event["object"]["metadata"].get("name", ""))
            for event in [await self.next() for _ in range(count)]
        ]


@asynccontextmanager
async def watching(site: Any, path: str = ALL, *headers: str, **query: str) -> AsyncIterator[Events]:
    """A watch."""
    parameters = "&".join(f"{name}={quote(value)}" for name, value in query.items())
    async with site.connected() as connection:
        connection.send(f"GET {path}?watch=true&{parameters} HTTP/1.1", "Host: localhost", *headers)
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert b"200" in head.splitlines()[0], head
        yield Events(connection.reader)


async def listed(site: Any, path: str = ALL, *headers: str, **query: str) -> dict[str, Any]:
    """A list."""
    parameters = "&".join(f"{name}={quote(value)}" for name, value in query.items())
    reply = await site.get(f"{path}?{parameters}", *headers)
    assert 200 == reply.status, reply.message
    decoded: dict[str, Any] = json.loads(reply.body)
    return decoded


def names(told: dict[str, Any]) -> list[str]:
    """Of a list."""
    return [item["metadata"]["name"] for item in told["items"]]


async def test_one_guest(alone: Any) -> None:
    """It has all that is known, each kind as its message has it, and the revision of the last."""
    reply = await alone.get(f"{IN_DEFAULT}/vm1")
    told = json.loads(reply.body)

    assert ("guestwire.io/v1", "Guest") == (told["apiVersion"], told["kind"])
    assert {"name": "vm1", "namespace": "default", "uid": "u1", "resourceVersion": "2"}.items() <= told[
        "metadata"
    ].items()
    assert {"guestwire.io/agent": "connected", "guestwire.io/host": "h", "guestwire.io/phase": "Running"} == told[
        "metadata"
    ]["labels"]
    assert json.loads((await alone.get(f"{IN_DEFAULT}/vm1/userlist")).body) == told["status"]["userlist"]
    assert {"agent", "userlist"} == set(told["status"])
    assert '"2"' == reply["etag"]
    assert 304 == (await alone.get(f"{IN_DEFAULT}/vm1", 'If-None-Match: "2"')).status


async def test_guest_without_an_agent(alone: Any) -> None:
    """Nothing is shown of it but the agent's record."""
    alone.agent(connected=False)

    told = json.loads((await alone.get(f"{IN_DEFAULT}/vm1")).body)
    assert {"agent"} == set(told["status"])
    assert "disconnected" == told["metadata"]["labels"]["guestwire.io/agent"]


@pytest.mark.parametrize("name", ["a.b-c", "with space", "ünï/cödé", "<script>", "..", "%41", "a?b#c"])
async def test_any_name(alone: Any, name: str) -> None:
    """Names of plain libvirt hosts hold anything."""
    alone.agent(ref=GuestRef("default", name))
    path = f"{IN_DEFAULT}/{quote(name, safe='')}"

    assert name == json.loads((await alone.get(path)).body)["metadata"]["name"]
    assert name == json.loads((await alone.get(path + "/agent/")).body)["name"]
    assert name in names(await listed(alone))


async def test_errors(alone: Any) -> None:
    """What is not there, cannot be, or must not be done, is told as a Status."""
    codes = {
        f"{IN_DEFAULT}/nobody": 404,
        f"{ALL}?limit=x": 400,
        f"{ALL}?labelSelector=a,,b": 400,
        f"{ALL}?fieldSelector=spec.x=1": 400,
        f"{ALL}?continue=nonsense": 400,
        f"{ALL}?includeObject=All": 400,
        f"{IN_DEFAULT}/vm1/userlist?maxAge=soon": 400,
    }
    for path, code in codes.items():
        reply = await alone.get(path)
        assert (code, code) == (reply.status, json.loads(reply.body)["code"]), path
    assert 406 == (await alone.get(ALL, "Accept: application/yaml")).status
    assert 405 == (await alone.get(ALL, method="DELETE")).status


async def test_list_in_parts(alone: Any) -> None:
    """In the order of names, each guest once, with as many as are wanted and a token for the others."""
    for number in range(9):
        alone.agent(ref=GuestRef("other" if number % 2 else "default", f"g{number}"))
    parts: list[dict[str, Any]] = []
    token = ""
    while not parts or token:
        parts.append(await listed(alone, **{"limit": "3", "continue": token}))
        token = parts[-1]["metadata"].get("continue", "")

    assert [3, 3, 3, 1] == [len(part["items"]) for part in parts]
    assert [7, 4, 1, None] == [part["metadata"].get("remainingItemCount") for part in parts]
    assert ["g0", "g2", "g4", "g6", "g8", "vm1", "g1", "g3", "g5", "g7"] == [
        name for part in parts for name in names(part)
    ]
    assert 1 == len({part["metadata"]["resourceVersion"] for part in parts})
    assert names(await listed(alone)) == [name for part in parts for name in names(part)]


async def test_parts_of_a_namespace(alone: Any) -> None:
    """Other namespaces are neither told nor counted."""
    for namespace in ("aa", "default", "zz"):
        for number in range(3):
            alone.agent(ref=GuestRef(namespace, f"g{number}"))
    first = await listed(alone, IN_DEFAULT, limit="2")
    second = await listed(alone, IN_DEFAULT, **{"limit": "2", "continue": first["metadata"]["continue"]})

    assert (["g0", "g1"], 2) == (names(first), first["metadata"]["remainingItemCount"])
    assert (["g2", "vm1"], None) == (names(second), second["metadata"].get("continue"))
    assert [] == names(await listed(alone, f"{BASE}/namespaces/nowhere/guests"))


async def test_selectors(alone: Any) -> None:
    """By labels and by name."""
    alone.agent(ref=GuestRef("default", "off"), phase=Phase.STOPPED, connected=False)
    alone.agent(ref=GuestRef("other", "away"), host="far", connected=False)

    assert ["vm1"] == names(await listed(alone, labelSelector="guestwire.io/agent=connected"))
    assert ["off", "away"] == names(await listed(alone, labelSelector="guestwire.io/agent!=connected"))
    assert ["away"] == names(await listed(alone, labelSelector="guestwire.io/host in (far,farther)"))
    assert ["off"] == names(await listed(alone, fieldSelector="metadata.name=off"))
    assert ["away"] == names(await listed(alone, fieldSelector="metadata.namespace!=default"))
    assert [] == names(await listed(alone, IN_DEFAULT, fieldSelector="metadata.namespace=other"))


async def test_table(alone: Any) -> None:
    """Made for kubectl: columns, a row for each guest, and what identifies it."""
    told = await listed(alone, ALL, TABLE)
    wide = [column["name"] for column in told["columnDefinitions"]]
    row = dict(zip(wide, told["rows"][0]["cells"], strict=True))

    assert ("Table", "meta.k8s.io/v1") == (told["kind"], told["apiVersion"])
    assert ["Name", "Agent", "OS", "IP", "Users", "Disk", "Age"] == [
        column["name"] for column in told["columnDefinitions"] if not column["priority"]
    ]
    assert ("vm1", "connected", 1, "<unknown>") == (row["Name"], row["Agent"], row["Users"], row["OS"])
    assert "PartialObjectMetadata" == told["rows"][0]["object"]["kind"]
    full = await listed(alone, ALL, TABLE, includeObject="Object")
    assert "root" == full["rows"][0]["object"]["status"]["userlist"]["items"][0]["userName"]
    assert None is (await listed(alone, ALL, TABLE, includeObject="None"))["rows"][0]["object"]


async def test_table_of_a_stale_guest(alone: Any) -> None:
    """Of whom nobody has told for three heartbeats: the table says so as time passes, and its label stays."""

    async def agents() -> dict[str, str]:
        return {row["cells"][0]: row["cells"][1] for row in (await listed(alone, ALL, TABLE))["rows"]}

    revision = alone.agent(at=codec.now() - timedelta(seconds=910))
    assert "stale" == (await agents())["vm1"]
    assert ["vm1"] == names(await listed(alone, labelSelector="guestwire.io/agent=connected"))
    assert revision == alone.cache.revision
    alone.agent()

    assert "connected" == (await agents())["vm1"]


async def test_metadata_only(alone: Any) -> None:
    """For clients that only count."""
    accept = "Accept: application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    told = await listed(alone, ALL, accept)

    assert "PartialObjectMetadataList" == told["kind"]
    assert [{"apiVersion", "kind", "metadata"}] == [set(item) for item in told["items"]]


async def test_large_lists_are_compressed(alone: Any) -> None:
    """For who accepts it; and they are the same."""
    for number in range(500):
        alone.agent(ref=GuestRef("default", f"g{number}"))
    async with alone.connected() as connection:
        connection.send(f"GET {ALL} HTTP/1.1", "Host: localhost", "Accept-Encoding: gzip", "Connection: close")
        head, _, body = (await connection.reader.read()).partition(b"\r\n\r\n")

    packed, rest = b"", body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        packed, rest = packed + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    assert b"content-encoding: gzip" in head.lower()
    assert 501 == len(json.loads(gzip.decompress(packed))["items"])


async def test_watch_from_the_beginning(alone: Any) -> None:
    """What is there comes first, then every change, at once."""
    async with watching(alone) as events:
        assert [("ADDED", "vm1")] == await events.told(1)
        alone.userlist("root", "alice")
        changed = await events.next()
        alone.agent(ref=GuestRef("other", "new"))
        added = await events.told(1)
        alone.agent(phase=Phase.GONE)
        gone = await events.next()

    assert ("MODIFIED", "3", 2) == (
        changed["type"],
        changed["object"]["metadata"]["resourceVersion"],
        len(changed["object"]["status"]["userlist"]["items"]),
    )
    assert [("ADDED", "new")] == added
    assert ("DELETED", "vm1", "5") == (
        gone["type"],
        gone["object"]["metadata"]["name"],
        gone["object"]["metadata"]["resourceVersion"],
    )


async def test_watch_from_a_list(alone: Any) -> None:
    """Nothing is told twice, and nothing is missed."""
    told = await listed(alone)
    alone.userlist("alice")

    async with watching(alone, resourceVersion=told["metadata"]["resourceVersion"]) as events:
        assert [("MODIFIED", "vm1")] == await events.told(1)


async def test_watch_of_a_namespace_and_of_a_guest(alone: Any) -> None:
    """Only what is asked for is told."""
    async with (
        watching(alone, f"{BASE}/namespaces/other/guests", resourceVersion="2") as one,
        watching(alone, fieldSelector="metadata.name=vm2", resourceVersion="2") as two,
    ):
        alone.userlist("alice")
        alone.agent(ref=GuestRef("other", "vm9"))
        alone.agent(ref=GuestRef("default", "vm2"))
        assert [("ADDED", "vm9")] == await one.told(1)
        assert [("ADDED", "vm2")] == await two.told(1)


async def test_watch_with_bookmarks(alone: Any) -> None:
    """Who asks to be told when the beginning is over, is."""
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    async with watching(alone, **query) as events:
        first, second = await events.next(), await events.next()

    assert ("ADDED", "BOOKMARK") == (first["type"], second["type"])
    assert {"k8s.io/initial-events-end": "true"} == second["object"]["metadata"]["annotations"]
    assert "2" == second["object"]["metadata"]["resourceVersion"]


async def test_watch_of_tables(alone: Any) -> None:
    """As kubectl asks for them."""
    async with watching(alone, ALL, TABLE) as events:
        event = await events.next()

    assert ("ADDED", "Table", "vm1") == (event["type"], event["object"]["kind"], event["object"]["rows"][0]["cells"][0])


async def test_watch_ends_in_time(alone: Any) -> None:
    """After as many seconds as were asked for."""
    async with watching(alone, resourceVersion="2", timeoutSeconds="1") as events:
        assert {} == await events.next()


async def test_watch_of_a_revision_to_come(alone: Any) -> None:
    """Another replica may be ahead: it is waited for a little, and then said."""
    reply = await alone.get(f"{ALL}?watch=1&resourceVersion=900&timeoutSeconds=1")

    assert (504, "ResourceVersionTooLarge") == (
        reply.status,
        json.loads(reply.body)["details"]["causes"][0]["reason"],
    )


async def test_watch_of_a_revision_too_old(alone: Any) -> None:
    """Who may have missed that a guest went, must list anew."""
    alone.cache.fleet.floor = 2

    reply = await alone.get(f"{ALL}?watch=1&resourceVersion=1")
    assert (410, "Expired") == (reply.status, json.loads(reply.body)["reason"])


async def test_watch_of_another_stream(alone: Any) -> None:
    """When the stream is made anew, revisions mean nothing any more, and that is said."""
    async with watching(alone, resourceVersion="2") as events:
        alone.cache.begin()
        event = await events.next()

    assert ("ERROR", 410) == (event["type"], event["object"]["code"])
    assert 503 == (await alone.get(ALL)).status
    alone.cache.complete()
    assert 200 == (await alone.get(ALL)).status


async def test_watcher_that_does_not_read(serving: Any) -> None:
    """It is cut off, and nothing was kept for it meanwhile."""
    async with serving(Limits(reading=1)) as site:
        site.agent()
        async with site.connected() as connection:
            connection.send(f"GET {ALL}?watch=1 HTTP/1.1", "Host: localhost")
            await connection.reader.readuntil(b"\r\n\r\n")
            connection.writer.transport.pause_reading()
            async with asyncio.timeout(60):
                while site.cache.fleet.watches:
                    for _ in range(50):
                        site.userlist(*(f"somebody-with-a-long-name-{number}" for number in range(500)))
                        await asyncio.sleep(0)
                    await asyncio.sleep(0.01)

        assert 0 == len(site.cache.fleet.asleep)


async def test_every_word_of_a_late_client_is_new(alone: Any) -> None:
    """Changes that nobody could read in time are told as they are at last."""
    async with watching(alone, resourceVersion="2") as events:
        for number in range(200):
            alone.userlist(f"user{number}")
        event = await events.next()

    assert "user199" == event["object"]["status"]["userlist"]["items"][0]["userName"]


async def test_two_replicas(world: Any, started: Any) -> None:
    """They tell the same revisions; who watches through one goes on at the other, and misses nothing."""
    other = await started(connect=False)
    revision = await world.agent()
    await world.applied(revision)
    await other.applied(revision)
    assert await listed(world) == await listed(other)

    async with watching(world, resourceVersion=str(revision)) as events:
        await world.userlist("alice")
        event = await events.next()
    await world.agent(ref=GuestRef("default", "vm2"))
    last = await world.agent(phase=Phase.GONE)
    async with watching(other, resourceVersion=event["object"]["metadata"]["resourceVersion"]) as events:
        told = await events.told(2)

    assert [("ADDED", "vm2"), ("DELETED", "vm1")] == told
    await other.applied(last)
    late = await started(connect=False)
    await late.applied(last)
    async with watching(late, resourceVersion=str(revision)) as events:
        assert {("MODIFIED", "vm2"), ("DELETED", "vm1")} == set(await events.told(2))
    assert await listed(world) == await listed(late) == await listed(other)


async def test_last_value_of_a_guest_that_is_away(alone: Any) -> None:
    """It is had by asking for it, and marked."""
    path = f"{IN_DEFAULT}/vm1/userlist"
    before = await alone.get(path)
    alone.agent(connected=False)

    assert 409 == (await alone.get(path)).status
    stale = await alone.get(f"{path}?allowStale=true")
    assert (200, before.body, '110 guestwire "the agent is away; this is the last value known"') == (
        stale.status,
        stale.body,
        stale["warning"],
    )
    assert before["last-modified"] == stale["last-modified"]


async def test_last_known_of_a_whole_guest_that_is_away(alone: Any) -> None:
    """So is all that was known of it, beside an agent's record that says that it is away."""
    path = f"{IN_DEFAULT}/vm1"
    known = json.loads((await alone.get(path)).body)["status"]["userlist"]
    present = await alone.get(f"{path}?allowStale=true")
    alone.agent(connected=False)
    usual, stale = await alone.get(path), await alone.get(f"{path}?allowStale=true")
    told = json.loads(stale.body)

    assert ["", "", '110 guestwire "the agent is away; this is the last value known"'] == [
        each["warning"] for each in (present, usual, stale)
    ]
    assert {"agent"} == set(json.loads(usual.body)["status"])
    assert (False, known) == (told["status"]["agent"]["connected"], told["status"]["userlist"])
    assert json.loads(usual.body)["metadata"] == told["metadata"]
    table = await alone.get(f"{path}?allowStale=true", TABLE)
    assert "1" in map(str, json.loads(table.body)["rows"][0]["cells"])
    assert stale["warning"] == table["warning"]


async def test_nothing_to_mark_of_a_guest_that_never_had_an_agent(alone: Any) -> None:
    """A guest of which nothing was ever known is told as always."""
    alone.agent(ref=GuestRef("default", "vm2"), channel=False, connected=False)
    reply = await alone.get(f"{IN_DEFAULT}/vm2?allowStale=true")

    assert (200, "", {"agent"}) == (reply.status, reply["warning"], set(json.loads(reply.body)["status"]))


@pytest.mark.parametrize("path", [ALL, IN_DEFAULT])
@pytest.mark.parametrize("watch", ["false", "true"])
@pytest.mark.parametrize("wish", ["maxAge=5s", "maxAge=", "allowStale=true", "allowStale=false"])
async def test_lists_fulfil_no_wishes(alone: Any, path: str, watch: str, wish: str) -> None:
    """What a read of one guest may ask for is refused by lists and watches, page's events included."""
    expected = f"{wish.partition('=')[0]}: is for reads of one guest, not for lists and watches"
    replies = [
        await alone.get(f"{path}?watch={watch}&{wish}", *headers) for headers in ((), ("Accept: text/event-stream",))
    ]

    assert [(400, "BadRequest", expected)] * 2 == [
        (reply.status, json.loads(reply.body)["reason"], reply.message) for reply in replies
    ]


async def test_wishes_that_cannot_be(alone: Any) -> None:
    """A whole guest refuses them as a kind does."""
    replies = [await alone.get(f"{IN_DEFAULT}/vm1?{wish}") for wish in ("maxAge=soon", "allowStale=maybe")]

    assert [(400, "maxAge"), (400, "allowStale")] == [(each.status, each.message.partition(":")[0]) for each in replies]


async def test_times_of_a_table(alone: Any) -> None:
    """AGE is how long the agent has been connected, or not."""
    alone.agent(since=codec.now())

    told = await listed(alone, ALL, TABLE)
    place = [column["name"] for column in told["columnDefinitions"]].index("Age")
    assert told["rows"][0]["cells"][place].endswith("s")
