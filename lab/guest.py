"""A guest of the lab: a QEMU machine with a real agent, under a `lab.libvirtd.Libvirtd`.

The CPU is emulated everywhere, so that a guest is the same on every machine, with KVM or without.

What happens in a guest is driven through its control port, never through the agent: the agent is what is observed, and
must be able to hang, freeze and die. `lab/guest_init.sh` lists the commands.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import uuid as uuids
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

import libvirt
import libvirt_qemu

from lab.errors import LabError
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd
from lab.part import Part
from lab.process import program, wait_until
from lab.reaper import processes_of

AGENT_CHANNEL = "org.qemu.guest_agent.0"
CONTROL_CHANNEL = "org.guestwire.control.0"
MEMORY_MIB = 128


class Guest(Part):
    """One guest on one host.

    Args:
        host: The daemon that runs it; replaced by `migrate`.
        image: What it boots.
        namespace: With `name` makes the domain name `<namespace>_<name>`; None makes it `name` alone.
        name: Also the host name in the guest, as far as it may be one.
        uid: Put into the domain's metadata as KubeVirt does; None leaves the domain without.
        agent_channel: Whether the domain has an agent channel, and so the guest an agent.
        interfaces: One NIC per word, which becomes its alias (`ua-<word>`).
        address: Of the first NIC in the guest; None gives it none.
        disk: Whether it has a disk, mounted at /data.
        persistent: Whether the domain is defined, and so outlives the machine's end, or transient.
    """

    def __init__(
        self,
        host: Libvirtd,
        image: GuestImage,
        *,
        namespace: str | None = "default",
        name: str = "lab",
        uid: str | None = None,
        agent_channel: bool = True,
        interfaces: Sequence[str] = ("default",),
        address: str | None = "10.0.2.15/24",
        disk: bool = True,
        persistent: bool = True,
    ) -> None:
        self.host = host
        self.domain_name = name if namespace is None else f"{namespace}_{name}"
        self.uuid = str(uuids.uuid4())
        self.uid = uid
        self.macs = tuple(_mac(self.domain_name, number) for number in range(len(interfaces)))
        self._image = image
        self._hostname = re.sub("[^A-Za-z0-9-]", "-", name)
        self._interfaces = tuple(interfaces)
        self._agent_channel = agent_channel
        self._address = address
        self._disk = disk
        self._persistent = persistent

    @property
    def mac(self) -> str:
        """Address of the first NIC, in small letters."""
        return self.macs[0]

    # ---- the machine ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the machine; returns before the guest has booted (see `wait_agent`).

        Raises:
            LabError: libvirt refuses.
        """
        disk = self.host.directory / f"{self.uuid}.disk"
        if self._disk and not disk.exists():
            subprocess.run([program("cp"), "--sparse=always", self._image.disk, disk], check=True)
            self.host.give(disk)
        with self.host.connection() as connection:
            if self._persistent:
                connection.defineXML(self.xml).create()
            else:
                connection.createXML(self.xml, 0)

    def stop(self) -> None:
        """End the machine, if it runs, and forget the domain, if it is defined; no error when there is neither."""
        with self.host.connection() as connection:
            for domain in connection.listAllDomains():
                if domain.UUIDString() == self.uuid:
                    if domain.isActive():
                        domain.destroy()
                    if self._persistent:
                        domain.undefine()

    def destroy(self) -> None:
        """End the machine as a power cut would."""
        with self.domain() as domain:
            domain.destroy()

    def undefine(self) -> None:
        """Forget the definition; a running machine runs on, as a transient one."""
        with self.domain() as domain:
            domain.undefine()

    def suspend(self) -> None:
        """Halt the CPUs."""
        with self.domain() as domain:
            domain.suspend()

    def resume(self) -> None:
        """Let the CPUs run on."""
        with self.domain() as domain:
            domain.resume()

    def kill(self) -> None:
        """End the machine's QEMU process with SIGKILL: a crash, as libvirt sees it."""
        for pid in processes_of(self.uuid):
            os.kill(pid, signal.SIGKILL)

    def migrate(self, destination: Libvirtd) -> None:
        """Move the running guest, live, to another host; returns when it is gone from the present one."""
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
        if self._persistent:
            flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        # Both hosts are this machine: the disk is the same file, and safe.
        flags |= libvirt.VIR_MIGRATE_UNSAFE
        with self.domain() as domain:
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
            xml = xml.replace(self._control_socket, self._control_socket_at(destination))
            parameters = {libvirt.VIR_MIGRATE_PARAM_DEST_XML: xml, libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: xml}
            domain.migrateToURI3(destination.uri, parameters, flags)
        self.host = destination

    @contextmanager
    def domain(self) -> Iterator[libvirt.virDomain]:
        """The libvirt domain, on a connection that is closed at the end.

        Raises:
            LabError: there is no such domain, or a libvirt call within the block fails.
        """
        with self.host.connection() as connection:
            yield connection.lookupByUUIDString(self.uuid)

    # ---- what runs in it ------------------------------------------------------------------------------------------

    def control(self, *words: str | int, timeout: float = 30) -> str:
        """Have a command executed in the guest; returns its answer once it is done.

        Raises:
            LabError: the command fails, or the guest does not answer within `timeout` seconds.
        """
        command = " ".join(str(word) for word in words)
        number = uuids.uuid4().hex[:8]
        deadline = time.monotonic() + timeout
        with socket.socket(socket.AF_UNIX) as port:
            try:
                port.settimeout(timeout)
                port.connect(self._control_socket)
                port.sendall(f"{number} {command}\n".encode())
                outcome, _, answer = _reply(port, number, deadline).partition(" ")
            except OSError as error:
                raise LabError(f"{self.domain_name} did not answer `{command}`: {error}") from error
        if outcome != "ok":
            raise LabError(f"{self.domain_name} refused `{command}`: {answer}")
        return answer

    def agent_connected(self) -> bool:
        """Whether the guest's agent has its channel open, by the live XML."""
        with self.domain() as domain:
            devices = ET.fromstring(domain.XMLDesc())  # noqa: S314 our own libvirt's
        target = devices.find(f"./devices/channel/target[@name='{AGENT_CHANNEL}']")
        return target is not None and target.get("state") == "connected"

    def agent_answers(self) -> bool:
        """Whether the agent is connected and answers a ping."""
        try:
            return self.agent_connected() and bool(self.agent_command("guest-ping", timeout=2) == {})
        except LabError:  # after a restart of daemon or agent the XML may say connected before calls get through
            return False

    def wait_agent(self, timeout: float = 60) -> None:
        """Return once the agent is connected and answers.

        Raises:
            LabError: it does not within `timeout` seconds; with the last lines of the guest's console.
        """
        try:
            wait_until(self.agent_answers, timeout, f"agent of {self.domain_name} answers")
        except LabError as error:
            raise LabError(f"{error}\n{self.console_tail()}") from error

    def agent_command(self, command: str | dict[str, Any], timeout: int = 10) -> Any:
        """What the agent returns for a command: its name, or the whole object when it has arguments.

        Raises:
            LabError: the agent refuses, or does not answer within `timeout` seconds.
        """
        request = {"execute": command} if isinstance(command, str) else command
        with self.domain() as domain:
            return json.loads(libvirt_qemu.qemuAgentCommand(domain, json.dumps(request), timeout, 0))["return"]

    def console_tail(self, lines: int = 15) -> str:
        """The last lines of the guest's console."""
        try:
            text = self._console.read_text(errors="replace")
        except OSError as error:
            return f"({self._console}: {error.strerror})"
        return "\n".join(text.splitlines()[-lines:])

    # ---- definition -----------------------------------------------------------------------------------------------

    @property
    def xml(self) -> str:
        """The domain's definition."""
        metadata = f'<kubevirt xmlns="http://kubevirt.io"><uid>{escape(self.uid)}</uid></kubevirt>' if self.uid else ""
        disk = f"""<disk type="file" device="disk">
      <driver name="qemu" type="raw"/>
      <source file="{self.host.directory}/{self.uuid}.disk"/>
      <target dev="vda" bus="virtio"/>
    </disk>"""
        agent = f'<channel type="unix"><target type="virtio" name="{AGENT_CHANNEL}"/></channel>'
        words = f"console=ttyS0 quiet panic=-1 mitigations=off machine={self._hostname}"
        if self._address:
            words += f" address={self._address}"
        return f"""<domain type="qemu">
  <name>{escape(self.domain_name)}</name>
  <uuid>{self.uuid}</uuid>
  <metadata>{metadata}</metadata>
  <memory unit="MiB">{MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch="x86_64" machine="q35">hvm</type>
    <kernel>{self._image.kernel}</kernel>
    <initrd>{self._image.initrd}</initrd>
    <cmdline>{escape(words)}</cmdline>
  </os>
  <features><acpi/><tcg><tb-cache unit="MiB">64</tb-cache></tcg></features>
  <clock offset="utc"><timer name="hpet" present="no"/></clock>
  <devices>
    <controller type="usb" model="none"/>
    <memballoon model="none"/>
    <serial type="file"><source path="{self._console}"/></serial>
    {disk if self._disk else ""}
    {"".join(_nic(*nic) for nic in zip(self._interfaces, self.macs, strict=True))}
    {agent if self._agent_channel else ""}
    <channel type="unix">
      <source mode="bind" path="{self._control_socket}"/>
      <target type="virtio" name="{CONTROL_CHANNEL}"/>
    </channel>
  </devices>
</domain>
"""

    @property
    def _console(self) -> Path:
        return self.host.directory / f"{self.uuid}.console"

    @property
    def _control_socket(self) -> str:
        return self._control_socket_at(self.host)

    def _control_socket_at(self, host: Libvirtd) -> str:
        return f"{host.directory}/{self.uuid}.control"

    def __repr__(self) -> str:
        return f"<Guest {self.domain_name} ({self.uuid}) on {self.host!r}>"


def _mac(domain_name: str, number: int) -> str:
    """A locally known address: QEMU's prefix, then the same three bytes for the same guest every time."""
    digest = hashlib.sha256(f"{domain_name}/{number}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def _nic(alias: str, mac: str) -> str:
    return f"""<interface type="user">
      <mac address="{mac}"/>
      <model type="virtio"/>
      <rom enabled="no"/>
      <alias name={quoteattr(f"ua-{alias}")}/>
    </interface>"""


def _reply(port: socket.socket, number: str, deadline: float) -> str:
    """The reply to request `number`; later replies to requests that somebody gave up waiting for are skipped."""
    received = b""
    while True:
        while b"\n" in received:
            line, _, received = received.partition(b"\n")
            name, _, reply = line.decode(errors="replace").partition(" ")
            if name == number:
                return reply
        port.settimeout(max(deadline - time.monotonic(), 0.001))
        chunk = port.recv(4096)
        if not chunk:
            raise ConnectionResetError("the machine ended")
        received += chunk
