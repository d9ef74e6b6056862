"""
Several replicas behind a load balancer: real `guestwire serve` processes on one NATS server, behind nginx, which hands
requests to them in turn. A client needs not know which one answers, nor that one of them has just died.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from guestwire.snapshot import GuestRef
from lab.nats_server import NatsServer
from lab.nginx import NAME, Nginx, balancer
from lab.process import OwnedDirectory, wait_until
from tests.conftest import part
from tests.integration.api.churn import PATIENCE, Churn, Store
from tests.integration.api.fleet import GUESTS, Replica, users
from tests.integration.api.go_programs import build
from tests.integration.api.informers import GoInformer, PythonInformer

VMS = [GuestRef("default", f"vm{number}") for number in range(5)]
ONE = "/apis/guestwire.io/v1/namespaces/default/guests/vm0"
KUBEVIRTS = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm0"
COUNT = 3
DEATHS = 6


class Site:
    """Guests, replicas, and nginx in front."""

    def __init__(self, directory: Path, nats: NatsServer, *, tuned: bool) -> None:
        self.guests = Churn(nats, names=30)
        self.replicas = [Replica(nats, directory / str(number), names=NAME) for number in range(COUNT)]
        self.nginx = balancer(directory / "nginx", [each.port for each in self.replicas], tuned=tuned)

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body; whoever answers."""
        with opened(self.nginx, path, **headers) as response:
            return response.status, {name.lower(): value for name, value in response.headers.items()}, response.read()

    def at(self, replica: str) -> Replica:
        """By what nginx calls it; where it tried several, it was the last."""
        return next(each for each in self.replicas if replica.endswith(f":{each.port}"))

    def level(self, revision: int) -> None:
        """Wait until all replicas that live have come that far."""
        path = f"{GUESTS}?resourceVersion={revision}"
        living = [each for each in self.replicas if each.daemon.alive]
        wait_until(lambda: all(each.get(path)[0] == 200 for each in living), PATIENCE, f"all at {revision}")


@contextmanager
def opened(nginx: Nginx, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
    """An answer that may not end. Of a header's name `_` is `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=30)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


class Aside(ABC):
    """Something that goes on in a thread of its own until the end of a context."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @abstractmethod
    def _run(self) -> None: ...


class Chaos(Aside):
    """Replicas die at random, one or two at a time, and come back, each with an empty memory."""

    def __init__(self, replicas: list[Replica]) -> None:
        super().__init__()
        self.deaths = 0
        self._replicas = replicas
        self._random = random.Random(11)

    def _run(self) -> None:
        while not self._over.wait(self._random.random()):
            victims = self._random.sample(self._replicas, self._random.choice((1, 2)))
            for each in victims:
                self._random.choice((each.daemon.kill, each.daemon.stop))()
                self.deaths += 1
            time.sleep(self._random.random())
            for each in victims:
                each.start()


class Watcher(Aside):
    """
    A watch that goes on behind the last event it was told, whatever ended it. It never lists, so what it holds is made
    of events and of nothing else: one that is missed, is missing for ever.
    """

    def __init__(self, nginx: Nginx) -> None:
        super().__init__()
        self.store: Store = {}
        self.position = ""
        self.told_by: list[str] = []
        self.problems: list[Any] = []
        self._nginx = nginx

    def _run(self) -> None:
        while not self._over.is_set():
            begin = f"&resourceVersion={self.position}" if self.position else ""
            try:
                with opened(self._nginx, f"{GUESTS}?watch=true&timeoutSeconds=2{begin}") as response:
                    if response.status == 200:
                        self.told_by.append(response.headers["X-Replica"])
                        self._read(response)
                    elif response.status not in {502, 503}:
                        self.problems.append((response.status, response.read()))
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.5)  # guests change meanwhile

    def _read(self, response: http.client.HTTPResponse) -> None:
        for line in response:
            if not line.endswith(b"\n"):  # its replica died amid it
                return
            event = json.loads(line)
            told = event["object"]
            if event["type"] == "ERROR":
                self.problems.append(told)
                return
            key = f"{told['metadata']['namespace']}/{told['metadata']['name']}"
            if event["type"] == "DELETED":
                self.store.pop(key, None)
            else:
                self.store[key] = told
            self.position = told["metadata"]["resourceVersion"]


class Page:
    """The live page's stream, as a browser reads it."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.replica = response.headers["X-Replica"]
        self.last_id = ""
        self._lines = response

    def until_level(self) -> list[tuple[str, Any]]:
        """The events before the next `level`."""
        events: list[tuple[str, Any]] = []
        name = ""
        for line in self._lines:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "id":
                self.last_id = value
            elif field == "event":
                name = value
            elif field == "data":
                if name == "level":
                    return events
                events.append((name, json.loads(value)))
        pytest.fail(f"the stream ended: {events}")


@pytest.fixture(scope="module")
def program() -> Path:
    """client-go's informer."""
    with part("Go informer"):
        return build()
    raise AssertionError


@pytest.fixture(params=[False], ids=["nginx as it comes"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Five guests, and all of it running."""
    with OwnedDirectory() as directory, ExitStack() as parts:
        with part("nats-server"):
            nats = parts.enter_context(NatsServer(directory / "nats"))
        with part("nginx"):
            site = Site(directory, nats, tuned=request.param)
        for ref in VMS:
            site.guests.truth[str(ref)] = ["alice"]
            site.guests.collector.guest(ref, "alice")
        for each in site.replicas:
            parts.callback(each.stop)
            each.start()
        parts.enter_context(site.nginx)
        yield site


BOTH = pytest.mark.parametrize("site", [False, True], ids=["nginx as it comes", "nginx as advised"], indirect=True)


@pytest.mark.parametrize(
    ("site", "streaming"),
    [(False, True), (True, False)],
    ids=["nginx as it comes, list by watch", "nginx as advised, list, then watch"],
    indirect=["site"],
)
def test_replicas_that_die(program: Path, site: Site, tmp_path: Path, streaming: bool) -> None:
    """
    Informers and a plain watch hold what is true, and what every replica tells, after replicas died under them while
    guests came, changed and went. The plain watch was told by all replicas, and by no answer that it must begin anew.
    """
    with (
        GoInformer(program, tmp_path / "log", "-server", site.nginx.url, WatchListClient=streaming) as informer,
        PythonInformer(site.nginx.url) as python,
        Watcher(site.nginx) as watcher,
    ):
        with Chaos(site.replicas) as chaos:
            while chaos.deaths < DEATHS:
                site.guests.go_on(2)  # of so many guests that what is missed is not soon told again
                time.sleep(0.2)
        for store in (lambda: watcher.store, informer.store, python.store):
            site.guests.converged(store, *site.replicas)
        queries = informer.queries()
        wait_until(
            lambda: set(site.replicas) == {site.at(each) for each in list(watcher.told_by)}, PATIENCE, "told by all"
        )

    assert [] == watcher.problems
    assert len([each for each in queries if each.get("watch") == "true"]) > 1


def test_pages_of_a_list(site: Site) -> None:
    """
    Each part of a list may come from another replica: together they are the list, under one revision, and a watch from
    it tells at any replica what changed between the parts.
    """
    parts, by, token = [], [], ""
    while True:
        code, headers, body = site.get(f"{GUESTS}?limit=2&continue={token}")
        assert 200 == code
        parts.append(json.loads(body))
        by.append(site.at(headers["x-replica"]))
        if len(parts) == 1:
            site.guests.collector.gone(VMS[0])
            site.level(site.guests.collector.publish((VMS[1], "userlist", users("bob"))))
        token = parts[-1]["metadata"].get("continue", "")
        if not token:
            break
    (revision,) = {each["metadata"]["resourceVersion"] for each in parts}
    changes = []
    for replica in site.replicas:
        _, _, body = replica.get(f"{GUESTS}?watch=true&timeoutSeconds=1&resourceVersion={revision}")
        events = [json.loads(line) for line in body.splitlines()]
        changes.append([(event["type"], event["object"]["metadata"]["name"]) for event in events])

    assert COUNT == len(parts) == len(set(by))
    assert [ref.name for ref in VMS] == [each["metadata"]["name"] for told in parts for each in told["items"]]
    assert [[("DELETED", "vm0"), ("MODIFIED", "vm1")]] * COUNT == changes


def test_validators(site: Site) -> None:
    """What one replica has told is known to the others, one that has just started among them."""
    told = {
        path: site.replicas[0].get(path) for path in (ONE, f"{ONE}/userlist", f"{KUBEVIRTS}/userlist", "/openapi/v2")
    }
    site.replicas[1].daemon.kill()
    site.replicas[1].start()
    for path, (code, headers, body) in told.items():
        again = [site.get(path, If_None_Match=headers["etag"]) for _ in range(2 * COUNT)]
        _, fresh, same = site.replicas[1].get(path)

        assert 200 == code
        assert [(304, headers["etag"], b"")] * 2 * COUNT == [(code, said["etag"], more) for code, said, more in again]
        assert set(site.replicas) == {site.at(said["x-replica"]) for _, said, _ in again}
        assert (body, headers.get("last-modified")) == (same, fresh.get("last-modified"))


def test_validators_of_what_changed(site: Site) -> None:
    """Behind a change all have the same new one."""
    _, before, _ = site.get(ONE)
    site.level(site.guests.collector.publish((VMS[0], "userlist", users("bob"))))
    told = [site.get(ONE, If_None_Match=before["etag"]) for _ in range(COUNT)]

    assert {200} == {code for code, _, _ in told}
    assert 1 == len({(headers["etag"], body) for _, headers, body in told})
    assert before["etag"] != told[0][1]["etag"]


def test_page_goes_on_at_another_replica(site: Site) -> None:
    """With Last-Event-ID another replica tells what came, changed and went since, and nothing else."""
    events = {"Accept": "text/event-stream"}
    with opened(site.nginx, f"{GUESTS}?watch=true", **events) as response:
        page = Page(response)
        first = page.until_level()
        site.at(page.replica).daemon.kill()
    site.guests.collector.gone(VMS[0])
    site.guests.collector.publish((VMS[1], "userlist", users("alice", "bob")))
    site.level(site.guests.collector.guest(GuestRef("default", "new"), "carol"))
    with opened(site.nginx, f"{GUESTS}?watch=true", **events, Last_Event_ID=page.last_id) as response:
        other = Page(response)
        then = other.until_level()

    assert ["reset", "rows"] == [name for name, _ in first]
    assert {ref.name for ref in VMS} == {row["name"] for row in first[1][1]["rows"]}
    assert site.at(page.replica) is not site.at(other.replica)
    assert {"rows"} == {name for name, _ in then}
    assert [["default", "vm0"]] == [each for _, told in then for each in told["gone"]]
    assert {"vm1": ["alice", "bob"], "new": ["carol"]} == {
        row["name"]: row["users"] for _, told in then for row in told["rows"]
    }


@BOTH
def test_a_watch_is_not_held_back(site: Site) -> None:
    """
    A balancer that collects answers, as nginx does unless told otherwise, passes events on as they come, also those
    that are larger than one of its buffers.
    """
    large = [GuestRef("large", f"vm{number}") for number in range(3)]
    for ref in large:
        site.level(site.guests.collector.everything(ref))
    with opened(site.nginx, f"{GUESTS}?watch=true") as response:
        lines = [json.loads(next(response)) for _ in (*VMS, *large)]
        revisions = [site.guests.collector.everything(ref) for ref in large]
        changed = json.loads(next(response))
        while changed["object"]["metadata"]["resourceVersion"] != str(revisions[-1]):
            changed = json.loads(next(response))

    assert ["ADDED"] * len(lines) == [each["type"] for each in lines]
    assert ("MODIFIED", large[-1].name) == (changed["type"], changed["object"]["metadata"]["name"])
