"""Guests whose subjects an operator purges: noticed, whatever else goes on; and history that goes is no purge."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from api import purges
from api.purges import Purges
from guestwire import subjects
from guestwire.jetstream import Bus
from guestwire.snapshot import GuestRef

from .test_guests import watching

GUESTS = "/apis/guestwire.io/v1/guests"
VM1, VM2, VM3 = (GuestRef("default", f"vm{number}") for number in (1, 2, 3))


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before an API starts."""
    monkeypatch.setattr(purges, "PACE", 0.1)


async def served(world: Any) -> list[str]:
    """Names in a list of all guests."""
    reply = await world.get(GUESTS)
    return (
        [item["metadata"]["name"] for item in msgspec.json.decode(reply.body)["items"]] if reply.status == 200 else []
    )


@pytest.mark.parametrize(
    ("pattern", "left"), [("guestwire.v1.local.default.vm1.*", ["vm2"]), ("guestwire.v1.local.>", []), (None, [])]
)
async def test_forgotten(world: Any, pattern: str | None, left: list[str]) -> None:
    """What is not in the stream any more is not served any more, and watches begin anew; what comes then is served."""
    for ref in (VM1, VM2):
        await world.agent(ref=ref)
        await world.applied(await world.userlist("root", ref=ref))

    async def gone() -> bool:
        return await served(world) == left and (await world.get("/readyz")).status == 200

    async with watching(world) as events:
        assert ["ADDED", "ADDED"] == [(await events.next())["type"] for _ in range(2)]
        await world.bus.js.purge_stream("GUESTWIRE", subject=pattern)
        await world.eventually(gone, "purge noticed")
        end = await events.next()
    assert ("ERROR", 410) == (end["type"], end["object"]["code"])
    userlist = f"{GUESTS.replace('/guests', '')}/namespaces/default/guests/vm1/userlist"
    assert 404 == (await world.get(userlist)).status
    await world.agent(ref=VM1, uid="u2")
    await world.applied(await world.userlist("bob", ref=VM1, uid="u2"))
    assert sorted({"vm1", *left}) == await served(world)


class Looked:
    """Looks at a real stream, and counts how often it would be read anew."""

    def __init__(self, bus: Bus) -> None:
        self.known = {VM1, VM2}
        self.anew = 0
        self._bus = bus
        self._purges = Purges(bus, "local", lambda: self.known, self._begin_anew)

    def _begin_anew(self) -> None:
        self.anew += 1

    async def say(self, *refs: GuestRef, times: int = 1) -> None:
        """Something about guests."""
        for ref in refs:
            for _ in range(times):
                await self._bus.js.publish(subjects.subject("local", ref, "agent"), b"{}")

    async def purge(self, ref: GuestRef) -> None:
        """As an operator does."""
        await self._bus.js.purge_stream("GUESTWIRE", subject=subjects.of_guest("local", ref))

    async def look(self, times: int = 1) -> int:
        """How often the stream would have been read anew."""
        self.anew = 0
        for _ in range(times):
            await self._purges.look()
        return self.anew


@pytest.fixture
async def looked(bus: Bus) -> Looked:
    """At a stream with two guests."""
    one = Looked(bus)
    await one.say(VM1, VM2)
    return one


async def test_history_is_no_purge(looked: Looked) -> None:
    """Messages that go because newer ones came, and guests that come, are nothing."""
    assert 0 == await looked.look()
    await looked.say(VM1, times=70)
    await looked.say(VM3)
    looked.known.add(VM3)

    assert 0 == await looked.look(2 * purges.IN_ANY_CASE)


async def test_beside_new_guests(looked: Looked) -> None:
    """A guest that is purged while more come is missed at once; while just as many come, some looks later."""
    await looked.look()
    await looked.say(VM3, GuestRef("default", "vm4"))
    await looked.purge(VM1)
    assert 1 == await looked.look()
    looked.known.discard(VM1)
    await looked.say(GuestRef("default", "vm5"))
    await looked.purge(VM2)

    assert 0 == await looked.look()
    assert 1 == await looked.look(purges.IN_ANY_CASE)
    looked.known.discard(VM2)
    assert 0 == await looked.look(2 * purges.IN_ANY_CASE)


async def test_before_the_first_look(looked: Looked) -> None:
    """What was purged before there was anything to compare with is missed too."""
    await looked.purge(VM2)

    assert 1 == await looked.look()


async def test_many(looked: Looked, bus: Bus) -> None:
    """Names come in parts of 100,000; all of them are read."""
    for number in range(100_010):
        await bus.client.publish(subjects.subject("local", GuestRef("many", str(number)), "agent"), b"{}")
    async with asyncio.timeout(60):
        while True:
            if (await bus.js.stream_info("GUESTWIRE")).state.messages == 100_012:
                break
            await asyncio.sleep(0.1)
    looked.known |= {GuestRef("many", str(number)) for number in range(100_010)}

    assert 0 == await looked.look()
