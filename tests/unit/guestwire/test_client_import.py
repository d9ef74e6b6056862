"""What a subscriber must have installed, and where its log goes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("guestwire", "nats", "msgspec")

PROGRAM = """
import asyncio, logging, sys

import guestwire

assert "nats" not in sys.modules

from guestwire import Change, ConfigError, Nats, NotConnected, changes, client, iter_changes
from guestwire.difference import difference

told = []

async def main():
    said = asyncio.Event()

    class Handler(logging.Handler):
        def emit(self, record):
            told.append(record.getMessage())
            said.set()

    logging.getLogger().addHandler(Handler())
    reading = asyncio.create_task(anext(changes("nats://127.0.0.1:1")))
    async with asyncio.timeout(50):
        await said.wait()
    reading.cancel()
    await asyncio.wait([reading])

asyncio.run(main())
print(told[0])
"""


def test_a_subscriber_needs_nats_and_msgspec_only(tmp_path: Path) -> None:
    """With these two packages beside it and no other, the client works; its log goes to Python's, not to its output."""
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        (tmp_path / package).symlink_to(Path(spec.origin).parent)
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM], env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert ["cannot connect to NATS, trying on servers=('nats://127.0.0.1:1',)"] == [
        line.partition(" error=")[0] for line in done.stdout.splitlines()
    ]
    assert "" == done.stderr
