"""
The simulated hosts of the benchmark and of the soak, and a real libvirt host with a real guest, held to the same
behaviour.

A benchmark is worth what its simulation is worth, and so is a soak: one test class, run over all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import pytest

from bench.simulated_host import SimulatedGuest, SimulatedHost
from collectors.agent_commands import AgentCommand
from collectors.host import Busy, Hint, Host, NotRunning
from collectors.libvirt_host import SUSPECT_CALLS, LibvirtHost
from collectors.reader import LOST
from collectors.replies import AgentInfo
from collectors.threads import Threads
from guestwire.errors import AgentRefused, AgentUnresponsive, NotConnected
from guestwire.snapshot import GuestRef, OperatingSystem, Phase
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd
from lab.soak import simulated_host as soak_host
from lab.soak.truth import HOSTS, NAMESPACE, Truth
from lab.soak.truth_server import TruthServer

Eventually = Callable[..., Awaitable[float]]
NOBODY = "00000000-0000-0000-0000-000000000000"
TYPES = {
    AgentCommand.INFO: AgentInfo,
    AgentCommand.FREEZE_STATUS: str,
    AgentCommand.OSINFO: OperatingSystem,
    AgentCommand.HOSTNAME: str,
    AgentCommand.TIMEZONE: str,
    AgentCommand.INTERFACES: tuple,
    AgentCommand.USERS: tuple,
    AgentCommand.FILESYSTEMS: tuple,
}


class Machine(Protocol):
    """A guest that things are done to."""

    ref: GuestRef
    uuid: str

    def hang(self) -> None:
        """The agent stops answering."""

    def wake(self) -> None:
        """The agent answers again."""

    def disconnect(self) -> None:
        """The agent ends."""

    def connect(self) -> None:
        """The agent starts."""

    def suspend(self) -> None:
        """The CPUs stop."""

    def resume(self) -> None:
        """The CPUs run on."""


class RealMachine:
    """The lab's guest in these words."""

    def __init__(self, guest: Guest) -> None:
        self.ref = GuestRef("bench", "vm-0")
        self.uuid = guest.uuid
        self.suspend, self.resume = guest.suspend, guest.resume
        self._control = guest.control

    def hang(self) -> None:
        """Stop the process."""
        self._control("agent", "hang")

    def wake(self) -> None:
        """Continue it."""
        self._control("agent", "wake")

    def disconnect(self) -> None:
        """End it."""
        self._control("agent", "kill")

    def connect(self) -> None:
        """Start it."""
        self._control("agent", "start")


class BenchMachine(SimulatedGuest):
    """The benchmark's guest."""

    ref = GuestRef("bench", "vm-0")


class SoakMachine:
    """The soak's guest in these words, of which no event is lost."""

    def __init__(self, truth: Truth) -> None:
        self._truth, [self._guest] = truth, truth.guests
        self.ref = GuestRef(NAMESPACE, self._guest.name)
        self.uuid = self._guest.uuid
        self.hang, self.wake = self._guest.awake.clear, self._guest.awake.set

    def disconnect(self) -> None:
        """The agent ends."""
        self._guest.connected = False
        self._truth.tell(self._guest, Hint.AGENT)

    def connect(self) -> None:
        """The agent starts."""
        self._guest.connected = True
        self._truth.tell(self._guest, Hint.AGENT)

    def suspend(self) -> None:
        """The CPUs stop."""
        self._guest.phase = Phase.PAUSED
        self._truth.tell(self._guest, Hint.STATE)

    def resume(self) -> None:
        """The CPUs run on."""
        self._guest.phase = Phase.RUNNING
        self._truth.tell(self._guest, Hint.EVERYTHING)


class Edge:
    """A host with one machine, and the hints it gave."""

    def __init__(self, host: Host, machine: Machine, hints: list[tuple[str, Hint]]) -> None:
        self.host = host
        self.machine = machine
        self.hints = hints

    async def ask(
        self, command: AgentCommand = AgentCommand.USERS, *, patience: int = 5, suspect: bool = False
    ) -> object:
        """What the machine's agent says."""
        return (await self.host.ask(self.machine.uuid, command, patience, suspect=suspect)).value

    async def answers(self, eventually: Eventually) -> None:
        """Return once the agent can be asked again."""

        async def trying() -> None:
            while True:
                try:
                    await self.ask()
                except (AgentUnresponsive, NotRunning):
                    await asyncio.sleep(0.1)
                else:
                    return

        task = asyncio.create_task(trying())
        await eventually(task.done, within=30, what="the agent answers")


@pytest.fixture(scope="module")
def guest(host: Libvirtd, image: GuestImage) -> Iterator[Guest]:
    """A real guest for the module."""
    with Guest(host, image, namespace="bench", name="vm-0") as machine:
        machine.wait_agent()
        yield machine


@pytest.fixture(params=["bench", "soak", pytest.param("libvirt", marks=pytest.mark.lab)])
async def edge(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Edge]:
    """An open host of each sort."""
    hints: list[tuple[str, Hint]] = []

    def on_hint(uuid: str, hint: Hint) -> None:
        hints.append((uuid, hint))

    opened: Host
    machine: Machine
    async with AsyncExitStack() as resources:
        match request.param:
            case "bench":
                machine = simulated = BenchMachine("bench_vm-0")
                opened = SimulatedHost("simulated:///host", 4, on_hint, [simulated], Threads())
            case "soak":
                machine, socket = SoakMachine(truth := Truth(1, "s", lost=0)), tmp_path / "truth"
                await resources.enter_async_context(TruthServer(truth, socket))
                opened = soak_host.SimulatedHost(f"simulated:///{HOSTS[0]}", 4, on_hint, socket=socket)
            case _:
                machine = RealMachine(request.getfixturevalue("guest"))
                opened = LibvirtHost(request.getfixturevalue("host").uri, 4, on_hint)
        await opened.open()
        yield Edge(opened, machine, hints)
        await opened.close()
        opened.shutdown()


async def do(what: Callable[[], object], edge: Edge) -> None:
    """Something happens to the machine; a real one takes its time."""
    if isinstance(edge.machine, BenchMachine | SoakMachine):
        what()  # it lives on this event loop
    else:
        await asyncio.to_thread(what)


class TestHostEdge:
    """What collectors rely on."""

    async def test_domains(self, edge: Edge) -> None:
        """Listed, and read from its live XML; one that is not there is none."""
        domain = await edge.host.domain(edge.machine.uuid)

        assert domain is not None
        assert [edge.machine.uuid] == await edge.host.list()
        assert (edge.machine.ref, edge.machine.uuid) == (domain.ref, domain.uuid)
        assert (Phase.RUNNING, True, True) == (domain.phase, domain.channel, domain.connected)
        assert ["default"] == [interface.name for interface in domain.interfaces]
        assert await edge.host.domain(NOBODY) is None

    async def test_answers(self, edge: Edge) -> None:
        """Every command is answered with what it stands for."""
        for command, kind in TYPES.items():
            assert isinstance(await edge.ask(command), kind), command
        assert edge.host.name

    async def test_hung(self, edge: Edge, eventually: Eventually) -> None:
        """
        A hung agent costs its time-out, then libvirt's own 5 s for getting in step again, and gives no hint; calls to
        one guest wait for each other; suspects share their own few places, and the next is refused at once.
        """
        await edge.ask()
        await do(edge.machine.hang, edge)
        began = time.monotonic()
        with pytest.raises(AgentUnresponsive):
            await edge.ask(patience=1)
        assert 0.9 < time.monotonic() - began < 4
        began = time.monotonic()
        places = [asyncio.create_task(edge.ask(patience=1, suspect=True)) for _ in range(SUSPECT_CALLS)]
        await asyncio.sleep(0.1)
        with pytest.raises(Busy):
            await edge.ask(patience=1, suspect=True)
        assert time.monotonic() - began < 2
        results = await asyncio.gather(*places, return_exceptions=True)
        assert SUSPECT_CALLS * 4.5 < time.monotonic() - began < SUSPECT_CALLS * 8
        assert [AgentUnresponsive] * SUSPECT_CALLS == [type(result) for result in results]
        assert [] == edge.hints
        await do(edge.machine.wake, edge)
        await edge.answers(eventually)

    async def test_agent_goes_and_returns(self, edge: Edge, eventually: Eventually) -> None:
        """Both are hinted at; meanwhile the XML says so, and asking fails in the words of a lost channel."""
        here = (edge.machine.uuid, Hint.AGENT)
        await do(edge.machine.disconnect, edge)
        await eventually(lambda: here in edge.hints)
        domain = await edge.host.domain(edge.machine.uuid)
        assert domain is not None
        assert (True, False) == (domain.channel, domain.connected)
        with pytest.raises(AgentUnresponsive) as failed:
            await edge.ask()
        assert LOST.search(str(failed.value))
        edge.hints.clear()
        await do(edge.machine.connect, edge)
        await eventually(lambda: here in edge.hints)
        await edge.answers(eventually)

    async def test_suspended(self, edge: Edge, eventually: Eventually) -> None:
        """A suspended guest keeps its connected agent, which cannot be asked; resumed anything may have changed."""
        await do(edge.machine.suspend, edge)
        await eventually(lambda: (edge.machine.uuid, Hint.STATE) in edge.hints)
        domain = await edge.host.domain(edge.machine.uuid)
        assert domain is not None
        assert (Phase.PAUSED, True) == (domain.phase, domain.connected)
        with pytest.raises(NotRunning):
            await edge.ask()
        await do(edge.machine.resume, edge)
        await eventually(lambda: (edge.machine.uuid, Hint.EVERYTHING) in edge.hints)
        await edge.answers(eventually)

    async def test_no_such_guest(self, edge: Edge) -> None:
        """Asking a guest that is not there is refused."""
        with pytest.raises(AgentRefused):
            await edge.host.ask(NOBODY, AgentCommand.USERS, 1)

    async def test_closed(self, edge: Edge) -> None:
        """A closed host says that it is not connected; opened again it serves."""
        await edge.host.close()
        with pytest.raises(NotConnected):
            await edge.host.list()
        with pytest.raises(NotConnected):
            await edge.ask()
        await edge.host.open()
        assert [edge.machine.uuid] == await edge.host.list()
