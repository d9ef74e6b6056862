"""Guests for the API's clients to look at: bodies as a release wrote them, published as a collector does."""

from __future__ import annotations

import asyncio
import json
import os
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from guestwire import codec, settings, subjects
from guestwire.jetstream import Bus
from guestwire.kinds import BODIES
from guestwire.snapshot import AgentState, Body, GuestRef, Kind, ListMeta, Phase, User, UserList
from lab.nats_server import NatsServer
from lab.process import Daemon, free_port

GOLDEN = Path(__file__).parents[2] / "contract" / "golden" / "v0.1.0"

CASES = {
    Kind.AGENT: "connected",
    Kind.GUESTOSINFO: "linux-one-user",
    Kind.USERLIST: "one-user",
    Kind.FILESYSTEMLIST: "linux",
    Kind.INTERFACES: "linux",
    Kind.LOAD: "idle",
    Kind.DISKS: "linux",
    Kind.CPUSTATS: "linux",
    Kind.DISKSTATS: "linux",
}
"""Which body of a kind; of the others the first there is."""

GUESTS = "/apis/guestwire.io/v1/guests"
GUESTWIRE = Path(sysconfig.get_path("scripts"), "guestwire")


def golden(kind: str) -> Body:
    """A body of a kind."""
    files = sorted(GOLDEN.glob(f"{kind}.*.json"))
    file = GOLDEN / f"{kind}.{CASES.get(Kind(kind), '')}.json"
    return codec.decode((file if file in files else files[0]).read_bytes(), BODIES[kind])


class Collector:
    """Publishes what it is told, in an event loop of its own per call; the revisions are the stream's."""

    def __init__(self, nats: NatsServer) -> None:
        self._nats = nats

    def publish(self, *said: tuple[GuestRef, str, Body]) -> int:
        """Guests, kinds, bodies; the last revision."""
        return asyncio.run(self._publish(said))

    def guest(self, ref: GuestRef, *names: str, **facts: object) -> int:
        """A guest with these users, and what `facts` say of its agent."""
        return self.publish((ref, Kind.AGENT, state(ref, **facts)), (ref, Kind.USERLIST, users(*names)))

    def everything(self, ref: GuestRef) -> int:
        """A guest of which every kind is known."""
        bodies = [(ref, kind, golden(kind)) for kind in BODIES if kind != Kind.AGENT]
        agent = msgspec.structs.replace(golden(Kind.AGENT), namespace=ref.namespace, name=ref.name, uid=uid(ref))
        return self.publish((ref, Kind.AGENT, agent), *bodies)

    def gone(self, ref: GuestRef) -> int:
        """It went."""
        return self.publish((ref, Kind.AGENT, state(ref, phase=Phase.GONE, connected=False)))

    def new_stream(self) -> None:
        """In place of the stream that is there, with all that was in it."""

        async def renew() -> None:
            async with Bus(settings.Nats(servers=(self._nats.url,)), "administrator") as bus:
                await bus.js.delete_stream(bus.settings.stream)
                await bus.ensure_stream()

        asyncio.run(renew())

    async def _publish(self, said: tuple[tuple[GuestRef, str, Body], ...]) -> int:
        revision = 0
        async with Bus(settings.Nats(servers=(self._nats.url,)), "collector") as bus:
            await bus.ensure_stream()
            for ref, kind, body in said:
                part = codec.part(kind, body, codec.now())
                ids = {"message_id": codec.new_trace_id(), "trace_id": codec.new_trace_id()}
                headers = codec.event_headers(ref=ref, uid=uid(ref), cluster="local", host="h", part=part, **ids)
                ack = await bus.js.publish(subjects.subject("local", ref, kind), part.body, headers=headers)
                revision = int(ack.seq)
        return revision


def uid(ref: GuestRef) -> str:
    """The same for a guest each time."""
    return f"uid-of-{ref.namespace}-{ref.name}"


def users(*names: str) -> UserList:
    """A user list."""
    return UserList(tuple(User(name) for name in names), ListMeta())


def state(ref: GuestRef, **facts: object) -> AgentState:
    """Of a running guest with a connected agent, but for what `facts` say."""
    running = AgentState(
        namespace=ref.namespace,
        name=ref.name,
        uid=uid(ref),
        domain=f"{ref.namespace}_{ref.name}",
        domain_uuid=uid(ref),
        host="h",
        phase=Phase.RUNNING,
        channel=True,
        connected=True,
        since=codec.now(),
    )
    return msgspec.structs.replace(running, **facts)


class Replica:
    """`guestwire serve` on a port of its own, open to whoever asks; `names` as in `api.names`."""

    def __init__(self, nats: NatsServer, directory: Path, *, port: int | None = None, names: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environ = {"GUESTWIRE_NATS__SERVERS": nats.url, "GUESTWIRE_API__LISTEN": f"127.0.0.1:{self.port}"}
        if names:
            environ["GUESTWIRE_API__NAMES"] = names
        self.daemon = Daemon([GUESTWIRE, "serve"], log=directory / "api.log", env={**os.environ, **environ})

    def start(self) -> None:
        """Return when it is ready."""
        self.daemon.start()
        self.daemon.ready(lambda: self.get("/readyz")[0] == 200, 60)

    def stop(self) -> None:
        """End it."""
        self.daemon.stop()

    def guests(self) -> dict[str, Any]:
        """All it lists, by namespace/name; empty when it does not."""
        code, _, body = self.get(GUESTS)
        items = json.loads(body)["items"] if code == 200 else []
        return {f"{each['metadata']['namespace']}/{each['metadata']['name']}": each for each in items}

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body; 0 when nobody answers. Of a header's name `_` is `-`."""
        request = urllib.request.Request(self.url + path, headers={k.replace("_", "-"): v for k, v in headers.items()})  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                return response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()
        except OSError:
            return 0, {}, b""
