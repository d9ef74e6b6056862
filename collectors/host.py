"""The edge between the collector and whatever runs domains: what is asked of it, what it says, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from collectors.agent_commands import AgentCommand, Reply
from collectors.domain import Domain
from guestwire.errors import TransientError


class Hint(StrEnum):
    """What an event suggests to look at; the look itself reads the present state."""

    STATE = "state"
    AGENT = "agent"
    DEVICES = "devices"
    EVERYTHING = "everything"
    MIGRATED = "migrated"


OnHint = Callable[[str, Hint], None]
"""Called on the event loop with a domain's UUID."""


class Moving(TransientError):  # noqa: N818
    """The domain is in a live migration; whoever runs it next will tell."""


class NotRunning(TransientError):  # noqa: N818
    """The domain is paused or off, so its agent cannot be asked."""


class Busy(TransientError):  # noqa: N818
    """Too many agents that do not answer are being asked already."""


class Host(Protocol):
    """What a collector needs of a libvirt host (`collectors.libvirt_host.LibvirtHost`)."""

    uri: str
    name: str
    lost: asyncio.Event

    async def open(self) -> None:
        """Connect and listen for events. Raises NotConnected."""

    async def close(self) -> None:
        """Disconnect."""

    def shutdown(self) -> None:
        """Let go of everything for good."""

    async def list(self) -> list[str]:
        """UUIDs of all domains. Raises NotConnected."""
        ...

    async def domain(self, uuid: str) -> Domain | None:
        """A domain's present state. Raises NotConnected, Moving, ContractError."""
        ...

    async def ask(self, uuid: str, command: AgentCommand, timeout: int, *, suspect: bool = False) -> Reply:  # noqa: ASYNC109
        """
        One agent command. Raises AgentUnresponsive, AgentRefused, NotRunning, ContractError, NotConnected, and Busy for
        a suspect.
        """
        ...


MakeHost = Callable[[str, int, OnHint], Host]
"""From a URI, a number of connections, and who is told of events."""
