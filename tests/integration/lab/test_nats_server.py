"""Real NATS servers: data across restarts, configuration."""

from __future__ import annotations

from pathlib import Path

import nats
import pytest
from nats.js.api import StreamConfig

from lab.errors import LabError
from lab.nats_server import NatsServer

pytestmark = pytest.mark.lab


async def publish(url: str, text: bytes) -> None:
    async with await nats.connect(url) as connection:
        stream = connection.jetstream(timeout=30)
        await stream.add_stream(StreamConfig(name="S", subjects=["s.>"]))
        await stream.publish("s.1", text)


async def last(url: str) -> bytes | None:
    async with await nats.connect(url) as connection:
        message = await connection.jetstream(timeout=30).get_last_msg("S", "s.1")
    return message.data


async def test_restart_keeps_data(nats_server: NatsServer) -> None:
    """A server that is stopped and started serves the same stream at the same place."""
    await publish(nats_server.url, b"kept")
    url = nats_server.url
    nats_server.restart()
    assert nats_server.url == url
    assert await last(url) == b"kept"


async def test_kill_keeps_data(nats_server: NatsServer) -> None:
    """A server that is killed has lost no acknowledged message."""
    await publish(nats_server.url, b"acknowledged")
    nats_server.kill()
    assert not nats_server.alive
    nats_server.start()
    assert await last(nats_server.url) == b"acknowledged"


def test_configuration(tmp_path: Path) -> None:
    """What is given as configuration holds."""
    with NatsServer(tmp_path / "n1", config="max_payload: 4321") as server:
        assert server.monitor("varz")["max_payload"] == 4321


def test_bad_configuration(tmp_path: Path) -> None:
    """A mistake in the configuration is an error with the server's own words."""
    server = NatsServer(tmp_path / "n1", config="frobnicate: yes")
    with pytest.raises(LabError, match=r'(?s)nats-server ended with status 1 .*unknown field "frobnicate"'):
        server.start()


def test_side_by_side(tmp_path: Path, nats_server: NatsServer) -> None:
    """Two servers run side by side."""
    with NatsServer(tmp_path / "other") as other:
        assert nats_server.url != other.url
        assert [nats_server.monitor("varz")["server_name"], other.monitor("varz")["server_name"]] == ["nats", "other"]
