"""
Snapshots to JetStream: what changed, once, in order, fenced.

A message goes out when its body's digest differs from that of the subject's last message. Each is published on the
condition that the subject's last sequence is the known one (`publishers.ledger`): during a live migration two hosts see
the same guest, and the loser must notice.

What one look at a guest found goes out together: several facts as an atomic batch (`publishers.atomic`), in a burst
with those of other guests; a single fact as a single message (`publishers.single`), in a burst with those of other
guests on their way at the same time. A batch that is refused, or of which nothing was heard, is sent again message by
message. A retry carries the same message id, so a lost acknowledgement makes no double. A guest's messages never
overtake each other: the next is sent when the one before it is settled. While NATS is away only the newest snapshot per
guest is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator

import msgspec

from guestwire import client, codec
from guestwire.errors import NotConnected
from guestwire.jetstream import Bus, Message
from guestwire.last_word import is_gone
from guestwire.logs import logger
from guestwire.pending import Pending
from guestwire.settings import Publish
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot, Kind, Part, Phase
from publishers import metrics, single
from publishers.atomic import Batch, Refused
from publishers.ledger import Ledger, Page
from publishers.single import Outcome, TooLarge

log = logger("publisher")

RETRY = 1.0
"""Seconds until a guest is tried again while NATS does not answer."""

MOST_GUESTS = 256
"""At once: in one batch, or in one round of single messages."""
MOST_BYTES = 4 * 1024 * 1024
"""Bodies on their way at once, in one round of single messages."""


class JetStreamPublisher:
    """`offer` snapshots from the event loop, `run` until `close`d and drained."""

    def __init__(self, bus: Bus, cluster: str, settings: Publish) -> None:
        self.on_fenced: Callable[[GuestRef], None] = lambda _ref: None
        """Called when another host has published about a guest; look whether it is still here."""
        self._bus = bus
        self._cluster = cluster
        self._settings = settings
        self._ledger = Ledger(bus, cluster, settings)
        self._pending: Pending[GuestRef] = Pending()
        self._latest: dict[GuestRef, GuestSnapshot] = {}
        self._publishing: set[GuestRef] = set()
        self._waiting: dict[GuestRef, list[asyncio.Future[None]]] = {}
        self._doubtful: dict[GuestRef, str] = {}
        """Guests of which somebody published this kind in between: to be looked into before anything is said."""
        self._away = False
        metrics.PENDING.set_function(self._pending.__len__)

    def offer(self, snapshot: GuestSnapshot) -> None:
        """Publish what is new in it, soon; a newer offer for the same guest replaces it."""
        self._latest[snapshot.ref] = snapshot
        self._pending.add(snapshot.ref)

    async def settled(self, ref: GuestRef) -> dict[str, int]:
        """Wait until all that was offered about a guest is published; the revision of each kind."""
        while ref in self._latest or ref in self._publishing:
            done = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(ref, []).append(done)
            await done
        return self.revisions(ref)

    def revisions(self, ref: GuestRef) -> dict[str, int]:
        """The revision of each kind that is known to be on the stream."""
        return {kind: last.revision for kind, last in self._ledger.last(ref).items()}

    def forget(self, ref: GuestRef) -> None:
        """Nothing more will come about this guest from here: it is on another host."""
        self._latest.pop(ref, None)
        self._doubtful.pop(ref, None)
        self._pending.forget(ref)
        self._ledger.forget(ref)

    def close(self) -> None:
        """No more offers; `run` ends when all are published."""
        self._pending.close()

    async def run(self) -> None:
        """Publish until closed and drained."""
        await self._pending.work_many(self._settings.workers, MOST_GUESTS, self._publish)

    async def recall(self, ref: GuestRef) -> dict[str, bytes]:
        """The last published bodies about a guest, by kind. Raises NotConnected."""
        messages = await self._ledger.load(ref)
        return {kind: message.body for kind, message in messages.items()}

    async def recall_hosts(self, names: Collection[str]) -> list[AgentState]:
        """The last agent records that hosts of those names published, the gone ones left out. Raises NotConnected."""
        found = []
        async for message in client.follow(self._bus, cluster=self._cluster, kind=Kind.AGENT, live=False):
            if message.event.host in names:
                agent = codec.decode(message.body, AgentState)
                if agent.phase is not Phase.GONE:
                    found.append(agent)
        return found

    # --- some guests -------------------------------------------------------------------------------------------

    async def _publish(self, refs: list[GuestRef]) -> dict[GuestRef, float]:
        """In batches what belongs together; one by one what was refused, does not fit, or is alone."""
        self._publishing.update(refs)
        try:
            try:
                await self._catch_up(refs)
            except NotConnected as error:
                return {ref: self._later(self._latest[ref], None, error) for ref in refs if ref in self._latest}
            looks = [look for ref in refs if (look := self._look(ref))]
            if self._bus.atomic:
                await self._publish_together([look for look in looks if len(look.parts) > 1])
            return await self._publish_singly(looks)
        finally:
            self._publishing.difference_update(refs)
            for ref in self._waiting.keys() & refs:
                for done in self._waiting.pop(ref, []):
                    if not done.done():
                        done.set_result(None)

    async def _catch_up(self, refs: list[GuestRef]) -> None:
        """Read what is not known of the stream. Raises NotConnected."""
        unknown = [ref for ref in refs if ref not in self._ledger or ref in self._doubtful]
        for ref, messages in (await self._ledger.load_all(unknown)).items():
            kind, snapshot, told = self._doubtful.pop(ref, None), self._latest.get(ref), messages.get(Kind.AGENT)
            if kind and snapshot:
                self._step_back(ref, kind, messages.get(kind))
            elif snapshot and told and told.event.host != snapshot.host and _is_last_word(snapshot):
                log.info("guest is on another host by now", guest=str(ref), host=told.event.host)
                self.forget(ref)  # who told of it last has it, and is right

    def _look(self, ref: GuestRef) -> _Look | None:
        """What there is to say. A guest without a page was forgotten and offered again: its key comes again."""
        page = self._ledger.page(ref)
        snapshot = self._latest.pop(ref, None) if page else None
        return _Look(snapshot, page, self._ledger.news(page, snapshot)) if page and snapshot else None

    async def _publish_together(self, looks: list[_Look]) -> None:
        """In batches, each all or nothing, until one is not taken."""
        while looks:
            batch, inside, outside = Batch(self._bus), list[_Look](), list[_Look]()
            for look in looks:
                fits = batch.add([self._ledger.message(look.page, look.snapshot, part) for part in look.parts])
                (inside if fits else outside).append(look)
            try:
                await batch.publish()
            except (Refused, NotConnected) as error:
                log.debug("batch was not taken", guests=len(inside), error=str(error))
                return
            if not inside:
                return
            self._there()
            for look in inside:
                look.parts.clear()
            looks = [look for look in outside if self._is_ours(look)]

    async def _publish_singly(self, looks: list[_Look]) -> dict[GuestRef, float]:
        """
        A message about each guest at a time, those of many guests at once; the guests to be tried again, and in how
        many seconds.
        """
        pauses: dict[GuestRef, float] = {}
        for look in looks:
            if not look.parts:
                self._close_page(look.snapshot)
        looks = [look for look in looks if look.parts]
        while looks:
            for some in _by_size(looks):
                ours = [look for look in some if self._is_ours(look)]
                messages = [self._ledger.message(look.page, look.snapshot, look.parts[0]) for look in ours]
                outcomes = await single.publish(self._bus, messages)
                if None in outcomes:
                    self._there()
                for look, outcome in zip(ours, outcomes, strict=True):
                    pause = self._settle(look, outcome)
                    if pause is not None:
                        pauses[look.snapshot.ref] = pause
            looks = [look for look in looks if look.parts and self._is_ours(look)]
        return pauses

    def _is_ours(self, look: _Look) -> bool:
        """False when the guest was forgotten meanwhile: it is another host's to tell."""
        return self._ledger.page(look.snapshot.ref) is look.page

    def _settle(self, look: _Look, outcome: Outcome) -> float | None:
        """What follows from what became of a message; seconds until the guest is to be tried again."""
        if outcome is None or isinstance(outcome, TooLarge):
            del look.parts[0]
            if not look.parts:
                self._close_page(look.snapshot)
            return None
        look.parts.clear()
        if isinstance(outcome, NotConnected):
            return self._later(look.snapshot, look.page, outcome)
        metrics.FENCED.inc()
        self._doubtful[look.snapshot.ref] = str(outcome)
        self._keep(look.snapshot, look.page)
        self._ledger.forget(look.snapshot.ref)
        return 0

    # --- one guest ---------------------------------------------------------------------------------------------

    def _step_back(self, ref: GuestRef, kind: str, last: Message | None) -> None:
        """
        Another message came in between. If it was our own (sent before a lost connection, acknowledged after it), go
        on from there. Else another host runs the guest now, or seems to: drop the snapshot, and look again.
        """
        if last is None or last.event.host != self._latest[ref].host:
            log.info("another publisher was faster", guest=str(ref), kind=kind)
            del self._latest[ref]
            self.on_fenced(ref)

    def _later(self, snapshot: GuestSnapshot, page: Page | None, error: NotConnected) -> float:
        """Keep it while NATS does not answer; seconds until it is tried again."""
        if not self._away:
            log.warning("cannot publish, keeping the newest snapshot of each guest", error=str(error))
        self._away = True
        self._bus.isolation.failed(error)
        metrics.RETRIES.inc()
        self._keep(snapshot, page)
        return RETRY

    def _there(self) -> None:
        """NATS has answered."""
        self._away = False
        self._bus.isolation.answered()

    def _keep(self, snapshot: GuestSnapshot, page: Page | None) -> None:
        """Try again later, unless there is a newer one, or the guest was forgotten meanwhile."""
        if page is None or self._ledger.page(snapshot.ref) is page:
            self._latest.setdefault(snapshot.ref, snapshot)

    def _close_page(self, snapshot: GuestSnapshot) -> None:
        """After a guest's last word nothing more is known about it."""
        if _is_last_word(snapshot):
            self._ledger.forget(snapshot.ref)


class _Look(msgspec.Struct, gc=False):
    """A snapshot on its way: what of it is still to be said, and the page that this follows."""

    snapshot: GuestSnapshot
    page: Page
    parts: list[Part]


def _is_last_word(snapshot: GuestSnapshot) -> bool:
    first = snapshot.parts[0]
    return first.kind == Kind.AGENT and Phase.GONE.encode() in first.body and is_gone(first.body)


def _by_size(looks: list[_Look]) -> Iterator[list[_Look]]:
    """In rounds of bounded size, by what each has to say first."""
    some: list[_Look] = []
    size = 0
    for look in looks:
        if some and size + len(look.parts[0].body) > MOST_BYTES:
            yield some
            some, size = [], 0
        some.append(look)
        size += len(look.parts[0].body)
    if some:
        yield some
