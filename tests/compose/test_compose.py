"""compose.yaml for real: images of the sources, containers, the host's libvirt daemon, a guest's facts over REST."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

from lab.container_images import REPOSITORY, image_name, output
from lab.containers import Compose, leftovers
from lab.errors import LabError
from lab.guest import Guest
from lab.process import wait_until
from lab.world import World

# The first build takes minutes; only the tests themselves are held to their time.
pytestmark = [pytest.mark.lab, pytest.mark.compose, pytest.mark.timeout(180, func_only=True)]

STAGES = ("collector", "status-writer", "api", "export")
SERVICES = ("nats", *STAGES)
OSINFO = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/web/guestosinfo"


def get(port: int, path: str) -> tuple[int, Any]:
    """Status and decoded body of an answer of the API; status 0 while there is none."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.load(answer)
    except (OSError, HTTPException, ValueError):
        return 0, None
    finally:
        connection.close()


def test_facts_arrive(pipeline: Compose, guest: Guest, api_port: int) -> None:
    """Within a minute of the start, the published port answers what the guest's agent says about its system."""
    wait_until(lambda: get(api_port, OSINFO)[0] == 200, 60, "guestosinfo served")
    agent = guest.agent_command("guest-get-osinfo")
    served = get(api_port, OSINFO)[1]
    assert (agent["pretty-name"], agent["kernel-release"]) == (
        served["os"]["prettyName"],
        served["os"]["kernelRelease"],
    )


def test_status_is_written(pipeline: Compose, guest: Guest, world: World) -> None:
    """With the profile `kubernetes`, the facts arrive in the VMI's status as well."""

    def status() -> dict[str, Any]:
        vmi = json.loads(world.cluster.kubectl("get", "vmi", "web", "--namespace=default", "--output=json"))
        return dict(vmi["status"])

    wait_until(lambda: "guestOSInfo" in status(), 60, "guestOSInfo in the VMI's status")
    assert guest.agent_command("guest-get-osinfo")["pretty-name"] == status()["guestOSInfo"]["prettyName"]


def test_history_is_kept(pipeline: Compose, guest: Guest) -> None:
    """With the profile `export`, the facts arrive in tables, which the container's own DuckDB reads."""
    query = (
        "from pathlib import Path; from guestwire.export.reading import connect; "
        "db = connect(Path('/var/lib/guestwire-export/guests')); "
        "print(db.sql('SELECT name, kernel_release FROM guests').fetchall())"
    )

    def rows() -> str:
        try:
            return pipeline.execute("export", "python3", "-c", query)
        except LabError:  # nothing was written yet
            return ""

    wanted = f"[('web', '{guest.agent_command('guest-get-osinfo')['kernel-release']}')]"
    wait_until(lambda: rows() == wanted, 60, "the guest in the export's tables")


@pytest.mark.parametrize("service", SERVICES)
def test_health_check(pipeline: Compose, service: str) -> None:
    """The health check that the file declares passes in the container."""
    wait_until(lambda: pipeline.healthy(service), 30, f"{service} healthy")


@pytest.mark.parametrize("service", SERVICES)
def test_processes_have_no_rights(pipeline: Compose, service: str) -> None:
    """No process of a service is root, has a capability or can gain one, and all see a read-only root."""
    told = pipeline.execute(service, "sh", "-c", "cat /proc/[0-9]*/status")
    rights = {field: set(re.findall(rf"^{field}:\s*(\S+)", told, re.MULTILINE)) for field in ("CapEff", "NoNewPrivs")}
    assert {"CapEff": {"0000000000000000"}, "NoNewPrivs": {"1"}} == rights
    assert "0" not in re.findall(r"^Uid:\s*(\d+)", told, re.MULTILINE)
    mounts = [line.split() for line in pipeline.execute(service, "cat", "/proc/1/mounts").splitlines()]
    assert ["ro"] == [options.split(",")[0] for _, path, _, options, *_ in mounts if path == "/"]


def test_published_on_loopback_only(pipeline: Compose) -> None:
    """The API's port is open on the host's loopback address, and no other service publishes one."""
    bindings = {service: pipeline.inspect(service)["HostConfig"]["PortBindings"] for service in SERVICES}
    addresses = {
        service: [each["HostIp"] for ports in found.values() for each in ports] for service, found in bindings.items()
    }
    assert {service: ["127.0.0.1"] if service == "api" else [] for service in SERVICES} == addresses


def test_facts_outlive_the_containers(pipeline: Compose, api_port: int) -> None:
    """NATS keeps its stream in the volume: a new start of server and API serves the facts without a collector."""
    collector, nats, api = (pipeline.container(service) for service in ("collector", "nats", "api"))
    output(["podman", "stop", "--time=25", collector, api])
    output(["podman", "restart", nats])
    output(["podman", "start", api])
    wait_until(lambda: get(api_port, OSINFO)[0] == 200, 30, "guestosinfo served again")
    output(["podman", "start", collector])


def test_stop_is_clean(pipeline: Compose) -> None:
    """Each stage ends by itself on SIGTERM, with status 0."""
    for stage in STAGES:
        wait_until(partial(pipeline.healthy, stage), 30, f"{stage} healthy")
    output(["podman", "stop", "--time=25", *(pipeline.container(stage) for stage in STAGES)])
    assert dict.fromkeys(STAGES, 0) == {stage: pipeline.inspect(stage)["State"]["ExitCode"] for stage in STAGES}


def test_stop_right_after_start(pipeline: Compose) -> None:
    """A stage that is told to stop before it listens to signals stops as well, at once."""
    collector = pipeline.container("collector")
    output(["podman", "restart", "--time=25", collector])
    began = time.monotonic()
    output(["podman", "stop", "--time=25", collector])
    assert time.monotonic() - began < 12


def test_down_leaves_nothing(images: None) -> None:
    """`down` removes the containers, the network and the volume."""
    with Compose({"LIBVIRT_GID": "0"}, progress=print) as compose:
        compose.up("nats")
        wait_until(lambda: compose.healthy("nats"), 30, "nats healthy")
        before = leftovers(compose.project)
        compose.down()
        names = {"nats_1", "nats-data", "default"}
        assert ({f"{compose.project}_{name}" for name in names}, []) == (set(before), leftovers(compose.project))


def test_nothing_outlives_a_killed_owner(images: None) -> None:
    """Containers, network and volume are removed, too, when the process that started them is killed."""
    program = (
        "import time\n"
        "from lab.containers import Compose\n"
        "with Compose({'LIBVIRT_GID': '0'}, progress=lambda line: None) as compose:\n"
        "    compose.up('nats')\n"
        "    print(compose.project, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        project = owner.stdout.readline().strip()
        started = leftovers(project)
        owner.send_signal(signal.SIGKILL)
    assert [] != started
    wait_until(lambda: leftovers(project) == [], 60, "everything removed")


@pytest.mark.parametrize("stage", STAGES)
def test_image_holds_its_stage_alone(images: None, stage: str) -> None:
    """An image has the distributions of its own requirement file and the project; no installer, no compiler."""
    names = "import importlib.metadata as m; print(*{d.name for d in m.distributions(path=m.sys.path[-1:])})"
    shell = f"python3 -c '{names}'; command -v pip gcc cc; true"
    installed, *tools = output(
        ["podman", "run", "--rm", "--entrypoint=sh", image_name(stage), "-c", shell]
    ).splitlines()
    pinned = re.findall(r"^([\w.-]+)==", (REPOSITORY / "requirements" / f"{stage}.txt").read_text(), re.MULTILINE)
    expected = {normal(name) for name in [*pinned, "guestwire", "guestwire-stages"]}
    assert (expected, []) == ({normal(name) for name in installed.split()}, tools)


@pytest.mark.parametrize("stage", STAGES)
def test_image_starts_its_command(images: None, stage: str) -> None:
    """Each image's command is the project's of that stage, with all it imports at hand: its help is printed."""
    config = json.loads(output(["podman", "image", "inspect", image_name(stage)]))[0]["Config"]
    assert (["guestwire"], "10001:10001") == (config["Entrypoint"], config["User"])
    told = output(["podman", "run", "--rm", image_name(stage), *config["Cmd"], "--help"])
    assert f"guestwire {config['Cmd'][0]} [OPTIONS]" in told


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
