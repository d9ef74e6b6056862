"""The manifests as text: settings that exist, probes that meet a listener, policies that mean a workload."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from guestwire import settings
from guestwire.settings import Settings
from lab.containers import COMPOSE_FILE

from .conftest import Build, Manifest, container, environment, named, workloads

pytestmark = pytest.mark.lab

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
LISTENERS = {
    "collect": lambda made: made.collect.health,
    "write-status": lambda made: made.status.health,
    "serve": lambda made: made.api.listen,
    "export": lambda made: made.export.health,
}
LONGEST_SOCKET_PATH = 107


def stages(objects: list[Manifest]) -> list[Manifest]:
    """The workloads that run a stage of the pipeline."""
    return [each for each in workloads(objects) if container(each)["args"][0] in LISTENERS]


def effective(workload: Manifest, objects: list[Manifest]) -> Settings:
    """The settings that a stage's environment makes; an unknown name would raise."""
    made = {name: value for name, value in environment(workload, objects).items() if name != "POD_NAME"}
    assert [] == [name for name in made if not name.startswith(settings.PREFIX)]
    return settings.load(environ=made).settings


def test_settings(build: Build, overlay: str) -> None:
    """Every stage's environment is made of settings that exist, and leads to the NATS service of the overlay."""
    objects = build(overlay)
    service = named(objects, "Service", "nats")
    (port,) = service["spec"]["ports"]
    address = f"nats://{service['metadata']['name']}.{service['metadata']['namespace']}:{port['port']}"

    assert 3 == len(stages(objects))
    assert {(address,)} == {effective(each, objects).nats.servers for each in stages(objects)}


def test_probes_ask_where_the_stage_listens(build: Build, overlay: str) -> None:
    """Probes go to the health pages, on the port that the settings name, on every address of the pod."""
    objects = build(overlay)
    found: list[Any] = []
    for workload in stages(objects):
        ((port),) = container(workload)["ports"]
        listen = LISTENERS[container(workload)["args"][0]](effective(workload, objects))
        assert f"0.0.0.0:{port['containerPort']}" == listen
        found += [
            (container(workload)[f"{probe}Probe"]["httpGet"], port["name"])
            for probe in ("startup", "liveness", "readiness")
        ]

    paths = ["/healthz", "/healthz", "/readyz"] * 3
    assert [({"path": path, "port": port}, port) for path, (_, port) in zip(paths, found, strict=True)] == found


def test_images(build: Build, overlay: str) -> None:
    """The images are those that compose.yaml builds and names."""
    services = yaml.safe_load(COMPOSE_FILE.read_text())["services"].values()
    known = {re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["image"]) for service in services}

    assert set() == {container(each)["image"] for each in workloads(build(overlay))} - known


def test_no_process_is_killed_before_it_gives_up(build: Build, overlay: str) -> None:
    """A stage that cannot end by itself ends itself after twice its grace; the node waits longer than that."""
    objects = build(overlay)
    for workload in stages(objects):
        patience = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert 2 * effective(workload, objects).shutdown_grace < patience


def test_locked_in(build: Build, overlay: str) -> None:
    """Nobody writes to the image, gains a right or runs unconfined; only what reads a node runs as root."""
    objects = build(overlay)
    for workload in workloads(objects):
        pod, only = workload["spec"]["template"]["spec"], container(workload)
        on_node = workload["metadata"]["namespace"] == "guestwire-node"
        held = only["securityContext"]
        assert {"type": "RuntimeDefault"} == pod["securityContext"]["seccompProfile"]
        assert (True, False) == (held["readOnlyRootFilesystem"], held["allowPrivilegeEscalation"])
        assert ["ALL"] == held["capabilities"]["drop"]
        assert (0 if on_node else 10001) == pod["securityContext"]["runAsUser"]
        assert {"cpu", "memory"} == set(only["resources"]["requests"])
        assert {"memory"} == set(only["resources"]["limits"])
        assert [] == [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]


def test_only_the_status_writer_holds_a_token(build: Build, overlay: str) -> None:
    """The one workload that talks to the API server is the one with a token."""
    mounted = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]["automountServiceAccountToken"]
        for each in workloads(build(overlay))
    }

    assert {"status-writer"} == {name for name, mounts in mounted.items() if mounts}


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Whether a matchLabels selector takes these labels."""
    return selector.items() <= labels.items()


def targets(objects: list[Manifest], namespace: str, selector: dict[str, str]) -> list[str]:
    """Names of the workloads of a namespace whose pods a selector takes."""
    return [
        each["metadata"]["name"]
        for each in workloads(objects)
        if each["metadata"]["namespace"] == namespace
        and selects(selector, each["spec"]["template"]["metadata"]["labels"])
    ]


def test_budgets_and_services_mean_one_workload(build: Build, overlay: str) -> None:
    """A disruption budget covers the workload of its name, and a service leads to a port of one workload."""
    objects = build(overlay)
    for each in objects:
        place = each["metadata"].get("namespace", "")
        if each["kind"] == "PodDisruptionBudget":
            assert [each["metadata"]["name"]] == targets(objects, place, each["spec"]["selector"]["matchLabels"])
        if each["kind"] == "Service":
            (name,) = targets(objects, place, each["spec"]["selector"])
            (workload,) = [found for found in workloads(objects) if found["metadata"]["name"] == name]
            ports = {port["name"] for port in container(workload)["ports"]}
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports


def policies(objects: list[Manifest], workload: Manifest, direction: str) -> list[Manifest]:
    """Rules of one direction of all network policies that take a workload's pods."""
    labels = workload["spec"]["template"]["metadata"]["labels"]
    return [
        rule
        for each in objects
        if each["kind"] == "NetworkPolicy" and each["metadata"]["namespace"] == workload["metadata"]["namespace"]
        if selects(each["spec"]["podSelector"].get("matchLabels", {}), labels)
        for rule in each["spec"].get(direction, [])
    ]


def test_every_namespace_denies_by_default(build: Build, overlay: str) -> None:
    """In each namespace of ours a policy for all pods lets nothing in or out."""
    objects = build(overlay)
    closed = {
        each["metadata"]["namespace"]
        for each in objects
        if each["kind"] == "NetworkPolicy" and {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} == each["spec"]
    }

    assert {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"} == closed


def test_every_stage_reaches_nats(build: Build, overlay: str) -> None:
    """Policies let each stage out to NATS, and let NATS take each stage in."""
    objects = build(overlay)
    ingress = policies(objects, named(objects, "StatefulSet", "nats"), "ingress")
    for workload in stages(objects):
        labels, place = workload["spec"]["template"]["metadata"]["labels"], workload["metadata"]["namespace"]
        out = [
            rule for rule in policies(objects, workload, "egress") if {"protocol": "TCP", "port": 4222} in rule["ports"]
        ]
        taken = [
            peer
            for rule in ingress
            if {"protocol": "TCP", "port": "client"} in rule["ports"]
            for peer in rule["from"]
            if selects(peer.get("podSelector", {}).get("matchLabels", {}), labels)
            and selects(
                peer.get("namespaceSelector", {}).get("matchLabels", {"kubernetes.io/metadata.name": "guestwire"}),
                {"kubernetes.io/metadata.name": place},
            )
        ]
        assert (1, 1) == (len(out), len(taken)), workload["metadata"]


def test_no_policy_takes_everybody_in(build: Build, overlay: str) -> None:
    """Every ingress rule names who may come and to which port."""
    for each in build(overlay):
        if each["kind"] == "NetworkPolicy":
            for rule in each["spec"].get("ingress", []):
                assert {"from", "ports"} == set(rule)
                assert [] == [peer for peer in rule["from"] if not all(any(peer[key].values()) for key in peer)]


def test_copies_need_servers(build: Build, overlay: str) -> None:
    """Each overlay keeps as many copies of a message as it has NATS servers, and the peers are those servers."""
    objects = build(overlay)
    nats = named(objects, "StatefulSet", "nats")
    (conf,) = [each["data"]["nats.conf"] for each in objects if "nats.conf" in each.get("data", {})]
    replicas = nats["spec"]["replicas"]
    peers = [f"nats-{number}.{nats['spec']['serviceName']}.guestwire.svc:6222" for number in range(replicas)]

    assert {replicas} == {effective(each, objects).nats.replicas for each in stages(objects)}
    assert (peers if replicas > 1 else []) == re.findall(r"nats://(\S+:6222)", conf)


def test_launcher_sockets_fit(build: Build) -> None:
    """The path of a virt-launcher's socket, as the collector sees it, is short enough for a Unix socket."""
    objects = build("kubevirt")
    collector = named(objects, "DaemonSet", "collector")
    (pattern,) = effective(collector, objects).libvirt.sockets
    (mount,) = [each for each in container(collector)["volumeMounts"] if each["name"] == "pods"]

    assert pattern.startswith(f"{mount['mountPath']}/")
    assert len(pattern.replace("*", UID)) <= LONGEST_SOCKET_PATH
