"""
KubeVirt's three subresources as virtctl reads them, from the API itself and through a real API server.

virtctl is not run: `informer/subresources` makes its requests with the library that it makes them with, decodes the
answers into its types, more strictly than it does, and prints what it prints.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from guestwire import codec
from guestwire.snapshot import GuestRef, Kind, Phase
from tests.conftest import part
from tests.integration.api.aggregated import Cluster, until
from tests.integration.api.fleet import Replica, golden, state
from tests.integration.api.go_programs import build

COMMANDS = {"guestosinfo": Kind.GUESTOSINFO, "userlist": Kind.USERLIST, "fslist": Kind.FILESYSTEMLIST}
FAILURES = {
    "guestosinfo": "Error getting guestosinfo of VirtualMachineInstance",
    "userlist": "Error listing users of VirtualMachineInstance",
    "fslist": "Error listing filesystems of VirtualMachineInstance",
}
CONFLICT = 'Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "{}"'
FIRST = {
    "guestosinfo": ["guestAgentVersion", "supportedCommands", "hostname", "os", "timezone", "userList", "fsInfo"],
    "userlist": ["metadata", "items"],
    "fslist": ["metadata", "items"],
}
"""The first keys that it prints, in the order of its types."""


class Said(NamedTuple):
    """Exit status, and both outputs; of the second the first lines are requests."""

    status: int
    out: str
    err: list[str]


class Virtctl:
    """It, on its way to the API."""

    def __init__(self, program: Path, *options: str) -> None:
        self._command = [str(program), *options]

    def __call__(self, command: str, name: str, *options: str) -> Said:
        """Run it to its end."""
        done = subprocess.run(
            [*self._command, *options, command, name], capture_output=True, text=True, timeout=60, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr.splitlines())


@pytest.fixture(scope="module")
def program() -> Path:
    """What makes its requests."""
    with part("Go program"):
        return build("subresources")
    raise AssertionError


@pytest.fixture(scope="module", params=["from the API itself", "through the API server"])
def virtctl(
    request: pytest.FixtureRequest, cluster: Cluster, program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Virtctl]:
    """Guests of every sort, and both ways to them."""
    off, mute, new = (GuestRef("default", name) for name in ("off", "mute", "new"))
    cluster.collector.publish((off, Kind.AGENT, state(off, phase=Phase.STOPPED, connected=False)))
    cluster.collector.publish((mute, Kind.AGENT, state(mute, connected=False)))
    cluster.collector.publish((new, Kind.AGENT, state(new)))
    kubeconfig = f"-kubeconfig={cluster.site.kube.kubeconfig}"
    if request.param == "through the API server":
        virtctl = Virtctl(program, kubeconfig)
        until(lambda: virtctl("guestosinfo", "new").status == 0, "the guests known there")
        yield virtctl
        return
    replica = Replica(cluster.nats, tmp_path_factory.mktemp("direct"))
    replica.start()
    yield Virtctl(program, f"-server={replica.url}")
    replica.stop()


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_known(virtctl: Virtctl, command: str) -> None:
    """One request, an answer that its types hold without a rest, and printed with nothing left out or added."""
    said = virtctl(command, "vm1")
    subresource = COMMANDS[command]
    printed = json.loads(said.out)
    path = f"/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm1/{subresource}"

    assert 0 == said.status, said.err
    assert [f"GET {path} application/json, */*"] == said.err
    assert json.loads(codec.encode(golden(subresource))) == printed
    assert FIRST[command] == list(printed)[: len(FIRST[command])]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("guestosinfo", {"os": {}, "timezone": ", 0", "fsInfo": {"disks": None}}),
        ("userlist", {"metadata": {}, "items": []}),
        ("fslist", {"metadata": {}, "items": []}),
    ],
)
def test_nothing_read_yet(virtctl: Virtctl, command: str, expected: object) -> None:
    """A guest whose agent has just connected is told as KubeVirt tells it."""
    said = virtctl(command, "new")

    assert (0, expected) == (said.status, json.loads(said.out))


@pytest.mark.parametrize("command", ["userlist", "fslist"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nobody", 'virtualmachineinstance.kubevirt.io "{}" not found'),
        ("off", f"{CONFLICT}: VMI is not running"),
        ("mute", f"{CONFLICT}: VMI does not have guest agent connected"),
    ],
)
def test_failures(virtctl: Virtctl, command: str, name: str, why: str) -> None:
    """What it says on a failure are KubeVirt's words, told by the answer."""
    said = virtctl(command, name)

    assert (1, "") == (said.status, said.out)
    assert f"{FAILURES[command]} {name}, {why.format(name)}" == said.err[-1]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nobody", "the server could not find the requested resource"),
        ("off", "the server reported a conflict"),
        ("mute", "the server reported a conflict"),
    ],
)
def test_failures_of_guestosinfo(virtctl: Virtctl, name: str, why: str) -> None:
    """Here it looks at the code only (client-go, Result.Raw), so what it says are client-go's words."""
    said = virtctl("guestosinfo", name)
    where = f"(get virtualmachineinstances.kubevirt.io {name})"

    assert (1, "") == (said.status, said.out)
    assert f"{FAILURES['guestosinfo']} {name}, {why} {where}" == said.err[-1]


@pytest.mark.parametrize(("user", "status"), [("alice", 0), ("eve", 1)])
def test_rights(cluster: Cluster, program: Path, user: str, status: int) -> None:
    """The API server's users read with the roles they have."""
    said = Virtctl(program, f"-kubeconfig={cluster.site.kube.kubeconfig}")("userlist", "vm1", f"-as={user}")

    assert status == said.status
    assert (user == "eve") == (f'User "{user}" cannot get resource' in said.err[-1])
