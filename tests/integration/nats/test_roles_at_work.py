"""The roles of deploy/nats, held by the commands themselves."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from guestwire.jetstream import Bus
from guestwire.snapshot import Kind, ListMeta, User, UserList
from lab.process import Daemon, free_port

from .conftest import Guarded
from .facts import PROD, TEST, fact, publish

pytestmark = pytest.mark.lab

GUESTWIRE = Path(sysconfig.get_path("scripts"), "guestwire")
GUESTS = "/apis/guestwire.io/v1/guests"
HISTORY = "/apis/guestwire.io/v1/namespaces/prod/guests/web/history"
READY_SECONDS = 10
"""Far less than the waits for answers that never come would add up to."""


def environment(guarded: Guarded, role: str, **others: str) -> dict[str, str]:
    """Of a command in a role."""
    settings = guarded.settings(role)
    given = {
        "NATS__SERVERS": settings.servers[0],
        "NATS__CA": settings.ca,
        "NATS__NKEY": settings.nkey,
        "NATS__INBOX": settings.inbox,
        "NATS__TIMEOUT": "2",
        "LOG__FORMAT": "json",
    }
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GUESTWIRE_")}
    return plain | {f"GUESTWIRE_{name}": value for name, value in (given | others).items()}


class Api:
    """`guestwire serve` in its role."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log

    def get(self, path: str) -> list[Any]:
        """The documents of an answer, one a line."""
        with urllib.request.urlopen(self.url + path, timeout=20) as answer:  # noqa: S310 - our own
            return [json.loads(line) for line in answer]

    def ready(self) -> bool:
        """Whether its cache is filled."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:  # noqa: S310 - our own
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def serving(guarded: Guarded) -> Iterator[Api]:
    """It runs, and is ready in good time."""
    port, log = free_port(), guarded.directory / "serve.log"
    env = environment(guarded, "api", API__LISTEN=f"127.0.0.1:{port}")
    with Daemon([GUESTWIRE, "serve"], log=log, env=env) as process:
        api = Api(f"http://127.0.0.1:{port}", log)
        process.ready(api.ready, timeout=READY_SECONDS)
        yield api


def served(guarded: Guarded, revision: int) -> tuple[Any, list[Any], str]:
    """The history of a guest, what a watch from a revision is told, and the log."""
    with serving(guarded) as api:
        (history,) = api.get(HISTORY)
        return history, api.get(f"{GUESTS}?watch=true&resourceVersion={revision}&timeoutSeconds=1"), api.log.read_text()


async def test_api(facts: Guarded) -> None:
    """
    It is ready at once, tells a guest's history, and lets a watch go on from a revision of before it started: nothing
    that it needs for that is refused.
    """
    async with Bus(facts.settings("collector"), "collector") as bus:
        after = await publish(bus, TEST, fact(Kind.USERLIST, UserList((), ListMeta())))
        revision = after[Kind.USERLIST] - 1
        await publish(bus, PROD, fact(Kind.USERLIST, UserList((User("alice"),), ListMeta())))
    history, events, log = await asyncio.to_thread(served, facts, revision)

    assert [["items[alice]", "items[root]"]] == [
        sorted(each["path"] for each in entry["differences"]) for entry in history["items"] if "differences" in entry
    ]
    assert {("MODIFIED", "prod"), ("MODIFIED", "test")} == {
        (event["type"], event["object"]["metadata"]["namespace"]) for event in events if event["type"] != "BOOKMARK"
    }
    assert "ermissions" not in log, log


def run(guarded: Guarded, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """`guestwire` to its end, by whoever may read everything."""
    return subprocess.run(
        [GUESTWIRE, *arguments],
        env=environment(guarded, "subscriber"),
        cwd=guarded.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["watch", "--no-follow", "-o", "table"], "prod/web"),
        (["watch", "--no-follow", "--since", "1h"], "alice"),
        (["history", "prod/web", "userlist"], "alice"),
        (["diff", "prod/web", "--since", "1"], "alice"),
        (["export", "--to", "parquet", "exported"], ""),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
async def test_subscriber(facts: Guarded, arguments: list[str], expected: str) -> None:
    """Whoever may read everything can use each command that reads."""
    async with Bus(facts.settings("collector"), "collector") as bus:
        await publish(bus, PROD, fact(Kind.USERLIST, UserList((User("alice"),), ListMeta())))
    began = time.monotonic()
    done = await asyncio.to_thread(run, facts, arguments)

    assert 0 == done.returncode, done.stderr
    assert expected in done.stdout
    assert "ermissions" not in done.stderr, done.stderr
    assert time.monotonic() - began < 2 * READY_SECONDS
