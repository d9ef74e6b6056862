"""
The checks of a libvirt host and of its guests: what is missing on the way to an agent's answer, and how to add it.

A host is one connection with at most four guests asked at once, for the reason in `libvirt_host`. Each call has a
thread that dies with the process, so one that never returns (an ssh that waits for a password) costs its time-out and
no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import TypeVar

import libvirt
import libvirt_qemu

from collectors import advice, domain, event_pump
from collectors.agent_commands import AgentCommand, parse, request
from collectors.libvirt_host import KEEPALIVE, translate
from collectors.schedule import periods
from guestwire.checks import Finding, Outcome
from guestwire.errors import AgentRefused, AgentUnresponsive, ContractError, GuestwireError, NotConnected
from guestwire.settings import Collect
from guestwire.snapshot import GuestRef, Phase

T = TypeVar("T")
Tell = Callable[[Finding], None]

CONNECT_SECONDS = 10.0
"""Longest wait for a connection; ssh to a slow host takes its time."""
CALLS = 4
"""At once on one connection: with five under way a daemon stops reading a client (`max_client_requests`)."""
LISTING_SECONDS = 20.0
GUEST_SECONDS = 40.0
"""Longest wait for one guest; libvirt itself waits up to 30 s for a domain that is busy."""

_UP = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN)
_HALTED = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED)


async def check_host(uri: str, wanted: Collection[str], collect: Collect, tell: Tell) -> set[str]:
    """
    Tell what there is to say about a host and its domains: all, or those `wanted` by domain name, UUID or
    `[NAMESPACE/]NAME`. By `collect` it is known what a collector asks of them. Returns which of the wanted are here.
    """
    event_pump.ensure_running()
    try:
        conn = await _within(CONNECT_SECONDS, _started(lambda: _open(uri)))
    except TimeoutError:
        text = f"no answer within {CONNECT_SECONDS:g} s"
        tell(Finding("libvirt", uri, Outcome.PROBLEM, text, advice.restart_daemon(uri)))
        return set()
    except libvirt.libvirtError as error:
        code, message = error.get_error_code() or 0, _words(error)
        tell(Finding("libvirt", uri, Outcome.PROBLEM, message, advice.unreachable(uri, code, message)))
        return set()
    try:
        return await _check_connection(conn, uri, wanted, collect, tell)
    except TimeoutError:
        text = f"connected, but no answer within {LISTING_SECONDS:g} s"
        tell(Finding("libvirt", uri, Outcome.PROBLEM, text, advice.restart_daemon(uri)))
    except libvirt.libvirtError as error:
        text = f"connected, but: {_words(error)}"
        tell(Finding("libvirt", uri, Outcome.PROBLEM, text, advice.unreachable(uri, error.get_error_code() or 0, text)))
    finally:
        _started(conn.close)
    return set()


async def _check_connection(
    conn: libvirt.virConnect, uri: str, wanted: Collection[str], collect: Collect, tell: Tell
) -> set[str]:
    findings = await _within(LISTING_SECONDS, _started(lambda: check_connection(conn, uri)))
    for finding in findings:
        tell(finding)
    if findings[0].outcome is Outcome.PROBLEM:  # then all that would be said of its guests follows from it
        return set()
    listed = await _within(LISTING_SECONDS, _started(lambda: _list(conn)))
    chosen = {name: (dom, _asked_for(wanted, name, uuid)) for name, uuid, dom in listed}
    if wanted:
        chosen = {name: (dom, asked) for name, (dom, asked) in chosen.items() if asked}
    elif not chosen:
        tell(Finding("guests", uri, Outcome.NOTE, "no domain is defined or running here"))
    room = asyncio.Semaphore(CALLS)
    async with asyncio.TaskGroup() as group:
        looks = [group.create_task(_look(uri, name, dom, collect, room)) for name, (dom, _) in sorted(chosen.items())]
        for look in looks:
            tell(await look)
    return {each for _, asked in chosen.values() for each in asked}


async def _look(uri: str, name: str, dom: libvirt.virDomain, collect: Collect, room: asyncio.Semaphore) -> Finding:
    """One guest, when there is room; a call that does not return in time keeps its place until it does."""
    await room.acquire()
    loop = asyncio.get_running_loop()
    call = _started(lambda: check_guest(uri, name, dom, collect))
    call.add_done_callback(lambda _: _hand_over(loop, room.release))
    try:
        return await _within(GUEST_SECONDS, call)
    except TimeoutError:
        text = f"libvirt says nothing about it for {GUEST_SECONDS:g} s"
        return Finding("guests", name, Outcome.PROBLEM, text, (advice.virsh(uri, "domjobinfo", name),), uri)


# --- in threads ------------------------------------------------------------------------------------------------------


def check_guest(uri: str, name: str, dom: libvirt.virDomain, collect: Collect) -> Finding:
    """One domain, from its state to the commands of its agent: the first thing that is in the way."""
    timeout = collect.command_timeout

    def found(outcome: Outcome, text: str, *lines: str) -> Finding:
        return Finding("guests", name, outcome, text, lines, uri)

    try:
        state = dom.state()[0]
        phase = Phase.RUNNING if state in _UP else Phase.PAUSED if state in _HALTED else Phase.STOPPED
        xml = dom.XMLDesc()
        known = domain.parse(xml, phase)
        if not known.channel:
            lines = advice.add_channel(uri, name, xml, running=phase != Phase.STOPPED, kept=bool(dom.isPersistent()))
            return found(Outcome.PROBLEM, "its domain has no channel for the agent", *lines)
        if phase == Phase.STOPPED:
            return found(Outcome.NOTE, "has a channel for the agent, and is off", advice.virsh(uri, "start", name))
        if phase == Phase.PAUSED:
            return found(Outcome.NOTE, "is paused, so nobody can ask its agent", advice.virsh(uri, "resume", name))
        if not known.connected:
            return found(Outcome.PROBLEM, "no agent at the guest's end of the channel", *advice.INSTALL_AGENT)
        libvirt_qemu.qemuAgentCommand(dom, '{"execute":"guest-ping"}', timeout, 0)
        info = parse(AgentCommand.INFO, _ask(dom, AgentCommand.INFO, timeout)).value
        enabled = {command.name: command.enabled for command in info.commands}
        asked = periods(collect, known.ref.namespace)
        blocked = [command for command in asked if enabled.get(command) is False]
        absent = [command for command in asked if command not in enabled]
        agent = f"qemu-ga {info.version or 'of unknown version'}"
        if blocked and _frozen(dom, timeout):
            return found(Outcome.NOTE, f"{agent}: filesystems are frozen", advice.virsh(uri, "domfsthaw", name))
        if blocked or absent:
            parts = {"blocks": blocked, "lacks": absent}
            text = "; ".join(f"{verb} {', '.join(commands)}" for verb, commands in parts.items() if commands)
            lines = (*(advice.ALLOW_COMMANDS if blocked else ()), *(advice.UPDATE_AGENT if absent else ()))
            return found(Outcome.PROBLEM, f"{agent} {text}", *lines)
        return found(Outcome.OK, f"{agent} answers, and knows all that is asked of it")
    except libvirt.libvirtError as error:
        return _failed(uri, name, error)
    except (ContractError, UnicodeDecodeError) as error:
        return found(Outcome.PROBLEM, str(error), *advice.UPDATE_AGENT)


def _failed(uri: str, name: str, error: libvirt.libvirtError) -> Finding:
    """What libvirt's refusal means for a guest."""
    code, text = error.get_error_code() or 0, _words(error)
    outcome, lines = Outcome.PROBLEM, advice.refused(code)
    match translate(error, uri):
        case _ if code == libvirt.VIR_ERR_NO_DOMAIN:
            outcome, text = Outcome.NOTE, "has just gone"
        case _ if lines:
            pass
        case AgentUnresponsive():
            text, lines = f"the agent is connected and does not answer: {text}", advice.WAKE_AGENT
        case NotConnected():
            lines = advice.restart_daemon(uri)
        case AgentRefused():
            text, lines = f"the agent refuses: {text}", advice.ALLOW_COMMANDS
        case _:  # paused or shut off since it was looked at
            outcome = Outcome.NOTE
    return Finding("guests", name, outcome, text, lines, uri)


def _ask(dom: libvirt.virDomain, command: AgentCommand, timeout: int) -> str:
    return libvirt_qemu.qemuAgentCommand(dom, request(command), timeout, 0)


def _frozen(dom: libvirt.virDomain, timeout: int) -> bool:
    """A frozen agent blocks nearly everything by itself; that is no matter of its configuration."""
    try:
        return bool(parse(AgentCommand.FREEZE_STATUS, _ask(dom, AgentCommand.FREEZE_STATUS, timeout)).value == "frozen")
    except (libvirt.libvirtError, GuestwireError):
        return False


def _open(uri: str) -> libvirt.virConnect:
    conn = libvirt.open(uri)
    with contextlib.suppress(libvirt.libvirtError):  # a driver without a wire has none
        conn.setKeepAlive(*KEEPALIVE)
    return conn


def check_connection(conn: libvirt.virConnect, uri: str) -> list[Finding]:
    """Driver and versions, whether it is good for more than reading, and whether it brings events."""
    kind = conn.getType()
    if kind != "QEMU":
        text = f"connected, but its driver is {kind}, which has no guest agents"
        return [Finding("libvirt", uri, Outcome.PROBLEM, text, ("name a qemu: URI in libvirt.uris",))]
    versions = f"libvirt {_version(conn.getLibVersion())}, QEMU {_version(conn.getVersion())}"
    if _may_only_read(conn):
        lines = advice.refused(libvirt.VIR_ERR_OPERATION_DENIED)
        return [Finding("libvirt", uri, Outcome.PROBLEM, f"connected for reading only, {versions}", lines)]
    found = [Finding("libvirt", uri, Outcome.OK, f"connected, {versions}, host {conn.getHostname()}")]
    try:
        event = libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE
        conn.domainEventDeregisterAny(conn.domainEventRegisterAny(None, event, lambda *_: None, None))
        found.append(Finding("libvirt", uri, Outcome.OK, "tells of agents that come and go"))
    except libvirt.libvirtError as error:
        code, text = error.get_error_code() or 0, f"tells of no events: {_words(error)}"
        found.append(Finding("libvirt", uri, Outcome.PROBLEM, text, advice.refused(code)))
    return found


def _may_only_read(conn: libvirt.virConnect) -> bool:
    """By a conversion from a format that does not exist: libvirt looks at the connection first, and then at that."""
    try:
        conn.domainXMLToNative("none", "<domain/>")
    except libvirt.libvirtError as error:
        return error.get_error_code() == libvirt.VIR_ERR_OPERATION_DENIED
    return False


def _list(conn: libvirt.virConnect) -> list[tuple[str, str, libvirt.virDomain]]:
    return [(dom.name(), dom.UUIDString(), dom) for dom in conn.listAllDomains()]


def _asked_for(wanted: Collection[str], name: str, uuid: str) -> set[str]:
    """The words by which a domain was asked for."""
    ref = GuestRef.of_domain(name)
    return {word for word in wanted if word in {name, uuid} or GuestRef.parse(word) == ref}


def _version(number: int) -> str:
    """From one number, as libvirt gives it: a million for the major one, a thousand for the minor one."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _words(error: libvirt.libvirtError) -> str:
    return (error.get_error_message() or str(error)).strip()


def _started(call: Callable[[], T]) -> Future[T]:
    """The result to come of a call in a thread that holds up nobody's end."""
    promise: Future[T] = Future()
    promise.set_running_or_notify_cancel()

    def run() -> None:
        try:
            promise.set_result(call())
        except BaseException as error:
            promise.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return promise


async def _within(seconds: float, promise: Future[T]) -> T:
    """Raises TimeoutError; the call goes on."""
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(promise)


def _hand_over(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the event loop has closed meanwhile
        loop.call_soon_threadsafe(call)
