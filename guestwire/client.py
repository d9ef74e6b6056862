"""
For subscribers, close to NATS: messages as they are, in order, and readings on demand.

    async with guestwire.client.open("nats://127.0.0.1:4222") as bus:
        async for message in guestwire.client.follow(bus, kind="userlist"):
            print(message.address.ref, message.revision, message.body)

`guestwire.changes()` makes typed changes of these, which tell the value before and can be resumed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import msgspec
import nats.errors

from guestwire import subjects
from guestwire.errors import AgentUnresponsive, NotConnected
from guestwire.feed import BACKLOG, Begin, Feed
from guestwire.jetstream import Bus, Message, translated
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
        try:
            answer = await bus.client.request(subjects.request(cluster, ref, kind), timeout=timeout)
        except nats.errors.NoRespondersError:
            raise NotConnected(f"reading of {ref}: no collector is there to do it") from None
    if error := (answer.headers or {}).get("Nats-Service-Error"):
        raise AgentUnresponsive(error)
    revisions: dict[str, int] = msgspec.json.decode(answer.data)["revisions"]
    return revisions


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
    backlog: int = BACKLOG,
) -> AsyncGenerator[Message, None]:
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
    pattern = subjects.pattern(cluster=cluster, namespace=namespace, name=name, kind=kind)
    async with Feed(bus, pattern, after=after, size=backlog) as feed:
        while True:
            taken = await feed.take()
            if isinstance(taken, Message):
                yield taken
            elif not isinstance(taken, Begin):
                if caught_up:
                    caught_up()
                if not live:
                    return
