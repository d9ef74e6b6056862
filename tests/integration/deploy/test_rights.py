"""What each service account may do on a real API server, and that it is refused all else."""

from __future__ import annotations

import json
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest

from lab.kube_apiserver import KubeApiserver

from .conftest import CONTROLLER, KUBERNETES, Account, Build, Serve, changed, workloads

pytestmark = pytest.mark.lab

Right = tuple[str, str, str]
"""Group, resource and verb."""

Request = tuple[str, str, Any]
"""Method, path and body."""

VMIS = "virtualmachineinstances"
PATH = f"/apis/kubevirt.io/v1/namespaces/default/{VMIS}"
PATCH = [{"op": "add", "path": "/status", "value": {"phase": "Running"}}]
OWN = {("kubevirt.io", VMIS, verb) for verb in ("get", "list", "watch", "patch")} | {
    ("kubevirt.io", f"{VMIS}/status", "patch")
}
VERBS = (
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "impersonate",
    "escalate",
    "bind",
)
RESOURCES = (
    ("kubevirt.io", VMIS),
    ("kubevirt.io", f"{VMIS}/status"),
    ("kubevirt.io", "virtualmachines"),
    ("subresources.kubevirt.io", f"{VMIS}/console"),
    ("", "secrets"),
    ("", "configmaps"),
    ("", "pods"),
    ("", "pods/exec"),
    ("", "nodes"),
    ("", "nodes/proxy"),
    ("", "events"),
    ("", "namespaces"),
    ("", "users"),
    ("", "groups"),
    ("", "serviceaccounts"),
    ("", "serviceaccounts/token"),
    ("apps", "deployments"),
    ("apps", "daemonsets"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
)
_numbers = count(1)


@pytest.fixture
def own(serve_overlay: Serve) -> KubeApiserver:
    """A cluster where the status writer acts under its own name."""
    return serve_overlay(KUBERNETES / "overlays" / "plain")


@pytest.fixture
def impersonating(serve_overlay: Serve) -> KubeApiserver:
    """A cluster where it may act as KubeVirt's controller."""
    return serve_overlay(KUBERNETES / "overlays" / "kubevirt")


@pytest.fixture
def constrained(serve_overlay: Serve, constrained_overlay: Path) -> KubeApiserver:
    """A cluster where it may act as KubeVirt's controller, for some requests."""
    return serve_overlay(constrained_overlay)


def vmi(server: KubeApiserver) -> str:
    """A new VMI's name."""
    name = f"vm-{next(_numbers)}"
    manifest = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name},
        "spec": {},
    }
    server.kubectl("create", "-n", "default", "-f", "-", input=json.dumps(manifest))
    return name


def rules(account: Account, namespace: str) -> set[Right]:
    """All that roles give an account in a namespace, by the API server's word."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    code, answer = account.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
    assert (201, False) == (code, answer["status"]["incomplete"])
    return {
        right
        for rule in answer["status"]["resourceRules"]
        for right in product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }


def given(server: KubeApiserver, account: Account, namespace: str) -> set[Right]:
    """All that roles give an account in a namespace, besides what every account has there."""
    found = rules(account, namespace)
    return found - rules(Account(server, "kubevirt", "nobody"), namespace)


def allowed(account: Account, namespace: str = "") -> set[Right]:
    """What of the table an account may, asked one by one."""
    return {
        (group, resource, verb)
        for (group, resource), verb in product(RESOURCES, VERBS)
        if account.may(verb, resource, group=group, namespace=namespace)
    }


def code(account: Account, user: str, method: str, path: str, body: Any = None) -> int:
    """Of a request in somebody's name."""
    found, _ = account.ask(method, path, body, headers={"Impersonate-User": user})
    return int(found)


def test_whoever_needs_no_right_has_none(server: KubeApiserver, build: Build, overlay: str) -> None:
    """The accounts of all but the status writer may nothing, anywhere; their requests are refused."""
    for each in workloads(build(overlay)):
        metadata = each["metadata"]
        if metadata["name"] == "status-writer":
            continue
        account = Account(server, metadata["namespace"], metadata["name"])
        assert [set(), set()] == [given(server, account, place) for place in ("default", metadata["namespace"])]
        assert 403 == account.ask("GET", PATH)[0]


def test_own_rights(own: KubeApiserver) -> None:
    """The status writer may get, list, watch and patch VMIs and patch their status: no more in the whole table."""
    account = Account(own, "guestwire", "status-writer")

    assert OWN == allowed(account)
    assert [OWN, OWN, OWN] == [given(own, account, place) for place in ("default", "guestwire", "kube-system")]


def test_own_requests(own: KubeApiserver) -> None:
    """Requests go as the table says: the status is patched, and neither deletion, secrets nor roles are to be had."""
    account, name = Account(own, "guestwire", "status-writer"), vmi(own)
    new = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "x"}, "spec": {}}
    granted: list[Request] = [
        ("GET", PATH, None),
        ("GET", f"{PATH}/{name}", None),
        ("PATCH", f"{PATH}/{name}", PATCH),
    ]
    refused: list[Request] = [
        ("DELETE", f"{PATH}/{name}", None),
        ("POST", PATH, new),
        ("PUT", f"{PATH}/{name}", new),
        ("GET", "/api/v1/secrets", None),
        ("GET", "/api/v1/namespaces/guestwire/configmaps", None),
        ("GET", "/api/v1/nodes", None),
        ("POST", "/api/v1/namespaces/default/events", {}),
        ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles", None),
        ("POST", "/api/v1/namespaces/guestwire/serviceaccounts/api/token", {}),
    ]

    assert [200] * len(granted) == [account.ask(*request)[0] for request in granted]
    assert [403] * len(refused) == [account.ask(*request)[0] for request in refused]
    assert 403 == code(account, CONTROLLER, "GET", PATH)


def test_right_to_impersonate(impersonating: KubeApiserver) -> None:
    """Under KubeVirt the status writer may act as one account, and has no right of its own, not even to read a VMI."""
    account = Account(impersonating, "guestwire", "status-writer")
    may = {"kubevirt-controller": True, "kubevirt-operator": False, "": False}

    assert set() == allowed(account) | allowed(account, "kubevirt") | given(impersonating, account, "default")
    assert {("", "serviceaccounts", "impersonate")} == given(impersonating, account, "kubevirt")
    assert may == {name: account.may("impersonate", "serviceaccounts", name=name, namespace="kubevirt") for name in may}


def test_impersonated_requests(impersonating: KubeApiserver) -> None:
    """It acts as KubeVirt's controller with all rights of that, and as nobody else."""
    account, name = Account(impersonating, "guestwire", "status-writer"), vmi(impersonating)

    assert 200 == code(account, CONTROLLER, "PATCH", f"{PATH}/{name}", PATCH)
    assert 200 == code(account, CONTROLLER, "GET", "/api/v1/namespaces/default/pods")
    assert 403 == account.ask("PATCH", f"{PATH}/{name}", PATCH)[0]
    assert {403} == {
        code(account, user, "GET", f"{PATH}/{name}")
        for user in ("lab-admin", "system:admin", "system:serviceaccount:kubevirt:kubevirt-operator")
    }
    groups = {"Impersonate-User": CONTROLLER, "Impersonate-Group": "system:masters"}
    assert 403 == account.ask("GET", f"{PATH}/{name}", headers=groups)[0]


def test_constrained_impersonation(constrained: KubeApiserver) -> None:
    """It acts as KubeVirt's controller for what it does, and for nothing else that this one may do."""
    account, name = Account(constrained, "guestwire", "status-writer"), vmi(constrained)

    assert set() == allowed(account) | allowed(account, "kubevirt")
    assert 200 == code(account, CONTROLLER, "PATCH", f"{PATH}/{name}", PATCH)
    assert {403} == {
        code(account, CONTROLLER, *request)
        for request in (
            ("GET", "/api/v1/namespaces/default/pods"),
            ("DELETE", f"{PATH}/{name}"),
            ("GET", "/apis/kubevirt.io/v1alpha3"),
        )
    }
    assert 403 == code(account, "lab-admin", "GET", f"{PATH}/{name}")


@pytest.fixture(scope="module")
def with_events(serve_overlay: Serve, tmp_path_factory: pytest.TempPathFactory) -> KubeApiserver:
    """A cluster whose overlay has the component for Kubernetes Events besides."""
    directory, line = tmp_path_factory.mktemp("events"), "  - ../../components/own-rights\n"
    return serve_overlay(changed("plain", directory, line, f"{line}  - ../../components/events\n"))


def test_events(with_events: KubeApiserver) -> None:
    """With the component for events it may create them, and nothing more than before."""
    account = Account(with_events, "guestwire", "status-writer")

    assert OWN | {("", "events", "create")} == allowed(account)
