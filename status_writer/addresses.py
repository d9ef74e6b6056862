"""IP addresses as text, by family. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache

Families = tuple[list[str], list[str]]
"""IPv4 and IPv6 addresses."""

NO_ADDRESS: Families = ([], [])


def families(addresses: Iterable[str]) -> Families:
    """Each address once; what is no address is none, one with a zone included (net.ParseIP in netstat.go)."""
    found: Families = ([], [])
    for text in dict.fromkeys(addresses):
        address = _parse(text)
        if address is not None:
            found[0 if address.version == 4 else 1].append(text)
    return found


def first_shown(addresses: Sequence[str]) -> str:
    """The one to show of several: the first IPv4, else the first (launcher, convertToInterfaces)."""
    return next((each for each in addresses if "." in each and ":" not in each), next(iter(addresses), ""))


def link_local(text: str) -> bool:
    """Whether an address means nothing beyond its link: 169.254.0.0/16, fe80::/10."""
    address = _parse(text)
    return address is not None and address.is_link_local


@lru_cache(maxsize=4096)
def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None
