"""
Behind a cluster's API server: the real one, with the manifests of deploy/kubernetes, kubectl in front, and `guestwire
serve` as it is run. Only the Service differs: it leads out of the cluster, to a port of this machine.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.groups import GUESTWIRE, KUBEVIRT
from guestwire import codec, settings, subjects
from guestwire.jetstream import Bus
from guestwire.snapshot import AgentState, GuestRef, Kind, ListMeta, Phase, User, UserList
from lab.certificates import Authority, KeyPair
from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries
from lab.nats_server import NatsServer
from lab.process import Daemon, free_port, wait_until

KUBERNETES = Path(__file__).parents[3] / "deploy" / "kubernetes"
OURS = "/apis/guestwire.io/v1/namespaces/{}/guests/vm1/{}"
KUBEVIRTS = "/apis/subresources.kubevirt.io/{}/namespaces/default/virtualmachineinstances/vm1/{}"
BODY = '{"items":[{"userName":"root"}],"metadata":{}}'
PATIENCE = 60.0

RIGHTS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: alice, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: guestwire-view}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: alice}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: alice-kubevirt, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: guestwire-view-kubevirt-paths}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: alice}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: one-guest, namespace: default}
rules: [{apiGroups: [guestwire.io], resources: [guests/userlist], resourceNames: [vm1], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: one-guest, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: one-guest}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "team:one"}]
"""


class Site:
    """The API behind an API server; `decisions` are good for so many seconds."""

    def __init__(self, kube: KubeApiserver, directory: Path, nats: NatsServer, *, decisions: float = 1) -> None:
        self.kube = kube
        self.port = free_port()
        self.authority = Authority(directory / "serving-ca", "serving-ca")
        self.pair = self._issue(directory / "tls")
        environ = {
            "GUESTWIRE_NATS__SERVERS": nats.url,
            "GUESTWIRE_API__LISTEN": f"127.0.0.1:{self.port}",
            "GUESTWIRE_API__AGGREGATED": "true",
            "GUESTWIRE_API__CERTIFICATE": str(self.pair.certificate),
            "GUESTWIRE_API__KEY": str(self.pair.key),
            "GUESTWIRE_API__KUBECONFIG": str(kube.kubeconfig_for("api", "guestwire")),
            "GUESTWIRE_API__DECISIONS": str(decisions),
        }
        program = Path(sysconfig.get_path("scripts"), "guestwire")
        self.daemon = Daemon([program, "serve"], log=directory / "api.log", env={**os.environ, **environ})

    def _issue(self, stem: Path) -> KeyPair:
        return self.authority.issue(stem, "api", hosts=["api.guestwire.svc", "localhost", "127.0.0.1"])

    def renew(self) -> None:
        """Another certificate in the same files."""
        self._issue(self.pair.certificate.with_suffix(""))

    def connect(self, pair: KeyPair | None = None) -> http.client.HTTPSConnection:
        """A connection past the API server, with a client's certificate."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        if pair:
            context.load_cert_chain(pair.certificate, pair.key)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=context)

    def ask(
        self, path: str, headers: dict[str, str] | None = None, pair: KeyPair | None = None
    ) -> tuple[int, Any, Any]:
        """Status, headers and text of a GET past the API server."""
        connection = self.connect(pair)
        try:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()
        finally:
            connection.close()

    def as_front_proxy(self, path: str, user: str, *groups: str) -> tuple[int, str]:
        """What is answered to the API server itself, when it names that user."""
        connection = self.connect(self.kube.front_proxy)
        try:
            connection.putrequest("GET", path)
            connection.putheader("X-Remote-User", user)
            for group in groups:
                connection.putheader("X-Remote-Group", group)
            connection.endheaders()
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def ready(self) -> bool:
        """Whether it says so, to whoever asks."""
        try:
            return self.ask("/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def raw(self, path: str, user: str, *groups: str) -> str:
        """What kubectl prints for a path, acting as a user."""
        acting = [f"--as={user}", *(f"--as-group={group}" for group in groups)]
        return self.kube.kubectl("get", "--raw", path, *acting, check=False)


def built(binaries: KubeBinaries, directory: Path) -> list[dict[str, Any]]:
    """The objects of an overlay with both components."""
    copy = directory / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    file = copy / "overlays" / "plain" / "kustomization.yaml"
    parts = "".join(f"  - ../../components/{each}\n" for each in ("aggregation", "aggregation-kubevirt-paths"))
    file.write_text(file.read_text().replace("components:\n", f"components:\n{parts}"))
    command: list[str | Path] = [binaries.kubectl, "kustomize", file.parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ("", 0) == (done.stderr, done.returncode)
    return list(yaml.safe_load_all(done.stdout))


def led_here(objects: list[dict[str, Any]], site_port: int, authority: Path) -> str:
    """Those of the API, with a Service that leads to a port of this machine, and the authority of its certificate."""
    wanted = {"Namespace", "ClusterRole", "ClusterRoleBinding", "RoleBinding", "APIService"}
    chosen = [
        json.loads(json.dumps(each))
        for each in objects
        if each["kind"] in wanted
        or (each["kind"], each["metadata"]["name"]) in {("Service", "api"), ("ServiceAccount", "api")}
    ]
    for each in chosen:
        if each["kind"] == "Service":
            each["spec"] = {"type": "ExternalName", "externalName": "localhost"}
        if each["kind"] == "APIService":
            spec: dict[str, Any] = each["spec"]
            spec["service"]["port"] = site_port
            spec["caBundle"] = base64.b64encode(authority.read_bytes()).decode()
    return "\n---\n".join(map(json.dumps, sorted(chosen, key=lambda each: each["kind"] != "Namespace")))


async def publish(nats: NatsServer, ref: GuestRef) -> None:
    """A guest with one user, as a collector publishes it."""
    now = codec.now()
    state = AgentState(
        namespace=ref.namespace,
        name=ref.name,
        uid="u1",
        domain="d",
        domain_uuid="u1",
        host="h",
        phase=Phase.RUNNING,
        channel=True,
        connected=True,
        since=now,
    )
    async with Bus(settings.Nats(servers=(nats.url,)), "collector") as bus:
        await bus.ensure_stream()
        for kind, body in ((Kind.AGENT, state), (Kind.USERLIST, UserList((User("root"),), ListMeta()))):
            part = codec.part(kind, body, now)
            ids = {"message_id": codec.new_trace_id(), "trace_id": codec.new_trace_id()}
            headers = codec.event_headers(ref=ref, uid="u1", cluster="local", host="h", part=part, **ids)
            await bus.js.publish(subjects.subject("local", ref, kind), part.body, headers=headers)


@pytest.fixture(scope="module")
def objects(kube_binaries: KubeBinaries, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The manifests."""
    return built(kube_binaries, tmp_path_factory.mktemp("manifests"))


@pytest.fixture(scope="module")
def site(
    kube_binaries: KubeBinaries, tmp_path_factory: pytest.TempPathFactory, objects: list[dict[str, Any]]
) -> Iterator[Site]:
    """The API behind an API server, ready, and known to it."""
    directory = tmp_path_factory.mktemp("site")
    kube, nats = KubeApiserver(kube_binaries, directory / "kube"), NatsServer(directory / "nats")
    kube.start()
    nats.start()
    kube.apply('{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "guestwire"}}')
    kube.apply('{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "api", "namespace": "guestwire"}}')
    site = Site(kube, directory, nats)
    kube.apply(led_here(objects, site.port, site.authority.certificate))
    kube.apply(RIGHTS)
    for namespace in ("default", "other"):
        asyncio.run(publish(nats, GuestRef(namespace, "vm1")))
    site.daemon.start()
    try:
        site.daemon.ready(site.ready, PATIENCE)
        for service in ("v1.guestwire.io", "v1.subresources.kubevirt.io", "v1alpha3.subresources.kubevirt.io"):
            kube.kubectl("wait", "--for=condition=Available", f"apiservice/{service}", "--timeout=60s", timeout=90)
        yield site
    finally:
        for part in (site.daemon, kube, nats):
            part.stop()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for it."""
    wait_until(lambda: bool(condition()), PATIENCE, what)


def test_read_through_the_api_server(site: Site) -> None:
    """Whoever has the role reads with kubectl what was published, byte for byte, in our group and in KubeVirt's."""
    paths = [OURS.format("default", "userlist"), *(KUBEVIRTS.format(each, "userlist") for each in ("v1", "v1alpha3"))]

    assert [BODY] * 3 == [site.raw(path, "alice") for path in paths]


def test_denied_by_the_api_server(site: Site) -> None:
    """Others, and the same user elsewhere, are refused by the role; a guest that is not there is not found."""
    expected = 'cannot get resource "guests/userlist" in API group "guestwire.io" in the namespace'

    assert f'User "eve" {expected} "default"' in site.raw(OURS.format("default", "userlist"), "eve")
    assert f'User "alice" {expected} "other"' in site.raw(OURS.format("other", "userlist"), "alice")
    assert 'guests.guestwire.io "vm2" not found' in site.raw(
        OURS.format("default", "userlist").replace("vm1", "vm2"), "alice"
    )


@pytest.mark.parametrize(
    ("user", "namespace", "expected"),
    [("alice", "default", ["get", "list", "watch"]), ("alice", "other", []), ("eve", "default", [])],
)
def test_can_i(site: Site, user: str, namespace: str, expected: list[str]) -> None:
    """Whoever asks what they may is told of our resources."""
    table = site.kube.kubectl("auth", "can-i", "--list", f"--as={user}", "-n", namespace)
    rows = [line.split() for line in table.splitlines()]
    verbs = [word.strip("[]") for row in rows if row[0] == "guests.guestwire.io/userlist" for word in row[3:]]

    assert expected == verbs


def test_everybody_may_discover(site: Site) -> None:
    """Discovery is for all who are authenticated, as everywhere in a cluster."""
    document = json.loads(site.raw("/apis/guestwire.io/v1", "eve", "system:authenticated"))

    assert "APIResourceList" == document["kind"]


def test_decides_itself(site: Site) -> None:
    """The API server's word about who asks is taken, and who may read is asked for: the 403 is our own."""
    path = OURS.format("default", "userlist")
    code, text = site.as_front_proxy(path, "eve", "dev")
    status = json.loads(text)

    assert (200, BODY) == site.as_front_proxy(path, "alice")
    assert (403, 403, "Forbidden", {"name": "vm1", "group": "guestwire.io", "kind": "guests"}) == (
        code,
        status["code"],
        status["reason"],
        status["details"],
    )
    assert (
        'guests.guestwire.io "vm1" is forbidden: User "eve" cannot get resource "guests/userlist" in API group '
        '"guestwire.io" in the namespace "default"'
    ) == status["message"]


def test_groups_and_names_of_objects(site: Site) -> None:
    """A role may be for a group, and for one guest: neither another guest nor another kind comes with it."""
    path = OURS.format("default", "userlist")
    asked = [path, path.replace("vm1", "vm2"), OURS.format("default", "agent")]

    assert [200, 403, 403] == [site.as_front_proxy(each, "bob", "dev", "team:one")[0] for each in asked]
    assert 403 == site.as_front_proxy(path, "bob", "dev")[0]


def test_rights_taken_back(site: Site) -> None:
    """A decision is good for as long as the setting says, on the cached path too, and then the role counts again."""
    path = OURS.format("default", "userlist")
    binding = RIGHTS.partition("---")[0].replace("alice", "carol")
    site.kube.apply(binding)
    until(lambda: site.as_front_proxy(path, "carol")[0] == 200, "the right in force")
    site.kube.kubectl("delete", "rolebinding", "carol", "-n", "default")

    until(lambda: site.as_front_proxy(path, "carol")[0] == 403, "the right gone")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Remote-User": "alice"},
        {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"},
        {"Authorization": "Bearer x"},
    ],
)
@pytest.mark.parametrize("path", [OURS.format("default", "userlist"), "/apis", "/metrics", "/nowhere"])
def test_direct_clients(site: Site, path: str, headers: dict[str, str]) -> None:
    """Who does not come through the API server is nobody, whatever they say in headers."""
    code, answered, text = site.ask(path, headers)

    assert (401, 'Bearer realm="guestwire"') == (code, answered["WWW-Authenticate"])
    assert ("Status", "Unauthorized", 401) == tuple(json.loads(text)[each] for each in ("kind", "reason", "code"))


def test_certificates_of_others(site: Site, tmp_path: Path) -> None:
    """A certificate under another name is not the front proxy's; one of another authority gets no connection."""
    path, alice = OURS.format("default", "userlist"), {"X-Remote-User": "alice"}
    other = site.kube.front_proxy_ca.issue(tmp_path / "other", "somebody-else")
    stranger = site.kube.ca.issue(tmp_path / "stranger", "front-proxy-client")

    assert [401, 401] == [site.ask(path, each, other)[0] for each in (alice, {})]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        site.ask(path, alice, stranger)


def test_headers_of_the_client_do_not_pass(site: Site) -> None:
    """The API server replaces what a client of its own says in these headers: it is still the client who asks."""
    context = ssl.create_default_context(cafile=str(site.kube.ca.certificate))
    stem = site.kube.log.parent / "eve"
    eve = site.kube.ca.issue(stem, "eve")
    context.load_cert_chain(eve.certificate, eve.key)
    host, _, port = site.kube.url.removeprefix("https://").partition(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=30, context=context)
    connection.request("GET", OURS.format("default", "userlist"), headers={"X-Remote-User": "alice"})
    response = connection.getresponse()
    status = json.loads(response.read())
    connection.close()

    assert (403, True) == (response.status, 'User "eve" cannot get' in status["message"])


def test_renewed_certificate(site: Site) -> None:
    """A certificate that was replaced on disk is the server's a moment later, without a restart."""

    def serial() -> object:
        connection = site.connect()
        connection.connect()
        try:
            return (connection.sock.getpeercert() or {})["serialNumber"]
        finally:
            connection.close()

    before = serial()
    site.renew()

    until(lambda: serial() != before, "the new certificate")
    assert (200, BODY) == site.as_front_proxy(OURS.format("default", "userlist"), "alice")


def test_other_front_proxies(site: Site, tmp_path: Path) -> None:
    """Authorities and names follow the ConfigMap, both ways; a connection made before does not outlive the trust."""
    configuration = ("-n", "kube-system", "configmap", "extension-apiserver-authentication")
    data = json.loads(site.kube.kubectl("get", *configuration, "-o", "json"))["data"]
    second = Authority(tmp_path / "second-ca", "second-ca")
    pair = second.issue(tmp_path / "second", "second-proxy")
    path, alice = OURS.format("default", "userlist"), {"X-Remote-User": "alice"}

    def trusted() -> bool:
        try:
            return site.ask(path, alice, pair)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def publish_trust(authorities: str, names: list[str]) -> None:
        changed = {"requestheader-client-ca-file": authorities, "requestheader-allowed-names": json.dumps(names)}
        site.kube.kubectl("patch", *configuration, "--type=merge", "-p", json.dumps({"data": changed}))

    assert not trusted()
    publish_trust(
        data["requestheader-client-ca-file"] + second.certificate.read_text(), ["front-proxy-client", "second-proxy"]
    )
    until(trusted, "trust in the second front proxy")
    kept = site.connect(pair)
    kept.request("GET", path, headers=alice)
    assert BODY == kept.getresponse().read().decode()
    publish_trust(data["requestheader-client-ca-file"], ["front-proxy-client"])
    until(lambda: not trusted(), "no trust in the second front proxy")
    kept.sock.settimeout(PATIENCE)
    assert b"" == kept.sock.recv(1)
    kept.close()
    assert (200, BODY) == site.as_front_proxy(path, "alice")


def test_api_server_away(site: Site) -> None:
    """While nobody can be asked, reads that nothing is known of answer 503 with Retry-After; then all is as before."""
    path = OURS.format("default", "userlist")
    site.kube.kill()
    code, text = site.as_front_proxy(path, f"user-{time.time()}")
    status = json.loads(text)
    site.kube.start()

    assert (503, "ServiceUnavailable", 1) == (code, status["reason"], status["details"]["retryAfterSeconds"])
    until(lambda: site.as_front_proxy(path, "alice") == (200, BODY), "reads again")


def test_no_secret_in_the_log(site: Site) -> None:
    """What was logged meanwhile holds no token and no key."""
    config = json.loads(site.kube.kubeconfig_for("api", "guestwire").read_text())
    log = site.daemon.log.read_text()

    assert "the front proxy is known" in log
    assert [False, False, False] == [
        each in log for each in (config["users"][0]["user"]["token"][:40], "Bearer ", "PRIVATE KEY")
    ]


def test_manifests_are_accepted(site: Site, objects: list[dict[str, Any]]) -> None:
    """The API server takes all of the overlay with these parts, without a warning about the security of pods."""
    text = "\n---\n".join(map(json.dumps, objects))
    applying = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
    said = site.kube.kubectl(*applying, input=text, check=False)

    assert len(objects) == said.count("serverside-applied (server dry run)")
    assert "PodSecurity" not in said


def test_settings_of_the_pod(objects: list[dict[str, Any]]) -> None:
    """Its environment is one that the process takes, serves TLS from the Secret, and insists on nothing."""
    (pod,) = [
        each["spec"]["template"]["spec"]
        for each in objects
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", "api")
    ]
    (container,) = pod["containers"]
    api = settings.load(environ={each["name"]: each["value"] for each in container["env"]}).settings.api
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    secrets = {each["name"]: each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}

    assert (True, False, "0.0.0.0:8470") == (api.aggregated, api.insecure, api.listen)
    assert {"api-tls"} == {secrets[mounts[str(Path(each).parent)]] for each in (api.certificate, api.key)}
    assert {"HTTPS"} == {
        container[f"{probe}Probe"]["httpGet"]["scheme"] for probe in ("startup", "liveness", "readiness")
    }
    assert True is pod["automountServiceAccountToken"]


def test_the_role_names_every_kind(objects: list[dict[str, Any]]) -> None:
    """The roles for readers cover what is served, and nothing else."""
    roles = {each["metadata"]["name"]: each["rules"] for each in objects if each["kind"] == "ClusterRole"}
    ours = {"guests", *(f"guests/{kind}" for kind in GUESTWIRE.subresources)}
    kubevirts = {f"virtualmachineinstances/{kind}" for kind in KUBEVIRT.kinds}

    assert [ours] == [set(rule["resources"]) for rule in roles["guestwire-view"]]
    assert [kubevirts] == [set(rule["resources"]) for rule in roles["guestwire-view-kubevirt-paths"]]
