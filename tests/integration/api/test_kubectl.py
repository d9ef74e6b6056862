"""
kubectl as people use it, on guests: the real one, through a real API server, which takes ours for its own.

Nothing is known to kubectl beforehand: names, columns and descriptions are what the API tells of itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.groups import GUESTWIRE
from guestwire.snapshot import GuestRef, Kind
from lab.errors import LabError
from tests.conftest import part
from tests.integration.api.aggregated import PATIENCE, Cluster, until
from tests.integration.api.fleet import Replica, state
from tests.integration.api.go_programs import build
from tests.integration.api.informers import GoInformer

WATCHED = GuestRef("default", "watched")


@pytest.fixture(scope="module")
def program() -> Path:
    """client-go's informer."""
    with part("Go informer"):
        return build()
    raise AssertionError


def test_get(cluster: Cluster) -> None:
    """All guests in order of namespace and name, in columns that the API made."""
    header, *rows = cluster.table("get", "guests", "-A")
    values = {row[1]: dict(zip(header, row, strict=True)) for row in rows}

    assert ["NAMESPACE", "NAME", "AGENT", "OS", "IP", "USERS", "DISK", "AGE"] == header
    assert [("default", "vm1"), ("default", "web"), ("other", "away")] == [(row[0], row[1]) for row in rows]
    assert ("connected", "1") == (values["vm1"]["AGENT"], values["vm1"]["USERS"])
    assert values["vm1"]["OS"].startswith("Guestwire Lab Linux 1")
    assert ("connected", "2", "<unknown>") == tuple(values["web"][each] for each in ("AGENT", "USERS", "OS"))
    assert ("disconnected", "<unknown>") == (values["away"]["AGENT"], values["away"]["USERS"])


def test_get_wide(cluster: Cluster) -> None:
    """`-o wide` has more columns."""
    header, row = cluster.table("get", "guest", "vm1", "-o", "wide")

    assert ["NAME", "AGENT", "OS", "IP", "USERS", "DISK", "AGE"] == header[:7]
    assert {"PHASE": "Running", "HOST": "vm", "VERSION": "7.2.22"}.items() <= dict(
        zip(header, row, strict=True)
    ).items()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("guests",), ["vm1", "web"]),
        (("gst",), ["vm1", "web"]),
        (("guestwire",), ["vm1", "web"]),
        (("guests.v1.guestwire.io",), ["vm1", "web"]),
        (("guests", "web", "vm1"), ["web", "vm1"]),
        (("guests", "-n", "other"), ["away"]),
        (("guests", "-A", "--chunk-size=1"), ["vm1", "web", "away"]),
        (("guests", "-A", "-l", "guestwire.io/agent=disconnected"), ["away"]),
        (("guests", "-A", "-l", "guestwire.io/agent notin (disconnected),guestwire.io/os"), ["vm1"]),
        (("guests", "-A", "--field-selector", "metadata.name!=vm1,metadata.namespace=default"), ["web"]),
        (("guests", "-A", "--sort-by=.metadata.name"), ["away", "vm1", "web"]),
        (("guests", "--sort-by=.status.userlist.items[0].userName", "--no-headers"), ["vm1", "web"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_selection(cluster: Cluster, args: tuple[str, ...], expected: list[str]) -> None:
    """By short name, category, name, namespace, labels, fields; in parts, and sorted by whatever the object holds."""
    lines = cluster.kubectl("get", *args, "-o", "name").split()

    assert expected == [line.removeprefix("guest.guestwire.io/") for line in lines]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("-A",), ["vm1", "web", "away"]),
        (("-A", "--sort-by=.metadata.name"), ["away", "vm1", "web"]),
        (("-A", "--sort-by={.metadata.labels.guestwire\\.io/agent}"), ["vm1", "web", "away"]),
        (("--sort-by=.status.agent.host",), ["web", "vm1"]),
        (("--sort-by=.status.userlist.items[0].userName", "-o", "wide"), ["vm1", "web"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_sorted_table(cluster: Cluster, args: tuple[str, ...], expected: list[str]) -> None:
    """The table is sorted by whatever the object holds, also what it shows in no column."""
    header, *rows = cluster.table("get", "guests", *args)

    assert expected == [row[header.index("NAME")] for row in rows]
    assert {"AGENT", "OS", "IP", "USERS", "DISK", "AGE"} <= set(header)


@pytest.mark.parametrize(("form", "parse"), [("yaml", yaml.safe_load), ("json", json.loads)])
def test_whole_objects(cluster: Cluster, form: str, parse: Callable[[str], Any]) -> None:
    """`-o yaml` and `-o json` give the object, whose kinds are what each is when it is read alone."""
    guest = parse(cluster.kubectl("get", "guest", "vm1", "-o", form))
    path = "/apis/guestwire.io/v1/namespaces/default/guests/vm1"
    alone = {kind: json.loads(cluster.kubectl("get", "--raw", f"{path}/{kind}")) for kind in GUESTWIRE.kinds}

    assert json.loads(cluster.kubectl("get", "--raw", path)) == json.loads(json.dumps(guest, default=str))
    assert ("guestwire.io/v1", "Guest", "vm1") == (guest["apiVersion"], guest["kind"], guest["metadata"]["name"])
    assert alone == json.loads(json.dumps(guest["status"], default=str))


def test_columns_of_ones_own(cluster: Cluster) -> None:
    """JSONPath and custom columns reach into the status."""
    told = cluster.kubectl("get", "guest", "vm1", "-o", "jsonpath={.status.guestosinfo.os.kernelRelease}")

    assert "6.1.0-56-cloud-amd64" == told
    assert [["WHO"], ["alice,bob"]] == cluster.table(
        "get", "guest", "web", "-o", "custom-columns=WHO:.status.userlist.items[*].userName"
    )


def test_describe(cluster: Cluster) -> None:
    """`describe` finds the fields of a kind it has never heard of."""
    said = cluster.kubectl("describe", "guest", "vm1")
    facts = [" ".join(line.split()) for line in said.splitlines()]

    assert {
        "Name: vm1",
        "Namespace: default",
        "API Version: guestwire.io/v1",
        "Kind: Guest",
        "Hostname: demo",
        "Pretty Name: Guestwire Lab Linux 1 (Test Guest)",
    } <= set(facts)


def test_watch(cluster: Cluster, tmp_path: Path) -> None:
    """`get -w` prints guests as they come, change and go, on all that came before."""
    log = tmp_path / "watch.log"
    watching = cluster.running(log, "get", "guests", "-A", "-w", "--output-watch-events", "--no-headers")

    def told(event: str, *words: str) -> bool:
        rows = [line.split() for line in log.read_text().splitlines()]
        return any(row[:1] == [event] and WATCHED.name in row and set(words) <= set(row) for row in rows)

    with watching:
        until(lambda: "web" in log.read_text(), "the guests that are there")
        cluster.collector.guest(WATCHED)
        until(lambda: told("ADDED", "connected"), "the new guest")
        cluster.collector.guest(WATCHED, "alice", connected=False)
        until(lambda: told("MODIFIED", "disconnected"), "the change")
        cluster.collector.gone(WATCHED)
        until(lambda: told("DELETED"), "the end")
        assert watching.alive


def test_wait(cluster: Cluster, tmp_path: Path) -> None:
    """`kubectl wait` ends when the field it waits for has changed, not before."""
    ref = GuestRef("default", "awaited")
    cluster.collector.publish((ref, Kind.AGENT, state(ref, connected=False)))
    until(lambda: "awaited" in cluster.kubectl("get", "guests"), "the guest")
    log = tmp_path / "wait.log"
    waiting = cluster.running(
        log, "wait", "guest/awaited", "--for=jsonpath={.status.agent.connected}=true", "--timeout=90s", "-v=8"
    )
    with waiting:
        until(lambda: "watch=true" in log.read_text(), "the watch")
        assert waiting.alive
        cluster.collector.guest(ref)
        assert 0 == waiting.wait(PATIENCE)
    cluster.collector.gone(ref)

    assert "guest.guestwire.io/awaited condition met" in log.read_text()


def test_informer(cluster: Cluster, program: Path, tmp_path: Path) -> None:
    """client-go's informer watches through the API server as it does any other resource."""
    config = cluster.site.kube.kubeconfig
    with GoInformer(program, tmp_path / "log", "-kubeconfig", str(config)) as informer:
        until(
            lambda: {"default/vm1", "default/web", "other/away"} <= set(informer.store()), "the guests that are there"
        )
        cluster.collector.guest(WATCHED, "alice")
        until(lambda: str(WATCHED) in informer.store(), "the new guest")
        cluster.collector.gone(WATCHED)
        until(lambda: str(WATCHED) not in informer.store(), "the end")
        listed = json.loads(cluster.kubectl("get", "guests", "-A", "-o", "json"))["items"]

        assert {
            f"{each['metadata']['namespace']}/{each['metadata']['name']}": each for each in listed
        } == informer.store()


@pytest.mark.parametrize(
    ("user", "args", "expected"),
    [
        ("alice", ("list", "guests", "-n", "default"), "yes"),
        ("alice", ("watch", "guests.guestwire.io", "-n", "default"), "yes"),
        ("alice", ("get", "guests/vm1", "--subresource=userlist", "-n", "default"), "yes"),
        ("alice", ("list", "guests", "-n", "other"), "no"),
        ("alice", ("list", "guests", "-A"), "no"),
        ("alice", ("delete", "guests", "-n", "default"), "no"),
        ("eve", ("get", "guests", "-n", "default"), "no"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_can_i(cluster: Cluster, user: str, args: tuple[str, ...], expected: str) -> None:
    """Who has the role in a namespace may get, list and watch guests there, and nothing else; others may not."""
    assert expected == cluster.kubectl("auth", "can-i", *args, f"--as={user}", check=False).splitlines()[-1]


def test_rights_of_a_namespace(cluster: Cluster) -> None:
    """A list is for those who may list: all of a namespace, or none of it."""
    allowed = cluster.kubectl("get", "guests", "-o", "name", "--as=alice")
    denied = cluster.kubectl("get", "guests", "-A", "--as=alice", check=False)

    assert {"guest.guestwire.io/vm1", "guest.guestwire.io/web"} <= set(allowed.split())
    assert 'User "alice" cannot list resource "guests" in API group "guestwire.io" at the cluster scope' in denied


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (
            "guests",
            ["KIND: Guest", "VERSION: v1", "metadata <ObjectMeta> -required-", "status <GuestStatus> -required-"],
        ),
        ("guests.status", ["FIELD: status <GuestStatus>", "userlist <UserList>", "interfaces <Interfaces>"]),
        ("guests.status.guestosinfo.os", ["FIELD: os <OperatingSystem>", "kernelRelease <string>"]),
        ("guests.status.filesystemlist.items.usedBytes", ["FIELD: usedBytes <integer>"]),
        ("guests.status.agent.domain", ["FIELD: domain <string>", "libvirt's name of the domain."]),
        ("guests.status.agent.phase", ["ENUM:", "Paused"]),
    ],
)
def test_explain(cluster: Cluster, field: str, expected: list[str]) -> None:
    """`explain` knows every field, its type, and what it means."""
    until(lambda: "apis/guestwire.io/v1" in cluster.kubectl("get", "--raw", "/openapi/v3"), "OpenAPI taken over")
    said = [" ".join(line.split()) for line in cluster.kubectl("explain", field).splitlines()]

    assert [] == [line for line in expected if line not in said]


def test_without_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """Without an API server but ours kubectl works as well: names, columns and descriptions come straight from it."""
    replica = Replica(cluster.nats, tmp_path / "api")
    replica.start()
    straight = (f"--server={replica.url}", f"--kubeconfig={tmp_path / 'none'}")
    (tmp_path / "none").write_text("")
    try:
        header, row = cluster.table("get", "gst", "vm1", *straight)
        said = cluster.kubectl("explain", "guests.status.userlist", *straight)
        resources = cluster.table("api-resources", *straight)
    finally:
        replica.stop()

    assert ("NAME", "vm1") == (header[0], row[0])
    assert "FIELD: userlist <UserList>" in said
    assert [["guests", "gst", "guestwire.io/v1", "true", "Guest"]] == resources[1:]


def test_explain_a_field_that_is_not_there(cluster: Cluster) -> None:
    """It says so."""
    with pytest.raises(LabError, match="does not exist"):
        cluster.kubectl("explain", "guests.status.nosuch")


def test_explain_everything(cluster: Cluster) -> None:
    """`--recursive` goes through all of it."""
    said = {
        line.split()[0] for line in cluster.kubectl("explain", "guests", "--recursive").splitlines() if line.strip()
    }

    assert {*GUESTWIRE.kinds, "labels", "observedAt", "prettyName", "mountPoint", "queueTime"} <= said


def test_openapi_of_the_cluster(cluster: Cluster) -> None:
    """The API server puts our documents beside its own and changes nothing of its own for them."""

    def merged() -> Any:
        return json.loads(cluster.kubectl("get", "--raw", "/openapi/v2"))

    until(lambda: "io.guestwire.v1.Guest" in merged()["definitions"], "OpenAPI 2 taken over")
    document = merged()
    ours = [name for name in document["definitions"] if "guestwire" in name]
    paths = [path for path in document["paths"] if "/guestwire.io/v1" in path]
    index = json.loads(cluster.kubectl("get", "--raw", "/openapi/v3"))["paths"]

    assert [] == [name for name in document["definitions"] if name.endswith("_v2")]
    assert "/apis/guestwire.io/v1/namespaces/{namespace}/guests/{name}/userlist" in paths
    assert "io.guestwire.v1.AgentState" in ours
    assert {"api/v1", "apis", "version", "apis/guestwire.io/v1"} <= set(index)
    assert [] == [key for key in index if "kubevirt" in key]
    assert "getCoreAPIVersions" not in json.dumps(index["apis"])
    assert (
        "/apis/guestwire.io/v1/guests"
        in json.loads(cluster.kubectl("get", "--raw", "/openapi/v3/apis/guestwire.io/v1"))["paths"]
    )
    assert "Kubernetes" == json.loads(cluster.kubectl("get", "--raw", "/openapi/v3/version"))["info"]["title"]


def test_api_resources(cluster: Cluster) -> None:
    """`api-resources` tells of guests; with each verb, short name and category."""
    header, row = cluster.table("api-resources", "--api-group=guestwire.io", "-o", "wide")

    assert {
        "NAME": "guests",
        "SHORTNAMES": "gst",
        "APIVERSION": "guestwire.io/v1",
        "NAMESPACED": "true",
        "KIND": "Guest",
        "VERBS": "get,list,watch",
        "CATEGORIES": "guestwire",
    } == dict(zip(header, row, strict=True))


@pytest.mark.parametrize(
    "args",
    [("delete", "guest", "vm1"), ("label", "guest", "vm1", "a=b"), ("delete", "guests", "--all")],
    ids=lambda args: args[0],
)
def test_nothing_can_be_written(cluster: Cluster, args: tuple[str, ...]) -> None:
    """Guests are observed: what would change one is refused, in words that say why."""
    said = cluster.kubectl(*args, check=False)

    assert "the server does not allow this method on the requested resource" in said
    assert "guest.guestwire.io/vm1" == cluster.kubectl("get", "guest", "vm1", "-o", "name").strip()
