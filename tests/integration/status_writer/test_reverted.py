"""KubeVirt's webhook takes back every change of status that is not KubeVirt's: noticed, told, and solved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from guestwire.jetstream import Bus
from guestwire.snapshot import GuestRef, Kind
from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries
from lab.nats_server import NatsServer
from status_writer.effect import ATTEMPTS

from . import kubevirt_webhook
from .conftest import Vmi, Writer, eventually
from .kubevirt_webhook import CONTROLLER

PATIENCE = 60
CHANGE = '{"status": {"marked": true}}'
RIGHTS = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: kubevirt}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: writer, namespace: default}}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: Role
  metadata: {name: act-as-controller, namespace: kubevirt}
  rules:
  - {apiGroups: [""], resources: [serviceaccounts], resourceNames: [kubevirt-controller], verbs: [impersonate]}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: RoleBinding
  metadata: {name: act-as-controller, namespace: kubevirt}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: act-as-controller}
  subjects: [{kind: ServiceAccount, name: writer, namespace: default}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRole
  metadata: {name: kubevirt-controller}
  rules: [{apiGroups: [kubevirt.io], resources: [virtualmachineinstances], verbs: [get, list, watch, patch]}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: kubevirt-controller}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kubevirt-controller}
  subjects: [{kind: ServiceAccount, name: kubevirt-controller, namespace: kubevirt}]
"""


@pytest.fixture(scope="module")
def kubevirt(kube_binaries: KubeBinaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiserver]:
    """An API server with KubeVirt's webhook."""
    directory = tmp_path_factory.mktemp("kubevirt")
    with KubeApiserver(kube_binaries, directory / "kube") as server:
        server.install_crd()
        server.apply(RIGHTS)
        with kubevirt_webhook.installed(server, directory):
            yield server


async def reverting(vmi: Vmi) -> None:
    """Until the webhook takes effect."""

    def reverts() -> bool:
        vmi.merge_patch(json.loads(CHANGE))
        return "marked" not in vmi.status

    await eventually(reverts, PATIENCE)


async def test_patches_without_effect(
    kubevirt: KubeApiserver, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """
    It tells that patches come to nothing: one line with the remedy, a counter, readiness; it stops trying without news;
    and it is well again, by itself, when the cluster is.
    """
    vmi = Vmi(kubevirt, bus, GuestRef("default", "reverted")).create()
    await reverting(vmi)
    before = vmi.status
    own = Writer(kubevirt, nats_server, tmp_path)
    own.process.start()
    try:
        await vmi.publish(Kind.AGENT, vmi.agent())
        await eventually(lambda: "patches have no effect" in own.get("/readyz")[1], PATIENCE)
        alive = own.get("/healthz")[0]
        await eventually(lambda: own.metric("guestwire_status_no_effect_total") == ATTEMPTS, 3 * PATIENCE)
        await eventually(
            lambda: own.metric("guestwire_status_pending") == 0, PATIENCE, "it has another attempt in mind"
        )
        after = vmi.status
        kubevirt.kubectl("delete", "mutatingwebhookconfiguration", "virt-api-mutator")
        vmi.merge_patch({"status": {"phase": "Running", "fsFreezeStatus": "frozen"}})
        await vmi.publish(Kind.AGENT, vmi.agent(frozen=False))
        await eventually(lambda: own.ready, PATIENCE)
        await eventually(lambda: vmi.condition("AgentConnected"), PATIENCE)
    finally:
        own.process.stop()

    told = [record for record in own.records() if record["level"] in {"warning", "error"}]
    assert before == after
    assert 200 == alive
    assert ["the API server takes patches and keeps its own status"] == [record["event"] for record in told]
    assert "status.impersonate_user" in told[0]["hint"]
    assert own.records("patches have an effect again")


async def test_impersonation_solves_it(
    kubevirt: KubeApiserver, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """Acting as KubeVirt's controller, with no other right than that, its patches stay."""
    vmi = Vmi(kubevirt, bus, GuestRef("default", "impersonated")).create()
    with kubevirt_webhook.installed(kubevirt, tmp_path):
        await reverting(vmi)
        account = {
            "STATUS__KUBECONFIG": kubevirt.kubeconfig_for("writer", "default"),
            "STATUS__IMPERSONATE_USER": CONTROLLER,
        }
        own = Writer(kubevirt, nats_server, tmp_path, **account)
        own.process.start()
        try:
            await vmi.publish(Kind.AGENT, vmi.agent())
            await eventually(lambda: vmi.condition("AgentConnected"), PATIENCE)
            await eventually(lambda: own.ready, PATIENCE)
        finally:
            own.process.stop()

    assert not [record for record in own.records() if record["level"] in {"warning", "error"}]
