"""
One libvirt host and its guests: events in, guest snapshots out.

An event, a timer or a resync only marks a domain as due. A worker then looks at the present state of that domain (a
timer alone is no reason to: libvirt tells), asks its agent what the schedule says, and offers what it now knows. Nobody
else touches a guest meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from typing import Protocol

from collectors import metrics
from collectors.agent_commands import AgentCommand
from collectors.connection import Connection
from collectors.domain import Domain
from collectors.facts import COMMANDS
from collectors.guest import Guest, last_word
from collectors.host import Hint, MakeHost, Moving
from collectors.libvirt_host import LibvirtHost
from collectors.noise import Limits
from collectors.reader import Reader
from collectors.room import Room
from collectors.schedule import DOUBT, MOMENT, Schedule, periods
from guestwire import codec
from guestwire.errors import AgentUnresponsive, NotConnected
from guestwire.last_word import gone
from guestwire.logs import logger
from guestwire.pending import Pending
from guestwire.settings import Settings
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot, Kind, Phase

log = logger("collector")

WORKERS_PER_CALL = 4
"""Looks at once per agent call in flight: those that need no call must not wait for those that do."""
FRESH = timedelta(seconds=1)
"""What was read so recently is not read again for whoever asks: a guest is not bothered more often."""
DEVICE_COMMANDS = (AgentCommand.INTERFACES, AgentCommand.FILESYSTEMS, AgentCommand.DISKS)


class Output(Protocol):
    """Where snapshots go, and what is remembered there."""

    def offer(self, snapshot: GuestSnapshot) -> None:
        """Take what is known about a guest; nobody waits."""

    def forget(self, ref: GuestRef) -> None:
        """Nothing more will come about this guest from here: it is on another host."""

    async def recall(self, ref: GuestRef) -> dict[str, bytes]:
        """The last bodies about a guest, by kind; empty when there are none. Raises NotConnected."""
        ...

    async def recall_hosts(self, names: Collection[str]) -> list[AgentState]:
        """The last agent records that hosts of those names sent, the gone ones left out. Raises NotConnected."""
        ...


def bury(offer: Callable[[GuestSnapshot], None], agent: AgentState) -> None:
    """Say the last word about a guest that no longer exists."""
    log.info("guest is gone", guest=f"{agent.namespace}/{agent.name}")
    offer(gone(agent, codec.new_trace_id(), codec.now()))


class HostCollector:
    """One libvirt host and its guests; hosts share nothing but `room` for looks."""

    def __init__(
        self,
        uri: str,
        settings: Settings,
        output: Output,
        make_host: MakeHost = LibvirtHost,
        room: Room | None = None,
    ) -> None:
        self.uri = uri
        self.guests: dict[str, Guest] = {}
        self.present: set[str] | None = None
        """UUIDs of the last full listing, without those that a look has not found any more; None before the first."""
        self._settings = settings
        self._output = output
        self._pending: Pending[str] = Pending()
        self._schedules: dict[str, Schedule] = {}
        self._hints: dict[str, set[Hint]] = {}
        """Of the domains whose present state is to be read at the next look, what was told about them."""
        self._uuids: dict[GuestRef, str] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        """Who wants to know when a guest has been looked at."""
        self._host = make_host(uri, settings.libvirt.connections, self._hint)
        self._reader = Reader(self._host, settings.collect, self._offer)
        self._room = room or Room()
        self._resyncing: set[str] = set()
        self._doubts: dict[str, float] = {}
        """Since when something is seen of a domain that is not believed yet, by the monotonic clock."""
        self._connection = Connection(self._host, settings, self._listed)

    @property
    def name(self) -> str:
        """The host's name in messages."""
        return self._settings.collect.host or self._host.name

    @property
    def connected(self) -> bool:
        """Whether libvirt is reached."""
        return self._connection.connected

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then looks under way are finished."""
        workers = self._settings.libvirt.connections * WORKERS_PER_CALL
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pending.work(workers, self._look_safely))
            try:
                await self._connection.keep(stop)
            finally:
                self._pending.close(drain=False)
        with contextlib.suppress(NotConnected):
            await self._host.close()
        self._host.shutdown()

    def look_again(self, ref: GuestRef) -> None:
        """Someone else published about this guest: look whether it is still here, as if never seen before."""
        if uuid := self._uuids.get(ref):
            self._mark(uuid, Hint.MIGRATED)

    def leave(self) -> None:
        """The daemon is gone for good, and its guests with it; if another host has one by now, that is fenced off."""
        for guest in self.guests.values():
            bury(self._output.offer, guest.state())

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

    # --- what is to be looked at -------------------------------------------------------------------------------

    def _listed(self, present: set[str], first: bool) -> None:
        known = set(self.guests)
        if not first:
            self._resyncing |= (present | known) - self._hints.keys()
        for uuid in present | known:
            self._mark(uuid)
        self.present = present

    def _hint(self, uuid: str, hint: Hint) -> None:
        metrics.HINTS.labels(self.uri, hint).inc()
        self._resyncing.discard(uuid)
        self._mark(uuid, hint)

    def _mark(self, uuid: str, *hints: Hint) -> None:
        self._hints.setdefault(uuid, set()).update(hints)
        self._pending.add(uuid)

    # --- one guest ---------------------------------------------------------------------------------------------

    async def _look_safely(self, uuid: str) -> float | None:
        waiting, hints = self._waiting.pop(uuid, []), self._hints.pop(uuid, None)
        guest = self.guests.get(uuid)
        suspect, fresh = (False, True) if guest is None else (guest.responsive is False, guest.responsive is None)
        ticket = None if suspect else await self._room.enter(first=fresh)
        try:
            return await self._look(uuid, hints)
        except Exception as error:
            self._hints.setdefault(uuid, set()).update(hints or ())
            return self._pause_after(error, uuid)
        finally:
            if ticket is not None:
                self._room.leave(ticket)
            for looked in waiting:
                if not looked.done():
                    looked.set_result(None)

    def _pause_after(self, error: Exception, uuid: str) -> float | None:
        """The seconds until a guest is looked at again whose look failed."""
        match error:
            case NotConnected():
                # Lost libvirt: the resync after reconnecting looks at every domain. Else NATS cannot be asked.
                return None if self._host.lost.is_set() or not self.connected else 4 * MOMENT
            case Moving():  # of whoever is not known here yet an event will tell
                return MOMENT if uuid in self._doubts else 2 * MOMENT if uuid in self.guests else None
        log.error("look at a guest failed", uri=self.uri, uuid=uuid, exc_info=error)
        return self._settings.collect.resync

    async def _look(self, uuid: str, hints: set[Hint] | None) -> float | None:
        """With hints, an empty set too, at the domain; without at the agent only."""
        trace_id = codec.new_trace_id()
        if hints is not None and not await self._look_at_domain(uuid, hints, trace_id):
            return None
        guest, schedule = self.guests.get(uuid), self._schedules.get(uuid)
        if guest is None or schedule is None or not guest.askable:
            return None
        if not await self._reader.read(guest, schedule, trace_id):
            self._hints.setdefault(uuid, set())
        if guest.news(codec.now() - timedelta(seconds=self._settings.publish.heartbeat)):
            self._offer(guest.snapshot(trace_id))
        return schedule.next(time.monotonic())

    async def _look_at_domain(self, uuid: str, hints: set[Hint], trace_id: str) -> bool:
        """Take the domain's present state and offer what is known; False when it is not here."""
        guest = self.guests.get(uuid)
        if Hint.MIGRATED in hints and guest is not None:
            self._output.forget(guest.domain.ref)
            self._forget(uuid)
            guest = None
        domain = await self._host.domain(uuid)
        if domain is None:
            if self.present is not None:
                self.present.discard(uuid)
            if guest is not None:
                self._doubt(uuid, 2 * MOMENT)  # an event may be on its way that tells of a migration
                self._resynced(uuid, corrected=True)
                bury(self._offer, guest.state())
                self._forget(uuid)
            return False
        guest = guest or await self._meet(domain)
        if guest is None:
            return False
        self._doubts.pop(uuid, None)
        self._note(guest, domain, self._schedules[uuid], hints)
        self._offer(guest.snapshot(trace_id))
        return True

    async def _meet(self, domain: Domain) -> Guest | None:
        """Begin with a guest; None while another host runs it. Raises Moving while it may be just arriving."""
        bodies = await self._output.recall(domain.ref)
        last = last_word(bodies, domain)
        if last and last.host != self.name and domain.phase is Phase.STOPPED:
            return None  # defined here too, as after a migration that leaves the definition behind
        if last and last.connected and domain.channel and not domain.connected and domain.phase is not Phase.STOPPED:
            self._doubt(domain.uuid, DOUBT)  # after a migration the guest runs for a moment before its channel is open
        self._resynced(domain.uuid, corrected=True)
        collect = self._settings.collect
        guest = Guest(domain, self.name, codec.now(), Limits.of(collect))
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
        self._resynced(domain.uuid, corrected=domain != before)
        was, arrived = guest.connected, guest.update(domain, codec.now())
        now = time.monotonic()
        if arrived or Hint.EVERYTHING in hints or Hint.AGENT in hints:
            schedule.restart(now)
        elif Hint.DEVICES in hints or domain.interfaces != before.interfaces:
            schedule.hasten(DEVICE_COMMANDS, now)
        if guest.connected != was:
            log.info("agent connected" if guest.connected else "agent disconnected", guest=str(domain.ref))
            self._count()

    def _offer(self, snapshot: GuestSnapshot) -> None:
        """Hand on what a look has found, unless it was said meanwhile that the guest is elsewhere."""
        if Hint.MIGRATED not in self._hints.get(self._uuids.get(snapshot.ref, ""), ()):
            self._output.offer(snapshot)

    def _doubt(self, uuid: str, seconds: float) -> None:
        """Raises Moving until something has been seen of a domain for so long that it is believed."""
        if time.monotonic() - self._doubts.setdefault(uuid, time.monotonic()) < seconds:
            raise Moving

    def _resynced(self, uuid: str, *, corrected: bool) -> None:
        """A domain was looked at; whether that is for a resync, and found what no event had told."""
        if corrected and uuid in self._resyncing:
            metrics.CORRECTIONS.labels(self.uri).inc()
        self._resyncing.discard(uuid)

    def _forget(self, uuid: str) -> None:
        """Know nothing of a guest any more. Hints stay: what came in meanwhile may tell of its return."""
        guest = self.guests.pop(uuid, None)
        if guest and self._uuids.get(guest.domain.ref) == uuid:
            del self._uuids[guest.domain.ref]
        self._schedules.pop(uuid, None)
        self._doubts.pop(uuid, None)
        self._resyncing.discard(uuid)
        self._count()

    def _count(self) -> None:
        metrics.GUESTS.labels(self.uri).set(len(self.guests))
        metrics.AGENTS.labels(self.uri).set(sum(guest.connected for guest in self.guests.values()))
