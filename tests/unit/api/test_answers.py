"""How an answer is made, and when a client has it already."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec
import pytest

from api import answers, status
from api.answers import conditional
from api.app import label
from api.discovery import DOCUMENTS
from api.groups import GUESTWIRE, KUBEVIRT
from guestwire.kinds import BODIES
from guestwire.snapshot import GuestRef

CHANGED = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_header_lines_of_a_body() -> None:
    """Type, length, revision, time of change, and that it must be asked for again; in this order, in lower case."""
    answer = answers.of_body(b"{}", 17, CHANGED, CHANGED)

    assert [
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
        (b"etag", b'"17"'),
        (b"last-modified", b"Sun, 01 Mar 2026 12:00:00 GMT"),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-cache"),
    ] == answer.headers()[:-1]


def test_age_is_never_negative() -> None:
    """A host whose clock is ahead gives age 0."""
    ahead = datetime.fromtimestamp(time.time() + 3600, UTC)

    assert b"age: 0\r\n" == answers.of_body(b"{}", 1, ahead, ahead).age()


def test_not_modified_has_validators_and_no_body() -> None:
    """304 keeps ETag, Last-Modified, Cache-Control and Age, and describes no body."""
    answer = answers.of_body(b"{}", 17, CHANGED, CHANGED).not_modified()

    assert (304, b"") == (answer.status, answer.body)
    assert [b"etag", b"last-modified", b"x-content-type-options", b"cache-control", b"age"] == [
        name for name, _ in answer.headers()
    ]


@pytest.mark.parametrize(
    ("if_none_match", "expected"),
    [
        (b'"17"', 304),
        (b'W/"17"', 304),
        (b'"1", "17"', 304),
        (b'"1" , W/"17"', 304),
        (b"*", 304),
        (b'"1"', 200),
        (b"17", 200),
        (b'"171"', 200),
        (b"", 200),
        (b",", 200),
    ],
)
def test_if_none_match(if_none_match: bytes, expected: int) -> None:
    """Lists, weak tags and * count; anything else gets the body."""
    answer = answers.of_body(b"{}", 17, CHANGED, CHANGED)

    assert expected == conditional(answer, if_none_match).status


def test_no_etag_is_never_matched() -> None:
    """An answer without an ETag, an error or "nothing yet", is given even to `*`."""
    assert 404 == conditional(status.not_found(KUBEVIRT, "vm1"), b"*").status
    assert 200 == conditional(answers.NOTHING_YET["userlist"], b"*").status


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"", True),
        (b"*/*", True),
        (b"application/json", True),
        (b"application/json, */*", True),
        (b"application/json;as=Table;v=v1;g=meta.k8s.io,application/json", True),
        (b"APPLICATION/*;q=0.1", True),
        (b"text/html, */*;q=0.5", True),
        (b"text/html", False),
        (b"application/yaml, application/xml", False),
        (b"application/json;q=0, */*", False),
        (b"application/json;q=0, application/json", True),
        (b"*/*;q=0", False),
        (b"application/json;q=high", True),
        (b";;,,=", False),
    ],
)
def test_accepts_json(accept: bytes, expected: bool) -> None:
    """The most specific range that matches decides; q=0 excludes."""
    assert expected == answers.accepts_json(accept)


def test_path_escapes_what_a_segment_cannot_hold() -> None:
    """Names of plain libvirt may hold anything; in a path they stay one segment."""
    assert (
        b"/apis/subresources.kubevirt.io/v1/namespaces/a%2Fb/virtualmachineinstances/vm%20%25%3F%C3%A9/userlist"
        == KUBEVIRT.path(GuestRef("a/b", "vm %?é"), "userlist")
    )


def test_status_object() -> None:
    """An error is a Kubernetes Status with what client-go reads of it."""
    answer = status.not_running(KUBEVIRT, "vm1")

    assert 409 == answer.status
    assert (
        b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
        b'"message":"Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io \\"vm1\\": '
        b'VMI is not running",'
        b'"reason":"Conflict",'
        b'"details":{"name":"vm1","group":"kubevirt.io","kind":"virtualmachineinstances"},"code":409}' == answer.body
    )


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (status.not_found(GUESTWIRE, "vm1"), 404, 'guests.guestwire.io "vm1" not found'),
        (
            status.not_running(GUESTWIRE, "vm1"),
            409,
            'Operation cannot be fulfilled on guests.guestwire.io "vm1": the guest is not running',
        ),
        (
            status.no_agent(GUESTWIRE, "vm1"),
            409,
            'Operation cannot be fulfilled on guests.guestwire.io "vm1": the guest\'s agent is not connected',
        ),
        (
            status.not_read(GUESTWIRE, "vm1", "load"),
            404,
            'load of guests.guestwire.io "vm1" has not been read: it is read where collect.load is set, and on demand',
        ),
        (status.not_read(GUESTWIRE, "vm1", "userlist"), 404, 'userlist of guests.guestwire.io "vm1" has not been read'),
        (
            status.not_read(GUESTWIRE, "vm1", "load", "guest-get-load: refused"),
            404,
            'load of guests.guestwire.io "vm1" has not been read: guest-get-load: refused',
        ),
    ],
)
def test_our_own_group_speaks_in_its_own_name(answer: answers.Answer, code: int, words: str) -> None:
    """Outside of KubeVirt's group no error speaks of VMIs."""
    said = msgspec.json.decode(answer.body)

    assert (code, words, code) == (answer.status, said["message"], said["code"])
    assert {"name": "vm1", "group": "guestwire.io", "kind": "guests"} == said["details"]


def test_resources_of_the_groups() -> None:
    """Discovery names every group, our resource, and every kind as a subresource of its group's."""
    documents = {path: msgspec.json.decode(answer.body) for path, answer in DOCUMENTS.items()}

    assert ["guestwire.io", "subresources.kubevirt.io"] == [group["name"] for group in documents["/apis"]["groups"]]
    for group, version in ((GUESTWIRE, "v1"), (KUBEVIRT, "v1"), (KUBEVIRT, "v1alpha3")):
        listed = documents[f"/apis/{group.name}/{version}"]
        assert f"{group.name}/{version}" == listed["groupVersion"]
        parts = [f"{group.resource}/{name}" for name in group.subresources]
        own = ["guests"] if group is GUESTWIRE else []
        assert own + parts == [entry["name"] for entry in listed["resources"]]
    assert set(BODIES) == set(GUESTWIRE.kinds)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/b/userlist", "subresource"),
        ("/apis/guestwire.io/v1/namespaces/a/guests/b/load", "subresource"),
        ("/apis/guestwire.io/v1", "discovery"),
        ("/readyz", "health"),
        ("/metrics", "metrics"),
        ("/apis", "discovery"),
        ("/etc/passwd", "other"),
    ],
)
def test_labels_are_bounded(path: str, expected: str) -> None:
    """Whatever is asked for, metrics know five kinds of path."""
    assert expected == label(path)
