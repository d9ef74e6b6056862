"""
For subscribers: the present values, then every change, in order.

    async with guestwire.client.open("nats://127.0.0.1:4222") as bus:
        async for message in guestwire.client.follow(bus, kind="userlist"):
            print(message.address.ref, message.revision, message.body)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from guestwire import subjects
from guestwire.errors import AgentUnresponsive
from guestwire.follower import Follower
from guestwire.jetstream import Bus, Message, translated
from guestwire.lifecycle import cancel
from guestwire.settings import Nats
from guestwire.snapshot import GuestRef


def open(*servers: str, credentials: str = "", stream: str = "GUESTWIRE") -> Bus:  # noqa: A001 - reads client.open()
    """A connection, to be used as an async context manager."""
    return Bus(Nats(servers=servers or Nats().servers, credentials=credentials, stream=stream), "client")


async def read_now(
    bus: Bus,
    ref: GuestRef,
    *,
    cluster: str = "local",
    kind: str = "all",
    timeout: float = 10,  # noqa: ASYNC109
) -> dict[str, int]:
    """
    Have a guest read now; the revision of each kind afterwards. Raises NotConnected when no collector has the guest,
    and AgentUnresponsive with its reason when the agent does not answer.
    """
    with translated(f"reading of {ref}"):
        answer = await bus.client.request(subjects.request(cluster, ref, kind), timeout=timeout)
    if error := (answer.headers or {}).get("Nats-Service-Error"):
        raise AgentUnresponsive(error)
    revisions: dict[str, int] = msgspec.json.decode(answer.data)["revisions"]
    return revisions


class _Backlog:
    """A follower's sink that somebody iterates over; when it is full, the server waits."""

    def __init__(self, size: int) -> None:
        self.queue: asyncio.Queue[Message | None] = asyncio.Queue()
        self._size = size
        self._room = asyncio.Event()

    def begin(self) -> None:
        """The present values follow."""

    def apply(self, message: Message) -> Awaitable[None] | None:
        """Keep it until it is asked for."""
        self.queue.put_nowait(message)
        if self.queue.qsize() < self._size:
            return None
        self._room.clear()
        return self._until_room()

    async def _until_room(self) -> None:
        await self._room.wait()

    async def take(self) -> Message | None:
        """The next; None where the present values end."""
        taken = await self.queue.get()
        if self.queue.qsize() <= self._size // 2:
            self._room.set()
        return taken

    def complete(self) -> None:
        """None marks the place."""
        self.queue.put_nowait(None)


async def follow(
    bus: Bus,
    *,
    cluster: str | None = None,
    namespace: str | None = None,
    name: str | None = None,
    kind: str | None = None,
    after: int | None = None,
    only_new: bool = False,
    live: bool = True,
    caught_up: Callable[[], None] | None = None,
    backlog: int = 4096,
) -> AsyncIterator[Message]:
    """
    The last message per subject, then each new one, in stream order and without a gap, for ever.

    With `after` (a revision seen earlier) everything that came since instead; with `only_new` nothing old at all.
    Without `live` it ends when all that was there at the start has been given; `caught_up` is called at that moment.
    Messages that are not of the contract are logged and skipped. Lost connections are mended meanwhile; NotConnected is
    raised only where the stream cannot be asked at the start.
    """
    if only_new:
        with translated(f"stream {bus.settings.stream}"):
            after = (await bus.js.stream_info(bus.settings.stream)).state.last_seq
    sink = _Backlog(backlog)
    pattern = subjects.pattern(cluster=cluster, namespace=namespace, name=name, kind=kind)
    following = asyncio.create_task(Follower(bus, pattern, sink, after=after).run(), name="follower")
    try:
        while True:
            message = await sink.take()
            if message is not None:
                yield message
                continue
            if caught_up:
                caught_up()
            if not live:
                return
    finally:
        await cancel(following)
