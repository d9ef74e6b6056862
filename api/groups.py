"""
The API groups that are served, and in which words each speaks of a guest.

KubeVirt's has its paths, names and texts, for clients that were made for it. Our own serves every kind, says of what
was never read that it was not, and speaks in its own name.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

from guestwire.kinds import BODIES
from guestwire.snapshot import GuestRef, Kind


class Group(NamedTuple):
    """An API group with one resource, whose subresources are kinds of facts."""

    name: str
    versions: tuple[str, ...]
    """All of them behave the same."""
    resource: str
    kinds: tuple[str, ...]
    owner: str
    """The group of the resource itself, as errors tell it."""
    singular: str
    """What errors call the guest: with the group, before its name."""
    not_running: str
    no_agent: str
    further: tuple[str, ...] = ()
    """Subresources that are no kinds of facts."""

    @property
    def subresources(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.kinds, *self.further)

    def path(self, ref: GuestRef, kind: str = "") -> bytes:
        """The path of a guest's facts, as a client that escapes no more than needed writes it; the first version."""
        namespace, name = (quote(text, safe="", errors="surrogatepass") for text in (ref.namespace, ref.name))
        return f"/apis/{self.name}/{self.versions[0]}/namespaces/{namespace}/{self.resource}/{name}/{kind}".encode()

    @property
    def route(self) -> str:
        """Such a path with its variable parts in braces."""
        return f"/apis/{self.name}/{{version}}/namespaces/{{namespace}}/{self.resource}/{{name}}/{{kind}}"


KUBEVIRT = Group(
    name="subresources.kubevirt.io",
    versions=("v1", "v1alpha3"),
    resource="virtualmachineinstances",
    kinds=(Kind.GUESTOSINFO, Kind.USERLIST, Kind.FILESYSTEMLIST),
    owner="kubevirt.io",
    singular="virtualmachineinstance.kubevirt.io",
    not_running="VMI is not running",
    no_agent="VMI does not have guest agent connected",
)
GUESTWIRE = Group(
    name="guestwire.io",
    versions=("v1",),
    resource="guests",
    kinds=tuple(BODIES),
    owner="guestwire.io",
    singular="guests.guestwire.io",
    not_running="the guest is not running",
    no_agent="the guest's agent is not connected",
    further=("history",),
)
GROUPS = (GUESTWIRE, KUBEVIRT)
"""All of them."""

KINDS = GUESTWIRE.kinds
"""Every kind that is served."""
