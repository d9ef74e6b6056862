"""Real processes and real signals: a clean end, a forced one, and a hung thread that cannot hold the process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PROGRAM = """
import asyncio, sys, time
from guestwire import lifecycle
async def main(stop):
    print("up", flush=True)
    {body}
sys.exit(lifecycle.run(main, grace=0.5))
"""


@contextmanager
def process(body: str) -> Iterator[subprocess.Popen[str]]:
    """A process with that main, once it is up."""
    argv = [sys.executable, "-c", PROGRAM.format(body=body)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert "up\n" == child.stdout.readline()
        yield child
        child.kill()


def ended(child: subprocess.Popen[str]) -> tuple[int, float]:
    """Its exit status, and how long that took."""
    began = time.monotonic()
    child.communicate(timeout=20)
    return child.returncode, time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_clean_end(number: signal.Signals) -> None:
    """A main that ends after `stop` gives status 0."""
    with process("await stop.wait(); await asyncio.sleep(0.1)") as child:
        child.send_signal(number)

        assert 0 == ended(child)[0]


def test_grace() -> None:
    """What has not drained within the grace is cancelled, and the status says so."""
    with process("await asyncio.sleep(60)") as child:
        child.send_signal(signal.SIGTERM)
        status, seconds = ended(child)

        assert 1 == status
        assert 0.3 < seconds < 5


def test_second_signal() -> None:
    """A second signal cancels at once."""
    with process("await stop.wait(); print('stopping', flush=True); await asyncio.sleep(60)") as child:
        child.send_signal(signal.SIGTERM)
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGTERM)

        assert 1 == ended(child)[0]


def test_hung_thread() -> None:
    """A thread that no one can cancel does not hold the process: status 70 at twice the grace."""
    with process("await asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)") as child:
        child.send_signal(signal.SIGTERM)
        status, seconds = ended(child)

        assert 70 == status
        assert 0.8 < seconds < 10


def test_error() -> None:
    """A main that raises ends with status 1."""
    with process("raise ValueError('x')") as child:
        assert 1 == ended(child)[0]
