"""Domain XML: identity, devices, the agent's channel."""

from __future__ import annotations

import pytest

from collectors import domain
from guestwire.errors import ContractError
from guestwire.snapshot import DomainInterface, GuestRef, Phase

CHANNEL = "<channel type='unix'><target type='virtio' name='{name}' state='{state}'/></channel>"


def xml(devices: str = "", metadata: str = "", name: str = "prod_web") -> str:
    """A domain with those devices."""
    inside = f"<metadata>{metadata}</metadata><devices>{devices}</devices>"
    return f"<domain><name>{name}</name><uuid>u-1</uuid>{inside}</domain>"


@pytest.mark.parametrize(
    ("name", "state", "expected"),
    [
        ("org.qemu.guest_agent.0", "connected", (True, True)),
        ("org.qemu.guest_agent.0", "disconnected", (True, False)),
        ("com.redhat.spice.0", "connected", (False, False)),
    ],
)
def test_channel(name: str, state: str, expected: tuple[bool, bool]) -> None:
    """Only the agent's channel counts, and its live state."""
    found = domain.parse(xml(CHANNEL.format(name=name, state=state)), Phase.RUNNING)

    assert expected == (found.channel, found.connected)


def test_stopped_is_not_connected() -> None:
    """A domain that is off has no agent, whatever its last XML said."""
    devices = CHANNEL.format(name="org.qemu.guest_agent.0", state="connected")

    assert not domain.parse(xml(devices), Phase.STOPPED).connected
    assert domain.parse(xml(devices), Phase.PAUSED).connected


def test_identity() -> None:
    """KubeVirt's uid where the metadata tells it, else the domain's."""
    metadata = "<kubevirt xmlns='http://kubevirt.io'><uid> v-1 </uid></kubevirt>"

    assert "v-1" == domain.parse(xml(metadata=metadata), Phase.RUNNING).uid
    assert "u-1" == domain.parse(xml(), Phase.RUNNING).uid
    assert GuestRef("prod", "web") == domain.parse(xml(), Phase.RUNNING).ref


def test_interfaces() -> None:
    """Alias without prefix, queues of the driver or one, link state or up."""
    devices = """
      <interface type='bridge'><mac address='02:00:00:00:00:01'/><alias name='ua-default'/></interface>
      <interface type='ethernet'><mac address='02:00:00:00:00:02'/><driver name='vhost' queues='4'/>
        <link state='down'/><alias name='net1'/></interface>
      <interface type='hostdev'><mac address='02:00:00:00:00:03'/><alias name='hostdev0'/>
        <address type='pci' domain='0x0000' bus='0x06' slot='0x00' function='0x0'/></interface>
      <hostdev mode='subsystem' type='pci'><alias name='ua-sriov-fast'/>
        <address type='pci' domain='0x0000' bus='0x0a' slot='0x1f' function='0x7'/></hostdev>
      <hostdev mode='subsystem' type='usb'><alias name='hostdev1'/></hostdev>
    """

    assert (
        DomainInterface("default", "02:00:00:00:00:01", 1, "up"),
        DomainInterface("net1", "02:00:00:00:00:02", 4, "down"),
        DomainInterface("hostdev0", "02:00:00:00:00:03", 0, "", passthrough=True, pci="0000:06:00.0"),
        DomainInterface("sriov-fast", "", 0, "", passthrough=True, pci="0000:0a:1f.7"),
    ) == domain.parse(xml(devices), Phase.RUNNING).interfaces


@pytest.mark.parametrize("text", ["", "<domain", "<domain/>", "<domain><name>x</name></domain>"])
def test_no_domain(text: str) -> None:
    """What is no domain is refused."""
    with pytest.raises(ContractError):
        domain.parse(text, Phase.RUNNING)
