"""A guest's last word: the agent record that says that it exists no more. Whoever reads it forgets the guest."""

from __future__ import annotations

from datetime import datetime

import msgspec

from guestwire import codec
from guestwire.errors import ContractError
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot, Kind, Phase


def gone(agent: AgentState, trace_id: str, now: datetime) -> GuestSnapshot:
    """The last word about a guest that no longer exists: a marker in place of its agent record."""
    last = msgspec.structs.replace(
        agent, phase=Phase.GONE, connected=False, since=now, responsive=None, reason="", readings={}
    )
    return GuestSnapshot(
        GuestRef(agent.namespace, agent.name), agent.uid, agent.host, (codec.part(Kind.AGENT, last, now),), trace_id
    )


def is_gone(body: bytes) -> bool:
    """Whether an agent record is a guest's last word."""
    try:
        return codec.decode(body, AgentState).phase is Phase.GONE
    except ContractError:
        return False
