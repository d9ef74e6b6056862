"""
The roles of deploy/nats on a real server: each does its work with the program's own code, and is refused the rest.

The server tells a refusal as an error on the connection; nats-py hands it to a callback.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sysconfig
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from guestwire import bucket, client, codec, subjects
from guestwire.checks import Outcome, check_nats
from guestwire.errors import NotConnected
from guestwire.follower import Follower
from guestwire.jetstream import Bus, Message, stream_config
from guestwire.lifecycle import cancel
from guestwire.login import options
from guestwire.settings import Nats, Publish
from guestwire.snapshot import GuestRef, GuestSnapshot, Kind, ListMeta, Part, Phase, UserList
from publishers.burial import Burial
from publishers.readings import Readings
from publishers.retention import Retention
from status_writer.consumer import Consumer
from status_writer.inbox import Delivery
from tests.publishing import publisher

from .conftest import DEPLOY, INBOXES, Guarded, new_seed, until
from .facts import PROD, TEST, agent, fact, publish

pytestmark = pytest.mark.lab

Eventually = Callable[..., Awaitable[float]]


@pytest.mark.parametrize("file", ["stream", "bucket"])
def test_files_are_what_the_collector_makes(file: str) -> None:
    """A stream that an administrator makes is the one that a collector would have made."""
    config = stream_config(Nats()) if file == "stream" else bucket.config(Nats(bucket="guestwire"))

    assert {key: value for key, value in config.as_dict().items() if value is not None} == json.loads(
        (DEPLOY / f"{file}.json").read_text()
    )


def test_server_takes_the_files(guarded: Guarded) -> None:
    """The configuration as it is given, but for its paths."""
    text = (DEPLOY / "nats.conf").read_text().replace("/var/lib/nats", str(guarded.directory))
    (guarded.directory / "whole.conf").write_text(text)
    program = Path(sysconfig.get_path("scripts"), "nats-server")
    done = subprocess.run(
        [program, "-t", "-c", guarded.directory / "whole.conf"], capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stderr


def test_inboxes_are_documented() -> None:
    """Whoever sets up a role finds its inbox."""
    page = (DEPLOY.parents[1] / "docs" / "security.md").read_text()

    assert [] == [inbox for inbox in INBOXES.values() if f"| `{inbox}` |" not in page]


async def test_collector(facts: Guarded, eventually: Eventually) -> None:
    """It goes on where it left off, publishes single messages and batches, answers requests, and deletes guests."""
    settings = facts.settings("collector")
    async with Bus(settings, "collector") as bus, publisher(bus) as one:

        async def read_now(ref: GuestRef, kinds: Iterable[str]) -> bool:
            return ref == PROD

        assert bus.atomic
        assert {"agent", "userlist"} == set(await one.recall(PROD))
        assert ["web", "web"] == [record.name for record in await one.recall_hosts(["h"])]
        await Readings(bus, "local", "h", one, read_now).start()
        async with Bus(facts.settings("api"), "api") as api:
            assert {"agent": 1, "userlist": 2} == {**await client.read_now(api, PROD), "agent": 1}
        gone = fact(Kind.AGENT, agent(TEST, Phase.GONE))
        one.offer(GuestSnapshot(TEST, "u", "h", (gone,), codec.new_trace_id()))
        await asyncio.wait_for(one.settled(TEST), 30)
        deleted = await Retention(bus, "local", lambda: ["h"], 1).sweep(codec.now().timestamp() + 10)

    assert [TEST] == deleted
    async with Bus(facts.settings("subscriber"), "test") as bus:
        left = {message.address.ref async for message in client.follow(bus, live=False)}
        assert {PROD} == left
        keys = await (await bus.js.key_value("guestwire")).keys()
        assert {"local.prod.web.agent", "local.prod.web.userlist"} == set(keys)


@pytest.mark.parametrize("role", ["administrator", "api", "subscriber"])
async def test_nobody_else_declares_guests_gone(facts: Guarded, role: str) -> None:
    """What `guestwire forget` does is refused to every role but the collector's, and changes nothing."""
    async with Bus(facts.settings("collector"), "collector") as bus:
        [found] = await Burial(bus, "local", Publish()).of([PROD])
        async with Bus(facts.settings(role, timeout=0.5), "forget") as other:
            with pytest.raises(NotConnected):
                await Burial(other, "local", Publish()).bury(found)
        [after] = await Burial(bus, "local", Publish()).of([PROD])

    assert found == after


async def test_collector_declares_guests_gone(facts: Guarded) -> None:
    """`guestwire forget` works in the collector's role: by host and by name, with what is kept of them."""
    async with Bus(facts.settings("collector"), "forget") as bus:
        burial = Burial(bus, "local", Publish())
        assert [PROD, TEST] == [found.ref for found in await burial.of_host("h")]
        [found] = await burial.of([TEST])
        assert [True, True] == [await burial.bury(found), await burial.purge(TEST)]
    async with Bus(facts.settings("subscriber"), "test") as bus:
        left = [(m.address.ref, m.address.kind) async for m in client.follow(bus, live=False)]

    assert [(PROD, "agent"), (PROD, "userlist"), (TEST, "agent")] == left


async def test_collector_waits_for_the_administrator(guarded: Guarded, nats_program: Path) -> None:
    """Where it may not make the stream, it waits until somebody who may has made it."""
    async with Bus(guarded.settings("collector", timeout=0.5), "collector") as bus:
        waiting = asyncio.create_task(bus.ensure_stream_patiently(asyncio.Event()))
        await asyncio.sleep(1.5)
        assert not waiting.done()
        cli = guarded.cli(nats_program, "administrator")
        await asyncio.to_thread(cli, "stream", "add", "GUESTWIRE", "--config", str(DEPLOY / "stream.json"))

        assert await asyncio.wait_for(waiting, 60)


async def test_status_writer(facts: Guarded, eventually: Eventually) -> None:
    """It makes its consumer, receives, settles, and looks up last messages."""
    received: list[Delivery] = []
    async with Bus(facts.settings("status-writer"), "status-writer") as bus:
        assert await bus.ensure_stream_patiently(asyncio.Event(), create=False)
        consumer = Consumer(bus, "local", "status-writer", received.append)
        running = asyncio.create_task(consumer.run(asyncio.Event()))
        await eventually(lambda: len(received) == 4, within=60)
        for delivery in received:
            await delivery.msg.ack_sync(timeout=30)
        last = await bus.last("local", PROD)
        info = await bus.js.consumer_info("GUESTWIRE", "status-writer")
        await cancel(running)

    assert {"agent", "userlist"} == set(last)
    assert 0 == info.num_ack_pending


class Taken:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.complete_ = False

    def begin(self) -> None:
        """Nothing to do."""

    def apply(self, message: Message) -> None:
        """Keep it."""
        self.messages.append(message)

    def complete(self) -> None:
        """The present values are here."""
        self.complete_ = True


async def test_api(facts: Guarded, eventually: Eventually) -> None:
    """It fills its cache and follows, of its own cluster."""
    taken = Taken()
    async with Bus(facts.settings("api"), "api") as bus:
        following = asyncio.create_task(Follower(bus, subjects.pattern(cluster="local"), taken).run())
        await eventually(lambda: taken.complete_, within=60)
        async with Bus(facts.settings("collector"), "collector") as collector:
            await publish(collector, PROD, fact(Kind.USERLIST, UserList((), ListMeta())))
        await eventually(lambda: len(taken.messages) == 5, within=60)
        await cancel(following)

    assert {PROD, TEST} == {message.address.ref for message in taken.messages}


async def test_api_of_another_cluster(facts: Guarded) -> None:
    """It cannot follow what is not its own: the request for a consumer names the subjects."""
    taken = Taken()
    async with Bus(facts.settings("api", timeout=1), "api") as bus:
        with pytest.raises(NotConnected):  # the server does not answer
            await Follower(bus, subjects.pattern(), taken)._follow()

    assert [] == taken.messages


async def has(view: KeyValue, key: str) -> bool:
    """Whether the bucket has a key."""
    try:
        await view.get(key)
    except KeyNotFoundError:
        return False
    return True


async def test_subscriber(facts: Guarded, nats_program: Path) -> None:
    """It follows with the client, with nats-py's own consumers and buckets, and with the command."""
    settings = facts.settings("subscriber")
    async with Bus(settings, "test") as bus:
        view = await bus.js.key_value("guestwire")
        await until(lambda: has(view, "local.test.web.userlist"))
        assert 4 == len([message async for message in client.follow(bus, live=False)])
        assert {"agent", "userlist"} == set(await bus.last("local", TEST))
        named = ConsumerConfig(name="mine")  # or the request would not tell whose consumer it is about
        users = "guestwire.v1.*.*.*.userlist"
        ordered = await bus.js.subscribe(users, stream="GUESTWIRE", ordered_consumer=True, config=named)
        assert "guestwire.v1.local.prod.web.userlist" == (await ordered.next_msg(30)).subject
        entry = await view.get("local.test.web.userlist")
        assert b'{"items":[{"userName":"root"}],"metadata":{}}' == entry.value
        assert 4 == len(await view.keys())
    cli = facts.cli(nats_program, "subscriber")
    assert '"userName":"root"' in cli("kv", "get", "guestwire", "local.prod.web.userlist", "--raw")
    assert '"userName":"root"' in cli("sub", "guestwire.v1.local.prod.web.userlist", "--last", "--count", "1", "--raw")


async def test_subscriber_of_a_namespace(facts: Guarded, eventually: Eventually, nats_program: Path) -> None:
    """It sees that namespace, by every way there is, with the same revisions; and nothing of another one."""
    settings = facts.settings("prod-subscriber", bucket="")
    live: list[str] = []
    async with Bus(settings, "test") as bus, Bus(facts.settings("subscriber"), "all") as other:

        async def heard(msg: Msg) -> None:
            live.append(msg.subject)

        async def copied() -> bool:
            return (await bus.js.stream_info("GUESTWIRE")).state.messages == 2

        await bus.client.subscribe("guestwire.v1.*.prod.*.*", cb=heard)
        await until(copied)
        mine = [message async for message in client.follow(bus, live=False)]
        theirs = [message async for message in client.follow(other, live=False) if message.address.ref == PROD]
        assert [(m.address, m.revision, m.body) for m in theirs] == [(m.address, m.revision, m.body) for m in mine]
        assert {} == await bus.last("local", TEST)
        info = await bus.js.stream_info("GUESTWIRE", subjects_filter=">")
        assert {f"guestwire.v1.local.prod.web.{kind}": 1 for kind in ("agent", "userlist")} == info.state.subjects
        async with Bus(facts.settings("collector"), "collector") as collector:
            for ref in (TEST, PROD):
                await publish(collector, ref, fact(Kind.USERLIST, UserList((), ListMeta())))
        await eventually(lambda: live, within=30)
        await bus.client.flush()
    assert ["guestwire.v1.local.prod.web.userlist"] == live
    cli = facts.cli(nats_program, "prod-subscriber")
    assert "test" not in cli("stream", "subjects", "GUESTWIRE")


# --- what is refused ---------------------------------------------------------------------------------------------

STAGES = ("administrator", "collector", "status-writer", "api", "subscriber", "prod-subscriber")
API = "$JS.API"
MAY_PUBLISH: dict[str, set[str]] = {
    "guestwire.v1.local.prod.web.agent": {"collector"},
    "guestwire.v1.other.prod.web.agent": set(),
    "guestwire.v1.local.prod.web.read.userlist": {"api"},
    "guestwire.v1.other.prod.web.read.userlist": set(),
    f"{API}.STREAM.CREATE.GUESTWIRE": {"administrator"},
    f"{API}.STREAM.UPDATE.GUESTWIRE": {"administrator"},
    f"{API}.STREAM.DELETE.GUESTWIRE": {"administrator"},
    f"{API}.STREAM.CREATE.MINE": {"administrator"},
    f"{API}.STREAM.PURGE.GUESTWIRE": {"administrator", "collector"},
    f"{API}.STREAM.MSG.DELETE.GUESTWIRE": set(),
    f"{API}.STREAM.MSG.GET.GUESTWIRE": {"prod-subscriber"},
    f"{API}.STREAM.SNAPSHOT.GUESTWIRE": {"prod-subscriber"},
    f"{API}.STREAM.INFO.GUESTWIRE": set(STAGES),
    f"{API}.DIRECT.GET.GUESTWIRE": {"collector", "status-writer", "subscriber", "prod-subscriber"},
    f"{API}.DIRECT.GET.GUESTWIRE.guestwire.v1.local.prod.web.agent": {"subscriber", "prod-subscriber"},
    f"{API}.CONSUMER.CREATE.GUESTWIRE.x.guestwire.v1.local.*.*.*": {"api", "subscriber", "prod-subscriber"},
    f"{API}.CONSUMER.CREATE.GUESTWIRE.x.guestwire.v1.local.*.*.agent": {
        "api", "collector", "subscriber", "prod-subscriber"
    },
    f"{API}.CONSUMER.CREATE.GUESTWIRE.x.guestwire.v1.other.*.*.*": {"subscriber", "prod-subscriber"},
    f"{API}.CONSUMER.CREATE.GUESTWIRE.x.guestwire.v1.*.*.*.*": {"subscriber", "prod-subscriber"},
    f"{API}.CONSUMER.CREATE.GUESTWIRE": {"prod-subscriber"},
    f"{API}.CONSUMER.CREATE.GUESTWIRE.x": {"subscriber", "prod-subscriber"},
    f"{API}.CONSUMER.CREATE.GUESTWIRE.status-writer.guestwire.v1.local.*.*.agent": {"prod-subscriber"},
    f"{API}.CONSUMER.DURABLE.CREATE.GUESTWIRE.status-writer": {"status-writer", "prod-subscriber"},
    f"{API}.CONSUMER.DURABLE.CREATE.GUESTWIRE.x": {"prod-subscriber"},
    f"{API}.CONSUMER.DELETE.GUESTWIRE.status-writer": {"administrator", "prod-subscriber"},
    f"{API}.CONSUMER.MSG.NEXT.GUESTWIRE.status-writer": {"status-writer", "prod-subscriber"},
    "$JS.ACK.GUESTWIRE.status-writer.1.1.1.1.1": {"status-writer", "prod-subscriber"},
    "$KV.guestwire.local.prod.web.agent": set(),
    "copy.prod.x": set(),
    "origin.CONSUMER.CREATE.GUESTWIRE.x.guestwire.v1.*.prod.*.*": set(),
    "_INBOX_api.x": set(),
    "anything.else": set(),
}  # fmt: skip
"""Who may send to a subject. `prod-subscriber` is in another account, where GUESTWIRE is a copy."""
MAY_SUBSCRIBE: dict[str, set[str]] = {
    **{f"{inbox}.>": {role for role in STAGES if INBOXES[role] == inbox} for inbox in INBOXES.values()},
    "guestwire.v1.*.*.*.*": {"subscriber"},
    "guestwire.v1.*.prod.*.*": {"subscriber", "prod-subscriber"},
    "guestwire.v1.local.*.*.read.*": {"collector"},
    "guestwire.v1.other.*.*.read.*": set(),
    "$SRV.PING": {"collector"},
    "$JS.API.>": set(),
    "$JS.ACK.>": set(),
    "copy.>": set(),
    ">": set(),
}


async def connect(settings: Nats, said: list[str]) -> Client:
    """A connection by hand; what the server refuses it is added to `said`."""

    async def told(error: Exception) -> None:
        said.append(str(error).lower())

    return await nats.connect(servers=list(settings.servers), error_cb=told, allow_reconnect=False, **options(settings))


@pytest.mark.parametrize("role", STAGES)
async def test_refused(guarded: Guarded, role: str, eventually: Eventually) -> None:
    """Every other subject is refused, and its own are not."""
    said: list[str] = []
    connection = await connect(guarded.settings(role), said)
    try:
        for subject in MAY_PUBLISH:
            await connection.publish(subject, b"{ no request }")
        for subject in [*MAY_SUBSCRIBE, "the.end"]:
            await connection.subscribe(subject)
        await eventually(lambda: 'subscription to "the.end"' in "\n".join(said), within=30)  # it answers in order
    finally:
        await connection.close()
    may_publish = {s for s in MAY_PUBLISH if f'publish to "{s.lower()}"' not in "\n".join(said)}
    may_subscribe = {s for s in MAY_SUBSCRIBE if f'subscription to "{s.lower()}"' not in "\n".join(said)}

    assert {subject for subject, roles in MAY_PUBLISH.items() if role in roles} == may_publish
    assert {subject for subject, roles in MAY_SUBSCRIBE.items() if role in roles} == may_subscribe


@pytest.mark.parametrize("role", ["collector", "status-writer", "api", "subscriber"])
async def test_doctor(made: Guarded, role: str) -> None:
    """`guestwire doctor` finds nothing wrong with the rights of a role."""
    findings = await check_nats(made.settings(role), chosen=True)

    assert [Outcome.OK] * 3 == [finding.outcome for finding in findings], findings


@pytest.mark.parametrize("key", ["", "stranger.nk"])
async def test_strangers_are_not_let_in(guarded: Guarded, key: str) -> None:
    """Neither without a key nor with an unknown one."""
    (guarded.directory / "stranger.nk").write_text(new_seed())
    settings = guarded.settings("api", nkey=str(guarded.directory / key) if key else "")
    with pytest.raises(nats.errors.Error, match=r"(?i)authorization violation"):
        await connect(settings, [])


async def test_flow_control(made: Guarded) -> None:
    """Many messages flow through every role that follows, also through the copy in another account."""
    many, body = 20_000, b'{"text":"' + b"x" * 2000 + b'"}'
    async with Bus(made.settings("collector"), "collector") as bus:
        for number in range(many):
            ref = GuestRef("prod", f"vm{number}")
            headers = codec.event_headers(
                ref=ref, uid="u", cluster="local", host="h", part=Part("load", body, "", codec.now()),
                message_id=str(number), trace_id=codec.new_trace_id(),
            )  # fmt: skip
            await bus.client.publish(subjects.subject("local", ref, "load"), body, headers=headers)
        await bus.client.flush(60)
    for role in ("subscriber", "prod-subscriber"):
        async with Bus(made.settings(role, timeout=30), role) as bus:

            async def whole(bus: Bus = bus) -> bool:
                return (await bus.js.stream_info("GUESTWIRE")).state.messages == many

            await until(whole, within=120)
            async with asyncio.timeout(120):
                assert many == len([message async for message in client.follow(bus, live=False)])
