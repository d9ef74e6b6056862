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

KubeVirt's node agent reads the pod's addresses from a cache beside the pod. Here the list itself is their record: where
a pod stands behind a VMI, addresses in place stay, unless they are what the agent said before it said otherwise.
Where there is no pod, all addresses are the agent's.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guestwire.snapshot import DomainInterface, GuestInterface, Interfaces
from status_writer.addresses import NO_ADDRESS, Families, families, first_shown, link_local

Entry = dict[str, Any]
"""One element of `status.interfaces` (VirtualMachineInstanceNetworkInterface)."""

GUEST_ONLY_CAP = 10
"""KubeVirt's limit (netstat.go, since v1.8.0: a guest must not be able to grow the VMI without end)."""

DOMAIN, GUEST_AGENT, MULTUS = "domain", "guest-agent", "multus-status"
SRIOV_PREFIX = "sriov-"

_OURS = frozenset(("name", "mac", "interfaceName", "ipAddress", "ipAddresses", "infoSource", "queueCount", "linkState"))
"""Fields decided here; every other one of an entry, `podInterfaceName` for one, is someone else's and stays."""

_STACKED = re.compile(r"(br|bond|team|vlan|veth|vnet|tap|tun|virbr|docker|cni|dummy)[-_\d]|.*[.@:]")
"""Names that Linux tools give to interfaces on top of a NIC."""


@dataclass(frozen=True)
class Merged:
    """The whole list, and how many interfaces of the guest it leaves out."""

    entries: list[Entry]
    cut: int = 0


def merge(
    vmi: Mapping[str, Any],
    interfaces: Interfaces | None,
    *,
    formerly: Interfaces | None = None,
    forget_guest: bool = False,
) -> Merged:
    """
    What `status.interfaces` of this VMI should be; `formerly` is what its present content was made from, when known.

    With `forget_guest` everything the agent told goes. Where `interfaces.guest` is unknown, what the list holds from
    the guest stays. Without `interfaces` nothing but the forgetting happens.
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
        matches, rest = _match(nics, guest)
        matched_before, _ = _match(nics, (formerly.guest if formerly else None) or ())
        for index, nic in enumerate(nics):
            told_before = networks.told(nic["name"], matched_before.get(index))
            _add_guest_part(nic, matches.get(index), told_before, before.get(nic["name"], {}), networks)
        own, cut = _ranked(rest)
    nics += _without_nic({nic["name"] for nic in nics}, before, networks)
    for nic in nics:
        _add_foreign_part(nic, before.get(nic["name"], {}))
    return Merged(stable(previous, [_present(entry) for entry in networks.ordered(nics)] + own), cut)


def entries_of(vmi: Mapping[str, Any]) -> list[Entry]:
    """The present list."""
    return list((vmi.get("status") or {}).get("interfaces") or ())


def add_source(sources: str, source: str) -> str:
    """An `infoSource` with one more word, appended unless it is there (infosource.go)."""
    words = _words(sources)
    return ", ".join(words if source in words else [*words, source])


def remove_source(sources: str, source: str) -> str:
    """An `infoSource` without a word (infosource.go)."""
    return ", ".join(word for word in _words(sources) if word != source)


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
        entries = entries_of(vmi)
        self.has_pod = bool((vmi.get("status") or {}).get("activePods")) or any(
            entry.get("podInterfaceName") or MULTUS in _words(entry.get("infoSource")) for entry in entries
        )
        """Whether KubeVirt runs this VMI in a pod: it says which, or which of the pod's interfaces stand behind it."""

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


def _match(
    nics: Sequence[Entry], guest: Sequence[GuestInterface]
) -> tuple[dict[int, GuestInterface], list[GuestInterface]]:
    """Which interface of the guest is which NIC, by MAC, one each; and those that are none. `lo` is left out."""
    shown = [each for each in guest if each.name != "lo"]
    waiting = sorted(shown, key=lambda each: bool(_STACKED.match(each.name)))  # stable: else in the agent's order
    matches: dict[int, GuestInterface] = {}
    for index, nic in enumerate(nics):
        mac = nic["mac"].casefold()
        found = next((each for each in waiting if mac and each.mac.casefold() == mac), None)
        if found is not None:
            matches[index] = found
            waiting = [each for each in waiting if each is not found]
    return matches, [each for each in shown if any(each is other for other in waiting)]


def _add_guest_part(
    nic: Entry, guest: GuestInterface | None, told_before: Families, before: Entry, networks: _Networks
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
        now if now and (not there or sorted(there) == sorted(old)) else there
        for there, old, now in zip(in_place, told_before, told, strict=True)
    ]
    _set_addresses(nic, (chosen[0], chosen[1]))


def _keep_guest_part(nic: Entry, before: Entry) -> None:
    if GUEST_AGENT in _words(before.get("infoSource")):
        nic["infoSource"] = add_source(nic["infoSource"], GUEST_AGENT)
    if before.get("interfaceName"):
        nic["interfaceName"] = before["interfaceName"]
    _set_addresses(nic, families(_addresses(before)))


def _without_guest(entry: Entry, networks: _Networks) -> Entry:
    """An entry that forgets what the agent told."""
    sources = entry.get("infoSource") or ""
    if GUEST_AGENT not in _words(sources):
        return entry
    gone = {"interfaceName"} if networks.has_pod else {"interfaceName", "ipAddress", "ipAddresses"}
    kept = {key: value for key, value in entry.items() if key not in gone}
    return _present({**kept, "infoSource": remove_source(sources, GUEST_AGENT)})


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


def _ranked(guest: Sequence[GuestInterface]) -> tuple[list[Entry], int]:
    """Entries of interfaces only the guest knows, and how many are left out."""
    ranked = sorted(guest, key=lambda each: (not each.addresses, _natural(each.name), each.mac.casefold()))
    return list(map(_own, ranked[:GUEST_ONLY_CAP])), max(0, len(ranked) - GUEST_ONLY_CAP)


def _own(guest: GuestInterface) -> Entry:
    """As the launcher converts an interface (convertToInterfaces): every address, the first IPv4 in front."""
    addresses = [each.address for each in guest.addresses]
    return _present(
        {
            "mac": guest.mac,
            "ipAddress": first_shown(addresses),
            "ipAddresses": addresses,
            "interfaceName": guest.name,
            "infoSource": GUEST_AGENT,
        }
    )


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


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `eth2` before `eth10`."""
    return [(int(digits), "") if digits else (-1, text) for digits, text in re.findall(r"(\d+)|(\D+)", name)]


def _words(sources: str | None) -> list[str]:
    return [word.strip() for word in (sources or "").split(",") if word.strip()]


def _present(entry: Entry) -> Entry:
    """Without empty fields, as Go's omitempty leaves them out."""
    return {key: value for key, value in entry.items() if value not in ("", None, 0, [])}


def _canonical(entry: Entry) -> str:
    return json.dumps(_present(entry), sort_keys=True)
