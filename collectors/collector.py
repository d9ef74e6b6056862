"""
The stage: libvirt hosts in, guest snapshots out.

An event, a timer or a resync only marks a domain as due. A worker then looks at the present state of that domain, asks
its agent what the schedule says, and offers what it now knows. Nobody else touches a guest meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import Protocol

from collectors import metrics
from collectors.agent_commands import AgentCommand
from collectors.domain import Domain
from collectors.guest import COMMANDS, Guest, Usage, gone
from collectors.host import Hint, MakeHost, Moving
from collectors.libvirt_host import CALLS_PER_CONNECTION, LibvirtHost
from collectors.reader import Reader
from collectors.schedule import MOMENT, Schedule, periods
from collectors.sockets import SCAN, Identity, Presence, find
from guestwire import codec
from guestwire.errors import AgentUnresponsive, ConfigError, NotConnected
from guestwire.lifecycle import backoff, sleep_unless
from guestwire.logs import logger
from guestwire.pending import Pending
from guestwire.settings import Settings
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot, Kind

log = logger("collector")

WORKERS_PER_CALL = 4
"""Looks at once per agent call in flight: those that need no call must not wait for those that do."""
FRESH = timedelta(seconds=1)
"""What was read so recently is not read again for whoever asks: a guest is not bothered more often."""
DEVICE_COMMANDS = (AgentCommand.INTERFACES, AgentCommand.FILESYSTEMS)


class Output(Protocol):
    """Where snapshots go, and what is remembered there."""

    def offer(self, snapshot: GuestSnapshot) -> None:
        """Take what is known about a guest; nobody waits."""

    def forget(self, ref: GuestRef) -> None:
        """Nothing more will come about this guest from here: it is on another host."""

    async def recall(self, ref: GuestRef) -> dict[str, bytes]:
        """The last bodies about a guest, by kind; empty when there are none. Raises NotConnected."""
        ...

    async def recall_host(self, name: str) -> list[AgentState]:
        """The last agent records that a host of that name sent, the gone ones left out. Raises NotConnected."""
        ...


class HostCollector:
    """One libvirt host and its guests; hosts know nothing of each other."""

    def __init__(self, uri: str, settings: Settings, output: Output, make_host: MakeHost = LibvirtHost) -> None:
        self.uri = uri
        self.guests: dict[str, Guest] = {}
        self.present: set[str] | None = None
        """UUIDs of the last full listing; None before the first."""
        self._settings = settings
        self._output = output
        self._pending: Pending[str] = Pending()
        self._schedules: dict[str, Schedule] = {}
        self._hints: dict[str, set[Hint]] = {}
        self._uuids: dict[GuestRef, str] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        """Who wants to know when a guest has been looked at."""
        self._host = make_host(uri, settings.libvirt.connections, self._hint)
        self._reader = Reader(self._host, settings.collect, output.offer)
        self._resyncing: set[str] = set()
        self.connected = False

    @property
    def name(self) -> str:
        """The host's name in messages."""
        return self._settings.collect.host or self._host.name

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then looks under way are finished."""
        workers = self._settings.libvirt.connections * CALLS_PER_CONNECTION * WORKERS_PER_CALL
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pending.work(workers, self._look_safely))
            try:
                await self._stay_connected(stop)
            finally:
                self._pending.close(drain=False)
        with contextlib.suppress(NotConnected):
            await self._host.close()
        self._host.shutdown()

    def look_again(self, ref: GuestRef) -> None:
        """Someone else published about this guest: look whether it is still here."""
        if uuid := self._uuids.get(ref):
            self._pending.add(uuid)

    def leave(self) -> None:
        """The daemon is gone for good, and its guests with it; if another host has one by now, that is fenced off."""
        for guest in self.guests.values():
            log.info("guest is gone", guest=str(guest.domain.ref))
            self._output.offer(gone(guest.state(), codec.new_trace_id(), codec.now()))

    async def read_now(self, ref: GuestRef, kinds: Iterable[str]) -> Guest | None:
        """
        Read a guest's facts that are older than a moment, whatever the schedule says; None when it is not here.
        Raises AgentUnresponsive when it did not answer.
        """
        guest = self.guests.get(self._uuids.get(ref, ""))
        if guest is None:
            return None
        uuid, began = guest.domain.uuid, codec.now()
        wanted = [command for kind in kinds for command in COMMANDS.get(Kind(kind), ())]
        wanted = [command for command in wanted if guest.supports(command)]
        stale = guest.stale(wanted, began - FRESH)
        if stale:
            self._schedules[uuid].demand(stale, time.monotonic())
            looked = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(uuid, []).append(looked)
            self._pending.add(uuid)
            await looked
        if not guest.askable:
            raise AgentUnresponsive("the agent is not connected, or the guest does not run")
        if guest.stale(stale, began):
            raise AgentUnresponsive(guest.reason or "the agent did not answer everything")
        return guest

    # --- the connection ----------------------------------------------------------------------------------------

    async def _stay_connected(self, stop: asyncio.Event) -> None:
        said, pauses = "", backoff(longest=self._settings.libvirt.retry_max)
        while not stop.is_set():
            try:
                await self._host.open()
                log.info("connected to libvirt", uri=self.uri, host=self.name)
                metrics.RECONNECTS.labels(self.uri).inc()
                said, pauses = "", backoff(longest=self._settings.libvirt.retry_max)
                self._connected(True)
                await self._resync_until_lost(stop)
                if not stop.is_set():
                    log.warning("lost libvirt, reconnecting", uri=self.uri)
                    await self._host.close()
            except NotConnected as error:
                if str(error) != said:
                    log.warning("cannot use libvirt, trying on", uri=self.uri, error=str(error))
                    said = str(error)
            self._connected(False)
            await sleep_unless(stop, next(pauses))

    def _connected(self, state: bool) -> None:
        self.connected = state
        metrics.CONNECTED.labels(self.uri).set(state)

    async def _resync_until_lost(self, stop: asyncio.Event) -> None:
        """Look at every domain now, and from time to time: events get lost inside libvirt."""
        first = True
        while not stop.is_set() and not self._host.lost.is_set():
            known = set(self.guests)
            present = set(await self._host.list())
            if not first:
                self._resyncing |= present | known
            for uuid in present | known:
                self._pending.add(uuid)
            self.present = present
            first = False
            period = self._settings.collect.resync * random.uniform(0.9, 1.1)  # noqa: S311
            waits = [asyncio.ensure_future(event.wait()) for event in (stop, self._host.lost)]
            _, rest = await asyncio.wait(waits, timeout=period, return_when=asyncio.FIRST_COMPLETED)
            for wait in rest:
                wait.cancel()

    def _hint(self, uuid: str, hint: Hint) -> None:
        metrics.HINTS.labels(self.uri, hint).inc()
        self._hints.setdefault(uuid, set()).add(hint)
        self._resyncing.discard(uuid)
        self._pending.add(uuid)

    # --- one guest ---------------------------------------------------------------------------------------------

    async def _look_safely(self, uuid: str) -> float | None:
        waiting = self._waiting.pop(uuid, [])
        try:
            return await self._look(uuid)
        except NotConnected:
            # Lost libvirt: the resync after reconnecting looks at every domain. Else it is NATS that cannot be asked.
            return None if self._host.lost.is_set() or not self.connected else 4 * MOMENT
        except Moving:
            return 2 * MOMENT
        except Exception:
            log.exception("look at a guest failed", uri=self.uri, uuid=uuid)
            return self._settings.collect.resync
        finally:
            for looked in waiting:
                if not looked.done():
                    looked.set_result(None)

    async def _look(self, uuid: str) -> float | None:
        hints = self._hints.pop(uuid, set())
        if Hint.MIGRATED in hints:
            if uuid in self.guests:
                self._output.forget(self.guests[uuid].domain.ref)
            self._forget(uuid)
            return None
        domain = await self._host.domain(uuid)
        guest = self.guests.get(uuid)
        if domain is None:
            if guest is not None:
                log.info("guest is gone", guest=str(guest.domain.ref))
                self._output.offer(gone(guest.state(), codec.new_trace_id(), codec.now()))
                self._forget(uuid)
            return None
        if guest is None:
            guest = await self._meet(domain)
        schedule = self._schedules[uuid]
        self._note(guest, domain, schedule, hints)
        trace_id = codec.new_trace_id()
        self._output.offer(guest.snapshot(trace_id))
        if not guest.askable:
            return None
        if await self._reader.read(guest, schedule, trace_id):
            self._output.offer(guest.snapshot(trace_id))
        return schedule.next(time.monotonic())

    async def _meet(self, domain: Domain) -> Guest:
        bodies = await self._output.recall(domain.ref)
        collect = self._settings.collect
        guest = Guest(domain, self.name, codec.now(), Usage(collect.usage_share, collect.usage_age))
        guest.recall(bodies)
        self.guests[domain.uuid] = guest
        self._uuids[domain.ref] = domain.uuid
        self._schedules[domain.uuid] = Schedule(periods(collect, domain.ref.namespace))
        self._schedules[domain.uuid].restart(time.monotonic())
        self._count()
        log.info("guest found", guest=str(domain.ref), phase=domain.phase, agent=guest.connected)
        return guest

    def _note(self, guest: Guest, domain: Domain, schedule: Schedule, hints: set[Hint]) -> None:
        """Take the present state, and decide what has to be read again."""
        before = guest.domain
        if domain != before and domain.uuid in self._resyncing:
            metrics.CORRECTIONS.labels(self.uri).inc()
        self._resyncing.discard(domain.uuid)
        was, arrived = guest.connected, guest.update(domain, codec.now())
        now = time.monotonic()
        if arrived or Hint.EVERYTHING in hints or Hint.AGENT in hints:
            schedule.restart(now)
        elif Hint.DEVICES in hints or domain.interfaces != before.interfaces:
            schedule.hasten(DEVICE_COMMANDS, now)
        if guest.connected != was:
            log.info("agent connected" if guest.connected else "agent disconnected", guest=str(domain.ref))
            self._count()

    def _forget(self, uuid: str) -> None:
        guest = self.guests.pop(uuid, None)
        if guest and self._uuids.get(guest.domain.ref) == uuid:
            del self._uuids[guest.domain.ref]
        self._schedules.pop(uuid, None)
        self._hints.pop(uuid, None)
        self._resyncing.discard(uuid)
        self._pending.forget(uuid)
        self._count()

    def _count(self) -> None:
        metrics.GUESTS.labels(self.uri).set(len(self.guests))
        metrics.AGENTS.labels(self.uri).set(sum(guest.connected for guest in self.guests.values()))


class Collector:
    """All hosts of this process: those of `libvirt.uris`, and the sockets that come and go."""

    def __init__(self, settings: Settings, output: Output, make_host: MakeHost = LibvirtHost) -> None:
        libvirt = settings.libvirt
        if not libvirt.uris and not libvirt.sockets:
            raise ConfigError("libvirt.uris: nothing to watch; name a URI, or globs in libvirt.sockets")
        self._make = partial(HostCollector, settings=settings, output=output, make_host=make_host)
        self._settings = settings
        self._output = output
        self._fixed = [self._make(uri) for uri in libvirt.uris]
        self._passing: dict[Identity, HostCollector] = {}
        self._scanned = not libvirt.sockets

    @property
    def hosts(self) -> list[HostCollector]:
        """The present ones."""
        return [*self._fixed, *self._passing.values()]

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; looks under way are finished."""
        async with asyncio.TaskGroup() as group:
            for host in self._fixed:
                group.create_task(host.run(stop), name=f"collector of {host.uri}")
            if self._settings.libvirt.sockets:
                group.create_task(self._watch_sockets(stop), name="search for sockets")
            group.create_task(self._bury(stop), name="burial of guests that went away meanwhile")

    def look_again(self, ref: GuestRef) -> None:
        """A snapshot of this guest was fenced off: look whether it is still ours."""
        for host in self.hosts:
            host.look_again(ref)

    async def read_now(self, ref: GuestRef, kinds: Iterable[str]) -> bool:
        """Read a guest's facts now; False when it is on none of these hosts. Raises AgentUnresponsive."""
        for host in self.hosts:
            if await host.read_now(ref, kinds) is not None:
                return True
        return False

    @property
    def connected(self) -> bool:
        """Whether any host is reached; one that is not harms no other. With none to watch there is none to miss."""
        return any(host.connected for host in self.hosts) or (self._scanned and not self.hosts)

    async def _watch_sockets(self, stop: asyncio.Event) -> None:
        """A collector for each socket, from when it appears until it has been missing for a while."""
        presence, libvirt, ends = Presence(), self._settings.libvirt, dict[Identity, asyncio.Event]()
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                come, missing = presence.update(await asyncio.to_thread(find, libvirt.sockets), time.monotonic())
                for identity, path in come.items():
                    host = self._passing[identity] = self._make(libvirt.socket_uri.replace("{}", path))
                    ends[identity] = asyncio.Event()
                    group.create_task(host.run(ends[identity]), name=f"collector of {path}")
                for identity in missing:
                    log.info("libvirt is gone", uri=self._passing[identity].uri)
                    ends.pop(identity).set()
                    self._passing.pop(identity).leave()
                self._scanned = True
                await sleep_unless(stop, SCAN)
            for end in ends.values():
                end.set()

    async def _bury(self, stop: asyncio.Event) -> None:
        """Once every host has been listed: guests that were published from here and are on none of them are gone."""
        while not await sleep_unless(stop, MOMENT):
            listed = [host.present for host in self.hosts if host.present is not None]
            if not self._scanned or not listed or len(listed) < len(self.hosts):
                continue
            present = set().union(*listed)
            with contextlib.suppress(NotConnected):
                for name in {host.name for host in self.hosts}:
                    for agent in await self._output.recall_host(name):
                        if agent.domain_uuid not in present:
                            log.info("guest is gone", guest=f"{agent.namespace}/{agent.name}")
                            self._output.offer(gone(agent, codec.new_trace_id(), codec.now()))
                return
