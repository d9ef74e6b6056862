"""
What a collector says on the bus about real guests, as a list of changes.

A change is a kind and the fields of its body that became other, in few words. There is one per message, so a test can
state the whole of what may be said. Left out is what differs from run to run: times, and link-local addresses, which a
kernel gives an interface some time after it is up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec

from collectors.collector import Collector
from collectors.host import MakeHost
from collectors.libvirt_host import LibvirtHost
from guestwire import client, codec
from guestwire.jetstream import Bus, Message
from guestwire.lifecycle import cancel
from guestwire.settings import Collect, Libvirt, Publish, Settings
from publishers.jetstream import JetStreamPublisher

Change = tuple[str, dict[str, Any]]

OFTEN = {"users": 1.0, "interfaces": 1.0, "system": 1.0, "filesystems": 1.0}
"""Longest ages, in seconds, at which a change in the guest is told soon."""
SELDOM = dict.fromkeys(OFTEN, 3600.0)


@asynccontextmanager
async def collecting(
    bus: Bus, uri: str, make_host: MakeHost = LibvirtHost, /, **collect: float | str
) -> AsyncIterator[Collector]:
    """A collector of one host and its publisher, put together as `guestwire collect` does; without heartbeats."""
    settings = Settings(
        libvirt=Libvirt(uris=(uri,), retry_max=0.5),
        collect=msgspec.convert({**OFTEN, "command_timeout": 10, **collect}, Collect),
        publish=Publish(heartbeat=1e9),
    )
    publisher = JetStreamPublisher(bus, "c", settings.publish)
    collector = Collector(settings, publisher, make_host)
    publisher.on_fenced = collector.look_again
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(publisher.run())
        collect_task = group.create_task(collector.run(stop))
        try:
            yield collector
        finally:
            stop.set()
            await collect_task
            publisher.close()


class Named(Protocol):
    """A guest, as far as a reader of the bus needs it."""

    domain_name: str


class Bystander:
    """Everything that was said about one guest, in order."""

    def __init__(self, guest: Named) -> None:
        namespace, _, name = guest.domain_name.partition("_")
        self._namespace, self._name = namespace, name
        self.messages: list[Message] = []
        self._last: dict[str, Message] = {}
        self._mark = 0

    async def listen(self, bus: Bus) -> None:
        """Until cancelled."""
        async for message in client.follow(bus, after=0, namespace=self._namespace, name=self._name):
            self.messages.append(message)
            self._last[message.address.kind] = message

    @property
    def latest(self) -> dict[str, Any]:
        """The last body per kind."""
        return {kind: msgspec.json.decode(message.body) for kind, message in self._last.items()}

    def agent(self, field: str) -> Any:
        """A field of the agent record as it stands; None when it is absent."""
        return self.latest.get("agent", {}).get(field)

    def changes(self) -> list[Change]:
        """What was said since the mark."""
        found = list(_changes(self.messages))[self._mark :]
        return [(kind, fields) for kind, fields in found if fields is not None]

    def assert_told(self, *expected: Change) -> None:
        """
        Exactly this was said since the mark. The publisher sends the newest of what it was offered, so two
        messages may have become one; none may be more, and every change must be there, in order.
        """
        actual = self.changes()
        assert _merged(expected) == _merged(actual), actual
        assert len(actual) <= len(expected), actual

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        """Every body of a kind since the mark."""
        new = self.messages[self._mark :]
        return [msgspec.json.decode(message.body) for message in new if message.address.kind == kind]

    def mark(self) -> None:
        """What was said until now is known."""
        self._mark = len(self.messages)

    async def quiet(self, seconds: float = 3, within: float = 90) -> None:
        """Return when nothing has been said for so long."""
        count, last, end = len(self.messages), time.monotonic(), time.monotonic() + within
        while time.monotonic() - last < seconds:
            await asyncio.sleep(0.1)
            if len(self.messages) != count:
                count, last = len(self.messages), time.monotonic()
            assert last < end, f"it does not become quiet: {self.changes()}"

    async def settled(self, condition: Callable[[], object]) -> None:
        """Return when a condition holds and nothing more is said."""
        await self.until(condition)
        await self.quiet()

    async def until(self, condition: Callable[[], object], within: float = 90) -> None:
        """Return when a condition holds."""
        end = time.monotonic() + within
        while not condition():
            assert time.monotonic() < end, f"it did not happen: {self.changes()}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def listening(bus: Bus, guest: Named) -> AsyncIterator[Bystander]:
    """Someone who reads the bus."""
    one = Bystander(guest)
    task = asyncio.create_task(one.listen(bus))
    try:
        yield one
    finally:
        await cancel(task)


def _changes(messages: list[Message]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The fields that each message changed; None where only a link-local address came or went."""
    before: dict[str, Message] = {}
    for message in messages:
        kind, known = message.address.kind, {}
        if last := before.get(kind):
            assert _digest(last) != _digest(message), f"said twice: {message.body!r}"
            known = _in_words(kind, msgspec.json.decode(last.body))
        present = _in_words(kind, msgspec.json.decode(message.body))
        fields = {key: present.get(key) for key in sorted(known | present) if known.get(key) != present.get(key)}
        yield kind, fields if fields or kind != "interfaces" else None
        before[kind] = message


def _digest(message: Message) -> tuple[str, str]:
    """What a message says, and about whom."""
    return message.event.uid, codec.digest_of_message(message.address.kind, message.body)


def _merged(changes: Iterable[Change]) -> list[Change]:
    """Changes of a kind as one, as far as none undoes or repeats another."""
    merged: list[Change] = []
    for kind, fields in changes:
        of_kind = [(number, known) for number, (other, known) in enumerate(merged) if other == kind]
        if of_kind and not of_kind[-1][1].keys() & fields:
            number, known = of_kind[-1]
            merged[number] = (kind, known | fields)
        else:
            merged.append((kind, fields))
    return merged


def _in_words(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """A body without times, its long values as the names in them."""
    match kind:
        case "agent":
            body["readings"] = any(reading.get("error") for reading in body.get("readings", {}).values())
            body["commands"] = len(body.get("commands", ()))
            del body["since"]
        case "guestosinfo":
            body["fsInfo"] = [entry["mountPoint"] for entry in body["fsInfo"]["disks"] or ()]
            body["userList"] = [user["userName"] for user in body.get("userList", ())]
            body["supportedCommands"] = sum(
                command.get("enabled", False) for command in body.get("supportedCommands", ())
            )
        case "userlist":
            body["items"] = [user["userName"] for user in body["items"]]
        case "filesystemlist":
            body["items"] = [entry["mountPoint"] for entry in body["items"]]
        case "interfaces":
            body["domain"] = [nic["name"] for nic in body["domain"]]
            body["guest"] = {
                nic["name"]: [ip["address"] for ip in nic.get("addresses", ()) if not ip["address"].startswith("fe80:")]
                for nic in body.get("guest", ())
            }
    return body
