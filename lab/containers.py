"""compose.yaml run for real: `Compose` is one run of it, under a project name of its own.

podman-compose starts it. As no systemd is assumed, podman runs no health check by itself and podman-compose does not
wait for one: `Compose.healthy` runs the check that the file declares, when asked.

Whatever ends the owner, a small shell program outlives it, waits for what podman-compose is doing, and runs
`podman-compose down`: closing a run and dying take the same path.
"""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab.container_images import REPOSITORY, VERSION, Progress, environment, image_name, output, run
from lab.errors import LabError
from lab.process import program

COMPOSE_FILE = REPOSITORY / "compose.yaml"
PATIENCE_SECONDS = 60
"""How long the end of a run waits for a podman-compose at work."""


class Compose:
    """One run of compose.yaml with the lab's images; use as a context manager.

    Args:
        variables: The file's variables; the lab's images are filled in.
        profiles: Profiles to enable, e.g. `kubernetes`.
        progress: Called with one line per line of podman-compose.
    """

    def __init__(self, variables: Mapping[str, str], *, profiles: Sequence[str] = (), progress: Progress) -> None:
        self.project = f"gw-{secrets.token_hex(4)}"
        self._progress = progress
        self._variables = {"NATS_IMAGE": image_name("nats"), "IMAGE_TAG": VERSION, **variables}
        self._directory = Path(tempfile.gettempdir(), self.project)
        self._lock = self._directory / "lock"
        self._complaints = self._directory / "down.log"
        self._compose = [sys.executable, "-m", "podman_compose", "--in-pod=false", "--parallel=1"]
        self._compose += ["--project-name", self.project, "--env-file", str(self._directory / "env")]
        self._compose += ["--file", str(COMPOSE_FILE)]
        self._compose += [f"--profile={profile}" for profile in profiles]
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(mode=0o700)
        # In a file and not in the environment: containers' processes would inherit that, and `lab.reaper` tells by it
        # which processes belong to a directory.
        (self._directory / "env").write_text("".join(f"{name}={value}\n" for name, value in self._variables.items()))
        down = shlex.join([*self._compose, *_DOWN])
        waited = shlex.join(["flock", "--wait", str(PATIENCE_SECONDS), str(self._lock), "true"])
        with self._complaints.open("wb") as complaints:
            self._keeper = subprocess.Popen(
                [program("sh"), "-c", f"cat; {waited}; {down} && rm -r {shlex.quote(str(self._directory))}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                env=environment(),
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is None or self._keeper.stdin is None:
            return
        self._keeper.stdin.close()
        if self._keeper.wait() != 0:
            raise LabError(f"compose down failed\n{self._complaints.read_text(errors='replace')}")

    def up(self, *services: str) -> None:
        """Start the services (none named: all of the enabled profiles), and what they depend on.

        Raises:
            LabError: one did not start, with podman-compose's last lines.
        """
        self._run("up", "--detach", "--no-build", *services)

    def down(self) -> None:
        """Remove all that belongs to the run: containers, network, volumes."""
        self._run(*_DOWN)

    def healthy(self, service: str) -> bool:
        """Whether the service's health check, as the file declares it, passes now."""
        try:
            output(["podman", "healthcheck", "run", self.container(service)])
        except LabError:
            return False
        return True

    def inspect(self, service: str) -> Any:
        """What podman knows about the service's container."""
        return json.loads(output(["podman", "container", "inspect", self.container(service)]))[0]

    def execute(self, service: str, *argv: str) -> str:
        """Standard output of a program run in the service's container. LabError when it fails."""
        return output(["podman", "exec", self.container(service), *argv])

    def logs(self, service: str) -> str:
        """Everything the service printed."""
        return output(["sh", "-c", f"podman logs {shlex.quote(self.container(service))} 2>&1"])

    def container(self, service: str) -> str:
        """Name of the service's container."""
        return f"{self.project}_{service}_1"

    def _run(self, *arguments: str) -> None:
        # The lock tells the keeper to wait; what podman leaves running must not inherit it.
        run(
            ["flock", "--close", str(self._lock), *self._compose, *arguments], f"compose {arguments[0]}", self._progress
        )


def leftovers(project: str) -> list[str]:
    """Names of a project's containers, volumes and networks that podman still has."""
    labelled = f"label=io.podman.compose.project={project}"
    listings = (
        ["podman", "ps", "--all", "--format={{.Names}}", "--filter", labelled],
        ["podman", "volume", "ls", "--format={{.Name}}", "--filter", labelled],
        ["podman", "network", "ls", "--format={{.Name}}", "--filter", labelled],
    )
    return [name for listing in listings for name in output(listing).split()]


_DOWN = ("down", "--volumes", "--timeout", "5")
