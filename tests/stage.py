"""A stage as a process of its own, and its pages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from lab.process import free_port

GUESTWIRE = Path(sys.executable).with_name("guestwire")
GRACE = 8.0


class Stage:
    """`guestwire` with these words; `listens` is the setting of where its pages are."""

    def __init__(self, *words: str | Path, listens: str, **settings: object) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        given = {listens: self.address, "SHUTDOWN_GRACE": GRACE, "LOG__FORMAT": "json", **settings}
        plain = {name: value for name, value in os.environ.items() if not name.startswith("GUESTWIRE_")}
        env = {**plain, **{f"GUESTWIRE_{name}": str(value) for name, value in given.items()}}
        self.process = subprocess.Popen([GUESTWIRE, *words], env=env, stderr=subprocess.DEVNULL)

    def get(self, path: str) -> tuple[int, str]:
        """Status and text; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """The sum over its labels; -1 where there is none."""
        lines = self.get("/metrics")[1].splitlines()
        values = [float(line.split()[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(values) if values else -1

    def end(self) -> tuple[int, float]:
        """SIGTERM; the exit status, and how long it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(4 * GRACE), time.monotonic() - began
