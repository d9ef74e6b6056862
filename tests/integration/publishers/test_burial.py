"""Guests of a host that never comes back are declared gone, for every reader; and nobody whom anybody tells of."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import guestwire
from api.cache import Cache
from guestwire import client, codec, subjects
from guestwire.follower import Follower
from guestwire.jetstream import Bus
from guestwire.lifecycle import cancel
from guestwire.settings import Nats, Publish
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot, Kind, ListMeta, Part, Phase, User, UserList
from lab.nats_server import NatsServer
from publishers.burial import Burial
from publishers.jetstream import JetStreamPublisher
from publishers.retention import Retention
from tests.publishing import publisher

pytestmark = pytest.mark.lab

Eventually = Callable[..., Awaitable[float]]
GUESTWIRE = Path(sys.executable).with_name("guestwire")
NOW = codec.now()
DAY, LONG_AGO = timedelta(days=1), NOW - timedelta(days=3)


def agent(name: str, at: datetime, host: str = "h", phase: Phase = Phase.RUNNING) -> Part:
    """A record of that time."""
    state = AgentState("ns", name, f"uid-{name}", name, name, host, phase, channel=True, connected=True, since=LONG_AGO)
    return codec.part(Kind.AGENT, state, at)


def users(*names: str, at: datetime = LONG_AGO) -> Part:
    """Who was logged in at that time."""
    return codec.part(Kind.USERLIST, UserList(tuple(map(User, names)), ListMeta()), at)


async def say(one: JetStreamPublisher, name: str, *parts: Part, host: str = "h") -> None:
    """What one look at a guest found."""
    ref = GuestRef("ns", name)
    one.offer(GuestSnapshot(ref, f"uid-{name}", host, parts, codec.new_trace_id()))
    await asyncio.wait_for(one.settled(ref), 30)


async def publish(bus: Bus, name: str, *parts: Part, host: str = "h") -> None:
    """The same by a collector that then ends."""
    async with publisher(bus, "c") as one:
        await say(one, name, *parts, host=host)


async def left(bus: Bus) -> list[tuple[str, str, str]]:
    """Every message on the stream, history too, with the phase in agent records."""
    found = []
    async for message in client.follow(bus, after=0, live=False):
        phase = codec.decode(message.body, AgentState).phase if message.address.kind == Kind.AGENT else ""
        found.append((message.address.ref.name, message.address.kind, str(phase)))
    return found


def burial(bus: Bus) -> Burial:
    """With the settings of a collector."""
    return Burial(bus, "c", Publish())


async def test_every_reader_forgets(bus: Bus, eventually: Eventually) -> None:
    """The API drops guests of the host, a subscriber is told that they are gone; another host's guest stays."""
    await publish(bus, "a", users("alice"), agent("a", LONG_AGO))
    await publish(bus, "b", users("alice"), agent("b", LONG_AGO))
    await publish(bus, "other", agent("other", LONG_AGO, "another"), host="another")
    cache, told = Cache(), list[str]()
    following = asyncio.create_task(Follower(bus, subjects.pattern(cluster="c"), cache).run())

    async def subscribe() -> None:
        async for change in guestwire.changes(bus, cluster="c"):
            if change.gone:
                told.append(f"{change.ref} by {change.host}, {change.uid}")

    subscribing = asyncio.create_task(subscribe())
    try:
        await eventually(lambda: cache.level and len(cache) == 3)
        found = await burial(bus).of_host("h")
        assert ["ns/a", "ns/b"] == [str(each.ref) for each in found]
        one = burial(bus)
        assert [True, True] == [await one.bury(each) for each in found]
        await eventually(lambda: len(cache) == 1 and len(told) == 2)
    finally:
        await cancel(following, subscribing)

    assert [GuestRef("ns", "other")] == list(cache.fleet.guests)
    assert ["ns/a by h, uid-a", "ns/b by h, uid-b"] == told


@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param((agent("vm", NOW, "h2"),), id="another host runs it"),
        pytest.param((agent("vm", NOW, "h"),), id="a heartbeat"),
        pytest.param((users("bob", at=NOW),), id="another kind of facts"),
    ],
)
async def test_told_of_meanwhile(bus: Bus, meanwhile: tuple[Part, ...]) -> None:
    """A guest of which somebody tells after it was looked at is not buried, whoever it is and whatever they say."""
    await publish(bus, "vm", users("alice"), agent("vm", LONG_AGO))
    one = burial(bus)
    [found] = await one.of([GuestRef("ns", "vm")])
    await publish(bus, "vm", *meanwhile, host="h2" if b'"host":"h2"' in meanwhile[0].body else "h")
    before = await left(bus)

    assert not await one.bury(found)
    assert before == await left(bus)


async def test_fenced(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody was faster by no more than the time between the last look and the last word."""
    await publish(bus, "vm", agent("vm", LONG_AGO))
    one = burial(bus)
    [found] = await one.of([GuestRef("ns", "vm")])
    load = one._ledger.load

    async def load_then_another_host(ref: GuestRef) -> object:
        loaded = await load(ref)
        await publish(bus, "vm", agent("vm", NOW, "h2"), host="h2")
        return loaded

    monkeypatch.setattr(one._ledger, "load", load_then_another_host)

    assert not await one.bury(found)
    assert [("vm", "agent", "Running")] * 2 == await left(bus)


async def test_buried_by_mistake(bus: Bus, eventually: Eventually) -> None:
    """A collector that tells of the guest after all tells everything anew."""
    async with publisher(bus, "c") as alive:
        await say(alive, "vm", users("alice"), agent("vm", LONG_AGO))
        one = burial(bus)
        [found] = await one.of([GuestRef("ns", "vm")])
        assert await one.bury(found)
        await say(alive, "vm", users("alice"), agent("vm", NOW))
    cache = Cache()
    following = asyncio.create_task(Follower(bus, subjects.pattern(cluster="c"), cache).run())
    try:
        await eventually(lambda: cache.level)
    finally:
        await cancel(following)

    guest = cache.guest(GuestRef("ns", "vm"))
    assert guest
    assert {"agent", "userlist"} == set(guest.facts)


async def test_purged(bus: Bus, nats_server: NatsServer) -> None:
    """Facts, history and keys go at once; the last word stays for those who were away, until the retention is over."""
    async with Bus(Nats(servers=(nats_server.url,), bucket="guestwire", timeout=2), "test") as viewed:
        await viewed.ensure_stream()
        await publish(bus, "vm", users("alice"), agent("vm", LONG_AGO - DAY))
        await publish(bus, "vm", users("bob"), agent("vm", LONG_AGO))
        await publish(bus, "stays", users("bob"), agent("stays", LONG_AGO))
        view = await viewed.js.key_value("guestwire")
        async with asyncio.timeout(20):
            while True:
                if (await bus.js.stream_info("KV_guestwire")).state.messages == 4:
                    break
                await asyncio.sleep(0.05)
        resumed = (await bus.js.stream_info("GUESTWIRE")).state.last_seq
        one = burial(viewed)
        [found] = await one.of([GuestRef("ns", "vm")])
        assert await one.bury(found)
        assert await one.purge(found.ref)
        assert not await one.purge(GuestRef("ns", "stays"))
        keys = set(await view.keys())
    told = [change.gone async for change in guestwire.changes(bus, cluster="c", since=resumed, live=False)]

    assert [True] == told
    assert [("stays", "userlist", ""), ("stays", "agent", "Running"), ("vm", "agent", "Gone")] == await left(bus)
    assert {"c.ns.stays.agent", "c.ns.stays.userlist", "c.ns.vm.agent"} == keys
    assert [GuestRef("ns", "vm")] == await Retention(bus, "c", lambda: ["x"], 1).sweep(codec.now().timestamp() + 60)


# --- the command -------------------------------------------------------------------------------------------------


class Shell:
    """Types `guestwire forget`."""

    def __init__(self, url: str) -> None:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("GUESTWIRE_")}
        self.env = {**plain, "GUESTWIRE_NATS__SERVERS": url, "GUESTWIRE_CLUSTER": "c", "GUESTWIRE_NATS__TIMEOUT": "3"}

    async def __call__(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> tuple[int, str]:
        """The exit status, and what is printed on both outputs."""
        process = await asyncio.create_subprocess_exec(
            GUESTWIRE, "forget", *arguments, env=self.env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        output, errors = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, output.decode() + errors.decode()


@pytest.fixture
def shell(nats_server: NatsServer) -> Shell:
    """Of an operator."""
    return Shell(nats_server.url)


async def test_command(bus: Bus, shell: Shell) -> None:
    """It lists, and does nothing without an answer; then what may be done: who was heard of lately is left alone."""
    await publish(bus, "old1", users("alice"), agent("old1", LONG_AGO))
    await publish(bus, "old2", agent("old2", LONG_AGO))
    await publish(bus, "lately", users("alice", at=codec.now()), agent("lately", LONG_AGO))
    await publish(bus, "other", agent("other", LONG_AGO, "another"), host="another")
    before = await left(bus)

    status, text = await shell("--host", "h")
    assert (2, True) == (status, "say --yes" in text)
    assert ["declared gone", "declared gone"] == [line[-13:] for line in text.splitlines() if "ns/old" in line]
    assert "other" not in text
    assert before == await left(bus)
    status, text = await shell("--host", "h", "--yes")
    assert (1, True) == (status, "1 guest left alone" in text)
    assert {"old1", "old2"} == {name for name, _, phase in await left(bus) if phase == "Gone"}
    status, text = await shell("ns/lately", "--yes", "--force", "--purge")
    assert 0 == status, text
    assert [("lately", "agent", "Gone")] == [each for each in await left(bus) if each[0] == "lately"]
    status, text = await shell("ns/old1", "--yes", "--purge")
    assert 0 == status, text
    assert [("old1", "agent", "Gone")] == [each for each in await left(bus) if each[0] == "old1"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 2, "name guests, or a host"),
        (("ns/a", "--host", "h"), 2, "name guests, or a host"),
        (("--host", "nowhere", "--yes"), 1, "no guest of host nowhere"),
        (("ns/vm", "ns/none", "--yes"), 1, "nothing is known of ns/none"),
    ],
)
async def test_wrong_names(bus: Bus, shell: Shell, arguments: tuple[str, ...], status: int, words: str) -> None:
    """Nothing is done when a name is wrong."""
    await publish(bus, "vm", agent("vm", LONG_AGO))
    told = await shell(*arguments)

    assert (status, True) == (told[0], words in told[1])
    assert [("vm", "agent", "Running")] == await left(bus)


@pytest.mark.parametrize(("answer", "status", "phases"), [("n", 1, ["Running"]), ("y", 0, ["Running", "Gone"])])
async def test_terminal(bus: Bus, shell: Shell, answer: str, status: int, phases: list[str]) -> None:
    """At a terminal the answer decides."""
    await publish(bus, "vm", agent("vm", LONG_AGO))
    controller, side = pty.openpty()
    os.write(controller, f"{answer}\n".encode())
    told = await shell("ns/vm", stdin=side)
    os.close(side)
    os.close(controller)

    assert status == told[0], told[1]
    assert "Declare 1 guest gone?" in told[1]
    assert phases == [phase for _, _, phase in await left(bus)]
