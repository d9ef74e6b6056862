"""
VMI `status.interfaces` from the domain's NICs, the guest's interfaces and what the list held before.

The rules are KubeVirt's (pkg/network/setup/netstat.go UpdateStatus, pkg/network/vmispec/{infosource,interface}.go),
with what the virt-controller needs to find again (pkg/network/controllers/vmi.go). Deliberately different:

- A family of addresses that the agent does not report erases nothing of a pod's: its address stays.
- Of several guest interfaces with one MAC (a NIC and the bridge on top of it) the NIC is the domain's, the others are
  the guest's own; nothing overwrites. MACs compare regardless of case, and an empty one matches nothing.
- Interfaces only the guest knows: those with an address first, then by name, at most `GUEST_ONLY_CAP`; the rest is
  counted.
- The order is canonical, and a list that differs from the present one by its order alone counts as equal. Two writers
  that agree on the facts never fight over the order.

- An SR-IOV device without a MAC is the guest's interface whose name tells its PCI address (`pci`), if there is one.

KubeVirt's node agent reads the pod's addresses from a cache beside the pod. Here the list itself is their record: where
a pod stands behind a VMI, addresses in place stay, unless they are what the agent said before it said otherwise.
Where there is no pod, all addresses are the agent's.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guestwire.snapshot import DomainInterface, GuestInterface, Interfaces
from status_writer.addresses import NO_ADDRESS, Families, families, link_local
from status_writer.guest_interfaces import GUEST_ONLY_CAP, SRIOV_PREFIX, Entry, match, present, ranked
from status_writer.info_source import DOMAIN, GUEST_AGENT, MULTUS, add_source, remove_source
from status_writer.info_source import words as _words

_OURS = frozenset(("name", "mac", "interfaceName", "ipAddress", "ipAddresses", "infoSource", "queueCount", "linkState"))
"""Fields decided here; every other one of an entry, `podInterfaceName` for one, is someone else's and stays."""


@dataclass(frozen=True)
class Merged:
    """The whole list, and how many interfaces of the guest it leaves out."""

    entries: list[Entry]
    cut: int = 0


def merge(
    vmi: Mapping[str, Any],
    interfaces: Interfaces | None,
    *,
    told: Collection[str] = (),
    forget_guest: bool = False,
    booting: bool = False,
) -> Merged:
    """
    What `status.interfaces` of this VMI should be; `told` are addresses that the agent is known to have told at some
    time, which counts only where `doubtful` asks for it.

    While the guest is `booting` the agent may be up before the network is: what it does not tell, and the list holds,
    stays. With `forget_guest` everything the agent told goes. Where `interfaces.guest` is unknown, what the list holds
    from the guest stays. Without `interfaces` nothing but the forgetting happens.
    """
    previous = entries_of(vmi)
    networks = _Networks(vmi)
    if interfaces is None:
        kept = [_without_guest(entry, networks) for entry in previous if not _guest_only(entry)]
        return Merged(stable(previous, kept if forget_guest else previous))

    nics = [nic for nic in map(networks.nic, interfaces.domain) if nic is not None]
    before = _by_name(previous, nics)
    guest = () if forget_guest else interfaces.guest
    if guest is None:
        for nic in nics:
            _keep_guest_part(nic, before.get(nic["name"], {}))
        own, cut = [entry for entry in previous if _guest_only(entry)], 0
    else:
        matches, rest = match(nics, guest, {each.name: each.pci for each in interfaces.domain if each.passthrough})
        for index, nic in enumerate(nics):
            there = before.get(nic["name"], {})
            _add_guest_part(nic, matches.get(index), told, there, networks)
            if booting:
                _keep_guest_part(nic, there)
        own, cut = ranked(rest)
        if booting:
            known = {each.name for each in guest}
            own += [each for each in previous if _guest_only(each) and each.get("interfaceName", "") not in known]
            own, cut = own[:GUEST_ONLY_CAP], cut + max(0, len(own) - GUEST_ONLY_CAP)
    nics += _without_nic({nic["name"] for nic in nics}, before, networks)
    for nic in nics:
        _add_foreign_part(nic, before.get(nic["name"], {}))
    return Merged(stable(previous, [present(entry) for entry in networks.ordered(nics)] + own), cut)


def doubtful(vmi: Mapping[str, Any], interfaces: Interfaces | None) -> bool:
    """
    Whether it takes the agent's former words to tell a pod's address from an old one of the agent's: a pod stands
    behind the VMI, and the list holds addresses that the agent does not tell.
    """
    if interfaces is None or not interfaces.guest or not _Networks(vmi).has_pod:
        return False
    tells = {each.address for guest in interfaces.guest for each in guest.addresses}
    return any(
        not tells.issuperset(_addresses(entry))
        for entry in entries_of(vmi)
        if GUEST_AGENT in _words(entry.get("infoSource"))
    )


def entries_of(vmi: Mapping[str, Any]) -> list[Entry]:
    """The present list."""
    return list((vmi.get("status") or {}).get("interfaces") or ())


def stable(previous: list[Entry], entries: list[Entry]) -> list[Entry]:
    """`previous` itself when the new list says the same: same first entry (it is the VMI's address), same others."""
    old, new = list(map(_canonical, previous)), list(map(_canonical, entries))
    return previous if old[:1] == new[:1] and sorted(old) == sorted(new) else entries


class _Networks:
    """What the VMI's spec says about its networks, and whether a pod stands behind it."""

    def __init__(self, vmi: Mapping[str, Any]) -> None:
        spec = vmi.get("spec") or {}
        devices = (spec.get("domain") or {}).get("devices") or {}
        self.interfaces: dict[str, Mapping[str, Any]] = {
            each.get("name", ""): each for each in devices.get("interfaces") or ()
        }
        networks = spec.get("networks") or ()
        self.names = [network.get("name", "") for network in networks]
        self.primary = next((network.get("name", "") for network in networks if _of_pod(network)), None)
        self.has_pod = bool((vmi.get("status") or {}).get("activePods"))
        """Whether KubeVirt runs this VMI in a pod, as the virt-controller says (activePods, by pod uid)."""

    def nic(self, device: DomainInterface) -> Entry | None:
        """
        The entry of a device of the domain; None when it is a host device that is no NIC. SR-IOV: the name follows the
        alias' prefix, the MAC is the one of the spec, queues and link state are the host's business (netstat.go
        updateIfacesStatusFromDomainHostDevices).
        """
        if device.passthrough:
            name = device.name.removeprefix(SRIOV_PREFIX)
            if name == device.name and not device.mac:
                return None
            mac = self.interfaces.get(name, {}).get("macAddress") or device.mac
            return {"name": name, "mac": mac, "infoSource": DOMAIN}
        return {
            "name": device.name,
            "mac": device.mac,
            "infoSource": DOMAIN,
            "queueCount": device.queues or 1,
            "linkState": device.link_state or "up",
        }

    def told(self, name: str, guest: GuestInterface | None) -> Families:
        """
        The addresses of a NIC that the agent tells. Behind address translation (masquerade) link-local ones mean
        nothing outside.
        """
        addresses = [each.address for each in guest.addresses] if guest else []
        if "masquerade" in self.interfaces.get(name, {}):
            addresses = [each for each in addresses if not link_local(each)]
        return families(addresses)

    def ordered(self, nics: Iterable[Entry]) -> list[Entry]:
        """The primary network first (the VMI's address is that of the first entry), the spec's order, the domain's."""
        places = {name: place for place, name in enumerate(self.names)}
        return sorted(nics, key=lambda nic: (nic["name"] != self.primary, places.get(nic["name"], len(places))))


def _of_pod(network: Mapping[str, Any]) -> bool:
    return "pod" in network or bool((network.get("multus") or {}).get("default"))


def _by_name(previous: Sequence[Entry], nics: Sequence[Entry]) -> dict[str, Entry]:
    """The present entry of each name, but for names that several NICs share."""
    shared = {
        nic["name"] for number, nic in enumerate(nics) if nic["name"] in {other["name"] for other in nics[:number]}
    }
    return {entry["name"]: entry for entry in reversed(previous) if entry.get("name") and entry["name"] not in shared}


def _add_guest_part(
    nic: Entry, guest: GuestInterface | None, told_once: Collection[str], before: Entry, networks: _Networks
) -> None:
    """
    The NIC's name in the guest, and its addresses: per family a pod's wins, the agent fills what is missing
    (netstat.go, per family since v1.6).
    """
    in_place = families(_addresses(before))
    if guest is None:
        stays = networks.has_pod or GUEST_AGENT not in _words(before.get("infoSource"))
        _set_addresses(nic, in_place if stays else NO_ADDRESS)
        return
    told = networks.told(nic["name"], guest)
    if guest.name:
        nic["interfaceName"] = guest.name
        nic["infoSource"] = add_source(nic["infoSource"], GUEST_AGENT)
    if not networks.has_pod:
        _set_addresses(nic, told)
        return
    chosen = [
        now if now and all(each in told_once for each in there) else there
        for there, now in zip(in_place, told, strict=True)
    ]
    _set_addresses(nic, (chosen[0], chosen[1]))


def _keep_guest_part(nic: Entry, before: Entry) -> None:
    """What the list holds from the guest, as far as nothing newer is known, address family by address family."""
    if GUEST_AGENT in _words(before.get("infoSource")):
        nic["infoSource"] = add_source(nic["infoSource"], GUEST_AGENT)
    if before.get("interfaceName"):
        nic.setdefault("interfaceName", before["interfaceName"])
    nic["mac"] = nic["mac"] or before.get("mac", "")
    newer, there = families(_addresses(nic)), families(_addresses(before))
    _set_addresses(nic, (newer[0] or there[0], newer[1] or there[1]))


def _without_guest(entry: Entry, networks: _Networks) -> Entry:
    """An entry that forgets what the agent told."""
    sources = entry.get("infoSource") or ""
    if GUEST_AGENT not in _words(sources):
        return entry
    gone = {"interfaceName"} if networks.has_pod else {"interfaceName", "ipAddress", "ipAddresses"}
    kept = {key: value for key, value in entry.items() if key not in gone}
    return present({**kept, "infoSource": remove_source(sources, GUEST_AGENT)})


def _without_nic(shown: set[str], before: Mapping[str, Entry], networks: _Networks) -> list[Entry]:
    """
    Networks of the spec that the domain has no NIC for, but which stay: the primary one, and those that Multus reports
    (netstat.go; that is how the virt-controller's entries survive).
    """
    known = {name: entry for name, entry in before.items() if name not in shown}
    return [
        {"name": name}
        for name, entry in known.items()
        if name == networks.primary
        or (MULTUS in _words(entry.get("infoSource")) and (name in networks.names or name in networks.interfaces))
    ]


def _add_foreign_part(nic: Entry, before: Entry) -> None:
    """What others wrote into this entry: fields that are not ours, and Multus' word (netstat.go)."""
    nic.update({key: value for key, value in before.items() if key not in _OURS})
    if MULTUS in _words(before.get("infoSource")):
        nic["infoSource"] = add_source(nic.get("infoSource", ""), MULTUS)


def _guest_only(entry: Entry) -> bool:
    return not entry.get("name") and _words(entry.get("infoSource")) == [GUEST_AGENT]


def _set_addresses(entry: Entry, families: Families) -> None:
    """IPv4 first: the first address is the one shown."""
    addresses = [*families[0], *families[1]]
    if addresses:
        entry["ipAddress"], entry["ipAddresses"] = addresses[0], addresses


def _addresses(entry: Entry) -> list[str]:
    one = entry.get("ipAddress")
    return list(entry.get("ipAddresses") or ([one] if one else []))


def _canonical(entry: Entry) -> str:
    return json.dumps(present(entry), sort_keys=True)
