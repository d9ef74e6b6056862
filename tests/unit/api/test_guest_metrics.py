"""What guests say, as Prometheus reads it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from api.cache import Cache
from api.guest_metrics import LONGEST, SLICE, GuestMetrics, Naming, families, label_value
from guestwire import codec
from guestwire.codec import Event
from guestwire.jetstream import Message
from guestwire.machine import Load
from guestwire.snapshot import (
    AgentState,
    Body,
    Filesystem,
    FilesystemInfo,
    FilesystemList,
    GuestOSInfo,
    GuestRef,
    Kind,
    ListMeta,
    OperatingSystem,
    Phase,
    Reading,
    User,
    UserList,
)
from guestwire.subjects import Address

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VM = GuestRef("default", "vm1")
WHO = {"node": "h", "namespace": "default", "name": "vm1"}
ROOT = Filesystem("vda1", "/", "ext4", 400, 1000)
INFO = GuestOSInfo(
    FilesystemInfo(None),
    OperatingSystem(id="debian", kernel_release="6.1.0", machine="x86_64", name="Debian", version_id="12"),
    "UTC, 0",
)

Samples = dict[str, list[tuple[dict[str, str], float]]]


def filled(*said: tuple[Any, ...]) -> Cache:
    """A cache that has caught up with (guest, kind, body) of noon, or of the time that follows."""
    cache = Cache()
    cache.begin()
    for each in said:
        say(cache, *each)
    cache.complete()
    return cache


def say(cache: Cache, ref: GuestRef, kind: str, body: Body, at: datetime = NOON) -> None:
    """One more message."""
    event = Event(id="1", source="/guestwire/local/h", uid="u1", time=at, trace_id="")
    cache.apply(Message(Address("local", ref, kind), cache.revision + 1, event, codec.encode(body), {}))


def agent(ref: GuestRef = VM, at: datetime = NOON, **facts: Any) -> tuple[GuestRef, str, Body, datetime]:
    """The agent record of a guest that runs with its agent connected, but for what `facts` say."""
    usual: dict[str, Any] = {"phase": Phase.RUNNING, "channel": True, "connected": True, "since": NOON, "host": "h"}
    state = AgentState(
        namespace=ref.namespace, name=ref.name, uid="u1", domain="d", domain_uuid="u1", **(usual | facts)
    )
    return ref, Kind.AGENT, state, at


def mounted(*filesystems: Filesystem, ref: GuestRef = VM) -> tuple[GuestRef, str, Body]:
    """A filesystem list."""
    return ref, Kind.FILESYSTEMLIST, FilesystemList(filesystems, ListMeta())


async def written(cache: Cache, naming: Naming = "guestwire", limit: int = 10**6) -> str:
    """The text."""
    return b"".join([part async for part in GuestMetrics(cache, naming, limit).text()]).decode()


async def samples(cache: Cache, naming: Naming = "guestwire", limit: int = 10**6) -> Samples:
    """By metric, as another parser reads them; nothing twice."""
    read: Samples = {}
    for family in text_string_to_metric_families(await written(cache, naming, limit)):
        for sample in family.samples:
            read.setdefault(sample.name, []).append((sample.labels, sample.value))
    assert all(len({str(labels) for labels, _ in each}) == len(each) for each in read.values())
    return read


async def test_all_that_a_guest_says() -> None:
    """Every metric of a guest with everything known, under our names."""
    observed = {Kind.USERLIST: Reading(NOON + timedelta(seconds=90.5))}
    cache = filled(
        agent(readings=observed),
        (VM, Kind.GUESTOSINFO, INFO),
        mounted(ROOT),
        (VM, Kind.USERLIST, UserList((User("root"), User("alice")), ListMeta())),
        (VM, Kind.LOAD, Load(0.5, 0.25, 0.1)),
    )
    system = {
        "guest_os_kernel_release": "6.1.0",
        "guest_os_arch": "x86_64",
        "guest_os_name": "Debian",
        "guest_os_version_id": "12",
    }
    disk = {"disk_name": "vda1", "mount_point": "/", "file_system_type": "ext4"}
    noon = NOON.timestamp()
    times = {"agent": noon, "guestosinfo": noon, "filesystemlist": noon, "userlist": noon + 90.5, "load": noon}

    read = await samples(cache)
    observations = read.pop("guestwire_guest_observed_timestamp_seconds")

    assert times == {labels["kind"]: value for labels, value in observations}
    assert {
        "guestwire_guest_info": [(WHO | {"phase": "running"} | system, 1)],
        "guestwire_guest_filesystem_capacity_bytes": [(WHO | disk, 1000)],
        "guestwire_guest_filesystem_used_bytes": [(WHO | disk, 400)],
        "guestwire_guest_load_1m": [(WHO, 0.5)],
        "guestwire_guest_load_5m": [(WHO, 0.25)],
        "guestwire_guest_load_15m": [(WHO, 0.1)],
        "guestwire_guest_users": [(WHO, 2)],
        "guestwire_guest_agent_connected": [(WHO, 1)],
        "guestwire_guest_agent_responsive": [(WHO, 1)],
        "guestwire_guest_frozen": [(WHO, 0)],
        "guestwire_guest_metrics_series": [({}, 15)],
        "guestwire_guest_metrics_left_out": [({}, 0)],
        "guestwire_guests_stale": [({}, 1)],
    } == read


def test_names_of_kubevirt() -> None:
    """By setting, what KubeVirt has is called as KubeVirt calls it, and the rest is not."""
    assert {
        "kubevirt_vmi_info",
        "kubevirt_vmi_filesystem_capacity_bytes",
        "kubevirt_vmi_filesystem_used_bytes",
        "kubevirt_vmi_guest_load_1m",
        "kubevirt_vmi_guest_load_5m",
        "kubevirt_vmi_guest_load_15m",
    } == {family.name for family in families("kubevirt") if family.name.startswith("kubevirt")}
    assert {family.name for family in families("guestwire")} > {
        family.name for family in families("kubevirt") if not family.name.startswith("kubevirt")
    }


@pytest.mark.parametrize(
    ("phase", "ours", "theirs"),
    [(Phase.RUNNING, "running", ["running"]), (Phase.PAUSED, "paused", ["running"]), (Phase.STOPPED, "stopped", [])],
)
async def test_phase(phase: Phase, ours: str, theirs: list[str]) -> None:
    """Under KubeVirt's name a guest has the phase that its VMI has, or, where that is not known, no series."""
    cache = filled(agent(phase=phase))
    own, kubevirt = await samples(cache), await samples(cache, "kubevirt")

    assert [ours] == [labels["phase"] for labels, _ in own["guestwire_guest_info"]]
    assert theirs == [labels["phase"] for labels, _ in kubevirt.get("kubevirt_vmi_info", [])]


@pytest.mark.parametrize(
    ("facts", "connected", "responsive", "frozen"),
    [
        ({}, [1], [1], [0]),
        ({"responsive": False}, [1], [0], [0]),
        ({"frozen": True}, [1], [1], [1]),
        ({"connected": False}, [0], [], []),
        ({"connected": False, "channel": False}, [], [], []),
        ({"phase": Phase.STOPPED}, [], [], []),
    ],
)
async def test_agent(facts: dict[str, Any], connected: list[int], responsive: list[int], frozen: list[int]) -> None:
    """Nothing is said of an agent that nobody can expect: the guest is off, or has no channel for one."""
    read = await samples(filled(agent(**facts)))

    assert [connected, responsive, frozen] == [
        [value for _, value in read.get(f"guestwire_guest_{name}", [])]
        for name in ("agent_connected", "agent_responsive", "frozen")
    ]


async def test_guest_without_agent_has_no_facts() -> None:
    """When the agent has gone, series end that only it can tell; the age of the agent record goes on."""
    cache = filled(agent(), (VM, Kind.GUESTOSINFO, INFO), mounted(ROOT), (VM, Kind.USERLIST, UserList((), ListMeta())))
    say(cache, *agent(connected=False))
    read = await samples(cache)

    assert [(WHO | {"phase": "running"}, 1)] == read["guestwire_guest_info"]
    assert ["agent"] == [labels["kind"] for labels, _ in read["guestwire_guest_observed_timestamp_seconds"]]
    assert {"guestwire_guest_filesystem_used_bytes", "guestwire_guest_users"}.isdisjoint(read)


async def test_guest_that_is_gone() -> None:
    """A guest that went has no series."""
    cache = filled(agent(), mounted(ROOT))
    say(cache, *agent(phase=Phase.GONE))

    read = await samples(cache)

    assert {"guestwire_guest_metrics_series", "guestwire_guest_metrics_left_out", "guestwire_guests_stale"} == set(read)


@pytest.mark.parametrize(("ago", "stale"), [(0, 0), (890, 0), (910, 1)])
async def test_stale(ago: float, stale: int) -> None:
    """A guest counts as stale when its agent record is older than three heartbeats, whatever else is new about it."""
    now = datetime.now(UTC)
    cache = filled(agent(at=now - timedelta(seconds=ago)), (VM, Kind.USERLIST, UserList((), ListMeta()), now))

    assert [({}, stale)] == (await samples(cache))["guestwire_guests_stale"]
    assert [({}, stale)] == (await samples(cache, limit=1))["guestwire_guests_stale"]


async def test_filesystems_that_count_once_or_not() -> None:
    """One that is listed twice is one series, one whose size is untold none, and of very many some are left out."""
    many = [msgspec.structs.replace(ROOT, mount_point=f"/mnt/{number}") for number in range(1000)]
    twice = filled(agent(), mounted(ROOT, ROOT, Filesystem("vdb", "/untold", "xfs", 0, 0)))

    assert 1 == len((await samples(twice))["guestwire_guest_filesystem_used_bytes"])
    assert 64 == len((await samples(filled(agent(), mounted(*many))))["guestwire_guest_filesystem_used_bytes"])


async def test_limit() -> None:
    """Beyond it whole guests are left out, always the same ones, and their series are counted."""
    refs = [GuestRef("default", f"vm{number}") for number in range(9, -1, -1)]
    cache = filled(*(agent(ref) for ref in refs), *(mounted(ROOT, ref=ref) for ref in refs))
    everything, some = await samples(cache), await samples(cache, limit=30)
    shown = ["vm0", "vm1", "vm2", "vm3"]

    assert [({}, 80)] == everything["guestwire_guest_metrics_series"]
    assert [({}, 0)] == everything["guestwire_guest_metrics_left_out"]
    assert [shown[:3], shown[:3]] == [
        [labels["name"] for labels, _ in some[name]]
        for name in ("guestwire_guest_info", "guestwire_guest_filesystem_used_bytes")
    ]
    assert [({}, 24)] == some["guestwire_guest_metrics_series"]
    assert [({}, 56)] == some["guestwire_guest_metrics_left_out"]


async def test_body_of_a_version_to_come() -> None:
    """What cannot be decoded is not shown, and does no harm to the rest."""
    cache = filled(agent(), (VM, Kind.FILESYSTEMLIST, ListMeta()), (VM, Kind.USERLIST, ListMeta()))
    read = await samples(cache)

    assert 1 == len(read["guestwire_guest_info"])
    assert "guestwire_guest_filesystem_used_bytes" not in read


@given(st.text(st.characters(), max_size=2 * LONGEST))
def test_any_text_is_a_label(text: str) -> None:
    """Any text ends up as one line of UTF-8 that another parser reads, short, and as it was where that can be shown."""
    written = label_value(text)
    (family,) = text_string_to_metric_families(f'm{{l="{written}"}} 1\n'.encode().decode())
    read = family.samples[0].labels["l"]

    assert "\n" not in written
    assert LONGEST >= len(read)
    if len(text) <= LONGEST and all(each.isprintable() or each == "\n" for each in text):
        assert text == read


@given(st.lists(st.text("a\x00\x01\ud800" + '"\\\n', min_size=LONGEST - 2, max_size=LONGEST + 2), unique=True))
def test_different_texts_are_different_labels(texts: list[str]) -> None:
    """Shortened or not, what differed still does."""
    assert len(texts) == len({label_value(text) for text in texts})


async def test_others_have_their_turn() -> None:
    """However many guests there are, the event loop goes on meanwhile; guests that come and go do not disturb."""
    refs = [GuestRef("default", f"vm{number:04}") for number in range(2000)]
    cache = filled(*(agent(ref) for ref in refs), *(mounted(*[ROOT] * 10, ref=ref) for ref in refs))
    turns, done = 0, asyncio.Event()

    async def others() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            ref = refs[turns * 7 % len(refs)]
            say(cache, *agent(ref, phase=Phase.GONE if turns % 2 else Phase.RUNNING))
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    began = time.process_time()
    lines = (await written(cache)).splitlines()
    took = time.process_time() - began
    done.set()
    await task

    assert 5 * 2000 < len(lines)
    assert took / SLICE / 10 < turns
