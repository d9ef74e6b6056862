"""
Snapshots to JetStream: what changed, once, in order, fenced.

A message goes out when its body's digest differs from that of the subject's last message. Each is published on the
condition that the subject's last sequence is the known one (`publishers.ledger`): during a live migration two hosts see
the same guest, and the loser must notice.

What is ready at the same moment goes out as one atomic batch (`publishers.atomic`): all facts of one look at a guest,
and in a burst those of many guests, while the batches before are on their way. A batch that is refused, or of which
nothing was heard, is sent again message by message. A retry carries the same message id, so a lost acknowledgement
makes no double. While NATS is away only the newest snapshot per guest is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import nats.errors
import nats.js.errors

from guestwire import client, codec
from guestwire.errors import NotConnected
from guestwire.jetstream import Bus, translated
from guestwire.logs import logger
from guestwire.pending import Pending
from guestwire.settings import Publish
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot, Kind, Phase
from publishers import metrics
from publishers.atomic import Batch, Refused
from publishers.ledger import Last, Ledger, Outgoing, is_gone

log = logger("publisher")

WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code for an expectation that does not hold (JSStreamWrongLastSequenceErrF)."""
RETRY = 1.0
"""Seconds until a guest is tried again while NATS does not answer."""


MOST_GUESTS = 256
"""In one batch."""


class Fenced(Exception):  # noqa: N818 - an outcome, handled in this module
    """Someone else published this kind meanwhile."""


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
        self._away = False

    def offer(self, snapshot: GuestSnapshot) -> None:
        """Publish what is new in it, soon; a newer offer for the same guest replaces it."""
        self._latest[snapshot.ref] = snapshot
        self._pending.add(snapshot.ref)
        metrics.PENDING.set(len(self._pending))

    async def settled(self, ref: GuestRef) -> dict[str, int]:
        """Wait until all that was offered about a guest is published; the revision of each kind."""
        while ref in self._latest or ref in self._publishing:
            done = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(ref, []).append(done)
            await done
        return self.revisions(ref)

    def revisions(self, ref: GuestRef) -> dict[str, int]:
        """The revision of each kind that is known to be on the stream."""
        return {kind: last.revision for kind, last in (self._ledger.page(ref) or {}).items()}

    def forget(self, ref: GuestRef) -> None:
        """Nothing more will come about this guest from here: it is on another host."""
        self._latest.pop(ref, None)
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
        """In one batch what is ready at the same time; one by one what was refused, does not fit, or is alone."""
        self._publishing.update(refs)
        try:
            left = await self._publish_together(refs)
            pauses = await asyncio.gather(*map(self._publish_latest, left))
            return {ref: pause for ref, pause in zip(left, pauses, strict=True) if pause is not None}
        finally:
            metrics.PENDING.set(len(self._pending))
            self._publishing.difference_update(refs)
            for ref in refs:
                for done in self._waiting.pop(ref, []):
                    if not done.done():
                        done.set_result(None)

    async def _publish_together(self, refs: list[GuestRef]) -> list[GuestRef]:
        """Publish what can be, all or nothing; the guests that are left."""
        if not self._bus.atomic:
            return refs
        try:
            await asyncio.gather(*(self._ledger.load(ref) for ref in refs if ref not in self._ledger))
        except NotConnected:
            return refs
        news = {ref: self._ledger.news(self._latest[ref]) for ref in refs if ref in self._latest}
        if sum(map(len, news.values())) < 2:
            return refs  # before anything is made that would be made again
        batch, inside = Batch(self._bus), dict[GuestRef, GuestSnapshot]()
        for ref, parts in news.items():
            if batch.add([self._ledger.message(self._latest[ref], part) for part in parts]):
                inside[ref] = self._latest.pop(ref)
        pages = {ref: self._ledger.page(ref) for ref in inside}
        try:
            await batch.publish()
        except (Refused, NotConnected) as error:
            log.debug("batch was not taken", guests=len(inside), error=str(error))
            for ref, snapshot in inside.items():
                self._keep(snapshot, pages[ref])
            return refs
        self._away = self._away and not inside
        for snapshot in inside.values():
            self._close_page(snapshot)
        return [ref for ref in refs if ref not in inside]

    # --- one guest ---------------------------------------------------------------------------------------------

    async def _publish_latest(self, ref: GuestRef) -> float | None:
        snapshot = self._latest.pop(ref, None)
        if snapshot is None:
            return None
        page = None
        try:
            if ref not in self._ledger:
                await self._ledger.load(ref)
            page = self._ledger.page(ref)
            for part in self._ledger.news(snapshot):
                if self._ledger.page(ref) is not page:
                    return None  # forgotten meanwhile: it is another host's to tell
                message = self._ledger.message(snapshot, part)
                message.sent(await self._acknowledged(message))
        except NotConnected as error:
            if not self._away:
                log.warning("cannot publish, keeping the newest snapshot of each guest", error=str(error))
            self._away = True
            metrics.RETRIES.inc()
            self._keep(snapshot, page)
            return RETRY
        except Fenced as fenced:
            metrics.FENCED.inc()
            return await self._step_back(snapshot, str(fenced))
        self._away = False
        self._close_page(snapshot)
        return None

    def _keep(self, snapshot: GuestSnapshot, page: dict[str, Last] | None) -> None:
        """Try again later, unless there is a newer one, or the guest was forgotten meanwhile."""
        if page is None or self._ledger.page(snapshot.ref) is page:
            self._latest.setdefault(snapshot.ref, snapshot)

    def _close_page(self, snapshot: GuestSnapshot) -> None:
        """After a guest's last word nothing more is known about it."""
        if is_gone(snapshot.parts[0].body):
            self._ledger.forget(snapshot.ref)

    async def _acknowledged(self, message: Outgoing) -> int | None:
        """The message's revision; None when the server takes no message of this size."""
        if not self._bus.connected:  # nats-py would keep what it cannot send, and send it late
            raise NotConnected("not connected")
        try:
            with translated(f"publish {message.subject}"), metrics.SECONDS.time():
                ack = await self._bus.js.publish(
                    message.subject,
                    message.part.body,
                    stream=self._bus.settings.stream,
                    headers=dict(message.headers),
                    timeout=self._bus.settings.timeout,
                )
        except NotConnected as error:
            match error.__cause__:
                case nats.js.errors.APIError(err_code=code) if code == WRONG_LAST_SEQUENCE:
                    raise Fenced(message.part.kind) from error
                case nats.errors.MaxPayloadError():
                    log.error(  # noqa: TRY400
                        "message is larger than the NATS server takes",
                        subject=message.subject,
                        bytes=len(message.part.body),
                    )
                    metrics.TOO_LARGE.inc()
                    return None
            raise
        metrics.PUBLISHED.labels(message.part.kind).inc()
        log.debug("published", subject=message.subject, revision=ack.seq)
        return int(ack.seq)

    async def _step_back(self, snapshot: GuestSnapshot, kind: str) -> float | None:
        """
        Another message came in between. If it was our own (sent before a lost connection, acknowledged after it), go
        on from there. Else another host runs the guest now, or seems to: drop the snapshot, and look again.
        """
        ref = snapshot.ref
        self._ledger.forget(ref)
        try:
            messages = await self._ledger.load(ref)
        except NotConnected:
            messages = {}  # whose message it was cannot be told: look again rather than overwrite it
        if kind in messages and messages[kind].event.host == snapshot.host:
            self._latest.setdefault(ref, snapshot)
            return 0
        log.info("another publisher was faster", guest=str(ref), kind=kind)
        self._latest.pop(ref, None)  # offered while this looked, so known before
        self.on_fenced(ref)
        return None
