"""When an agent is asked what, on a clock of the test's own."""

from __future__ import annotations

from collections import Counter
from itertools import cycle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.agent_commands import OPTIONAL, OPTIONAL_COMMANDS, AgentCommand, OptionalKind
from collectors.schedule import PROFILES, Schedule, periods
from guestwire.settings import Ages, Collect

HOUR = 3600.0


def simulate(schedule: Schedule, until: float, since: float = 0.0) -> dict[AgentCommand, list[float]]:
    """Follow the schedule; the times of each command."""
    asked: dict[AgentCommand, list[float]] = {command: [] for command in AgentCommand}
    now = since
    while now < until:
        for command in schedule.due(now, frozen=False):
            schedule.asked(command, now)
            asked[command].append(now)
        now += max(schedule.next(now), 0.001)
    return asked


def fresh() -> Schedule:
    """Of a guest that has just connected."""
    schedule = Schedule(periods(Collect(), "ns"))
    schedule.restart(0.0)
    return schedule


def test_everything_at_once() -> None:
    """A connected agent is asked everything that is not optional, guest-info first."""
    assert [command for command in AgentCommand if command not in OPTIONAL_COMMANDS] == fresh().due(0.0, frozen=False)


def test_burst_then_longest_age() -> None:
    """The first intervals are short; none is ever longer than the setting."""
    times = simulate(fresh(), HOUR)
    limits = {command: limit for command, limit in periods(Collect(), "ns").items() if limit < HOUR}
    for command, limit in limits.items():
        gaps = [later - earlier for earlier, later in zip(times[command], times[command][1:], strict=False)]
        assert gaps[0] < 3
        assert max(gaps) <= limit + 0.01


def test_cost_in_steady_state() -> None:
    """600 commands per guest and hour, and none about what libvirt tells."""
    schedule = fresh()
    simulate(schedule, HOUR)
    count = Counter({command: len(times) for command, times in simulate(schedule, 2 * HOUR, HOUR).items()})

    assert 595 <= count.total() <= 605
    assert (0, 0) == (count[AgentCommand.INFO], count[AgentCommand.FREEZE_STATUS])


@given(st.lists(st.floats(0.001, 0.2), min_size=1, max_size=20))
def test_settled_commands_share_looks(latencies: list[float]) -> None:
    """In steady state a guest is looked at as often as its shortest period, however long its answers take."""
    schedule = fresh()
    simulate(schedule, HOUR)
    now, looks, asked, waits = HOUR, 0, 0, cycle(latencies)
    while now < 2 * HOUR:
        due = schedule.due(now, frozen=False)
        looks, asked = looks + bool(due), asked + len(due)
        for command in due:
            now += next(waits)
            schedule.asked(command, now)
        now += max(schedule.next(now), 0.001)

    assert looks <= 365
    assert 590 <= asked <= 605


def test_frozen() -> None:
    """A frozen agent is asked nothing but whether it still is."""
    assert [AgentCommand.FREEZE_STATUS] == fresh().due(0.0, frozen=True)


def test_silence_grows() -> None:
    """An agent that does not answer is left alone, longer each time, until it answers."""
    schedule = fresh()
    now, pauses = 0.0, []
    for _ in range(8):
        pauses.append(schedule.silent(now))
        assert [] == schedule.due(now + pauses[-1] - 1, frozen=False)
        now += pauses[-1]
    schedule.asked(AgentCommand.INFO, now)

    assert [10, 20, 40, 80, 160, 300, 300, 300] == pauses
    assert 10 == schedule.silent(now)


@pytest.mark.parametrize("hint", ["restart", "hasten"])
def test_hints(hint: str) -> None:
    """An event makes things due at once, and soon again."""
    schedule = fresh()
    simulate(schedule, HOUR)
    if hint == "restart":
        schedule.restart(HOUR)
    else:
        schedule.hasten([AgentCommand.FILESYSTEMS], HOUR)
    times = simulate(schedule, HOUR + 20, HOUR)[AgentCommand.FILESYSTEMS]

    assert HOUR == times[0]
    assert 4 <= len(times)


def test_doubt() -> None:
    """An agent that seems lost is tried again for some seconds before anybody says so."""
    schedule = fresh()
    now, tries = 0.0, 0
    while schedule.doubt(now):
        now += schedule.next(now)
        tries += 1

    assert 5 <= now < 6
    assert tries >= 5
    schedule.asked(AgentCommand.INFO, now)
    assert schedule.doubt(now)


def test_economy() -> None:
    """The economy profile costs at most 250 commands per guest and hour."""
    schedule = Schedule(periods(Collect(profile="economy"), "ns"))
    schedule.restart(0.0)
    simulate(schedule, HOUR)

    assert 140 <= sum(map(len, simulate(schedule, 2 * HOUR, HOUR).values())) <= 250


def test_ages_of_a_namespace() -> None:
    """A namespace's own age beats the setting, which beats the profile's."""
    settings = Collect(users=7, namespaces={"prod": Ages(users=3)})

    assert 3 == periods(settings, "prod")[AgentCommand.USERS]
    assert 7 == periods(settings, "other")[AgentCommand.USERS]
    assert 30 == periods(settings, "prod")[AgentCommand.INTERFACES]


def test_demand() -> None:
    """What somebody asks for is due at once, also of an agent that is left alone."""
    schedule = fresh()
    simulate(schedule, HOUR)
    schedule.silent(HOUR)
    schedule.demand([AgentCommand.USERS], HOUR)

    assert [AgentCommand.USERS] == [c for c in schedule.due(HOUR, frozen=False) if c is AgentCommand.USERS]


def test_optional_kinds_are_off() -> None:
    """Neither profile asks for an optional kind."""
    for profile in PROFILES:
        assert OPTIONAL_COMMANDS.isdisjoint(periods(msgspec.convert({"profile": profile}, Collect), "ns"))


def test_every_optional_kind_has_a_setting() -> None:
    """A kind is switched on by the setting of its name, for all or for a namespace, and off again by 0."""
    for row in OPTIONAL:
        on = msgspec.convert({row.kind.value: 60, "namespaces": {"off": {row.kind.value: 0}}}, Collect)
        here = msgspec.convert({"namespaces": {"on": {row.kind.value: 30}}}, Collect)

        assert {row.command: 60} == optional_periods(on, "ns")
        assert {} == optional_periods(on, "off")
        assert {row.command: 30} == optional_periods(here, "on")
        assert {} == optional_periods(here, "ns")


def optional_periods(settings: Collect, namespace: str) -> dict[AgentCommand, float]:
    """Those of optional commands."""
    return {command: period for command, period in periods(settings, namespace).items() if command in OPTIONAL_COMMANDS}


@pytest.mark.parametrize("row", OPTIONAL, ids=lambda row: row.kind)
def test_cost_of_an_optional_kind(row: OptionalKind) -> None:
    """Switched on, it costs one command per period, and nothing else is asked more often."""
    schedule = Schedule(periods(msgspec.convert({row.kind.value: 60}, Collect), "ns"))
    schedule.restart(0.0)
    first = simulate(schedule, HOUR)
    count = Counter({command: len(times) for command, times in simulate(schedule, 2 * HOUR, HOUR).items()})

    assert first[row.command][0] == 0
    assert 59 <= count[row.command] <= 61
    assert 595 + 59 <= count.total() <= 605 + 61


def test_demand_of_what_is_off() -> None:
    """What is switched off is asked once when somebody wants it; events do not bring it back."""
    schedule = fresh()
    simulate(schedule, HOUR)
    schedule.demand([AgentCommand.VCPUS], HOUR)
    assert AgentCommand.VCPUS in schedule.due(HOUR, frozen=False)
    schedule.asked(AgentCommand.VCPUS, HOUR)
    schedule.hasten([AgentCommand.VCPUS, AgentCommand.DISKS], HOUR)
    schedule.restart(HOUR + 1)

    assert OPTIONAL_COMMANDS.isdisjoint(schedule.due(HOUR + 2, frozen=False))
