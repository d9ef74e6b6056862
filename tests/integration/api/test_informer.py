"""
Informers of stock libraries on guests: whatever happens to the API, their stores end equal to what it tells, and what
it tells is what was published.

One is client-go's, with which controllers are made; the other that of Kubernetes's Python client. Both talk to
`guestwire serve` as it is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.nats_server import NatsServer
from lab.process import OwnedDirectory
from tests.conftest import part
from tests.integration.api.churn import Churn
from tests.integration.api.fleet import Replica
from tests.integration.api.go_programs import build
from tests.integration.api.informers import GoInformer, PythonInformer


@pytest.fixture(scope="module")
def program() -> Path:
    """client-go's informer."""
    with part("Go informer"):
        return build()
    raise AssertionError


class World:
    """Guests, and an API that tells of them."""

    def __init__(self, directory: Path, nats: NatsServer) -> None:
        self._directory = directory
        self._nats = nats
        self._replicas = 0
        self.guests = Churn(nats)
        self.replica = Replica(nats, directory / "0")

    def another_replica(self) -> None:
        """The replica is killed; another takes its place, with a memory of its own."""
        self.replica.daemon.kill()
        self._replicas += 1
        self.replica = Replica(self._nats, self._directory / str(self._replicas), port=self.replica.port)
        self.replica.start()

    def converged(self, informer: GoInformer | PythonInformer) -> None:
        """Wait until it holds what is told, and that is true."""
        self.guests.converged(informer.store, self.replica)


@pytest.fixture
def world() -> Iterator[World]:
    """A few guests, and the API."""
    with OwnedDirectory() as directory, part("nats-server"), NatsServer(directory / "nats") as nats:
        world = World(directory, nats)
        world.guests.go_on()
        world.replica.start()
        yield world
        world.replica.stop()


@pytest.mark.parametrize("streaming", [True, False], ids=["list by watch", "list, then watch"])
def test_client_go(program: Path, world: World, tmp_path: Path, streaming: bool) -> None:
    """
    The store follows every change, by the way of listing that is new and by the old one, and over replicas that are
    killed: nothing is listed again for that, as the revision is good for all of them.
    """
    with GoInformer(program, tmp_path / "log", "-server", world.replica.url, WatchListClient=streaming) as informer:
        world.converged(informer)
        assert informer.told()["synced"]
        first = informer.queries()
        for _ in range(3):
            world.guests.go_on()
            world.another_replica()
            world.guests.go_on()
            world.converged(informer)
        queries = informer.queries()

    watches = [each for each in queries if each.get("watch") == "true"]
    assert streaming == ("sendInitialEvents" in first[0])
    assert {"true"} == {each["allowWatchBookmarks"] for each in watches}
    assert (1, 0) == (
        (sum("sendInitialEvents" in each for each in queries), sum("watch" not in each for each in queries))
        if streaming
        else (sum("watch" not in each for each in queries), sum("sendInitialEvents" in each for each in queries))
    )
    assert all(int(each["resourceVersion"]) > 0 for each in watches if "sendInitialEvents" not in each)
    assert len(watches) >= 4


@pytest.mark.parametrize("streaming", [True, False], ids=["list by watch", "list, then watch"])
def test_client_go_after_another_stream(program: Path, world: World, tmp_path: Path, streaming: bool) -> None:
    """When the stream was made anew, revisions of before are gone (410): everything is listed again, and is right."""
    with GoInformer(program, tmp_path / "log", "-server", world.replica.url, WatchListClient=streaming) as informer:
        world.converged(informer)
        before = len(informer.queries())
        world.guests.all_gone()
        world.guests.go_on()
        world.converged(informer)
        queries = informer.queries()[before:]

    assert any("sendInitialEvents" in each or "watch" not in each for each in queries)


def test_python(world: World) -> None:
    """The store follows every change, over replicas that are killed."""
    with PythonInformer(world.replica.url) as informer:
        world.converged(informer)
        for _ in range(2):
            world.guests.go_on()
            world.another_replica()
            world.guests.go_on()
            world.converged(informer)

    assert {"ADDED", "MODIFIED", "DELETED"} <= set(informer.events)


def test_python_after_another_stream(world: World) -> None:
    """When the stream was made anew, everything is listed again, and is right."""
    with PythonInformer(world.replica.url) as informer:
        world.converged(informer)
        world.guests.all_gone()
        world.guests.go_on()
        world.converged(informer)

    assert "ERROR" in informer.events
