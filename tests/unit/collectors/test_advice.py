"""What is advised where the lab cannot make the problem: authentication, other machines, other people's accounts."""

from __future__ import annotations

import libvirt
import pytest

from collectors import advice

WITH_CONTROLLER = "<domain><devices><controller type='virtio-serial' index='0'/></devices></domain>"
WITHOUT = "<domain><devices><controller type='pci' index='0'/></devices></domain>"


@pytest.mark.parametrize(
    ("xml", "running", "kept", "flags"),
    [
        (WITH_CONTROLLER, True, True, "--config --live"),
        (WITH_CONTROLLER, True, False, "--live"),
        (WITH_CONTROLLER, False, True, "--config"),
        (WITHOUT, True, True, "--config"),
        (WITHOUT, False, True, "--config"),
    ],
)
def test_channel_goes_where_it_can(xml: str, running: bool, kept: bool, flags: str) -> None:
    """Into the definition, if there is one; into the machine, if it runs and has a controller."""
    command = advice.add_channel("qemu:///system", "web", xml, running=running, kept=kept)[2]

    assert f"virsh -c qemu:///system attach-device web channel.xml {flags}" == command


@pytest.mark.parametrize(("running", "lines"), [(True, 6), (False, 3)])
def test_restart_is_asked_of_running_machines_only(running: bool, lines: int) -> None:
    """A machine that is off has its channel when it starts anyway."""
    assert lines == len(advice.add_channel("qemu:///system", "web", WITHOUT, running=running, kept=True))


def test_names_are_quoted() -> None:
    """A name that a shell would take apart stays one word of the command."""
    command = advice.virsh("qemu+unix:///session?socket=/x", "start", "a b;reboot")

    assert "virsh -c 'qemu+unix:///session?socket=/x' start 'a b;reboot'" == command


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        (libvirt.VIR_ERR_AUTH_UNAVAILABLE, "authentication unavailable: no polkit agent available", "polkit"),
        (libvirt.VIR_ERR_AUTH_FAILED, "authentication failed: access denied by policy", "usermod -aG libvirt"),
        (libvirt.VIR_ERR_ACCESS_DENIED, "access denied: 'QEMU' denied access", "domain:write"),
        (libvirt.VIR_ERR_OPERATION_DENIED, "operation forbidden: read only access prevents it", "read-write socket"),
    ],
)
def test_who_is_not_let_in(code: int, message: str, words: str) -> None:
    """A refusal names what lets people in."""
    assert words in "\n".join(advice.unreachable("qemu:///system", code, message))


@pytest.mark.parametrize(
    ("uri", "message", "words"),
    [
        ("qemu+ssh://root@h/system", "Cannot recv data: ssh: connect to host h port 22: Connection refused", "a key"),
        ("qemu+tls://h/system", "Cannot read CA certificate '/etc/pki/CA/cacert.pem'", "certificates"),
        ("qemu+tcp://h/system", "unable to connect to server at 'h:16509': Connection refused", "virsh -c qemu+tcp:"),
    ],
)
def test_other_machines(uri: str, message: str, words: str) -> None:
    """For a host elsewhere: the command to try, and what its transport needs."""
    (line,) = advice.unreachable(uri, libvirt.VIR_ERR_SYSTEM_ERROR, message)

    assert words in line
