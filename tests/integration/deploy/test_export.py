"""The part `export`, in an overlay of a user's own: as the API server takes it, and at work."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import duckdb
import pytest

from guestwire.errors import ConfigError
from guestwire.export import reading
from guestwire.jetstream import Bus
from guestwire.snapshot import GuestRef
from lab.nats_server import NatsServer

from . import test_admission as admission
from . import test_manifests as manifests
from .conftest import KUBERNETES, Build, Serve, named, pod_of, workloads
from .pod import Pod
from .test_pods import UID, answers, on_loopback, publish_agent, standing

pytestmark = pytest.mark.lab

Eventually = Callable[..., Awaitable[float]]


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The overlay for plain hosts and the part, put together as the documentation says."""
    directory = tmp_path_factory.mktemp("export")
    shutil.copytree(KUBERNETES, directory / "kubernetes")
    (directory / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\n"
        "kind: Kustomization\n"
        "resources: [kubernetes/overlays/plain]\n"
        "components: [kubernetes/components/export]\n"
    )
    return directory


@pytest.mark.parametrize(
    "holds",
    [
        manifests.test_images,
        manifests.test_no_process_is_killed_before_it_gives_up,
        manifests.test_locked_in,
        manifests.test_only_the_status_writer_holds_a_token,
        manifests.test_budgets_and_services_mean_one_workload,
        manifests.test_every_stage_reaches_nats,
    ],
)
def test_manifests(holds: Callable[[Build, Path], None], overlay: Path, build: Build) -> None:
    """What holds of the overlays holds of this one too."""
    assert "export" in {each["metadata"]["name"] for each in manifests.stages(build(overlay))}
    holds(build, overlay)


def test_admitted(overlay: Path, build: Build, serve_overlay: Serve) -> None:
    """The API server takes everything, and a pod of the export into its restricted namespace."""
    server = serve_overlay(overlay)
    for workload in workloads(build(overlay)):
        pod = pod_of(workload)
        assert f"pod/{pod['metadata']['name']} created (server dry run)\n" == admission.admit(server, pod)


async def test_at_work(
    overlay: Path, build: Build, nats_server: NatsServer, bus: Bus, tmp_path: Path, eventually: Eventually
) -> None:
    """With its account, its read-only root and its volume, the pod writes tables, which others may read."""
    objects = build(overlay)
    workload = named(objects, "StatefulSet", "export")
    environ, address = on_loopback(workload, objects, nats_server, "GUESTWIRE_EXPORT__HEALTH")

    def guests() -> list[tuple[str, ...]]:
        try:
            with reading.connect(tmp_path / "pod" / "tables" / "guests") as db:
                return db.sql("SELECT namespace, name FROM guests").fetchall()
        except (ConfigError, duckdb.Error):  # nothing was written yet
            return []

    await publish_agent(bus, GuestRef("default", "vmi"), UID)
    with Pod(workload, environ, tmp_path / "pod") as pod:
        pod.ready(lambda: answers(address, "/readyz"), 60)
        await eventually(lambda: guests() == [("default", "vmi")], 60, "no guest in the tables")
        found = standing(pod)

    assert ("10001", "0000000000000000", "1") == (found["Uid"], found["CapPrm"], found["NoNewPrivs"])
