"""
What is known about one guest: facts, their ages, and what cannot be known at the moment.

Unknown is not empty: a command that fails leaves its fact as it was, with the reason beside it. Facts survive the
agent's disconnect, a freeze, and (from the last messages on the bus) a restart of the collector.

Most readings find nothing new. So a kind is encoded again only when what it is made of has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from collectors.agent_commands import AgentCommand, AgentInfo, Reply
from collectors.domain import Domain
from guestwire import codec
from guestwire.errors import ContractError
from guestwire.snapshot import (
    CAP_IN_GUESTOSINFO,
    AgentState,
    Body,
    Filesystem,
    FilesystemInfo,
    FilesystemList,
    GuestOSInfo,
    GuestRef,
    GuestSnapshot,
    Interfaces,
    Kind,
    ListMeta,
    OperatingSystem,
    Part,
    Phase,
    Reading,
    UserList,
)

BEGINNING = datetime.fromtimestamp(0, UTC)
UNSUPPORTED = "this agent does not have the command, or it is disabled"

_GUESTOSINFO = tuple(command for command in AgentCommand if command is not AgentCommand.INTERFACES)
"""The commands whose facts make up guestosinfo."""
COMMANDS = {
    Kind.GUESTOSINFO: (AgentCommand.OSINFO, AgentCommand.HOSTNAME, AgentCommand.TIMEZONE, AgentCommand.INFO,
                       AgentCommand.FREEZE_STATUS),
    Kind.INTERFACES: (AgentCommand.INTERFACES,),
    Kind.USERLIST: (AgentCommand.USERS,),
    Kind.FILESYSTEMLIST: (AgentCommand.FILESYSTEMS,),
}  # fmt: skip
"""The commands behind each kind of facts."""


class Usage:
    """
    Which moves of used bytes are news. They move all the time; a mount, an unmount or another size always counts, usage
    when it moved by a share of the filesystem, or when a smaller move is `age` seconds old.
    """

    def __init__(self, share: float = 0.0, age: float = 0.0) -> None:
        self._share = share
        self._age = timedelta(seconds=age)
        self._moved_since: datetime | None = None

    def worth_telling(self, told: tuple[Filesystem, ...], present: tuple[Filesystem, ...], now: datetime) -> bool:
        """Whether the present filesystems are to replace those told before."""
        if told == present:
            self._moved_since = None
            return False
        if len(told) == len(present) and all(map(self._hardly_moved, told, present)):
            self._moved_since = self._moved_since or now
            if now - self._moved_since < self._age:
                return False
        self._moved_since = None
        return True

    def _hardly_moved(self, told: Filesystem, present: Filesystem) -> bool:
        if msgspec.structs.replace(told, used_bytes=present.used_bytes) != present:
            return False
        moved = abs(told.used_bytes - present.used_bytes)
        return moved == 0 or moved < self._share * present.total_bytes


class Guest:
    """Not a snapshot: it changes as the guest does. One task at a time may use it."""

    def __init__(self, domain: Domain, host: str, now: datetime, usage: Usage | None = None) -> None:
        self.domain = domain
        self.host = host
        self.connected = domain.connected
        self.since = now
        self.responsive: bool | None = None
        self.reason = ""
        self.frozen: bool | None = None
        self._readings: dict[AgentCommand, Reading] = {}
        self._facts: dict[AgentCommand, Any] = {}
        self._made: dict[Kind, tuple[Any, Part]] = {}
        """Parts as last encoded, and what they were made of."""
        self._told: tuple[Any, datetime] = (None, BEGINNING)
        """What the last snapshot was made of, and when."""
        self._usage = usage or Usage()

    # --- what happens to it ------------------------------------------------------------------------------------

    def recall(self, bodies: dict[str, bytes]) -> None:
        """
        Take up what was last said about this guest (message bodies by kind). What belongs to another uid, or does not
        decode, is left alone.
        """
        try:
            agent = codec.decode(bodies.get(Kind.AGENT, b""), AgentState)
        except ContractError:
            return
        if agent.uid != self.domain.uid or agent.phase is Phase.GONE:
            return
        if agent.connected == self.connected:
            self.since = agent.since
            self.responsive, self.reason = agent.responsive, agent.reason
        self.frozen = agent.frozen
        self._recall_readings(agent.readings)
        for kind, struct in ((Kind.GUESTOSINFO, GuestOSInfo), (Kind.USERLIST, UserList), (Kind.INTERFACES, Interfaces),
                             (Kind.FILESYSTEMLIST, FilesystemList)):  # fmt: skip
            try:
                self._recall(codec.decode(bodies.get(kind, b""), struct))
            except ContractError:
                continue

    def update(self, domain: Domain, now: datetime) -> bool:
        """Take the domain's present state; True when the agent has just connected."""
        was = self.connected
        self.domain = domain
        if domain.connected != was:
            self.connected, self.since = domain.connected, now
            self.responsive, self.reason = None, ""
        return domain.connected and not was

    def read(self, command: AgentCommand, reply: Reply, now: datetime) -> bool:
        """A command was answered; True when it differs from what was known before."""
        before = self._facts.get(command)
        differs = before != reply.value
        news = before is not None and differs
        self.responsive, self.reason = True, ""
        self._readings[command] = Reading(observed_at=now, truncated=reply.truncated)
        if command is AgentCommand.FILESYSTEMS and before is not None:
            news = self._usage.worth_telling(before, reply.value, now)
            if not news:
                return False
        if differs:
            self._facts[command] = reply.value
        if command is AgentCommand.FREEZE_STATUS:
            self.frozen = reply.value == "frozen"
        return news

    def failed(self, command: AgentCommand, error: str) -> None:
        """A command was refused, or its reply made no sense; the fact stays as it was."""
        before = self._readings.get(command, Reading())
        self._readings[command] = Reading(before.observed_at, error[:200], before.truncated)

    def unresponsive(self, reason: str) -> None:
        """The agent did not answer at all."""
        self.responsive, self.reason = False, reason[:200]

    # --- what it tells -----------------------------------------------------------------------------------------

    @property
    def askable(self) -> bool:
        """Whether its agent can be asked."""
        return self.connected and self.domain.phase is Phase.RUNNING

    def supports(self, command: AgentCommand) -> bool:
        """
        Whether the agent has a command, as far as it told. Before it did, anything may be asked; and of one that lists
        none, as QEMU's did before 1.1.
        """
        info: AgentInfo | None = self._facts.get(AgentCommand.INFO)
        listed = info.commands if info else ()
        return not listed or any(known.name == command and known.enabled for known in listed)

    def stale(self, commands: Iterable[AgentCommand], before: datetime) -> list[AgentCommand]:
        """Those of the commands that were last answered before that time, or never."""
        return [
            command
            for command in commands
            if (self._readings.get(command, Reading()).observed_at or BEGINNING) < before
        ]

    def news(self, oldest: datetime) -> bool:
        """Whether there is something to tell: a change since the last snapshot, or that one is from before `oldest`."""
        told, when = self._told
        return when < oldest or told != self._basis()

    def snapshot(self, trace_id: str) -> GuestSnapshot:
        """Everything known, ready to be published."""
        now = codec.now()
        self._told = self._basis(), now
        parts = [codec.part(Kind.AGENT, self.state(), now)]
        parts.append(self._part(Kind.INTERFACES, self._interfaces, AgentCommand.INTERFACES))
        if any(command in self._readings for command in _GUESTOSINFO):
            parts.append(self._part(Kind.GUESTOSINFO, self._guestosinfo, *_GUESTOSINFO))
        # A list nobody can read is the empty one, as in KubeVirt; the agent record tells why.
        if AgentCommand.USERS in self._readings:
            parts.append(self._part(Kind.USERLIST, self._userlist, AgentCommand.USERS))
        if AgentCommand.FILESYSTEMS in self._readings:
            parts.append(self._part(Kind.FILESYSTEMLIST, self._filesystemlist, AgentCommand.FILESYSTEMS))
        return GuestSnapshot(self.domain.ref, self.domain.uid, self.host, tuple(parts), trace_id)

    def _basis(self) -> tuple[Any, ...]:
        """All that a snapshot is made of, but for the times of readings."""
        readings = [(command, reading.error, reading.truncated) for command, reading in self._readings.items()]
        state = (self.connected, self.since, self.responsive, self.reason, self.frozen)
        return self.domain, state, readings, [self._facts.get(command) for command in AgentCommand]

    def _part(self, kind: Kind, make: Callable[[], Body], *commands: AgentCommand) -> Part:
        times = [reading.observed_at for command in commands if (reading := self._readings.get(command))]
        observed = max((time for time in times if time), default=codec.now())
        basis = (self.domain.interfaces, [self._facts.get(command) for command in commands])
        made_of, part = self._made.get(kind, (None, None))
        if part is None or made_of != basis:
            part = codec.part(kind, make(), observed)
            self._made[kind] = basis, part
        return Part(part.kind, part.body, part.digest, observed)

    def _interfaces(self) -> Interfaces:
        return Interfaces(self.domain.interfaces, self._facts.get(AgentCommand.INTERFACES))

    def _userlist(self) -> UserList:
        return UserList(self._facts.get(AgentCommand.USERS, ()), ListMeta())

    def _filesystemlist(self) -> FilesystemList:
        return FilesystemList(self._facts.get(AgentCommand.FILESYSTEMS, ()), ListMeta())

    def state(self) -> AgentState:
        """The agent record as it stands."""
        domain, info = self.domain, self._facts.get(AgentCommand.INFO)
        return AgentState(
            namespace=domain.ref.namespace,
            name=domain.ref.name,
            uid=domain.uid,
            domain=domain.name,
            domain_uuid=domain.uuid,
            host=self.host,
            phase=domain.phase,
            channel=domain.channel,
            connected=self.connected,
            since=self.since,
            responsive=self.responsive,
            reason=self.reason,
            frozen=self.frozen,
            version=info.version if info else "",
            commands=tuple(command.name for command in info.commands if command.enabled) if info else None,
            readings=self._readings_by_kind(),
        )

    def _guestosinfo(self) -> GuestOSInfo:
        """KubeVirt manager.go GetGuestInfo: users and filesystems are capped here and nowhere else."""
        facts = self._facts
        info: AgentInfo = facts.get(AgentCommand.INFO) or AgentInfo("", ())
        filesystems = facts.get(AgentCommand.FILESYSTEMS) or None
        return GuestOSInfo(
            fs_info=FilesystemInfo(filesystems and filesystems[:CAP_IN_GUESTOSINFO]),
            os=facts.get(AgentCommand.OSINFO) or OperatingSystem(),
            timezone=facts.get(AgentCommand.TIMEZONE) or ", 0",
            fs_freeze_status=facts.get(AgentCommand.FREEZE_STATUS) or "",
            guest_agent_version=info.version,
            hostname=facts.get(AgentCommand.HOSTNAME) or "",
            supported_commands=info.commands,
            user_list=facts.get(AgentCommand.USERS, ())[:CAP_IN_GUESTOSINFO],
        )

    def _recall(self, body: Body) -> None:
        facts: dict[AgentCommand, Any] = {}
        match body:
            case GuestOSInfo():
                facts = {
                    AgentCommand.INFO: AgentInfo(body.guest_agent_version, body.supported_commands),
                    AgentCommand.OSINFO: body.os,
                    AgentCommand.HOSTNAME: body.hostname,
                    AgentCommand.TIMEZONE: body.timezone,
                    AgentCommand.FREEZE_STATUS: body.fs_freeze_status,
                }
            case UserList():
                facts = {AgentCommand.USERS: body.items}
            case FilesystemList():
                facts = {AgentCommand.FILESYSTEMS: body.items}
            case Interfaces():
                facts = {AgentCommand.INTERFACES: body.guest}
        # guestosinfo also carries the zero values of what was never read.
        zero = {"", ", 0", AgentInfo("", ()), OperatingSystem(), None}
        self._facts |= {command: fact for command, fact in facts.items() if fact not in zero}

    def _readings_by_kind(self) -> dict[str, Reading]:
        """Per kind: the oldest of what is read regularly, the first error, and what was cut."""
        found: dict[str, Reading] = {}
        for kind, commands in COMMANDS.items():
            readings = {command: self._readings[command] for command in commands if command in self._readings}
            if readings:
                regular = [readings[command] for command in commands[:3] if command in readings] or [*readings.values()]
                times = [reading.observed_at for reading in regular if reading.observed_at]
                errors = [f"{command}: {reading.error}" for command, reading in readings.items() if reading.error]
                cut = sum(reading.truncated for reading in readings.values())
                found[kind] = Reading(min(times, default=None), errors[0] if errors else "", cut)
        return found

    def _recall_readings(self, readings: dict[str, Reading]) -> None:
        for kind, commands in COMMANDS.items():
            if told := readings.get(kind):
                failed, _, error = told.error.partition(": ")
                for command in commands:
                    cut = told.truncated if command == commands[0] else 0
                    self._readings[command] = Reading(told.observed_at, error if failed == command else "", cut)


def gone(agent: AgentState, trace_id: str, now: datetime) -> GuestSnapshot:
    """The last word about a guest that no longer exists: a marker in place of its agent record."""
    last = msgspec.structs.replace(
        agent, phase=Phase.GONE, connected=False, since=now, responsive=None, reason="", readings={}
    )
    return GuestSnapshot(
        GuestRef(agent.namespace, agent.name), agent.uid, agent.host, (codec.part(Kind.AGENT, last, now),), trace_id
    )


def last_word(bodies: dict[str, bytes], domain: Domain) -> AgentState | None:
    """By which host and how a domain was last said to run (message bodies by kind); None when it was not."""
    try:
        agent = codec.decode(bodies.get(Kind.AGENT, b""), AgentState)
    except ContractError:
        return None
    return agent if agent.domain_uuid == domain.uuid and agent.phase in {Phase.RUNNING, Phase.PAUSED} else None
