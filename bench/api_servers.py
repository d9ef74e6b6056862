"""The servers that `bench.api` compares, on one core, and the load from the other."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from lab.nginx import Nginx
from lab.process import Daemon, free_port, program

GUESTWIRE = Path(sys.executable).with_name("guestwire")
SCRIPT = Path(__file__).with_name("api.lua")
SERVER, LOAD = "0", "1"
"""Cores."""
CONNECTIONS = 64

TUNED = "open_file_cache max=10000 inactive=1h; open_file_cache_valid 1h;"
"""Without it nginx opens the file for each read; it is off unless somebody sets it."""

AS_SERVED = """
sendfile on;
tcp_nopush on;
keepalive_requests 1000000000;
default_type application/json;
"""


class Load(NamedTuple):
    """What one run of wrk saw."""

    rate: float
    """Answers a second."""
    p99: float = 0.0
    """Milliseconds."""
    per_cpu: float = 0.0
    """Answers per second of the server's CPU time."""


class Api:
    """A `guestwire serve` on the server's core."""

    def __init__(self, directory: Path, nats: str, name: str, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        given = {
            "NATS__SERVERS": nats,
            "API__LISTEN": f"127.0.0.1:{self.port}",
            "LOG__LEVEL": "error",
            "API__GUEST_METRICS": "off",
        }
        given |= settings
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("GUESTWIRE_")}
        env = inherited | {f"GUESTWIRE_{key}": value for key, value in given.items()}
        self.process = Daemon(["taskset", "-c", SERVER, GUESTWIRE, "serve"], log=directory / f"{name}.log", env=env)

    def start(self) -> float:
        """Seconds from starting to being ready."""
        began = time.monotonic()
        self.process.start()
        self.process.ready(lambda: self.ask("/readyz") == b"ok\n", timeout=600)
        return time.monotonic() - began

    def ask(self, path: str) -> bytes:
        """A page, empty where there is none."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:  # noqa: S310 - our own
                return bytes(answer.read())
        except OSError:
            return b""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While it does nothing at all."""
        pid = self.process.pid or 0
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @property
    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def metric(self, name: str) -> float:
        """The value of a metric of the process."""
        lines = self.ask("/metrics").decode().splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)

    @property
    def revision(self) -> float:
        """Of the stream, as far as it was taken in."""
        return self.metric("guestwire_api_cache_revision")


class Server(Protocol):
    """Something that listens."""

    port: int
    process: Daemon


def cpu_seconds(process: Daemon) -> float:
    """Used so far, by a process and its children."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ticks = 0
    for pid in (str(process.pid), *children):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Wrk:
    """The load, on its own core."""

    def __init__(self, directory: Path, paths: list[str], seconds: int) -> None:
        self._directory = directory
        self._seconds = seconds
        self._program = program("wrk")
        self._list("paths", paths)
        self._list("other-paths", [path.replace("/v1/", "/v1alpha3/") for path in paths])

    def _list(self, name: str, paths: list[str]) -> None:
        (self._directory / name).write_text("".join(f"{path}\n" for path in paths))

    def run(self, server: Server, *headers: str, paths: str = "paths") -> Load:
        """Ask as fast as it goes, for `paths` or `other-paths`. RuntimeError when any answer was not a 200."""
        argv = ["taskset", "-c", LOAD, self._program, "-t1", f"-c{CONNECTIONS}", f"-d{self._seconds}s"]
        argv += ["-s", str(SCRIPT), f"http://127.0.0.1:{server.port}", "--", str(self._directory / paths)]
        before = cpu_seconds(server.process)
        said = json.loads(subprocess.check_output([*argv, *headers], text=True).splitlines()[-1])
        used = cpu_seconds(server.process) - before
        if said["errors"] or not said["requests"]:
            raise RuntimeError(f"wrk saw errors: {said}")
        return Load(
            said["requests"] / said["microseconds"] * 1e6, said["p99_us"] / 1000, said["requests"] / max(used, 0.01)
        )


def static(home: Path, files: dict[str, bytes], more: str = "") -> Nginx:
    """Nginx with these files, on the server's core; `more` is said in its configuration."""
    root = home / "root"
    for path, data in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return Nginx(home, f"root {root};", AS_SERVED + more, wrapper=("taskset", "-c", SERVER))
