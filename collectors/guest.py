"""
What is known about one guest: facts, their ages, and what cannot be known at the moment.

Unknown is not empty: a command that fails leaves its fact as it was, with the reason beside it. Facts survive the
agent's disconnect, a freeze, and (from the last messages on the bus) a restart of the collector.

Most readings find nothing new. So a kind is encoded again only when a fact behind it has changed, and a count of
changes tells whether there is anything to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from collectors.agent_commands import OPTIONAL_COMMANDS, SMALL, AgentCommand, Reply
from collectors.domain import Domain
from collectors.facts import MADE_OF, RECIPES, Recipe, recalled
from collectors.known import Known
from collectors.noise import Limits
from collectors.replies import AgentInfo
from guestwire import codec
from guestwire.errors import ContractError
from guestwire.snapshot import BEGINNING, AgentState, GuestSnapshot, Kind, Part, Phase, Reading

UNSUPPORTED = "this agent does not have the command, or it is disabled"
REGULAR = tuple(command for recipe in RECIPES if not recipe.needs_fact for command in recipe.regular)
"""What every agent is asked again and again."""


class Guest:
    """Not a snapshot: it changes as the guest does. One task at a time may use it."""

    def __init__(self, domain: Domain, host: str, now: datetime, limits: Limits | None = None) -> None:
        self.domain = domain
        self.host = host
        self.connected = domain.connected
        self.since = now
        self.responsive: bool | None = None
        self.reason = ""
        self._frozen: bool | None = None
        self._known: dict[AgentCommand, Known] = {}
        self._listed: frozenset[str] = frozenset()
        """The commands that the agent lists as enabled; empty when it lists none, or was not asked yet."""
        self._made: dict[str, Part] = {}
        """Parts as last encoded."""
        self._changes = 1
        """Whatever a snapshot tells has changed so often, but for the times of readings."""
        self._told, self._told_at = 0, BEGINNING
        """The count at the last snapshot, and when that was."""
        self._limits = limits or Limits()
        self._former: frozenset[str] = frozenset()
        """
        Kinds that the stream holds of this guest from before it was gone. They are said anew at once, whatever is
        known: who reads the stream later than that must not take them for those of now.
        """

    # --- what happens to it ------------------------------------------------------------------------------------

    def recall(self, bodies: dict[str, bytes]) -> None:
        """
        Take up what was last said about this guest (message bodies by kind). What belongs to another uid, or does not
        decode, is left alone; of a guest that was gone only the kinds are taken up.
        """
        try:
            agent = codec.decode(bodies.get(Kind.AGENT, b""), AgentState)
        except ContractError:
            return
        if agent.uid != self.domain.uid:
            return
        if agent.phase is Phase.GONE:
            self._former = frozenset(bodies)
            return
        self._changes += 1
        if agent.connected == self.connected:
            self.since = agent.since
            self.responsive, self.reason = agent.responsive, agent.reason
        self.frozen = agent.frozen
        self._recall_readings(agent.readings)
        for command, fact in recalled(bodies).items():
            if known := self._known.get(command):  # else it was said of a guest that nobody had read
                known.fact = fact
                self._changed(command)

    def update(self, domain: Domain, now: datetime) -> bool:
        """Take the domain's present state; True when the agent has just connected."""
        was, before = self.connected, self.domain
        if domain != before:
            self._changes += 1
            self.domain = domain
            if domain.interfaces != before.interfaces:
                self._made.pop(Kind.INTERFACES, None)
        if domain.connected != was:
            self.connected, self.since = domain.connected, now
            self.responsive, self.reason = None, ""
        return domain.connected and not was

    def read(self, command: AgentCommand, reply: Reply, now: datetime) -> bool:
        """A command was answered; True when that is news about what was known before."""
        known = self._known.get(command) or Known()
        if not known.observed_at or known.error or known.truncated != reply.truncated or not self.responsive:
            self._changes += 1
            self._known[command] = known
            known.error, known.truncated = "", reply.truncated
            self.responsive, self.reason = True, ""
        first = known.fact is None
        differs = known.take(reply.value, now, SMALL.get(command), self._limits)
        if differs:
            self._changed(command)
        if command is AgentCommand.FREEZE_STATUS:
            self.frozen = reply.value == "frozen"
        return differs and not first

    def failed(self, command: AgentCommand, error: str) -> None:
        """A command was refused, or its reply made no sense; the fact stays as it was."""
        known = self._known.setdefault(command, Known())
        if known.error != error[:200]:
            self._changes += 1
            known.error = error[:200]

    def unresponsive(self, reason: str) -> None:
        """The agent did not answer at all."""
        if (self.responsive, self.reason) != (False, reason[:200]):
            self._changes += 1
            self.responsive, self.reason = False, reason[:200]

    @property
    def frozen(self) -> bool | None:
        """Whether its filesystems are frozen; None while that is unknown."""
        return self._frozen

    @frozen.setter
    def frozen(self, frozen: bool | None) -> None:
        if frozen is not self._frozen:
            self._changes += 1
            self._frozen = frozen

    # --- what it tells -----------------------------------------------------------------------------------------

    @property
    def askable(self) -> bool:
        """Whether its agent can be asked."""
        return self.connected and self.domain.phase is Phase.RUNNING

    @property
    def oldest_reading(self) -> datetime | None:
        """When that was last read which is due to be read again and again, and was not for longest; None before."""
        times = [known.observed_at for command in REGULAR if (known := self._known.get(command))]
        return min((time for time in times if time), default=None)

    def supports(self, command: AgentCommand) -> bool:
        """
        Whether the agent has a command, as far as it told. Before it did, anything may be asked that every agent is
        asked; and of one that lists no command, as QEMU's did before 1.1.
        """
        return command in self._listed if self._listed else command not in OPTIONAL_COMMANDS

    def stale(self, commands: Iterable[AgentCommand], before: datetime) -> list[AgentCommand]:
        """Those of the commands that were last answered before that time, or never."""
        return [
            command
            for command in commands
            if (known := self._known.get(command)) is None or (known.observed_at or BEGINNING) < before
        ]

    def news(self, oldest: datetime) -> bool:
        """Whether there is something to tell: a change since the last snapshot, or that one is from before `oldest`."""
        return self._told != self._changes or self._told_at < oldest

    def snapshot(self, trace_id: str) -> GuestSnapshot:
        """Everything known, ready to be published."""
        now = codec.now()
        self._told, self._told_at = self._changes, now
        parts = [self._part(recipe, now) for recipe in RECIPES if self._says(recipe)]
        state = codec.part(Kind.AGENT, self.state(), now)
        return GuestSnapshot(self.domain.ref, self.domain.uid, self.host, (state, *parts), trace_id)

    def state(self) -> AgentState:
        """The agent record as it stands."""
        domain, info = self.domain, self._fact(AgentCommand.INFO)
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
            readings=self._readings(),
        )

    # --- facts -------------------------------------------------------------------------------------------------

    def _fact(self, command: AgentCommand) -> Any:
        known = self._known.get(command)
        return known.fact if known else None

    def _changed(self, command: AgentCommand) -> None:
        """A fact is another one: what it is part of is to be made anew."""
        self._changes += 1
        for kind in MADE_OF[command]:
            self._made.pop(kind, None)
        if command is AgentCommand.INFO:
            info: AgentInfo = self._fact(command)
            self._listed = frozenset(listed.name for listed in info.commands if listed.enabled)

    def _says(self, recipe: Recipe) -> bool:
        """
        Whether anything is said about a kind: the domain's side of interfaces, what was read, or tried, and what the
        stream would else hold of former times.
        """
        if recipe.needs_fact:
            return self._fact(recipe.regular[0]) is not None
        said = recipe.kind is Kind.INTERFACES or recipe.kind in self._former
        return said or any(command in self._known for command in recipe.commands)

    def _part(self, recipe: Recipe, now: datetime) -> Part:
        known = self._known
        times = [known[command].told_at for command in recipe.commands if command in known]
        observed = max((time for time in times if time), default=now)
        made = self._made.get(recipe.kind)
        if made is None:
            facts = {command: known[command].fact for command in recipe.commands if self._fact(command) is not None}
            made = self._made[recipe.kind] = codec.part(recipe.kind, recipe.make(facts, self.domain), observed)
        return Part(made.kind, made.body, made.digest, observed)

    def _readings(self) -> dict[str, Reading]:
        """Per kind: the oldest of what is read regularly, the first error, and what was cut."""
        found: dict[str, Reading] = {}
        for recipe in RECIPES:
            own = [(command, known) for command in recipe.own if (known := self._known.get(command))]
            if own:
                regular = [known for command, known in own if command in recipe.regular] or [known for _, known in own]
                times = [known.observed_at for known in regular if known.observed_at]
                error = next((f"{command}: {known.error}" for command, known in own if known.error), "")
                found[recipe.kind] = Reading(min(times, default=None), error, sum(known.truncated for _, known in own))
        return found

    def _recall_readings(self, readings: dict[str, Reading]) -> None:
        for recipe in RECIPES:
            if told := readings.get(recipe.kind):
                failed, _, error = told.error.partition(": ")
                for command in recipe.own:
                    known = self._known.setdefault(command, Known())
                    known.observed_at = known.told_at = told.observed_at
                    known.error = error if failed == command else ""
                    known.truncated = told.truncated if command == recipe.own[0] else 0


def last_word(bodies: dict[str, bytes], domain: Domain) -> AgentState | None:
    """By which host and how a domain was last said to run (message bodies by kind); None when it was not."""
    try:
        agent = codec.decode(bodies.get(Kind.AGENT, b""), AgentState)
    except ContractError:
        return None
    return agent if agent.domain_uuid == domain.uuid and agent.phase in {Phase.RUNNING, Phase.PAUSED} else None
