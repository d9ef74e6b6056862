"""
Which PCI device an interface of the guest is, going by its name.

A guest agent tells no PCI addresses of interfaces. Linux does, where udev names them by their path: `enp6s0` is bus 6,
slot 0; `P` precedes a PCI domain other than 0, `f` a function, `n` a port (systemd.net-naming-scheme). Decimal there,
hexadecimal in libvirt. Names by other schemes (`eth0`, `ens3`, `eno1`, chosen ones) tell nothing.

NB: bus numbers are given out by the guest's firmware. On QEMU's machines they are those of the domain's XML as long as
no PCI bridge is behind another one.

Pure.
"""

from __future__ import annotations

import re

_BY_PATH = re.compile(r"(?:en|ib|wl)(?:P(\d{1,5}))?p(\d{1,3})s(\d{1,3})(?:f(\d))?(?:n[\w-]+|d\d+)?")


def address_of(name: str) -> str:
    """The PCI address that a name tells, e.g. `0000:06:00.0`; empty when it tells none."""
    found = _BY_PATH.fullmatch(name)
    if found is None:
        return ""
    domain, bus, slot, function = (int(part or 0) for part in found.groups())
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
