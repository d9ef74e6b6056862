"""What is known about a guest: kept through failures, restarts and freezes, and said in KubeVirt's words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from collectors.agent_commands import OPTIONAL, OPTIONAL_COMMANDS, AgentCommand, OptionalKind, Reply
from collectors.domain import Domain
from collectors.guest import Guest
from collectors.noise import Limits
from collectors.replies import AgentInfo
from guestwire import codec
from guestwire.last_word import gone
from guestwire.machine import (
    Clock,
    CpuStats,
    CpuStatsList,
    Disk,
    Disks,
    DiskStats,
    DiskStatsList,
    Load,
    Vcpu,
    Vcpus,
)
from guestwire.snapshot import (
    AgentState,
    Command,
    Filesystem,
    GuestInterface,
    GuestRef,
    GuestSnapshot,
    IPAddress,
    OperatingSystem,
    Phase,
    User,
)

NOW = datetime(2026, 2, 3, tzinfo=UTC)
DOMAIN = Domain(
    GuestRef("ns", "vm"), "ns_vm", "uuid", "uid", Phase.RUNNING, channel=True, connected=True, interfaces=()
)
ANSWERS: dict[AgentCommand, Any] = {
    AgentCommand.INFO: AgentInfo("7.2", tuple(Command(name, True) for name in AgentCommand)),
    AgentCommand.FREEZE_STATUS: "thawed",
    AgentCommand.OSINFO: OperatingSystem(id="x", name="X"),
    AgentCommand.HOSTNAME: "h",
    AgentCommand.TIMEZONE: "UTC, 0",
    AgentCommand.INTERFACES: (GuestInterface("eth0", "m", (IPAddress("1.2.3.4", 24),)),),
    AgentCommand.USERS: tuple(User(f"u{number}") for number in range(12)),
    AgentCommand.FILESYSTEMS: tuple(Filesystem(f"v{n}", f"/{n}", "ext4", 1, 2) for n in range(12)),
    AgentCommand.LOAD: Load(0.5, 0.25, 0.0),
    AgentCommand.DISKS: Disks((Disk("/dev/vda", partition=False),)),
    AgentCommand.CPUSTATS: CpuStatsList((CpuStats(0, 1, 2, 3, 4),)),
    AgentCommand.DISKSTATS: DiskStatsList((DiskStats("vda", 254, 0, busy_time=5),)),
    AgentCommand.TIME: Clock(0.1, 0.002),
    AgentCommand.VCPUS: Vcpus((Vcpu(0, online=True, can_offline=False),)),
}
OPTIONAL_KINDS = {"load", "disks", "cpustats", "diskstats", "time", "vcpus"}


def known(domain: Domain = DOMAIN) -> Guest:
    """A guest that answered everything."""
    guest = Guest(domain, "host", NOW)
    for command, answer in ANSWERS.items():
        guest.read(command, Reply(answer), NOW)
    return guest


def bodies(snapshot: GuestSnapshot) -> dict[str, Any]:
    """Decoded bodies by kind."""
    return {part.kind: msgspec.json.decode(part.body) for part in snapshot.parts}


def digests(guest: Guest) -> dict[str, str]:
    """What would be published."""
    return {part.kind: part.digest for part in guest.snapshot("t").parts}


def test_caps() -> None:
    """Ten users and filesystems inside guestosinfo, all of them in the lists."""
    said = bodies(known().snapshot("t"))

    assert (10, 10) == (len(said["guestosinfo"]["userList"]), len(said["guestosinfo"]["fsInfo"]["disks"]))
    assert (12, 12) == (len(said["userlist"]["items"]), len(said["filesystemlist"]["items"]))


def test_nothing_read() -> None:
    """What was never read is not said; the domain's side is."""
    assert {"agent", "interfaces"} == set(bodies(Guest(DOMAIN, "host", NOW).snapshot("t")))
    assert {"domain": []} == bodies(Guest(DOMAIN, "host", NOW).snapshot("t"))["interfaces"]


def test_failure_keeps_the_fact() -> None:
    """A refused command leaves its fact, and tells the reason."""
    guest = known()
    before = bodies(guest.snapshot("t"))
    guest.failed(AgentCommand.USERS, "refused")
    after = bodies(guest.snapshot("t"))

    assert before["userlist"] == after["userlist"]
    reading = after["agent"]["readings"]["userlist"]
    assert "guest-get-users: refused" == reading["error"]
    assert before["agent"]["readings"]["userlist"]["observedAt"] == reading["observedAt"]


def test_unsupported_list_is_empty() -> None:
    """A list that the agent cannot tell is KubeVirt's empty one, with the reason in the agent record."""
    guest = Guest(DOMAIN, "host", NOW)
    guest.failed(AgentCommand.USERS, "not supported")

    assert {"items": [], "metadata": {}} == bodies(guest.snapshot("t"))["userlist"]


def test_reconnect() -> None:
    """Coming back is a new `since`, and facts stay meanwhile."""
    guest = known()
    off, on = msgspec.structs.replace(DOMAIN, connected=False), DOMAIN

    assert not guest.update(off, NOW + timedelta(seconds=1))
    assert "userlist" in bodies(guest.snapshot("t"))
    assert not guest.askable
    assert guest.update(on, NOW + timedelta(seconds=2))
    assert NOW + timedelta(seconds=2) == guest.since


def test_paused_is_not_asked() -> None:
    """A paused guest stays connected and is left alone."""
    guest = known()
    guest.update(msgspec.structs.replace(DOMAIN, phase=Phase.PAUSED), NOW)

    assert (True, False) == (guest.connected, guest.askable)


def test_supported() -> None:
    """Before guest-info anything may be asked; afterwards only what it lists as enabled."""
    guest = Guest(DOMAIN, "host", NOW)
    assert guest.supports(AgentCommand.USERS)

    guest.read(AgentCommand.INFO, Reply(AgentInfo("1", (Command("guest-get-users"), Command("guest-ping", True)))), NOW)
    assert not guest.supports(AgentCommand.USERS)


@pytest.mark.parametrize("row", OPTIONAL, ids=lambda row: row.kind)
def test_optional_is_asked_only_when_listed(row: OptionalKind) -> None:
    """An optional command is sent to an agent that lists it as enabled, and to no other: not before, not on a guess."""
    guest = Guest(DOMAIN, "host", NOW)
    assert not guest.supports(row.command)
    for listed, expected in (
        ((), False),
        ((Command("guest-ping", True),), False),
        ((Command(row.command),), False),
        ((Command(row.command, True),), True),
    ):
        guest.read(AgentCommand.INFO, Reply(AgentInfo("1", listed)), NOW)
        assert expected == guest.supports(row.command)


@pytest.mark.parametrize("row", OPTIONAL, ids=lambda row: row.kind)
def test_optional_kind(row: OptionalKind) -> None:
    """Nothing is said about a kind that could not be read, but why; once read, the body is the fact."""
    guest = Guest(DOMAIN, "host", NOW)
    guest.failed(row.command, "not supported")
    before = bodies(guest.snapshot("t"))
    guest.read(row.command, Reply(ANSWERS[row.command]), NOW)
    after = {part.kind: part.body for part in guest.snapshot("t").parts}

    assert {"agent", "interfaces"} == set(before)
    assert f"{row.command}: not supported" == before["agent"]["readings"][row.kind]["error"]
    assert codec.encode(ANSWERS[row.command]) == after[row.kind]
    assert {"agent", "interfaces", row.kind} == set(after)


def test_optional_leaves_the_others_alone() -> None:
    """KubeVirt's kinds and the interfaces are the same bytes whether optional kinds are read or not."""
    plain = Guest(DOMAIN, "host", NOW)
    for command, answer in ANSWERS.items():
        if command not in OPTIONAL_COMMANDS:
            plain.read(command, Reply(answer), NOW)
    more = digests(known())

    assert OPTIONAL_KINDS == more.keys() - digests(plain).keys()
    assert {kind: digest for kind, digest in digests(plain).items() if kind != "agent"} == {
        kind: digest for kind, digest in more.items() if kind not in {"agent", *OPTIONAL_KINDS}
    }


def test_oldest_reading() -> None:
    """Of what every agent is asked again and again; what is asked seldom or optional does not count."""
    guest = Guest(DOMAIN, "host", NOW)
    assert guest.oldest_reading is None
    for seconds, command in enumerate(AgentCommand):
        guest.read(command, Reply(ANSWERS[command]), NOW + timedelta(seconds=seconds))
    assert NOW + timedelta(seconds=2) == guest.oldest_reading
    guest.failed(AgentCommand.OSINFO, "refused")
    guest.read(AgentCommand.OSINFO, Reply(ANSWERS[AgentCommand.OSINFO]), NOW + timedelta(seconds=60))
    assert NOW + timedelta(seconds=3) == guest.oldest_reading


def test_recall_changes_nothing() -> None:
    """A restarted collector that recalls what it said would say the same, also before and after reading again."""
    before = known()
    guest = Guest(DOMAIN, "host", NOW + timedelta(hours=1))
    guest.recall({part.kind: part.body for part in before.snapshot("t").parts})

    assert digests(before) == digests(guest)
    for command, answer in ANSWERS.items():
        guest.read(command, Reply(answer), NOW + timedelta(hours=1))
    assert digests(before) == digests(guest)


def test_recall_of_failures() -> None:
    """Also what could not be read is not news after a restart."""
    before = Guest(DOMAIN, "host", NOW)
    for command, answer in ANSWERS.items():
        if command in {AgentCommand.TIMEZONE, AgentCommand.USERS, AgentCommand.FREEZE_STATUS}:
            before.failed(command, "refused: why; really")
        else:
            before.read(command, Reply(answer, truncated=3), NOW)
    guest = Guest(DOMAIN, "host", NOW)
    guest.recall({part.kind: part.body for part in before.snapshot("t").parts})

    assert digests(before) == digests(guest)


def test_recall_of_another_guest() -> None:
    """Facts of an earlier guest of the same name are not taken over."""
    guest = Guest(msgspec.structs.replace(DOMAIN, uid="other"), "host", NOW)
    guest.recall({part.kind: part.body for part in known().snapshot("t").parts})

    assert {"agent", "interfaces"} == set(bodies(guest.snapshot("t")))


def test_recall_of_a_guest_that_was_gone() -> None:
    """
    What it was known by before is taken back, kind by kind, but for those that have no form without facts; a restart
    after that adds nothing, a reading all.
    """
    said = {part.kind: part.body for part in known().snapshot("t").parts}
    said |= {part.kind: part.body for part in gone(known().state(), "t", NOW).parts}
    guest, again = Guest(DOMAIN, "host", NOW), Guest(DOMAIN, "host", NOW)
    guest.recall(said)
    anew = bodies(guest.snapshot("t"))
    assert set(said) - {row.kind for row in OPTIONAL} == set(anew)
    assert ([], [], {}) == (anew["userlist"]["items"], anew["filesystemlist"]["items"], anew["guestosinfo"]["os"])
    again.recall({part.kind: part.body for part in guest.snapshot("t").parts})
    assert digests(again).items() <= digests(guest).items()
    for command, answer in ANSWERS.items():
        guest.read(command, Reply(answer), NOW)

    assert digests(known()) == digests(guest)


def test_recall_of_nonsense() -> None:
    """What does not decode is left alone."""
    guest = Guest(DOMAIN, "host", NOW)
    guest.recall({"agent": b"{", "userlist": b"{"})
    guest.recall({"agent": codec.encode(known().state()), "userlist": b"{"})

    assert guest.responsive


def test_gone() -> None:
    """The last word is one agent record that says so."""
    [part] = gone(known().state(), "t", NOW).parts
    state = codec.decode(part.body, AgentState)

    assert (Phase.GONE, False, "uid") == (state.phase, state.connected, state.uid)


def test_kept_reading_has_its_own_time() -> None:
    """A counter that waits untold does not make the told one look younger: rates are taken over the right time."""
    guest = Guest(DOMAIN, "host", NOW, Limits(activity_share=0.1, activity_age=600))
    told: list[tuple[datetime, int]] = []
    for seconds in (0, 20, 40, 60):
        value = CpuStatsList((CpuStats(0, seconds, 0, 0, seconds * 1000),))
        guest.read(AgentCommand.CPUSTATS, Reply(value), NOW + timedelta(seconds=seconds))
        [part] = [part for part in guest.snapshot("t").parts if part.kind == "cpustats"]
        told.append((part.observed_at, codec.decode(part.body, CpuStatsList).cpus[0].user))

    assert [(NOW, 0), *[(NOW + timedelta(seconds=20), 20)] * 3] == told
    assert NOW + timedelta(seconds=60) == guest.state().readings["cpustats"].observed_at


def filesystems(used: int, *mounts: str) -> tuple[Filesystem, ...]:
    """Filesystems of 1000 bytes."""
    return tuple(Filesystem("vda", mount, "ext4", used, 1000) for mount in mounts)


def told(guest: Guest) -> list[tuple[str, int]]:
    """Mount points and used bytes, as they are said."""
    items = bodies(guest.snapshot("t"))["filesystemlist"]["items"]
    return [(item["mountPoint"], item["usedBytes"]) for item in items]


def test_usage_noise() -> None:
    """Small moves of usage wait, large ones and late ones are told; a mount never waits."""
    guest = Guest(DOMAIN, "host", NOW, Limits(usage_share=0.1, usage_age=60))

    def read(seconds: int, *entries: Filesystem) -> bool:
        return guest.read(AgentCommand.FILESYSTEMS, Reply(entries), NOW + timedelta(seconds=seconds))

    assert not read(0, *filesystems(100, "/"))
    assert not read(1, *filesystems(150, "/"))
    assert [("/", 100)] == told(guest)
    assert read(2, *filesystems(200, "/"))
    assert [("/", 200)] == told(guest)
    assert not read(3, *filesystems(250, "/"))
    assert not read(62, *filesystems(251, "/"))
    assert read(63, *filesystems(252, "/"))
    assert [("/", 252)] == told(guest)
    assert read(64, *filesystems(253, "/", "/mnt"))
    assert [("/", 253), ("/mnt", 253)] == told(guest)
    assert read(65, *filesystems(253, "/"))


def test_usage_age_is_of_the_move() -> None:
    """Usage that moved and came back was never news; the waiting begins anew."""
    guest = Guest(DOMAIN, "host", NOW, Limits(usage_share=0.1, usage_age=60))
    for seconds, used in ((0, 100), (1, 150), (30, 100), (50, 150), (70, 150)):
        guest.read(AgentCommand.FILESYSTEMS, Reply(filesystems(used, "/")), NOW + timedelta(seconds=seconds))

    assert [("/", 100)] == told(guest)


def test_news() -> None:
    """The same readings again are no news; a changed fact, a failure, a freeze and an old snapshot are."""
    guest = known()
    assert guest.news(NOW)
    guest.snapshot("t")
    for command, answer in ANSWERS.items():
        guest.read(command, Reply(answer), NOW + timedelta(hours=1))
    assert not guest.news(NOW)
    assert guest.news(codec.now() + timedelta(seconds=1))
    for happen in (
        lambda: guest.read(AgentCommand.HOSTNAME, Reply("other"), NOW),
        lambda: guest.failed(AgentCommand.USERS, "refused"),
        lambda: guest.unresponsive("silent"),
        lambda: setattr(guest, "frozen", True),
        lambda: guest.update(msgspec.structs.replace(DOMAIN, connected=False), NOW),
    ):
        happen()
        assert guest.news(NOW)
        guest.snapshot("t")
        assert not guest.news(NOW)


def test_encoded_once() -> None:
    """A kind keeps its bytes until its facts change, and carries the time of its last reading."""
    guest = known()
    first = {part.kind: part for part in guest.snapshot("t").parts}
    later = NOW + timedelta(hours=1)
    guest.read(AgentCommand.USERS, Reply(ANSWERS[AgentCommand.USERS]), later)
    guest.read(AgentCommand.HOSTNAME, Reply("other"), later)
    second = {part.kind: part for part in guest.snapshot("t").parts}

    assert first["userlist"].body is second["userlist"].body
    assert later == second["userlist"].observed_at
    assert b'"other"' in second["guestosinfo"].body
