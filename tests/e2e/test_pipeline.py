"""
The whole pipeline as people run it: `guestwire up`, a real guest, a real API server, plain HTTP.

What REST answers is compared with KubeVirt's conversion of the same guest's raw agent replies, restated here.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guestwire import client
from guestwire.jetstream import Message
from lab.build import LabParts
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.kube_build import KubeBinaries
from lab.process import free_port
from lab.world import World

NAMESPACE, NAME = "default", "web"
PREFIX = f"/apis/subresources.kubevirt.io/{{}}/namespaces/{NAMESPACE}/virtualmachineinstances"
GUESTWIRE = Path(sys.executable).with_name("guestwire")
Eventually = Callable[..., Awaitable[float]]


class Pipeline:
    """`guestwire up` in a world with a VMI and its guest."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.env = world.environment(
            UP__NATS=f"127.0.0.1:{free_port()}",
            COLLECT__USERS=0.5,
            COLLECT__INTERFACES=0.5,
            COLLECT__SYSTEM=0.5,
            COLLECT__FILESYSTEMS=0.5,
            STATUS__GRACE=2,
            STATUS__MIN_INTERVAL=0.1,
        )
        self.nats = f"nats://{self.env['GUESTWIRE_UP__NATS']}"
        self.log = world.directory / "up.log"
        self.start()

    def start(self) -> None:
        """Start it."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen([GUESTWIRE, "up"], env=self.env, stdout=log, stderr=log)

    def end(self) -> int:
        """Ctrl-C; its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def children(self) -> list[str]:
        """Process ids of what it runs."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=True)
        return found.stdout.split()

    def kill_child(self, command: str) -> None:
        """SIGKILL for one of its processes."""
        parent = str(self.process.pid)
        subprocess.run(["pkill", "-KILL", "-P", parent, "-f", f"guestwire.cli {command}"], check=True)

    def get(self, subresource: str, *, name: str = NAME, version: str = "v1", etag: str = "") -> tuple[int, Any, Any]:
        """Status, body and headers of a plain GET; status 0 when nobody answers."""
        url = f"http://{self.env['GUESTWIRE_API__LISTEN']}{PREFIX.format(version)}/{name}/{subresource}"
        request = urllib.request.Request(url, headers={"If-None-Match": etag} if etag else {})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - our own
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), error.headers
        except OSError:
            return 0, b"", {}

    def json(self, subresource: str, **more: Any) -> Any:
        """The body."""
        body = self.get(subresource, **more)[1]
        return json.loads(body) if body else None

    def status(self, name: str = NAME) -> dict[str, Any]:
        """The VMI's status."""
        text = self.world.cluster.kubectl("get", "vmi", name, "-n", NAMESPACE, "-o", "json")
        status: dict[str, Any] = json.loads(text)["status"]
        return status

    def condition(self) -> dict[str, Any] | None:
        """AgentConnected."""
        conditions = self.status().get("conditions", [])
        return next((condition for condition in conditions if condition["type"] == "AgentConnected"), None)

    async def messages(self) -> list[Message]:
        """The stream's last message per subject."""
        async with client.open(self.nats) as bus:
            return [message async for message in client.follow(bus, live=False)]

    async def revision(self) -> int:
        """The stream's newest message."""
        return max(message.revision for message in await self.messages())


@pytest.fixture(scope="module")
def world(image: GuestImage, kube_binaries: KubeBinaries) -> Iterator[World]:
    """A host and a cluster."""
    with World(LabParts(image, kube_binaries)) as one:
        yield one


@pytest.fixture(scope="module")
def pipeline(world: World) -> Iterator[Pipeline]:
    """The pipeline, and a VMI for its guest."""
    one = Pipeline(world)
    yield one
    if one.process.poll() is None:
        one.end()


@pytest.fixture(scope="module")
def guest(world: World, pipeline: Pipeline) -> Iterator[Guest]:
    """The VMI's guest, once its agent has connected."""
    uid = world.create_vmi(NAMESPACE, NAME)
    with world.guest(namespace=NAMESPACE, name=NAME, uid=uid) as machine:
        machine.wait_agent()
        yield machine


async def settled(pipeline: Pipeline, eventually: Eventually) -> None:
    """Until everything about the guest is known everywhere."""
    await eventually(lambda: "filesystemlist" and b"/data" in pipeline.get("filesystemlist")[1], within=60)
    await eventually(lambda: pipeline.status().get("guestOSInfo"), within=30)
    await eventually(lambda: "10.0.2.15" in str(pipeline.status().get("interfaces")), within=30)


def kubevirt(guest: Guest) -> dict[str, Any]:
    """KubeVirt's conversion of what the agent says now (agent_parser.go, manager.go)."""
    info, os_, zone = (guest.agent_command(f"guest-{name}") for name in ("info", "get-osinfo", "get-timezone"))
    users = [
        {"userName": user["user"], **({"loginTime": user["login-time"]} if user["login-time"] else {})}
        for user in guest.agent_command("guest-get-users")
    ]
    filesystems = [
        {
            "diskName": entry["name"],
            "mountPoint": entry["mountpoint"],
            "fileSystemType": entry["type"],
            "usedBytes": entry.get("used-bytes", 0),
            "totalBytes": entry.get("total-bytes", 0),
            **({"disk": [{"busType": disk["bus-type"]} for disk in entry["disk"]]} if entry["disk"] else {}),
        }
        for entry in guest.agent_command("guest-get-fsinfo")
    ]
    keys = {"name", "kernel-release", "version", "pretty-name", "version-id", "kernel-version", "machine", "id"}
    camel = {key: key.split("-")[0] + "".join(word.title() for word in key.split("-")[1:]) for key in keys}
    commands = [
        {"name": command["name"], **({"enabled": True} if command["enabled"] else {})}
        for command in info["supported_commands"]
    ]
    return {
        "guestosinfo": {
            "guestAgentVersion": info["version"],
            "supportedCommands": commands,
            "hostname": guest.agent_command("guest-get-host-name")["host-name"],
            "os": {camel[key]: value for key, value in os_.items() if key in keys},
            "timezone": f"{zone.get('zone', '')}, {zone['offset']}",
            **({"userList": users[:10]} if users else {}),
            "fsInfo": {"disks": filesystems[:10] or None},
            "fsFreezeStatus": guest.agent_command("guest-fsfreeze-status"),
        },
        "userlist": {"items": users, "metadata": {}},
        "filesystemlist": {"items": filesystems, "metadata": {}},
    }


async def test_equal_to_kubevirt(pipeline: Pipeline, guest: Guest, eventually: Eventually) -> None:
    """With 12 users and 12 filesystems each answer equals KubeVirt's for the same guest, in both versions."""
    await settled(pipeline, eventually)
    users, mounts = [f"user{number}" for number in range(12)], [f"/mnt{number}" for number in range(11)]
    guest.control("login", *users)
    for mount in mounts:
        guest.control("filesystem", "add", mount)
    for subresource, expected in kubevirt(guest).items():
        await eventually(lambda s=subresource, e=expected: e == pipeline.json(s), what=subresource)
        assert expected == pipeline.json(subresource, version="v1alpha3")
    await eventually(lambda: len(pipeline.json("guestosinfo")["userList"]) == 10)
    assert (12, 12) == (len(pipeline.json("userlist")["items"]), len(pipeline.json("filesystemlist")["items"]))
    guest.control("logout", *users)
    for mount in mounts:
        guest.control("filesystem", "del", mount)
    await eventually(lambda: pipeline.json("userlist")["items"] == [])
    await eventually(lambda: len(pipeline.json("filesystemlist")["items"]) == 1)


async def test_bytes_and_revisions(pipeline: Pipeline, guest: Guest, eventually: Eventually) -> None:
    """REST answers the message's bytes; the sequence is the ETag, and what a client has is not sent again."""
    await settled(pipeline, eventually)
    await asyncio.sleep(2)  # what the test before changed has arrived in every kind
    for message in await pipeline.messages():
        if message.address.kind in {"guestosinfo", "userlist", "filesystemlist"}:
            status, body, headers = pipeline.get(message.address.kind)
            assert (200, message.body, f'"{message.revision}"') == (status, body, headers["ETag"])
            assert (304, b"") == pipeline.get(message.address.kind, etag=headers["ETag"])[:2]


async def test_status(pipeline: Pipeline, guest: Guest, eventually: Eventually) -> None:
    """The condition with its times, guestOSInfo's eight fields, and the merged interfaces."""
    await settled(pipeline, eventually)
    status, condition = pipeline.status(), pipeline.condition()
    assert condition is not None
    assert ("True", True, True) == (
        condition["status"], bool(condition["lastProbeTime"]), bool(condition["lastTransitionTime"])
    )  # fmt: skip
    assert pipeline.json("guestosinfo")["os"] == status["guestOSInfo"]
    assert 8 == len(status["guestOSInfo"])
    [interface] = status["interfaces"]
    addresses = interface.pop("ipAddresses")
    assert "10.0.2.15" == addresses[0]
    assert {
        "name": "default",
        "mac": guest.mac,
        "interfaceName": "eth0",
        "ipAddress": "10.0.2.15",
        "infoSource": "domain, guest-agent",
        "queueCount": 1,
        "linkState": "up",
    } == interface


async def test_unchanged_costs_nothing(pipeline: Pipeline, guest: Guest, eventually: Eventually) -> None:
    """Nothing changes in the guest: no message, and the VMI is not written."""
    await settled(pipeline, eventually)
    await asyncio.sleep(3)
    before = (await pipeline.revision(), pipeline.world.cluster.kubectl("get", "vmi", NAME, "-o", "yaml"))
    await asyncio.sleep(5)

    assert before == (await pipeline.revision(), pipeline.world.cluster.kubectl("get", "vmi", NAME, "-o", "yaml"))


async def test_agent_dies_and_returns(pipeline: Pipeline, guest: Guest, eventually: Eventually) -> None:
    """Condition removed, 409 with KubeVirt's words, information no longer shown; and all of it back."""
    await settled(pipeline, eventually)
    guest.control("agent", "kill")
    await eventually(lambda: pipeline.get("guestosinfo")[0] == 409)
    answer = pipeline.json("userlist")
    expected = f'virtualmachineinstance.kubevirt.io "{NAME}": VMI does not have guest agent connected'
    assert f"Operation cannot be fulfilled on {expected}" == answer["message"]
    assert ("Status", 409, "Conflict") == (answer["kind"], answer["code"], answer["reason"])
    await eventually(lambda: pipeline.condition() is None)
    await eventually(lambda: not pipeline.status().get("guestOSInfo"))
    assert "10.0.2.15" not in str(pipeline.status())
    guest.control("agent", "start")
    await settled(pipeline, eventually)
    assert pipeline.condition() is not None


async def test_frozen(pipeline: Pipeline, guest: Guest, eventually: Eventually) -> None:
    """The VMI says fsFreezeStatus while frozen, and nothing else lost."""
    await settled(pipeline, eventually)
    before = pipeline.json("filesystemlist")
    guest.agent_command("guest-fsfreeze-freeze")
    await eventually(lambda: pipeline.status().get("fsFreezeStatus") == "frozen")
    assert before == pipeline.json("filesystemlist")
    guest.agent_command("guest-fsfreeze-thaw")
    await eventually(lambda: "fsFreezeStatus" not in pipeline.status())


async def test_no_agent(world: World, pipeline: Pipeline, guest: Guest, eventually: Eventually) -> None:
    """A guest without an agent channel: nothing shown, no error, no noise."""
    uid = world.create_vmi(NAMESPACE, "bare")
    with world.guest(namespace=NAMESPACE, name="bare", uid=uid, agent_channel=False):
        await eventually(lambda: pipeline.get("guestosinfo", name="bare")[0] == 409)
        await asyncio.sleep(2)
        status = pipeline.status("bare")
        assert {"phase", "interfaces"} == set(status)  # the domain's NIC, as KubeVirt shows it without an agent
        assert ["domain"] == [interface["infoSource"] for interface in status["interfaces"]]
    await eventually(lambda: pipeline.get("guestosinfo", name="bare")[0] == 404)
    expected = 'virtualmachineinstance.kubevirt.io "bare" not found'
    assert expected == pipeline.json("guestosinfo", name="bare")["message"]
    assert "bare" not in "".join(_records(pipeline, "warning") + _records(pipeline, "error"))


async def test_restart_is_silent(pipeline: Pipeline, guest: Guest, eventually: Eventually) -> None:
    """Everything stops in order with status 0; started again, nothing that did not change is published."""
    await settled(pipeline, eventually)
    await asyncio.sleep(2)
    before = await pipeline.revision()
    assert 0 == pipeline.end()
    pipeline.start()
    await settled(pipeline, eventually)
    await asyncio.sleep(3)

    assert before == await pipeline.revision()


async def test_killed_children_return(pipeline: Pipeline, guest: Guest, eventually: Eventually) -> None:
    """A killed collector, API or status writer is started again, and catches up."""
    await settled(pipeline, eventually)
    for command in ("collect", "serve", "write-status"):
        pipeline.kill_child(command)
    guest.control("login", "zoe")
    await eventually(lambda: "zoe" in str(pipeline.json("userlist")), within=60)
    guest.control("address", "add", "eth0", "10.6.6.6/24")
    await eventually(lambda: "10.6.6.6" in str(pipeline.status()), within=60)
    guest.control("logout", "zoe")
    guest.control("address", "del", "eth0", "10.6.6.6/24")


async def test_killed_supervisor_leaves_nothing(pipeline: Pipeline, guest: Guest, eventually: Eventually) -> None:
    """`up` killed without a chance: its children end with it, and the next start goes on."""
    await settled(pipeline, eventually)
    pids = pipeline.children()
    assert 4 == len(pids)
    pipeline.process.kill()
    pipeline.process.wait()
    await eventually(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids))
    pipeline.start()
    await settled(pipeline, eventually)


def _records(pipeline: Pipeline, level: str) -> list[str]:
    """Log lines of a level from every process."""
    return [
        line
        for log in (pipeline.world.directory / "state").glob("*.log")
        for line in log.read_text().splitlines()
        if f'"level":"{level}"' in line
    ]
