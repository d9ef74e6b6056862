"""
The stage: libvirt hosts in, guest snapshots out.

Each host has a collector of its own (`HostCollector`); hosts come and go as their sockets do.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from functools import partial

from collectors.host import MakeHost
from collectors.host_collector import HostCollector, Output, bury
from collectors.libvirt_host import LibvirtHost
from collectors.room import Room
from collectors.schedule import DOUBT, MOMENT
from collectors.sockets import LINGER, SCAN, Identity, Presence, find
from collectors.threads import Threads
from guestwire.errors import ConfigError, NotConnected
from guestwire.lifecycle import sleep_unless
from guestwire.logs import logger
from guestwire.settings import Settings
from guestwire.snapshot import GuestRef

log = logger("collector")


class Collector:
    """All hosts of this process: those of `libvirt.uris`, and the sockets that come and go."""

    def __init__(self, settings: Settings, output: Output, make_host: MakeHost | None = None) -> None:
        libvirt = settings.libvirt
        if not libvirt.uris and not libvirt.sockets:
            raise ConfigError("libvirt.uris: nothing to watch; name a URI, or globs in libvirt.sockets")
        self._threads = Threads()
        make_host = make_host or partial(LibvirtHost, threads=self._threads)
        self._make = partial(HostCollector, settings=settings, output=output, make_host=make_host, room=Room())
        self._settings = settings
        self._output = output
        self._fixed = [self._make(uri) for uri in libvirt.uris]
        self._passing: dict[Identity, HostCollector] = {}
        self._scanned = not libvirt.sockets

    @property
    def hosts(self) -> list[HostCollector]:
        """The present ones."""
        return [*self._fixed, *self._passing.values()]

    @property
    def names(self) -> set[str]:
        """Of the present hosts, as in messages; where there is none, the one in the settings if there is one."""
        return {host.name for host in self.hosts} or {self._settings.collect.host} - {""}

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; looks under way are finished."""
        async with asyncio.TaskGroup() as group:
            for host in self._fixed:
                group.create_task(host.run(stop), name=f"collector of {host.uri}")
            if self._settings.libvirt.sockets:
                group.create_task(self._watch_sockets(stop), name="search for sockets")
            group.create_task(self._bury(stop), name="burial of guests that went away meanwhile")
        self._threads.close()

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
        """
        Once every host has been listed: guests that were published from here and are on none of them are gone. One that
        was listed and not met yet may vanish before it is, with nobody left to say so: it is asked about again. Who is
        missing is doubted first: it may have moved to a host that has not told of it yet.
        """
        began, unmet, doubtful = time.monotonic(), None, set[str]()
        while not await sleep_unless(stop, DOUBT if doubtful else MOMENT):
            if not self._listed(began):
                continue
            if unmet is not None and not doubtful:
                unmet -= self._met()
                if not unmet:
                    return
                if unmet <= self._present():
                    continue
            with contextlib.suppress(NotConnected):
                agents = await self._output.recall_hosts(self.names)
                told, known = {agent.domain_uuid for agent in agents}, self._present() | self._met()
                for agent in agents:
                    if agent.domain_uuid in doubtful - known:
                        bury(self._output.offer, agent)
                unmet, doubtful = told & known, told - known - doubtful

    def _listed(self, began: float) -> bool:
        """
        Whether every host has been. Where no socket is, nothing can be listed; the name in the settings then says what
        was published from here.
        """
        settled = self.hosts or time.monotonic() - began >= LINGER
        listed = all(host.present is not None for host in self.hosts)
        return bool(self._scanned and settled and self.names and listed)

    def _present(self) -> set[str]:
        """UUIDs of the domains that the last listings had, as far as no look has found them gone since."""
        return set[str]().union(*(host.present or () for host in self.hosts))

    def _met(self) -> set[str]:
        """UUIDs of the guests that a host knows: their own looks tell when they are gone."""
        return set[str]().union(*(host.guests for host in self.hosts))
