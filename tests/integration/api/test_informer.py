"""
Informers of stock libraries on guests: whatever happens to the API, their stores end equal to what it tells, and what
it tells is what was published.

One is client-go's, which controllers are made with (`informer/`, built here); the other that of Kubernetes's Python
client. Both talk to `guestwire serve` as it is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import parse_qs

import pytest
from kubernetes.client import ApiClient, Configuration, CustomObjectsApi
from kubernetes.informer import SharedInformer

from guestwire.snapshot import GuestRef
from lab.errors import LabError
from lab.kube_build import go_toolchain
from lab.nats_server import NatsServer
from lab.paths import cache_dir, locked
from lab.process import OwnedDirectory, wait_until
from tests.conftest import part
from tests.integration.api.fleet import Collector, Replica, users

MODULE = Path(__file__).parent / "informer"
GUESTS = "/apis/guestwire.io/v1/guests"
PATIENCE = 90.0
NAMES: tuple[str, ...] = ("alice", "bob", "carol")

Store = dict[str, Any]
"""Objects by namespace/name."""


@pytest.fixture(scope="module")
def program() -> Path:
    """client-go's informer."""
    with part("Go informer"):
        return build()
    raise AssertionError


def build() -> Path:
    """In the lab's cache, by what it is made of. Raises LabError."""
    sources = b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum", "main.go"))
    binary = cache_dir() / f"informer-{hashlib.sha256(sources).hexdigest()[:12]}"
    with locked(cache_dir() / "informer.lock"):
        if binary.exists():
            return binary
        half = binary.with_suffix(".partial")
        env = os.environ | {"GOWORK": "off", "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
        command = [go_toolchain(cache_dir(), print), "build", "-mod=readonly", "-trimpath", "-buildvcs=false"]
        done = subprocess.run(
            [*command, "-o", str(half), "."], cwd=MODULE, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise LabError(f"informer: go build ended with status {done.returncode}\n{done.stderr[-2000:]}")
        half.rename(binary)
    return binary


class GoInformer:
    """client-go's, in its process, with arguments on how to reach the API; `features` are its feature gates."""

    def __init__(self, program: Path, log: Path, *args: str, **features: bool) -> None:
        gates = {f"KUBE_FEATURE_{name}": str(value).lower() for name, value in features.items()}
        self._command = [str(program), *args]
        self._env = os.environ | gates
        self._log = log
        self._answers: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            self._reading.join()
            assert self._process.stdout
            self._process.stdout.close()

    def told(self) -> dict[str, Any]:
        """What it says of itself."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._answers.get(timeout=PATIENCE))
        return said

    def store(self) -> Store:
        """What it holds."""
        return dict(self.told()["store"])

    def queries(self) -> list[dict[str, str]]:
        """What it has asked for and was answered 200, oldest first."""
        answered = [each["query"] for each in self.told()["requests"] if each["status"] == 200]
        return [{name: values[0] for name, values in parse_qs(each).items()} for each in answered]

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._answers.put(line)


class PythonInformer:
    """The Python client's. It takes lists as models, which there are none of here: a list is made to look like one."""

    def __init__(self, url: str) -> None:
        self._api: Any = CustomObjectsApi(ApiClient(Configuration(host=url)))
        informer: Any = SharedInformer
        self._informer = informer(self._list)
        self.events: list[str] = []
        for event in ("ADDED", "MODIFIED", "DELETED", "ERROR"):
            self._informer.add_event_handler(event, partial(self._note, event))

    def __enter__(self) -> Self:
        self._informer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._informer.stop()
        self._api.api_client.close()

    def store(self) -> Store:
        """What it holds."""
        return {key: self._informer.cache.get_by_key(key) for key in self._informer.cache.list_keys()}

    def _note(self, event: str, _told: Any) -> None:
        self.events.append(event)

    def _list(self, **options: Any) -> Any:
        """
        Guests.

        :return: object
        """
        answer: Any = self._api.list_cluster_custom_object("guestwire.io", "v1", "guests", **options)
        if options.get("watch"):
            return answer
        meta = SimpleNamespace(resource_version=answer["metadata"]["resourceVersion"])
        return SimpleNamespace(items=answer["items"], metadata=meta)


class World:
    """Guests that come, change and go; what is true of them; and an API that tells of them."""

    def __init__(self, directory: Path, nats: NatsServer) -> None:
        self._directory = directory
        self.nats = nats
        self.collector = Collector(nats)
        self.truth: dict[str, list[str]] = {}
        """Users by guest."""
        self._random = random.Random(7)
        self._replicas = 0
        self.replica = Replica(nats, directory / "0")

    def churn(self, changes: int = 40) -> None:
        """So many changes of a dozen guests."""
        for _ in range(changes):
            ref = GuestRef(self._random.choice(("default", "other")), f"vm{self._random.randrange(6)}")
            if self._random.random() < 0.3:
                if self.truth.pop(str(ref), None) is not None:
                    self.collector.gone(ref)
            elif str(ref) in self.truth:
                names = self._random.sample(NAMES, self._random.randrange(4))
                if names != self.truth[str(ref)]:
                    self.truth[str(ref)] = names
                    self.collector.publish((ref, "userlist", users(*names)))
            else:
                names = self._random.sample(NAMES, self._random.randrange(4))
                self.truth[str(ref)] = names
                self.collector.guest(ref, *names)

    def told(self) -> Store:
        """What the API lists."""
        _, _, body = self.replica.get(GUESTS)
        return {
            f"{each['metadata']['namespace']}/{each['metadata']['name']}": each for each in json.loads(body)["items"]
        }

    def another_replica(self) -> None:
        """The replica is killed; another takes its place, with a memory of its own."""
        self.replica.daemon.kill()
        self._replicas += 1
        self.replica = Replica(self.nats, self._directory / str(self._replicas), port=self.replica.port)
        self.replica.start()

    def converged(self, store: Callable[[], Store]) -> None:
        """Wait until a store is what is told, and what is told is true."""

        def users_of(guest: Any) -> list[str]:
            return [each["userName"] for each in guest["status"]["userlist"]["items"]]

        def level() -> bool:
            held = store()
            return self.truth == {key: users_of(each) for key, each in held.items()} and held == self.told()

        wait_until(level, PATIENCE, f"a store that holds {self.truth}")


@pytest.fixture
def world() -> Iterator[World]:
    """A few guests, and the API."""
    with OwnedDirectory() as directory, part("nats-server"), NatsServer(directory / "nats") as nats:
        world = World(directory, nats)
        world.churn()
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
        world.converged(informer.store)
        assert informer.told()["synced"]
        first = informer.queries()
        for _ in range(3):
            world.churn()
            world.another_replica()
            world.churn()
            world.converged(informer.store)
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
        world.converged(informer.store)
        before = len(informer.queries())
        world.collector.new_stream()
        world.truth.clear()
        world.churn()
        world.converged(informer.store)
        queries = informer.queries()[before:]

    assert any("sendInitialEvents" in each or "watch" not in each for each in queries)


def test_python(world: World) -> None:
    """The store follows every change, over replicas that are killed."""
    with PythonInformer(world.replica.url) as informer:
        world.converged(informer.store)
        for _ in range(2):
            world.churn()
            world.another_replica()
            world.churn()
            world.converged(informer.store)

    assert {"ADDED", "MODIFIED", "DELETED"} <= set(informer.events)


def test_python_after_another_stream(world: World) -> None:
    """When the stream was made anew, everything is listed again, and is right."""
    with PythonInformer(world.replica.url) as informer:
        world.converged(informer.store)
        world.collector.new_stream()
        world.truth.clear()
        world.churn()
        world.converged(informer.store)

    assert "ERROR" in informer.events
