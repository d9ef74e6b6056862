"""
The examples in docs/messages.md, and everything else that is said there about a message, against a real guest's.

The examples were taken from such a guest; what differs from run to run (times, counters, versions of the guest's
packages) may differ from the page, all else may not. WRITE_EXAMPLES=1 writes them into the page anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from collectors.collector import Collector
from guestwire import asyncapi, subjects
from guestwire.jetstream import Bus
from guestwire.kinds import OPTIONAL
from guestwire.settings import Collect, Libvirt, Nats, Publish, Settings
from guestwire.snapshot import GuestRef, Kind
from lab import nats_cli
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd
from lab.nats_cli import NatsCli
from lab.nats_server import NatsServer
from lab.paths import cache_dir
from publishers.jetstream import JetStreamPublisher
from tests.conftest import part

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "messages.md"
REF = GuestRef("default", "demo")
UID = "296fda2e-57e4-4bba-ae78-6955efd97b13"
KINDS = [kind for kind in Kind if kind is not Kind.LOAD]
"""What the lab's guest has; guest-get-load came with QEMU 10.0, and is taken from the recorded agent of Debian 13."""
RECORDED = ROOT / "tests" / "unit" / "collectors" / "recorded" / "qemu-ga-10.0-debian-13.json"

UNITS = ("Bytes", "Merges", "Requests", "Time")
VOLATILE: dict[str, set[str]] = {
    "agent": {"domainUuid", "host", "since", "observedAt", "version"},
    "guestosinfo": {"guestAgentVersion", "kernelRelease", "kernelVersion", "loginTime", "totalBytes", "usedBytes"},
    "userlist": {"loginTime"},
    "filesystemlist": {"totalBytes", "usedBytes"},
    "diskstats": {
        *("busyTime", "queueTime", "inFlight"),
        *(f"{what}{unit}" for what in ("read", "write", "discard", "flush") for unit in UNITS),
    },
    "cpustats": {
        "idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"
    },
    "time": {"offset", "uncertainty"},
}  # fmt: skip
"""By kind: fields whose values differ from run to run. They must be there, with values of the same type."""
SHORTENED = {"commands", "supportedCommands"}
"""Lists of which the page has some entries only."""
SHOWN = {"guest-get-devices", "guest-get-users", "guest-info"}


class Published(NamedTuple):
    """A message as the server gives it out."""

    subject: str
    revision: int
    headers: dict[str, str]
    body: bytes


class World(NamedTuple):
    """A guest that was published in full, with a user logged in and a second address."""

    server: NatsServer
    last: dict[str, Published]


@pytest.fixture(scope="module")
def world(host: Libvirtd, image: GuestImage, directory: Path) -> Iterator[World]:
    """Until all kinds are on the stream and show what was done in the guest."""
    with part("nats-server"):
        server = NatsServer(directory / "nats")
        server.start()
    with Guest(host, image, namespace=REF.namespace, name=REF.name, uid=UID) as guest:
        guest.wait_agent(120)
        guest.control("login", "alice")
        guest.control("address", "add", "eth0", "10.7.7.7/24")
        last = asyncio.run(published(server.url, host.uri))
    yield World(server, last)
    server.stop()


async def published(server: str, uri: str) -> dict[str, Published]:
    """Collect until everything has been said; the last messages."""
    ages = dict.fromkeys(("users", "interfaces", "system", "filesystems"), 1)
    optional = dict.fromkeys(map(str, OPTIONAL), 60)
    settings = Settings(
        libvirt=Libvirt(uris=(uri,)), collect=msgspec.convert({**ages, **optional, "command_timeout": 10}, Collect)
    )
    async with Bus(Nats(servers=(server,), bucket="guestwire"), "test") as bus:
        await bus.ensure_stream()
        publisher = JetStreamPublisher(bus, settings.cluster, Publish())
        collector, stop = Collector(settings, publisher), asyncio.Event()
        publishing = asyncio.create_task(publisher.run())
        running = asyncio.create_task(collector.run(stop))
        try:
            async with asyncio.timeout(180):
                while True:
                    if whole(await everything(bus)):
                        break
                    await asyncio.sleep(0.5)
        finally:
            stop.set()
            await running
            publisher.close()
            await publishing
        return await everything(bus)  # the last words: something may have been said until the end


async def everything(bus: Bus) -> dict[str, Published]:
    """The last message of each kind, raw, as any client would ask for it."""
    found = {}
    for kind in Kind:
        subject = subjects.subject("local", REF, kind)
        answer = await bus.client.request(f"$JS.API.DIRECT.GET.GUESTWIRE.{subject}", timeout=30)
        headers = dict(answer.headers or {})
        if "Nats-Sequence" in headers:
            found[str(kind)] = Published(headers["Nats-Subject"], int(headers["Nats-Sequence"]), headers, answer.data)
    return found


def whole(last: dict[str, Published]) -> bool:
    """Whether every kind is there, and what was done in the guest is seen; the kernel's own address comes late."""
    if not set(KINDS) <= set(last):
        return False
    agent = json.loads(last["agent"].body)
    users = all(b'"alice"' in last[kind].body for kind in ("userlist", "guestosinfo"))
    addresses = all(text in last["interfaces"].body for text in (b"10.7.7.7", b"fe80::", b"::1"))
    read = all("observedAt" in agent["readings"].get(kind, {}) for kind in KINDS if kind is not Kind.AGENT)
    tried = "error" in agent["readings"].get(Kind.LOAD, {})
    return users and addresses and read and tried and agent.get("responsive") is True


# --- the page --------------------------------------------------------------------------------------------------------


def sections() -> list[str]:
    """The page, cut before each heading."""
    return re.split(r"^(?=#+ )", PAGE.read_text(), flags=re.MULTILINE)


def example(heading: str, language: str) -> str:
    """The first block of a language in a section."""
    [section] = [text for text in sections() if text.partition("\n")[0].strip("# `") == heading]
    found = re.search(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)
    assert found, heading
    return found[1]


def shown(kind: str, body: Any) -> Any:
    """A body as the page shows it: long lists of commands shortened."""
    if kind == "agent":
        body["commands"] = [command for command in body["commands"] if command in SHOWN]
    if kind == "guestosinfo":
        body["supportedCommands"] = [entry for entry in body["supportedCommands"] if entry["name"] in SHOWN]
    return body


def write(last: dict[str, Published]) -> None:
    """The real messages into the page."""
    text = []
    for section in sections():
        heading = section.partition("\n")[0].strip("# `")
        if heading in last:
            body = json.dumps(shown(heading, json.loads(last[heading].body)), indent=2, ensure_ascii=False)
            section = re.sub(r"```json\n.*?```", lambda _: f"```json\n{body}\n```", section, count=1, flags=re.DOTALL)  # noqa: B023, PLW2901
        if heading == "Headers":
            lines = "\n".join(f"{name}: {value}" for name, value in own_headers(last["userlist"]).items())
            section = re.sub(r"```\n.*?```", lambda _: f"```\n{lines}\n```", section, count=1, flags=re.DOTALL)  # noqa: B023, PLW2901
        text.append(section)
    PAGE.write_text("".join(text))


def own_headers(message: Published) -> dict[str, str]:
    """Those it was published with, but for those of a batch; the server's answer to a direct get adds its own."""
    added = ("Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending", "Nats-Batch-")
    return {name: value for name, value in message.headers.items() if not name.startswith(added)}


def differences(documented: Any, real: Any, volatile: set[str], path: str = "") -> list[str]:
    """Where the page says something else than the guest."""
    name = re.sub(r"\[\d+\]", "", path.rpartition(".")[2])
    if name in volatile:
        same = {float if isinstance(value, int | float) else type(value) for value in (documented, real)}
        return [] if len(same) == 1 else [f"{path}: {documented!r} against {real!r}"]
    if isinstance(documented, dict) and isinstance(real, dict):
        if documented.keys() != real.keys():
            return [f"{path}: fields {sorted(documented.keys() ^ real.keys())}"]
        return [text for key in real for text in differences(documented[key], real[key], volatile, f"{path}.{key}")]
    if isinstance(documented, list) and isinstance(real, list):
        if name in SHORTENED:
            return [f"{path}: no {entry!r}" for entry in documented if entry not in real]
        if len(documented) != len(real):
            return [f"{path}: {len(documented)} entries against {len(real)}"]
        pairs = enumerate(zip(documented, real, strict=True))
        return [text for number, (a, b) in pairs for text in differences(a, b, volatile, f"{path}[{number}]")]
    return [] if documented == real else [f"{path}: {documented!r} against {real!r}"]


async def test_bodies(world: World) -> None:
    """Every example is what the guest says."""
    if os.environ.get("WRITE_EXAMPLES"):
        write(world.last)
    found = {
        kind: differences(
            json.loads(example(kind, "json")), json.loads(world.last[kind].body), VOLATILE.get(kind, set())
        )
        for kind in KINDS
    }

    assert {kind: [] for kind in KINDS} == found


def test_load() -> None:
    """The one example of another guest is what its agent said."""
    reply = json.loads(RECORDED.read_text())["replies"]["guest-get-load"]["return"]

    assert json.loads(example("load", "json")) == reply


async def test_headers(world: World) -> None:
    """The headers on the page are those of a message, and each follows its schema."""
    documented = dict(line.split(": ", 1) for line in example("Headers", "").splitlines())
    schema = asyncapi.document()["components"]["messageTraits"]["cloudEvent"]["headers"]

    assert set(documented) == set(own_headers(world.last["userlist"]))
    for kind, message in world.last.items():
        jsonschema.Draft202012Validator(schema).validate(own_headers(message))
        fixed = {
            "ce-specversion": "1.0",
            "ce-type": f"io.guestwire.guest.{kind}.v1",
            "ce-subject": str(REF),
            "ce-datacontenttype": "application/json",
            "ce-dataschema": f"urn:guestwire:v1:{kind}",
            "ce-guestuid": UID,
        }
        assert fixed == {name: message.headers[name] for name in fixed}
        assert message.headers["ce-id"] == message.headers["Nats-Msg-Id"]
    assert {name: documented[name] for name in ("ce-subject", "ce-guestuid", "ce-type")} == {
        name: world.last["userlist"].headers[name] for name in ("ce-subject", "ce-guestuid", "ce-type")
    }


async def test_cloud_events(world: World) -> None:
    """CloudEvents' own SDK reads every message from the server. Over HTTP only the body's type has another header."""
    for kind, message in world.last.items():
        events = {name: value for name, value in message.headers.items() if name.startswith("ce-")}
        content = {"Content-Type": events.pop("ce-datacontenttype")}
        event = from_http_event(HTTPMessage(events | content, message.body))

        assert (f"io.guestwire.guest.{kind}.v1", "default/demo") == (event.get_type(), event.get_subject())
        assert json.loads(message.body) == event.get_data()


async def test_plain_json(world: World, tmp_path: Path) -> None:
    """What `nats sub` and `nats kv get` show is the body."""
    with part("nats command"):
        program = nats_cli.build(cache_dir(), print)
    cli = NatsCli(program, tmp_path, world.server.url)
    for kind in KINDS:
        subject, key = subjects.subject("local", REF, kind), f"local.default.demo.{kind}"
        said = await asyncio.to_thread(cli, "sub", subject, "--last", "--count", "1", "--raw")
        value = await asyncio.to_thread(cli, "kv", "get", "guestwire", key, "--raw")
        same = json.loads(world.last[kind].body)

        assert [same, same] == [json.loads(said), json.loads(value)]


def commands() -> list[str]:
    """Every `nats` command on the page, in its order; what deletes comes last."""
    blocks = [text for _, text in re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)]
    found = [line.partition("  #")[0].strip() for text in blocks for line in text.splitlines() if line[:5] == "nats "]
    found = [
        command for command in found if ".read." not in command
    ]  # see tests/integration/collectors/test_readings.py
    return sorted(found, key=lambda command: "purge" in command)


@pytest.mark.parametrize("command", commands())
async def test_commands(world: World, tmp_path: Path, command: str) -> None:
    """A command on the page works as it stands there, but for names of what this stream has not."""
    with part("nats command"):
        cli = NatsCli(nats_cli.build(cache_dir(), print), tmp_path, world.server.url)
    words = shlex.split(command)[1:]
    words = [word.replace(".prod.", ".default.") for word in words]
    words = [str(world.last["userlist"].revision) if word in {"42", "43"} else word for word in words]
    words = ["1" if word == "10" else word for word in words]
    if words[0] == "sub" and "--count" not in words:  # would go on for ever
        words += ["--count", "1"]
    if words[:2] == ["kv", "watch"]:
        with pytest.raises(subprocess.TimeoutExpired) as endless:
            await asyncio.to_thread(cli.run, *words, timeout=10)
        said = str(endless.value.stdout)
    else:
        said = await asyncio.to_thread(cli, *words, *(["--force"] if "purge" in words else []), timeout=30)

    assert "" != said
