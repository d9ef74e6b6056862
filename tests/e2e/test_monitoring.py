"""
Monitoring as it is shipped: a real Prometheus, with the rules and the scrape jobs of deploy/monitoring, beside the
whole pipeline and a real guest; the dashboard's queries are asked of it.

Two guests more are there by their messages only: one with a newer agent, and one that is hostile. A second API gives
the names of KubeVirt.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from guestwire import client, codec, subjects
from guestwire.machine import Load
from guestwire.snapshot import (
    AgentState,
    Body,
    Filesystem,
    FilesystemInfo,
    FilesystemList,
    GuestOSInfo,
    GuestRef,
    Kind,
    ListMeta,
    OperatingSystem,
    Phase,
)
from lab.build import LabParts
from lab.guest_image import GuestImage
from lab.kube_build import KubeBinaries
from lab.process import Daemon, free_port
from lab.unpacked import unpacked
from lab.world import World
from tests.conftest import part

pytestmark = pytest.mark.lab

long_lived = pytest.mark.asyncio(loop_scope="module")

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
GUESTWIRE = Path(sys.executable).with_name("guestwire")
PATIENCE = 120.0
NAMINGS = ("guestwire_guest", "kubevirt_vmi")
EVIL = '/mnt/"} 1\nguestwire_guest_info{name="\\'


def panels() -> list[tuple[str, str]]:
    """Title and query of everything that the dashboard shows."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    return [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", ())]


def rules() -> list[dict[str, Any]]:
    """All rules."""
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def get(url: str) -> bytes:
    """A page; whatever is wrong with it is an OSError."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own addresses
        return bytes(answer.read())


@pytest.fixture(scope="module")
def programs() -> tuple[Path, ...]:
    """Prometheus and promtool."""
    with part("Prometheus"):
        return unpacked("prometheus", "prometheus", "promtool")
    raise AssertionError


class Site:
    """The pipeline, a second API with the names of KubeVirt, and Prometheus."""

    def __init__(self, world: World, prometheus: Path) -> None:
        ports = {name: free_port() for name in ("api", "kubevirt", "prometheus", "nats", "export")}
        self.nats = f"nats://127.0.0.1:{ports['nats']}"
        self.env = world.environment(
            UP__NATS=f"127.0.0.1:{ports['nats']}",
            API__LISTEN=f"127.0.0.1:{ports['api']}",
            NATS__SERVERS="",
            EXPORT__HEALTH=f"127.0.0.1:{ports['export']}",
        )
        del self.env["GUESTWIRE_NATS__SERVERS"]
        self.apis = [f"http://127.0.0.1:{ports[name]}" for name in ("api", "kubevirt")]
        self.url = f"http://127.0.0.1:{ports['prometheus']}"
        other = self.env | {
            "GUESTWIRE_NATS__SERVERS": self.nats,
            "GUESTWIRE_API__LISTEN": f"127.0.0.1:{ports['kubevirt']}",
            "GUESTWIRE_API__GUEST_METRICS": "kubevirt",
        }
        directory = world.directory / "prometheus"
        directory.mkdir()
        configuration = directory / "prometheus.yaml"
        configuration.write_text(yaml.safe_dump(self._configuration()))
        arguments = [
            f"--config.file={configuration}",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
        ]
        self.processes = [
            Daemon([GUESTWIRE, "up"], log=world.directory / "up.log", env=self.env),
            Daemon([GUESTWIRE, "serve"], log=world.directory / "serve.log", env=other),
            Daemon(
                [GUESTWIRE, "export", "--to", "parquet", str(world.directory / "export"), "--follow"],
                log=world.directory / "export.log",
                env=self.env | {"GUESTWIRE_NATS__SERVERS": self.nats},
            ),
            Daemon([prometheus, *arguments], log=directory / "log", env=dict(os.environ)),
        ]

    def _configuration(self) -> dict[str, Any]:
        """The one that is shipped, with this site's addresses, and more hurried."""
        shipped: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
        targets = {
            "guestwire-api": [urllib.parse.urlsplit(url).netloc for url in self.apis],
            "guestwire-collector": [self.env["GUESTWIRE_COLLECT__HEALTH"]],
            "guestwire-status-writer": [self.env["GUESTWIRE_STATUS__HEALTH"]],
            "guestwire-export": [self.env["GUESTWIRE_EXPORT__HEALTH"]],
        }
        for job in shipped["scrape_configs"]:
            job["static_configs"] = [{"targets": targets.pop(job["job_name"])}]
        assert not targets
        shipped["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        shipped["rule_files"] = [str(MONITORING / file) for file in shipped["rule_files"]]
        return shipped

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The result of a query; AssertionError when it is wrong."""
        try:
            answer = json.loads(get(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
        except urllib.error.HTTPError as error:
            pytest.fail(f"{query}: {error.read().decode()}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    async def answered(self, query: str, end: float | None = None) -> list[dict[str, Any]]:
        """The result, once there is one; until `end`."""
        end = end or time.monotonic() + PATIENCE
        while True:
            try:
                if result := await asyncio.to_thread(self.ask, query):
                    return result
            except OSError:
                pass
            if time.monotonic() > end:
                return []
            await asyncio.sleep(0.5)


@pytest.fixture(scope="module")
def world(image: GuestImage, kube_binaries: KubeBinaries) -> Iterator[World]:
    """A host and a cluster."""
    with World(LabParts(image, kube_binaries)) as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(world: World, programs: tuple[Path, ...]) -> AsyncIterator[Site]:
    """Everything, running, with all guests."""
    site = Site(world, programs[0])
    uid = world.create_vmi("default", "web")
    try:
        for process in site.processes:
            process.start()
        with world.guest(name="web", uid=uid) as guest:
            await asyncio.to_thread(guest.wait_agent)
            async with client.open(site.nats) as bus:
                await bus.ensure_stream()
                for ref, kind, body in said():
                    part = codec.part(kind, body, codec.now())
                    headers = codec.event_headers(
                        ref=ref,
                        uid="u1",
                        cluster="local",
                        host="other",
                        part=part,
                        message_id=codec.new_trace_id(),
                        trace_id=codec.new_trace_id(),
                    )
                    await bus.js.publish(subjects.subject("local", ref, kind), part.body, headers=headers)
            yield site
    finally:
        for process in reversed(site.processes):
            process.stop()


def said() -> Iterator[tuple[GuestRef, str, Body]]:
    """What two guests say."""
    for name, mount_point in (("newer", "/"), ("evil", EVIL)):
        ref = GuestRef("default", name)
        filesystem = Filesystem("vda1", mount_point, "ext4", 990, 1000)
        system = OperatingSystem(name=f"{mount_point}OS", version_id="1")
        yield (
            ref,
            Kind.AGENT,
            AgentState(
                "default",
                name,
                "u1",
                name,
                "u1",
                "other",
                Phase.RUNNING,
                channel=True,
                connected=True,
                since=codec.now(),
            ),
        )
        yield ref, Kind.GUESTOSINFO, GuestOSInfo(FilesystemInfo((filesystem,)), system, "UTC, 0")
        yield ref, Kind.FILESYSTEMLIST, FilesystemList((filesystem,), ListMeta())
        yield ref, Kind.LOAD, Load(0.5, 0.4, 0.3)


@long_lived
@pytest.mark.parametrize("names", NAMINGS)
async def test_every_panel_shows_something(site: Site, names: str) -> None:
    """Each query of the dashboard returns data, under our names and under KubeVirt's."""
    variables = {"${names}": names, "$namespace": ".*", "$guest": ".*", "$__rate_interval": "10s"}
    empty, end = [], time.monotonic() + PATIENCE
    for title, query in panels():
        for variable, value in variables.items():
            query = query.replace(variable, value)  # noqa: PLW2901
        assert "$" not in query, query
        if not await site.answered(query, end):
            empty.append((title, query))

    assert [] == empty


@long_lived
async def test_every_rule_works(site: Site) -> None:
    """Prometheus evaluates each rule without an error, and the full filesystems are found."""
    await site.answered('ALERTS{alertname="GuestFilesystemFull", name="newer"}')
    groups = json.loads(get(f"{site.url}/api/v1/rules"))["data"]["groups"]
    loaded = [rule for group in groups for rule in group["rules"]]

    assert [rule.get("alert", rule.get("record")) for rule in rules()] == [rule["name"] for rule in loaded]
    assert [] == [(rule["name"], rule["lastError"]) for rule in loaded if rule["health"] != "ok"]
    assert ["evil", "newer"] == sorted(
        alert["metric"]["name"] for alert in site.ask('ALERTS{alertname="GuestFilesystemFull"}')
    )


@long_lived
async def test_every_job_is_scraped(site: Site) -> None:
    """Each process of the shipped jobs answers, and an export tells how far it is."""
    jobs = [job["job_name"] for job in yaml.safe_load((MONITORING / "prometheus.yaml").read_text())["scrape_configs"]]
    for job in jobs:
        assert await site.answered(f'up{{job="{job}"}} == 1'), job

    assert 4 == len(jobs)
    assert await site.answered('guestwire_export_messages_total{job="guestwire-export"} > 0')


@long_lived
async def test_hostile_labels_arrive_as_they_are(site: Site) -> None:
    """What a guest puts into a name stays in its label, and makes no series of its own."""
    (sample,) = await site.answered('guestwire_guest_filesystem_used_bytes{name="evil"}')
    names = await site.answered("count by (name) (guestwire_guest_info)")

    assert EVIL == sample["metric"]["mount_point"]
    assert ["evil", "newer", "web"] == sorted(each["metric"]["name"] for each in names)


@long_lived
async def test_real_guest(site: Site) -> None:
    """The facts of the guest that runs, as its agent told them."""
    (info,) = await site.answered('guestwire_guest_info{name="web", guest_os_name!=""}')
    (same,) = await site.answered('kubevirt_vmi_info{name="web", guest_os_name!=""}')
    filesystems = await site.answered('guestwire_guest_filesystem_capacity_bytes{name="web"}')

    assert "Guestwire Lab Linux" == info["metric"]["guest_os_name"]
    assert {"__name__", "instance"} == {
        label
        for label in info["metric"].keys() | same["metric"]
        if info["metric"].get(label) != same["metric"].get(label)
    }
    assert filesystems
    assert all(float(each["value"][1]) > 0 for each in filesystems)


@long_lived
async def test_promtool_finds_nothing_to_say(site: Site, programs: tuple[Path, ...]) -> None:
    """The text is well-formed and follows the conventions of names, as it comes from both APIs."""
    await site.answered('kubevirt_vmi_filesystem_used_bytes{name="evil"}')
    for url in site.apis:
        text = await asyncio.to_thread(get, f"{url}/metrics")
        done = await asyncio.to_thread(checked, programs[1], text)

        assert (0, "") == (done.returncode, (done.stdout + done.stderr).decode())


def checked(promtool: Path, text: bytes) -> subprocess.CompletedProcess[bytes]:
    """What promtool says of metrics."""
    return subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)


@long_lived
async def test_rules_and_dashboard_name_metrics_that_exist(site: Site) -> None:
    """Every metric that a query names is known to Prometheus, or counts what may never happen."""
    await site.answered("guestwire_status_oldest_unapplied_seconds")
    known = set(json.loads(get(f"{site.url}/api/v1/label/__name__/values"))["data"])
    queries = [rule["expr"] for rule in rules()] + [
        query.replace("${names}", names) for _, query in panels() for names in NAMINGS
    ]
    words = {word for query in queries for word in re.findall(r"[a-zA-Z_:][\w:]*", query)}
    named = {word for word in words if word.startswith(("guest:", "guestwire_", "kubevirt_vmi_", "process_"))}

    assert set() == named - known - {"guestwire_guest"}


@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "rules.yaml"), ("check", "config", "prometheus.yaml"), ("test", "rules", "rules-test.yaml")],
)
def test_promtool_accepts_what_is_shipped(programs: tuple[Path, ...], arguments: tuple[str, ...]) -> None:
    """Rules and scrape jobs are valid, and the rules' own tests pass."""
    done = subprocess.run([programs[1], *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)

    assert (0, True) == (done.returncode, "SUCCESS" in done.stdout), done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    """Each has a case in which it fires."""
    cases = yaml.safe_load((MONITORING / "rules-test.yaml").read_text())["tests"]
    fires = {case["alertname"] for each in cases for case in each["alert_rule_test"] if case["exp_alerts"]}

    assert {rule["alert"] for rule in rules() if "alert" in rule} == fires
