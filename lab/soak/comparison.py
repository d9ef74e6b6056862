"""
Consumers against the truth: a line for every difference. Pure.

What is compared is what a consumer says of every guest, and that it says nothing of guests that do not exist.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lab.soak.consumers import Ref, Said
from lab.soak.expected import Expected


def bodies(expected: Collection[Expected], said: Said) -> Iterator[str]:
    """A consumer that has the bodies of messages."""
    known = {guest.ref: guest for guest in expected if guest.there}
    for namespace, name in said.keys() - known.keys():
        yield f"{namespace}/{name}: it does not exist, and is still known"
    for ref, guest in known.items():
        has = said.get(ref)
        if has is None:
            yield f"{guest.namespace}/{guest.name}: not known"
            continue
        agent = has.get("agent", {})
        about = {field: agent.get(field) for field in guest.agent}
        for kind, wanted, found in (
            ("agent", guest.agent, about),
            *((kind, body, has.get(kind)) for kind, body in guest.bodies.items()),
        ):
            for difference in differences(wanted, found):
                yield f"{guest.namespace}/{guest.name} {kind}{difference}"


def statuses(expected: Collection[Expected], said: Mapping[Ref, Mapping[str, Any]]) -> Iterator[str]:
    """The status of VMIs, of which each guest has one, whether it is there or not."""
    for guest in expected:
        status = said.get(guest.ref)
        if status is None:
            yield f"{guest.namespace}/{guest.name}: no such VMI"
            continue
        connected = guest.there and guest.connected
        shown = {
            "AgentConnected": any(each["type"] == "AgentConnected" for each in status.get("conditions", ())),
            "guestOSInfo": status.get("guestOSInfo"),
            "ipAddresses": _shown_addresses(status, guest.mac),
        }
        wanted: dict[str, Any] = {"AgentConnected": connected, "guestOSInfo": None, "ipAddresses": []}
        if connected:
            wanted["guestOSInfo"] = guest.bodies.get("guestosinfo", {}).get("os") or None
            wanted["ipAddresses"] = _addresses(guest)
            if wanted["guestOSInfo"] is None:  # unknown; what is shown stays
                shown["guestOSInfo"] = None
        for difference in differences(wanted, shown):
            yield f"{guest.namespace}/{guest.name} status{difference}"


def rows(expected: Collection[Expected], said: Mapping[str, Mapping[Ref, set[tuple[Any, ...]]]]) -> Iterator[str]:
    """The rows that an export makes of messages."""
    for guest in expected:
        for kind, wanted in _rows(guest).items():
            found = said[kind].get(guest.ref, set())
            if wanted != found:
                yield f"{guest.namespace}/{guest.name} rows of {kind}: {sorted(found)} instead of {sorted(wanted)}"


def differences(expected: Any, actual: Any, path: str = "") -> Iterator[str]:
    """Where two JSON values differ, each as `.path: this instead of that`."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            yield from differences(expected.get(key), actual.get(key), f"{path}.{key}")
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for place, (one, other) in enumerate(zip(expected, actual, strict=True)):
            yield from differences(one, other, f"{path}[{place}]")
    elif expected != actual:
        yield f"{path}: {_short(actual)} instead of {_short(expected)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}..."


def _addresses(guest: Expected) -> list[str]:
    """Those of the NIC's interface in the guest."""
    interfaces = guest.bodies.get("interfaces", {}).get("guest", ())
    found = [each.get("addresses", ()) for each in interfaces if each.get("mac", "").lower() == guest.mac.lower()]
    return sorted({address["address"] for addresses in found for address in addresses}, key=_by_family)


def _shown_addresses(status: Mapping[str, Any], mac: str) -> list[str]:
    entries = [each for each in status.get("interfaces", ()) if each.get("mac", "").lower() == mac.lower()]
    return sorted({address for each in entries for address in each.get("ipAddresses", ())}, key=_by_family)


def _by_family(address: str) -> tuple[int, int]:
    known = ipaddress.ip_address(address)
    return known.version, int(known)


def _rows(guest: Expected) -> dict[str, set[tuple[Any, ...]]]:
    """Those that there should be, by kind."""
    if not guest.there:
        return {kind: set() for kind in ("agent", "userlist", "filesystemlist", "interfaces")}
    found: dict[str, set[tuple[Any, ...]]] = {"agent": {(guest.phase, guest.connected)}}
    for kind, body in guest.bodies.items():
        match kind:
            case "userlist":
                found[kind] = {(user["userName"],) for user in body["items"]}
            case "filesystemlist":
                found[kind] = {(each["mountPoint"], each["usedBytes"]) for each in body["items"]}
            case "interfaces":
                found[kind] = {
                    (each["name"], address["address"])
                    for each in body.get("guest", ())
                    for address in each.get("addresses", ())
                }
    return found
