"""Pods of the manifests do their work: with their environment, account, capabilities, mounts and token."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from guestwire import codec
from guestwire.jetstream import Bus
from guestwire.settings import Nats
from guestwire.snapshot import AgentState, GuestRef, Kind, Phase
from guestwire.subjects import subject
from lab.errors import LabError
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.kube_apiserver import KubeApiserver
from lab.libvirtd import Libvirtd
from lab.nats_server import NatsServer
from lab.process import free_port
from tests.conftest import part

from .conftest import KUBERNETES, Build, Manifest, Serve, environment, named
from .pod import Pod

pytestmark = pytest.mark.lab

Eventually = Callable[..., Awaitable[float]]
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
NODE, UID = "node-1", "0f8fad5b-d9cb-469f-a165-70867728950e"
LAUNCHER = "volumes/kubernetes.io~empty-dir/libvirt-runtime/virtqemud-sock"


@pytest.fixture(autouse=True)
def root() -> None:
    """A pod's account and mounts are not to be had otherwise."""
    with part("root"):
        if os.geteuid() != 0:
            raise LabError("these tests make mounts")


def answers(address: str, path: str) -> bool:
    """Whether a page is answered with 200."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def standing(pod: Pod) -> dict[str, str]:
    """The account and the capabilities that the kernel knows the process by."""
    lines = (line.split() for line in Path(f"/proc/{pod.pid}/status").read_text().splitlines())
    return {words[0][:-1]: words[1] for words in lines if words[0] in {"Uid:", "CapPrm:", "CapBnd:", "NoNewPrivs:"}}


def on_loopback(
    workload: Manifest, objects: list[Manifest], nats: NatsServer, setting: str
) -> tuple[dict[str, str], str]:
    """A stage's environment, with addresses that this machine has; where it answers probes."""
    address = f"127.0.0.1:{free_port()}"
    here = {"GUESTWIRE_NATS__SERVERS": nats.url, "GUESTWIRE_NATS__REPLICAS": "1", setting: address}
    return {**environment(workload, objects), **here}, address


def token(server: KubeApiserver, directory: Path, account: str) -> Path:
    """What kubelet mounts for a service account."""
    home = directory / "token"
    home.mkdir()
    (home / "token").write_text(server.token(account, "guestwire"))
    (home / "ca.crt").write_bytes(server.ca.certificate.read_bytes())
    (home / "namespace").write_text("guestwire")
    return home


async def publish_agent(bus: Bus, ref: GuestRef, uid: str) -> None:
    """A guest's agent has connected, as a collector says it."""
    now = datetime.now(UTC)
    state = AgentState(
        namespace=ref.namespace,
        name=ref.name,
        uid=uid,
        domain=f"{ref.namespace}_{ref.name}",
        domain_uuid=UID,
        host=NODE,
        phase=Phase.RUNNING,
        channel=True,
        connected=True,
        since=now,
        responsive=True,
    )
    made = codec.part(Kind.AGENT, state, now)
    identity = codec.new_trace_id()
    headers = codec.event_headers(
        ref=ref, uid=uid, cluster="local", host=NODE, part=made, message_id=identity, trace_id=identity
    )
    await bus.js.publish(subject("local", ref, Kind.AGENT), made.body, headers=headers)


@pytest.mark.parametrize("rights", ["own-rights", "impersonation", "constrained-impersonation"])
async def test_status_writer(
    rights: str,
    constrained_overlay: Path,
    serve_overlay: Serve,
    build: Build,
    nats_server: NatsServer,
    bus: Bus,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """With the token of its account, in a cluster that gives it these rights, the pod writes a VMI's status."""
    ours = {name: KUBERNETES / "overlays" / name for name in ("plain", "kubevirt")}
    overlay = {"own-rights": ours["plain"], "impersonation": ours["kubevirt"]}.get(rights, constrained_overlay)
    server, objects = serve_overlay(overlay), build(overlay)
    workload = named(objects, "Deployment", "status-writer")
    manifest = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": rights}}
    text = json.dumps({**manifest, "spec": {}, "status": {"phase": "Running"}})
    made = json.loads(server.kubectl("create", "-n", "default", "-o", "json", "-f", "-", input=text))
    environ, address = on_loopback(workload, objects, nats_server, "GUESTWIRE_STATUS__HEALTH")
    host, _, port = server.url.removeprefix("https://").partition(":")
    environ |= {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}

    def conditions() -> list[str]:
        found = json.loads(server.kubectl("get", "vmi", rights, "-n", "default", "-o", "json"))
        return [each["type"] for each in found["status"].get("conditions", [])]

    with Pod(workload, environ, tmp_path / "pod", volumes={TOKEN: token(server, tmp_path, "status-writer")}) as pod:
        pod.ready(lambda: answers(address, "/readyz"), 60)
        await publish_agent(bus, GuestRef("default", rights), made["metadata"]["uid"])
        await eventually(lambda: conditions() == ["AgentConnected"], 60, "no condition")


async def test_api(build: Build, nats_server: NatsServer, bus: Bus, tmp_path: Path, eventually: Eventually) -> None:
    """The pod answers from what is on the bus, as an account that may nothing."""
    objects = build("plain")
    workload = named(objects, "Deployment", "api")
    environ, address = on_loopback(workload, objects, nats_server, "GUESTWIRE_API__LISTEN")
    path = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/web/guestosinfo"
    with Pod(workload, environ, tmp_path / "pod") as pod:
        pod.ready(lambda: answers(address, "/readyz"), 60)
        before, held = answers(address, path), standing(pod)
        await publish_agent(bus, GuestRef("default", "web"), UID)
        await eventually(lambda: answers(address, path), 60, "not served")

    assert not before
    assert {"Uid": "10001", "CapPrm": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1"} == held


@pytest.fixture
def launcher(host: Libvirtd, directory: Path) -> Iterator[Path]:
    """A node's /var/lib/kubelet/pods with one virt-launcher: kubelet's directories, and a socket of another account."""
    pods = directory / "pods"
    socket = pods / UID / LAUNCHER
    socket.parent.mkdir(parents=True, exist_ok=True)
    (pods / UID).chmod(0o750)
    os.link(host.socket, socket)
    socket.chmod(0o700)
    yield pods
    host.socket.chmod(0o777)
    socket.unlink()


def collector(build: Build, pods: Path, nats: NatsServer, directory: Path, **changes: Any) -> tuple[Pod, str]:
    """KubeVirt's collector on this node; where it answers probes."""
    objects = build("kubevirt")
    workload = named(objects, "DaemonSet", "collector")
    environ, address = on_loopback(workload, objects, nats, "GUESTWIRE_COLLECT__HEALTH")
    environ["GUESTWIRE_COLLECT__HOST"] = NODE
    return Pod(workload, environ, directory, volumes={"/pods": pods}, **changes), address


async def test_collector_reads_virt_launchers(
    launcher: Path,
    host: Libvirtd,
    image: GuestImage,
    build: Build,
    nats_server: NatsServer,
    bus: Bus,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """The pod finds the daemon of a virt-launcher on its node, and publishes its guest as one of this node."""
    heard: dict[str, dict[str, str]] = {}
    subscription = await bus.client.subscribe("guestwire.v1.local.default.vmi.*")
    pod, address = collector(build, launcher, nats_server, tmp_path / "pod")

    async def listen() -> None:
        async for message in subscription.messages:
            heard[message.subject.rpartition(".")[2]] = json.loads(message.data)

    with Guest(host, image, name="vmi"), pod:
        listening = asyncio.create_task(listen())
        pod.ready(lambda: answers(address, "/readyz"), 60)
        await eventually(lambda: {"agent", "guestosinfo"} <= set(heard), 120, "nothing was published")
        await subscription.unsubscribe()
        await listening

    assert NODE == heard["agent"]["host"]


def test_collector_needs_its_capability(launcher: Path, build: Build, nats_server: NatsServer, tmp_path: Path) -> None:
    """Without the one capability that it is given, the pod finds the socket and may not connect: it is not for show."""
    pod, _ = collector(build, launcher, nats_server, tmp_path / "pod", capabilities=())
    with pod:
        pod.ready(lambda: f"{LAUNCHER}': Permission denied" in pod.log.read_text(), 60)


@contextmanager
def servers(build: Build, overlay: str, directory: Path) -> Iterator[list[str]]:
    """NATS as the overlay has it, each server on a loopback address of its own; these addresses."""
    objects = build(overlay)
    workload = named(objects, "StatefulSet", "nats")
    (config,) = [each["data"] for each in objects if each["kind"] == "ConfigMap" and "nats.conf" in each["data"]]
    files = directory / "config"
    files.mkdir()
    (files / "nats.conf").write_text(config["nats.conf"])
    addresses = [f"127.0.0.{11 + number}" for number in range(workload["spec"]["replicas"])]
    hosts = directory / "hosts"
    hosts.write_text("".join(f"{each} nats-{n}.nats-peers.guestwire.svc\n" for n, each in enumerate(addresses)))
    pods = []
    for number, address in enumerate(addresses):
        here = ["--addr", address] + (["--cluster_listen", f"nats://{address}:6222"] if len(addresses) > 1 else [])
        volumes = {"/etc/nats": files, "/etc/hosts": hosts}
        name = f"nats-{number}"
        pods.append(Pod(workload, {"POD_NAME": name}, directory / name, volumes=volumes, arguments=tuple(here)))
    try:
        for pod in pods:
            pod.start()
        yield addresses
    finally:
        for pod in pods:
            pod.stop()


@pytest.mark.parametrize(("overlay", "replicas"), [("plain", 1), ("kubevirt", 3)])
async def test_nats(overlay: str, replicas: int, build: Build, tmp_path: Path, eventually: Eventually) -> None:
    """The servers come up by their configuration, answer all their probes, and keep as many copies as they are."""
    objects = build(overlay)
    container = named(objects, "StatefulSet", "nats")["spec"]["template"]["spec"]["containers"][0]
    probes = [container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")]
    with servers(build, overlay, tmp_path) as addresses:
        assert replicas == len(addresses)
        for address in addresses:
            for path in probes:
                await eventually(lambda at=f"{address}:8222", path=path: answers(at, path), 60, f"{address} {path}")
        async with Bus(Nats(servers=(f"nats://{addresses[0]}:4222",), replicas=replicas), "test") as bus:
            assert await bus.ensure_stream_patiently(asyncio.Event())
            info = await bus.js.stream_info("GUESTWIRE")
            assert replicas == info.config.num_replicas
            await publish_agent(bus, GuestRef("default", "web"), UID)
            assert {"agent"} == set(await bus.last("local", GuestRef("default", "web")))
