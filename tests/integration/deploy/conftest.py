"""The manifests as kubectl builds them, and API servers that they are applied to."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"

KUBEVIRT = """
apiVersion: v1
kind: Namespace
metadata: {name: kubevirt}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: kubevirt-controller, namespace: kubevirt}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: nobody, namespace: kubevirt}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: kubevirt-controller}
rules:
  - {apiGroups: [kubevirt.io], resources: ["*"], verbs: ["*"]}
  - {apiGroups: [""], resources: [pods], verbs: [get, list, watch, create, delete]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kubevirt-controller}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kubevirt-controller}
subjects: [{kind: ServiceAccount, name: kubevirt-controller, namespace: kubevirt}]
"""
"""
What KubeVirt's operator has made before, its controller's account and some of the rights of that; and an account that
nobody gave any right.
"""

Manifest = dict[str, Any]
Build = Callable[[str | Path], list[Manifest]]
"""From the name of an overlay, or the directory of one, to its objects."""
Serve = Callable[[Path], KubeApiserver]
"""From the directory of an overlay to an API server that it was applied to."""


@pytest.fixture(scope="session")
def build(kube_binaries: KubeBinaries) -> Build:
    """Builds an overlay with the kustomize inside of kubectl."""

    @cache
    def objects(overlay: str | Path) -> list[Manifest]:
        done = subprocess.run(
            [kube_binaries.kubectl, "kustomize", KUBERNETES / "overlays" / overlay],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ("", 0) == (done.stderr, done.returncode)
        return list(yaml.safe_load_all(done.stdout))

    return objects


def named(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """The one object of that kind and name."""
    (found,) = [each for each in objects if (kind, name) == (each["kind"], each["metadata"]["name"])]
    return found


def workloads(objects: list[Manifest]) -> list[Manifest]:
    """What makes pods."""
    return [each for each in objects if "template" in each.get("spec", {})]


def container(workload: Manifest) -> Manifest:
    """The only container of a workload's pods."""
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    found: Manifest = only
    return found


def environment(workload: Manifest, objects: list[Manifest]) -> dict[str, str]:
    """The environment of a workload's container; fields of the pod read as their own path."""
    inherited: dict[str, str] = {}
    for source in container(workload).get("envFrom", []):
        for each in objects:
            place = (each["kind"], each["metadata"]["name"], each["metadata"].get("namespace"))
            if place == ("ConfigMap", source["configMapRef"]["name"], workload["metadata"]["namespace"]):
                inherited |= each["data"]
    own = {
        each["name"]: each["value"] if "value" in each else each["valueFrom"]["fieldRef"]["fieldPath"]
        for each in container(workload).get("env", [])
    }
    return inherited | own


def pod_of(workload: Manifest) -> Manifest:
    """A pod as the workload's controller would make it, claimed volumes included."""
    template, metadata = workload["spec"]["template"], workload["metadata"]
    claims = [
        {"name": each["metadata"]["name"], "persistentVolumeClaim": {"claimName": f"{each['metadata']['name']}-0"}}
        for each in workload["spec"].get("volumeClaimTemplates", [])
    ]
    spec = {**template["spec"], "volumes": [*template["spec"].get("volumes", []), *claims]}
    place = {"name": f"{metadata['name']}-0", "namespace": metadata["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], **place}, "spec": spec}


class Account:
    """Requests with the token of a service account: codes as the API server answers them."""

    def __init__(self, server: KubeApiserver, namespace: str, name: str) -> None:
        self.name = f"system:serviceaccount:{namespace}:{name}"
        self._server = server
        self._token = server.token(name, namespace)

    def ask(self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None) -> Any:
        """The code and the decoded answer."""
        address = urlsplit(self._server.url)
        context = ssl.create_default_context(cafile=str(self._server.ca.certificate))
        connection = http.client.HTTPSConnection(address.hostname or "", address.port, timeout=30, context=context)
        kind = "application/json-patch+json" if method == "PATCH" else "application/json"
        sent = {"Authorization": f"Bearer {self._token}", "Content-Type": kind, **(headers or {})}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def may(self, verb: str, resource: str, *, group: str = "", name: str = "", namespace: str = "") -> bool:
        """Whether it may; `resource` may have a subresource behind a slash."""
        plural, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": plural, "subresource": subresource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, "name": name, "namespace": namespace}},
        }
        code, answer = self.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        assert 201 == code, answer
        return bool(answer["status"]["allowed"])


@pytest.fixture(scope="session")
def serve_overlay(kube_binaries: KubeBinaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts an API server with VMIs and KubeVirt's controller, and applies an overlay's directory to it."""
    running: dict[Path, KubeApiserver] = {}

    def serve(directory: Path) -> KubeApiserver:
        if directory not in running:
            server = KubeApiserver(kube_binaries, tmp_path_factory.mktemp("kube"))
            server.start()
            running[directory] = server
            server.install_crd()
            server.apply(KUBEVIRT)
            server.kubectl("apply", "--server-side", "-k", str(directory), timeout=120)
        return running[directory]

    yield serve
    for server in running.values():
        server.stop()


def changed(overlay: str, directory: Path, old: str, new: str) -> Path:
    """A copy of the manifests with an overlay changed as a user would; the overlay's directory in there."""
    copy = directory / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    file = copy / "overlays" / overlay / "kustomization.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return file.parent


@pytest.fixture(scope="session")
def constrained_overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KubeVirt's overlay with the narrower way to act as KubeVirt's controller."""
    line = "- ../../components/{}\n"
    directory = tmp_path_factory.mktemp("constrained")
    return changed("kubevirt", directory, line.format("impersonation"), line.format("constrained-impersonation"))


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    """Each overlay in turn."""
    return str(request.param)


@pytest.fixture
def server(overlay: str, serve_overlay: Serve) -> KubeApiserver:
    """An API server with the overlay applied."""
    return serve_overlay(KUBERNETES / "overlays" / overlay)
