"""A real kube-apiserver, ready in seconds, with its store in the same process.

It is the whole API of a cluster and nothing below it: resources, RBAC, tokens, webhooks, aggregation. No controller
runs, so nothing collects objects by owner, a deleted namespace stays Terminating, and the only service accounts are
those that somebody creates. It listens on 127.0.0.1; what a caller may do there is up to RBAC, as in any cluster.

The directory holds all there is: keys, store, log. The same directory and port started again are the same cluster
again, after `kill` too.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any, Literal

import yaml

from lab.certificates import Authority, KeyPair, new_key, write_private
from lab.errors import LabError
from lab.kube_build import KubeBinaries
from lab.part import Part
from lab.process import Daemon, free_port, wait_until

AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Request
    resources: [{group: authorization.k8s.io, resources: [subjectaccessreviews]}]
  - level: None
"""
VMI_CRD = Path(__file__).parent / "crds" / "virtualmachineinstances.yaml"
START_SECONDS = 90.0
"""Patience with a start: 3 s are normal, a loaded machine takes many times that."""


class KubeApiserver(Part):
    """One API server on 127.0.0.1, and an administrator's ways into it.

    Args:
        binaries: What `lab.kube_build.build` gives.
        directory: Its home; made when missing.
        port: TCP port to serve on, a free one by default; kept over restarts.

    Attributes:
        url: Where it serves, e.g. `https://127.0.0.1:43210`.
        kubeconfig: Kubeconfig file of an administrator; needs no other file.
        log: Output of all runs.
        ca: Signs the serving certificate, and client certificates (CN is the user, O the group).
        front_proxy_ca: Signs for the requests that the API server relays to extension API servers.
        front_proxy: The certificate (`CN=front-proxy-client`) it relays them with.
    """

    def __init__(self, binaries: KubeBinaries, directory: Path, *, port: int | None = None) -> None:
        self._binaries = binaries
        self._directory = directory.absolute()
        self._port = port or free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self.log = self._directory / "kube-apiserver.log"
        self._audit = self._directory / "audit.log"

        keys = self._directory / "keys"
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ca = Authority(keys / "ca", "lab-ca")
        self.front_proxy_ca = Authority(keys / "front-proxy-ca", "lab-front-proxy-ca")
        self.front_proxy = self.front_proxy_ca.issue(keys / "front-proxy", "front-proxy-client")
        self._admin = self.ca.issue(keys / "admin", "lab-admin", organization="system:masters")
        serving = self.ca.issue(keys / "serving", "kube-apiserver", hosts=["localhost", "127.0.0.1"])
        token_key = keys / "service-accounts.key"
        if not token_key.exists():
            new_key(token_key)
        admin = {
            "client-certificate-data": _inline(self._admin.certificate),
            "client-key-data": _inline(self._admin.key),
        }
        self.kubeconfig = self._write_kubeconfig("kubeconfig", admin)
        self._policy = self._directory / "audit-policy.yaml"
        self._policy.write_text(AUDIT_POLICY)
        self._daemon = Daemon([binaries.apiserver, *self._flags(serving, token_key)], log=self.log)

    def start(self) -> None:
        """Start it, or start it again, and return when it is ready.

        Raises:
            LabError: it is not ready within 90 s or ended before; with the tail of its log.
        """
        self._daemon.start()
        try:
            self._daemon.ready(lambda: self._get("/readyz") == b"ok", START_SECONDS)
        except BaseException:
            self._daemon.kill()
            raise

    def stop(self) -> None:
        """End it as a cluster's administrator would; what was written stays for the next start."""
        self._daemon.stop()

    def kill(self) -> None:
        """End it with SIGKILL; what was written stays for the next start."""
        self._daemon.kill()

    @property
    def pid(self) -> int | None:
        """Its process id, None when it does not run."""
        return self._daemon.pid

    def kubectl(self, *args: str, input: str | None = None, check: bool = True, timeout: float = 30) -> str:  # noqa: A002
        """Run kubectl as administrator and return its standard output.

        Args:
            args: As on a command line; they come after `--kubeconfig`, so another one overrides it.
            input: Its standard input.
            check: Raise when it fails. Else return what it printed on both outputs.
            timeout: Seconds it may take.

        Raises:
            LabError: it failed, with what it said; or it took too long.
        """
        shown = "kubectl " + " ".join(args)
        try:
            done = subprocess.run(
                [self._binaries.kubectl, f"--kubeconfig={self.kubeconfig}", *args],
                input=input or "",
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._directory), "KUBERC": "off"},
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"{shown}: not done after {timeout:g} s") from None
        if not check:
            return done.stdout + done.stderr
        if done.returncode != 0:
            raise LabError(f"{shown}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, manifest: Path | str) -> str:
        """Apply a manifest: a file or a directory (`Path`), or YAML or JSON text (`str`)."""
        if isinstance(manifest, Path):
            return self.kubectl("apply", "-f", str(manifest))
        return self.kubectl("apply", "-f", "-", input=manifest)

    def reviews(self) -> list[dict[str, Any]]:
        """What others have asked it about who may do what: the specs of their SubjectAccessReviews, oldest first."""
        lines = self._audit.read_text().splitlines() if self._audit.exists() else []
        return [json.loads(line)["requestObject"]["spec"] for line in lines]

    def install_crd(self, variant: Literal["kubevirt", "status-subresource"] = "kubevirt") -> None:
        """Install the VMI definition and return when it is served; another variant replaces the present one.

        `kubevirt` is as KubeVirt has it: the status is written through the object itself, and `/status` is 404.
        `status-subresource` is what most other resources have. The first object after that may take 2 s: the server
        holds back creations right after a definition appears.
        """
        crd = yaml.safe_load(VMI_CRD.read_text())
        expected = {"virtualmachineinstances"}
        if variant == "status-subresource":
            expected.add("virtualmachineinstances/status")
            for version in crd["spec"]["versions"]:
                version["subresources"] = {"status": {}}
        self.apply(json.dumps(crd))

        def served() -> bool:
            answer = self._get("/apis/kubevirt.io/v1")
            return answer is not None and {each["name"] for each in json.loads(answer)["resources"]} == expected

        wait_until(served, 30, f"the VMI definition ({variant}) is not served")

    def token(self, service_account: str, namespace: str) -> str:
        """A bearer token, good for one hour, of a service account that exists."""
        return self.kubectl("create", "token", service_account, "--namespace", namespace, "--duration=1h").strip()

    def kubeconfig_for(self, service_account: str, namespace: str) -> Path:
        """A kubeconfig file that acts as a service account that exists, by a token good for one hour."""
        user = {"token": self.token(service_account, namespace)}
        return self._write_kubeconfig(f"kubeconfig-{namespace}-{service_account}", user)

    def __repr__(self) -> str:
        return f"<KubeApiserver {self.url} {'running' if self._daemon.alive else 'stopped'}>"

    def _flags(self, serving: KeyPair, token_key: Path) -> list[str]:
        flags = {
            "etcd-directory": self._directory / "etcd",
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",  # else it looks for a default route, which a sealed machine has not
            "secure-port": self._port,
            "endpoint-reconciler-type": "none",  # the default one refuses a loopback address
            "tls-cert-file": serving.certificate,
            "tls-private-key-file": serving.key,
            "client-ca-file": self.ca.certificate,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": token_key,
            "service-account-signing-key-file": token_key,
            "service-cluster-ip-range": "10.0.0.0/24",
            "authorization-mode": "RBAC",
            "allow-privileged": "true",  # as clusters have it: manifests of node agents must pass
            "disable-admission-plugins": "ServiceAccount",  # it waits for accounts that a controller would make
            "requestheader-client-ca-file": self.front_proxy_ca.certificate,
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-uid-headers": "X-Remote-Uid",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "proxy-client-cert-file": self.front_proxy.certificate,
            "proxy-client-key-file": self.front_proxy.key,
            "audit-policy-file": self._policy,
            "audit-log-path": self._audit,
        }
        return [f"--{name}={value}" for name, value in flags.items()]

    def _get(self, path: str) -> bytes | None:
        """Body of a GET as administrator; None when there is no answer or it is not 200."""
        context = ssl.create_default_context(cafile=str(self.ca.certificate))
        context.load_cert_chain(self._admin.certificate, self._admin.key)
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=2, context=context)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read() if response.status == http.HTTPStatus.OK else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _write_kubeconfig(self, name: str, user: dict[str, str]) -> Path:
        cluster = {"server": self.url, "certificate-authority-data": _inline(self.ca.certificate)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "lab", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "current-context": "lab",
        }
        path = self._directory / name
        write_private(path, json.dumps(config, indent=2).encode())
        return path


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
