"""
The VMIs as this process knows them: what a watch said last, and what our own requests learned since.

Of each VMI only what the decision needs is kept, so that clusters with many VMIs cost little memory and changes of
anything else wake nobody. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from guestwire.snapshot import GuestRef
from status_writer.metrics import VMIS
from status_writer.status_patch import Vmi

KEPT = {
    "metadata": ("namespace", "name", "uid", "resourceVersion"),
    "spec": ("domain", "networks", "accessCredentials"),
    "status": ("phase", "conditions", "guestOSInfo", "interfaces", "fsFreezeStatus", "activePods"),
}


class Cache:
    """Calls `changed` with each guest whose VMI came, went, or says something new."""

    def __init__(self, changed: Callable[[GuestRef], None]) -> None:
        self._changed = changed
        self._vmis: dict[GuestRef, Vmi] = {}
        self._writing: dict[GuestRef, bool] = {}  # whether a watch told of it meanwhile

    def __len__(self) -> int:
        return len(self._vmis)

    def get(self, ref: GuestRef) -> Vmi | None:
        """A VMI, as far as it is kept."""
        return self._vmis.get(ref)

    def listed(self, item: Vmi) -> GuestRef:
        """A VMI of a list: it counts also against a later version, as a cluster may have been restored."""
        return self._put(item)

    def watched(self, item: Vmi) -> None:
        """A VMI of a watch, which may be behind our own requests."""
        before = self._vmis.get(ref_of(item))
        if before is None or not _older(item, before):
            self._put(item)

    @contextmanager
    def writing(self, ref: GuestRef) -> Iterator[None]:
        """
        A request of our own is under way. The watch often is faster than the answer; what it tells meanwhile counts as
        a change at the end, unless it turns out to be our own.
        """
        self._writing[ref] = False
        try:
            yield
        finally:
            if self._writing.pop(ref, False):
                self._changed(ref)

    def answered(self, item: Vmi) -> Vmi:
        """The answer to a request of our own, unless the watch was faster: with news, or with the end."""
        kept, ref = _slim(item), ref_of(item)
        before = self._vmis.get(ref)
        if before is not None and not _older(kept, before):
            self._vmis[ref] = kept
            if _version(before) == _version(kept) or _older(before, kept):
                self._writing.pop(ref, None)
        return kept

    def drop(self, ref: GuestRef) -> None:
        """A VMI is gone."""
        if self._vmis.pop(ref, None) is not None:
            VMIS.set(len(self))
            self._changed(ref)

    def keep_only(self, refs: Iterable[GuestRef]) -> None:
        """All others are gone."""
        for ref in self._vmis.keys() - set(refs):
            self.drop(ref)

    def _put(self, item: Vmi) -> GuestRef:
        ref, after = ref_of(item), _slim(item)
        before = self._vmis.get(ref)
        self._vmis[ref] = after
        VMIS.set(len(self))
        if before is None or _content(before) != _content(after):
            if ref in self._writing:
                self._writing[ref] = True
            else:
                self._changed(ref)
        return ref


def ref_of(item: Vmi) -> GuestRef:
    """The guest that a VMI stands for."""
    return GuestRef(item["metadata"]["namespace"], item["metadata"]["name"])


def _slim(item: Vmi) -> Vmi:
    return {
        part: {name: item[part][name] for name in names if name in item[part]}
        for part, names in KEPT.items()
        if isinstance(item.get(part), dict)
    }


def _content(vmi: Vmi) -> tuple[Any, ...]:
    return vmi["metadata"]["uid"], vmi.get("spec"), vmi.get("status")


def _older(one: Vmi, other: Vmi) -> bool:
    """By resourceVersion, which Kubernetes orders as a number since 1.35; not comparable means not older."""
    mine, theirs = _version(one), _version(other)
    return mine.isdigit() and theirs.isdigit() and int(mine) < int(theirs)


def _version(vmi: Vmi) -> str:
    return str(vmi["metadata"].get("resourceVersion", ""))
