"""
What to write into a VMI's status: the decision, and the smallest JSON patch (RFC 6902) that carries it out.

Only fields of ours are ever touched: the agent's conditions, `guestOSInfo`, `interfaces` and `fsFreezeStatus`. Every
operation is guarded by `test` operations on what was read, so that a writer who was faster is noticed instead of
overwritten, and a VMI that was re-created under the same name is never mistaken for its predecessor (`metadata.uid`).

The same facts about the same VMI give the same decision, and applying a patch leaves nothing to patch.
Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from guestwire.settings import Status
from guestwire.snapshot import AgentState, GuestOSInfo, Interfaces
from status_writer import conditions
from status_writer.merge import merge

Vmi = Mapping[str, Any]
"""A VirtualMachineInstance as JSON."""

Operation = dict[str, Any]
Patch = list[Operation]

FROZEN = "frozen"


@dataclass(frozen=True)
class Facts:
    """What is known about a guest; None is unknown."""

    agent: AgentState | None = None
    observed: datetime | None = None
    """When the agent's state was last looked at."""
    interfaces: Interfaces | None = None
    told: frozenset[str] = frozenset()
    """Addresses that the agent told at some time; known only where `merge.doubtful` asks for it."""
    guestosinfo: GuestOSInfo | None = None


class Verdict(StrEnum):
    """Why there is something to write, or not."""

    WRITE = "write"
    UNCHANGED = "unchanged"
    UNKNOWN = "unknown"
    """Nothing was ever published about this guest."""
    FOREIGN = "foreign"
    """The facts are about another machine of that name."""
    NOT_RUNNING = "not running"


@dataclass(frozen=True)
class Decision:
    """What to do about a VMI."""

    verdict: Verdict
    patch: Patch = field(default_factory=list)
    again: float | None = None
    """Seconds after which the answer changes by itself: the end of the grace after a disconnect, or a connect."""
    cut: int = 0
    """Interfaces of the guest left out of the list."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the status that differ, as they should be; None means no such field."""

    def shown_by(self, vmi: Vmi) -> bool:
        """Whether a VMI says what the patch said: whether it had an effect."""
        status = vmi.get("status") or {}
        return all(value == (status.get(name) or None) for name, value in self.changes.items())

    @property
    def paths(self) -> list[str]:
        """What the patch changes, without the guards."""
        return [operation["path"] for operation in self.patch if operation["op"] != "test"]


def decide(vmi: Vmi, facts: Facts, now: datetime, settings: Status) -> Decision:
    """Compare what is known with what the VMI says."""
    agent = facts.agent
    if agent is None:
        return Decision(Verdict.UNKNOWN)
    if not is_about(agent, vmi):
        return Decision(Verdict.FOREIGN)
    status = vmi.get("status") or {}
    if status.get("phase") not in (None, "", "Running"):
        return Decision(Verdict.NOT_RUNNING)

    left = _grace_left(agent, now, settings)
    forget = left is not None and left <= 0
    merged = merge(vmi, facts.interfaces, told=facts.told, forget_guest=forget)
    if booting := _boots(agent, now, settings):
        shown = merge(vmi, facts.interfaces, told=facts.told, booting=True)
        left, merged = (booting if shown.entries != merged.entries else None), shown
    wanted: dict[str, Any] = {
        "conditions": conditions.reconcile(vmi, agent, facts.observed or now, settings.probe_refresh),
        "guestOSInfo": None if forget else _guest_os(status, facts.guestosinfo),
        "interfaces": merged.entries,
        "fsFreezeStatus": None if forget else _freeze_status(status, facts),
    }
    changes = {name: value or None for name, value in wanted.items() if (value or None) != (status.get(name) or None)}
    verdict = Verdict.WRITE if changes else Verdict.UNCHANGED
    again = left if left is not None and left > 0 else None
    return Decision(verdict, json_patch(vmi, changes), again, merged.cut, changes)


def is_about(agent: AgentState, vmi: Vmi) -> bool:
    """
    Whether a state record describes this VMI. KubeVirt's domains carry the VMI's uid. A plain domain has only its own
    UUID, which the VMI's spec may name (`domain.firmware.uuid`); where it does not, the name has to do.
    """
    if agent.uid != agent.domain_uuid:
        return bool(agent.uid == (vmi.get("metadata") or {}).get("uid"))
    domain = (vmi.get("spec") or {}).get("domain") or {}
    expected = (domain.get("firmware") or {}).get("uuid")
    return not expected or str(expected).casefold() == agent.domain_uuid.casefold()


def json_patch(vmi: Vmi, changes: Mapping[str, Any]) -> Patch:
    """Operations that bring fields of the status to these values; None means no such field. Guards come first."""
    if not changes:
        return []
    status = vmi.get("status")
    held: dict[str, Any] = {name: (status or {}).get(name) for name in changes}
    guards: Patch = [{"op": "test", "path": "/metadata/uid", "value": vmi["metadata"]["uid"]}]
    if status is None:
        present = {name: value for name, value in changes.items() if value is not None}
        return [*guards, _guard("/status", None), {"op": "add", "path": "/status", "value": present}]
    operations: Patch = []
    for name, value in changes.items():
        path = f"/status/{name}"
        guards.append(_guard(path, held[name]))
        if value is None:
            operations.append({"op": "remove", "path": path})
        elif name == "conditions" and held[name] and _tellable(held[name]):
            operations += _list_operations(path, held[name], value)
        else:
            operations.append({"op": "add" if held[name] is None else "replace", "path": path, "value": value})
    return guards + operations


def _list_operations(path: str, old: list[Any], new: list[Any]) -> Patch:
    """
    Element by element, for a list whose kept elements stay in order: changed in place, removed from the back so that
    the indexes before stay true, appended. Elements are told apart by `type`.
    """
    wanted = {element.get("type"): element for element in new}
    operations: Patch = []
    for index, element in reversed(list(enumerate(old))):
        held = wanted.pop(element.get("type"), None)
        if held is None:
            operations.append({"op": "remove", "path": f"{path}/{index}"})
        elif held != element:
            operations.append({"op": "replace", "path": f"{path}/{index}", "value": held})
    operations += [{"op": "add", "path": f"{path}/-", "value": element} for element in wanted.values()]
    return operations


def _tellable(elements: list[Any]) -> bool:
    return len({element.get("type") for element in elements}) == len(elements)


def _guard(path: str, value: Any) -> Operation:
    """That a value is as it was read; null stands for a field that was not there."""
    return {"op": "test", "path": path, "value": value}


def _grace_left(agent: AgentState, now: datetime, settings: Status) -> float | None:
    """Seconds until the facts of a disconnected agent go, negative when they should be gone; None: they stay."""
    if agent.connected or settings.keep:
        return None
    return (agent.since + timedelta(seconds=settings.grace) - now).total_seconds()


def _boots(agent: AgentState, now: datetime, settings: Status) -> float:
    """Seconds for which an agent that has just connected may not know all yet; 0 when it should."""
    since = (now - agent.since).total_seconds()
    return max(0.0, settings.grace - since) if agent.connected else 0.0


def _guest_os(status: Mapping[str, Any], known: GuestOSInfo | None) -> Any:
    """All eight fields, as soon as the agent told any of them; else what is there."""
    told = msgspec.to_builtins(known.os) if known else None
    return told or status.get("guestOSInfo")


def _freeze_status(status: Mapping[str, Any], facts: Facts) -> Any:
    """`frozen` is shown, thawed is not (pkg/virt-handler/vm.go updateFSFreezeStatus), unknown changes nothing."""
    if facts.agent is not None and facts.agent.frozen is not None:
        return FROZEN if facts.agent.frozen else None
    told = facts.guestosinfo.fs_freeze_status if facts.guestosinfo else ""
    if not told:
        return status.get("fsFreezeStatus")
    return None if told == "thawed" else told
