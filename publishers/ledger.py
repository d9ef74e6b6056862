"""
What the stream holds last about each guest, as far as this publisher knows.

It decides what is news, and it is the fence: every message names the revision that it follows. Before anything is said
about a guest its last messages are read back from the stream, so a restart repeats nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b

import msgspec

from guestwire import codec, subjects
from guestwire.errors import ContractError
from guestwire.jetstream import Bus, Message
from guestwire.last_word import is_gone
from guestwire.settings import Publish
from guestwire.snapshot import BEGINNING, GuestRef, GuestSnapshot, Kind, Part
from guestwire.wire import Content

GUESTS_PER_REQUEST = 32
"""The server answers 413 where one request finds more than 1,024 messages; a guest has as many as there are kinds."""


class Last(msgspec.Struct, gc=False):
    """What the stream holds last for a subject; revision 0 means nothing."""

    revision: int = 0
    digest: str = ""
    uid: str = ""
    time: datetime = BEGINNING
    """When it was observed."""


UNKNOWN = Last()
"""Nothing is on the stream."""


class Page(msgspec.Struct, gc=False):
    """What the ledger knows about a guest."""

    subject: str
    """Of all its messages, up to the kind."""
    last: dict[str, Last] = {}
    """By kind."""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A message ready to be sent, and the page it belongs to."""

    page: Page
    part: Part
    uid: str
    content: Content

    @property
    def subject(self) -> str:
        """Where it goes."""
        return self.content.subject

    def sent(self, revision: int | None) -> None:
        """It is on the stream; None when the server takes no message of this size, and it is not tried again."""
        part, last = self.part, self.page.last
        revision = last.get(part.kind, UNKNOWN).revision if revision is None else revision
        last[part.kind] = Last(revision, part.digest, self.uid, part.observed_at)


class Ledger:
    """A page per guest: the last message of each kind."""

    def __init__(self, bus: Bus, cluster: str, settings: Publish) -> None:
        self._bus = bus
        self._cluster = cluster
        self._heartbeat = settings.heartbeat
        self._pages: dict[GuestRef, Page] = {}

    def __contains__(self, ref: GuestRef) -> bool:
        return ref in self._pages

    def page(self, ref: GuestRef) -> Page | None:
        """The page of a guest; another object once it was forgotten meanwhile."""
        return self._pages.get(ref)

    def last(self, ref: GuestRef) -> dict[str, Last]:
        """What is on a guest's page, by kind."""
        page = self._pages.get(ref)
        return page.last if page else {}

    def forget(self, ref: GuestRef) -> None:
        """Know nothing of a guest any more."""
        self._pages.pop(ref, None)

    async def load(self, ref: GuestRef) -> dict[str, Message]:
        """Read a guest's page from the stream; the messages on it by kind. Raises NotConnected."""
        messages = await self._bus.last(self._cluster, ref)
        self._open_page(ref, messages)
        return messages

    async def load_all(self, refs: Sequence[GuestRef]) -> dict[GuestRef, dict[str, Message]]:
        """The same for some guests, several by one request. Raises NotConnected."""
        found: dict[GuestRef, dict[str, Message]] = {ref: {} for ref in refs}
        for first in range(0, len(refs), GUESTS_PER_REQUEST):
            some = refs[first : first + GUESTS_PER_REQUEST]
            request = {"multi_last": [subjects.of_guest(self._cluster, ref) for ref in some]}
            for message in await self._bus.get(request, f"last messages of {len(some)} guests"):
                found[message.address.ref][message.address.kind] = message
        for ref, messages in found.items():
            self._open_page(ref, messages)
        return found

    def _open_page(self, ref: GuestRef, messages: Mapping[str, Message]) -> None:
        page = self._pages.get(ref)
        if page is None:
            page = self._pages[ref] = Page(subjects.of_guest(self._cluster, ref).removesuffix("*"))
        for kind, message in messages.items():
            try:
                digest = codec.digest_of_message(kind, message.body)
            except ContractError:
                digest = ""  # written by something else: whatever we have to say replaces it
            page.last[kind] = Last(message.revision, digest, message.event.uid, message.event.time)
        if Kind.AGENT in messages and is_gone(messages[Kind.AGENT].body):
            # Readers have forgotten all about this guest: should it return, everything is news.
            page.last |= {kind: Last(last.revision) for kind, last in page.last.items() if kind != Kind.AGENT}

    def news(self, page: Page, snapshot: GuestSnapshot) -> list[Part]:
        """The parts that the stream does not hold yet."""
        last, uid = page.last, snapshot.uid
        return [part for part in snapshot.parts if self._differs(last.get(part.kind, UNKNOWN), part, uid)]

    def message(self, page: Page, snapshot: GuestSnapshot, part: Part) -> Outgoing:
        """A part of a snapshot as it goes out, after what its page holds now."""
        last = page.last.get(part.kind, UNKNOWN)
        subject = page.subject + subjects.encode_token(part.kind)
        # The same reading sent again is the same message; the same value after another one, or a heartbeat, is not.
        time = codec.timestamp(part.observed_at)
        what = f"{subject} {last.revision} {part.digest} {time}"
        message_id = blake2b(what.encode(), digest_size=16).hexdigest()
        lines = codec.event_lines(
            ref=snapshot.ref,
            uid=snapshot.uid,
            cluster=self._cluster,
            host=snapshot.host,
            kind=part.kind,
            time=time,
            message_id=message_id,
            trace=codec.traceparent(snapshot.trace_id, message_id[:16]),
        )
        fence = (
            f"Nats-Expected-Stream: {self._bus.settings.stream}\r\n"
            f"Nats-Expected-Last-Subject-Sequence: {last.revision}\r\n"
        )
        return Outgoing(page, part, snapshot.uid, Content(subject, lines + fence, part.body))

    def _differs(self, last: Last, part: Part, uid: str) -> bool:
        if part.digest != last.digest or uid != last.uid:
            return True
        return part.kind == Kind.AGENT and (part.observed_at - last.time).total_seconds() >= self._heartbeat
