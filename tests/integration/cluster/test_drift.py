"""An operator's stream stays as it is; what follows from that is said."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from guestwire.jetstream import Bus, stream_config
from lab import nats_cli
from lab.nats_cli import NatsCli
from lab.nats_cluster import FragileCluster
from lab.paths import cache_dir
from tests.conftest import part

from .conftest import patiently, settings

pytestmark = pytest.mark.lab

OPERATORS: dict[str, Any] = {
    "num_replicas": 1,
    "max_msgs_per_subject": 5,
    "max_age": 86400.0,
    "max_bytes": 10_000_000,
    "max_msgs": 100_000,
    "max_msg_size": 4096,
    "discard": DiscardPolicy.NEW,
    "duplicate_window": 30.0,
}
"""What an operator may have reason to set, each of which has a consequence."""


@pytest.fixture(scope="module")
def program() -> Path:
    """The `nats` command."""
    with part("nats command"):
        return nats_cli.build(cache_dir(), print)
    raise AssertionError


@pytest.fixture
async def bus(cluster: FragileCluster) -> Any:
    """A connection where there is no stream yet."""
    async with Bus(settings(cluster), "test") as connection:
        yield connection
        await patiently(connection.js.delete_stream, connection.settings.stream)


def doctor(cluster: FragileCluster) -> dict[str, Any]:
    """What `guestwire doctor` finds about the stream."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("GUESTWIRE_", "KUBE"))}
    done = subprocess.run(
        [Path(sys.executable).with_name("guestwire"), "doctor", "--json"],
        env=plain
        | {
            "HOME": "/nonexistent",
            "GUESTWIRE_LIBVIRT__URIS": "qemu+unix:///session?socket=/nowhere/libvirt-sock",
            "GUESTWIRE_NATS__SERVERS": ",".join(cluster.urls),
            "GUESTWIRE_NATS__REPLICAS": "3",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (finding,) = [each for each in json.loads(done.stdout)["findings"] if each["about"] == "stream GUESTWIRE"]
    assert isinstance(finding, dict)
    return finding


async def test_respected_and_told_once(cluster: FragileCluster, bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    """What the operator set stays as it is; one warning names all of it, and none comes again."""
    await patiently(bus.js.add_stream, stream_config(bus.settings).evolve(**OPERATORS))
    before = (await bus.js.stream_info(bus.settings.stream)).config
    for _ in range(3):
        await bus.ensure_stream_patiently(asyncio.Event())
    after: StreamConfig = (await bus.js.stream_info(bus.settings.stream)).config
    warnings = [record.getMessage() for record in caplog.records if "operator" in record.getMessage()]

    assert before == after
    assert sorted(OPERATORS) == sorted(one.field for one in bus.drift)
    assert 1 == len(warnings)
    assert [] == [field for field in OPERATORS if f"{field} " not in warnings[0]]


async def test_doctor_tells_what_to_do(cluster: FragileCluster, bus: Bus, program: Path, tmp_path: Path) -> None:
    """It is a note of one line; the command that it names makes the stream as we would."""
    await patiently(bus.js.add_stream, stream_config(bus.settings).evolve(**OPERATORS))
    finding = doctor(cluster)
    (advice,) = finding["advice"]
    command = shlex.split(advice.partition(": ")[2])
    assert ("note", ["nats", "stream", "edit"]) == (finding["outcome"], command[:3])
    assert [] == [field for field in OPERATORS if f"{field} " not in finding["text"]]

    NatsCli(program, tmp_path, cluster.urls[0])(*command[1:], "--force")
    assert "ok" == doctor(cluster)["outcome"]


async def test_our_own(cluster: FragileCluster, bus: Bus) -> None:
    """A stream that we made has no drift, nor has one that an operator placed and compressed."""
    await bus.ensure_stream_patiently(asyncio.Event())
    assert () == bus.drift

    await bus.js.update_stream(stream_config(bus.settings).evolve(description="mine", metadata={"owner": "me"}))
    await bus.ensure_stream_patiently(asyncio.Event())
    assert () == bus.drift
