"""The objects of the API as structs: for what is written from bytes, and so is a struct nowhere else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from api import forms
from guestwire.kinds import BODIES
from guestwire.snapshot import Kind

SUBJECTS: dict[str, str] = {
    Kind.AGENT: "The state record",
    Kind.GUESTOSINFO: "Operating system, host name and time zone",
    Kind.USERLIST: "The users who are logged in",
    Kind.FILESYSTEMLIST: "The filesystems",
    Kind.INTERFACES: "The network interfaces and their addresses",
    Kind.LOAD: "The load averages",
    Kind.DISKS: "The block devices",
    Kind.CPUSTATS: "The counters of the CPUs",
    Kind.DISKSTATS: "The counters of the block devices",
    Kind.TIME: "The clock, against the collector's",
    Kind.VCPUS: "The logical processors",
}
"""What each kind tells."""


def _field(kind: str, body: Any) -> tuple[str, Any, None]:
    described: Any = Annotated[body, msgspec.Meta(description=f"{SUBJECTS[kind]}.")]
    return str(kind), described | None, None


GuestStatus = msgspec.defstruct(
    "GuestStatus",
    [_field(kind, body) for kind, body in BODIES.items()],
    omit_defaults=True,
    frozen=True,
    namespace={
        "__doc__": "What the guest's agent told, and what is known of the agent itself. A kind that is not known is "
        "absent, and so is everything but `agent` while the agent is away."
    },
)
"""A field for every kind that is served."""


class Guest(msgspec.Struct, rename="camel", frozen=True):
    """A virtual machine, as the QEMU guest agent in it tells. Guests cannot be written: they are observed."""

    api_version: str
    """Version of this form of the object."""
    kind: str
    """What this is: Guest."""
    metadata: forms.ObjectMeta
    status: GuestStatus  # type: ignore[valid-type]


class GuestList(msgspec.Struct, rename="camel", frozen=True):
    """Guests in the order of their names."""

    api_version: str
    """Version of this form of the list."""
    items: tuple[Guest, ...]
    """The guests."""
    kind: str
    """What this is: GuestList."""
    metadata: forms.ListMeta


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch (metav1.WatchEvent)."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    """What happened to the guest. A bookmark only tells a revision; after an error, a Status, the watch is over."""
    object: dict[str, Any]
    """The guest as it is now or was last, in the form that was asked for."""


GVK = {Guest: "Guest", GuestList: "GuestList"}
"""Which structs are kinds of the group."""
