"""The world around a pipeline: a libvirt host and a cluster, and the settings that lead a pipeline to them."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from lab.build import LabParts
from lab.errors import LabError
from lab.guest import Guest
from lab.kube_apiserver import VMI_CRD, KubeApiserver
from lab.libvirtd import Libvirtd
from lab.process import OwnedDirectory, free_port


class Cluster(Protocol):
    """A Kubernetes cluster with VMIs."""

    kubeconfig: Path

    def kubectl(self, *args: str, input: str | None = None) -> str:  # noqa: A002
        """Run kubectl there and return what it printed; LabError when it fails."""
        ...


class ExistingCluster:
    """The cluster of a kubeconfig; nothing in it is changed but what a test or demo creates itself."""

    def __init__(self, kubeconfig: Path, kubectl: Path) -> None:
        self.kubeconfig = kubeconfig
        self._kubectl = kubectl
        if not kubeconfig.is_file():
            raise LabError(f"KUBECONFIG: no file {kubeconfig}")
        if "virtualmachineinstances" not in self.kubectl("get", "crd", "-o", "name"):
            self.kubectl("apply", "-f", str(VMI_CRD))
            self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(VMI_CRD))

    def kubectl(self, *args: str, input: str | None = None) -> str:  # noqa: A002
        """Run kubectl there and return what it printed; LabError when it fails."""
        argv = [str(self._kubectl), f"--kubeconfig={self.kubeconfig}", *args]
        done = subprocess.run(argv, input=input or "", capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise LabError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def __repr__(self) -> str:
        return f"<ExistingCluster {self.kubeconfig}>"


class World:
    """
    One host and one cluster, side by side, in a directory that ends with this process.

    Args:
        parts: What `lab.build.build` gives.
        kubeconfig: An existing cluster instead of an API server of its own.
    """

    def __init__(self, parts: LabParts, *, kubeconfig: Path | None = None) -> None:
        self._parts = parts
        self._existing = kubeconfig
        self._resources = ExitStack()
        self.host: Libvirtd
        self.cluster: Cluster
        self.directory: Path

    def __enter__(self) -> Self:
        self.directory = self._resources.enter_context(OwnedDirectory())
        with ThreadPoolExecutor() as starters:
            host = starters.submit(self._start_host)
            cluster = starters.submit(self._start_cluster)
            self.host, self.cluster = host.result(), cluster.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def __repr__(self) -> str:
        return f"<World {self.host!r} {self.cluster!r}>"

    @property
    def kubectl(self) -> Path:
        """The program."""
        return self._parts.kube.kubectl

    def create_vmi(self, namespace: str, name: str) -> str:
        """A VMI in phase Running, as KubeVirt leaves it once its domain runs; its uid."""
        manifest = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"domain": {"devices": {"interfaces": [{"name": "default", "bridge": {}}]}}},
            "status": {"phase": "Running"},
        }
        created = self.cluster.kubectl("create", "-f", "-", "-o", "json", input=json.dumps(manifest))
        if self._existing is not None:
            delete = ("delete", "vmi", name, "-n", namespace, "--ignore-not-found")
            self._resources.callback(self.cluster.kubectl, *delete)
        return str(json.loads(created)["metadata"]["uid"])

    def guest(self, *, namespace: str = "default", name: str, uid: str | None = None, **more: object) -> Guest:
        """A guest on the host, not started; without a uid one of its own."""
        return Guest(
            self.host,
            self._parts.image,
            namespace=namespace,
            name=name,
            uid=uid or str(uuid.uuid4()),
            **more,  # type: ignore[arg-type]
        )

    def environment(self, **settings: object) -> dict[str, str]:
        """An environment for a pipeline in this world; each keyword is a setting, e.g. `COLLECT__USERS=2`."""
        given: dict[str, object] = {
            "LIBVIRT__URIS": self.host.uri,
            "STATUS__KUBECONFIG": self.cluster.kubeconfig,
            "UP__STATE": self.directory / "state",
            "API__LISTEN": f"127.0.0.1:{free_port()}",
            "COLLECT__HEALTH": f"127.0.0.1:{free_port()}",
            "STATUS__HEALTH": f"127.0.0.1:{free_port()}",
            **settings,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GUESTWIRE_")}
        return {**inherited, **{f"GUESTWIRE_{name}": str(value) for name, value in given.items()}}

    def _start_host(self) -> Libvirtd:
        return self._resources.enter_context(Libvirtd(self.directory / "host"))

    def _start_cluster(self) -> Cluster:
        if self._existing is not None:
            return ExistingCluster(self._existing, self._parts.kube.kubectl)
        server = self._resources.enter_context(KubeApiserver(self._parts.kube, self.directory / "kube"))
        server.install_crd()
        return server
