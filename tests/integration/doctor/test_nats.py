"""NATS servers that are away, closed, too small or without JetStream, and streams that are not ours."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from guestwire.jetstream import Bus, stream_config
from guestwire.settings import Nats
from lab.nats_server import NatsServer
from lab.process import free_port, wait_until

from .conftest import examine

pytestmark = pytest.mark.lab


def test_fresh_server(nats_server: NatsServer) -> None:
    """A server without the stream will do; the check does not make it."""
    found = examine(NATS__SERVERS=nats_server.url)

    assert ["ok", "ok"] == found.outcomes("NATS", nats_server.url)
    assert "nats-server 2." in found.of("NATS")[0]["text"]
    assert ["note"] == found.outcomes("NATS", "stream GUESTWIRE")
    assert 0 == nats_server.monitor("jsz")["streams"]


async def test_stream_of_ours(nats_server: NatsServer, bus: Bus) -> None:
    """With the stream as the collector makes it all is well."""
    found = examine(NATS__SERVERS=nats_server.url)

    assert ["ok", "ok", "ok"] == found.outcomes("NATS")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"subjects": ["orders.>"]}, "does not take guestwire.v1"),
        ({"allow_direct": False}, "gives no last messages directly"),
        ({"name": "OTHER"}, "stream OTHER has its subjects"),
    ],
)
async def test_unfit_stream(nats_server: NatsServer, change: dict[str, Any], words: str) -> None:
    """A stream that does not do, or one that has our subjects already, is named with the reason."""
    settings = Nats(servers=(nats_server.url,))
    async with Bus(settings, "test") as bus:
        await bus.js.add_stream(stream_config(settings).evolve(**change))
    text, advice = examine(NATS__SERVERS=nats_server.url).problem("NATS")

    assert words in text
    assert "" != advice


def test_no_jetstream(tmp_path: Path) -> None:
    """A server without JetStream is told from one that is away."""
    with plain_server(tmp_path) as server:
        text, advice = examine(NATS__SERVERS=server.url).problem("NATS")

    assert "JetStream is off" in text
    assert "start it with -js" in advice


def test_no_server() -> None:
    """A server that was named and is not there is a problem."""
    address = f"nats://127.0.0.1:{free_port()}"
    text, advice = examine(NATS__SERVERS=address).problem("NATS")

    assert "cannot be used" in text
    assert "start nats-server there" in advice


def test_nobody_asked_for_a_server() -> None:
    """Where no server is named, its absence is no problem: `guestwire up` brings one."""
    found = examine(NATS__SERVERS=None)

    assert "problem" not in found.outcomes("NATS")


def test_not_let_in(tmp_path: Path) -> None:
    """A server that wants credentials: the setting for them."""
    with NatsServer(tmp_path / "closed", config="authorization { user: a, password: b }") as server:
        text, advice = examine(NATS__SERVERS=server.url).problem("NATS")

    assert "Authorization Violation" in text
    assert "GUESTWIRE_NATS__CREDENTIALS" in advice


def test_small_payload(tmp_path: Path) -> None:
    """A server that takes small messages only: the limit to raise."""
    with NatsServer(tmp_path / "small", config="max_payload: 65536") as server:
        text, advice = examine(NATS__SERVERS=server.url).problem("NATS")

    assert "at most 65536 bytes" in text
    assert "max_payload" in advice


@contextmanager
def plain_server(directory: Path) -> Iterator[NatsServer]:
    """A server without JetStream."""
    server = NatsServer(directory / "plain")
    file = server.directory / "nats.conf"
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if "jetstream" not in line))
    server.launch()
    try:
        wait_until(lambda: listens(server.port), 10, "nats-server serves")
        yield server
    finally:
        server.stop()


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
