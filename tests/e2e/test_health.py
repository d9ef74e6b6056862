"""Every process tells how it is, and ends within its grace whatever its guests do."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries
from lab.libvirtd import Libvirtd
from lab.nats_server import NatsServer
from lab.process import free_port

GUESTWIRE = Path(sys.executable).with_name("guestwire")
GRACE = 8.0
Eventually = Callable[..., Awaitable[float]]


@pytest.fixture(scope="module")
def kube(kube_binaries: KubeBinaries, directory: Path) -> Iterator[KubeApiserver]:
    """An API server with VMIs."""
    with KubeApiserver(kube_binaries, directory / "kube") as server:
        server.install_crd()
        yield server


class Process:
    """One command of the pipeline, and its pages."""

    def __init__(self, command: str, setting: str, **settings: object) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        given = {setting: self.address, "SHUTDOWN_GRACE": GRACE, "LOG__FORMAT": "json", **settings}
        plain = {name: value for name, value in os.environ.items() if not name.startswith("GUESTWIRE_")}
        env = {**plain, **{f"GUESTWIRE_{name}": str(value) for name, value in given.items()}}
        self.process = subprocess.Popen([GUESTWIRE, command], env=env, stderr=subprocess.DEVNULL)

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

    def end(self) -> tuple[int, float]:
        """SIGTERM; the exit status, and how long it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(4 * GRACE), time.monotonic() - began


@pytest.mark.parametrize(
    ("command", "setting", "metric"),
    [
        ("collect", "COLLECT__HEALTH", "guestwire_collector_host_connected"),
        ("write-status", "STATUS__HEALTH", "guestwire_status"),
        ("serve", "API__LISTEN", "guestwire_api"),
    ],
)
async def test_pages(
    command: str, setting: str, metric: str, nats_server: NatsServer, host: Libvirtd, kube: KubeApiserver,
    eventually: Eventually,
) -> None:  # fmt: skip
    """Alive from the start, not ready while something is missing, ready when it is there, with metrics."""
    nats_server.stop()
    one = Process(
        command, setting, NATS__SERVERS=nats_server.url, LIBVIRT__URIS=host.uri, STATUS__KUBECONFIG=kube.kubeconfig
    )
    try:
        await eventually(lambda: one.get("/healthz")[0] == 200)
        status, text = one.get("/readyz")
        assert 503 == status
        assert "not" in text
        nats_server.start()
        collector = Process("collect", "COLLECT__HEALTH", NATS__SERVERS=nats_server.url, LIBVIRT__URIS=host.uri)
        await eventually(lambda: one.get("/readyz")[0] == 200, within=30)
        assert metric in one.get("/metrics")[1]
        assert 404 == one.get("/nowhere")[0]
        assert 0 == collector.end()[0]
    finally:
        status, seconds = one.end()
    assert 0 == status
    assert seconds < GRACE


async def test_hung_agent_does_not_hold_the_process(
    nats_server: NatsServer, host: Libvirtd, image: GuestImage, eventually: Eventually
) -> None:
    """A collector that waits for a hung agent ends within its grace all the same."""
    with Guest(host, image, name="hung") as guest:
        guest.wait_agent()
        one = Process(
            "collect", "COLLECT__HEALTH", NATS__SERVERS=nats_server.url, LIBVIRT__URIS=host.uri, COLLECT__USERS=0.2
        )
        await eventually(lambda: one.get("/readyz")[0] == 200)
        guest.control("agent", "hang")
        await eventually(lambda: _in_flight(one) == 1, within=20)
        await asyncio.sleep(0.5)
        status, seconds = one.end()

    assert 0 == status
    assert seconds < GRACE


def _in_flight(one: Process) -> float:
    lines = one.get("/metrics")[1].splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("guestwire_collector_commands_in_flight{"))
