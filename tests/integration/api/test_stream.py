"""The API behind a real NATS server: filled from the stream, following it, and living through its absence."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Any

import msgspec
import pytest

from api.cache import Cache
from api.groups import KUBEVIRT
from guestwire import settings, subjects
from guestwire.follower import Follower
from guestwire.jetstream import Bus
from guestwire.snapshot import GuestRef, Phase

USERLIST = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/{}/userlist"


async def names(world: Any, vm: str = "vm1") -> tuple[int, list[str]]:
    """Status of a read, and who it says is logged in."""
    reply = await world.get(USERLIST.format(vm))
    users = msgspec.json.decode(reply.body)["items"] if reply.status == 200 else []
    return reply.status, [user["userName"] for user in users]


async def test_published_is_served(world: Any) -> None:
    """What a collector publishes is what a reader gets: bytes, revision and time of reading."""
    await world.agent()
    revision = await world.userlist("root")
    await world.applied(revision)
    stored = await world.bus.js.get_msg("GUESTWIRE", seq=revision)
    reply = await world.get()

    assert (200, stored.data, f'"{revision}"') == (reply.status, reply.body, reply["etag"])
    assert 404 == (await world.get(USERLIST.format("vm2"))).status
    assert 200 == (await world.get("/readyz")).status


async def test_changes_are_followed(world: Any) -> None:
    """Each change is served in its turn: users come and go, the agent, the guest."""
    seen = []
    for publish in (
        functools.partial(world.agent),
        functools.partial(world.userlist, "root"),
        functools.partial(world.userlist, "root", "admin"),
        functools.partial(world.agent, connected=False),
        functools.partial(world.agent),
        functools.partial(world.agent, connected=False, phase=Phase.STOPPED),
        functools.partial(world.agent, connected=False, phase=Phase.GONE),
        functools.partial(world.agent, uid="u2"),
    ):
        await world.applied(await publish())
        seen.append(await names(world))

    assert [
        (200, []),
        (200, ["root"]),
        (200, ["root", "admin"]),
        (409, []),
        (200, ["root", "admin"]),
        (409, []),
        (404, []),
        (200, []),
    ] == seen


async def test_starts_before_the_stream(started: Any) -> None:
    """Without a stream there is an API that says 503; when the stream comes, it is read."""
    world = await started()
    before = await world.get("/readyz"), await world.get()
    await world.bus.ensure_stream()
    await world.agent()
    await world.applied(await world.userlist("root"))

    assert [503, 503] == [reply.status for reply in before]
    assert (200, ["root"]) == await names(world)


async def test_starts_before_nats(nats_server: Any, started: Any) -> None:
    """Without NATS there is an API that is alive and not ready; when NATS comes, it gets ready."""
    nats_server.stop()
    world = await started(connect=False)
    before = [(await world.get(path)).status for path in ("/livez", "/readyz")]
    nats_server.start()
    async with Bus(settings.Nats(servers=(nats_server.url,)), "collector") as bus:
        await bus.ensure_stream()

        async def ready() -> bool:
            return bool((await world.get("/readyz")).status == 200)

        await world.eventually(ready, "ready")
    assert [200, 503] == before


async def test_lives_through_a_restart_of_nats(world: Any) -> None:
    """With NATS killed the API serves on and stays ready; afterwards nothing is missing."""
    await world.agent()
    await world.applied(await world.userlist("root"))
    world.nats.kill()
    await asyncio.sleep(0.5)
    during = await names(world), (await world.get("/readyz")).status
    gone = await world.metric("guestwire_api_nats_connected")
    world.nats.start()
    await world.reconnected()
    await world.agent(ref=GuestRef("default", "vm2"), uid="u2")
    await world.userlist("guest", ref=GuestRef("default", "vm2"), uid="u2")
    await world.applied(await world.userlist("root", "admin"))

    assert ((200, ["root"]), 200, 0) == (*during, gone)
    assert (200, ["root", "admin"]) == await names(world)
    assert (200, ["guest"]) == await names(world, "vm2")
    assert 1 == await world.metric("guestwire_api_nats_connected")


async def test_messages_missed_while_away_are_read(world: Any) -> None:
    """What was published while the API could not hear is read when it hears again."""
    await world.agent()
    await world.applied(await world.userlist("root"))
    for consumer in await world.bus.js.consumers_info("GUESTWIRE"):
        await world.bus.js.delete_consumer("GUESTWIRE", consumer.name)
    revision = await world.userlist("admin")
    await world.applied(revision)

    assert (200, ["admin"]) == await names(world)


async def test_stream_made_anew(world: Any) -> None:
    """A stream that is deleted and made anew is noticed: its revisions count, what it does not hold is forgotten."""
    other = GuestRef("default", "vm2")
    await world.agent(ref=other, uid="u2")
    await world.userlist("guest", ref=other, uid="u2")
    await world.agent()
    for number in range(20):
        await world.userlist(f"user{number}")
    await world.applied(await world.userlist("root"))
    await world.bus.js.delete_stream("GUESTWIRE")
    await world.bus.ensure_stream()
    await world.agent()
    revision = await world.userlist("admin")
    await world.applied(revision)

    assert 2 == revision
    assert (200, ["admin"]) == await names(world)
    assert 404 == (await names(world, "vm2"))[0]
    assert f'"{revision}"' == (await world.get())["etag"]


async def test_bad_messages_are_passed_over(world: Any) -> None:
    """A message that does not follow the contract is counted and passed over; what was known stays."""
    await world.agent()
    await world.userlist("root")
    subject = "guestwire.v1.local.default.vm1."
    good = (await world.bus.js.get_msg("GUESTWIRE", seq=1)).headers
    timeless = {**good, "ce-time": "2026-01-01T00:00:00"}
    for headers, body in ((None, b"{}"), (timeless, b"{}"), (good, b"{"), (good, b'{"connected":7}')):
        plain = {name: value for name, value in (headers or {}).items() if name != "Nats-Msg-Id"}
        await world.bus.js.publish(f"{subject}agent", body, headers=plain or None)
    await world.applied(await world.userlist("admin"))

    assert 4 == await world.metric("guestwire_api_messages_skipped_total")
    assert (200, ["admin"]) == await names(world)


async def test_messages_lost_on_the_way_are_fetched_again(nats_server: Any, world: Any) -> None:
    """When this process's own client drops messages because it cannot keep up, the gap is seen and filled."""
    guests = [GuestRef("default", f"vm{number}") for number in range(60)]
    async with Bus(settings.Nats(servers=(nats_server.url,)), "reader") as bus:
        # nats-py drops what exceeds this limit, which a burst does and a single message does not.
        bus.client.subscribe = functools.partial(bus.client.subscribe, pending_bytes_limit=25000)  # type: ignore[method-assign]
        cache = Cache()
        task = asyncio.create_task(Follower(bus, subjects.pattern(cluster="local"), cache).run())
        try:

            async def caught_up() -> bool:
                return cache.caught_up

            await world.eventually(caught_up, "caught up")
            for ref in guests:
                await world.agent(ref=ref)
            await asyncio.gather(*(world.userlist("x" * 500, ref=ref) for ref in guests))

            async def complete() -> bool:
                return all(cache.find(KUBEVIRT, ref, "userlist").etag for ref in guests)

            await world.eventually(complete, "every message")
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize("kind", KUBEVIRT.kinds)
async def test_kubevirts_own_cases(world: Any, kind: str, kubevirt_cases: list[dict[str, Any]]) -> None:
    """KubeVirt's cases of its three paths: our answer has its words, and the code that goes with them."""
    codes = {"not found": 404, "VMI is not running": 409, "VMI does not have guest agent connected": 409}
    cases = [case for case in kubevirt_cases if case["command"] == kind]
    for case in cases:
        vmi = case["input"]["vmi"]
        name = case["input"]["path"].split("/")[-2]
        if vmi:
            connected = any(each["type"] == "AgentConnected" for each in vmi["status"].get("conditions", ()))
            phase = Phase.RUNNING if vmi["status"]["phase"] == "Running" else Phase.STOPPED
            revision = await world.agent(ref=GuestRef("default", name), phase=phase, connected=connected)
        else:
            revision = await world.agent(ref=GuestRef("default", name), phase=Phase.GONE, connected=False)
        await world.applied(revision)
        reply = await world.get(case["input"]["path"], method=case["input"]["method"])

        expected = case["expected"]["body"]
        assert expected == reply.message
        assert next(code for words, code in codes.items() if expected.endswith(words)) == reply.status
    assert cases
