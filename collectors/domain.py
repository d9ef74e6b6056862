"""
What a domain's XML and state tell: identity, devices, and whether the agent's channel is open.

Pure: text in, struct out. The channel is `org.qemu.guest_agent.0` on virtio; its `state` attribute in the live XML is
the truth behind agent lifecycle events.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

import msgspec

from guestwire.errors import ContractError
from guestwire.snapshot import DomainInterface, GuestRef, Phase

AGENT_CHANNEL = "org.qemu.guest_agent.0"
KUBEVIRT = "{http://kubevirt.io}"
USER_ALIAS = "ua-"
"""libvirt's prefix of aliases that a person or program chose."""


class Domain(msgspec.Struct, frozen=True):
    """A domain at one moment."""

    ref: GuestRef
    name: str
    uuid: str
    uid: str
    phase: Phase
    channel: bool
    connected: bool
    interfaces: tuple[DomainInterface, ...]


def parse(xml: str, phase: Phase) -> Domain:
    """From the live XML. Raises ContractError when it is no domain."""
    try:
        root = ET.fromstring(xml)  # noqa: S314 - from libvirt, which wrote it itself
    except ET.ParseError as error:
        raise ContractError(f"domain XML: {error}") from error
    name, uuid = root.findtext("name") or "", root.findtext("uuid") or ""
    if not name or not uuid:
        raise ContractError("domain XML: no name or no uuid")
    channels = [
        target
        for target in root.iterfind("devices/channel/target")
        if target.get("type") == "virtio" and target.get("name") == AGENT_CHANNEL
    ]
    running = phase in {Phase.RUNNING, Phase.PAUSED}
    return Domain(
        ref=GuestRef.of_domain(name),
        name=name,
        uuid=uuid,
        uid=_kubevirt_uid(root) or uuid,
        phase=phase,
        channel=bool(channels),
        connected=running and any(target.get("state") == "connected" for target in channels),
        interfaces=(*_interfaces(root), *_host_devices(root)),
    )


def _kubevirt_uid(root: ET.Element) -> str:
    """KubeVirt puts the VMI's uid into `<metadata><kubevirt><uid>` (converter.go, with its own XML namespace)."""
    for path in (f"metadata/{KUBEVIRT}kubevirt/{KUBEVIRT}uid", "metadata/kubevirt/uid"):
        if uid := (root.findtext(path) or "").strip():
            return uid
    return ""


def _alias(device: ET.Element) -> str:
    alias = device.find("alias")
    return "" if alias is None else (alias.get("name") or "").removeprefix(USER_ALIAS)


def _interfaces(root: ET.Element) -> list[DomainInterface]:
    """
    Network devices in XML order. KubeVirt counts the queues of the driver, else one, and takes a missing link state
    for up (netstat.go ifacesStatusFromDomainInterfaces).
    """
    found = []
    for device in root.iterfind("devices/interface"):
        mac, driver, link = device.find("mac"), device.find("driver"), device.find("link")
        queues = driver.get("queues", "") if driver is not None else ""
        passthrough = device.get("type") == "hostdev"
        found.append(
            DomainInterface(
                name=_alias(device),
                mac=(mac.get("address") or "") if mac is not None else "",
                queues=0 if passthrough else (int(queues) if queues.isdigit() else 1),
                link_state="" if passthrough else ((link.get("state") or "up") if link is not None else "up"),
                passthrough=passthrough,
                pci=_pci(device) if passthrough else "",
            )
        )
    return found


def _host_devices(root: ET.Element) -> list[DomainInterface]:
    """SR-IOV functions that KubeVirt gives as plain host devices, known by their alias `sriov-<interface>`."""
    return [
        DomainInterface(name=_alias(device), passthrough=True, pci=_pci(device))
        for device in root.iterfind("devices/hostdev")
        if _alias(device).startswith("sriov-")
    ]


def _pci(device: ET.Element) -> str:
    """The device's PCI address inside the guest, as `0000:06:00.0`."""
    address = device.find("address")
    if address is None or address.get("type") != "pci":
        return ""
    try:
        domain, bus, slot, function = (int(address.get(key, "0"), 16) for key in ("domain", "bus", "slot", "function"))
    except ValueError:
        return ""
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
