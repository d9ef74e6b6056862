"""The API's pod behind the API server: with its account, its token and the Secret of the manifests."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from guestwire.jetstream import Bus
from lab.certificates import Authority
from lab.errors import LabError
from lab.kube_apiserver import KubeApiserver
from lab.nats_server import NatsServer
from lab.process import free_port
from tests.conftest import part

from .conftest import Account, Build, Serve, changed, environment, named
from .pod import Pod

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
SERVICE = "v1.guestwire.io"


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain overlay with that component, and readers' tokens, as a user would write it."""
    line = "components:\n"
    more = f"{line}  - ../../components/aggregation\n  - ../../components/readers\n"
    return changed("plain", tmp_path_factory.mktemp("overlay"), line, more)


@pytest.fixture
def server(overlay: Path, serve_overlay: Serve) -> KubeApiserver:
    """An API server that it was applied to."""
    return serve_overlay(overlay)


def secret(authority: Authority, directory: Path) -> Path:
    """What kubelet mounts of `api-tls`."""
    pair = authority.issue(directory / "pair", "api", hosts=["api.guestwire.svc", "127.0.0.1"])
    home = directory / "tls"
    home.mkdir()
    for source, name in ((pair.certificate, "tls.crt"), (pair.key, "tls.key")):
        (home / name).write_bytes(source.read_bytes())
        (home / name).chmod(0o440)
        os.chown(home / name, 0, 10001)
    return home


def token(server: KubeApiserver, directory: Path) -> Path:
    """What kubelet mounts of the account."""
    home = directory / "token"
    home.mkdir()
    (home / "token").write_text(server.token("api", "guestwire"))
    (home / "ca.crt").write_bytes(server.ca.certificate.read_bytes())
    return home


def readers(directory: Path, secret: str) -> Path:
    """What kubelet mounts of `api-readers`: one token, for everything."""
    home = directory / "readers"
    home.mkdir()
    file = home / "readers"
    file.write_text(f"alice sha256:{hashlib.sha256(secret.encode()).hexdigest()} *\n")
    file.chmod(0o440)
    os.chown(file, 0, 10001)
    return home


def lead_here(server: KubeApiserver, port: int, authority: Authority) -> None:
    """Make the Service one that leads to this machine, where no pod network is, and tell who signed."""
    bundle = base64.b64encode(authority.certificate.read_bytes()).decode()
    service = {"type": "ExternalName", "externalName": "localhost", "clusterIP": None, "clusterIPs": None}
    patches = {
        "service/api": {"spec": {**service, "ports": [], "selector": None}},
        f"apiservice/{SERVICE}": {"spec": {"caBundle": bundle, "service": {"port": port}}},
    }
    for what, patch in patches.items():
        server.kubectl("patch", what, "-n", "guestwire", "--type=merge", "-p", json.dumps(patch))


async def test_pod(
    server: KubeApiserver, overlay: Path, build: Build, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """
    The pod learns from the cluster it runs in whom to trust, is found Available, and asks it who may read. Who comes
    directly, as a browser does, gets the page, and guests for a token.
    """
    with part("root"):
        if os.geteuid() != 0:
            raise LabError("this test makes mounts")
    objects, port = build(overlay), free_port()
    workload = named(objects, "Deployment", "api")
    host, _, kube_port = server.url.removeprefix("https://").partition(":")
    environ = {
        **environment(workload, objects),
        "GUESTWIRE_NATS__SERVERS": nats_server.url,
        "GUESTWIRE_API__LISTEN": f"127.0.0.1:{port}",
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": kube_port,
    }
    authority = Authority(tmp_path / "ca", "ca")
    lead_here(server, port, authority)
    volumes = {
        TOKEN: token(server, tmp_path),
        environ["GUESTWIRE_API__CERTIFICATE"].rpartition("/")[0]: secret(authority, tmp_path),
        environ["GUESTWIRE_API__READERS"].rpartition("/")[0]: readers(tmp_path, "token-of-alice"),
    }
    context = ssl.create_default_context(cafile=str(authority.certificate))

    def direct(path: str, **headers: str) -> int:
        request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    path = "/apis/guestwire.io/v1/namespaces/default/guests/web/userlist"
    with Pod(workload, environ, tmp_path / "pod", volumes=volumes) as pod:
        pod.ready(lambda: direct("/readyz") == 200, 60)
        server.kubectl("wait", "--for=condition=Available", f"apiservice/{SERVICE}", "--timeout=60s", timeout=90)
        allowed = server.kubectl("get", "--raw", path, check=False)
        denied = server.kubectl("get", "--raw", path, "--as=eve", check=False)
        guests = "/apis/guestwire.io/v1/guests"
        page = [direct("/", Accept="text/html"), direct("/page/main.js")]
        by_token = [direct(guests, Authorization=f"Bearer {each}") for each in ("token-of-alice", "another")]
        by_cluster = direct(guests, Authorization=f"Bearer {server.token('api', 'guestwire')}")

    assert 'guests.guestwire.io "web" not found' in allowed
    assert 'User "eve" cannot get resource "guests/userlist"' in denied
    assert ([200, 200], [200, 401], 401) == (page, by_token, by_cluster)


@pytest.mark.parametrize(
    ("verb", "resource", "group", "name", "namespace", "expected"),
    [
        ("create", "subjectaccessreviews", "authorization.k8s.io", "", "", True),
        ("get", "configmaps", "", "extension-apiserver-authentication", "kube-system", True),
        ("get", "configmaps", "", "another", "kube-system", False),
        ("list", "secrets", "", "", "guestwire", False),
        ("get", "guests", "guestwire.io", "", "default", False),
        ("patch", "virtualmachineinstances", "kubevirt.io", "", "default", False),
    ],
)
def test_rights(
    server: KubeApiserver, verb: str, resource: str, group: str, name: str, namespace: str, expected: bool
) -> None:
    """The API's account may ask who may read, and whom to trust; nothing of what it serves, and nothing else."""
    may = Account(server, "guestwire", "api").may(verb, resource, group=group, name=name, namespace=namespace)

    assert expected == may
