"""
The forms in which a guest is told: the object, its metadata alone, or a table for people.

The object is put together from bodies as they came; `status.<kind>` is the message of that kind, byte for byte.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import msgspec

from api.groups import GUESTWIRE, KINDS
from api.guest import Guest, Labels
from api.names import printable

API_VERSION = f"{GUESTWIRE.name}/{GUESTWIRE.versions[0]}"
META = "meta.k8s.io/v1"
KIND = "Guest"

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class ObjectMeta(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """metav1.ObjectMeta, as much of it as there is."""

    resource_version: str
    """Of the newest message about the guest: its sequence in the stream."""
    name: str = ""
    """Unique in the namespace."""
    namespace: str = ""
    """Where the guest belongs, by its domain's name."""
    uid: str = ""
    """Another guest of the same name has another: KubeVirt's where there is one, else the domain's UUID."""
    labels: Labels = {}
    """What guests are selected by: their host, phase, operating system, and the state of their agent."""
    annotations: dict[str, str] = {}
    """Of bookmarks only."""


class ListMeta(msgspec.Struct, rename={"next": "continue"}, omit_defaults=True, frozen=True):
    """metav1.ListMeta."""

    resourceVersion: str  # noqa: N815 - rename is used up
    """From where a watch goes on."""
    next: str = ""
    """What the next part is asked for with; absent in the last one."""
    remainingItemCount: int | None = None  # noqa: N815
    """How many are still to come, where that is known."""


_encoder = msgspec.json.Encoder(order="sorted")


class Form(Hashable, Protocol):
    """How guests are written."""

    collection: str
    """The kind of a list."""
    steady: bool
    """Whether a guest at a revision is always written the same."""

    def entry(self, guest: Guest, revision: int) -> bytes:
        """A guest among others."""
        ...

    def opening(self) -> bytes:
        """What comes before the entries of a list."""
        ...

    def closing(self, meta: ListMeta) -> bytes:
        """What comes behind them."""
        ...

    def alone(self, guest: Guest, revision: int) -> bytes:
        """A guest by itself, as in a get or an event."""
        ...

    def bookmark(self, revision: int, annotations: dict[str, str]) -> bytes:
        """An object that is nothing but a revision."""
        ...


class Objects:
    """Everything."""

    collection = "GuestList"
    steady = True

    def entry(self, guest: Guest, revision: int) -> bytes:
        """The object."""
        facts = b",".join(b'"%b":%b' % (kind.encode(), fact.body) for kind in KINDS if (fact := guest.fact(kind)))
        return b'{"apiVersion":"%b","kind":"%b","metadata":%b,"status":{%b}}' % (
            API_VERSION.encode(),
            KIND.encode(),
            metadata(guest, revision),
            facts,
        )

    alone = entry

    def opening(self) -> bytes:
        """A GuestList."""
        return b'{"apiVersion":"%b","items":[' % API_VERSION.encode()

    def closing(self, meta: ListMeta) -> bytes:
        """Kind and metadata."""
        return b'],"kind":"%b","metadata":%b}' % (self.collection.encode(), _encoder.encode(meta))

    def bookmark(self, revision: int, annotations: dict[str, str]) -> bytes:
        """Of the kind that is watched."""
        return bookmark_of(API_VERSION, KIND, revision, annotations)


class Partial(Objects):
    """metav1.PartialObjectMetadata."""

    collection = "PartialObjectMetadataList"

    def entry(self, guest: Guest, revision: int) -> bytes:
        """Metadata only."""
        return partial(guest, revision)

    alone = entry

    def opening(self) -> bytes:
        """A PartialObjectMetadataList."""
        return b'{"apiVersion":"%b","items":[' % META.encode()

    def bookmark(self, revision: int, annotations: dict[str, str]) -> bytes:
        """Of the kind that is watched."""
        return bookmark_of(META, "PartialObjectMetadata", revision, annotations)


OBJECTS, PARTIAL = Objects(), Partial()


def metadata(guest: Guest, revision: int) -> bytes:
    """Metadata of a guest, of which something was said in that revision."""
    uid = guest.presence.uid if guest.presence else ""
    name, namespace = map(printable, (guest.ref.name, guest.ref.namespace))
    return _encoder.encode(ObjectMeta(str(revision), name, namespace, uid, guest.labels))


def partial(guest: Guest, revision: int) -> bytes:
    """A guest's PartialObjectMetadata."""
    return b'{"apiVersion":"%b","kind":"PartialObjectMetadata","metadata":%b}' % (
        META.encode(),
        metadata(guest, revision),
    )


def bookmark_of(version: str, kind: str, revision: int, annotations: dict[str, str]) -> bytes:
    meta = ObjectMeta(str(revision), annotations=annotations)
    return _encoder.encode({"apiVersion": version, "kind": kind, "metadata": meta})
