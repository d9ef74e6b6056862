"""
The VMI's conditions that speak of the guest agent: `AgentConnected` and `AgentVersionNotSupported`.

As KubeVirt's (pkg/virt-handler/vm.go updateGuestAgentConditions), a condition that does not hold is removed, never set
to False: its consumers look at existence alone. Deliberately different: times are true and refreshed, the version
condition waits until the commands are known, its reason is kept up to date, and it goes with the agent.
Conditions of other types, AccessCredentialsSynchronized among them, are someone else's and pass through untouched.

Pure: no I/O, no clock. Times are RFC 3339 in UTC with whole seconds (metav1.Time).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from guestwire.snapshot import AgentState
from status_writer.support import support

CONNECTED = "AgentConnected"
NOT_SUPPORTED = "AgentVersionNotSupported"

Condition = dict[str, Any]


def conditions_of(vmi: Mapping[str, Any]) -> list[Condition]:
    """The present list."""
    return list((vmi.get("status") or {}).get("conditions") or ())


def is_connected(vmi: Mapping[str, Any]) -> bool:
    """Whether a VMI shows a connected agent; as its consumers see it, by existence alone."""
    return _held(conditions_of(vmi), CONNECTED) is not None


def reconcile(vmi: Mapping[str, Any], agent: AgentState, observed: datetime, probe_refresh: float) -> list[Condition]:
    """
    The list as it should be: unchanged elements are the same objects, in the same order; new ones come last.

    `observed` is when the agent's state was last looked at. It becomes lastProbeTime, again once the one in place is
    `probe_refresh` seconds older.
    """
    wanted: dict[str, Condition | None] = {CONNECTED: None, NOT_SUPPORTED: None}
    present = conditions_of(vmi)
    if agent.connected:
        held = _held(present, CONNECTED)
        wanted[CONNECTED] = _connected(held, agent, observed, probe_refresh)
        wanted[NOT_SUPPORTED] = _not_supported(_held(present, NOT_SUPPORTED), vmi, agent, observed)
    result: list[Condition] = []
    for condition in present:
        kind = str(condition.get("type"))
        if kind not in wanted and kind not in (CONNECTED, NOT_SUPPORTED):
            result.append(condition)
        elif replacement := wanted.pop(kind, None):
            result.append(replacement)
    result.extend(condition for condition in wanted.values() if condition is not None)
    return result


def rfc3339(moment: datetime) -> str:
    """As metav1.Time prints it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _held(conditions: Sequence[Condition], kind: str) -> Condition | None:
    return next((condition for condition in conditions if condition.get("type") == kind), None)


def _connected(held: Condition | None, agent: AgentState, observed: datetime, probe_refresh: float) -> Condition:
    if held is None or held.get("status") != "True":
        return {
            "type": CONNECTED,
            "status": "True",
            "lastProbeTime": rfc3339(observed),
            "lastTransitionTime": rfc3339(agent.since),
        }
    changes: Condition = {}
    probed = _time(held.get("lastProbeTime"))
    if probed is None or observed - probed >= timedelta(seconds=probe_refresh):
        changes["lastProbeTime"] = rfc3339(observed)
    if _time(held.get("lastTransitionTime")) is None:  # KubeVirt leaves it null
        changes["lastTransitionTime"] = rfc3339(agent.since)
    return {**held, **changes} if changes else held


def _not_supported(
    held: Condition | None, vmi: Mapping[str, Any], agent: AgentState, observed: datetime
) -> Condition | None:
    if agent.commands is None:
        return held
    supported, reason = support(vmi, agent.commands)
    if supported:
        return None
    if held is not None and held.get("status") == "True":
        return held if held.get("reason") == reason else {**held, "reason": reason}
    return {
        "type": NOT_SUPPORTED,
        "status": "True",
        "lastProbeTime": rfc3339(observed),
        "lastTransitionTime": rfc3339(observed),
        "reason": reason,
    }


def _time(text: object) -> datetime | None:
    """None for null, for nothing, and for what is no time with a zone."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None
