"""
One libvirt host: all that calls libvirt while the pipeline runs.

One connection is for events and look-ups, and each agent call has one for itself, opened when first needed. Shared by
several calls, a connection would tie healthy agents to hung ones: a daemon stops reading a client with five calls under
way (`max_client_requests`), also its keepalive answers, and up to 9.9 libvirt's client may miss that a second call has
come while a first one waits ("rpc: fix race in waking up client event loop"). Losing any of them counts as losing the
host: all are opened again, callbacks registered too.

Agents that did not answer the last time have few places of their own: they keep each other waiting, and nobody else.
Every blocking call runs in a thread; as each host has so many places for calls and look-ups and no more, one
misbehaving host holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import libvirt
import libvirt_qemu

from collectors import domain, event_pump
from collectors.agent_commands import AgentCommand, Reply, parse, request
from collectors.bounds import RoundTrip
from collectors.domain import Domain
from collectors.host import Busy, Hint, Moving, NotRunning, OnHint
from collectors.threads import Threads
from guestwire.errors import AgentRefused, AgentUnresponsive, ContractError, NotConnected
from guestwire.snapshot import Phase

T = TypeVar("T")

SUSPECT_CALLS = 2
"""Calls at once to agents that did not answer the last time."""
LOOKUPS = 4
KEEPALIVE = (5, 3)
"""Seconds between probes of the daemon, and how many may stay unanswered."""


_PHASES = {
    libvirt.VIR_DOMAIN_RUNNING: Phase.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Phase.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: Phase.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: Phase.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Phase.PAUSED,
}
_MOVING = {
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION),
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP),
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY),
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED),
}
"""During a live migration both hosts list the guest; in these states a host has nothing to say about it."""

_LOST = {libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_RPC}
_BUSY = {libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_OPERATION_FAILED}
_COMMAND_TIMEOUT = 112  # VIR_ERR_AGENT_COMMAND_TIMEOUT, libvirt >= 11.2
_UNRESPONSIVE = {libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED, _COMMAND_TIMEOUT}
_CHANNEL_ENDED = "End of file from agent socket"
"""A guest was killed amid a call: an internal error, as is a refused command. Or a system error, of QEMU's driver."""


def translate(error: libvirt.libvirtError, what: str) -> Exception:
    """An exception of libvirt by its consequence (the codes of virterror.h)."""
    code, text = error.get_error_code(), (error.get_error_message() or str(error)).strip()
    closed = error.get_error_domain() in {libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE}
    broken = code == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_error_domain() == libvirt.VIR_FROM_QEMU
    if broken or _CHANNEL_ENDED in text:
        return AgentUnresponsive(text)
    if code in _LOST or (code == libvirt.VIR_ERR_INTERNAL_ERROR and closed):
        return NotConnected(f"{what}: {text}")
    if code in _UNRESPONSIVE or code in _BUSY:
        return AgentUnresponsive(text)
    if code == libvirt.VIR_ERR_OPERATION_INVALID:
        return NotRunning(text)
    return AgentRefused(text)


class Seat:
    """A place for one agent call: a connection, once there was a call."""

    def __init__(self) -> None:
        self._conn: libvirt.virConnect | None = None
        self._closed = False

    def connection(self, make: Callable[[], libvirt.virConnect]) -> libvirt.virConnect:
        """In the thread that makes the call. Raises libvirtError."""
        if self._conn is None:
            self._conn = make()
            if self._closed:  # meanwhile, in another thread; whichever comes second sees the other
                self.close()
        return self._conn

    def close(self) -> None:
        """Disconnect; a call under way ends with an error."""
        self._closed = True
        if self._conn is not None:
            disconnect(self._conn)


def places(seats: Iterable[T]) -> asyncio.LifoQueue[T]:
    """Take a seat and put it back. The one used last goes first, so no more connections are open than are needed."""
    queue: asyncio.LifoQueue[T] = asyncio.LifoQueue()
    for seat in seats:
        queue.put_nowait(seat)
    return queue


def disconnect(conn: libvirt.virConnect) -> None:
    """Close a connection, whatever state it is in."""
    with contextlib.suppress(libvirt.libvirtError):
        conn.unregisterCloseCallback()
    with contextlib.suppress(libvirt.libvirtError):
        conn.close()


class LibvirtHost:
    """Connections to one URI, open between `open` and `close`."""

    def __init__(self, uri: str, connections: int, on_hint: OnHint, threads: Threads | None = None) -> None:
        self.uri = uri
        self.name = ""
        """The host's own name, as libvirt tells it."""
        self.lost = asyncio.Event()
        self._on_hint = on_hint
        self._loop = asyncio.get_running_loop()
        self._threads, self._shares_threads = threads or Threads(), threads is not None
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self._connections = connections
        self._main: libvirt.virConnect | None = None
        self._seats: list[Seat] = []
        self._places: asyncio.LifoQueue[Seat] | None = None
        self._suspects: asyncio.LifoQueue[Seat] | None = None
        self._callbacks: list[int] = []

    async def open(self) -> None:
        """Connect and listen for events. Raises NotConnected with libvirt's reason."""
        event_pump.ensure_running()
        self.lost = asyncio.Event()
        try:
            await self._threads.run(self._connect)
        except libvirt.libvirtError as error:
            await self.close()
            raise NotConnected((error.get_error_message() or str(error)).strip()) from error
        self._seats = [Seat() for _ in range(self._connections + SUSPECT_CALLS)]
        self._suspects, self._places = places(self._seats[:SUSPECT_CALLS]), places(self._seats[SUSPECT_CALLS:])

    async def close(self) -> None:
        """Deregister and disconnect; calls under way end with an error."""
        self._places = self._suspects = None
        await self._threads.run(self._disconnect)

    def shutdown(self) -> None:
        """Let go of the threads for good."""
        if not self._shares_threads:
            self._threads.close()

    async def list(self) -> list[str]:
        """UUIDs of all domains, running or not. Raises NotConnected."""
        return await self._look_up(lambda conn: [dom.UUIDString() for dom in conn.listAllDomains()])

    async def domain(self, uuid: str) -> Domain | None:
        """
        A domain's present state; None when it does not exist. Raises NotConnected, Moving (in live migration) and
        ContractError (XML that makes no sense).
        """

        def look(conn: libvirt.virConnect) -> Domain | None:
            try:
                dom = conn.lookupByUUIDString(uuid)
                state, reason = dom.state()
                if (state, reason) in _MOVING:
                    raise Moving("in live migration")
                return domain.parse(dom.XMLDesc(), _PHASES.get(state, Phase.STOPPED))
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return None
                raise

        return await self._look_up(look)

    async def ask(self, uuid: str, command: AgentCommand, timeout: int, *, suspect: bool = False) -> Reply:  # noqa: ASYNC109
        """
        Send one command to a domain's agent and parse its reply, both in a thread; `timeout` in seconds is the agent's.

        A raw command has a time-out per call and reports it as such; `virDomainGetGuestInfo` takes a time-out for
        success with nothing. Raises AgentUnresponsive, AgentRefused, NotRunning, ContractError, NotConnected; and Busy
        for a suspect (it did not answer the last time) when enough of those are being asked.
        """
        room = self._suspects if suspect else self._places
        if room is None:
            raise NotConnected(f"{self.uri}: not connected")
        if suspect and room.empty():
            raise Busy("other agents that do not answer are being asked")

        def call() -> Reply:
            dom = seat.connection(self._connection).lookupByUUIDString(uuid)
            sent = time.time_ns()
            reply = libvirt_qemu.qemuAgentCommand(dom, request(command), timeout, 0)
            return parse(command, reply, RoundTrip(sent, time.time_ns()))

        seat = await room.get()
        try:
            return await self._threads.run(call)
        except libvirt.libvirtError as error:
            raise self._notice(translate(error, self.uri)) from error
        except UnicodeDecodeError as error:
            raise ContractError(f"{command}: reply is not UTF-8") from error
        finally:
            room.put_nowait(seat)

    # --- in threads --------------------------------------------------------------------------------------------

    async def _look_up(self, call: Callable[[libvirt.virConnect], T]) -> T:
        if self._main is None:
            raise NotConnected(f"{self.uri}: not connected")
        try:
            async with self._lookups:
                return await self._threads.run(partial(call, self._main))
        except libvirt.libvirtError as error:
            raise self._notice(translate(error, self.uri)) from error

    def _notice(self, problem: Exception) -> Exception:
        if isinstance(problem, NotConnected):
            self.lost.set()
        return problem

    def _connect(self) -> None:
        self._main = self._connection()
        self.name = self._main.getHostname()
        for event, callback in self._handlers().items():
            with contextlib.suppress(libvirt.libvirtError):  # an event this libvirt does not know
                self._callbacks.append(self._main.domainEventRegisterAny(None, event, callback, None))

    def _connection(self) -> libvirt.virConnect:
        conn = libvirt.open(self.uri)
        with contextlib.suppress(libvirt.libvirtError):  # drivers without a wire have neither
            conn.setKeepAlive(*KEEPALIVE)
        with contextlib.suppress(libvirt.libvirtError):
            conn.registerCloseCallback(lambda *_: self._from_thread(self.lost.set), None)
        return conn

    def _disconnect(self) -> None:
        if self._main is not None:
            for callback in self._callbacks:
                with contextlib.suppress(libvirt.libvirtError):
                    self._main.domainEventDeregisterAny(callback)
            disconnect(self._main)
        for seat in self._seats:
            seat.close()
        self._main, self._seats, self._callbacks = None, [], []

    # --- in libvirt's event thread -----------------------------------------------------------------------------

    def _handlers(self) -> dict[int, Callable[..., None]]:
        def hint(what: Hint) -> Callable[..., None]:
            return lambda _conn, dom, *_: self._from_thread(self._on_hint, dom.UUIDString(), what)

        def lifecycle(_conn: Any, dom: libvirt.virDomain, event: int, detail: int, _opaque: Any) -> None:
            moved = event == libvirt.VIR_DOMAIN_EVENT_STOPPED and detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED
            resumed = event == libvirt.VIR_DOMAIN_EVENT_RESUMED
            what = Hint.MIGRATED if moved else Hint.EVERYTHING if resumed else Hint.STATE
            self._from_thread(self._on_hint, dom.UUIDString(), what)

        return {
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: lifecycle,
            libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE: hint(Hint.AGENT),
            libvirt.VIR_DOMAIN_EVENT_ID_REBOOT: hint(Hint.EVERYTHING),
            libvirt.VIR_DOMAIN_EVENT_ID_PMWAKEUP: hint(Hint.EVERYTHING),
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED: hint(Hint.DEVICES),
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: hint(Hint.DEVICES),
            libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE: hint(Hint.STATE),
        }

    def _from_thread(self, call: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # a late callback, after the event loop has closed
            self._loop.call_soon_threadsafe(call, *arguments)
