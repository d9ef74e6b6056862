"""
Real parts for every test: built once into the lab's cache, started per session, module or test.

A machine that lacks a part skips the tests that need it, with the reason; where LAB_REQUIRE or CI is set they
fail instead, so that nothing is skipped in silence.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as property_tests

from guestwire.jetstream import Bus
from guestwire.settings import Nats
from lab import guest_image, kube_build
from lab.errors import LabError
from lab.guest_image import GuestImage
from lab.kube_build import KubeBinaries
from lab.libvirtd import Libvirtd
from lab.nats_server import NatsServer
from lab.paths import cache_dir
from lab.process import OwnedDirectory

REQUIRED = bool(os.environ.get("LAB_REQUIRE") or os.environ.get("CI"))

property_tests.register_profile("noisy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
property_tests.load_profile("noisy machine")

Eventually = Callable[..., Awaitable[float]]


@contextmanager
def part(name: str) -> Iterator[None]:
    """Something real; skip the test when this machine cannot have it."""
    try:
        yield
    except LabError as error:
        if REQUIRED:
            raise
        pytest.skip(f"no {name} here: {error}")


@pytest.fixture(scope="session")
def image() -> GuestImage:
    """What guests boot from."""
    with part("guest image"):
        return guest_image.build(cache_dir(), print)
    raise AssertionError


@pytest.fixture(scope="session")
def kube_binaries() -> KubeBinaries:
    """A kube-apiserver and a kubectl."""
    with part("kube-apiserver"):
        return kube_build.build(cache_dir(), print)
    raise AssertionError


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A short path that ends with its processes."""
    with OwnedDirectory() as path:
        yield path


@pytest.fixture(scope="module")
def host(directory: Path) -> Iterator[Libvirtd]:
    """A running libvirt daemon."""
    with part("libvirt daemon"):
        daemon = Libvirtd(directory / "h1")
        daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A NATS server of the test's own, with JetStream."""
    with part("nats-server"):
        server = NatsServer(tmp_path / "nats")
        server.start()
    yield server
    server.stop()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """A connection, with the stream there."""
    async with Bus(Nats(servers=(nats_server.url,), timeout=2), "test") as connection:
        await connection.ensure_stream()
        yield connection


@pytest.fixture
def eventually() -> Eventually:
    """A coroutine function that waits until a condition holds, and returns the seconds it took."""

    async def wait(condition: Callable[[], object], within: float = 20, what: str = "") -> float:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < within, what or "it did not happen in time"
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    return wait
