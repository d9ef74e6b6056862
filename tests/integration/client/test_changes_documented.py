"""docs/subscribers.md, run: every Python example as a script, every command as it stands."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from guestwire.jetstream import Bus
from guestwire.snapshot import Filesystem, FilesystemInfo, GuestOSInfo, Kind, OperatingSystem, Phase
from lab.nats_server import NatsServer
from tests.integration.client.conftest import Collector

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "subscribers.md").read_text()
SCRIPTS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
DOCUMENTED = "nats://127.0.0.1:4222"
PATIENCE = 60

EXPECTED = [
    ["prod/db1 None -> UserList", "prod/db1 UserList(items=(User(user_name='alice'", "'bob'"],
    ["db1: alice", "db1: alice, bob", "db1: nobody"],
    ["prod/db1 userlist all of it None -> {'items': [{'userName': 'alice'}]", "prod/db1 userlist items[bob] None ->"],
    ["1 guests, last heard of prod/db1 agent", "0 guests, last heard of prod/db1 agent"],
    ["prod/db1 userlist ['']"],
]
"""What each script prints in the course of the story, among other things."""


async def begin(collector: Collector) -> None:
    """What is there before a script runs."""
    await collector.agent("prod/db1")
    await collector.say("prod/db1", Kind.GUESTOSINFO, system("12"))
    await collector.users("prod/db1", "alice")


async def go_on(collector: Collector) -> None:
    """What happens while it runs."""
    await collector.users("prod/db1", "alice", "bob")
    await collector.users("prod/db1")
    await collector.agent("prod/db1", Phase.GONE)


def system(version: str) -> GuestOSInfo:
    """An operating system of that version."""
    disks = (Filesystem("vda1", "/", "ext4", 1, 2),)
    return GuestOSInfo(FilesystemInfo(disks), OperatingSystem(name="Debian", version=version), "UTC, 0")


def test_examples_are_counted() -> None:
    """There is something to expect of every script."""
    assert len(EXPECTED) == len(SCRIPTS)
    assert len(COMMANDS) >= 8


def test_examples_are_typed(tmp_path: Path) -> None:
    """A strict type checker has nothing to say about a script."""
    for number, script in enumerate(SCRIPTS):
        (tmp_path / f"example{number}.py").write_text(script)
    checker = [sys.executable, "-m", "mypy", "--no-error-summary", "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*checker, "--cache-dir", str(tmp_path / "cache"), *map(str, tmp_path.glob("*.py"))],
        cwd=ROOT, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip

    assert (0, "") == (done.returncode, done.stdout)


@pytest.mark.parametrize("number", range(len(SCRIPTS)))
async def test_script(number: int, bus: Bus, nats_server: NatsServer, tmp_path: Path) -> None:
    """A script prints what it is said to, in order, from the present on to what happens meanwhile."""
    collector = Collector(bus)
    await begin(collector)
    script = tmp_path / "example.py"
    assert DOCUMENTED in SCRIPTS[number]
    script.write_text(SCRIPTS[number].replace(DOCUMENTED, nats_server.url))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    printed: list[str] = []
    try:
        for expected in EXPECTED[number]:
            async with asyncio.timeout(PATIENCE):
                while not any(expected in line for line in printed):
                    line = (await process.stdout.readline()).decode()
                    assert line, f"{expected!r} is missing: {printed}"
                    printed.append(line)
            if expected is EXPECTED[number][0]:
                await go_on(collector)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()

    assert "Traceback" not in "".join(printed)


async def test_script_continues(bus: Bus, nats_server: NatsServer, tmp_path: Path) -> None:
    """The script that stores its token prints, after a pause, what happened meanwhile and nothing of before."""
    [script] = [script for script in SCRIPTS if "write_text" in script]
    script = script.replace(DOCUMENTED, nats_server.url).replace("since=since", "since=since, live=False")
    collector = Collector(bus)

    async def run() -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdout=subprocess.PIPE, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE):
            output, _ = await process.communicate()
        assert 0 == process.returncode
        return "\n".join(line for line in output.decode().splitlines() if line.startswith("prod/"))

    await begin(collector)
    first = await run()
    await collector.users("prod/db1", "alice", "bob")

    assert 2 == len(first.splitlines())
    assert "prod/db1 userlist items[bob] None -> {'userName': 'bob'}" == await run()
    assert "" == await run()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_command(command: list[str], bus: Bus, nats_server: NatsServer) -> None:
    """A command does its work."""
    collector = Collector(bus)
    await begin(collector)
    await collector.users("prod/db1", "bob")
    ending = ["--no-follow"] if command[1] == "watch" and "--no-follow" not in command else []
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name(command[0]), *command[1:], *ending,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "GUESTWIRE_NATS__SERVERS": nats_server.url, "GUESTWIRE_CLUSTER": "c"},
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE):
        output, errors = await process.communicate()

    assert (0, True) == (process.returncode, bool(output)), errors.decode()
