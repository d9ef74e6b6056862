"""The API server's own judgement: pods against pod security, policies and budgets as they were stored."""

from __future__ import annotations

import copy
import json

import pytest

from lab.kube_apiserver import KubeApiserver

from .conftest import Build, Manifest, named, pod_of, workloads

pytestmark = pytest.mark.lab

NAMESPACES = {
    "plain": {"guestwire": "restricted"},
    "nodes": {"guestwire": "restricted", "guestwire-node": "privileged"},
    "kubevirt": {"guestwire": "restricted", "guestwire-node": "privileged"},
}
"""Pod security that each namespace enforces."""


def admit(server: KubeApiserver, pod: Manifest) -> str:
    """What the API server says to a pod that it is not to keep, warnings included."""
    return server.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(pod), check=False)


def test_namespaces(server: KubeApiserver, overlay: str) -> None:
    """Only where directories of the node are needed, a namespace allows them."""
    found = json.loads(server.kubectl("get", "namespaces", "-l", "app.kubernetes.io/part-of=guestwire", "-o", "json"))
    enforced = {
        each["metadata"]["name"]: each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for each in found["items"]
    }

    assert NAMESPACES[overlay] == enforced


def test_pods_are_admitted(server: KubeApiserver, build: Build, overlay: str) -> None:
    """The API server takes the pods of every workload into their namespaces, without a warning."""
    for workload in workloads(build(overlay)):
        pod = pod_of(workload)
        assert f"pod/{pod['metadata']['name']} created (server dry run)\n" == admit(server, pod)


def test_accounts_are_there(server: KubeApiserver, build: Build, overlay: str) -> None:
    """Every workload has a service account of its own."""
    for workload in workloads(build(overlay)):
        name, namespace = workload["spec"]["template"]["spec"]["serviceAccountName"], workload["metadata"]["namespace"]
        assert workload["metadata"]["name"] == name
        assert server.kubectl("get", "serviceaccount", name, "-n", namespace, "-o", "name").strip().endswith(name)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hostPID": True}, "hostPID=true"),
        ({"volumes": [{"name": "pods", "hostPath": {"path": "/run/libvirt"}}]}, "hostPath"),
        ({"securityContext": {}}, "runAsNonRoot != true"),
    ],
)
@pytest.mark.parametrize("overlay", ["plain"])
def test_pod_security_is_enforced(server: KubeApiserver, build: Build, change: Manifest, complaint: str) -> None:
    """What a pod of ours does not ask for, nobody gets in that namespace: admission is at work here."""
    pod = copy.deepcopy(pod_of(named(build("plain"), "Deployment", "api")))
    pod["spec"] |= change

    answer = admit(server, pod)

    assert ("forbidden" in answer, complaint in answer) == (True, True), answer


@pytest.mark.parametrize("overlay", ["nodes", "kubevirt"])
def test_node_collector_needs_its_namespace(server: KubeApiserver, build: Build, overlay: str) -> None:
    """The collector on nodes is refused where pod security is restricted, and for what the documentation says."""
    pod = pod_of(named(build(overlay), "DaemonSet", "collector"))
    pod["metadata"]["namespace"] = "guestwire"

    answer = admit(server, pod)

    assert ("forbidden" in answer, "hostPath" in answer) == (True, True), answer
    assert ("DAC_OVERRIDE" in answer) == (overlay == "kubevirt")


def test_stored_as_written(server: KubeApiserver, build: Build, overlay: str) -> None:
    """Policies and budgets are stored by the API server with the very rules of the manifests: none was dropped."""
    wanted = [each for each in build(overlay) if each["kind"] in {"NetworkPolicy", "PodDisruptionBudget"}]
    for each in wanted:
        place = each["metadata"]
        stored = json.loads(server.kubectl("get", each["kind"], place["name"], "-n", place["namespace"], "-o", "json"))
        assert each["spec"] == stored["spec"]

    assert {"NetworkPolicy", "PodDisruptionBudget"} == {each["kind"] for each in wanted}
