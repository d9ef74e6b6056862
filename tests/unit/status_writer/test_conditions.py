"""The agent's conditions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from guestwire.snapshot import AgentState, Phase
from status_writer import support
from status_writer.conditions import CONNECTED, NOT_SUPPORTED, Condition, reconcile

SINCE = datetime(2026, 8, 22, 10, 0, 0, 900000, tzinfo=UTC)
SEEN = SINCE + timedelta(seconds=30)
REFRESH = 600.0
READY: Condition = {
    "type": "Ready",
    "status": "True",
    "lastProbeTime": None,
    "lastTransitionTime": "2026-08-22T09:00:00Z",
}
CREDENTIALS: Condition = {"type": "AccessCredentialsSynchronized", "status": "True"}
HELD: Condition = {
    "type": CONNECTED,
    "status": "True",
    "lastProbeTime": "2026-08-22T10:00:30Z",
    "lastTransitionTime": "2026-08-22T10:00:00Z",
}
COMMANDS = tuple(support.BASIC)


def agent(*, connected: bool = True, commands: tuple[str, ...] | None = COMMANDS) -> AgentState:
    """A state record since `SINCE`."""
    return AgentState(
        "ns", "vm", "uid", "ns_vm", "uuid", "host", Phase.RUNNING, True, connected, SINCE, commands=commands
    )


def after(
    *present: Condition, seen: datetime = SEEN, spec: dict[str, Any] | None = None, **state: Any
) -> list[Condition]:
    """The list that follows on this one."""
    return reconcile({"spec": spec or {}, "status": {"conditions": list(present)}}, agent(**state), seen, REFRESH)


def test_connected_is_added_with_true_times() -> None:
    """A connect adds the condition: probed when the agent was looked at, changed when it connected; whole seconds."""
    assert [READY, HELD] == after(READY)


def test_disconnected_removes_at_once() -> None:
    """A disconnect removes both conditions; none is ever set to False, and others stay."""
    unsupported = {"type": NOT_SUPPORTED, "status": "True", "reason": support.NO_BASIC}

    assert [READY, CREDENTIALS] == after(READY, HELD, CREDENTIALS, unsupported, connected=False)


def test_foreign_conditions_pass_through_untouched() -> None:
    """Conditions of other types stay what and where they are."""
    result = after(CREDENTIALS, READY, HELD)

    assert result[0] is CREDENTIALS
    assert result[1] is READY


def test_probe_time_is_refreshed_when_old() -> None:
    """The probe time moves once it is older than the refresh, not before; the transition time never does."""
    probed = datetime(2026, 8, 22, 10, 0, 30, tzinfo=UTC)

    assert [HELD] == after(HELD, seen=probed + timedelta(seconds=REFRESH - 1))
    assert [{**HELD, "lastProbeTime": "2026-08-22T10:10:30Z"}] == after(HELD, seen=probed + timedelta(seconds=REFRESH))


def test_missing_times_are_filled() -> None:
    """A condition as KubeVirt adds it, with null for the transition, gets its time."""
    assert [HELD] == after({**HELD, "lastTransitionTime": None})


def test_false_becomes_true() -> None:
    """A condition that somebody set to False is put right, with new times."""
    assert [HELD] == after({"type": CONNECTED, "status": "False", "lastProbeTime": None})


def test_unknown_commands_are_not_unsupported() -> None:
    """As long as the commands are unknown nothing is said about support, and nothing is taken back."""
    unsupported = {"type": NOT_SUPPORTED, "status": "True", "reason": support.NO_BASIC}

    assert [HELD] == after(HELD, commands=None)
    assert [HELD, unsupported] == after(HELD, unsupported, commands=None)


def test_unsupported_comes_goes_and_keeps_its_reason_up_to_date() -> None:
    """Missing commands add the condition, another reason replaces the old one in place, enough of them remove it."""
    spec: dict[str, Any] = {"accessCredentials": [{"userPassword": {"propagationMethod": {"qemuGuestAgent": {}}}}]}
    added = {
        "type": NOT_SUPPORTED,
        "status": "True",
        "lastProbeTime": "2026-08-22T10:00:30Z",
        "lastTransitionTime": "2026-08-22T10:00:30Z",
        "reason": support.NO_BASIC,
    }
    password = {**added, "reason": support.NO_PASSWORD}

    assert [HELD, added] == after(HELD, commands=())
    assert [password, HELD] == after(added, HELD, spec=spec, seen=SEEN + timedelta(seconds=9))
    assert [HELD] == after(HELD, password, spec=spec, commands=(*COMMANDS, *support.PASSWORD))


def test_credentials_that_go_another_way_ask_nothing_of_the_agent() -> None:
    """Only credentials that travel through the guest agent need its commands."""
    spec: dict[str, Any] = {"accessCredentials": [{"sshPublicKey": {"propagationMethod": {"noCloud": {}}}}]}

    assert (True, support.SUPPORTED) == support.support({"spec": spec}, COMMANDS)
