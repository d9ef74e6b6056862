"""Changes in words: one short line per message, from its body and the one before."""

from __future__ import annotations

from collections.abc import Iterable

from guestwire import codec
from guestwire.change import Change
from guestwire.errors import ContractError
from guestwire.jetstream import Message
from guestwire.kinds import BODIES
from guestwire.machine import Clock, CpuStatsList, Disks, DiskStatsList, Load, Vcpus
from guestwire.snapshot import (
    AgentState,
    Body,
    FilesystemList,
    GuestOSInfo,
    Interfaces,
    Phase,
    UserList,
)
from guestwire.subjects import Address


class Narrator:
    """Remembers the last body per subject, so it can say what changed."""

    def __init__(self) -> None:
        self._last: dict[Address, Body] = {}

    def tell(self, message: Message) -> str:
        """What this message says, in one line; empty when there is nothing worth saying (a heartbeat)."""
        struct = BODIES.get(message.address.kind)
        if struct is None:
            return f"{len(message.body)} bytes"
        try:
            body = codec.decode(message.body, struct)
        except ContractError as error:
            return f"unreadable: {error}"
        before = self._last.get(message.address)
        self._last[message.address] = body
        return narrate(before, body)


def tell(change: Change) -> str:
    """What a change says, in one line; empty when there is nothing worth saying (a heartbeat)."""
    if not isinstance(change.new, Body):
        return f"{len(change.body)} bytes"
    before = change.old if isinstance(change.old, Body) and change.old_uid == change.uid else None
    return narrate(before, change.new)


def narrate(before: Body | None, body: Body) -> str:
    """What became of one body in the next of its kind; without one before, what it says."""
    match body:
        case AgentState():
            return _agent(before if isinstance(before, AgentState) else None, body)
        case UserList():
            old = before.items if isinstance(before, UserList) else None
            return _items(None if old is None else [u.user_name for u in old], [u.user_name for u in body.items])
        case FilesystemList():
            mounts = [fs.mount_point for fs in body.items]
            if isinstance(before, FilesystemList) and [fs.mount_point for fs in before.items] == mounts:
                return "usage " + ", ".join(
                    f"{new.mount_point} {_share(new.used_bytes, new.total_bytes)}"
                    for new, old in zip(body.items, before.items, strict=True)
                    if new != old
                )
            was = [fs.mount_point for fs in before.items] if isinstance(before, FilesystemList) else None
            return _items(was, mounts)
        case Interfaces():
            return _items(_addresses(before) if isinstance(before, Interfaces) else None, _addresses(body))
        case GuestOSInfo():
            return _guestosinfo(before if isinstance(before, GuestOSInfo) else None, body)
        case Disks():
            was = [disk.name for disk in before.disks] if isinstance(before, Disks) else None
            return _items(was, [disk.name for disk in body.disks])
    return _machine(body)


def _agent(before: AgentState | None, now: AgentState) -> str:
    if now.phase is Phase.GONE:
        return "guest is gone"
    words = [now.phase.value if before is None or before.phase != now.phase else ""]
    if before is None or before.connected != now.connected:
        version = f" (qemu-ga {now.version})" if now.version and now.connected else ""
        if now.channel:
            words.append(f"agent connected{version}" if now.connected else "agent not connected")
        else:
            words.append("no agent channel")
    if now.responsive is False and (before is None or before.responsive is not False):
        words.append(f"agent does not answer: {now.reason}")
    elif now.responsive and before is not None and before.responsive is False and before.connected:
        words.append("agent answers again")
    if (now.frozen or False) != (before is not None and before.frozen or False):  # noqa: RUF021
        words.append("filesystems frozen" if now.frozen else "filesystems thawed")
    return ", ".join(word for word in words if word)


def _items(before: Iterable[str] | None, now: Iterable[str]) -> str:
    """`+ came - went` where something was known before, else the list."""
    names = list(now)
    if before is None:
        return ", ".join(names) or "none"
    old = list(before)
    came = [f"+ {name}" for name in names if name not in old]
    went = [f"- {name}" for name in old if name not in names]
    return " ".join([*came, *went]) or ", ".join(names) or "none"


def _addresses(body: Interfaces) -> list[str]:
    return [
        f"{interface.name} {address.address}"
        for interface in body.guest or ()
        if interface.name != "lo"
        for address in interface.addresses
    ]


def _guestosinfo(before: GuestOSInfo | None, now: GuestOSInfo) -> str:
    if before is None:
        return f"{now.os.pretty_name or now.os.name or 'unknown OS'}, host {now.hostname or '-'}, {now.timezone}"
    changed = [name for name in now.__struct_fields__ if getattr(before, name) != getattr(now, name)]
    return "changed: " + ", ".join(changed) if changed else ""


def _machine(body: Body) -> str:
    """Of measurements, what they say by themselves."""
    match body:
        case Load():
            return f"load {body.load1m:.2f} {body.load5m:.2f} {body.load15m:.2f}"
        case Clock():
            return f"clock {body.offset:+.3f} s, within {body.uncertainty:.3f} s"
        case Vcpus():
            return f"{sum(vcpu.online for vcpu in body.vcpus)} of {len(body.vcpus)} vCPUs online"
        case CpuStatsList():
            return f"counters of {len(body.cpus)} CPUs"
        case DiskStatsList():
            return f"counters of {len(body.disks)} disks"
    return ""


def _share(used: int, total: int) -> str:
    return f"{100 * used // total} %" if total else "?"
