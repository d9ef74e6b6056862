"""
Asking one agent what is due.

One command at a time, each with its own time-out, so that one failure spoils one kind of facts. An agent that does not
answer ends the round and is left alone for a while, longer each time; it is asked again apart from the healthy ones.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from functools import cache

from collectors import metrics
from collectors.agent_commands import AgentCommand
from collectors.guest import UNSUPPORTED, Guest
from collectors.host import Busy, Host, NotRunning
from collectors.schedule import MOMENT, Schedule
from guestwire import codec
from guestwire.errors import AgentRefused, AgentUnresponsive, ContractError
from guestwire.logs import logger
from guestwire.settings import Collect
from guestwire.snapshot import GuestSnapshot, Phase

log = logger("collector")

LOST = re.compile("not connected|not available due to an error|disappeared|End of file|Unable to (read|write)")
"""In libvirt's words for an agent whose channel has gone, as against one that takes too long."""


_seconds = cache(metrics.COMMAND_SECONDS.labels)
"""One histogram per command and result; `labels` itself is slow."""


class Reader:
    """Of one host."""

    def __init__(self, host: Host, settings: Collect, offer: Callable[[GuestSnapshot], None]) -> None:
        self._host = host
        self._settings = settings
        self._offer = offer
        self._in_flight = metrics.IN_FLIGHT.labels(host.uri)

    async def read(self, guest: Guest, schedule: Schedule, trace_id: str) -> bool:
        """
        Ask what is due, one command after another. News goes out at once. False when the agent could not be asked
        everything.
        """
        for command in schedule.due(time.monotonic(), frozen=guest.frozen is True):
            if not guest.supports(command):
                guest.failed(command, UNSUPPORTED)
                schedule.asked(command, time.monotonic())
                continue
            if not await self._ask_one(guest, schedule, command, trace_id):
                return False
        return True

    async def _ask_one(self, guest: Guest, schedule: Schedule, command: AgentCommand, trace_id: str) -> bool:
        """False ends this round: the agent cannot be asked anything more for now."""
        began, result = time.monotonic(), "ok"
        self._in_flight.inc()
        try:
            patience, suspect = self._settings.command_timeout, guest.responsive is False
            reply = await self._host.ask(guest.domain.uuid, command, patience, suspect=suspect)
        except Busy:
            result = "busy"
            schedule.pause(time.monotonic(), random.uniform(1, 3))  # noqa: S311
            return False
        except AgentUnresponsive as error:
            # Asked just before its guest was paused, an agent is silent with good reason.
            domain = await self._host.domain(guest.domain.uuid)
            if domain is None or domain.phase is not Phase.RUNNING:
                result = "not_running"
                schedule.pause(time.monotonic(), MOMENT)
                return False
            result = "unresponsive"
            self._silent(guest, schedule, str(error))
            return False
        except NotRunning:
            result = "not_running"
            schedule.pause(time.monotonic(), MOMENT)
            return False
        except AgentRefused as error:
            result = "refused"
            guest.failed(command, str(error))
            schedule.asked(command, time.monotonic())
            if command is AgentCommand.FREEZE_STATUS:
                guest.frozen = None
            elif "frozen" in str(error):
                guest.frozen = True
                return await self._ask_one(guest, schedule, AgentCommand.FREEZE_STATUS, trace_id)
            return True
        except ContractError as error:
            result = "unreadable"
            log.warning("agent's reply makes no sense", guest=str(guest.domain.ref), error=str(error))
            guest.failed(command, str(error))
            schedule.asked(command, time.monotonic())
            return True
        finally:
            self._in_flight.dec()
            _seconds(command, result).observe(time.monotonic() - began)
        was_frozen = guest.frozen
        if guest.read(command, reply, codec.now()):
            self._offer(guest.snapshot(trace_id))
        schedule.asked(command, time.monotonic())
        if reply.truncated:
            metrics.TRUNCATED.labels(command).inc(reply.truncated)
        if guest.frozen:
            schedule.pause(time.monotonic(), schedule.patience)
            return False
        if was_frozen:
            schedule.restart(time.monotonic())
        return True

    def _silent(self, guest: Guest, schedule: Schedule, error: str) -> None:
        if LOST.search(error) and schedule.doubt(time.monotonic()):
            return
        pause = schedule.silent(time.monotonic())
        if guest.responsive is not False:
            log.warning("agent does not answer", guest=str(guest.domain.ref), error=error, again_in=pause)
        guest.unresponsive(error)
