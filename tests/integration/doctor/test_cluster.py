"""Clusters that are away, know no VMIs, or give no rights; and that what is advised gives them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries

from .conftest import examine

pytestmark = pytest.mark.lab

MANIFESTS = Path(__file__).parents[3] / "deploy/kubernetes"
CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
MUTATOR = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingWebhookConfiguration",
    "metadata": {"name": "virt-api-mutator"},
    "webhooks": [
        {
            "name": "virtualmachineinstances-mutator.kubevirt.io",
            "clientConfig": {"service": {"namespace": "kubevirt", "name": "virt-api"}},
            "rules": [
                {
                    "apiGroups": ["kubevirt.io"],
                    "apiVersions": ["v1"],
                    "operations": ["UPDATE"],
                    "resources": ["virtualmachineinstances"],
                }
            ],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
        }
    ],
}
"""As KubeVirt's operator makes it."""


@pytest.fixture
def webhook(kube: KubeApiserver) -> Iterator[None]:
    """KubeVirt's webhook is configured."""
    kube.apply(json.dumps(MUTATOR))
    yield
    kube.kubectl("delete", "mutatingwebhookconfiguration", "virt-api-mutator")


def test_no_kubeconfig() -> None:
    """Without a kubeconfig there is nothing to check, and no problem."""
    assert ["skipped"] == examine().outcomes("cluster")


def test_missing_kubeconfig() -> None:
    """A kubeconfig that was named and is not there is a problem."""
    assert "/nowhere/config" in examine(STATUS__KUBECONFIG="/nowhere/config").problem("cluster")[0]


def test_broken_kubeconfig(tmp_path: Path) -> None:
    """A kubeconfig that makes no sense is told in one line."""
    (tmp_path / "config").write_text("clusters: 7\n")

    assert str(tmp_path / "config") in examine(STATUS__KUBECONFIG=tmp_path / "config").problem("cluster")[0]


def test_good_cluster(kube: KubeApiserver) -> None:
    """An administrator may do everything; who it is and the version are told."""
    found = examine(STATUS__KUBECONFIG=kube.kubeconfig)

    assert ["ok", "ok"] == found.outcomes("cluster")
    assert "as lab-admin" in found.of("cluster")[0]["text"]


def test_missing_rights(kube: KubeApiserver) -> None:
    """Every right that is missing is named; the advised commands give them."""
    kubeconfig = kube.kubeconfig_for("writer", "default")
    found = examine(STATUS__KUBECONFIG=kubeconfig)
    text, advice = found.problem("cluster")
    for line in advice.splitlines():
        kube.kubectl(*shlex.split(line)[1:])
    after = examine(STATUS__KUBECONFIG=kubeconfig)
    kube.kubectl("delete", "clusterrolebinding,clusterrole", "guestwire")

    assert "system:serviceaccount:default:writer may not get, list, watch, patch VMIs in every namespace" == text
    assert 1 == found.status
    assert ["ok", "ok"] == after.outcomes("cluster")


def test_missing_right_to_impersonate(kube: KubeApiserver) -> None:
    """Acting as somebody else is a right of its own."""
    found = examine(STATUS__KUBECONFIG=kube.kubeconfig_for("writer", "default"), STATUS__IMPERSONATE_USER=CONTROLLER)
    text, advice = found.problem("cluster")

    assert f"may not act as {CONTROLLER}" == text
    assert "impersonate on serviceaccounts kubevirt-controller" in advice


def test_constrained_impersonation(kube: KubeApiserver, tmp_path: Path) -> None:
    """The right to act as somebody in the writer's own requests only, as the manifests give it, is enough."""
    kubeconfig = kube.kubeconfig_for("writer", "default")
    account = "{kind: ServiceAccount, name: status-writer, namespace: guestwire}"
    rights = (MANIFESTS / "components/constrained-impersonation/rights.yaml").read_text()
    file = tmp_path / "rights.yaml"
    file.write_text(rights.replace(account, "{kind: ServiceAccount, name: writer, namespace: default}"))
    assert account in rights
    kube.kubectl("create", "namespace", "kubevirt")
    kube.kubectl("apply", "-f", str(file))
    found = examine(STATUS__KUBECONFIG=kubeconfig, STATUS__IMPERSONATE_USER=CONTROLLER)
    kube.kubectl("delete", "-f", str(file))

    assert ["ok", "ok", "problem"] == found.outcomes("cluster")
    assert found.problem("cluster")[0].startswith(f"{CONTROLLER} may not get")


def test_rights_of_the_impersonated(kube: KubeApiserver) -> None:
    """With somebody to act as, it is that one's rights which count."""
    found = examine(STATUS__KUBECONFIG=kube.kubeconfig, STATUS__IMPERSONATE_USER=CONTROLLER)

    assert ["ok", "ok", "problem"] == found.outcomes("cluster")
    assert found.problem("cluster")[0].startswith(f"{CONTROLLER} may not get")


@pytest.mark.usefixtures("webhook")
def test_kubevirt_undoes_changes(kube: KubeApiserver) -> None:
    """Where KubeVirt is, its webhook is told of, and the setting that it lets pass; with that it is silent."""
    before = examine(STATUS__KUBECONFIG=kube.kubeconfig)
    after = examine(STATUS__KUBECONFIG=kube.kubeconfig, STATUS__IMPERSONATE_USER=CONTROLLER)

    assert "KubeVirt's webhook undoes every change of status by lab-admin" in before.problem("cluster")[0]
    assert f"GUESTWIRE_STATUS__IMPERSONATE_USER={CONTROLLER}" in before.problem("cluster")[1]
    assert [] == [each for each in after.of("cluster") if "webhook" in each["text"]]


def test_status_subresource(kube: KubeApiserver) -> None:
    """Where the status is a subresource, the right to patch that one is asked for and advised."""
    kube.install_crd("status-subresource")
    _, advice = examine(STATUS__KUBECONFIG=kube.kubeconfig_for("writer", "default")).problem("cluster")
    kube.install_crd()

    assert ",virtualmachineinstances.kubevirt.io/status" in advice


def test_no_vmis_and_no_server(kube_binaries: KubeBinaries, tmp_path: Path) -> None:
    """A cluster without the definition of a VMI is told from one that is away."""
    with KubeApiserver(kube_binaries, tmp_path / "kube") as server:
        without = examine(STATUS__KUBECONFIG=server.kubeconfig).problem("cluster")
        server.stop()
        away = examine(STATUS__KUBECONFIG=server.kubeconfig, STATUS__TIMEOUT=2).problem("cluster")

    assert "does not know VMIs" == without[0]
    assert "is the server of the kubeconfig reachable" in away[1]
