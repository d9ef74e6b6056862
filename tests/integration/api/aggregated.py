"""A cluster whose API server takes our API for its own, and the guests that it tells of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guestwire.snapshot import GuestRef, Kind
from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries
from lab.nats_server import NatsServer
from lab.process import Daemon, OwnedDirectory, wait_until
from tests.integration.api.fleet import Collector, state
from tests.integration.api.test_auth_cluster import RIGHTS, Site, built, led_here

PATIENCE = 90.0
VM, WEB, AWAY = GuestRef("default", "vm1"), GuestRef("default", "web"), GuestRef("other", "away")


class Cluster:
    """A cluster that serves guests, and their collector."""

    def __init__(self, site: Site, binaries: KubeBinaries, nats: NatsServer, collector: Collector) -> None:
        self.site = site
        self.collector = collector
        self.nats = nats
        self._kubectl = binaries.kubectl

    def kubectl(self, *args: str, check: bool = True) -> str:
        """What it prints."""
        return self.site.kube.kubectl(*args, check=check, timeout=60)

    def table(self, *args: str) -> list[list[str]]:
        """Columns of what it prints, parted as its first line is."""
        lines = self.kubectl(*args).splitlines()
        starts = [found.start() for found in re.finditer(r"\S+(?: \S+)*", lines[0])]
        ends = [*starts[1:], None]
        return [[line[begin:end].strip() for begin, end in zip(starts, ends, strict=True)] for line in lines]

    def running(self, log: Path, *args: str) -> Daemon:
        """It as a process."""
        return Daemon([self._kubectl, f"--kubeconfig={self.site.kube.kubeconfig}", *args], log=log)


@pytest.fixture(scope="module")
def cluster(kube_binaries: KubeBinaries) -> Iterator[Cluster]:
    """Three guests behind an API server: one of which all is known, one with two users, one whose agent is away."""
    with OwnedDirectory() as directory:
        kube, nats = KubeApiserver(kube_binaries, directory / "kube"), NatsServer(directory / "nats")
        kube.start()
        nats.start()
        for namespace in ("guestwire", "other"):
            kube.kubectl("create", "namespace", namespace)
        kube.kubectl("create", "serviceaccount", "api", "-n", "guestwire")
        site = Site(kube, directory, nats)
        kube.apply(led_here(built(kube_binaries, directory / "manifests"), site.port, site.authority.certificate))
        kube.apply(RIGHTS)
        collector = Collector(nats)
        collector.everything(VM)
        collector.guest(WEB, "alice", "bob")
        collector.publish((AWAY, Kind.AGENT, state(AWAY, connected=False)))
        site.daemon.start()
        try:
            site.daemon.ready(site.ready, PATIENCE)
            kube.kubectl("wait", "--for=condition=Available", "apiservice/v1.guestwire.io", "--timeout=60s", timeout=90)
            until(lambda: "error" not in kube.kubectl("get", "guests", check=False), "guests discovered")
            yield Cluster(site, kube_binaries, nats, collector)
        finally:
            for each in (site.daemon, kube, nats):
                each.stop()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for it."""
    wait_until(lambda: bool(condition()), PATIENCE, what)
