"""A cluster of NATS servers for trouble: members that are cut off, frozen, or whose disk is slow or full.

Members reach each other by links alone, one TCP proxy for each member and each other that it dials. A link that is cut
holds back what is sent, as a network does that loses packets: no connection ends, nobody is told, and what was held
back arrives late. Servers also tell each other where further members are, and would go around the links; what these
members tell is an address where nobody listens.

A disk of limited size is a tmpfs in a mount namespace that ends with the process that holds it, so that nothing stays
mounted however its owner ends. A slow disk is the kernel's own answer, delayed by strace's fault injection.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from lab.errors import LabError
from lab.nats_server import NatsServer
from lab.part import Part
from lab.process import Daemon, free_port, wait_until

T = TypeVar("T")

NOBODY = "127.0.0.1:1"
"""Where members tell each other that they can be dialled."""

CLUSTER_NAME = "lab"


class Disk(Part):
    """A file system of `size` bytes at `path`, seen by those whom `enter` starts."""

    def __init__(self, path: Path, size: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        script = f'mount -t tmpfs -o size={size} tmpfs "{path}"; echo mounted; exec sleep infinity'
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script]
        self._holder = Daemon(command, log=path.with_name(f"{path.name}.disk.log"))

    def start(self) -> None:
        """Raises LabError where nothing may be mounted."""
        self._holder.start()
        self._holder.ready(lambda: "mounted" in self._holder.log_tail(1), timeout=20)

    def stop(self) -> None:
        """What is on it is gone once nobody uses it any more."""
        self._holder.kill()

    @property
    def alive(self) -> bool:
        """Whether it is there."""
        return self._holder.alive

    @property
    def enter(self) -> list[str]:
        """What goes before a command that is to see it."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]

    def fill(self) -> None:
        """Leave no room on it."""
        with self._ballast.open("ab", buffering=0) as ballast, suppress(OSError):
            while ballast.write(b"\0" * 4096):
                pass

    def empty(self) -> None:
        """Give back the room that `fill` took."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return Path(f"/proc/{self._holder.pid}/root{self._path}/ballast")


class Member(NatsServer):
    """A server of the cluster; with `disk` its data are on a file system of so many bytes."""

    def __init__(self, directory: Path, *, config: str, disk: int = 0) -> None:
        super().__init__(directory, config=config)
        self._command = self._daemon.argv
        self.disk = Disk(directory / "jetstream", disk) if disk else None

    def launch(self) -> None:
        if self.disk:
            if not self.disk.alive:
                self.disk.start()
            self._daemon.argv = [*self.disk.enter, *self._command]
        super().launch()

    def stop(self) -> None:
        if self.alive:
            self.thaw()
        super().stop()

    def freeze(self) -> None:
        """Stop it where it stands (SIGSTOP): its connections stay, and nobody gets an answer."""
        os.kill(self._pid(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._pid(), signal.SIGCONT)

    @contextmanager
    def slow_disk(self, seconds: float) -> Iterator[None]:
        """Every write at a place of a file, and every fsync, takes that much longer. Raises LabError without strace."""
        log, delay = self.directory / "strace.log", f"delay_enter={seconds * 1e6:.0f}"
        calls = "pwrite64,fsync,fdatasync"
        inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:{delay}", "-o", f"{self.directory}/strace.out"]
        tracer = Daemon(["strace", "-f", "-p", str(self._pid()), *inject], log=log)
        with tracer:
            tracer.ready(lambda: "attached" in tracer.log_tail(), timeout=20)
            yield

    def _pid(self) -> int:
        pid = self._daemon.pid
        if pid is None:
            raise LabError(f"{self!r} does not run")
        return pid


class Link:
    """What one member dials to reach another; serves on a port of its own until its loop ends."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Take connections from now on."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", free_port())
        self._server = server
        self.port = server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Hold back everything, new connections too."""
        self._whole.clear()

    async def heal(self) -> None:
        """Pass on what was held back, and everything from now on."""
        self._whole.set()

    async def close(self) -> None:
        """End all connections."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101 - a callback of a server runs in a task
        self._tasks.add(task)
        try:
            await self._whole.wait()
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                await asyncio.gather(self._pass_on(reader, there), self._pass_on(there_reader, writer))
            finally:
                there.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._whole.wait()
            target.write(data)
            await target.drain()
        raise ConnectionResetError


class Links:
    """Those of all members, served by a thread of their own."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lab-links", daemon=True)
        self._thread.start()
        numbers = range(len(ports))
        self._links = {(one, other): Link(ports[other]) for one in numbers for other in numbers if one != other}
        for link in self._links.values():
            self._run(link.serve())

    def of(self, member: int) -> list[int]:
        """The ports that a member dials."""
        return [link.port for (one, _), link in self._links.items() if one == member]

    def cut(self, member: int) -> None:
        """Part a member from all others, in both directions."""
        for ends, link in self._links.items():
            if member in ends:
                self._run(link.cut())

    def heal(self) -> None:
        """Make all links whole."""
        for link in self._links.values():
            self._run(link.heal())

    def close(self) -> None:
        """End all connections, and the thread."""
        for link in self._links.values():
            self._run(link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


class FragileCluster(Part):
    """Members that can be parted from each other, each with the `config` and `disk` of `Member`."""

    def __init__(self, directory: Path, size: int = 3, *, config: str = "", disk: int = 0) -> None:
        ports = [free_port() for _ in range(size)]
        self._links = Links(ports)
        self.members = tuple(
            Member(directory / f"n{number}", config=f"{_routes(port, self._links.of(number))}{config}", disk=disk)
            for number, port in enumerate(ports)
        )

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients connect: one address per member."""
        return tuple(member.url for member in self.members)

    def start(self) -> None:
        """Start the members that do not run; returns once all are healthy. Raises LabError."""
        for member in self.members:
            if not member.alive:
                member.launch()
        wait_until(self.healthy, 60, f"{self!r} healthy")

    def stop(self) -> None:
        """Stop all members, and give up their disks."""
        self.heal()
        for member in self.members:
            member.kill()
            if member.disk:
                member.disk.stop()
        self._links.close()

    def healthy(self) -> bool:
        """Whether every member is, with all its streams."""
        return all(member.healthy() for member in self.members)

    def member(self, name: str | None) -> Member:
        """A member by its name. Raises LabError."""
        for member in self.members:
            if member.name == name:
                return member
        raise LabError(f"{self!r} has no member {name}")

    def part(self, member: Member) -> None:
        """Cut a member off from all others; clients still reach it."""
        self._links.cut(self.members.index(member))

    def heal(self) -> None:
        """Every member reaches every other again."""
        self._links.heal()

    def __repr__(self) -> str:
        return f"<FragileCluster {', '.join(self.urls)}>"


def _routes(port: int, others: Sequence[int]) -> str:
    addresses = ", ".join(f'"nats://127.0.0.1:{other}"' for other in others)
    return (
        f'cluster {{ name: {CLUSTER_NAME}, listen: "127.0.0.1:{port}", cluster_advertise: "{NOBODY}", '
        f"routes: [{addresses}] }}\n"
    )
