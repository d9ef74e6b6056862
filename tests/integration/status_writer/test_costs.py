"""What the API server is spared, what it is asked beside patches, and how the writer gets at it in a pod."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from guestwire.jetstream import Bus
from guestwire.snapshot import GuestRef, Kind
from lab.kube_apiserver import KubeApiserver
from lab.nats_server import NatsServer
from lab.process import Daemon

from .conftest import Vmi, Writer, at, eventually, new_number, shows

PATIENCE = 60
REQUIRED = bool(os.environ.get("LAB_REQUIRE") or os.environ.get("CI"))


@asynccontextmanager
async def started(one: Writer) -> AsyncIterator[Writer]:
    """A process that is ready."""
    one.process.start()
    try:
        await eventually(lambda: one.ready, PATIENCE, one.log.read_text())
        yield one
    finally:
        one.process.stop()


async def test_a_restless_guest_costs_a_patch_per_interval(
    kube: KubeApiserver, cluster: str, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """A guest that changes a hundred times a second is written at most once per interval, and shows its last word."""
    vmi = Vmi(kube, bus, GuestRef("default", f"restless-{new_number()}"), cluster).create()
    async with started(Writer(kube, nats_server, tmp_path, CLUSTER=cluster, STATUS__MIN_INTERVAL=1)) as own:
        await vmi.publish(Kind.AGENT, vmi.agent())
        before, began = own.metric("guestwire_status_patches_total"), time.monotonic()
        for number in range(400):
            await vmi.publish(Kind.INTERFACES, at(number))
            await asyncio.sleep(0.01)
        await eventually(lambda: shows(vmi, 399), PATIENCE)
        took = time.monotonic() - began
        patches = own.metric("guestwire_status_patches_total") - before

    assert 2 <= patches <= took + 2


async def test_all_together_keep_to_the_rate(
    kube: KubeApiserver, cluster: str, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """However many VMIs have news at once, one process sends no more patches a second than it is allowed to."""
    rate, many = 5, [Vmi(kube, bus, GuestRef("default", f"crowd-{new_number()}"), cluster).create() for _ in range(25)]
    async with started(Writer(kube, nats_server, tmp_path, CLUSTER=cluster, STATUS__MAX_RATE=rate)) as own:
        for vmi in many:
            await vmi.publish(Kind.AGENT, vmi.agent())
        await eventually(lambda: own.metric("guestwire_status_patches_total") == len(many), PATIENCE)
    moments = [datetime.fromisoformat(record["time"]).timestamp() for record in own.records("patched")]

    assert moments[-1] - moments[0] > (len(many) - rate - 1) / rate - 0.5
    assert all(vmi.condition("AgentConnected") for vmi in many)


def events(vmi: Vmi) -> list[dict[str, Any]]:
    """Kubernetes Events about a VMI."""
    found = vmi.kube.kubectl(
        *("get", "events", "-n", vmi.ref.namespace, "-o", "json"),
        *("--field-selector", f"involvedObject.uid={vmi.uid},involvedObject.kind=VirtualMachineInstance"),
    )
    items: list[dict[str, Any]] = json.loads(found)["items"]
    return sorted(items, key=lambda each: int(each["metadata"]["resourceVersion"]))


async def test_events_about_agents(
    kube: KubeApiserver, cluster: str, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """With the setting, an Event on the VMI for each connect and disconnect; a crash loop is cut off."""
    vmi = Vmi(kube, bus, GuestRef("default", f"eventful-{new_number()}"), cluster).create()
    async with started(
        Writer(kube, nats_server, tmp_path, CLUSTER=cluster, STATUS__EVENTS="true", STATUS__MIN_INTERVAL=0)
    ) as own:
        await vmi.publish(Kind.AGENT, vmi.agent(version="7.2.22"))
        await eventually(lambda: len(events(vmi)) == 1, PATIENCE)
        await vmi.publish(Kind.INTERFACES, at(1))
        await eventually(lambda: shows(vmi, 1), PATIENCE)
        await vmi.publish(Kind.AGENT, vmi.agent(connected=False))
        await eventually(lambda: len(events(vmi)) == 2, PATIENCE)
        told = events(vmi)
        for number in range(12):
            await vmi.publish(Kind.AGENT, vmi.agent(connected=number % 2 == 0))
            await eventually(lambda n=number: bool(vmi.condition("AgentConnected")) == (n % 2 == 0), PATIENCE)  # type: ignore[misc]
        await eventually(lambda: own.metric('guestwire_status_events_total{result="limited"}') == 4, PATIENCE)
        recorded = own.metric('guestwire_status_events_total{result="recorded"}')

    assert [
        ("GuestAgentConnected", "Normal", "Guest agent (7.2.22) connected on host host"),
        ("GuestAgentDisconnected", "Normal", "Guest agent disconnected on host host"),
    ] == [(event["reason"], event["type"], event["message"]) for event in told]
    assert (vmi.ref.name, vmi.uid) == (told[0]["involvedObject"]["name"], told[0]["involvedObject"]["uid"])
    assert 10 == recorded == len(events(vmi))


async def test_events_without_the_right(
    kube: KubeApiserver, cluster: str, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """Events that may not be created are told once and hold nothing up; without the setting nobody asks for any."""
    name = f"mute-{new_number()}"
    kube.kubectl("create", "serviceaccount", name, "-n", "default")
    resource = "--resource=virtualmachineinstances.kubevirt.io"
    kube.kubectl("create", "clusterrole", name, "--verb=get,list,watch,patch", resource)
    kube.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", f"--serviceaccount=default:{name}")
    path = kube.kubeconfig_for(name, "default")
    vmi = Vmi(kube, bus, GuestRef("default", name), cluster).create()
    given = {"STATUS__KUBECONFIG": path, "STATUS__EVENTS": "true"}
    async with started(Writer(kube, nats_server, tmp_path, CLUSTER=cluster, **given)) as own:
        for connected in (True, False, True):
            await vmi.publish(Kind.AGENT, vmi.agent(connected=connected))
            await eventually(lambda c=connected: bool(vmi.condition("AgentConnected")) == c, PATIENCE)  # type: ignore[misc]
        await eventually(lambda: own.metric('guestwire_status_events_total{result="failed"}') == 3, PATIENCE)
    (tmp_path / "without").mkdir()
    async with started(
        Writer(kube, nats_server, tmp_path / "without", CLUSTER=cluster, STATUS__KUBECONFIG=path)
    ) as own_without:
        await vmi.publish(Kind.AGENT, vmi.agent(connected=False))
        await eventually(lambda: not vmi.condition("AgentConnected"), PATIENCE)

    assert [403] == [int(record["error"].split()[2]) for record in own.records("cannot record events")]
    assert [] == own_without.records("cannot record events") == events(vmi)


SECRETS = "/run/secrets/kubernetes.io/serviceaccount"


class InPod(Writer):
    """The process as in a pod: a service account's files where Kubernetes puts them, two variables, no kubeconfig."""

    def __init__(
        self, kube: KubeApiserver, nats_server: NatsServer, directory: Path, files: Path, cluster: str
    ) -> None:
        super().__init__(kube, nats_server, directory, STATUS__KUBECONFIG="", CLUSTER=cluster)
        address = urlsplit(kube.url)
        secrets = shlex.quote(str(files))
        command = (
            f"mount -t tmpfs tmpfs /run && mkdir -p {SECRETS} && mount --bind {secrets} {SECRETS} && exec {{}}"
        ).format(shlex.join([str(Path(sys.executable).with_name("guestwire")), "write-status"]))
        environment = {
            **(self.process._env or {}),
            "KUBERNETES_SERVICE_HOST": str(address.hostname),
            "KUBERNETES_SERVICE_PORT": str(address.port),
        }
        for name in ("KUBECONFIG", "GUESTWIRE_STATUS__KUBECONFIG"):
            environment.pop(name, None)
        self.process = Daemon(["unshare", "--mount", "sh", "-c", command], log=self.log, env=environment)


async def test_in_a_pod(kube: KubeApiserver, cluster: str, nats_server: NatsServer, bus: Bus, tmp_path: Path) -> None:
    """Without a kubeconfig, the service account of the pod does; a token that is exchanged on disk is used at once."""
    may_mount = await asyncio.to_thread(subprocess.call, ["unshare", "--mount", "true"])
    if may_mount != 0 and not REQUIRED:
        pytest.skip("no mount namespaces here")
    name, files = f"pod-{new_number()}", tmp_path / "serviceaccount"
    files.mkdir()
    kube.kubectl("create", "serviceaccount", name, "-n", "default")
    resource = "--resource=virtualmachineinstances.kubevirt.io"
    kube.kubectl("create", "clusterrole", name, "--verb=get,list,watch,patch", resource)
    kube.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", f"--serviceaccount=default:{name}")
    (files / "ca.crt").write_bytes(kube.ca.certificate.read_bytes())
    (files / "namespace").write_text("default")
    (files / "token").write_text(kube.token(name, "default"))
    vmi = Vmi(kube, bus, GuestRef("default", name), cluster).create()
    async with started(InPod(kube, nats_server, tmp_path, files, cluster)) as own:
        await vmi.publish(Kind.AGENT, vmi.agent())
        await eventually(lambda: vmi.condition("AgentConnected"), PATIENCE)
        kube.kubectl("delete", "serviceaccount", name, "-n", "default")
        kube.kubectl("create", "serviceaccount", name, "-n", "default")
        (files / "token").write_text(kube.token(name, "default"))
        refused = "the API server refuses the credentials, reading them again"
        number = 0
        for number in range(PATIENCE):
            await vmi.publish(Kind.INTERFACES, at(number))
            await asyncio.sleep(1)
            if own.records(refused):
                break
        await eventually(lambda: shows(vmi, number), PATIENCE)
