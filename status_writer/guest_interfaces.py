"""
Interfaces as the guest tells them: which of them are the domain's NICs, and which only the guest knows. Pure.

The agent's order carries no meaning, and has no influence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guestwire.snapshot import GuestInterface
from status_writer import pci
from status_writer.addresses import first_shown, link_local
from status_writer.info_source import GUEST_AGENT

Entry = dict[str, Any]
"""One element of `status.interfaces` (VirtualMachineInstanceNetworkInterface)."""

GUEST_ONLY_CAP = 10
"""KubeVirt's limit (netstat.go, since v1.8.0: a guest must not be able to grow the VMI without end)."""

SRIOV_PREFIX = "sriov-"

_STACKED = re.compile(r"(br|bond|team|vlan|veth|vnet|tap|tun|virbr|docker|cni|dummy)[-_\d]|.*[.@:]")
"""Names that Linux tools give to interfaces on top of a NIC."""


def match(
    nics: Sequence[Entry], guest: Sequence[GuestInterface], places: Mapping[str, str]
) -> tuple[dict[int, GuestInterface], list[GuestInterface]]:
    """
    Which interface of the guest is which NIC, one each, and those that are none; `lo` is left out. By MAC first. A host
    device without one by its PCI address (`places`, by alias), if that is told by the name of an interface that is
    nobody else's; then it takes over the MAC.
    """
    waiting = sorted((each for each in guest if each.name != "lo"), key=_nics_first)
    matches: dict[int, GuestInterface] = {}
    for index, nic in enumerate(nics):
        mac = nic["mac"].casefold()
        found = next((each for each in waiting if mac and each.mac.casefold() == mac), None)
        if found is not None:
            matches[index] = found
            waiting = [each for each in waiting if each is not found]
    for index, nic in enumerate(nics):
        place = "" if nic["mac"] else places.get(SRIOV_PREFIX + nic["name"], "")
        fitting = [each for each in waiting if place and pci.address_of(each.name) == place]
        if len(fitting) == 1:
            matches[index] = fitting[0]
            nic["mac"] = fitting[0].mac
            waiting = [each for each in waiting if each is not fitting[0]]
    return matches, waiting


def _nics_first(guest: GuestInterface) -> tuple[Any, ...]:
    return bool(_STACKED.match(guest.name)), _content(guest)


def _content(guest: GuestInterface) -> tuple[Any, ...]:
    """A total order: by name as people count, then by all there is."""
    return _natural(guest.name), guest.mac.casefold(), guest.mac, _texts(guest)


def ranked(guest: Iterable[GuestInterface]) -> tuple[list[Entry], int]:
    """Entries of interfaces only the guest knows, and how many are left out."""
    best = sorted(guest, key=lambda each: (_rank(each), _content(each)))
    return list(map(_own, best[:GUEST_ONLY_CAP])), max(0, len(best) - GUEST_ONLY_CAP)


def _rank(guest: GuestInterface) -> int:
    """An address that others can reach, one that nobody beyond the link can (every interface that is up has), none."""
    if not guest.addresses:
        return 2
    return int(all(link_local(each.address) for each in guest.addresses))


def _own(guest: GuestInterface) -> Entry:
    """As the launcher converts an interface (convertToInterfaces): every address, the first IPv4 in front."""
    addresses = _texts(guest)
    return present(
        {
            "mac": guest.mac,
            "ipAddress": first_shown(addresses),
            "ipAddresses": addresses,
            "interfaceName": guest.name,
            "infoSource": GUEST_AGENT,
        }
    )


def present(entry: Entry) -> Entry:
    """Without empty fields, as Go's omitempty leaves them out."""
    return {key: value for key, value in entry.items() if value not in ("", None, 0, [])}


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `eth2` before `eth10`."""
    return [(int(digits), "") if digits else (-1, text) for digits, text in re.findall(r"(\d+)|(\D+)", name)]


def _texts(guest: GuestInterface) -> list[str]:
    return [each.address for each in guest.addresses]
