"""Snapshots to standard output, one JSON object per line and change: for a look, or for a pipe."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection

import msgspec

from guestwire import codec, subjects
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot


class Line(msgspec.Struct):
    """The message as it would travel on NATS."""

    subject: str
    time: str
    data: msgspec.Raw


class NdjsonPublisher:
    """Like the one for JetStream, without a memory of earlier runs."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._digests: dict[tuple[GuestRef, str], str] = {}
        self._closed = asyncio.Event()

    def offer(self, snapshot: GuestSnapshot) -> None:
        """Print what is new in it."""
        for part in snapshot.parts:
            if self._digests.get((snapshot.ref, part.kind)) == part.digest:
                continue
            self._digests[snapshot.ref, part.kind] = part.digest
            subject = subjects.subject(self._cluster, snapshot.ref, part.kind)
            line = Line(subject, codec.timestamp(part.observed_at), msgspec.Raw(part.body))
            sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.buffer.flush()

    def forget(self, ref: GuestRef) -> None:
        """Nothing more will come about this guest from here."""
        self._digests = {key: digest for key, digest in self._digests.items() if key[0] != ref}

    def close(self) -> None:
        """End `run`."""
        self._closed.set()

    async def run(self) -> None:
        """Nothing is ever waiting: until closed."""
        await self._closed.wait()

    async def recall(self, ref: GuestRef) -> dict[str, bytes]:
        """Nothing."""
        return {}

    async def recall_hosts(self, names: Collection[str]) -> list[AgentState]:
        """Nothing."""
        return []
