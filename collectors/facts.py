"""
Facts to bodies and back: what each kind of message is made of.

A fact is what one command's reply was parsed to. KubeVirt's kinds are put together from several; of an optional kind
the fact is the body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from collectors.agent_commands import OPTIONAL, AgentCommand
from collectors.domain import Domain
from collectors.replies import AgentInfo
from guestwire import codec
from guestwire.errors import ContractError
from guestwire.kinds import BODIES
from guestwire.snapshot import (
    CAP_IN_GUESTOSINFO,
    Body,
    FilesystemInfo,
    FilesystemList,
    GuestOSInfo,
    Interfaces,
    Kind,
    ListMeta,
    OperatingSystem,
    UserList,
)

Facts = Mapping[AgentCommand, Any]


@dataclass(frozen=True)
class Recipe:
    """How a kind's body is made, and what it tells when it is read again."""

    kind: Kind
    regular: tuple[AgentCommand, ...]
    """The commands that are its own and asked again and again: the oldest of them tells its age."""
    make: Callable[[Facts, Domain], Body]
    facts: Callable[[Any], dict[AgentCommand, Any]]
    """From a body back to facts; zero values may stand for what was never read."""
    seldom: tuple[AgentCommand, ...] = ()
    """Also its own, asked when something happened."""
    borrowed: tuple[AgentCommand, ...] = ()
    """Another kind's, of which it tells something as well."""
    needs_fact: bool = False
    """Nothing is said about it before it was read; else an attempt is enough, and the agent record tells why."""

    @cached_property
    def own(self) -> tuple[AgentCommand, ...]:
        """The commands that its reading stands for."""
        return *self.regular, *self.seldom

    @cached_property
    def commands(self) -> tuple[AgentCommand, ...]:
        """All that it is made of."""
        return *self.own, *self.borrowed


def _guestosinfo(facts: Facts, _domain: Domain) -> GuestOSInfo:
    """KubeVirt manager.go GetGuestInfo: users and filesystems are capped here and nowhere else."""
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


def _of_guestosinfo(body: GuestOSInfo) -> dict[AgentCommand, Any]:
    return {
        AgentCommand.INFO: AgentInfo(body.guest_agent_version, body.supported_commands),
        AgentCommand.OSINFO: body.os,
        AgentCommand.HOSTNAME: body.hostname,
        AgentCommand.TIMEZONE: body.timezone,
        AgentCommand.FREEZE_STATUS: body.fs_freeze_status,
    }


def _interfaces(facts: Facts, domain: Domain) -> Interfaces:
    return Interfaces(domain.interfaces, facts.get(AgentCommand.INTERFACES))


def _userlist(facts: Facts, _domain: Domain) -> UserList:
    """A list nobody can read is the empty one, as in KubeVirt; the agent record tells why."""
    return UserList(facts.get(AgentCommand.USERS, ()), ListMeta())


def _filesystemlist(facts: Facts, _domain: Domain) -> FilesystemList:
    return FilesystemList(facts.get(AgentCommand.FILESYSTEMS, ()), ListMeta())


def _fact(command: AgentCommand, facts: Facts, _domain: Domain) -> Body:
    body: Body = facts[command]
    return body


def _of_body(command: AgentCommand, body: Body) -> dict[AgentCommand, Any]:
    return {command: body}


RECIPES = (
    Recipe(
        Kind.INTERFACES, (AgentCommand.INTERFACES,), _interfaces, lambda body: {AgentCommand.INTERFACES: body.guest}
    ),
    Recipe(
        Kind.GUESTOSINFO,
        (AgentCommand.OSINFO, AgentCommand.HOSTNAME, AgentCommand.TIMEZONE),
        _guestosinfo,
        _of_guestosinfo,
        seldom=(AgentCommand.INFO, AgentCommand.FREEZE_STATUS),
        borrowed=(AgentCommand.USERS, AgentCommand.FILESYSTEMS),
    ),
    Recipe(Kind.USERLIST, (AgentCommand.USERS,), _userlist, lambda body: {AgentCommand.USERS: body.items}),
    Recipe(
        Kind.FILESYSTEMLIST,
        (AgentCommand.FILESYSTEMS,),
        _filesystemlist,
        lambda body: {AgentCommand.FILESYSTEMS: body.items},
    ),
    *(
        Recipe(row.kind, (row.command,), partial(_fact, row.command), partial(_of_body, row.command), needs_fact=True)
        for row in OPTIONAL
    ),
)
"""In the order in which they are published, behind `agent`."""

COMMANDS = {recipe.kind: recipe.own for recipe in RECIPES}
"""The commands to be asked to read a kind."""

MADE_OF = {command: [r.kind for r in RECIPES if command in r.commands] for command in AgentCommand}
"""The kinds that tell something of each command's fact."""

_ZERO = ("", ", 0", AgentInfo("", ()), OperatingSystem(), None)
"""What guestosinfo carries of facts that were never read."""


def recalled(bodies: Mapping[str, bytes]) -> dict[AgentCommand, Any]:
    """The facts behind the last message bodies about a guest, by kind; what does not decode is left out."""
    found: dict[AgentCommand, Any] = {}
    for recipe in RECIPES:
        try:
            found |= recipe.facts(codec.decode(bodies.get(recipe.kind, b""), BODIES[recipe.kind]))
        except ContractError:
            continue
    return {command: fact for command, fact in found.items() if fact not in _ZERO}
