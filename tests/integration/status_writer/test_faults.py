"""What a process lives through: stops, restarts of its surroundings, refusals."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import status_writer.vmis
from guestwire.jetstream import Bus
from guestwire.settings import Nats, Status
from guestwire.snapshot import GuestRef, Kind
from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries
from lab.nats_server import NatsServer
from status_writer.answers import Expired
from status_writer.vmis import Vmis

from .conftest import GRACE, Vmi, Writer, eventually, new_number, quiet


async def started(one: Writer) -> Writer:
    """A process that is ready."""
    one.process.start()
    await eventually(lambda: one.ready, 60, one.log.read_text())
    return one


@pytest.fixture
def own(kube: KubeApiserver, nats_server: NatsServer, bus: Bus, tmp_path: Path) -> Iterator[Writer]:
    """A process of the test's own, not started yet."""
    one = Writer(kube, nats_server, tmp_path)
    yield one
    one.process.stop()


@pytest.fixture
def other_kube(kube_binaries: KubeBinaries, tmp_path: Path) -> Iterator[KubeApiserver]:
    """An API server of the test's own, without any definition yet."""
    with KubeApiserver(kube_binaries, tmp_path / "kube") as server:
        yield server


@pytest.fixture
async def other_nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A NATS server of the test's own, with the stream."""
    with NatsServer(tmp_path / "other-nats") as server:
        async with Bus(Nats(servers=(server.url,)), "test") as connection:
            await connection.ensure_stream()
        yield server


async def test_sigterm(own: Writer, vmi: Vmi) -> None:
    """SIGTERM ends it quickly and cleanly; what comes while it is away is written after its return."""
    await started(own)
    vmi.create()
    await vmi.publish(Kind.AGENT, vmi.agent())
    await eventually(lambda: vmi.condition("AgentConnected"))
    own.process.stop()
    status = own.process.wait()
    await vmi.publish(Kind.AGENT, vmi.agent(connected=False))
    await started(own)
    await eventually(lambda: vmi.condition("AgentConnected") is None)

    assert 0 == status


async def test_killed_in_the_middle_of_the_grace(own: Writer, vmi: Vmi) -> None:
    """The end of the grace is kept by a process that did not see its beginning."""
    await started(own)
    vmi.create(status={"phase": "Running", "guestOSInfo": {"id": "debian"}})
    await vmi.publish(Kind.AGENT, vmi.agent(connected=False))
    own.process.kill()
    await started(own)

    await eventually(lambda: "guestOSInfo" not in vmi.status, within=GRACE + 10)


async def test_api_server_killed_and_restarted(
    other_kube: KubeApiserver, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """While the API server is away the process is up and not ready; then it writes what came meanwhile."""
    other_kube.install_crd()
    own = Writer(other_kube, nats_server, tmp_path)
    vmi = Vmi(other_kube, bus, GuestRef("default", "restarted"))
    await started(own)
    try:
        vmi.create()
        await vmi.publish(Kind.AGENT, vmi.agent())
        await eventually(lambda: vmi.condition("AgentConnected"))
        other_kube.kill()
        await vmi.publish(Kind.AGENT, vmi.agent(connected=False))
        await eventually(lambda: not own.ready)
        alive = own.get("/healthz")
        reason = own.get("/readyz")
        other_kube.start()
        await eventually(lambda: vmi.condition("AgentConnected") is None, 60)
        await eventually(lambda: own.ready, 60)
    finally:
        own.process.stop()

    assert 200 == alive[0]
    assert (503, "not ready: not watching VMIs\n") == reason
    assert not [record for record in own.records() if record["level"] == "error"]


async def test_definition_comes_later(
    other_kube: KubeApiserver, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """Without VMIs in the cluster it waits, unready, says so once, and begins when their definition is installed."""
    own = Writer(other_kube, nats_server, tmp_path)
    own.process.start()
    try:
        await eventually(lambda: own.records("cannot watch VMIs, trying on"))
        ready_before = own.ready
        await asyncio.sleep(3)
        told = own.records("cannot watch VMIs, trying on")
        other_kube.install_crd("status-subresource")
        await eventually(lambda: own.ready, 60)
        vmi = Vmi(other_kube, bus, GuestRef("default", "subresource")).create()
        vmi.kube.kubectl(
            "patch",
            "vmi",
            vmi.ref.name,
            "--subresource=status",
            "--type=merge",
            "-p",
            '{"status": {"phase": "Running"}}',
        )
        await vmi.publish(Kind.AGENT, vmi.agent())
        await eventually(lambda: vmi.condition("AgentConnected"))
    finally:
        own.process.stop()

    assert not ready_before
    assert 1 == len(told)
    assert "virtualmachineinstances.kubevirt.io" in told[0]["error"]


async def test_status_becomes_a_subresource(
    other_kube: KubeApiserver, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """When the definition changes under a running process, it finds the new way to the status."""
    other_kube.install_crd()
    own = await started(Writer(other_kube, nats_server, tmp_path))
    try:
        vmi = Vmi(other_kube, bus, GuestRef("default", "changing")).create()
        await vmi.publish(Kind.AGENT, vmi.agent())
        await eventually(lambda: vmi.condition("AgentConnected"))
        other_kube.install_crd("status-subresource")
        await vmi.publish(Kind.AGENT, vmi.agent(connected=False))
        await eventually(lambda: vmi.condition("AgentConnected") is None, 30)
        other_kube.install_crd("kubevirt")
        await vmi.publish(Kind.AGENT, vmi.agent())
        await eventually(lambda: vmi.condition("AgentConnected"), 30)
    finally:
        own.process.stop()


async def test_impersonation_and_refused_rights(
    other_kube: KubeApiserver, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """It acts as the user of the settings, and with rights refused it says so once, unready, until they are granted."""
    other_kube.install_crd()
    acts_as = "system:serviceaccount:kubevirt:kubevirt-controller"
    other_kube.kubectl("create", "serviceaccount", "writer", "-n", "default")
    other_kube.kubectl("create", "clusterrole", "imp", "--verb=impersonate", "--resource=users,serviceaccounts")
    other_kube.kubectl("create", "clusterrolebinding", "imp", "--clusterrole=imp", "--serviceaccount=default:writer")
    own = Writer(
        other_kube,
        nats_server,
        tmp_path,
        STATUS__KUBECONFIG=other_kube.kubeconfig_for("writer", "default"),
        STATUS__IMPERSONATE_USER=acts_as,
    )
    own.process.start()

    def grant(name: str, verbs: str) -> None:
        resource = "--resource=virtualmachineinstances.kubevirt.io"
        other_kube.kubectl("create", "clusterrole", name, f"--verb={verbs}", resource)
        other_kube.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", f"--user={acts_as}")

    def told() -> list[str]:
        return [record["error"] for record in own.records("cannot watch VMIs, trying on")]

    try:
        await eventually(told)
        await asyncio.sleep(2)
        grant("patch", "patch")
        await eventually(lambda: len(told()) == 2, 60)
        ready_before = own.ready
        grant("watch", "get,list,watch")
        await eventually(lambda: own.ready, 60)
        vmi = Vmi(other_kube, bus, GuestRef("default", "as-another")).create()
        await vmi.publish(Kind.AGENT, vmi.agent())
        await eventually(lambda: vmi.condition("AgentConnected"))
    finally:
        own.process.stop()

    assert not ready_before
    assert f"{acts_as} may not patch virtualmachineinstances.kubevirt.io; grant the right" == told()[0]
    assert told()[1].startswith("list VMIs: 403")
    assert acts_as in told()[1]


async def test_nats_restarted(kube: KubeApiserver, other_nats: NatsServer, tmp_path: Path) -> None:
    """After a restart of NATS it goes on by itself."""
    own = await started(Writer(kube, other_nats, tmp_path))
    try:
        other_nats.kill()
        await eventually(lambda: not own.ready)
        other_nats.start()
        await eventually(lambda: own.ready, 30)
        async with Bus(Nats(servers=(other_nats.url,)), "test") as bus:
            vmi = Vmi(kube, bus, GuestRef("default", "after-restart")).create()
            await vmi.publish(Kind.AGENT, vmi.agent())
            await eventually(lambda: vmi.condition("AgentConnected"), 15)
    finally:
        own.process.stop()


async def test_starts_before_nats_and_stream(kube: KubeApiserver, tmp_path: Path) -> None:
    """It starts while NATS is away, waits for the stream, which is not its own to make, and then works."""
    server = NatsServer(tmp_path / "late")
    own = Writer(kube, server, tmp_path)
    own.process.start()
    try:
        await eventually(lambda: own.get("/readyz")[0] == 503)
        with server:
            await eventually(lambda: own.records("stream is not there yet"))
            async with Bus(Nats(servers=(server.url,)), "test") as bus:
                await bus.ensure_stream()
                await eventually(lambda: own.ready, 30)
                vmi = Vmi(kube, bus, GuestRef("default", "late")).create()
                await vmi.publish(Kind.AGENT, vmi.agent())
                await eventually(lambda: vmi.condition("AgentConnected"))
            own.process.stop()
    finally:
        own.process.stop()

    assert 0 == own.process.wait()


async def test_deleted_consumer_is_made_again(own: Writer, vmi: Vmi) -> None:
    """A consumer that somebody deletes is made again, and nothing is missed."""
    await started(own)
    vmi.create()
    await vmi.bus.js.delete_consumer(vmi.bus.settings.stream, own.durable)
    await vmi.publish(Kind.AGENT, vmi.agent())

    await eventually(lambda: vmi.condition("AgentConnected"), 15)


async def test_foreign_consumer_is_refused(own: Writer, bus: Bus) -> None:
    """A consumer of that name for other subjects is not used: the process ends with one line and status 2."""
    from nats.js.api import ConsumerConfig  # noqa: PLC0415

    await bus.js.add_consumer(
        bus.settings.stream, ConsumerConfig(durable_name=own.durable, filter_subject="guestwire.v1.x.*.*.*")
    )
    own.process.start()
    status = await asyncio.to_thread(own.process.wait, 30)

    assert 2 == status
    assert f"guestwire: status.durable: consumer {own.durable}" in own.log.read_text().splitlines()[-1]


async def test_two_replicas(
    own: Writer, vmi: Vmi, kube: KubeApiserver, nats_server: NatsServer, tmp_path: Path
) -> None:
    """Two processes share the work: what each writes stands, and they come to rest."""
    (tmp_path / "second").mkdir()
    second = Writer(kube, nats_server, tmp_path / "second", STATUS__DURABLE=own.durable)
    await started(own)
    try:
        await started(second)
        many = [Vmi(kube, vmi.bus, GuestRef("default", f"{vmi.ref.name}-{number}")).create() for number in range(10)]
        for _ in range(3):
            for one in many:
                await one.publish(Kind.AGENT, one.agent())
        for one in many:
            await eventually(lambda one=one: one.condition("AgentConnected"))  # type: ignore[misc]
        versions = [await quiet(one, 0.5) for one in many]
        await asyncio.sleep(1)
        assert versions == [one.version for one in many]
    finally:
        second.process.stop()


async def test_long_lists_come_in_pages(kube: KubeApiserver, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many VMIs there are, the first list brings them all, once each."""
    monkeypatch.setattr(status_writer.vmis, "PAGE", 2)
    made = [Vmi(kube, bus, GuestRef("default", f"page-{new_number()}")).create().ref for _ in range(5)]
    seen: list[GuestRef] = []
    async with Vmis(Status(kubeconfig=str(kube.kubeconfig)), seen.append) as vmis:
        await asyncio.wait_for(vmis._list(), 20)

        assert all(vmis.get(ref) for ref in made)
    assert len(seen) == len(set(seen)) >= 5


async def test_forgotten_version_is_told(kube: KubeApiserver) -> None:
    """A watch from a version that the server has forgotten ends so that a new list follows."""
    async with Vmis(Status(kubeconfig=str(kube.kubeconfig)), print) as vmis:
        vmis._version = "1"
        with pytest.raises(Expired):
            await asyncio.wait_for(vmis._watch(), 10)


def test_missing_kubeconfig_ends_with_one_line(nats_server: NatsServer, tmp_path: Path) -> None:
    """A kubeconfig that is not there ends the process at once, with one line and status 2."""
    done = subprocess.run(
        [Path(sys.executable).with_name("guestwire"), "write-status"],
        env={"GUESTWIRE_STATUS__KUBECONFIG": "/no/such/file", "GUESTWIRE_NATS__SERVERS": nats_server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (2, "guestwire: status.kubeconfig: no file /no/such/file\n") == (done.returncode, done.stderr)
