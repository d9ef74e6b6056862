"""
The contract: what is said about a guest, as plain data.

`guestosinfo`, `userlist` and `filesystemlist` are KubeVirt's public JSON for the subresources of those names
(kubevirt.io/api core/v1: VirtualMachineInstanceGuestAgentInfo, ...GuestOSUserList, ...FileSystemList). Go's
`omitempty` is `omit_defaults` here: a field with a default value vanishes when it holds it, a field without one is
always written. `agent` and `interfaces` are this project's own, as are the bodies in `guestwire.machine`;
`guestwire.kinds` has them all by kind.

Decoding tolerates unknown fields, so that an old subscriber survives a newer collector.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import msgspec

CAP_IN_GUESTOSINFO = 10
"""Users and filesystems inside `guestosinfo` (KubeVirt manager.go: GuestAgentInfo caps both lists at 10)."""

Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Kind(StrEnum):
    """What a message is about; the last token of its subject. More may come: ignore what you do not know."""

    AGENT = "agent"
    GUESTOSINFO = "guestosinfo"
    USERLIST = "userlist"
    FILESYSTEMLIST = "filesystemlist"
    INTERFACES = "interfaces"
    LOAD = "load"
    DISKS = "disks"
    CPUSTATS = "cpustats"
    DISKSTATS = "diskstats"
    TIME = "time"
    VCPUS = "vcpus"


BEGINNING = datetime.fromtimestamp(0, UTC)
"""Earlier than any time that is told: stands for never."""


class Phase(StrEnum):
    """Life of the domain. A paused guest is `Running` for KubeVirt, and keeps its last facts."""

    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPED = "Stopped"
    GONE = "Gone"


class GuestRef(msgspec.Struct, frozen=True, order=True, gc=False):
    """Which guest: the key of every queue and cache."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def of_domain(cls, domain: str) -> GuestRef:
        """
        From a libvirt domain's name: `<namespace>_<name>`, split at the first `_` (KubeVirt
        libvirt_helper.go SplitVMINamespaceKey). Without one, or with an empty half, the namespace is `default`.
        """
        namespace, _, name = domain.partition("_")
        return cls(namespace, name) if namespace and name else cls("default", domain)

    @classmethod
    def parse(cls, text: str) -> GuestRef:
        """From `NAMESPACE/NAME`, as people write it; without a slash the namespace is `default`."""
        namespace, slash, name = text.partition("/")
        return cls(namespace, name) if slash else cls("default", text)


class Body(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """Base of everything that travels."""


# --- guestosinfo -----------------------------------------------------------------------------------------------


class OperatingSystem(Body, frozen=True):
    """VirtualMachineInstanceGuestOSInfo, also VMI `status.guestOSInfo`."""

    id: str = ""
    kernel_release: str = ""
    kernel_version: str = ""
    machine: str = ""
    name: str = ""
    pretty_name: str = ""
    version: str = ""
    version_id: str = ""


class Command(Body, frozen=True):
    """GuestAgentCommandInfo; a disabled command has no `enabled` key."""

    name: str
    enabled: bool = False


class User(Body, frozen=True):
    """
    VirtualMachineInstanceGuestOSUser; `login_time` in fractional seconds since the epoch. Whole seconds are held, and
    so written, as an integer: Go prints 1700000000, not 1700000000.0.
    """

    user_name: str
    domain: str = ""
    login_time: float = 0

    def __post_init__(self) -> None:
        if isinstance(self.login_time, float) and self.login_time.is_integer():
            msgspec.structs.force_setattr(self, "login_time", int(self.login_time))


class FilesystemDisk(Body, frozen=True):
    """VirtualMachineInstanceFileSystemDisk."""

    bus_type: str
    serial: str = ""


class Filesystem(Body, frozen=True):
    """VirtualMachineInstanceFileSystem; sizes in bytes (64 bit), 0 also where the agent does not tell."""

    disk_name: str
    mount_point: str
    file_system_type: str
    used_bytes: int
    total_bytes: int
    disk: tuple[FilesystemDisk, ...] = ()


class FilesystemInfo(Body, frozen=True):
    """VirtualMachineInstanceFileSystemInfo: `disks` is null, not [], when there is none."""

    disks: tuple[Filesystem, ...] | None


class GuestOSInfo(Body, frozen=True):
    """VirtualMachineInstanceGuestAgentInfo; `timezone` is `"ZONE, OFFSET"` with the offset in seconds."""

    fs_info: FilesystemInfo
    os: OperatingSystem
    timezone: str
    fs_freeze_status: str = ""
    guest_agent_version: str = ""
    hostname: str = ""
    supported_commands: tuple[Command, ...] = ()
    user_list: tuple[User, ...] = ()


class ListMeta(Body, frozen=True):
    """Kubernetes ListMeta, always empty here."""


class UserList(Body, frozen=True):
    """VirtualMachineInstanceGuestOSUserList: everyone, uncapped."""

    items: tuple[User, ...]
    metadata: ListMeta


class FilesystemList(Body, frozen=True):
    """VirtualMachineInstanceFileSystemList: every filesystem, uncapped."""

    items: tuple[Filesystem, ...]
    metadata: ListMeta


# --- interfaces ------------------------------------------------------------------------------------------------


class DomainInterface(Body, frozen=True):
    """
    A network device of the domain. `name` is the device's alias without libvirt's prefix `ua-` (KubeVirt: the name of
    the VMI's interface); `queues` 0 means unknown; `passthrough` marks a host device (SR-IOV), known by its `pci`
    address in the guest when the domain tells.
    """

    name: str
    mac: str = ""
    queues: int = 0
    link_state: str = ""
    passthrough: bool = False
    pci: str = ""


class IPAddress(Body, frozen=True):
    """One address as the agent tells it; `prefix` in bits, 0 when untold."""

    address: str
    prefix: int = 0


class GuestInterface(Body, frozen=True):
    """A network interface as the guest sees it; an alias `eth0:1` is folded into `eth0`, as libvirt does."""

    name: str
    mac: str = ""
    addresses: tuple[IPAddress, ...] = ()


class Interfaces(Body, frozen=True):
    """Both views, unmerged. `guest` absent means unknown; empty means the guest has none."""

    domain: tuple[DomainInterface, ...]
    guest: tuple[GuestInterface, ...] | None = None


# --- agent -----------------------------------------------------------------------------------------------------


class Reading(Body, frozen=True):
    """How one kind of facts was last read: when it worked, and what went wrong since (`<agent command>: <why>`)."""

    observed_at: Time | None = None
    error: str = ""
    truncated: int = 0
    """Entries left out and texts shortened, because a guest must not be able to flood its readers."""


class AgentState(Body, frozen=True):
    """The state record of a guest and its agent. An absent field is unknown, never false or empty."""

    namespace: str
    name: str
    uid: str
    """KubeVirt's VMI uid where the domain's metadata tells it, else the domain's UUID."""
    domain: str
    """libvirt's name of the domain."""
    domain_uuid: str
    host: str
    phase: Phase
    channel: bool
    """Whether the domain has an agent channel at all."""
    connected: bool
    since: Time
    """Since when `connected` has its value, as far as anyone saw it."""
    responsive: bool | None = None
    """False: connected, but commands time out. Unknown until one was tried."""
    reason: str = ""
    """Why it is not responsive."""
    frozen: bool | None = None
    version: str = ""
    commands: tuple[str, ...] | None = None
    """Names of the enabled commands; unknown until the agent told them."""
    readings: dict[str, Reading] = {}
    """By kind, `agent` left out."""


class Part(msgspec.Struct, frozen=True):
    """One kind of facts about a guest, encoded once and never again."""

    kind: str
    body: bytes
    digest: str
    """Of what counts as a change: `agent` without its reading times, else the body."""
    observed_at: datetime


class GuestSnapshot(msgspec.Struct, frozen=True):
    """Everything known about a guest at one moment; what a collector hands on."""

    ref: GuestRef
    uid: str
    host: str
    parts: tuple[Part, ...]
    trace_id: str
    """32 hexadecimal digits (W3C Trace Context), shared by all that one look at the guest causes."""
