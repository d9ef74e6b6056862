"""`status.interfaces`: what KubeVirt's own cases do not say."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guestwire.snapshot import DomainInterface, GuestInterface, Interfaces, IPAddress
from status_writer import pci
from status_writer.guest_interfaces import GUEST_ONLY_CAP, Entry
from status_writer.merge import doubtful, merge

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
    new = seen(eth("eth0", MAC, "192.168.1.6"))
    told = {"192.168.1.5", "192.168.1.6"}

    assert [entry("192.168.1.6")] == merge(vmi(entry("192.168.1.5"), pod=True), new, told=told).entries
    assert [entry("10.244.0.7")] == merge(vmi(entry("10.244.0.7"), pod=True), new, told=told).entries
    assert [entry("192.168.1.6")] == merge(vmi(entry("192.168.1.5")), new).entries


def test_the_agents_former_words_are_asked_for_only_when_they_matter() -> None:
    """Without a pod, or while the agent tells every address in place, nobody needs the history."""
    facts = seen(eth("eth0", MAC, "192.168.1.6"))

    assert doubtful(vmi(entry("192.168.1.5"), pod=True), facts)
    assert not doubtful(vmi(entry("192.168.1.5")), facts)
    assert not doubtful(vmi(entry("192.168.1.6"), pod=True), facts)
    assert not doubtful(vmi(entry("192.168.1.5"), pod=True), None)


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


def test_while_booting_nothing_vanishes() -> None:
    """An agent that is up before the network is takes no address away, and what it does tell counts at once."""
    own = {"mac": "02:00:00:00:00:01", "interfaceName": "docker0", "infoSource": "guest-agent"}
    present = vmi(entry("10.0.0.5", "fd00::5"), own)

    assert [entry("10.0.0.5", "fe80::1"), own] == merge(
        present, seen(eth("eth0", MAC, "fe80::1")), booting=True
    ).entries
    assert [entry("10.0.0.5", "fd00::5"), own] == merge(present, seen(), booting=True).entries
    assert [entry("10.0.0.6", "fd00::5"), own] == merge(
        present, seen(eth("eth0", MAC, "10.0.0.6")), booting=True
    ).entries
    assert [entry("fe80::1")] == merge(present, seen(eth("eth0", MAC, "fe80::1"))).entries


def test_while_booting_the_cap_holds() -> None:
    """Old and new interfaces of the guest together are no more than the cap; those that it tells come first."""
    old = [{"interfaceName": f"cali{number}", "infoSource": "guest-agent"} for number in range(9)]
    merged = merge(vmi(*old), seen(eth("wg0", ""), eth("wg1", ""), nics=()), booting=True)

    assert (GUEST_ONLY_CAP, 1) == (len(merged.entries), merged.cut)
    assert ["wg0", "wg1"] == [each["interfaceName"] for each in merged.entries[:2]]


def virtual_function(mac: str = "", place: str = "0000:06:00.0") -> DomainInterface:
    """A host device as KubeVirt gives it to a domain."""
    return DomainInterface("sriov-fast", mac, passthrough=True, pci=place)


def test_sriov_without_mac_is_found_by_pci_address() -> None:
    """A virtual function without a MAC is the interface that the guest named after its PCI address: shown once."""
    other, function = eth("enp7s0", "02:00:00:00:00:07"), eth("enp6s0", "02:00:00:00:00:06", "10.0.6.6")
    facts = Interfaces((virtual_function(),), (other, function))

    assert [
        {
            "name": "fast",
            "mac": "02:00:00:00:00:06",
            "interfaceName": "enp6s0",
            "ipAddress": "10.0.6.6",
            "ipAddresses": ["10.0.6.6"],
            "infoSource": "domain, guest-agent",
        },
        {"mac": "02:00:00:00:00:07", "interfaceName": "enp7s0", "infoSource": "guest-agent"},
    ] == merge({}, facts).entries


def test_sriov_stays_known_while_the_guest_is_unknown() -> None:
    """What the guest told of a virtual function, its MAC too, does not flap to empty."""
    known = merge({}, Interfaces((virtual_function(),), (eth("enp6s0", "02:00:00:00:00:06"),))).entries

    assert known == merge({"status": {"interfaces": known}}, Interfaces((virtual_function(),), None)).entries


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (virtual_function(), "eth1"),
        (virtual_function(), "ens6"),
        (virtual_function(), "enp6s0.100"),
        (virtual_function(), "enp7s0"),
        (virtual_function(place=""), "enp6s0"),
        (virtual_function(mac="02:00:00:00:00:01"), "enp6s0"),
    ],
)
def test_sriov_is_not_guessed(device: DomainInterface, name: str) -> None:
    """A name of another scheme or place tells nothing; with a MAC the MAC alone decides."""
    merged = merge({}, Interfaces((device,), (eth(name, "02:00:00:00:00:06"),))).entries

    assert ["domain", "guest-agent"] == [each["infoSource"] for each in merged]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("enp6s0", "0000:06:00.0"),
        ("enp26s31f7", "0000:1a:1f.7"),
        ("enP2p0s5f1np0", "0002:00:05.1"),
        ("ibp1s0", "0000:01:00.0"),
        ("enp1s0d1", "0000:01:00.0"),
        ("ens3", ""),
        ("enx525400000001", ""),
        ("", ""),
    ],
)
def test_pci_addresses_in_names(name: str, place: str) -> None:
    """Systemd's names by path, decimal, are PCI addresses; others are none."""
    assert place == pci.address_of(name)


def test_an_address_that_reaches_nobody_ranks_below_one_that_does() -> None:
    """Every interface that is up has a link-local address: it must not push out the one that people look for."""
    guest = [eth(f"cali{number}", f"02:00:00:00:00:{number:02x}", "fe80::1") for number in range(12)]
    merged = merge({}, seen(*guest, eth("wg0", "", "10.9.0.1"), nics=()))

    assert ("wg0", 3) == (merged.entries[0]["interfaceName"], merged.cut)


# --- properties ------------------------------------------------------------------------------------------------

MACS = st.sampled_from(["", MAC, MAC.upper(), "02:00:00:00:00:0a", "02:00:00:00:00:0A", "02:00:00:00:00:0b"])
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "169.254.1.1", "fe80::1", "fd00::1", "nonsense"])
GUESTS = st.lists(
    st.builds(
        eth,
        st.sampled_from(["lo", "eth0", "eth1", "eth10", "br0", "bond0", "enp6s0", "enp6s0f1", "docker0", ""]),
        MACS,
        *(ADDRESSES,) * 2,
    )
    | st.builds(eth, st.sampled_from(["eth0", "veth7", "wg0"]), MACS),
    max_size=14,
)
NIC_OF_ANY_KIND = st.builds(
    DomainInterface,
    name=st.sampled_from(["default", "second", "sriov-third", "sriov-second", ""]),
    mac=MACS,
    queues=st.integers(0, 2),
    passthrough=st.booleans(),
    pci=st.sampled_from(["", "0000:06:00.0", "0000:06:00.1"]),
)
NICS = st.lists(NIC_OF_ANY_KIND, max_size=4).map(tuple)
DISTINCT_NICS = st.lists(NIC_OF_ANY_KIND, max_size=4, unique_by=lambda device: device.name.removeprefix("sriov-")).map(
    tuple
)
"""Of entries that share a name nobody knows whose addresses they hold."""
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"infoSource": st.sampled_from(["domain", "guest-agent", "domain, guest-agent", "domain, multus-status"])},
        optional={
            "name": st.sampled_from(["default", "second", "third"]),
            "mac": MACS,
            "interfaceName": st.sampled_from(["eth0", "br0"]),
            "ipAddresses": st.lists(ADDRESSES, min_size=1, max_size=2),
            "podInterfaceName": st.just("pod1"),
        },
    ),
    max_size=5,
)
TOLD = st.frozensets(ADDRESSES)
MODES = st.sampled_from([{}, {"forget_guest": True}, {"booting": True}])


@settings(max_examples=500, deadline=None)
@given(nics=NICS, guest=GUESTS, present=ENTRIES, pod=st.booleans(), told=TOLD, randomness=st.randoms())
def test_order_without_meaning_has_no_influence(
    nics: tuple[DomainInterface, ...],
    guest: list[GuestInterface],
    present: list[Entry],
    pod: bool,
    told: frozenset[str],
    randomness: random.Random,
) -> None:
    """The agent's order of interfaces and the order of what is told decide nothing; the same input, the same list."""
    document = vmi(*present, pod=pod, networks=("default", "second", "third"))
    expected = merge(document, seen(*guest, nics=nics), told=told)
    shuffled = randomness.sample(guest, len(guest))

    assert expected == merge(document, seen(*guest, nics=nics), told=told)
    assert expected == merge(document, seen(*shuffled, nics=nics), told=list(told))


@settings(max_examples=500, deadline=None)
@given(nics=NICS, guest=st.none() | GUESTS, present=ENTRIES, pod=st.booleans(), told=TOLD, mode=MODES)
def test_merging_twice_is_merging_once(
    nics: tuple[DomainInterface, ...],
    guest: list[GuestInterface] | None,
    present: list[Entry],
    pod: bool,
    told: frozenset[str],
    mode: dict[str, bool],
) -> None:
    """A merged list, merged again, is the very same, element by element."""
    facts = Interfaces(nics, None if guest is None else tuple(guest))
    document = vmi(*present, pod=pod, networks=("default", "second", "third"))
    once = merge(document, facts, told=told, **mode)
    document["status"]["interfaces"] = once.entries

    assert once.entries == merge(document, facts, told=told, **mode).entries


@settings(max_examples=300, deadline=None)
@given(nics=DISTINCT_NICS, guest=GUESTS, present=ENTRIES, randomness=st.randoms())
def test_two_writers_never_fight_over_the_order(
    nics: tuple[DomainInterface, ...], guest: list[GuestInterface], present: list[Entry], randomness: random.Random
) -> None:
    """However another writer orders the same list behind its first entry, it is left as that writer had it."""
    document = vmi(*present, networks=("default", "second", "third"))
    document["status"]["interfaces"] = entries = merge(document, seen(*guest, nics=nics)).entries
    document["status"]["interfaces"] = other = [*entries[:1], *randomness.sample(entries[1:], len(entries[1:]))]

    assert other == merge(document, seen(*guest, nics=nics)).entries
