"""The lab's kube-apiserver is the real thing, keeps its data, and leaves nothing behind."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, cast

import pytest
from kubernetes import client, config

from lab import kube_build
from lab.errors import LabError
from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries, build
from lab.paths import cache_dir
from lab.process import wait_until
from lab.reaper import processes_of

# A first build takes minutes; only the tests themselves are held to their time.
pytestmark = [pytest.mark.lab, pytest.mark.timeout(120, func_only=True)]

NAMES = "jsonpath={.items[*].metadata.name}"
REPOSITORY = Path(kube_build.__file__).parent.parent


@pytest.fixture(scope="module")
def server(kube_binaries: KubeBinaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiserver]:
    """A running API server with KubeVirt's VMI definition."""
    with KubeApiserver(kube_binaries, tmp_path_factory.mktemp("kube")) as server:
        server.install_crd("kubevirt")
        yield server


class Vmis:
    """VMIs of one namespace through the official Kubernetes client: requests as they are, answers with their code."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._api = client.CustomObjectsApi(api)
        self._where = ("kubevirt.io", "v1", namespace, "virtualmachineinstances")

    def create(self, name: str) -> None:
        body = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": name},
            "spec": {},
        }
        self._api.create_namespaced_custom_object(*self._where, body)

    def get(self, name: str) -> dict[str, Any]:
        return cast("dict[str, Any]", self._api.get_namespaced_custom_object(*self._where, name))

    def patch(self, name: str, *operations: dict[str, Any]) -> int:
        """Apply a JSON patch; the status code of the answer."""
        return self._code(self._api.patch_namespaced_custom_object, name, operations)

    def patch_status(self, name: str, *operations: dict[str, Any]) -> int:
        """Apply a JSON patch to the status subresource; the status code of the answer."""
        return self._code(self._api.patch_namespaced_custom_object_status, name, operations)

    def _code(self, call: Any, name: str, operations: tuple[dict[str, Any], ...]) -> int:
        try:
            call(*self._where, name, list(operations), _content_type="application/json-patch+json")
        except client.ApiException as error:
            return cast("int", error.status)
        return 200


@pytest.fixture
def vmis(server: KubeApiserver, request: pytest.FixtureRequest) -> Iterator[Vmis]:
    """VMIs in a namespace of the test's own."""
    namespace = request.node.name.replace("_", "-")
    server.kubectl("create", "namespace", namespace)
    with config.new_client_from_config(str(server.kubeconfig)) as api:  # type: ignore[no-untyped-call]
        yield Vmis(api, namespace)


def test_says_its_version_and_where_it_is(server: KubeApiserver) -> None:
    """Both programs carry the version that go.mod names, and the object shows the URL."""
    version = kube_build._kubernetes_version()
    told = json.loads(server.kubectl("version", "-o", "json"))
    assert [f"v{version}", f"v{version}"] == [told[side]["gitVersion"] for side in ("clientVersion", "serverVersion")]
    assert f"<KubeApiserver {server.url} running>" == repr(server)


def test_vmi_definition_is_kubevirts(server: KubeApiserver, vmis: Vmis) -> None:
    """VMIs are served in two versions, under their short name, with KubeVirt's columns."""
    vmis.create("web")
    namespace = "test-vmi-definition-is-kubevirts"
    columns = ["NAME", "AGE", "PHASE", "IP", "NODENAME", "READY", "LIVE-MIGRATABLE", "PAUSED"]
    assert columns == server.kubectl("get", "vmi", "-o", "wide", "-n", namespace).splitlines()[0].split()
    old = server.kubectl("get", "virtualmachineinstances.v1alpha3.kubevirt.io", "-o", "name", "-n", namespace)
    assert old.strip() == "virtualmachineinstance.kubevirt.io/web"


def test_failing_test_operation_is_422(vmis: Vmis) -> None:
    """A JSON patch whose test operation fails is answered 422 and changes nothing; one that holds is applied."""
    vmis.create("web")
    write = {"op": "add", "path": "/status", "value": {"phase": "Running"}}
    version = vmis.get("web")["metadata"]["resourceVersion"]
    assert vmis.patch("web", {"op": "test", "path": "/metadata/resourceVersion", "value": "1"}, write) == 422
    assert "status" not in vmis.get("web")
    assert vmis.patch("web", {"op": "test", "path": "/metadata/resourceVersion", "value": version}, write) == 200
    assert vmis.get("web")["status"] == {"phase": "Running"}


def test_typed_status_is_closed_and_the_rest_open(vmis: Vmis) -> None:
    """Null times of conditions stay null, fields KubeVirt has not vanish from what guest facts go to, others stay."""
    vmis.create("web")
    connected = {"type": "AgentConnected", "status": "True", "lastProbeTime": None}
    status = {
        "conditions": [connected | {"unknown": 1}],
        "interfaces": [{"mac": "52:54:00:00:00:01", "queueCount": 1, "unknown": 1}],
        "guestOSInfo": {"id": "debian", "unknown": 1},
        "fsFreezeStatus": "frozen",
        "launcherContainerImageVersion": "any",
    }
    assert vmis.patch("web", {"op": "add", "path": "/status", "value": status}) == 200
    assert {
        "conditions": [connected],
        "interfaces": [{"mac": "52:54:00:00:00:01", "queueCount": 1}],
        "guestOSInfo": {"id": "debian"},
        "fsFreezeStatus": "frozen",
        "launcherContainerImageVersion": "any",
    } == vmis.get("web")["status"]


def test_condition_without_status_is_refused(vmis: Vmis) -> None:
    """The schema is enforced: a condition needs a type and a status."""
    vmis.create("web")
    status = {"conditions": [{"type": "AgentConnected"}]}
    assert vmis.patch("web", {"op": "add", "path": "/status", "value": status}) == 422


def test_variants_differ_in_the_status_subresource(server: KubeApiserver, vmis: Vmis) -> None:
    """/status is 404 as KubeVirt has it; with the other variant it is the only way to write a status."""
    vmis.create("web")
    write = {"op": "add", "path": "/status", "value": {"phase": "Running"}}
    assert vmis.patch_status("web", write) == 404
    server.install_crd("status-subresource")
    try:
        assert vmis.patch("web", write) == 200
        assert "status" not in vmis.get("web")
        assert vmis.patch_status("web", write) == 200
        assert vmis.get("web")["status"] == {"phase": "Running"}
    finally:
        server.install_crd("kubevirt")
    assert vmis.patch_status("web", write) == 404


def test_service_account_may_do_what_rbac_grants(server: KubeApiserver, vmis: Vmis) -> None:
    """A token's kubeconfig is the service account: forbidden at first, allowed once a role is bound."""
    namespace = "test-service-account-may-do-what-rbac-grants"
    server.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    reader = f"--kubeconfig={server.kubeconfig_for('reader', namespace)}"
    question = (reader, "get", "vmi", "-n", namespace)
    refused = server.kubectl(*question, check=False)
    assert f'User "system:serviceaccount:{namespace}:reader" cannot list' in refused
    server.apply(f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: reader, namespace: {namespace}}}
rules: [{{apiGroups: [kubevirt.io], resources: [virtualmachineinstances], verbs: [list]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: reader, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}}
subjects: [{{kind: ServiceAccount, name: reader, namespace: {namespace}}}]
""")
    wait_until(lambda: "No resources found" in server.kubectl(*question, check=False), 10, "the role is not in force")


def test_extension_servers_learn_whom_to_trust(server: KubeApiserver) -> None:
    """The cluster publishes the front proxy's authority and names, as extension API servers read them."""
    published = json.loads(
        server.kubectl("get", "configmap", "extension-apiserver-authentication", "-n", "kube-system", "-o", "json")
    )["data"]
    assert server.front_proxy_ca.certificate.read_text() == published["requestheader-client-ca-file"]
    assert json.loads(published["requestheader-allowed-names"]) == ["front-proxy-client"]


class Extension(BaseHTTPRequestHandler):
    """An extension API server with nothing in it; remembers who was asking, and who relayed the question."""

    relayed: ClassVar[set[tuple[str, str]]] = set()

    def do_GET(self) -> None:
        """Answer everything with the discovery document of an empty group version."""
        peer = cast("ssl.SSLSocket", self.connection).getpeercert() or {}
        subject = dict(pair for part in cast("Any", peer["subject"]) for pair in part)
        self.relayed.add((subject["commonName"], self.headers["X-Remote-User"]))
        answer = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "lab.test/v1", "resources": []}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def extension_port(server: KubeApiserver, tmp_path: Path) -> Iterator[int]:
    """Port of a TLS server that the API server can verify, and that lets nobody in but the API server."""
    # The name of its service is what the API server expects, whatever it connects to.
    pair = server.ca.issue(tmp_path / "extension", "extension", hosts=["extension.default.svc"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.front_proxy_ca.certificate))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pair.certificate, pair.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Extension) as extension:
        extension.socket = context.wrap_socket(extension.socket, server_side=True)
        thread = Thread(target=extension.serve_forever)
        thread.start()
        yield extension.server_port
        extension.shutdown()
        thread.join()


def test_requests_are_relayed_to_an_extension(server: KubeApiserver, extension_port: int) -> None:
    """An aggregated group is asked by the front proxy's certificate, in the name of the user who asked."""
    server.kubectl("create", "service", "externalname", "extension", "--external-name=localhost", "-n", "default")
    ca = base64.b64encode(server.ca.certificate.read_bytes()).decode()
    server.apply(f"""
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1.lab.test}}
spec:
  {{group: lab.test, version: v1, groupPriorityMinimum: 1000, versionPriority: 10, caBundle: {ca},
   service: {{namespace: default, name: extension, port: {extension_port}}}}}
""")
    try:
        server.kubectl("wait", "--for=condition=Available", "apiservice/v1.lab.test", "--timeout=20s")
        assert json.loads(server.kubectl("get", "--raw", "/apis/lab.test/v1"))["groupVersion"] == "lab.test/v1"
    finally:
        server.kubectl("delete", "apiservice/v1.lab.test", "service/extension", "-n", "default")
    assert ("front-proxy-client", "lab-admin") in Extension.relayed


def test_kubectl_tells_why_it_failed(server: KubeApiserver) -> None:
    """A failing kubectl raises what it said; unchecked, it returns it."""
    with pytest.raises(LabError, match=r'^kubectl get vmi nobody: .*"nobody" not found$'):
        server.kubectl("get", "vmi", "nobody")
    assert '"nobody" not found' in server.kubectl("get", "vmi", "nobody", check=False)


def test_restart_keeps_data_and_address(kube_binaries: KubeBinaries, tmp_path: Path) -> None:
    """What was written is there after an orderly stop, after SIGKILL, and for another object on the same directory."""
    server = KubeApiserver(kube_binaries, tmp_path)
    with server:
        server.kubectl("create", "namespace", "first")
        server.kubectl("create", "serviceaccount", "keeper", "-n", "first")
        keeper = server.kubeconfig_for("keeper", "first")
        server.stop()
        server.start()
        server.kubectl("create", "namespace", "second")
        server.kill()
        server.start()
        assert server.kubectl("get", "ns", "first", "second", "-o", NAMES).split() == ["first", "second"]
        assert "keeper" in server.kubectl(f"--kubeconfig={keeper}", "auth", "whoami")
    port = int(server.url.rpartition(":")[2])
    with KubeApiserver(kube_binaries, tmp_path, port=port) as again:
        assert server.url == again.url
        assert "keeper" in again.kubectl(f"--kubeconfig={keeper}", "auth", "whoami")


def test_taken_port_is_told(kube_binaries: KubeBinaries, tmp_path: Path) -> None:
    """A start that cannot succeed ends at once with the server's own words."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = KubeApiserver(kube_binaries, tmp_path, port=taken.getsockname()[1])
        with pytest.raises(LabError, match=r"(?s)^kube-apiserver ended with status 1.*address already in use"):
            server.start()


OWNER = """
import sys, time
from pathlib import Path
from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries

KubeApiserver(KubeBinaries(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3])).start()
print("started", flush=True)
time.sleep(600)
"""


def test_nothing_outlives_a_killed_owner(kube_binaries: KubeBinaries, tmp_path: Path) -> None:
    """When the Python process that started it is killed, the API server ends too."""
    argv = [sys.executable, "-c", OWNER, str(kube_binaries.apiserver), str(kube_binaries.kubectl), str(tmp_path)]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "started\n"
        assert len(processes_of(str(tmp_path))) == 2
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not processes_of(str(tmp_path)), 5, "a process outlived its owner")


def small_module(directory: Path, source: str) -> Path:
    """The lab's Go module with `source` for both programs, so that a real build takes seconds."""
    module = shutil.copytree(kube_build.MODULE, directory / "module")
    for name in ("kube-apiserver", "kubectl"):
        (module / name / "main.go").write_text(source)
    return module


def test_one_builds_while_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: None) -> None:
    """Of several builders at the same time one compiles each program, and a later one has nothing to do."""
    monkeypatch.setattr(kube_build, "MODULE", small_module(tmp_path, "package main\n\nfunc main() {}\n"))
    lines: list[str] = []
    with ThreadPoolExecutor(3) as builders:
        built = set(builders.map(lambda _: build(tmp_path / "cache", lines.append), range(3)))
    assert len(built) == 1
    assert len([line for line in lines if "compiling" in line]) == 2
    lines.clear()
    assert built == {build(tmp_path / "cache", lines.append)}
    assert lines == []
    assert subprocess.run([built.pop().apiserver], check=False).returncode == 0


def test_broken_source_is_told_and_leaves_no_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: None
) -> None:
    """A build that fails names the step, shows the compiler's words, and is not taken for done the next time."""
    monkeypatch.setattr(kube_build, "MODULE", small_module(tmp_path, "package main\n\nfunc main() { nonsense }\n"))
    for _ in range(2):
        with pytest.raises(LabError, match=r"(?s)^kube-apiserver: compiling \S+ .*ended with status 1\n.*nonsense"):
            build(tmp_path / "cache", print)


@pytest.fixture
def go(kube_binaries: KubeBinaries, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go, also where the lab had to bring its own."""
    ours = cache_dir() / "go-toolchain" / "bin"
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{ours}")
