"""A guest whose process is killed while its agent is being asked: no refusal, and nothing about the connection."""

from __future__ import annotations

import asyncio

import pytest

from collectors.agent_commands import AgentCommand
from collectors.host import NotRunning
from collectors.libvirt_host import LibvirtHost
from collectors.reader import LOST
from guestwire.errors import AgentUnresponsive
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd

pytestmark = pytest.mark.lab

COMMANDS = (AgentCommand.OSINFO, AgentCommand.FILESYSTEMS, AgentCommand.INTERFACES, AgentCommand.USERS)


async def test_killed_amid_calls(host: Libvirtd, image: GuestImage) -> None:
    """
    It says that it read the end of a file, or that a connection was reset, and means the agent's channel. Each is
    told as an agent that was lost, or a guest that does not run; libvirt itself is not given up.
    """
    edge = LibvirtHost(host.uri, len(COMMANDS), lambda _uuid, _hint: None)
    failures: list[Exception] = []

    async def ask_until_it_fails(uuid: str, command: AgentCommand) -> None:
        while True:
            try:
                await edge.ask(uuid, command, 5)
            except (AgentUnresponsive, NotRunning) as error:
                failures.append(error)
                return

    with Guest(host, image, namespace="prod", name="victim") as machine:
        machine.wait_agent()
        await edge.open()
        asking = [asyncio.create_task(ask_until_it_fails(machine.uuid, command)) for command in COMMANDS]
        await asyncio.sleep(1)
        assert [] == failures
        await asyncio.to_thread(machine.kill)
        async with asyncio.timeout(60):
            await asyncio.gather(*asking)
        await edge.list()
        assert not edge.lost.is_set()
        await edge.close()
        edge.shutdown()

    assert all(isinstance(error, NotRunning) or LOST.search(str(error)) for error in failures), failures
