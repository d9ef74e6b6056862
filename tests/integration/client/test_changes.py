"""Changes for subscribers, from a real nats-server: snapshot, changes, tokens, the value before, slow readers."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

import guestwire
from guestwire import Change, client, codec
from guestwire.errors import ConfigError, NotConnected
from guestwire.jetstream import Bus
from guestwire.settings import Nats
from guestwire.snapshot import GuestRef, Kind, Phase, UserList
from guestwire.subscription import Since
from lab.nats_server import NatsServer
from tests.integration.client.conftest import NOW, Collector, users

PATIENCE = 60
Eventually = Callable[..., Awaitable[float]]


async def read(bus: Bus, since: Since = None, **options: object) -> list[Change]:
    """All that is there."""
    return [change async for change in guestwire.changes(bus, since=since, live=False, **options)]  # type: ignore[arg-type]


def told(changes: list[Change]) -> list[tuple[str, object, object]]:
    """Guest, old and new users."""
    return [(str(change.ref), names(change.old), names(change.new)) for change in changes]


def names(value: object) -> object:
    """The names of a list of users."""
    return ",".join(user.user_name for user in value.items) if isinstance(value, UserList) else value


async def test_snapshot_then_changes(bus: Bus, collector: Collector) -> None:
    """The present values come first, marked; then each change with the value before it, a new guest's with none."""
    await collector.users("ns/a", "alice")
    await collector.users("ns/a", "alice", "bob")
    caught_up = asyncio.Event()
    seen: list[Change] = []
    async with asyncio.timeout(PATIENCE), aclosing(guestwire.changes(bus, caught_up=caught_up.set)) as changes:
        async for change in changes:
            seen.append(change)
            if len(seen) == 1:
                await collector.users("ns/a", "bob")
                await collector.users("ns/b", "carol")
            if len(seen) == 3:
                break

    assert [("ns/a", None, "alice,bob"), ("ns/a", "alice,bob", "bob"), ("ns/b", None, "carol")] == told(seen)
    assert [(True, True), (False, False), (False, False)] == [(each.snapshot, each.reset) for each in seen]
    assert [2, 3, 4] == [each.revision for each in seen]
    assert caught_up.is_set()
    one = seen[1]
    assert ("c", GuestRef("ns", "a"), "userlist", "uid", "uid", "h1", NOW) == (
        one.cluster, one.ref, one.kind, one.uid, one.old_uid, one.host, one.observed_at
    )  # fmt: skip
    assert ["items[alice]", "items[bob]"] == sorted({"items[bob]", *(each.path for each in one.differences())})
    assert [False, False, False] == [each.old_lost for each in seen]


@pytest.mark.parametrize("stop", range(8))
async def test_resumed_at_any_place(bus: Bus, collector: Collector, stop: int) -> None:
    """
    Wherever a consumer breaks off, also amid the snapshot, its last token brings it the rest: every present value,
    nothing twice, and each with the value before it.
    """
    for guest in "abcd":
        await collector.users(f"ns/{guest}", "old")
        await collector.users(f"ns/{guest}", f"{guest}1")
    first: list[Change] = []
    if stop:
        async with aclosing(guestwire.changes(bus)) as changes:
            async for change in changes:
                first.append(change)
                if len(first) == min(stop, 4):
                    break
    for guest in "abcd"[: stop - 4 if stop > 4 else 2]:
        await collector.users(f"ns/{guest}", f"{guest}2")
        await collector.users(f"ns/{guest}", f"{guest}3")
    rest = await read(bus, first[-1].token if first else None)

    revisions = [each.revision for each in [*first, *rest]]
    assert sorted(set(revisions)) == revisions
    present = {message.address: message.body async for message in client.follow(bus, live=False)}
    assert present == {each.message.address: each.body for each in [*first, *rest]}
    everything = [message async for message in client.follow(bus, after=0, live=False)]
    for change in rest if first else []:
        before = [m.body for m in everything if m.address == change.message.address and m.revision < change.revision]
        assert (before[-1] if before else None) == change.old_body
        assert not change.snapshot


async def test_the_value_before_after_being_away(bus: Bus, collector: Collector) -> None:
    """The first change after a pause has the value that the stream held before it, then each the one before."""
    await collector.users("ns/a", "alice")
    token = (await read(bus))[-1].token
    await collector.users("ns/a", "bob")
    await collector.users("ns/b", "new")
    await collector.users("ns/a", "carol")

    assert [("ns/a", "alice", "bob"), ("ns/b", None, "new"), ("ns/a", "bob", "carol")] == told(await read(bus, token))


async def test_more_than_history_keeps(nats_server: NatsServer) -> None:
    """Away for more changes than are kept: the last come, the present value among them; a value lost is told to be."""
    async with Bus(Nats(servers=(nats_server.url,), history=3), "test") as bus:
        await bus.ensure_stream()
        collector = Collector(bus)
        await collector.users("ns/a", "0")
        await collector.users("ns/quiet", "0")
        token = (await read(bus))[-1].token
        for number in range(1, 10):
            await collector.users("ns/a", str(number))
        await collector.users("ns/quiet", "1")
        rest = await read(bus, token)

    assert [("ns/a", None, "7"), ("ns/a", "7", "8"), ("ns/a", "8", "9"), ("ns/quiet", "0", "1")] == told(rest)
    assert [True, False, False, False] == [change.old_lost for change in rest]


async def test_little_memory(bus: Bus, collector: Collector) -> None:
    """What memory has no room for is looked up: the value before is right all the same."""
    caught_up = asyncio.Event()
    for guest in range(20):
        await collector.users(f"ns/{guest}", "old")

    async def publish() -> None:
        await caught_up.wait()
        for value in ("x", "y"):
            for guest in range(20):
                await collector.users(f"ns/{guest}", value)

    publishing = asyncio.create_task(publish())
    seen: list[Change] = []
    async with (
        asyncio.timeout(PATIENCE),
        aclosing(guestwire.changes(bus, caught_up=caught_up.set, memory=1000)) as all_,
    ):
        async for change in all_:
            seen.append(change)
            if len(seen) == 60:
                break
    await publishing

    assert [(f"ns/{guest}", "old", "x") for guest in range(20)] == told(seen[20:40])
    assert [(f"ns/{guest}", "x", "y") for guest in range(20)] == told(seen[40:])


async def test_stream_made_anew(bus: Bus, collector: Collector) -> None:
    """A token of a stream that is not there any more brings a snapshot of the one in its place, marked."""
    for name in ("alice", "bob", "carol"):
        await collector.users("ns/a", name)
    token = (await read(bus))[-1].token
    await bus.js.delete_stream("GUESTWIRE")
    await bus.ensure_stream()
    another = Collector(bus)
    for number in range(5):
        await another.users("ns/a", str(number))
        await another.users("ns/b", str(number))
    rest = await read(bus, token)

    assert [("ns/a", None, "4"), ("ns/b", None, "4")] == told(rest)
    assert [(True, True), (True, False)] == [(change.snapshot, change.reset) for change in rest]
    assert [] == await read(bus, rest[-1].token)


async def test_stream_made_anew_meanwhile(bus: Bus, collector: Collector) -> None:
    """A stream that is made anew under a reader is noticed by it: a snapshot comes again, marked."""
    await collector.users("ns/a", "alice")
    seen: list[Change] = []
    async with asyncio.timeout(PATIENCE), aclosing(guestwire.changes(bus)) as changes:
        async for change in changes:
            seen.append(change)
            if len(seen) == 1:
                await bus.js.delete_stream("GUESTWIRE")
                await bus.ensure_stream()
                await Collector(bus).users("ns/a", "zoe")
            if len(seen) == 2:
                break

    assert [("ns/a", None, "alice"), ("ns/a", None, "zoe")] == told(seen)
    assert [(True, True)] * 2 == [(change.snapshot, change.reset) for change in seen]
    assert seen[0].token != seen[1].token


async def test_since_a_time(bus: Bus, collector: Collector) -> None:
    """A time stands for the messages that came from then on, by the server's clock."""
    await collector.users("ns/a", "alice")
    await asyncio.sleep(0.05)
    moment = datetime.now(UTC)
    await asyncio.sleep(0.05)
    await collector.agent("ns/a")
    await collector.users("ns/a", "bob")

    assert [("ns/a", "alice", "bob")] == told(await read(bus, moment, kinds=["userlist"]))
    assert [2, 3] == [change.revision for change in await read(bus, moment)]
    assert [1, 2, 3] == [change.revision for change in await read(bus, timedelta(hours=1))]
    assert [1, 2, 3] == [change.revision for change in await read(bus, moment - timedelta(days=9999))]
    assert [] == await read(bus, timedelta(0))
    assert [] == await read(bus, datetime.now(UTC) + timedelta(hours=1))
    assert [3] == [change.revision for change in await read(bus, 2)]


async def test_filters(bus: Bus, collector: Collector) -> None:
    """By cluster, namespace, name, and any number of kinds."""
    await collector.users("ns/a", "1")
    await collector.agent("ns/a")
    await collector.say("ns/a", "later", b'{"x":1}')
    await collector.users("other/a.b", "4")
    await Collector(bus, "d").users("ns/a", "5")

    assert [1, 2, 3, 4, 5] == [change.revision for change in await read(bus)]
    assert [5] == [change.revision for change in await read(bus, cluster="d")]
    assert [4] == [change.revision for change in await read(bus, namespace="other", name="a.b")]
    assert [1, 4, 5] == [change.revision for change in await read(bus, kinds=["userlist"])]
    assert [1, 2] == [change.revision for change in await read(bus, cluster="c", namespace="ns", kinds=list(Kind))]
    [later] = [change for change in await read(bus) if change.kind == "later"]
    assert {"x": 1} == later.new


async def test_gone(bus: Bus, collector: Collector) -> None:
    """The last word about a guest is an agent record, and says so."""
    await collector.agent("ns/a")
    await collector.agent("ns/a", Phase.GONE)
    first, last = await read(bus, 0)

    assert [False, True] == [first.gone, last.gone]
    assert ["phase"] == [each.path for each in last.differences()]


async def test_another_guest_of_the_name(bus: Bus, collector: Collector) -> None:
    """A guest made anew under the same name is told by its uid."""
    await collector.say("ns/a", Kind.USERLIST, users("alice"), uid="one")
    await collector.say("ns/a", Kind.USERLIST, users(), uid="two")
    [_, change] = await read(bus, 0)

    assert ("one", "two") == (change.old_uid, change.uid)


async def test_nonsense_in_the_stream(bus: Bus, collector: Collector) -> None:
    """A body that is none of its kind is left out, and is no value before."""
    await collector.users("ns/a", "alice")
    await collector.say("ns/a", Kind.USERLIST, b"nonsense")
    await collector.users("ns/a", "bob")
    await bus.js.publish("guestwire.v1.c.ns.a.agent", b"{}")

    assert [("ns/a", None, "alice"), ("ns/a", None, "bob")] == told(await read(bus, 0))


async def test_slow_reader(bus: Bus, nats_server: NatsServer) -> None:
    """A reader that is slower than its producer gets everything in order, while little waits in its process."""
    amount, backlog = 6000, 64
    done = asyncio.Event()
    kept: list[int] = []

    async def publish() -> None:
        async with Bus(Nats(servers=(nats_server.url,)), "producer") as other:
            collector = Collector(other)
            for number in range(amount // 50):
                # Many subjects: no message leaves the stream's history before it was read.
                await asyncio.gather(*(collector.users(f"ns/{number}-{each}", "x" * 8000) for each in range(50)))
        kept.extend(consumer.num_pending or 0 for consumer in await bus.js.consumers_info("GUESTWIRE"))
        done.set()

    publishing = asyncio.create_task(publish())
    seen: list[int] = []
    async with asyncio.timeout(4 * PATIENCE), aclosing(guestwire.changes(bus, backlog=backlog)) as changes:
        async for change in changes:
            seen.append(change.revision)
            if not done.is_set() or len(seen) % 100 == 0:
                await asyncio.sleep(0.01)
            if len(seen) == amount:
                break
    await publishing

    assert list(range(1, amount + 1)) == seen
    assert amount / 4 < max(kept)


async def test_server_restarts(bus: Bus, collector: Collector, nats_server: NatsServer) -> None:
    """A server that restarts under a reader costs it nothing and gives it nothing twice."""
    await collector.users("ns/a", "1")
    seen: list[Change] = []
    async with asyncio.timeout(PATIENCE), aclosing(guestwire.changes(bus)) as changes:
        async for change in changes:
            seen.append(change)
            if len(seen) == 1:
                await asyncio.to_thread(nats_server.restart)
                await _until_connected(bus)
                await collector.users("ns/a", "2")
            elif len(seen) == 2:
                await collector.users("ns/b", "3")
            else:
                break

    assert [("ns/a", None, "1"), ("ns/a", "1", "2"), ("ns/b", None, "3")] == told(seen)


async def _until_connected(bus: Bus) -> None:
    while True:
        try:
            await bus.js.stream_info("GUESTWIRE")
        except Exception:
            await asyncio.sleep(0.1)
        else:
            return


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"since": "yesterday"}, "since: 'yesterday' is no token of a change"),
        ({"since": "1-ffffffffffffffe-1"}, "since: '1-ffffffffffffffe-1' is no token of a change"),
        ({"since": -1}, "since: -1 is no revision"),
        ({"since": True}, "since: True is no revision"),
        ({"since": timedelta(seconds=-1)}, "since: -1 day, 23:59:59 ago is not in the past"),
        ({"since": timedelta.max}, "since: 999999999 days, 23:59:59.999999 is out of range"),
        ({"since": datetime(2026, 1, 1)}, "since: 2026-01-01 00:00:00 has no time zone"),  # noqa: DTZ001
        ({"kinds": []}, "kinds: none at all; leave it out for all of them"),
        ({"kinds": ["users"]}, f"kinds: there is no 'users'; there are {', '.join(codec.kinds())}"),
    ],
)  # fmt: skip
async def test_wrong_arguments(bus: Bus, options: dict[str, object], error: str) -> None:
    """One line that names the argument."""
    with pytest.raises(ConfigError) as raised:
        await read(bus, **options)  # type: ignore[arg-type]

    assert error == str(raised.value)


async def test_no_stream(nats_server: NatsServer) -> None:
    """Where there is no stream, asking it since when is an error at once."""
    async with Bus(Nats(servers=(nats_server.url,)), "test") as bus:
        with pytest.raises(NotConnected, match="GUESTWIRE"):
            await read(bus, timedelta(hours=1))


async def test_own_connection(nats_server: NatsServer, collector: Collector, eventually: Eventually) -> None:
    """Given addresses or settings it connects by itself, and the connection ends with it."""
    await collector.users("ns/a", "alice")

    def connections() -> int:
        return int(nats_server.monitor("connz")["num_connections"])

    before = connections()
    for servers in (nats_server.url, [nats_server.url], Nats(servers=(nats_server.url,))):
        async with aclosing(guestwire.changes(servers)) as changes:
            assert "alice" == names((await anext(changes)).new)
            assert before + 1 == connections()
    await eventually(lambda: connections() == before, PATIENCE)


@pytest.fixture
async def changing(collector: Collector) -> Collector:
    """A stream with two values."""
    await collector.users("ns/a", "alice")
    await collector.users("ns/b", "bob")
    return collector


async def test_plain_iterator(nats_server: NatsServer, changing: Collector) -> None:
    """A script without asyncio reads the same, and goes on from a token."""

    def script(since: str | None) -> list[Change]:
        return list(guestwire.iter_changes(nats_server.url, since=since, live=False))

    first = await asyncio.to_thread(script, None)
    await changing.users("ns/a", "carol")
    rest = await asyncio.to_thread(script, first[-1].token)

    assert [("ns/a", None, "alice"), ("ns/b", None, "bob")] == told(first)
    assert [("ns/a", "alice", "carol")] == told(rest)


async def test_plain_iterator_is_closed(nats_server: NatsServer, changing: Collector) -> None:
    """Its end leaves no thread and no connection, whichever way it comes: `with`, another thread, nobody's any more."""

    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "guestwire changes"]

    def leave() -> str:
        with guestwire.iter_changes(nats_server.url, kinds=["userlist"]) as changes:
            for change in changes:
                return str(change.ref)
        return ""

    def drop() -> str:
        for change in guestwire.iter_changes(nats_server.url):
            return str(change.ref)
        return ""

    def closed_meanwhile() -> int:
        changes = guestwire.iter_changes(nats_server.url)
        next(changes)
        closing = threading.Timer(0.3, changes.close)
        closing.start()
        count = 1 + sum(1 for _ in changes)
        closing.join()
        return count

    assert "ns/a" == await asyncio.to_thread(leave)
    assert [] == threads()
    assert "ns/a" == await asyncio.to_thread(drop)
    gc.collect()
    assert [] == threads()
    assert 2 == await asyncio.to_thread(closed_meanwhile)
    assert [] == threads()


async def test_plain_iterator_tells_errors(nats_server: NatsServer) -> None:
    """What is wrong is raised where the script asks."""

    def script() -> None:
        next(guestwire.iter_changes(nats_server.url, since="nonsense"))

    with pytest.raises(ConfigError):
        await asyncio.to_thread(script)
