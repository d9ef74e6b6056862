"""
Processes that `guestwire up` runs: each restarted with back-off when it fails, all stopped in order.

A child gets a session of its own, so that Ctrl-C reaches only the supervisor, which then stops them one after another;
should the supervisor be killed, the kernel ends its children (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import msgspec

from guestwire.errors import ConfigError
from guestwire.lifecycle import backoff, sleep_unless

EXIT_CONFIG = 2
"""A child that ends so has wrong settings; no restart mends that."""
STEADY = 60.0
"""Seconds after which a child counts as healthy and its pauses start short again."""
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """One process; `run` keeps it alive until `stop`."""

    def __init__(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path, say: Callable[[str, str], None]
    ) -> None:
        self.name = name
        self._argv = argv
        self._env = env
        self._log = log
        self._say = say
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Start, and start again with growing pauses. ConfigError when it says that its settings are wrong."""
        loop = asyncio.get_running_loop()
        pauses = backoff()
        while not self._stopping.is_set():
            began = loop.time()
            status = await self._run_once()
            if self._stopping.is_set():
                return
            if status == EXIT_CONFIG:
                raise ConfigError(f"{self.name} cannot run with these settings: see above and {self._log}")
            if loop.time() - began > STEADY:
                pauses = backoff()
            pause = next(pauses)
            self._say(
                self.name, f"ended with status {status}, starting it again in {pause:.1f} s; its log: {self._log}"
            )
            await sleep_unless(self._stopping, pause)

    async def stop(self, grace: float) -> None:
        """SIGTERM, then SIGKILL after the grace (seconds)."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace)
        except TimeoutError:
            self._say(self.name, f"did not end within {grace:g} s, killed")
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _run_once(self) -> int:
        self._process = process = await asyncio.create_subprocess_exec(
            *self._argv,
            env=dict(self._env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        if process.stderr is None:
            raise AssertionError("a pipe was asked for")
        with self._log.open("ab", buffering=0) as log:
            while line := await _line(process.stderr):
                log.write(line)
                self._repeat(line)
        return await process.wait()

    def _repeat(self, line: bytes) -> None:
        """What the user should know: warnings and worse of our own, and what is no log record at all."""
        try:
            record = msgspec.json.decode(line)
        except msgspec.DecodeError:
            if not line.startswith(b"["):  # the NATS server's own log
                self._say(self.name, line.decode(errors="replace").rstrip())
            return
        if isinstance(record, dict) and record.get("level") in {"warning", "error", "critical"}:
            hidden = {"event", "level", "time", "logger"}
            facts = ", ".join(f"{key} {value}" for key, value in record.items() if key not in hidden)
            self._say(self.name, f"{record.get('event')}{': ' if facts else ''}{facts}")


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line; of one that is longer than the buffer, what fits."""
    try:
        return await stream.readline()
    except ValueError:
        return b"(a line too long to show)\n"


def problem(text: str) -> str:
    """How a problem looks on a terminal."""
    return click.style(text, fg="yellow")
