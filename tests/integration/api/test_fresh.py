"""Reads that wish for a value no older than so much: the guest is read, through NATS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg

from guestwire import codec, subjects
from guestwire.snapshot import GuestRef, Reading

WHOLE = "/apis/guestwire.io/v1/namespaces/default/guests/vm1"
USERLIST = f"{WHOLE}/userlist"


class Collector:
    """Answers requests to read as a collector does: publishes what is new, then tells the revisions."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.asked: list[tuple[GuestRef, str]] = []
        self.users: tuple[str, ...] = ("alice",)
        self.error = ""
        self.ahead = 0
        """How much further than the stream of this API the outcome is."""
        self.go_on = asyncio.Event()
        self.go_on.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, msg: Msg) -> None:
        """A request; answered on its own, as a collector works at many."""
        task = asyncio.create_task(self._take(msg))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, msg: Msg) -> None:
        self.asked.append(subjects.parse_request(msg.subject))
        await self.go_on.wait()
        if self.error:
            headers = {"Nats-Service-Error": self.error, "Nats-Service-Error-Code": "504"}
            await self.world.bus.client.publish(msg.reply, b"", headers=headers)
            return
        revision = self.ahead + await self.world.userlist(*self.users)
        await msg.respond(
            msgspec.json.encode({"namespace": "default", "name": "vm1", "revisions": {"userlist": revision}})
        )


@pytest.fixture
async def collector(world: Any) -> AsyncIterator[Collector]:
    """A collector, and a guest that was read an hour ago."""
    collector = Collector(world)
    subscription = await world.bus.client.subscribe(subjects.request("local", None, None), cb=collector.begin)
    await world.bus.client.flush()
    hour_ago = codec.now().replace(year=2025)
    await world.agent(readings={"userlist": Reading(hour_ago)})
    await world.applied(await world.userlist("root", at=hour_ago))
    yield collector
    collector.go_on.set()
    await subscription.unsubscribe()


async def test_an_old_value_is_read_anew(collector: Collector) -> None:
    """The answer is what the guest said just now."""
    reply = await collector.world.get(f"{USERLIST}?maxAge=5s")

    assert (200, "alice") == (reply.status, json.loads(reply.body)["items"][0]["userName"])
    assert int(reply["age"]) <= 30
    assert [(GuestRef("default", "vm1"), "userlist")] == collector.asked


async def test_a_value_that_is_young_enough_is_served(collector: Collector) -> None:
    """Nobody is bothered for it."""
    reply = await collector.world.get(f"{USERLIST}?maxAge=90000h")

    assert (200, "root") == (reply.status, json.loads(reply.body)["items"][0]["userName"])
    assert [] == collector.asked


async def test_many_who_ask_cause_one_request(collector: Collector) -> None:
    """They all get its answer."""
    collector.go_on.clear()
    asking = [asyncio.create_task(collector.world.get(f"{USERLIST}?maxAge=0")) for _ in range(20)]
    await collector.world.eventually(_asked(collector), "the collector is asked")
    await asyncio.sleep(1)  # who comes later would be served as well, but cause another request
    collector.go_on.set()
    replies = await asyncio.gather(*asking)

    assert {200} == {reply.status for reply in replies}
    assert all(b"alice" in reply.body for reply in replies)
    assert len(collector.asked) < len(replies)


async def test_guest_that_does_not_answer(collector: Collector) -> None:
    """504, with why, and how old the last value is."""
    collector.error = "guest-get-users: no answer in 5 s"
    reply = await collector.world.get(f"{USERLIST}?maxAge=5s")

    assert (504, 504) == (reply.status, json.loads(reply.body)["code"])
    assert "guest-get-users: no answer in 5 s" in reply.message
    assert " s old" in reply.message


@pytest.mark.parametrize("path", [WHOLE, USERLIST])
async def test_an_outcome_that_is_not_heard_of(collector: Collector, path: str) -> None:
    """A replica that is behind the stream does not tell what it knows for what was read: 504."""
    collector.ahead = 100
    reply = await collector.world.get(f"{path}?maxAge=5s")

    assert (504, True) == (reply.status, "it was read, but the stream has not come that far here" in reply.message)


async def test_nobody_has_the_guest(world: Any) -> None:
    """504 as well, when no collector is there to read it."""
    await world.applied(await world.agent())
    reply = await world.get(f"{USERLIST}?maxAge=5s")

    assert 504 == reply.status
    assert "nothing is known of it" in reply.message


async def test_guests_that_cannot_be_read(collector: Collector) -> None:
    """Unknown ones, and those without an agent, are answered as always."""
    assert 404 == (await collector.world.get(USERLIST.replace("vm1", "nobody") + "?maxAge=0")).status
    await collector.world.applied(await collector.world.agent(connected=False))
    assert 409 == (await collector.world.get(f"{USERLIST}?maxAge=0")).status
    assert [] == collector.asked


async def test_only_so_many_are_read_at_once(collector: Collector) -> None:
    """More are turned away, and told when to come again."""
    collector.go_on.clear()
    refs = [GuestRef("default", f"many{number}") for number in range(65)]
    revisions = [await collector.world.agent(ref=ref) for ref in refs]
    await collector.world.applied(revisions[-1])
    asking = [asyncio.create_task(collector.world.get(USERLIST.replace("vm1", ref.name) + "?maxAge=0")) for ref in refs]
    done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    collector.go_on.set()

    refused = [task.result() for task in done]
    assert [(429, "1")] == [(reply.status, reply["retry-after"]) for reply in refused]
    await asyncio.gather(*asking)


def users_of(reply: Any) -> list[str]:
    """In a whole guest, or a table that holds it."""
    told = json.loads(reply.body)
    guest = told["rows"][0]["object"] if told["kind"] == "Table" else told
    return [each["userName"] for each in guest["status"]["userlist"]["items"]]


async def test_a_whole_guest_is_read_anew(collector: Collector) -> None:
    """All of it is, in one request, and told as of now."""
    reply = await collector.world.get(f"{WHOLE}?maxAge=5s")

    assert (200, ["alice"]) == (reply.status, users_of(reply))
    assert int(reply["age"]) <= 30
    assert [(GuestRef("default", "vm1"), "all")] == collector.asked


async def test_a_table_is_read_anew(collector: Collector) -> None:
    """As it is for kubectl."""
    table = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io"
    reply = await collector.world.get(f"{WHOLE}?maxAge=5s&includeObject=Object", table)

    assert (200, ["alice"]) == (reply.status, users_of(reply))


@pytest.mark.parametrize(("max_age", "asked"), [("90000h", 0), ("30s", 1)])
async def test_a_whole_guest_is_as_old_as_the_oldest_of_it(collector: Collector, max_age: str, asked: int) -> None:
    """One kind that is too old is enough for reading it."""
    readings = {"userlist": Reading(codec.now().replace(year=2025)), "interfaces": Reading(codec.now())}
    await collector.world.applied(await collector.world.agent(readings=readings))

    assert 200 == (await collector.world.get(f"{WHOLE}?maxAge={max_age}")).status
    assert asked == len(collector.asked)


@pytest.mark.parametrize("path", [WHOLE, USERLIST])
async def test_what_was_read_is_as_young_as_that(collector: Collector, path: str) -> None:
    """Its age counts from then, for everybody: who is content with it, does not cause another reading."""
    await collector.world.get(f"{path}?maxAge=30s")
    again = await collector.world.get(f"{path}?maxAge=30s")
    usual = await collector.world.get(USERLIST)

    assert 1 == len(collector.asked)
    assert [True, True] == [int(reply["age"]) < 30 for reply in (again, usual)]


async def test_many_who_ask_for_a_guest_cause_one_request(collector: Collector) -> None:
    """They all get its answer."""
    collector.go_on.clear()
    asking = [asyncio.create_task(collector.world.get(f"{WHOLE}?maxAge=0")) for _ in range(20)]
    await collector.world.eventually(_asked(collector), "the collector is asked")
    await asyncio.sleep(1)
    collector.go_on.set()
    replies = await asyncio.gather(*asking)

    assert [(200, ["alice"])] * 20 == [(reply.status, users_of(reply)) for reply in replies]
    assert len(collector.asked) < len(replies)


async def test_a_whole_guest_that_does_not_answer(collector: Collector) -> None:
    """504, with why, and how old the oldest of what is known is."""
    collector.error = "guest-get-users: no answer in 5 s"
    reply = await collector.world.get(f"{WHOLE}?maxAge=5s")

    assert 504 == reply.status
    assert reply.message.startswith(
        'guests.guestwire.io "vm1" could not be read now: guest-get-users: no answer in 5 s;'
    )
    assert int(reply.message.split("the last value is ")[1].split(" s old")[0]) > 3600


async def test_a_whole_guest_of_which_a_kind_could_not_be_read(collector: Collector) -> None:
    """504 as well: it would be told with a value that is older than was asked for."""
    reading = Reading(codec.now().replace(year=2025), "guest-get-users: refused")
    await collector.world.applied(await collector.world.agent(readings={"userlist": reading}))
    reply = await collector.world.get(f"{WHOLE}?maxAge=5s")

    assert 504 == reply.status
    assert reply.message.startswith(
        'userlist of guests.guestwire.io "vm1" could not be read now: guest-get-users: refused;'
    )


async def test_whole_guests_that_cannot_be_read(collector: Collector) -> None:
    """Unknown ones, and those without an agent, are answered as always."""
    assert 404 == (await collector.world.get(WHOLE.replace("vm1", "nobody") + "?maxAge=0")).status
    await collector.world.applied(await collector.world.agent(connected=False))
    reply = await collector.world.get(f"{WHOLE}?maxAge=0")
    assert (200, {"agent"}) == (reply.status, set(json.loads(reply.body)["status"]))
    assert [] == collector.asked


async def test_what_is_said_of_the_agent_is_not_read(collector: Collector) -> None:
    """Nobody can have it fresher than it is: 400 says so."""
    reply = await collector.world.get(f"{WHOLE}/agent?maxAge=5s")

    assert (400, True) == (reply.status, reply.message.startswith("maxAge: "))
    assert [] == collector.asked


def _asked(collector: Collector) -> Any:
    async def there() -> bool:
        return bool(collector.asked)

    return there
