"""Builds the `nats` command once, from the Go module in `lab/nats`, and keeps it in the cache.

It is what people look at the bus with, so what the documentation says about it is tried with the real one. Sources come
from the Go module proxy, every sum written down in `lab/nats/go.sum`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lab.errors import LabError
from lab.kube_build import go_toolchain
from lab.paths import locked

MODULE = Path(__file__).parent / "nats"
PROGRAM = "github.com/nats-io/natscli/nats"
TIMEOUT_SECONDS = 1800.0
"""Bound of the build: 2 minutes are normal on 2 idle cores."""


class NatsCli:
    """The command for one server, with a home of its own; `options` say who asks, e.g. `--nkey FILE`."""

    def __init__(self, program: Path, home: Path, server: str, *options: str) -> None:
        self._command = [str(program), "--server", server, "--timeout", "30s", *options]
        self._env = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_CONFIG_HOME": str(home)}

    def run(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run it to its end, whatever that is."""
        return subprocess.run(
            [*self._command, *arguments], env=self._env, capture_output=True, text=True, timeout=timeout, check=False
        )

    def __call__(self, *arguments: str, timeout: float = 120) -> str:
        """What it prints.

        Raises:
            LabError: it ended with an error.
        """
        done = self.run(*arguments, timeout=timeout)
        if done.returncode:
            raise LabError(f"nats {' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout


def build(cache: Path, progress: Callable[[str], None]) -> Path:
    """Path of the program, built into `cache` when it is not there yet.

    Several processes may call this at the same time: one builds, the others wait for it.

    Raises:
        LabError: no usable Go, or the build failed; the tail of its output follows the first line.
    """
    digest = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))).hexdigest()
    program = cache / f"nats-{digest[:12]}"
    if program.exists():
        return program
    with locked(cache / "nats.lock", partial(progress, "nats: another process is building it; waiting")):
        if not program.exists():
            _build(program, go_toolchain(cache, progress), progress)
    return program


def _build(program: Path, go: str, progress: Callable[[str], None]) -> None:
    progress("nats: compiling (first time about 2 min)")
    half = program.with_suffix(".partial")
    # A workspace file above this tree or a C compiler on the machine must not change the outcome.
    env = os.environ | {"GOWORK": "off", "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    command = [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", str(half), PROGRAM]
    try:
        subprocess.run(
            command, cwd=MODULE, env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True
        )
    except subprocess.CalledProcessError as error:
        raise LabError(f"nats: go build ended with status {error.returncode}\n{error.stderr[-2000:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"nats: {error}") from error
    half.rename(program)
