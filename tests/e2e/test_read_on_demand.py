"""
Reads that have a guest read: by HTTP, through NATS, by the collector, from the real agent. Both processes are run as
they are; the collector asks once at the beginning, and then not again within the hour.
"""

from __future__ import annotations

import json
import os
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from collectors.host_collector import FRESH
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd
from lab.nats_server import NatsServer
from lab.process import Daemon, free_port, wait_until
from tests.conftest import part

pytestmark = pytest.mark.lab

GUESTWIRE = Path(sysconfig.get_path("scripts"), "guestwire")
SELDOM = {f"COLLECT__{each}": "3600" for each in ("USERS", "INTERFACES", "SYSTEM", "FILESYSTEMS")}
PATIENCE = 90.0


class Reply(NamedTuple):
    """What came back, and how long it took."""

    status: int
    headers: dict[str, str]
    told: Any
    seconds: float

    @property
    def users(self) -> list[str]:
        """Names in a user list, be it a guest's."""
        return [each["userName"] for each in self.told.get("status", {}).get("userlist", self.told)["items"]]


class Pipeline:
    """A guest, its collector, and the API."""

    def __init__(self, directory: Path, nats: NatsServer, guest: Guest) -> None:
        self.guest = guest
        self._listen = f"127.0.0.1:{free_port()}"
        given = {
            "NATS__SERVERS": nats.url,
            "LIBVIRT__URIS": guest.host.uri,
            "COLLECT__HEALTH": f"127.0.0.1:{free_port()}",
            "COLLECT__COMMAND_TIMEOUT": "3",
            "API__LISTEN": self._listen,
            **SELDOM,
        }
        env = os.environ | {f"GUESTWIRE_{name}": value for name, value in given.items()}
        self.stages = [
            Daemon([GUESTWIRE, each], log=directory / f"{each}.log", env=env) for each in ("collect", "serve")
        ]

    def get(self, path: str) -> Reply:
        """Of the guest; status 0 when nobody answers."""
        url, began = f"http://{self._listen}/apis/guestwire.io/v1/namespaces/default/guests/web{path}", time.monotonic()
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return Reply(answer.status, dict(answer.headers), json.load(answer), time.monotonic() - began)
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, dict(error.headers), json.load(error), time.monotonic() - began)
        except OSError:
            return Reply(0, {}, {}, 0)

    def fresh(self, path: str = "") -> Reply:
        """As of now. What the collector has read within the last second it does not read again: so long is waited."""
        time.sleep(FRESH.total_seconds())
        return self.get(f"{path}?maxAge=0")

    def until_known(self) -> None:
        """Wait until all has been read once."""
        kinds = {"agent", "guestosinfo", "userlist", "filesystemlist", "interfaces"}
        wait_until(lambda: kinds <= set(self.get("").told.get("status", {})), PATIENCE, "the guest is known")


@pytest.fixture(scope="module")
def pipeline(directory: Path, host: Libvirtd, image: GuestImage) -> Iterator[Pipeline]:
    """All of it running, and everything read once."""
    with part("nats-server"):
        nats = NatsServer(directory / "nats")
        nats.start()
    with Guest(host, image, namespace="default", name="web") as guest:
        guest.wait_agent()
        pipeline = Pipeline(directory, nats, guest)
        try:
            for each in pipeline.stages:
                each.start()
            pipeline.until_known()
            yield pipeline
        finally:
            for each in reversed(pipeline.stages):
                each.stop()
            nats.stop()


def test_a_login_is_told_at_once(pipeline: Pipeline) -> None:
    """Who has just logged in is told to whoever asks for it, and from then on to everybody."""
    pipeline.guest.control("login", "alice")
    cached = pipeline.get("/userlist")
    fresh = pipeline.fresh("/userlist")

    assert ([], ["alice"]) == (cached.users, fresh.users)
    assert int(fresh.headers["age"]) <= fresh.seconds + 2
    assert ["alice"] == pipeline.get("/userlist").users


def test_a_whole_guest_is_told_as_it_is(pipeline: Pipeline) -> None:
    """Every kind of it is, at the same time."""
    pipeline.guest.control("login", "bob")
    pipeline.guest.control("hostname", "renamed")
    assert "bob" not in pipeline.get("").users
    fresh = pipeline.fresh()
    status = fresh.told["status"]

    assert "bob" in fresh.users
    assert "bob" in [each["userName"] for each in status["guestosinfo"]["userList"]]
    assert "renamed" == status["guestosinfo"]["hostname"]
    assert int(fresh.headers["age"]) <= fresh.seconds + 2
    assert fresh.told["metadata"]["resourceVersion"] == pipeline.get("").told["metadata"]["resourceVersion"]


@pytest.mark.parametrize("path", ["/userlist", ""])
def test_an_agent_that_hangs(pipeline: Pipeline, path: str) -> None:
    """504 tells why, and how old the last value is; without the wish it is told as ever."""
    pipeline.fresh()
    read_at = time.monotonic()
    pipeline.guest.control("agent", "hang")
    try:
        reply = pipeline.fresh(path)
        usual = pipeline.get(path)
    finally:
        pipeline.guest.control("agent", "wake")
    said, _, age = reply.told["message"].removesuffix(" s old").partition("; the last value is ")

    assert (504, "Timeout") == (reply.status, reply.told["reason"])
    assert said.startswith(f'{"userlist of " if path else ""}guests.guestwire.io "web" could not be read now: ')
    assert 0 <= int(age) <= time.monotonic() - read_at + 2
    assert 200 == usual.status
    wait_until(lambda: pipeline.fresh(path).status == 200, PATIENCE, "the agent answers again")


def test_an_agent_that_is_away(pipeline: Pipeline) -> None:
    """The last values are told to who can do with them, and marked."""
    pipeline.fresh()
    before = pipeline.get("")
    pipeline.guest.control("agent", "stop")
    try:
        wait_until(lambda: pipeline.get("/userlist").status == 409, PATIENCE, "the agent is away")
        away, stale, kind = (
            pipeline.fresh(),
            pipeline.get("?allowStale=true"),
            pipeline.get("/userlist?allowStale=true"),
        )
    finally:
        pipeline.guest.control("agent", "start")

    assert {"agent"} == set(away.told["status"])
    assert before.told["status"].keys() == stale.told["status"].keys()
    assert before.users == stale.users == kind.users
    assert stale.headers["warning"] == kind.headers["warning"]
    assert stale.headers["warning"].startswith("110 ")
