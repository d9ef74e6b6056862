"""
What the stream holds last about each guest, as far as this publisher knows.

It decides what is news, and it is the fence: every message names the revision that it follows. Before anything is said
about a guest its last messages are read back from the stream, so a restart repeats nothing.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from guestwire import codec, subjects
from guestwire.errors import ContractError
from guestwire.jetstream import Bus, Message
from guestwire.settings import Publish
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot, Kind, Part, Phase


class Last(msgspec.Struct):
    """What the stream holds last for a subject; revision 0 means nothing."""

    revision: int = 0
    digest: str = ""
    uid: str = ""
    sent: float = 0.0
    """Seconds since the epoch."""


class Outgoing(msgspec.Struct, frozen=True):
    """A message ready to be sent, and the page it belongs to."""

    page: dict[str, Last]
    part: Part
    uid: str
    subject: str
    headers: dict[str, str]

    def sent(self, revision: int | None) -> None:
        """It is on the stream; None when the server takes no message of this size, and it is not tried again."""
        last = self.page[self.part.kind]
        revision = last.revision if revision is None else revision
        self.page[self.part.kind] = Last(revision, self.part.digest, self.uid, self.part.observed_at.timestamp())


class Ledger:
    """A page per guest: the last message of each kind."""

    def __init__(self, bus: Bus, cluster: str, settings: Publish) -> None:
        self._bus = bus
        self._cluster = cluster
        self._heartbeat = settings.heartbeat
        self._pages: dict[GuestRef, dict[str, Last]] = {}

    def __contains__(self, ref: GuestRef) -> bool:
        return ref in self._pages

    def page(self, ref: GuestRef) -> dict[str, Last] | None:
        """The page of a guest; another object once it was forgotten meanwhile."""
        return self._pages.get(ref)

    def forget(self, ref: GuestRef) -> None:
        """Know nothing of a guest any more."""
        self._pages.pop(ref, None)

    async def load(self, ref: GuestRef) -> dict[str, Message]:
        """Read a guest's page from the stream; the messages on it by kind. Raises NotConnected."""
        messages = await self._bus.last(self._cluster, ref)
        page = self._pages.setdefault(ref, {})
        for kind, message in messages.items():
            try:
                digest = codec.digest_of_message(kind, message.body)
            except ContractError:
                digest = ""  # written by something else: whatever we have to say replaces it
            page[kind] = Last(message.revision, digest, message.event.uid, message.event.time.timestamp())
        if Kind.AGENT in messages and is_gone(messages[Kind.AGENT].body):
            # Readers have forgotten all about this guest: should it return, everything is news.
            page |= {kind: Last(last.revision) for kind, last in page.items() if kind != Kind.AGENT}
        return messages

    def news(self, snapshot: GuestSnapshot) -> list[Part]:
        """The parts that the stream does not hold yet; none of a guest without a page."""
        page = self._pages.get(snapshot.ref)
        if page is None:
            return []
        return [
            part for part in snapshot.parts if self._differs(page.setdefault(part.kind, Last()), part, snapshot.uid)
        ]

    def message(self, snapshot: GuestSnapshot, part: Part) -> Outgoing:
        """A part of a snapshot as it goes out, after what its page holds now."""
        page = self._pages[snapshot.ref]
        last = page[part.kind]
        subject = subjects.subject(self._cluster, snapshot.ref, part.kind)
        # The same reading sent again is the same message; the same value after another one, or a heartbeat, is not.
        what = f"{subject} {last.revision} {part.digest} {part.observed_at}"
        headers = codec.event_headers(
            ref=snapshot.ref,
            uid=snapshot.uid,
            cluster=self._cluster,
            host=snapshot.host,
            part=part,
            message_id=blake2b(what.encode(), digest_size=16).hexdigest(),
            trace_id=snapshot.trace_id,
        )
        headers["Nats-Expected-Last-Subject-Sequence"] = str(last.revision)
        return Outgoing(page, part, snapshot.uid, subject, headers)

    def _differs(self, last: Last, part: Part, uid: str) -> bool:
        if (part.digest, uid) != (last.digest, last.uid):
            return True
        return part.kind == Kind.AGENT and part.observed_at.timestamp() - last.sent >= self._heartbeat


def is_gone(body: bytes) -> bool:
    """Whether an agent record is a guest's last word."""
    try:
        return codec.decode(body, AgentState).phase is Phase.GONE
    except ContractError:
        return False
