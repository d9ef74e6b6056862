"""
The pipeline's processes, each started again when it ends, with the pauses of `guestwire up`.

They are killed by faults only: one that ends by itself is in trouble, as is one that does not stop when it is told to,
and one that logs an error. Faults around them make warnings at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from guestwire.lifecycle import backoff, sleep_unless
from lab.process import Daemon

GRACE = 25.0
"""Seconds to stop in; the product gives itself twice ten."""
STEADY = 60.0
"""Seconds after which the pauses start short again, as in `guestwire.cli.supervisor`."""
LOOK = 0.05
GUESTWIRE = (sys.executable, "-m", "guestwire.cli")


class Killable(Protocol):
    """A process that a fault may hit."""

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        ...

    def kill(self) -> None:
        """SIGKILL."""


class Process:
    """One of them; `run` keeps it running until `stop`."""

    def __init__(
        self, name: str, argv: Sequence[str | Path], env: Mapping[str, str], log: Path, say: Callable[[str], None]
    ) -> None:
        self.name = name
        self.log = log
        self.troubles: list[str] = []
        """What it should not have done; complete when it has been stopped."""
        self._daemon = Daemon(argv, log=log, env=env)
        self._say = say
        self._killed = False
        self._stop = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._daemon.pid

    def kill(self) -> None:
        """SIGKILL; it starts again by itself."""
        self._killed = True
        self._daemon.kill()

    async def run(self) -> None:
        """Start, and start again."""
        loop, pauses = asyncio.get_running_loop(), backoff()
        while not self._stop.is_set():
            began, self._killed = loop.time(), False
            await asyncio.to_thread(self._daemon.start)
            while self._daemon.alive and not self._stop.is_set():
                await sleep_unless(self._stop, LOOK)
            if self._stop.is_set():
                break
            if not self._killed:
                self.troubles.append(f"{self.name} ended by itself, with status {self._daemon.wait(0)}")
                self._say(self.troubles[-1])
            if loop.time() - began > STEADY:
                pauses = backoff()
            await sleep_unless(self._stop, next(pauses))
        await asyncio.to_thread(self._daemon.stop, GRACE)
        if status := self._daemon.wait(0):
            self.troubles.append(f"{self.name} was told to stop, and ended with status {status}")
        self.troubles += [f"{self.name} logged {line}" for line in _complaints(self.log)]

    def stop(self) -> None:
        """Let `run` end it, with SIGTERM first."""
        self._stop.set()


@contextlib.contextmanager
def frozen(target: Killable) -> Iterator[None]:
    """A process that does nothing, and does not know it, while the block lasts."""
    pid = target.pid
    _signal(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pid, signal.SIGCONT)


def _complaints(log: Path) -> Iterator[str]:
    """Errors, each but once, and tracebacks that are in no record."""
    seen = set[str]()
    for line in log.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            record = {"level": "error" if line.startswith("Traceback") else "info", "event": line}
        if record["level"] in ("error", "critical") and record["event"] not in seen:
            seen.add(record["event"])
            reason = record.get("exception") or record.get("error") or ""
            yield f"{record['event']}: {reason}".replace("\n", " | ")[:500]


def _signal(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def processes(
    directory: Path, env: Mapping[str, str], truth: Path, hosts: Sequence[str], say: Callable[[str], None]
) -> list[Process]:
    """All of them; `truth` is the socket of the simulated hosts, and what is stored goes into `directory`."""
    collect = (sys.executable, "-m", "lab.soak.collect", truth)
    simulated = {
        **env,
        "GUESTWIRE_LIBVIRT__URIS": ",".join(f"simulated:///{host}" for host in hosts),
        "GUESTWIRE_COLLECT__HEALTH": env["SOAK_HEALTH"],
    }
    commands: dict[str, tuple[Sequence[str | Path], Mapping[str, str]]] = {
        "collector": ((*GUESTWIRE, "collect"), env),
        "collector of simulated guests": (collect, simulated),
        "api": ((*GUESTWIRE, "serve"), env),
        "status writer": ((*GUESTWIRE, "write-status"), env),
        "subscriber": ((sys.executable, "-m", "lab.soak.subscribe", directory / "subscriber.db"), env),
        "export": ((*GUESTWIRE, "export", "--to", "duckdb", "--follow", "--every", "1", directory / "export.db"), env),
    }
    return [
        Process(name, argv, own, directory / f"{name.replace(' ', '-')}.log", say)
        for name, (argv, own) in commands.items()
    ]
