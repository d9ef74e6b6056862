"""
KubeVirt's own expectations, restated as data, against this project's functions.

The cases live beside the repository; without them these tests skip. Where this project differs on purpose, `DIFFERENT`
says so and what it does instead; what cannot be expressed here stands in `NOT_EXPRESSIBLE`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from guestwire.settings import Status
from guestwire.snapshot import (
    AgentState,
    DomainInterface,
    FilesystemInfo,
    GuestInterface,
    GuestOSInfo,
    Interfaces,
    IPAddress,
    OperatingSystem,
    Phase,
)
from status_writer.conditions import CONNECTED, NOT_SUPPORTED, reconcile
from status_writer.info_source import add_source, remove_source
from status_writer.merge import merge
from status_writer.status_patch import Facts, decide
from status_writer.support import support

from .json_patch import apply

CASES = Path(__file__).parents[4] / "shared" / "conformance" / "kubevirt"
GROUPS = ("merge", "infosource", "conditions", "agentsupport", "guestosinfo", "fsfreeze", "credentials", "controller")
NOW = datetime(2026, 8, 22, 10, 0, tzinfo=UTC)

_POD = ["1.1.1.1", "fd10:244::8c4c"]

DIFFERENT: dict[str, tuple[str, Any]] = {
    "merge-004": (
        "the agent tells no address of `secondary`: the pod's stay",
        {1: {"ipAddress": "1.1.1.2", "ipAddresses": ["1.1.1.2", "fd10:244::8c4e"]}},
    ),
    "merge-008": (
        "the agent tells no IPv4 address: the pod's stays",
        {0: {"ipAddress": "1.1.1.1", "ipAddresses": ["1.1.1.1", "fd20:244::8c4c"]}},
    ),
    "merge-010": (
        "the agent tells no address: the pod's stay",
        {0: {"ipAddress": "1.1.1.1", "ipAddresses": ["1.1.1.1", "fd10:1111::1111"]}},
    ),
    "merge-020": (
        "the agent tells no address: the pod's stays",
        {0: {"ipAddress": "1.1.1.1", "ipAddresses": ["1.1.1.1"]}},
    ),
    "conditions-001": (
        "commands are not known yet: unsupported would be a guess, and would flash after every connect",
        [{"type": CONNECTED, "status": "True"}],
    ),
}
"""Case -> why, and what is expected here: for `merge` the fields of the entries that differ."""

NOT_EXPRESSIBLE: dict[str, str] = {
    "credentials": "AccessCredentialsSynchronized is the launcher's; this project passes it through untouched "
    "(test_conditions.py: conditions of other types stay)",
    "controller": "the virt-controller's own half of the list, made from pod annotations, which this project does not "
    "read; what it wrote must survive, which test_controller_entries_survive proves with the same cases",
}


def cases(*groups: str) -> list[Any]:
    """Parameters: one per case of these groups; one that skips when there are none."""
    files = sorted(file for group in groups for file in CASES.glob(f"{group}-*.json"))
    if not files:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no conformance cases in {CASES}"))]
    return [pytest.param(json.loads(file.read_text()), id=_id(file)) for file in files]


def _id(file: Path) -> str:
    return "-".join(file.stem.split("-")[:2])


def agent(**changes: Any) -> AgentState:
    """A state record, connected unless told otherwise."""
    given: dict[str, Any] = {
        "namespace": "default",
        "name": "vm",
        "uid": "uid",
        "domain": "default_vm",
        "domain_uuid": "uuid",
        "host": "host",
        "phase": Phase.RUNNING,
        "channel": True,
        "connected": True,
        "since": NOW,
        **changes,
    }
    return AgentState(**given)


def interfaces_of(case: dict[str, Any]) -> Interfaces | None:
    """The domain's and the guest's view of a `merge` case."""
    domain = case["domain"]
    if domain is None:
        return None
    nics = [
        DomainInterface(
            nic["alias"], nic["mac"], nic.get("driver", {}).get("queues", 0), nic.get("link", {}).get("state", "")
        )
        for nic in domain["devices"]["interfaces"]
    ]
    nics += [DomainInterface(device["alias"], passthrough=True) for device in domain["devices"]["hostdevs"]]
    guest = [
        GuestInterface(each["interfaceName"], each["mac"], tuple(map(IPAddress, each["ips"])))
        for each in case["guestAgentInterfaces"]
    ]
    return Interfaces(tuple(nics), tuple(guest))


def with_pod_addresses(case: dict[str, Any]) -> dict[str, Any]:
    """
    The VMI, with the node agent's cache of pod addresses where this project finds them: in the present list of a VMI
    that has a pod. Only an interface of the spec counts, as in KubeVirt.
    """
    vmi: dict[str, Any] = {**case["vmi"], "metadata": {"uid": "uid"}}
    entries = {entry["name"]: dict(entry) for entry in vmi["status"]["interfaces"]}
    for interface in vmi["spec"]["domain"]["devices"]["interfaces"]:
        addresses = case["podInterfaceCache"].get(interface["name"])
        if addresses:
            entry = entries.setdefault(interface["name"], {"name": interface["name"]})
            entry |= {"ipAddress": addresses[0], "ipAddresses": addresses}
    vmi["status"] = {"interfaces": list(entries.values()), "activePods": {"pod": "node"}}
    return vmi


@pytest.mark.parametrize("case", cases("merge"))
def test_merge(case: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """The merged list is KubeVirt's, entry by entry, but for the differences listed above."""
    vmi, interfaces = with_pod_addresses(case["input"]), interfaces_of(case["input"])
    expected = case["expected"]["interfaces"] or []
    _, changes = DIFFERENT.get(request.node.callspec.id, ("", {}))
    expected = [{**entry, **changes.get(index, {})} for index, entry in enumerate(expected)]
    actual = merge(vmi, interfaces).entries

    if case["compare"] == "unordered":
        expected, actual = (sorted(entries, key=json.dumps) for entries in map(_sorted_keys, (expected, actual)))
    assert expected == actual


def _sorted_keys(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [dict(sorted(entry.items())) for entry in entries]


@pytest.mark.parametrize("case", cases("merge"))
def test_merge_is_settled(case: dict[str, Any]) -> None:
    """Merging again into the merged list changes nothing, in KubeVirt's cases too."""
    vmi, interfaces = with_pod_addresses(case["input"]), interfaces_of(case["input"])
    once = merge(vmi, interfaces).entries
    vmi["status"]["interfaces"] = once

    assert once == merge(vmi, interfaces).entries


@pytest.mark.parametrize("case", cases("infosource"))
def test_infosource(case: dict[str, Any]) -> None:
    """Words come into and out of an infoSource as in KubeVirt."""
    change = {"infosource-add": add_source, "infosource-remove": remove_source}[case["command"]]

    assert case["expected"]["infoSource"] == change(case["input"]["infoSource"], case["input"]["item"])


@pytest.mark.parametrize("case", cases("conditions"))
def test_conditions(case: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """The agent's conditions come and go with its channel."""
    given = case["input"]
    connected = any(channel["target"]["state"] == "connected" for channel in given["channels"])
    vmi = {"status": {"conditions": given["previousConditions"]}}
    found = reconcile(vmi, agent(connected=connected), NOW, 600)
    actual = [
        {"type": each["type"], "status": each["status"]} for each in found if each["type"] in (CONNECTED, NOT_SUPPORTED)
    ]
    _, expected = DIFFERENT.get(request.node.callspec.id, ("", case["expected"]["conditions"]))

    assert expected == sorted(actual, key=lambda each: str(each["type"]))


@pytest.mark.parametrize("case", cases("agentsupport"))
def test_agent_support(case: dict[str, Any]) -> None:
    """Commands are enough, or not, as KubeVirt judges, in its words."""
    given = case["input"]
    kinds = {"ssh": "sshPublicKey", "password": "userPassword"}
    credentials: list[dict[str, Any]] = [
        {kinds[each]: {"propagationMethod": {"qemuGuestAgent": {}}}}
        for each in given["accessCredentialsViaQemuGuestAgent"]
    ]
    commands = [command["name"] for command in given["supportedCommands"] if command["enabled"]]
    supported, reason = support({"spec": {"accessCredentials": credentials}}, commands)

    assert case["expected"] == {"supported": supported, "reason": reason}


@pytest.mark.parametrize("case", cases("guestosinfo"))
def test_guest_os_info(case: dict[str, Any]) -> None:
    """All fields of the guest's system reach the status."""
    told = case["input"]["domainOSInfo"]
    system = OperatingSystem(
        id=told["id"],
        name=told["name"],
        pretty_name=told["prettyName"],
        version=told["version"],
        version_id=told["versionId"],
        machine=told["machine"],
        kernel_release=told["kernelRelease"],
        kernel_version=told["kernelVersion"],
    )
    facts = Facts(agent(), NOW, guestosinfo=GuestOSInfo(FilesystemInfo(None), system, ", 0"))
    vmi: dict[str, Any] = {"metadata": {"uid": "uid"}, "status": {"guestOSInfo": case["input"]["previous"]}}

    assert case["expected"]["guestOSInfo"] == _status_after(vmi, facts)["guestOSInfo"]


@pytest.mark.parametrize("case", cases("fsfreeze"))
def test_freeze_status(case: dict[str, Any]) -> None:
    """A frozen guest shows, a thawed one does not."""
    told = case["input"]["domainFSFreezeStatus"]
    known = GuestOSInfo(FilesystemInfo(None), OperatingSystem(), ", 0", fs_freeze_status=told)
    vmi = {"metadata": {"uid": "uid"}, "status": {"fsFreezeStatus": case["input"]["previous"]}}
    status = _status_after(vmi, Facts(agent(), NOW, guestosinfo=known))

    assert case["expected"]["fsFreezeStatus"] == status.get("fsFreezeStatus", "")


@pytest.mark.parametrize("case", cases("controller"))
def test_controller_entries_survive(case: dict[str, Any]) -> None:
    """What the virt-controller wrote into the list is still there, name by name, after a merge."""
    entries = case["expected"]["interfaces"]
    vmi = {"spec": case["input"]["vmi"]["spec"], "status": {"interfaces": entries}}
    named = [entry for entry in entries if "name" in entry]
    interfaces = Interfaces(tuple(DomainInterface(entry["name"], entry.get("mac", "")) for entry in named), None)
    merged = {entry.get("name"): entry for entry in merge(vmi, interfaces).entries}

    assert [entry.get("podInterfaceName") for entry in named] == [
        merged[entry["name"]].get("podInterfaceName") for entry in named
    ]
    assert ["multus-status" in entry.get("infoSource", "") for entry in named] == [
        "multus-status" in merged[entry["name"]].get("infoSource", "") for entry in named
    ]


def test_every_case_is_accounted_for() -> None:
    """No case of these groups is forgotten: it is run, or its group is listed with the reason."""
    if not CASES.exists():
        pytest.skip(f"no conformance cases in {CASES}")
    run = {"merge", "infosource", "conditions", "agentsupport", "guestosinfo", "fsfreeze"}

    assert set(GROUPS) == run | set(NOT_EXPRESSIBLE)
    assert set(DIFFERENT) <= {_id(file) for group in run for file in CASES.glob(f"{group}-*.json")}


def _status_after(vmi: dict[str, Any], facts: Facts) -> dict[str, Any]:
    status: dict[str, Any] = apply(vmi, decide(vmi, facts, NOW, Status()).patch)["status"]
    return status
