"""
Snapshots to JetStream: what changed, once, in order, fenced.

A message goes out when its body's digest differs from that of the subject's last message, which is read from the stream
when a guest is first seen; so a restart repeats nothing. Each is published on the condition that the subject's last
sequence is the known one: during a live migration two hosts see the same guest, and the loser must notice.

While NATS is away only the newest snapshot per guest is kept. A retry carries the same message id, so a lost
acknowledgement makes no double.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from hashlib import blake2b
from typing import Any

import msgspec
import nats.errors
import nats.js.errors

from guestwire import client, codec, subjects
from guestwire.errors import ContractError, NotConnected
from guestwire.jetstream import Bus, Message, translated
from guestwire.logs import logger
from guestwire.pending import Pending
from guestwire.settings import Publish
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot, Kind, Part, Phase
from publishers import metrics

log = logger("publisher")

WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code for an expectation that does not hold (JSStreamWrongLastSequenceErrF)."""
RETRY = 1.0
"""Seconds until a guest is tried again while NATS does not answer."""


class Last(msgspec.Struct):
    """What the stream holds last for a subject; revision 0 means nothing."""

    revision: int = 0
    digest: str = ""
    uid: str = ""
    sent: float = 0.0
    """Seconds since the epoch."""


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
        self._pending: Pending[GuestRef] = Pending()
        self._latest: dict[GuestRef, GuestSnapshot] = {}
        self._last: dict[GuestRef, dict[str, Last]] = {}
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
        return {kind: last.revision for kind, last in self._last.get(ref, {}).items()}

    def forget(self, ref: GuestRef) -> None:
        """Nothing more will come about this guest from here: it is on another host."""
        self._latest.pop(ref, None)
        self._pending.forget(ref)
        self._last.pop(ref, None)

    def close(self) -> None:
        """No more offers; `run` ends when all are published."""
        self._pending.close()

    async def run(self) -> None:
        """Publish until closed and drained."""
        await self._pending.work(self._settings.workers, self._publish)

    async def recall(self, ref: GuestRef) -> dict[str, bytes]:
        """The last published bodies about a guest, by kind. Raises NotConnected."""
        messages = await self._load(ref)
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

    # --- one guest ---------------------------------------------------------------------------------------------

    async def _publish(self, ref: GuestRef) -> float | None:
        self._publishing.add(ref)
        try:
            return await self._publish_latest(ref)
        finally:
            self._publishing.discard(ref)
            for done in self._waiting.pop(ref, []):
                if not done.done():
                    done.set_result(None)

    async def _publish_latest(self, ref: GuestRef) -> float | None:
        snapshot = self._latest.pop(ref, None)
        if snapshot is None:
            return None
        try:
            if ref not in self._last:
                await self._load(ref)
            known = self._last[ref]
            for part in snapshot.parts:
                if self._last.get(ref) is not known:
                    return None  # forgotten meanwhile: it is another host's to tell
                if self._differs(known.setdefault(part.kind, Last()), part, snapshot.uid):
                    await self._send(snapshot, part, known)
        except NotConnected as error:
            if not self._away:
                log.warning("cannot publish, keeping the newest snapshot of each guest", error=str(error))
            self._away = True
            metrics.RETRIES.inc()
            self._latest.setdefault(ref, snapshot)
            return RETRY
        except Fenced as fenced:
            metrics.FENCED.inc()
            return await self._step_back(snapshot, str(fenced))
        self._away = False
        if _is_gone(snapshot.parts[0].body):
            self._last.pop(ref, None)
        metrics.PENDING.set(len(self._pending))
        return None

    def _differs(self, last: Last, part: Part, uid: str) -> bool:
        if (part.digest, uid) != (last.digest, last.uid):
            return True
        return part.kind == Kind.AGENT and part.observed_at.timestamp() - last.sent >= self._settings.heartbeat

    async def _send(self, snapshot: GuestSnapshot, part: Part, known: dict[str, Last]) -> None:
        ref, last = snapshot.ref, known[part.kind]
        subject = subjects.subject(self._cluster, ref, part.kind)
        # The same reading sent again is the same message; the same value after another one, or a heartbeat, is not.
        what = f"{subject} {last.revision} {part.digest} {part.observed_at}"
        message_id = blake2b(what.encode(), digest_size=16).hexdigest()
        headers = codec.event_headers(
            ref=ref,
            uid=snapshot.uid,
            cluster=self._cluster,
            host=snapshot.host,
            part=part,
            message_id=message_id,
            trace_id=snapshot.trace_id,
        )
        headers["Nats-Expected-Last-Subject-Sequence"] = str(last.revision)
        with metrics.SECONDS.time():
            revision = await self._acknowledged(subject, part.body, headers)
        if revision is None:  # too large for this server: said once, and not tried again until it changes
            revision = last.revision
        else:
            metrics.PUBLISHED.labels(part.kind).inc()
            log.debug("published", subject=subject, revision=revision)
        known[part.kind] = Last(revision, part.digest, snapshot.uid, part.observed_at.timestamp())

    async def _acknowledged(self, subject: str, body: bytes, headers: dict[str, Any]) -> int | None:
        """The message's revision; None when the server takes no message of this size."""
        if not self._bus.connected:  # nats-py would keep what it cannot send, and send it late
            raise NotConnected("not connected")
        try:
            with translated(f"publish {subject}"):
                try:
                    ack = await self._bus.js.publish(
                        subject,
                        body,
                        stream=self._bus.settings.stream,
                        headers=headers,
                        timeout=self._bus.settings.timeout,
                    )
                except nats.js.errors.APIError as error:
                    if error.err_code == WRONG_LAST_SEQUENCE:
                        raise Fenced(subject.rpartition(".")[2]) from error
                    raise
        except NotConnected as error:
            if not isinstance(error.__cause__, nats.errors.MaxPayloadError):
                raise
            log.error("message is larger than the NATS server takes", subject=subject, bytes=len(body))  # noqa: TRY400
            metrics.TOO_LARGE.inc()
            return None
        return int(ack.seq)

    async def _step_back(self, snapshot: GuestSnapshot, kind: str) -> float | None:
        """
        Another message came in between. If it was our own (sent before a lost connection, acknowledged after it), go
        on from there. Else another host runs the guest now, or seems to: drop the snapshot, and look again.
        """
        ref = snapshot.ref
        self._last.pop(ref, None)
        try:
            messages = await self._load(ref)
        except NotConnected:
            messages = {}  # whose message it was cannot be told: look again rather than overwrite it
        if kind in messages and messages[kind].event.host == snapshot.host:
            self._latest.setdefault(ref, snapshot)
            return 0
        log.info("another publisher was faster", guest=str(ref), kind=kind)
        self._latest.pop(ref, None)  # offered while this looked, so known before
        self.on_fenced(ref)
        return None

    async def _load(self, ref: GuestRef) -> dict[str, Message]:
        messages = await self._bus.last(self._cluster, ref)
        known = self._last.setdefault(ref, {})
        for kind, message in messages.items():
            try:
                digest = codec.digest_of_message(kind, message.body)
            except ContractError:
                digest = ""  # written by something else: whatever we have to say replaces it
            known[kind] = Last(message.revision, digest, message.event.uid, message.event.time.timestamp())
        if Kind.AGENT in messages and _is_gone(messages[Kind.AGENT].body):
            # Readers have forgotten all about this guest: should it return, everything is news.
            known |= {kind: Last(last.revision) for kind, last in known.items() if kind != Kind.AGENT}
        return messages


def _is_gone(body: bytes) -> bool:
    """Whether an agent record is a guest's last word."""
    try:
        return codec.decode(body, AgentState).phase is Phase.GONE
    except ContractError:
        return False
