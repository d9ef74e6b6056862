"""Images, built once per session (what is built already takes seconds), and compose.yaml running in a whole world."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest
import yaml

from lab import container_images
from lab.build import LabParts
from lab.containers import Compose
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.kube_build import KubeBinaries
from lab.paths import cache_dir
from lab.process import free_port
from lab.world import World

ACCOUNT = 10001
"""The status writer's, by default."""


@pytest.fixture(scope="session")
def images() -> None:
    """
    The lab's images, up to date with the sources. A machine that cannot have containers skips, where
    LAB_REQUIRE and CI are not set; a build that fails is a failure everywhere.
    """
    if (reason := container_images.missing()) is not None:
        if os.environ.get("LAB_REQUIRE") or os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    container_images.build(cache_dir(), print)


@pytest.fixture(scope="module")
def world(images: None, image: GuestImage, kube_binaries: KubeBinaries) -> Iterator[World]:
    """A host and a cluster."""
    with World(LabParts(image, kube_binaries)) as world:
        yield world


@pytest.fixture(scope="module")
def guest(world: World) -> Iterator[Guest]:
    """A guest with its agent connected, and the VMI it belongs to."""
    with world.guest(name="web", uid=world.create_vmi("default", "web")) as machine:
        machine.wait_agent()
        yield machine


@pytest.fixture(scope="module")
def api_port() -> int:
    """Where the API is published."""
    return free_port()


@pytest.fixture(scope="module")
def pipeline(world: World, guest: Guest, api_port: int) -> Iterator[Compose]:
    """All services of compose.yaml beside a host with one guest; the status writer comes last."""
    owner = world.host.socket.stat()
    kubeconfig = world.directory / "kubeconfig-for-containers"
    variables = {
        "LIBVIRT_UID": str(owner.st_uid),  # a session daemon's socket is for its own account alone
        "LIBVIRT_GID": str(owner.st_gid),
        "LIBVIRT_SOCKET_DIR": str(world.host.socket.parent),
        "LIBVIRT_URI": f"qemu+unix:///session?socket=/run/libvirt/{world.host.socket.name}",
        "API_PORT": str(api_port),
        "KUBECONFIG_FILE": str(kubeconfig),
    }
    with Compose(variables, profiles=["kubernetes", "export"], progress=print) as compose:
        compose.up("nats", "collector", "api", "export")
        networks = compose.inspect("api")["NetworkSettings"]["Networks"]
        gateway = next(iter(networks.values()))["Gateway"]
        with Relay(gateway, _port_of(world.cluster.kubeconfig)) as relay:
            _write_kubeconfig(kubeconfig, world.cluster.kubeconfig, f"https://{gateway}:{relay.port}")
            compose.up("status-writer")
            yield compose
        for service in ("nats", "collector", "api", "export", "status-writer"):
            print(compose.logs(service))


class Relay(ThreadingTCPServer):
    """Lets containers reach a port of 127.0.0.1, at `port` of an address of the host that they can reach."""

    daemon_threads = True

    def __init__(self, address: str, target: int) -> None:
        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", target)) as upstream:
                    threading.Thread(target=_copy, args=(upstream, self.request), daemon=True).start()
                    _copy(self.request, upstream)

        super().__init__((address, 0), Handler)
        self.port = int(self.server_address[1])
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def server_close(self) -> None:
        """End it, at the end of a `with` block too."""
        self.shutdown()
        super().server_close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _port_of(kubeconfig: Path) -> int:
    server = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    return int(server.rpartition(":")[2])


def _write_kubeconfig(path: Path, original: Path, server: str) -> None:
    """The administrator's kubeconfig for another way to the same server, for the status writer's account alone."""
    config = yaml.safe_load(original.read_text())
    config["clusters"][0]["cluster"] |= {"server": server, "tls-server-name": "localhost"}
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    os.chown(path, ACCOUNT, ACCOUNT)
