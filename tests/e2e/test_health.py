"""Every process tells how it is, and ends within its grace whatever its guests do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries
from lab.libvirtd import Libvirtd
from lab.nats_server import NatsServer
from tests.stage import GRACE, Stage

Eventually = Callable[..., Awaitable[float]]


@pytest.fixture(scope="module")
def kube(kube_binaries: KubeBinaries, directory: Path) -> Iterator[KubeApiserver]:
    """An API server with VMIs."""
    with KubeApiserver(kube_binaries, directory / "kube") as server:
        server.install_crd()
        yield server


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
    servers = {"NATS__SERVERS": nats_server.url, "LIBVIRT__URIS": host.uri}
    one = Stage(command, listens=setting, STATUS__KUBECONFIG=kube.kubeconfig, **servers)
    try:
        await eventually(lambda: one.get("/healthz")[0] == 200)
        status, text = one.get("/readyz")
        assert 503 == status
        assert "not" in text
        nats_server.start()
        collector = Stage("collect", listens="COLLECT__HEALTH", **servers)
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
        servers = {"NATS__SERVERS": nats_server.url, "LIBVIRT__URIS": host.uri}
        one = Stage("collect", listens="COLLECT__HEALTH", COLLECT__USERS=0.2, **servers)
        await eventually(lambda: one.get("/readyz")[0] == 200)
        guest.control("agent", "hang")
        await eventually(lambda: one.metric("guestwire_collector_commands_in_flight") == 1, within=20)
        await asyncio.sleep(0.5)
        status, seconds = one.end()

    assert 0 == status
    assert seconds < GRACE
