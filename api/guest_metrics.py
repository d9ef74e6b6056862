"""
What guests say of themselves, as metrics: Prometheus's text format, written from the cache when it is asked for.

The format wants all lines of a metric together, so every metric is one walk over the guests, in the order of their
names. A walk decodes of a body what its metric needs and keeps nothing, and gives way to others every few milliseconds:
a scrape of any size takes little memory and holds up nobody. Guests may change between two walks; each line is true
when it is written.

Names are KubeVirt's, where it has the metric (KubeVirt docs/observability/metrics.md), or the same under a prefix of
our own, by setting: beside KubeVirt's exporters its names would say everything twice. What KubeVirt does not have is
always ours.

Guests are hostile: texts are shortened and escaped, filesystems of one guest are bounded, and series altogether.
Beyond that whole guests are left out, the last by name, and a metric says how many series they would have been.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Literal, NamedTuple, TypeVar

import msgspec

from api.cache import Cache
from api.guest import Guest
from guestwire.machine import Load
from guestwire.snapshot import GuestRef, Kind, Phase

T = TypeVar("T")

SLICE = 0.002
"""Seconds of work before others have their turn."""
LONGEST = 256
"""Characters of a label; a name in Kubernetes has at most 253."""
FILESYSTEMS = 64
"""Of one guest."""

Naming = Literal["guestwire", "kubevirt"]

Sample = tuple[str, str]
"""Labels besides those of the guest, as they are written; the value."""


class Family(NamedTuple):
    """A gauge, and what a guest has of it."""

    name: str
    help: str
    samples: Callable[[Guest], Iterable[Sample]]

    @property
    def head(self) -> str:
        """The lines before its samples."""
        return f"# HELP {self.name} {self.help}\n# TYPE {self.name} gauge\n"


class GuestMetrics:
    """The metrics of a cache's guests; `limit` is the most series, about."""

    def __init__(self, cache: Cache, naming: Naming, limit: int) -> None:
        self.families = families(naming)
        self._cache = cache
        self._limit = limit

    @property
    def ready(self) -> bool:
        """Whether the cache was filled: before, no guest known is not no guest."""
        return self._cache.caught_up

    async def text(self) -> AsyncGenerator[bytes]:
        """The whole text, in parts."""
        names = list(self._cache.fleet.names)
        kept, series, left_out, stale = await self._count(names)
        for family in self.families:
            yield family.head.encode()
            async for part in self._lines(family, names[:kept]):
                yield part
        for name, text, value in (
            ("guestwire_guests_stale", "Guests of which nobody has told for three heartbeats.", stale),
            ("guestwire_guest_metrics_series", "Series of guests that are shown.", series),
            ("guestwire_guest_metrics_left_out", "Series left out because of api.guest_metrics_limit.", left_out),
        ):
            yield f"# HELP {name} {text}\n# TYPE {name} gauge\n{name} {value}\n".encode()

    async def _count(self, names: Sequence[GuestRef]) -> tuple[int, int, int, int]:
        """How many guests there is room for, their series, and those of the others; and how many guests are stale."""
        kept = series = left_out = stale = 0
        now, silence = time.time(), self._cache.silence
        until = time.monotonic() + SLICE
        for guest in self._guests(names):
            many = sum(1 for family in self.families for _ in family.samples(guest)) if guest else 0
            stale += bool(guest and guest.stale(now, silence))
            if left_out or series + many > self._limit:
                left_out += many
            else:
                kept, series = kept + 1, series + many
            if time.monotonic() >= until:
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE
        return kept, series, left_out, stale

    async def _lines(self, family: Family, names: Sequence[GuestRef]) -> AsyncGenerator[bytes]:
        """The samples of one metric; a part is what a slice of time gave."""
        lines: list[str] = []
        until = time.monotonic() + SLICE
        for guest in self._guests(names):
            if guest:
                ours = identity(guest)
                lines.extend(f"{family.name}{{{ours}{more}}} {value}\n" for more, value in family.samples(guest))
            if time.monotonic() >= until:
                yield "".join(lines).encode()
                lines.clear()
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE
        yield "".join(lines).encode()

    def _guests(self, names: Sequence[GuestRef]) -> Iterator[Guest | None]:
        """None for who is gone meanwhile."""
        return map(self._cache.guest, names)


def families(naming: Naming) -> tuple[Family, ...]:
    """All metrics of guests."""
    ours = naming == "guestwire"
    prefix, load = ("guestwire_guest", "guestwire_guest") if ours else ("kubevirt_vmi", "kubevirt_vmi_guest")
    return (
        Family(f"{prefix}_info", "The guest's phase and operating system; always 1.", _every if ours else _running),
        Family(f"{prefix}_filesystem_capacity_bytes", "Size of a filesystem of the guest.", _capacity),
        Family(f"{prefix}_filesystem_used_bytes", "Bytes used of a filesystem of the guest.", _used),
        *(
            Family(f"{load}_load_{span}m", f"Load average of the guest over {span} minutes.", _load(f"load{span}m"))
            for span in (1, 5, 15)
        ),
        Family("guestwire_guest_users", "Users logged in.", _users),
        Family(
            "guestwire_guest_agent_connected",
            "1 when the agent is connected; of guests that run and have a channel for one.",
            _connected,
        ),
        Family("guestwire_guest_agent_responsive", "0 when a connected agent does not answer.", _responsive),
        Family("guestwire_guest_frozen", "1 when the guest's filesystems are frozen.", _frozen),
        Family(
            "guestwire_guest_observed_timestamp_seconds",
            "When a kind of facts was last seen to be so; of the kind agent, when its record was last sent.",
            _observed,
        ),
    )


# --- text ------------------------------------------------------------------------------------------------------

_plain = re.compile(rf"[ !#-\[\]-~]{{0,{LONGEST}}}").fullmatch


def label_value(text: str) -> str:
    """
    As it stands between quotes. What is too long, or has characters that cannot be shown, ends in `~` and a digest of
    the whole, so that different texts stay different.
    """
    if _plain(text):
        return text
    shown = "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text[:LONGEST])
    if shown != text:
        digest = blake2b(text.encode(errors="surrogatepass"), digest_size=4).hexdigest()
        shown = f"{shown[: LONGEST - 1 - len(digest)]}~{digest}"
    return shown.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def identity(guest: Guest) -> str:
    """The labels of every metric of a guest."""
    node = guest.presence.host if guest.presence else ""
    namespace, name = label_value(guest.ref.namespace), label_value(guest.ref.name)
    return f'node="{label_value(node)}",namespace="{namespace}",name="{name}"'


def _more(**labels: str) -> str:
    """Further labels, those with a value: to Prometheus an empty label is none."""
    return "".join(f',{name}="{label_value(text)}"' for name, text in labels.items() if text)


# --- samples ---------------------------------------------------------------------------------------------------


class _System(msgspec.Struct, rename="camel", frozen=True, gc=False):
    kernel_release: str = ""
    machine: str = ""
    name: str = ""
    version_id: str = ""


class _Info(msgspec.Struct, frozen=True, gc=False):
    os: _System = _System()


class _Filesystem(msgspec.Struct, rename="camel", frozen=True, gc=False):
    disk_name: str = ""
    mount_point: str = ""
    file_system_type: str = ""
    used_bytes: int = 0
    total_bytes: int = 0


class _Filesystems(msgspec.Struct, frozen=True, gc=False):
    items: tuple[_Filesystem, ...]


class _Someone(msgspec.Struct, frozen=True, gc=False):
    """Who it is does not matter."""


class _Users(msgspec.Struct, frozen=True, gc=False):
    items: tuple[_Someone, ...]


_info_of, _filesystems_of = msgspec.json.Decoder(_Info), msgspec.json.Decoder(_Filesystems)
_users_of, _load_of = msgspec.json.Decoder(_Users), msgspec.json.Decoder(Load)


def _known(guest: Guest, kind: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    """What is served of a kind; None where nothing is, or it is of a version to come."""
    fact = guest.fact(kind)
    try:
        return decoder.decode(fact.body) if fact else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _every(guest: Guest) -> Iterator[Sample]:
    if guest.presence:
        yield from _info(guest, guest.presence.phase)


def _running(guest: Guest) -> Iterator[Sample]:
    """A guest that is paused runs, for KubeVirt; into which phase a VMI goes when its guest ends, is not known here."""
    if guest.presence and guest.presence.running:
        yield from _info(guest, Phase.RUNNING)


def _info(guest: Guest, phase: str) -> Iterator[Sample]:
    system = (_known(guest, Kind.GUESTOSINFO, _info_of) or _Info()).os
    labels = _more(
        phase=phase.lower(),
        guest_os_kernel_release=system.kernel_release,
        guest_os_arch=system.machine,
        guest_os_name=system.name,
        guest_os_version_id=system.version_id,
    )
    yield labels, "1"


def _capacity(guest: Guest) -> Iterator[Sample]:
    return ((labels, str(each.total_bytes)) for labels, each in _filesystems(guest))


def _used(guest: Guest) -> Iterator[Sample]:
    return ((labels, str(each.used_bytes)) for labels, each in _filesystems(guest))


def _filesystems(guest: Guest) -> Iterator[tuple[str, _Filesystem]]:
    """Those whose size the agent tells; a filesystem mounted twice at the same place counts once, as for KubeVirt."""
    known = _known(guest, Kind.FILESYSTEMLIST, _filesystems_of)
    if known is None:
        return
    seen: set[str] = set()
    for each in islice((each for each in known.items if each.total_bytes > 0), FILESYSTEMS):
        labels = _more(disk_name=each.disk_name, mount_point=each.mount_point, file_system_type=each.file_system_type)
        if labels not in seen:
            seen.add(labels)
            yield labels, each


def _load(field: str) -> Callable[[Guest], Iterator[Sample]]:
    def samples(guest: Guest) -> Iterator[Sample]:
        if load := _known(guest, Kind.LOAD, _load_of):
            yield "", repr(getattr(load, field))

    return samples


def _users(guest: Guest) -> Iterator[Sample]:
    if users := _known(guest, Kind.USERLIST, _users_of):
        yield "", str(len(users.items))


def _connected(guest: Guest) -> Iterator[Sample]:
    """Nobody waits for the agent of a guest that is off, or has no channel."""
    if guest.presence and guest.presence.running and guest.presence.agent != "none":
        yield "", str(int(guest.presence.connected))


def _responsive(guest: Guest) -> Iterator[Sample]:
    return _while_connected(guest, lambda agent: agent != "unresponsive")


def _frozen(guest: Guest) -> Iterator[Sample]:
    return _while_connected(guest, lambda agent: agent == "frozen")


def _while_connected(guest: Guest, holds: Callable[[str], bool]) -> Iterator[Sample]:
    if guest.presence and guest.presence.running and guest.presence.connected:
        yield "", str(int(holds(guest.presence.agent)))


def _observed(guest: Guest) -> Iterator[Sample]:
    for kind in tuple(guest.facts):
        if fact := guest.fact(kind):
            observed_at = max(fact.changed_at, guest.observed_at(kind))
            yield f',kind="{kind}"', f"{observed_at.timestamp():.3f}"
