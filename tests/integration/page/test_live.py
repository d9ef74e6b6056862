"""The stream of rows: what is told, in which order, from where, and when it ends."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from api import live
from api.app import Limits
from api.summary import summarize
from guestwire.snapshot import GuestRef, Phase

GUESTS = "/apis/guestwire.io/v1/guests?watch=true"


def refs(events: Any) -> list[GuestRef]:
    """The guests of all rows, in order."""
    return [
        GuestRef(row["namespace"], row["name"])
        for event in events
        if event.name == "rows"
        for row in event.data["rows"]
    ]


async def test_all_guests_come_first(serve: Any) -> None:
    """A new client is told to begin anew, then every guest once, in slices, then that this is all."""
    served = await serve()
    served.fleet.fill(500)
    async with served.events() as stream:
        events = await stream.until("level")

    names = [event.name for event in events]

    assert ["reset", "level"] == [name for name in names if name != "rows"]
    assert max(len(event.data["rows"]) for event in events if event.name == "rows") <= live.SLICE
    assert sorted(served.fleet.refs) == sorted(refs(events))
    assert served.cache.revision == events[-1].data["revision"]


async def test_row(served: Any) -> None:
    """A row is a guest in a line, named, with its revision."""
    ref = GuestRef("ns", "vm1")
    served.fleet.agent(ref, version="8.0", host="h7")
    served.fleet.users(ref)
    revision = served.cache.revision
    async with served.events() as stream:
        rows = {
            (row["namespace"], row["name"]): row
            for event in await stream.until("level")
            for row in event.data.get("rows", ())
        }
    row = rows["ns", "vm1"]

    assert ("connected", "Running", "h7", revision) == (row["agent"], row["phase"], row["host"], row["revision"])
    assert isinstance(row["users"], list)


async def test_changes_follow(served: Any) -> None:
    """A change is told to who looks on: the row as it is now, and nothing of other guests."""
    ref = served.fleet.refs[3]
    async with served.events() as stream:
        await stream.until("level")
        served.fleet.agent(ref, connected=False)
        events = await stream.until("rows")

    assert [ref] == refs(events)
    assert "disconnected" == events[-1].data["rows"][0]["agent"]


async def test_gone(served: Any) -> None:
    """A guest that goes is told by its name."""
    ref = served.fleet.refs[3]
    async with served.events() as stream:
        await stream.until("level")
        served.fleet.agent(ref, connected=False, phase=Phase.GONE)
        events = await stream.until("rows")

    assert [[ref.namespace, ref.name]] == events[-1].data["gone"]
    assert [] == refs(events)


async def test_resumes(served: Any) -> None:
    """Who comes back with the id of the last event is told what came since, and only that."""
    async with served.events() as stream:
        position = (await stream.until("level"))[-1].id
    changed, gone = served.fleet.refs[1], served.fleet.refs[2]
    served.fleet.users(changed)
    served.fleet.agent(gone, connected=False, phase=Phase.GONE)
    async with served.events(Last_Event_ID=position) as stream:
        events = await stream.until("level")

    assert ["rows", "level"] == [event.name for event in events]
    assert ([changed], [[gone.namespace, gone.name]]) == (refs(events), events[0].data["gone"])


async def test_resumes_amid_the_beginning(serve: Any) -> None:
    """Who is cut off while all is told for the first time goes on there, where it is known who went since."""
    served = await serve()
    served.fleet.fill(500)
    served.cache.fleet.floor = 0
    async with served.events() as stream:
        first = await stream.until("rows")
    async with served.events(Last_Event_ID=first[-1].id) as stream:
        rest = await stream.until("level")

    assert sorted(served.fleet.refs) == sorted([*refs(first), *refs(rest)])


async def test_unknown_positions(served: Any) -> None:
    """A position that is no number, or of the future, or older than what is known of guests that went: all anew."""
    served.cache.fleet.floor = 7
    names = []
    for position in ("abc", "99999999", "-1", "6", "9" * 30):
        async with served.events(Last_Event_ID=position) as stream:
            names.append((await stream.until("level"))[0].name)

    assert ["reset"] * 5 == names


async def test_scope(served: Any) -> None:
    """Of a namespace is told what is in it, of one name that guest; nothing wakes the client for others."""
    served.fleet.agent(GuestRef("mine", "vm1"))
    served.fleet.agent(GuestRef("mine", "vm2"))
    told = []
    for path in (
        "/apis/guestwire.io/v1/namespaces/mine/guests?watch=true",
        GUESTS + "&fieldSelector=metadata.name%3Dvm2",
    ):
        async with served.events(path) as stream:
            told.append(refs(await stream.until("level")))

    assert [[GuestRef("mine", "vm1"), GuestRef("mine", "vm2")], [GuestRef("mine", "vm2")]] == told
    assert 400 == (await served.get(GUESTS + "&labelSelector=a%3Db", Accept="text/event-stream"))[0]


async def test_coalesced(served: Any) -> None:
    """What changes all the time is told a few times a second, as it is then."""
    ref = served.fleet.refs[0]
    revisions: list[int] = []
    async with served.events() as stream:
        await stream.until("level")
        for _ in range(1000):
            served.fleet.users(ref)
            await asyncio.sleep(0)
        while not revisions or revisions[-1] < served.cache.revision:
            revisions += [row["revision"] for event in await stream.until("rows") for row in event.data.get("rows", ())]

    assert len(revisions) < 500
    assert sorted(set(revisions)) == revisions


async def test_sign_of_life(served: Any, monkeypatch: Any) -> None:
    """Where nothing happens, the client hears that nothing has."""
    monkeypatch.setattr(live, "SIGN", 0.1)
    async with served.events() as stream:
        await stream.until("level")
        again = await stream.until("level")

    assert ["level"] == [event.name for event in again]


async def test_filled_anew(served: Any) -> None:
    """When the cache is filled anew the stream ends, and says to forget the position; till then there is none."""
    async with served.events() as stream:
        await stream.until("level")
        served.cache.begin()
        end = (await stream.until("end"))[-1]
        after = await stream.next()
    during = (await served.get(GUESTS, Accept="text/event-stream"))[0]
    served.cache.complete()
    async with served.events() as stream:
        events = await stream.until("level")

    assert ("", None, 503) == (end.id, after, during)
    assert ["reset", "level"] == [event.name for event in events]


async def test_ends_with_the_process(served: Any) -> None:
    """The stream ends properly when the process does."""
    async with served.events() as stream:
        await stream.until("level")
        served.api.end()

        assert await stream.next() is None


async def test_who_may(serve: Any) -> None:
    """It takes the right to watch guests, of the namespace or of all; a namespace's reader is told of that only."""
    served = await serve(tokens={"all": "*", "mine": "mine"})
    served.fleet.fill(3)
    served.fleet.agent(GuestRef("mine", "vm1"))
    namespaced = "/apis/guestwire.io/v1/namespaces/mine/guests?watch=true"
    statuses = {}
    for name, path in (("all", GUESTS), ("mine", GUESTS), ("mine", namespaced), ("nobody", GUESTS)):
        async with served.events(path, Authorization=f"Bearer {name}") as stream:
            statuses[name, path] = stream.response.status
    async with served.events(namespaced, Authorization="Bearer mine") as stream:
        told = refs(await stream.until("level"))

    assert [200, 403, 200, 401] == list(statuses.values())
    assert [GuestRef("mine", "vm1")] == told


async def test_other_readers(serve: Any) -> None:
    """When who may read is decided anew, streams end; the client comes again, and is asked who it is."""
    served = await serve(tokens={"all": "*"})
    served.fleet.fill(3)
    async with served.events(Authorization="Bearer all") as stream:
        await stream.until("level")
        served.api.access.forget()

        assert await stream.next() is None


async def test_client_that_does_not_read(serve: Any, eventually: Any) -> None:
    """Who takes nothing is cut off; nothing is kept for them meanwhile."""
    served = await serve(limits=Limits(reading=1))
    served.fleet.fill(20_000)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", served.port))
    reader, writer = await asyncio.open_connection(sock=client, limit=2**10)
    writer.write(f"GET {GUESTS} HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    await eventually(lambda: not served.server.server_state.connections, within=60)
    writer.close()


async def test_rows_are_made_once(served: Any, monkeypatch: Any) -> None:
    """A row is made once for all who look on."""
    made = []

    def counted(guest: Any) -> Any:
        made.append(guest.ref)
        return summarize(guest)

    monkeypatch.setattr(live, "summarize", counted)
    for _ in range(3):
        async with served.events() as stream:
            await stream.until("level")

    assert sorted(served.fleet.refs) == sorted(made)


async def test_names_that_are_no_text(served: Any) -> None:
    """A name with half a character does not stop the stream."""
    served.fleet.agent(GuestRef("ns", "vm\udcff"), name="vm", domain="d")
    async with served.events() as stream:
        names = [ref.name for ref in refs(await stream.until("level"))]

    assert "vm?" in names
