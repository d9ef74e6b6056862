"""Live migration: two hosts, a collector each, one bus; a reader sees the guest go on running, from another host."""

from __future__ import annotations

import asyncio
import itertools
import uuid as uuids
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.agent_commands import AgentCommand, Reply
from collectors.domain import Domain
from collectors.host import Hint, Moving, NotRunning, OnHint
from collectors.replies import AgentInfo
from collectors.schedule import MOMENT
from guestwire import client, codec, subjects
from guestwire.errors import AgentUnresponsive
from guestwire.jetstream import Bus
from guestwire.settings import Nats, Publish
from guestwire.snapshot import (
    Command,
    FilesystemList,
    GuestRef,
    GuestSnapshot,
    Kind,
    ListMeta,
    OperatingSystem,
    Phase,
    User,
    UserList,
)
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd
from lab.nats_server import NatsServer
from publishers.jetstream import JetStreamPublisher

from .conftest import Bystander, collecting, listening


@pytest.fixture(scope="module")
def other_host(directory: Path) -> Iterator[Libvirtd]:
    """A second daemon, which must have another identity for a guest to move to it."""
    with Libvirtd(directory / "h2", host_uuid="7d6d40a9-6e1f-4c1c-8b7e-2b0d8a4f7c55") as daemon:
        yield daemon


@pytest.fixture
def guest(host: Libvirtd, image: GuestImage) -> Iterator[Guest]:
    """A guest that begins on the first host."""
    with Guest(host, image, namespace="prod", name="nomad") as machine:
        machine.wait_agent()
        yield machine


async def move(bystander: Bystander, guest: Guest, destination: Libvirtd, name: str) -> None:
    """Migrate, and wait until the destination's collector has told everything."""
    bystander.mark()
    await asyncio.to_thread(guest.migrate, destination)
    await bystander.settled(lambda: bystander.agent("host") == name)


async def test_there_and_back(bus: Bus, host: Libvirtd, other_host: Libvirtd, guest: Guest) -> None:
    """A migration is one message, the new host's name; then that host speaks, and the other one is silent."""
    async with (
        listening(bus, guest) as bystander,
        collecting(bus, host.uri, host="one") as one,
        collecting(bus, other_host.uri, host="two") as two,
    ):
        await bystander.settled(lambda: "filesystemlist" in bystander.latest)
        since = bystander.agent("since")
        for destination, name, user in (
            (other_host, "two", "alice"),
            (host, "one", "bob"),
            (other_host, "two", "carol"),
        ):
            await move(bystander, guest, destination, name)
            bystander.assert_told(("agent", {"host": name}))
            assert since == bystander.agent("since")
            source, target = (one, two) if name == "two" else (two, one)
            assert ([], [guest.uuid]) == (list(source.hosts[0].guests), list(target.hosts[0].guests))

            bystander.mark()
            await asyncio.to_thread(guest.control, "login", user)
            await bystander.settled(lambda user=user: user in str(bystander.latest.get("userlist")))  # type: ignore[misc]
            assert {name} == {message.event.host for message in bystander.messages[bystander._mark :]}


# --- every order of what two hosts see ---------------------------------------------------------------------------

ABSENT, MOVING, MOVED, OFF, CLOSED, OPEN = "absent", "moving", "moved", "off", "closed", "open"
"""What a host sees of the guest: nothing, a migration, what a migration left, a stopped domain; running, with its
agent's channel closed or open."""
STEPS: dict[str, tuple[str, str | None, tuple[Hint, ...]]] = {
    "prepared": ("target", MOVING, (Hint.AGENT,)),
    "started": ("target", None, (Hint.STATE,)),
    "paused": ("source", MOVING, (Hint.STATE,)),
    "resumed": ("target", CLOSED, (Hint.AGENT, Hint.EVERYTHING)),
    "connected": ("target", OPEN, (Hint.AGENT,)),
    "left": ("source", ABSENT, ()),
    "told": ("source", None, (Hint.MIGRATED, Hint.STATE)),
}
"""A migration as libvirt 9.0 shows it: who sees something else then, what, and the events that tell of it."""
BEFORE = {("prepared", "started"), ("prepared", "paused"), ("started", "resumed"), ("paused", "resumed"),
          ("resumed", "connected"), ("resumed", "left"), ("left", "told")}  # fmt: skip
ORDERS = [
    order
    for order in itertools.permutations(STEPS)
    if all(order.index(first) < order.index(second) for first, second in BEFORE)
]
PAUSES = st.sampled_from([0.0, 0.002, 0.01, 0.05, 0.3])
"""Seconds before a step."""
LATENCIES = st.sampled_from([0.0, 0.002, 0.01, 0.04])
"""Seconds that a look at a domain, or an agent command, takes on a host."""


class Machine:
    """The guest itself: its users are a number that grows, so that an older fact can be told from a newer one."""

    def __init__(self) -> None:
        self.uuid = str(uuids.uuid4())
        self.domain_name = f"prod_{self.uuid[:8]}"
        self.users = 0

    async def live(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(0.02)
            self.users += 1


class SimulatedHost:
    """A `collectors.host.Host`, as far as a guest in migration goes."""

    def __init__(self, name: str, machine: Machine, sees: str, latency: float) -> None:
        self.uri = self.name = name
        self.lost = asyncio.Event()
        self.sees = sees
        self._machine = machine
        self._latency = latency
        self.hint: OnHint = lambda _uuid, _hint: None

    def make(self, _uri: str, _connections: int, on_hint: OnHint) -> SimulatedHost:
        """A `collectors.host.MakeHost`."""
        self.hint = on_hint
        return self

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    def shutdown(self) -> None:
        """No threads."""

    async def list(self) -> list[str]:
        return [] if self.sees == ABSENT else [self._machine.uuid]

    async def domain(self, uuid: str) -> Domain | None:
        sees = self.sees
        await asyncio.sleep(self._latency)
        if sees == ABSENT:
            return None
        if sees in {MOVING, MOVED}:
            raise Moving
        name = self._machine.domain_name
        phase = Phase.STOPPED if sees == OFF else Phase.RUNNING
        return Domain(GuestRef.of_domain(name), name, uuid, uuid, phase, True, sees == OPEN, ())

    async def ask(self, uuid: str, command: AgentCommand, timeout: int, *, suspect: bool = False) -> Reply:  # noqa: ASYNC109
        if self.sees == CLOSED:
            raise AgentUnresponsive("QEMU guest agent is not connected")
        if self.sees != OPEN:
            raise NotRunning("domain is not running")
        users = (User(f"u{self._machine.users}"),)
        await asyncio.sleep(self._latency)
        return Reply(
            {
                AgentCommand.INFO: AgentInfo("9.0", tuple(Command(each, enabled=True) for each in AgentCommand)),
                AgentCommand.FREEZE_STATUS: "thawed",
                AgentCommand.OSINFO: OperatingSystem(id="lab"),
                AgentCommand.HOSTNAME: "nomad",
                AgentCommand.TIMEZONE: "UTC, 0",
                AgentCommand.USERS: users,
            }.get(command, ())
        )


Migration = tuple[tuple[str, ...], list[float], bool]
"""The order of steps, the pause before each, and whether the source keeps a definition."""


async def migrate(machine: Machine, source: SimulatedHost, target: SimulatedHost, migration: Migration) -> None:
    """Play one migration."""
    order, pauses, keeps = migration
    for step, pause in zip(order, pauses, strict=True):
        await asyncio.sleep(pause)
        side, sees, hints = STEPS[step]
        host = source if side == "source" else target
        host.sees = (MOVED if sees == ABSENT and keeps else sees) or host.sees
        for hint in hints:
            host.hint(machine.uuid, hint)


async def play(server: NatsServer, migrations: list[Migration], latencies: tuple[float, float]) -> None:
    """Migrations between two hosts, each watched by a collector of its own, and what must hold of all that was said."""
    machine = Machine()
    hosts = [SimulatedHost("a", machine, OPEN, latencies[0]), SimulatedHost("b", machine, ABSENT, latencies[1])]
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(Bus(Nats(servers=(server.url,)), "test"))
        await bus.ensure_stream()
        bystander = await stack.enter_async_context(listening(bus, machine))
        often = dict.fromkeys(("users", "interfaces", "system", "filesystems"), 0.05)
        collectors = [
            await stack.enter_async_context(collecting(bus, host.uri, host.make, resync=0.4, **often)) for host in hosts
        ]
        await bystander.until(lambda: "filesystemlist" in bystander.latest)
        await asyncio.sleep(2 * MOMENT)  # each collector has buried whoever went away before it began
        living = asyncio.create_task(machine.live())
        source, target = hosts
        for migration in migrations:
            await migrate(machine, source, target, migration)
            await bystander.until(lambda name=target.name: name == bystander.agent("host"), within=20)  # type: ignore[misc]
            if source.sees == MOVED:  # once its daemon has restarted, a definition is all that it knows
                source.sees = OFF
                source.hint(machine.uuid, Hint.STATE)
            source, target = target, source
        living.cancel()
        await bystander.quiet(1.2)

        ran = [(body["host"], body["connected"], body["phase"]) for body in bystander.bodies("agent")]
        assert {(True, "Running")} == {(connected, phase) for _, connected, phase in ran}, ran
        assert ["a", "b", "a"][: len(migrations) + 1] == [
            name for name, _ in itertools.groupby(host for host, *_ in ran)
        ]
        users = [int(body["items"][0]["userName"][1:]) for body in bystander.bodies("userlist")]
        assert sorted(users) == users, users
        assert machine.users == users[-1], users
        here = {host.name: list(collector.hosts[0].guests) for host, collector in zip(hosts, collectors, strict=True)}
        assert {source.name: [machine.uuid], target.name: []} == here, here


@given(
    migrations=st.lists(
        st.tuples(st.sampled_from(ORDERS), st.lists(PAUSES, min_size=7, max_size=7), st.booleans()),
        min_size=1,
        max_size=2,
    ),
    latencies=st.tuples(LATENCIES, LATENCIES),
)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_order(nats_server: NatsServer, migrations: list[Migration], latencies: tuple[float, float]) -> None:
    """
    In whatever order two hosts see a migration, and however late they look: the guest runs and is connected all the
    time, moves once per migration, no fact is followed by an older one, and only its host has it in the end.
    """
    asyncio.run(play(nats_server, migrations, latencies))


async def test_gone_while_a_message_is_on_the_way(bus: Bus) -> None:
    """A guest that leaves between two of its messages: the second one stays unsent, and the publisher goes on."""
    bus.atomic = False
    ref, now = GuestRef("prod", "nomad"), codec.now()
    lists = (UserList((), ListMeta()), FilesystemList((), ListMeta()))
    parts = tuple(map(codec.part, (Kind.USERLIST, Kind.FILESYSTEMLIST), lists, (now, now)))
    publisher = JetStreamPublisher(bus, "c", Publish())
    running = asyncio.create_task(publisher.run())
    async with bus.client.listening(subjects.subject("c", ref, Kind.USERLIST), lambda _first: publisher.forget(ref)):
        publisher.offer(GuestSnapshot(ref, "uid", "one", parts, codec.new_trace_id()))
        await publisher.settled(ref)
    assert [Kind.USERLIST] == [message.address.kind async for message in client.follow(bus, live=False)]

    publisher.offer(GuestSnapshot(ref, "uid", "one", parts, codec.new_trace_id()))
    publisher.close()
    await asyncio.wait_for(running, 20)
    assert {Kind.USERLIST, Kind.FILESYSTEMLIST} == set(await bus.last("c", ref))
