"""
What the API asks the cluster's API server about its readers, as that server's audit log has it: who is named in a
SubjectAccessReview, and how many there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from guestwire.snapshot import GuestRef
from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries
from lab.nats_server import NatsServer
from lab.process import OwnedDirectory, wait_until
from tests.integration.api.fleet import Collector
from tests.integration.api.test_auth_cluster import OURS, RIGHTS, Site, built, led_here

PATIENCE = 60.0
MANY = 30
USERLIST, AGENT = OURS.format("default", "userlist"), OURS.format("default", "agent")
RIGHT_OF_FRANK = RIGHTS.partition("---")[0].replace("alice", "frank")


@pytest.fixture(scope="module")
def site(kube_binaries: KubeBinaries) -> Iterator[Site]:
    """The API behind an API server; what was decided is good for longer than the tests take."""
    with OwnedDirectory() as directory:
        kube, nats = KubeApiserver(kube_binaries, directory / "kube"), NatsServer(directory / "nats")
        kube.start()
        nats.start()
        kube.kubectl("create", "namespace", "guestwire")
        kube.kubectl("create", "serviceaccount", "api", "-n", "guestwire")
        site = Site(kube, directory, nats, decisions=3600)
        objects = built(kube_binaries, directory / "manifests")
        kube.apply(led_here(objects, site.port, site.authority.certificate))
        kube.apply(RIGHTS)
        kube.apply(RIGHT_OF_FRANK)
        Collector(nats).guest(GuestRef("default", "vm1"), "root")
        site.daemon.start()
        try:
            site.daemon.ready(site.ready, PATIENCE)
            kube.kubectl("wait", "--for=condition=Available", "apiservice/v1.guestwire.io", "--timeout=60s", timeout=90)
            yield site
        finally:
            for each in (site.daemon, kube, nats):
                each.stop()


def about(site: Site, user: str) -> list[dict[str, Any]]:
    """What was asked about a user, as far as that is a resource."""
    return [each["resourceAttributes"] for each in site.kube.reviews() if each["user"] == user]


def test_denials_are_remembered(site: Site) -> None:
    """
    Who is refused over and over costs two questions, the guest's namespace and the guest; another guest one more, and
    another kind two.
    """
    codes = {site.as_front_proxy(USERLIST, "eve", "dev")[0] for _ in range(MANY)}
    first = [each.get("name") for each in about(site, "eve")]
    for path in (USERLIST.replace("vm1", "vm2"), AGENT):
        codes |= {site.as_front_proxy(path, "eve", "dev")[0] for _ in range(MANY)}
    names = [(each["subresource"], each.get("name")) for each in about(site, "eve")]

    assert {403} == codes
    assert [None, "vm1"] == first
    assert [("userlist", None), ("userlist", "vm1"), ("userlist", "vm2"), ("agent", None), ("agent", "vm1")] == names


def test_denials_of_many_at_once(site: Site) -> None:
    """Those who wait for the same answer cause one question."""
    with ThreadPoolExecutor(MANY) as readers:
        answers = list(readers.map(lambda _: site.as_front_proxy(USERLIST, "mallory"), range(MANY)))

    assert {403} == {code for code, _ in answers}
    assert [None, "vm1"] == [each.get("name") for each in about(site, "mallory")]


def test_another_identity_is_another_question(site: Site) -> None:
    """What is known of a user in one group is no answer for the same user in another."""
    codes = [site.as_front_proxy(USERLIST, "bob", *groups)[0] for groups in (("dev",), ("dev", "team:one"), ("dev",))]
    groups = [each["groups"] for each in site.kube.reviews() if each["user"] == "bob"]

    assert [403, 200, 403] == codes
    assert [["dev", "system:authenticated"]] * 2 + [["dev", "team:one", "system:authenticated"]] * 2 == groups


def test_rights_are_remembered(site: Site) -> None:
    """Who may read costs one question for all guests of the namespace."""
    paths = (USERLIST, USERLIST.replace("vm1", "vm2"))
    codes = [site.as_front_proxy(path, "alice")[0] for _ in range(MANY) for path in paths]

    assert [200, 404] * MANY == codes
    assert [
        {
            "group": "guestwire.io",
            "namespace": "default",
            "resource": "guests",
            "subresource": "userlist",
            "verb": "get",
            "version": "v1",
        }
    ] == about(site, "alice")


def test_all_that_tells_who_asks(site: Site) -> None:
    """Uid, groups and extra go from the client of the API server to the review as they are, their keys' case aside."""
    acting = [
        "--as=frank",
        "--as-uid=0-1-2",
        "--as-group=dev",
        "--as-group=team:one",
        "--as-user-extra=example.org/team=a%2F b",
        "--as-user-extra=example.org/team=c",
        "--as-user-extra=scopes=view",
    ]
    wait_until(
        lambda: "items" in site.kube.kubectl("get", "--raw", USERLIST, *acting, check=False), PATIENCE, "frank may read"
    )
    (spec,) = [each for each in site.kube.reviews() if each["user"] == "frank"]
    answer = json.loads(site.kube.kubectl("get", "--raw", USERLIST, *acting))

    assert ["root"] == [each["userName"] for each in answer["items"]]
    assert ("0-1-2", ["dev", "team:one", "system:authenticated"]) == (spec["uid"], spec["groups"])
    assert {"example.org/team": ["a%2F b", "c"], "scopes": ["view"]} == spec["extra"]
