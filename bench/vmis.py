"""VMIs, and what their guests tell a collector; no more than it takes to write their status."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from guestwire import codec
from guestwire.settings import Status
from guestwire.snapshot import (
    AgentState,
    Body,
    DomainInterface,
    FilesystemInfo,
    GuestInterface,
    GuestOSInfo,
    GuestRef,
    Interfaces,
    IPAddress,
    Kind,
    OperatingSystem,
    Phase,
)
from guestwire.subjects import subject
from status_writer.status_patch import Facts, decide
from status_writer.support import BASIC

CLUSTER, NAMESPACE, GROUP = "local", "default", "kubevirt.io"
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
VMIS = f"/apis/{{}}/v1/namespaces/{NAMESPACE}/virtualmachineinstances"
SYSTEM = GuestOSInfo(
    FilesystemInfo(None),
    OperatingSystem(
        "debian", "6.1.0-18-amd64", "#1 SMP", "x86_64", "Debian GNU/Linux", "Debian GNU/Linux 12", "12", "12"
    ),
    "UTC, 0",
)


@dataclass
class Guest:
    """A VMI and what its guest tells."""

    number: int
    group: str = GROUP
    vmi: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The VMI's."""
        return f"vm-{self.number}"

    def manifest(self) -> bytes:
        """Before anybody told anything."""
        metadata = {"name": self.name, "namespace": NAMESPACE}
        spec = {"domain": {"devices": {"interfaces": [{"name": "default", "bridge": {}}]}}}
        kind = {"apiVersion": f"{self.group}/v1", "kind": "VirtualMachineInstance"}
        return msgspec.json.encode({**kind, "metadata": metadata, "spec": spec, "status": {"phase": "Running"}})

    @property
    def agent(self) -> AgentState:
        """Connected since long ago."""
        ref, uid = GuestRef(NAMESPACE, self.name), self.vmi["metadata"]["uid"]
        return AgentState(
            *(ref.namespace, ref.name, uid, f"{NAMESPACE}_{self.name}", f"domain-{self.number}", "host"),
            *(Phase.RUNNING, True, True, SINCE),
            commands=tuple(sorted(BASIC)),
        )

    def interfaces(self, turn: int) -> Interfaces:
        """A NIC, whose address is another one in each turn."""
        mac = f"52:54:00:{self.number >> 16 & 255:02x}:{self.number >> 8 & 255:02x}:{self.number & 255:02x}"
        address = f"10.{turn % 256}.{self.number >> 8 & 255}.{self.number & 255}"
        guest = GuestInterface("eth0", mac, (IPAddress(address, 24), IPAddress("fe80::5054:ff:fe00:1", 64)))
        return Interfaces((DomainInterface("default", mac, 1, "up"),), (guest,))

    def address(self) -> str:
        """As the status shows it."""
        return str(self.vmi.get("status", {}).get("interfaces", [{}])[0].get("ipAddress", ""))

    def patch(self, turn: int) -> bytes:
        """What the writer would send, decided by the writer's own code."""
        facts = Facts(self.agent, SINCE, self.interfaces(turn), guestosinfo=SYSTEM)
        return msgspec.json.encode(decide(self.vmi, facts, datetime.now(UTC), Status()).patch)

    def message(self, kind: Kind, body: Body) -> tuple[str, bytes, dict[str, str]]:
        """As a collector sends it."""
        part = codec.part(kind, body, SINCE)
        ref, message_id = GuestRef(NAMESPACE, self.name), codec.new_trace_id()
        about = {"ref": ref, "uid": self.vmi["metadata"]["uid"], "cluster": CLUSTER, "host": "host"}
        headers = codec.event_headers(**about, part=part, message_id=message_id, trace_id=codec.new_trace_id())
        return subject(CLUSTER, ref, kind), part.body, headers
