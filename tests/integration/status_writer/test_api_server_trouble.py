"""An API server that refuses, fails, hangs and forgets: a real one, behind a proxy that goes wrong on purpose."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from guestwire.jetstream import Bus
from guestwire.snapshot import GuestRef, Kind
from lab.kube_apiserver import KubeApiserver
from lab.nats_server import NatsServer

from .conftest import Vmi, Writer, at, eventually, new_number, shows
from .faulty_proxy import Fault, FaultyProxy

PATIENCE = 60


@pytest.fixture
def account(kube: KubeApiserver) -> str:
    """A new service account with an administrator's rights."""
    name = f"account-{new_number()}"
    kube.kubectl("create", "serviceaccount", name, "-n", "default")
    binding = ("--clusterrole=cluster-admin", f"--serviceaccount=default:{name}")
    kube.kubectl("create", "clusterrolebinding", name, *binding)
    return name


@asynccontextmanager
async def behind(
    proxy: FaultyProxy, account: str, nats_server: NatsServer, directory: Path, **settings: object
) -> AsyncIterator[Writer]:
    """A writer that reaches the API server through a proxy, ready."""
    async with proxy.serving() as url:
        path = proxy.kubeconfig(url, account)
        own = Writer(proxy.kube, nats_server, directory, STATUS__KUBECONFIG=path, STATUS__TIMEOUT=1, **settings)
        own.process.start()
        try:
            await eventually(lambda: own.ready, PATIENCE, own.log.read_text())
            yield own
        finally:
            own.process.stop()


@pytest.mark.parametrize("trouble", [429, 500, 503, "hang", "close", "swallow"])
async def test_trouble_is_ridden_out(
    kube: KubeApiserver, cluster: str, account: str, nats_server: NatsServer, bus: Bus, tmp_path: Path, trouble: Fault
) -> None:
    """Whatever every second request of any kind comes to, in the end every VMI shows its guest's last word."""
    choice = random.Random(str(trouble))
    proxy = FaultyProxy(kube, tmp_path)
    many = [Vmi(kube, bus, GuestRef("default", f"trouble-{new_number()}"), cluster).create() for _ in range(4)]
    async with behind(proxy, account, nats_server, tmp_path, CLUSTER=cluster) as own:
        proxy.fault = lambda _: trouble if choice.random() < 0.5 else None
        for number in range(4):
            for vmi in many:
                await vmi.publish(Kind.AGENT, vmi.agent())
                await vmi.publish(Kind.INTERFACES, at(number))
            await asyncio.sleep(0.5)
        for vmi in many:
            await eventually(lambda vmi=vmi: shows(vmi, 3) and vmi.condition("AgentConnected"), PATIENCE)  # type: ignore[misc]
        proxy.fault = None
        await eventually(lambda: own.ready, PATIENCE)
        await eventually(lambda: own.metric("guestwire_status_oldest_unapplied_seconds") == 0, PATIENCE)

    assert any(fault == trouble for _, method, _, fault in proxy.seen if method == "PATCH")
    assert not [record for record in own.records() if record["level"] == "error"]


async def test_retry_after_is_respected(
    kube: KubeApiserver, cluster: str, account: str, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """An API server that asks for a pause gets it, and an unapplied message ages meanwhile."""
    proxy = FaultyProxy(kube, tmp_path, retry_after="3")
    vmi = Vmi(kube, bus, GuestRef("default", f"retry-{new_number()}"), cluster).create()
    async with behind(proxy, account, nats_server, tmp_path, CLUSTER=cluster) as own:
        proxy.fault = lambda request: 429 if request.startswith("PATCH") and not proxy.count("PATCH") else None
        await vmi.publish(Kind.AGENT, vmi.agent())
        await eventually(lambda: own.metric("guestwire_status_oldest_unapplied_seconds") > 1, PATIENCE)
        await eventually(lambda: vmi.condition("AgentConnected"), PATIENCE)
    first, second, *_ = [moment for moment, method, *_ in proxy.seen if method == "PATCH"]

    assert second - first >= 3


async def test_expired_watch(
    kube: KubeApiserver, cluster: str, account: str, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """When the server has forgotten the version a watch goes on from (410), a new list finds what was missed."""
    proxy = FaultyProxy(kube, tmp_path)
    async with behind(proxy, account, nats_server, tmp_path, CLUSTER=cluster) as own:
        proxy.rewrite = lambda path: re.sub(r"resourceVersion=\d+", "resourceVersion=1", path)
        proxy.fault = lambda request: "close" if "watch=true" in request else None
        proxy.break_connections()
        vmi = Vmi(kube, bus, GuestRef("default", f"expired-{new_number()}"), cluster).create()
        await vmi.publish(Kind.AGENT, vmi.agent())
        proxy.fault = None
        await eventually(lambda: own.records("watch expired, listing again"), PATIENCE)
        await eventually(lambda: vmi.condition("AgentConnected"), PATIENCE)
        proxy.rewrite = None
        await eventually(lambda: own.ready, PATIENCE)


async def test_renewed_token(
    kube: KubeApiserver, cluster: str, account: str, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """A token that is refused (401) is read again from the kubeconfig; messages wait until then, and none shows it."""
    path = kube.kubeconfig_for(account, "default")
    token = json.loads(path.read_text())["users"][0]["user"]["token"]
    own = Writer(kube, nats_server, tmp_path, STATUS__KUBECONFIG=path, CLUSTER=cluster)
    own.process.start()
    vmi = Vmi(kube, bus, GuestRef("default", f"renewed-{new_number()}"), cluster).create()
    await vmi.publish(Kind.AGENT, vmi.agent())
    try:
        await eventually(lambda: vmi.condition("AgentConnected"), PATIENCE)
        kube.kubectl("delete", "serviceaccount", account, "-n", "default")
        kube.kubectl("create", "serviceaccount", account, "-n", "default")
        number = 0
        for number in range(PATIENCE):  # the server remembers for some seconds that the old token was good
            await vmi.publish(Kind.INTERFACES, at(number))
            await asyncio.sleep(1)
            if own.records("the API server refuses the credentials, reading them again"):
                break
        assert not shows(vmi, number)
        kube.kubeconfig_for(account, "default")
        await eventually(lambda: shows(vmi, number), PATIENCE)
    finally:
        own.process.stop()

    assert token not in own.log.read_text()
