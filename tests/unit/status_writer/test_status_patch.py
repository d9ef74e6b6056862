"""The decision and its patch."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from status_writer.status_patch import Facts, Verdict, decide

from .json_patch import GuardError, apply

NOW = datetime(2026, 8, 22, 10, 0, tzinfo=UTC)
STATUS = Status(grace=60)
UUID = "d1c1d1c1-0000-4000-8000-00000000000a"
OS = OperatingSystem(id="debian", name="Debian GNU/Linux", version_id="12")


def agent(**changes: Any) -> AgentState:
    """A state record, connected unless told otherwise."""
    state = AgentState("ns", "vm", "uid", "ns_vm", UUID, "host", Phase.RUNNING, True, True, NOW)
    return msgspec.structs.replace(state, **changes)


def system(os: OperatingSystem = OS, freeze: str = "") -> GuestOSInfo:
    """What the agent tells of the guest's system."""
    return GuestOSInfo(FilesystemInfo(None), os, "UTC, 0", fs_freeze_status=freeze)


def vmi(status: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    """A VMI."""
    document: dict[str, Any] = {"metadata": {"uid": "uid"}, **parts}
    return document if status is None else {**document, "status": status}


def told(facts: Facts, document: dict[str, Any], now: datetime = NOW, with_: Status = STATUS) -> dict[str, Any]:
    """The status after one decision."""
    status: dict[str, Any] = apply(document, decide(document, facts, now, with_).patch).get("status", {})
    return status


def test_nothing_known_says_nothing() -> None:
    """A guest that was never seen leaves its VMI as it is, whatever that shows."""
    decision = decide(vmi({"conditions": [{"type": "AgentConnected", "status": "True"}]}), Facts(), NOW, STATUS)

    assert (Verdict.UNKNOWN, []) == (decision.verdict, decision.patch)


@pytest.mark.parametrize(("phase", "writes"), [(None, True), ("", True), ("Running", True), ("Succeeded", False)])
def test_only_running_vmis_are_written(phase: str | None, writes: bool) -> None:
    """A VMI that is not running is left alone; one without a phase belongs to a cluster without KubeVirt."""
    decision = decide(vmi({} if phase is None else {"phase": phase}), Facts(agent(), NOW), NOW, STATUS)

    assert writes == bool(decision.patch)
    assert not any(path.endswith("phase") for path in decision.paths)


@pytest.mark.parametrize(
    ("record", "document", "ours"),
    [
        (agent(), vmi({}), True),
        (agent(uid="other"), vmi({}), False),
        (agent(uid=UUID), vmi({}), True),
        (agent(uid=UUID), vmi({}, spec={"domain": {"firmware": {"uuid": UUID.upper()}}}), True),
        (agent(uid=UUID), vmi({}, spec={"domain": {"firmware": {"uuid": "other"}}}), False),
        (agent(uid=UUID), vmi({}, spec={"domain": {"firmware": {}}}), True),
    ],
)
def test_identity(record: AgentState, document: dict[str, Any], ours: bool) -> None:
    """Facts are written to their own VMI: by its uid, else by the UUID its spec names, else by name."""
    decision = decide(document, Facts(record, NOW), NOW, STATUS)

    assert (Verdict.WRITE if ours else Verdict.FOREIGN) == decision.verdict
    assert ours == bool(decision.patch)


def test_first_status_of_all() -> None:
    """A VMI without any status gets one, guarded against somebody who is faster."""
    document = vmi()
    patch = decide(document, Facts(agent(), NOW), NOW, STATUS).patch

    assert [
        {"op": "test", "path": "/metadata/uid", "value": "uid"},
        {"op": "test", "path": "/status", "value": None},
        {
            "op": "add",
            "path": "/status",
            "value": {
                "conditions": [
                    {
                        "type": "AgentConnected",
                        "status": "True",
                        "lastProbeTime": "2026-08-22T10:00:00Z",
                        "lastTransitionTime": "2026-08-22T10:00:00Z",
                    }
                ]
            },
        },
    ] == patch


def test_patch_is_small_and_guarded() -> None:
    """One element of the conditions moves as one element; every field that changes is guarded by what was read."""
    ready = {"type": "Ready", "status": "True"}
    old = {
        "type": "AgentConnected",
        "status": "True",
        "lastProbeTime": "2026-08-22T08:00:00Z",
        "lastTransitionTime": "x",
    }
    document = vmi({"conditions": [ready, old], "guestOSInfo": {}, "nodeName": "n"})
    state = agent(commands=())
    patch = decide(document, Facts(state, NOW, guestosinfo=system()), NOW, STATUS).patch

    assert [
        ("test", "/metadata/uid"),
        ("test", "/status/conditions"),
        ("test", "/status/guestOSInfo"),
        ("replace", "/status/conditions/1"),
        ("add", "/status/conditions/-"),
        ("replace", "/status/guestOSInfo"),
    ] == [(operation["op"], operation["path"]) for operation in patch]
    assert [ready, old] == patch[1]["value"]


def test_a_faster_writer_is_noticed() -> None:
    """A patch does not apply to a VMI that was re-created, nor to one whose fields changed since they were read."""
    document = vmi({"guestOSInfo": {"id": "fedora"}})
    patch = decide(document, Facts(agent(), NOW, guestosinfo=system()), NOW, STATUS).patch
    recreated, changed = copy.deepcopy(document), copy.deepcopy(document)
    recreated["metadata"]["uid"] = "new"
    changed["status"]["guestOSInfo"]["id"] = "ubuntu"

    for other in (recreated, changed):
        with pytest.raises(GuardError):
            apply(other, patch)


def test_lists_with_doubles_are_replaced_whole() -> None:
    """Conditions that cannot be told apart by type are written as one list, and none of the others gets lost."""
    doubles = [{"type": "Ready", "status": "True"}, {"type": "Ready", "status": "False"}]
    after = told(Facts(agent(), NOW), vmi({"conditions": doubles}))

    assert doubles == after["conditions"][:2]
    assert "AgentConnected" == after["conditions"][2]["type"]


@pytest.mark.parametrize("name", [field.name for field in msgspec.structs.fields(OperatingSystem)])
def test_every_change_of_the_system_is_written(name: str) -> None:
    """Each of the eight fields counts, as an upgrade in place changes some and not others."""
    before = told(Facts(agent(), NOW, guestosinfo=system()), vmi({}))
    changed = msgspec.structs.replace(OS, **{name: "changed"})

    assert (
        msgspec.to_builtins(changed)
        == told(Facts(agent(), NOW, guestosinfo=system(changed)), vmi(before))["guestOSInfo"]
    )


def test_unread_system_is_unknown_not_empty() -> None:
    """Right after a connect the agent has told nothing yet: what is shown stays."""
    status = {"guestOSInfo": {"id": "debian"}}

    assert {"id": "debian"} == told(Facts(agent(), NOW), vmi(status))["guestOSInfo"]
    assert {"id": "debian"} == told(Facts(agent(), NOW, guestosinfo=system(OperatingSystem())), vmi(status))[
        "guestOSInfo"
    ]


@pytest.mark.parametrize(
    ("state", "info", "before", "after"),
    [
        (True, "", None, "frozen"),
        (False, "", "frozen", None),
        (None, "", "frozen", "frozen"),
        (None, "", None, None),
        (None, "frozen", None, "frozen"),
        (None, "thawed", "frozen", None),
        (True, "thawed", None, "frozen"),
        (False, "frozen", "frozen", None),
    ],
)
def test_freeze_status(state: bool | None, info: str, before: str | None, after: str | None) -> None:
    """Frozen shows, thawed removes, unknown changes nothing; the state record is newer than guestosinfo."""
    document = vmi({} if before is None else {"fsFreezeStatus": before})
    facts = Facts(agent(frozen=state), NOW, guestosinfo=system(freeze=info))

    assert after == told(facts, document).get("fsFreezeStatus")


SHOWN = {
    "phase": "Running",
    "conditions": [{"type": "AgentConnected", "status": "True"}, {"type": "Ready", "status": "True"}],
    "guestOSInfo": {"id": "debian", "name": "Debian GNU/Linux", "versionId": "12"},
    "fsFreezeStatus": "frozen",
    "interfaces": [
        {"name": "n", "interfaceName": "eth0", "ipAddress": "10.0.0.1", "infoSource": "domain, guest-agent"},
        {"interfaceName": "docker0", "infoSource": "guest-agent"},
    ],
}
GONE = Facts(agent(connected=False, frozen=True), NOW, guestosinfo=system())


def test_within_the_grace_only_the_condition_goes() -> None:
    """A disconnect removes the condition at once; facts stay for the grace, whose end asks for another look."""
    decision = decide(vmi(SHOWN), GONE, NOW + timedelta(seconds=20), STATUS)

    assert ["/status/conditions/0"] == decision.paths
    assert 40.0 == decision.again


def test_after_the_grace_facts_go() -> None:
    """Then nothing of the agent's is left, and nothing else is missing."""
    assert {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "interfaces": [{"name": "n", "infoSource": "domain"}],
    } == told(GONE, vmi(SHOWN), NOW + timedelta(seconds=60))


def test_facts_stay_for_good_when_told_to() -> None:
    """With `keep` they stay, and no other look is needed."""
    decision = decide(vmi(SHOWN), GONE, NOW + timedelta(days=9), Status(keep=True))

    assert ["/status/conditions/0"] == decision.paths
    assert decision.again is None


def test_a_reboot_takes_no_address() -> None:
    """Within the grace after a connect an address that is not told yet stays, and another look is due at its end."""
    document = vmi({**SHOWN, "guestOSInfo": {}, "fsFreezeStatus": ""}, spec={})
    interfaces = Interfaces((DomainInterface("n"),), ())
    facts = Facts(agent(), NOW, interfaces)
    early = decide(document, facts, NOW + timedelta(seconds=10), STATUS)
    late = decide(document, facts, NOW + timedelta(seconds=60), STATUS)

    assert "/status/interfaces" in early.paths  # the domain's part of the entry is news
    assert "10.0.0.1" == apply(document, early.patch)["status"]["interfaces"][0]["ipAddress"]
    assert 50.0 == early.again
    assert "ipAddress" not in apply(document, late.patch)["status"]["interfaces"][0]
    assert late.again is None


def test_no_channel_is_no_news() -> None:
    """A guest without agent channel has nothing to show and nothing to write."""
    facts = Facts(agent(channel=False, connected=False), NOW)

    assert Verdict.UNCHANGED == decide(vmi({"phase": "Running"}), facts, NOW + timedelta(days=1), STATUS).verdict


# --- properties ------------------------------------------------------------------------------------------------

MACS = st.sampled_from(["", "52:54:00:00:00:01", "52:54:00:00:00:0A", "52:54:00:00:00:0a", "02:00:00:00:00:02"])
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "169.254.1.1", "fe80::1", "fd00::1", "nonsense", ""])
NAMES = st.sampled_from(["", "default", "second", "third", "sriov-second"])
SOURCES = st.lists(st.sampled_from(["domain", "guest-agent", "multus-status"]), unique=True).map(", ".join)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES,
        "mac": MACS,
        "infoSource": SOURCES,
        "interfaceName": st.sampled_from(["eth0", "br0"]),
        "ipAddress": ADDRESSES,
        "ipAddresses": st.lists(ADDRESSES, max_size=3),
        "podInterfaceName": st.just("pod1"),
        "queueCount": st.integers(0, 2),
    },
)
GUESTS = st.builds(
    GuestInterface,
    name=st.sampled_from(["lo", "eth0", "eth1", "br0", "docker0", ""]),
    mac=MACS,
    addresses=st.lists(ADDRESSES.map(IPAddress), max_size=3).map(tuple),
)
NICS = st.builds(
    DomainInterface,
    name=NAMES,
    mac=MACS,
    queues=st.integers(0, 2),
    link_state=st.sampled_from(["", "up", "down"]),
    passthrough=st.booleans(),
)
INTERFACES = st.none() | st.builds(
    Interfaces,
    domain=st.lists(NICS, max_size=3).map(tuple),
    guest=st.none() | st.lists(GUESTS, max_size=14).map(tuple),
)
CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["Ready", "AgentConnected", "AgentVersionNotSupported"]), "status": st.just("True")},
        optional={"lastProbeTime": st.sampled_from([None, "2026-08-22T09:59:00Z", "2020-01-01T00:00:00Z", "?"])},
    ),
    max_size=4,
)
NETWORKS = st.sampled_from(
    [
        {},
        {"networks": [{"name": "second", "multus": {}}, {"name": "default", "pod": {}}]},
        {"networks": [{"name": "third"}]},
    ]
)
STATUSES = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Running", ""]),
        "conditions": CONDITIONS,
        "interfaces": st.lists(ENTRIES, max_size=4),
        "guestOSInfo": st.sampled_from([{}, {"id": "fedora"}]),
        "fsFreezeStatus": st.sampled_from(["frozen", ""]),
        "activePods": st.just({"pod": "node"}),
    },
)
FACTS = st.builds(
    Facts,
    agent=st.builds(
        agent,
        connected=st.booleans(),
        since=st.sampled_from([NOW, NOW - timedelta(days=1)]),
        frozen=st.none() | st.booleans(),
        commands=st.none() | st.just(()),
    ),
    observed=st.just(NOW),
    interfaces=INTERFACES,
    told=st.frozensets(ADDRESSES),
    guestosinfo=st.none()
    | st.builds(system, st.sampled_from([OS, OperatingSystem()]), st.sampled_from(["", "frozen"])),
)


@settings(max_examples=600, deadline=None)
@given(status=STATUSES, spec=NETWORKS, facts=FACTS)
def test_one_patch_is_enough(status: dict[str, Any] | None, spec: dict[str, Any], facts: Facts) -> None:
    """Whatever is known and whatever a VMI shows: a decision repeats itself, and its patch leaves nothing to patch."""
    document = vmi(status, spec=spec)
    before = copy.deepcopy(document)
    patch = decide(document, facts, NOW, STATUS).patch

    assert before == document
    assert patch == decide(document, facts, NOW, STATUS).patch
    assert [] == decide(apply(document, patch), facts, NOW, STATUS).patch
