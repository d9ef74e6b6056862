"""
Everything that a soak needs, started: the world, the truth about the simulated guests, two real guests, the pipeline.

The ages are shorter than the defaults, so that a minute holds many readings; what is promised does not depend on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from guestwire import client
from lab.build import LabParts
from lab.errors import LabError
from lab.kube_apiserver import KubeApiserver
from lab.nats_server import NatsServer
from lab.process import free_port
from lab.soak.expected import Bodies, Expected, bodies
from lab.soak.faults import REAL_GUESTS
from lab.soak.pipeline import Process, processes
from lab.soak.real_guests import RealGuest
from lab.soak.truth import COMMANDS, HOSTS, NAMESPACE, SimulatedGuest, Truth
from lab.soak.truth_server import TruthServer
from lab.world import World

SETTINGS: dict[str, object] = {
    "COLLECT__USERS": 3,
    "COLLECT__INTERFACES": 3,
    "COLLECT__SYSTEM": 8,
    "COLLECT__FILESYSTEMS": 8,
    "COLLECT__USAGE_SHARE": 0,
    "COLLECT__RESYNC": 15,
    "COLLECT__COMMAND_TIMEOUT": 3,
    "STATUS__GRACE": 3,
    "STATUS__MIN_INTERVAL": 0.5,
    "LOG__FORMAT": "json",
}


class Stage:
    """Up from entering to leaving its context."""

    def __init__(self, parts: LabParts, guests: int, seed: str, say: Callable[[str], None]) -> None:
        self.truth = Truth(guests, seed)
        self.world = World(parts)
        self.real: list[RealGuest] = []
        self.processes: list[Process] = []
        self.nats: NatsServer
        self.truth_server: TruthServer
        self.cluster: KubeApiserver
        self.api = ""
        self._running: list[asyncio.Task[None]] = []
        self._seed = seed
        self._say = say
        self._resources = contextlib.AsyncExitStack()

    @property
    def directory(self) -> Path:
        """Of the world; ends with it."""
        return self.world.directory

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    async def _start(self) -> None:
        resources = self._resources
        await asyncio.to_thread(self.world.__enter__)
        resources.push(self.world)
        if not isinstance(self.world.cluster, KubeApiserver):
            raise LabError("the API server must be one that may be killed")
        self.cluster = self.world.cluster
        self.nats = NatsServer(self.directory / "nats")
        await asyncio.to_thread(self.nats.start)
        resources.callback(self.nats.stop)
        await asyncio.to_thread(self._make_vmis)
        self.truth_server = await resources.enter_async_context(TruthServer(self.truth, self.directory / "truth"))
        for one in self.real:
            await asyncio.to_thread(one.guest.start)
        self._start_pipeline()
        resources.push_async_callback(self.stop_pipeline)
        for one in self.real:
            await asyncio.to_thread(one.guest.wait_agent)

    def _make_vmis(self) -> None:
        """One for each guest, with the uid that its domain will carry."""
        self.cluster.kubectl("create", "namespace", NAMESPACE)
        names = [guest.name for guest in self.truth.guests]
        items = [
            {
                "apiVersion": "kubevirt.io/v1",
                "kind": "VirtualMachineInstance",
                "metadata": {"namespace": NAMESPACE, "name": name},
                "spec": {"domain": {"devices": {"interfaces": [{"name": "default", "bridge": {}}]}}},
                "status": {"phase": "Running"},
            }
            for name in names
        ]
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        self.cluster.kubectl("create", "-f", "-", input=manifest, timeout=120)
        made = json.loads(self.cluster.kubectl("get", "vmi", "-n", NAMESPACE, "-o", "json"))["items"]
        uids = {one["metadata"]["name"]: one["metadata"]["uid"] for one in made}
        for guest in self.truth.guests:
            guest.uid = uids[guest.name]
        for name in REAL_GUESTS:
            uid = self.world.create_vmi("default", name)
            self.real.append(RealGuest(self.world.guest(name=name, uid=uid), name, self._seed))

    def _start_pipeline(self) -> None:
        env = self.world.environment(**SETTINGS, NATS__SERVERS=self.nats.url)
        env["SOAK_HEALTH"] = f"127.0.0.1:{free_port()}"
        self.api = env["GUESTWIRE_API__LISTEN"]
        self.processes = processes(self.directory, env, self.directory / "truth", HOSTS, self._say)
        self._running = [asyncio.create_task(process.run(), name=process.name) for process in self.processes]

    async def stop_pipeline(self) -> None:
        """All its processes; what they stored and logged stays until the stage is left."""
        running, self._running = self._running, []
        for process in self.processes:
            process.stop()
        for process, task in zip(self.processes, running, strict=bool(running)):
            try:
                await task
            except LabError as error:
                process.troubles.append(f"{process.name}: {error}")

    def keep_logs(self) -> Path:
        """Copy the logs of the pipeline and of the servers to where they stay."""
        kept = Path(tempfile.mkdtemp(prefix="guestwire-soak-"))
        for log in self.directory.rglob("*.log"):
            shutil.copy(log, kept / log.name)
        return kept

    # --- what is true -------------------------------------------------------------------------------------------

    async def expected(self) -> list[Expected]:
        """What should be said about every guest now, asked of the truth, the agents and libvirt themselves."""
        last = await self._last_said()
        found = [_simulated(guest, last.get((NAMESPACE, guest.name), {})) for guest in self.truth.guests]
        for one in self.real:
            connected = await asyncio.to_thread(one.guest.agent_connected)
            replies = await one.replies() if connected else None
            facts = bodies(replies, one.guest.mac) if replies else last.get(("default", one.name), {})
            found.append(
                Expected(
                    "default", one.name, one.guest.mac, there=True, connected=connected,
                    hangs=replies is None, bodies=facts,
                )
            )  # fmt: skip
        return found

    async def _last_said(self) -> dict[tuple[str, str], Bodies]:
        """The facts that the stream has last of each guest."""
        found: dict[tuple[str, str], Bodies] = {}
        async with client.open(self.nats.url) as bus:
            async for message in client.follow(bus, live=False):
                if message.address.kind != "agent":
                    ref = message.address.ref
                    found.setdefault((ref.namespace, ref.name), {})[message.address.kind] = json.loads(message.body)
        return found


def _simulated(guest: SimulatedGuest, last: Bodies) -> Expected:
    replies = {command: guest.reply(command) for command in COMMANDS} if guest.answers else None
    return Expected(
        NAMESPACE,
        guest.name,
        guest.mac,
        there=guest.there,
        phase=guest.phase.value,
        connected=guest.there and guest.connected,
        hangs=not guest.awake.is_set(),
        bodies=(bodies(replies, guest.mac) if replies else last) if guest.there else {},
    )
