"""nginx, unpacked and never installed: a yardstick for the API's reads, and a load balancer in front of its replicas.

It is what the packages of Debian make of it: whatever a configuration here does not say, is as it comes.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from lab.part import Part
from lab.process import Daemon, free_port
from lab.unpacked import unpacked

START_SECONDS = 20.0
NAME = "replicas"
"""Of those that a balancer hands requests to."""

CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {http}
    server {{
        listen 127.0.0.1:{port};
        {server}
    }}
}}
"""
"""One process, so that none is left behind when it is killed."""


class Nginx(Part):
    """One server on 127.0.0.1.

    Args:
        home: Its directory; made when missing.
        server: What its server block says besides the address.
        http: What stands beside that block.
        wrapper: A command that runs the program, e.g. `taskset -c 0`.

    Attributes:
        port: Where it listens.
        url: The same as an address.
    """

    def __init__(self, home: Path, server: str, http: str = "", *, wrapper: Sequence[str] = ()) -> None:
        (program,) = unpacked("nginx", "nginx")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        home.mkdir(parents=True, exist_ok=True)
        configuration = home / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(port=self.port, server=server, http=http))
        argv: list[str | Path] = [*wrapper, program, "-p", home, "-c", configuration, "-e", "stderr"]
        self.process = Daemon(argv, log=home / "nginx.log")

    def start(self) -> None:
        """Return when it answers. Raises LabError."""
        self.process.start()
        self.process.ready(self._answers, START_SECONDS)

    def stop(self) -> None:
        """End it."""
        self.process.stop()

    def __repr__(self) -> str:
        return f"<Nginx {self.url} {'running' if self.process.alive else 'stopped'}>"

    def _answers(self) -> bool:
        """Whether somebody speaks HTTP there, be it an error."""
        try:
            with urllib.request.urlopen(f"{self.url}/", timeout=1):  # noqa: S310 - loopback
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return True
        except OSError:
            return False


def balancer(home: Path, ports: Sequence[int], *, tuned: bool = False) -> Nginx:
    """
    One that hands requests to these ports of 127.0.0.1 in turn. `tuned` as docs/deployment.md has it: connections to
    them are kept, and who is not ready is passed over.
    """
    # As nginx comes, it asks them under the name of the upstream.
    servers = " ".join(f"server 127.0.0.1:{port};" for port in ports)
    more = "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_next_upstream error timeout http_503;"
    more += " proxy_read_timeout 2m;"
    told = "add_header X-Replica $upstream_addr always;"
    location = f"location / {{ proxy_pass http://{NAME}; {told} {more if tuned else ''} }}"
    return Nginx(home, location, f"upstream {NAME} {{ {servers} {'keepalive 16;' if tuned else ''} }}")
