"""`status.interfaces`: what KubeVirt's own cases do not say."""

from __future__ import annotations

import random
from typing import Any

import pytest

from guestwire.snapshot import DomainInterface, GuestInterface, Interfaces, IPAddress
from status_writer.merge import GUEST_ONLY_CAP, Entry, merge

MAC = "52:54:00:00:00:01"
NIC = DomainInterface("default", MAC)


def vmi(*entries: Entry, pod: bool = False, networks: tuple[str, ...] = ("default",), **binding: Any) -> dict[str, Any]:
    """A VMI whose first network is the pod's."""
    specified = [
        {"name": name, **({"pod": {}} if number == 0 else {"multus": {}})} for number, name in enumerate(networks)
    ]
    devices = {"interfaces": [{"name": name, **binding} for name in networks]}
    status: dict[str, Any] = {"interfaces": list(entries)}
    if pod:
        status["activePods"] = {"uid": "node"}
    return {"spec": {"networks": specified, "domain": {"devices": devices}}, "status": status}


def eth(name: str, mac: str, *addresses: str) -> GuestInterface:
    """An interface of the guest."""
    return GuestInterface(name, mac, tuple(map(IPAddress, addresses)))


def seen(*guest: GuestInterface, nics: tuple[DomainInterface, ...] = (NIC,)) -> Interfaces:
    """Both views."""
    return Interfaces(nics, guest)


def entry(*addresses: str, **fields: Any) -> Entry:
    """The entry of `NIC` with the agent's word in it."""
    shown = {"ipAddress": addresses[0], "ipAddresses": list(addresses)} if addresses else {}
    return {
        "name": "default",
        "mac": MAC,
        "infoSource": "domain, guest-agent",
        "interfaceName": "eth0",
        "queueCount": 1,
        "linkState": "up",
        **shown,
        **fields,
    }


def test_nobody_filled_it() -> None:
    """On a cluster where nobody wrote interfaces, both views merged are the whole list."""
    assert [entry("10.0.0.5", "fd00::5")] == merge(
        {"metadata": {}}, seen(eth("eth0", MAC, "fd00::5", "10.0.0.5"))
    ).entries


def test_loopback_is_left_out_by_name_alone() -> None:
    """`lo` goes, an interface that only sounds like it stays."""
    merged = merge({}, seen(eth("lo", "00:00:00:00:00:00", "127.0.0.1"), eth("lo1", "02:00:00:00:00:01"), nics=()))

    assert ["lo1"] == [each["interfaceName"] for each in merged.entries]


def test_macs_match_in_any_case() -> None:
    """A MAC in capitals is the same MAC; what is shown is the domain's spelling."""
    nic = DomainInterface("default", "52:54:00:AA:BB:CC")
    merged = merge(vmi(), seen(eth("eth0", "52:54:00:aa:bb:cc", "10.0.0.5"), nics=(nic,)))

    assert [entry("10.0.0.5", mac="52:54:00:AA:BB:CC")] == merged.entries


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_bridge_on_the_nic_does_not_overwrite_it(order: tuple[int, int]) -> None:
    """Of two guest interfaces with one MAC the NIC is the domain's, in whatever order the agent lists them."""
    both = (eth("eth0", MAC, "10.0.0.5"), eth("br0", MAC, "10.0.2.2"))
    merged = merge(vmi(), seen(*(both[index] for index in order)))

    assert [
        entry("10.0.0.5"),
        {
            "mac": MAC,
            "interfaceName": "br0",
            "ipAddress": "10.0.2.2",
            "ipAddresses": ["10.0.2.2"],
            "infoSource": "guest-agent",
        },
    ] == merged.entries


def test_two_guest_only_interfaces_with_one_mac_stay_two() -> None:
    """Interfaces that only the guest knows are never taken for each other, nor for the domain's."""
    twins = (eth("veth0", "02:00:00:00:00:01"), eth("veth1", "02:00:00:00:00:01"))

    assert [("veth0", "guest-agent"), ("veth1", "guest-agent")] == [
        (each["interfaceName"], each["infoSource"]) for each in merge({}, seen(*twins, nics=())).entries
    ]


def test_an_empty_mac_matches_nothing() -> None:
    """An interface without MAC (a tunnel) is not mistaken for a NIC without one."""
    merged = merge({}, seen(eth("tun0", "", "10.8.0.2"), nics=(DomainInterface("default"),)))

    assert ["domain", "guest-agent"] == [each["infoSource"] for each in merged.entries]
    assert "ipAddress" not in merged.entries[0]


def test_guest_only_are_ranked_and_cut() -> None:
    """Those with an address come first, then by name as people count; ten are shown, the rest is counted."""
    guest = [eth(f"cali{number}", f"02:00:00:00:00:{number:02x}") for number in range(12)]
    guest += [eth("wg0", "", "10.9.0.1"), eth("docker0", "02:42:00:00:00:01", "172.17.0.1")]
    merged = merge({}, seen(*guest, nics=()))

    assert ["docker0", "wg0", *(f"cali{number}" for number in range(8))] == [
        each["interfaceName"] for each in merged.entries
    ]
    assert len(merged.entries) == GUEST_ONLY_CAP
    assert 4 == merged.cut


def test_the_order_of_the_agent_changes_nothing() -> None:
    """However the agent sorts its interfaces, the list is the same."""
    guest = [eth(f"eth{number}", f"02:00:00:00:00:{number:02x}", f"10.0.0.{number}") for number in range(15)]
    expected = merge({}, seen(*guest)).entries
    random.Random(1).shuffle(guest)

    assert expected == merge({}, seen(*guest)).entries


def test_another_writers_order_is_left_alone() -> None:
    """A list that says the same in another order is not written again, as long as its first entry is the right one."""
    other = {"mac": "02:00:00:00:00:01", "interfaceName": "a", "infoSource": "guest-agent"}
    last = {"mac": "02:00:00:00:00:02", "interfaceName": "b", "infoSource": "guest-agent"}
    facts = seen(eth("eth0", MAC), eth("a", "02:00:00:00:00:01"), eth("b", "02:00:00:00:00:02"))
    present = [entry(), last, other]

    assert present == merge(vmi(*present), facts).entries
    assert [entry(), other, last] == merge(vmi(last, entry(), other), facts).entries


def test_primary_network_first() -> None:
    """The pod's network leads the list wherever the domain has its NIC; the spec's order follows, then the domain's."""
    nics = tuple(DomainInterface(name, f"02:00:00:00:00:{place:02x}") for place, name in enumerate("xcba"))

    assert ["a", "b", "c", "x"] == [
        each["name"] for each in merge(vmi(networks=("a", "b", "c")), seen(nics=nics)).entries
    ]


def test_pod_address_wins_and_is_never_erased() -> None:
    """On a VMI with a pod the address in place stays, whether the agent tells another or none of that family."""
    present = entry("10.244.0.7", podInterfaceName="eth0")
    behind_nat = seen(eth("eth0", MAC, "10.0.2.2", "fe80::1"))

    assert [present] == merge(vmi(present, pod=True, masquerade={}), behind_nat).entries
    assert [present] == merge(vmi(present, pod=True), seen(eth("eth0", MAC))).entries
    assert [entry("10.244.0.7", "fd00::1", podInterfaceName="eth0")] == merge(
        vmi(present, pod=True), seen(eth("eth0", MAC, "fd00::1"))
    ).entries


def test_agents_new_address_replaces_its_old_one() -> None:
    """Where the list holds what the agent said before, it follows the agent, on a VMI with a pod too."""
    old, new = seen(eth("eth0", MAC, "192.168.1.5")), seen(eth("eth0", MAC, "192.168.1.6"))

    assert [entry("192.168.1.6")] == merge(vmi(entry("192.168.1.5"), pod=True), new, formerly=old).entries
    assert [entry("192.168.1.6")] == merge(vmi(entry("192.168.1.5")), new).entries


def test_without_a_pod_a_lost_address_goes() -> None:
    """Where every address is the agent's, one that it does not tell any more is not shown any more."""
    assert [entry()] == merge(vmi(entry("10.0.0.5")), seen(eth("eth0", MAC))).entries


def test_addresses_of_a_nic_unknown_to_the_guest() -> None:
    """A NIC the guest does not show keeps what others wrote, and loses what the agent had said."""
    foreign = {"name": "default", "ipAddress": "10.0.0.9", "ipAddresses": ["10.0.0.9"]}

    assert "10.0.0.9" == merge(vmi(foreign), seen()).entries[0]["ipAddress"]
    assert "ipAddress" not in merge(vmi(entry("10.0.0.5")), seen()).entries[0]


def test_unknown_guest_keeps_what_is_shown() -> None:
    """As long as the guest's view is unknown, nothing of it flaps to empty; what the domain says is shown."""
    own = {"mac": "02:00:00:00:00:01", "interfaceName": "docker0", "infoSource": "guest-agent"}
    facts = Interfaces((DomainInterface("default", MAC, 4, "down"),), None)

    assert [entry("10.0.0.5", queueCount=4, linkState="down"), own] == merge(vmi(entry("10.0.0.5"), own), facts).entries


def test_unknown_interfaces_leave_the_list_alone() -> None:
    """Without facts about interfaces the list stays as it is."""
    present = [{"name": "default", "infoSource": "multus-status"}, entry("10.0.0.5", name="x")]

    assert present == merge(vmi(*present), None).entries


@pytest.mark.parametrize("facts", [None, seen(eth("eth0", MAC, "10.0.0.5"), eth("docker0", "02:00:00:00:00:01"))])
def test_forgetting_the_guest(facts: Interfaces | None) -> None:
    """When the agent has gone for good, its words go and the domain's stay, whether the NICs are known or not."""
    own = {"mac": "02:00:00:00:00:01", "interfaceName": "docker0", "infoSource": "guest-agent"}
    left = {"name": "default", "mac": MAC, "infoSource": "domain", "queueCount": 1, "linkState": "up"}

    assert [left] == merge(vmi(entry("10.0.0.5"), own), facts, forget_guest=True).entries


@pytest.mark.parametrize("facts", [None, seen(eth("eth0", MAC, "10.0.0.5"))])
def test_forgetting_the_guest_keeps_the_pods_address(facts: Interfaces | None) -> None:
    """A pod's address outlives the agent."""
    assert "10.244.0.7" == merge(vmi(entry("10.244.0.7"), pod=True), facts, forget_guest=True).entries[0]["ipAddress"]


def test_foreign_fields_stay() -> None:
    """What others keep in an entry survives, also fields this version has never heard of."""
    present = entry(podInterfaceName="pod123", futureField="x", infoSource="domain, multus-status")
    merged = merge(vmi(present), seen(eth("eth0", MAC))).entries

    assert [{**present, "infoSource": "domain, guest-agent, multus-status"}] == merged


def test_host_devices() -> None:
    """SR-IOV takes its MAC from the spec, else from the domain; a host device that is no NIC is none here either."""
    devices = (
        DomainInterface("sriov-fast", passthrough=True),
        DomainInterface("hostdev0", MAC, passthrough=True),
        DomainInterface("gpu-0", passthrough=True),
    )
    spec = {"domain": {"devices": {"interfaces": [{"name": "fast", "macAddress": "02:00:00:00:00:09"}]}}}

    assert [
        {"name": "fast", "mac": "02:00:00:00:00:09", "infoSource": "domain"},
        {"name": "hostdev0", "mac": MAC, "infoSource": "domain"},
    ] == merge({"spec": spec}, Interfaces(devices, ())).entries


def test_link_local_addresses() -> None:
    """Behind address translation link-local addresses are not shown, elsewhere they are; nonsense never is."""
    facts = seen(eth("eth0", MAC, "fe80::1", "169.254.0.3", "10.0.2.2", "nonsense"))

    assert ["10.0.2.2"] == merge(vmi(masquerade={}), facts).entries[0]["ipAddresses"]
    assert ["169.254.0.3", "10.0.2.2", "fe80::1"] == merge(vmi(bridge={}), facts).entries[0]["ipAddresses"]


def test_nics_without_names_do_not_share_an_entry() -> None:
    """NICs that have no alias, or the same one, are shown side by side."""
    nics = (DomainInterface("", MAC), DomainInterface("", "02:00:00:00:00:02"))
    merged = merge({}, seen(eth("eth0", MAC, "10.0.0.5"), nics=nics)).entries

    assert [("10.0.0.5", MAC), (None, "02:00:00:00:00:02")] == [(each.get("ipAddress"), each["mac"]) for each in merged]
