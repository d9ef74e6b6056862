"""
When to ask an agent what.

libvirt tells of connecting, rebooting and device changes, and everything is asked then; nothing tells of logins,
addresses and full disks, so those have a longest age. After connecting the answers still settle (a guest boots), so the
intervals start short and double until they reach it. In steady state the defaults cost 600 commands per guest and hour.

A command without a period is switched off: it is asked on demand only.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from collectors.agent_commands import OPTIONAL, AgentCommand
from guestwire.settings import Ages, Collect

FIRST_INTERVAL = 2.0
"""Seconds until the second reading after connecting."""
ORDER = {command: place for place, command in enumerate(AgentCommand)}
NEVER = float("inf")
MOMENT = 0.5
"""Seconds until a state that is about to change is looked at again."""
DOUBT = 5.0
"""Seconds for which a lost agent is not believed: a restarted daemon says `connected` before it can reach agents, and a
guest that is being destroyed loses its agent before its state changes."""
EARLY = 0.9
"""The share of the shortest period by which a command may be asked early, in a look for another one."""
FIRST_SILENCE, LONGEST_SILENCE = 10.0, 300.0
"""Seconds for which an agent that did not answer is left alone, doubling."""


PROFILES = {
    "default": Ages(users=10, interfaces=30, system=120, filesystems=120),
    "economy": Ages(users=60, interfaces=60, system=600, filesystems=600),
}
"""In steady state 600 and 144 commands per guest and hour."""


def periods(settings: Collect, namespace: str) -> dict[AgentCommand, float]:
    """
    Longest age per command, in seconds; NEVER is asked on events only, and what is switched off is missing. A
    namespace's own ages come first.
    """

    def age(name: str) -> float:
        """0 where nobody has set it."""
        for ages in (settings.namespaces.get(namespace), settings, PROFILES[settings.profile]):
            if (value := getattr(ages, name, None)) is not None:
                return float(value)
        return 0.0

    system = age("system")
    always = {
        AgentCommand.INFO: NEVER,
        AgentCommand.FREEZE_STATUS: NEVER,
        AgentCommand.OSINFO: system,
        AgentCommand.HOSTNAME: system,
        AgentCommand.TIMEZONE: system,
        AgentCommand.INTERFACES: age("interfaces"),
        AgentCommand.USERS: age("users"),
        AgentCommand.FILESYSTEMS: age("filesystems"),
    }
    return always | {row.command: period for row in OPTIONAL if (period := age(row.kind))}


class Schedule:
    """Of one guest. Times are seconds of a monotonic clock."""

    def __init__(self, periods: dict[AgentCommand, float]) -> None:
        self._periods = periods
        self._patience = min(periods.values())
        self._due: dict[AgentCommand, float] = {}
        self._interval: dict[AgentCommand, float] = {}
        self._quiet_until = 0.0
        self._silence = 0.0
        self._doubtful_since: float | None = None

    def restart(self, now: float) -> None:
        """Everything is due, and soon again."""
        self._due = dict.fromkeys(self._periods, now)
        self._interval = dict.fromkeys(self._periods, FIRST_INTERVAL)
        self._quiet_until = self._silence = 0.0

    def hasten(self, commands: Iterable[AgentCommand], now: float) -> None:
        """Something may have changed: these are due, and soon again."""
        for command in self._periods.keys() & commands:
            self._due[command] = now
            self._interval[command] = FIRST_INTERVAL

    def demand(self, commands: Iterable[AgentCommand], now: float) -> None:
        """
        Somebody wants to know these now, even what is switched off, and even of an agent that was left alone for its
        silence.
        """
        self._due |= dict.fromkeys(commands, now)
        self._quiet_until = 0.0

    def due(self, now: float, *, frozen: bool) -> list[AgentCommand]:
        """What to ask now, in the order of AgentCommand. A frozen agent is asked only whether it still is."""
        if now < self._quiet_until:
            return []
        if frozen:
            return [AgentCommand.FREEZE_STATUS]
        due = {command for command, time in self._due.items() if time <= now}
        if due:  # what settled to its period and is nearly due comes along, and stays in step from then on
            soon = now + EARLY * self.patience
            due |= {command for command, time in self._due.items() if time <= soon and self._settled(command)}
        return sorted(due, key=ORDER.__getitem__)

    def asked(self, command: AgentCommand, now: float) -> None:
        """A command was answered or refused: the next time is set, counted from the last so that ages do not drift."""
        self._silence, self._doubtful_since = 0.0, None
        period = self._periods.get(command, NEVER)
        interval = self._interval.get(command, period)
        if period == NEVER:
            self._due.pop(command, None)
            return
        if interval < period:
            self._interval[command] = min(interval * 2, period)
            self._due[command] = now + min(interval * random.uniform(0.75, 1.25), period)  # noqa: S311
        else:
            self._due[command] = max(min(self._due.get(command, now), now) + period, now + period / 2)

    def _settled(self, command: AgentCommand) -> bool:
        return self._periods.get(command, NEVER) <= self._interval.get(command, 0.0) < NEVER

    @property
    def patience(self) -> float:
        """The shortest of the longest ages: how soon a freeze's end is noticed."""
        return self._patience

    def pause(self, now: float, seconds: float) -> None:
        """Leave the agent alone for so long."""
        self._quiet_until = now + seconds

    def doubt(self, now: float) -> bool:
        """The agent seems lost; whether to look again in a moment before saying so."""
        if self._doubtful_since is None:
            self._doubtful_since = now
        if now - self._doubtful_since >= DOUBT:
            return False
        self.pause(now, MOMENT)
        return True

    def silent(self, now: float) -> float:
        """The agent did not answer; the seconds, growing each time, until it is asked again."""
        self._silence = min(self._silence * 2, LONGEST_SILENCE) if self._silence else FIRST_SILENCE
        self.pause(now, self._silence)
        return self._silence

    def next(self, now: float) -> float:
        """Seconds until something is due, at least 0."""
        return max(0.0, max(min(self._due.values(), default=NEVER), self._quiet_until) - now)
