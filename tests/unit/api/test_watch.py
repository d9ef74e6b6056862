"""Watches: whoever applies what is told, has what is there; whatever happens, wherever it comes back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api import fleet as fleets
from api import watch as watching
from api.cache import Cache
from api.forms import OBJECTS
from api.options import Options
from api.selectors import select
from api.watch import STEP, Watch
from guestwire import codec
from guestwire.codec import Event
from guestwire.jetstream import Message
from guestwire.snapshot import AgentState, GuestRef, Kind, ListMeta, Phase, User, UserList
from guestwire.subjects import Address

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Said(msgspec.Struct, frozen=True):
    """Something that is said of a guest."""

    name: str
    uid: str = "1"
    kind: str = Kind.AGENT
    host: str = "h1"
    connected: bool = True
    gone: bool = False

    def message(self, revision: int) -> Message:
        """As a collector sends it."""
        ref = GuestRef("default", self.name)
        body: Any = UserList((User(f"user{revision}"),), ListMeta())
        if self.kind == Kind.AGENT:
            body = AgentState(
                namespace=ref.namespace,
                name=ref.name,
                uid=self.uid,
                domain=self.name,
                domain_uuid=self.uid,
                host=self.host,
                phase=Phase.GONE if self.gone else Phase.RUNNING,
                channel=True,
                connected=self.connected,
                since=NOON,
            )
        event = Event(id=str(revision), source="/guestwire/local/h", uid=self.uid, time=NOON, trace_id="")
        return Message(Address("local", ref, self.kind), revision, event, codec.encode(body), {})


class Stream:
    """What a stream keeps, and replicas of the API that read it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def say(self, said: Said) -> Message:
        """One more."""
        self.messages.append(said.message(len(self.messages) + 1))
        return self.messages[-1]

    def replica(self) -> Cache:
        """A process that starts now: it gets the last message of each subject."""
        cache = Cache()
        cache.purged = 0
        cache.begin()
        last = {message.address: message for message in self.messages}
        for message in sorted(last.values(), key=lambda each: each.revision):
            cache.apply(message)
        cache.complete()
        return cache


class Client:
    """Keeps what it is told, as an informer does, and knows where it is."""

    def __init__(self, labels: str = "") -> None:
        self.labels = labels
        self.store: dict[str, dict[str, Any]] = {}
        self.revision = ""
        self.told: list[tuple[str, str]] = []

    def watch(self, cache: Cache, *, steps: int = 1000) -> str:
        """Watch until there is nothing new, or so many steps; the type of the last event."""
        options = Options.of({"watch": "1", "resourceVersion": self.revision})
        watch = Watch(cache, options, select(None, self.labels, ""), OBJECTS, lambda: True)
        for _ in range(steps):
            for line in watch._step():
                event = json.loads(line)
                self._apply(event["type"], event["object"])
            if watch._told == cache.fleet.revision:
                break
        return self.told[-1][0] if self.told else ""

    def _apply(self, event: str, told: dict[str, Any]) -> None:
        name = told["metadata"]["name"]
        self.told.append((event, name))
        self.revision = told["metadata"]["resourceVersion"]
        if event == "DELETED":
            self.store.pop(name, None)
        else:
            self.store[name] = told


def there(cache: Cache, labels: str = "") -> dict[str, Any]:
    """What a list would tell."""
    chosen = select(None, labels, "")
    guests = [cache.fleet.guests[ref] for ref in cache.fleet.names]
    return {
        guest.ref.name: json.loads(OBJECTS.entry(guest, guest.revision))
        for guest in guests
        if chosen.selects(guest.labels)
    }


SAID = st.builds(
    Said,
    name=st.sampled_from("abc"),
    uid=st.sampled_from("12"),
    kind=st.sampled_from((Kind.AGENT, Kind.AGENT, Kind.USERLIST)),
    host=st.sampled_from(("h1", "h2")),
    connected=st.booleans(),
    gone=st.sampled_from((False, False, False, True)),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    story=st.lists(st.one_of(SAID, st.sampled_from(("watch", "step", "elsewhere"))), max_size=40),
    labels=st.sampled_from(("", "guestwire.io/host=h1", "guestwire.io/agent=connected,guestwire.io/host!=h2")),
)
def test_a_client_has_what_is_there(monkeypatch: Any, story: list[Said | str], labels: str) -> None:
    """However often it reads, breaks off, or goes on at a replica that has just started."""
    stream, client = Stream(), Client(labels)
    cache = stream.replica()
    monkeypatch.setattr(watching, "STEP", 1)
    for each in story:
        if isinstance(each, Said):
            cache.apply(stream.say(each))
        elif each == "watch":
            client.watch(cache)
        elif each == "step":
            client.watch(cache, steps=1)
        else:
            cache = stream.replica()
    client.watch(cache)

    # Facts of before a guest's end may still be in the stream when it is back, and collectors tell them anew.
    assert identities(there(cache, labels)) == identities(client.store)
    assert identities(there(stream.replica(), labels)) == identities(client.store)
    if "elsewhere" not in story:
        assert there(cache, labels) == client.store


def identities(told: dict[str, Any]) -> dict[str, Any]:
    """Which guests, at which revisions, with which labels."""
    return {name: each["metadata"] for name, each in told.items()}


def test_no_more_than_there_is_to_tell() -> None:
    """Events have the type that fits, and of what is not selected nothing is heard."""
    stream, client = Stream(), Client("guestwire.io/host=h1")
    cache = stream.replica()
    for said in (
        Said("a"),
        Said("b", host="h2"),
        Said("a", kind=Kind.USERLIST),
        Said("b", kind=Kind.USERLIST),
        Said("b", host="h1"),
        Said("a", host="h2"),
        Said("a", kind=Kind.USERLIST),
        Said("b", uid="2"),
        Said("b", uid="2", gone=True),
    ):
        cache.apply(stream.say(said))
        client.watch(cache)

    expected = [("ADDED", "a"), ("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")]
    assert [*expected, ("DELETED", "b"), ("ADDED", "b"), ("DELETED", "b")] == client.told


def test_slow_client_is_told_what_is() -> None:
    """A guest that changed a thousand times meanwhile is told once; that another came and went, is told."""
    stream, client = Stream(), Client()
    cache = stream.replica()
    cache.apply(stream.say(Said("a")))
    client.watch(cache)
    cache.apply(stream.say(Said("short")))
    for _ in range(1000):
        cache.apply(stream.say(Said("a", kind=Kind.USERLIST)))
    cache.apply(stream.say(Said("short", gone=True)))
    client.watch(cache)

    assert [("ADDED", "a"), ("ADDED", "short"), ("MODIFIED", "a"), ("DELETED", "short")] == client.told


def test_the_order_is_bounded() -> None:
    """What is kept for watches depends on the number of guests, not of changes."""
    stream = Stream()
    cache = stream.replica()
    for _ in range(5000):
        cache.apply(stream.say(Said("a", kind=Kind.USERLIST)))
        cache.apply(stream.say(Said("a")))

    assert len(cache.fleet._log) < 2000


def test_gone_guests_are_told_for_a_while(monkeypatch: Any) -> None:
    """Who is so far behind that a guest's end may have been missed, must list anew."""
    monkeypatch.setattr(fleets, "KEPT", 6)
    stream = Stream()
    cache = stream.replica()
    for name in "abcde":
        cache.apply(stream.say(Said(name)))
        cache.apply(stream.say(Said(name, gone=True)))
    client = Client()
    client.revision = "5"
    client.watch(cache)

    assert 4 == cache.fleet.floor
    ends = [("DELETED", "c"), ("ADDED", "d"), ("DELETED", "d"), ("ADDED", "e"), ("DELETED", "e")]
    assert ends == client.told


def test_many_guests_are_told_in_steps() -> None:
    """Others have their turn between them, and the position moves along."""
    stream = Stream()
    cache = stream.replica()
    for number in range(3 * STEP):
        cache.apply(stream.say(Said(f"vm{number}")))
    client = Client()
    client.watch(cache, steps=1)

    assert STEP == len(client.store)
    assert str(STEP) == client.revision
