"""What a request asks for, who says so, and how long an answer is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any

import msgspec
import pytest

from api import authorization
from api.answers import Answer
from api.authorization import Access, Asker, Attributes, Decision
from api.identity import Headers, Identity, RequestHeaders, Unauthenticated, subject_name
from guestwire.errors import TransientError

GUEST = "/apis/guestwire.io/v1/namespaces/ns/guests/vm1"
OURS = {"group": "guestwire.io", "version": "v1"}
USERLIST = Attributes("get", resource="guests", subresource="userlist", namespace="ns", name="vm1", **OURS)


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/", "", Attributes("get", "/")),
        ("HEAD", "/version", "", Attributes("get", "/version")),
        ("POST", "/version", "", Attributes("post", "/version")),
        ("GET", "/apis", "", Attributes("get", "/apis")),
        ("GET", "/apis/guestwire.io/v1", "", Attributes("get", "/apis/guestwire.io/v1")),
        (
            "HEAD",
            f"{GUEST}/userlist",
            "",
            USERLIST,
        ),
        ("GET", GUEST, "", Attributes("get", resource="guests", namespace="ns", name="vm1", **OURS)),
        (
            "POST",
            f"{GUEST}/userlist",
            "",
            msgspec.structs.replace(USERLIST, verb="create"),
        ),
        ("GET", "/apis/guestwire.io/v1/guests", "", Attributes("list", resource="guests", **OURS)),
        ("GET", "/apis/guestwire.io/v1/guests", "watch=1", Attributes("watch", resource="guests", **OURS)),
        ("GET", "/apis/guestwire.io/v1/guests", "watch=false", Attributes("list", resource="guests", **OURS)),
        (
            "GET",
            "/apis/guestwire.io/v1/namespaces/ns/guests",
            "limit=5",
            Attributes("list", resource="guests", namespace="ns", **OURS),
        ),
        (
            "GET",
            "/apis/guestwire.io/v1/namespaces/a%2Fb/guests/c%20d/load",
            "",
            Attributes("get", resource="guests", subresource="load", namespace="a/b", name="c d", **OURS),
        ),
        ("GET", "/apis/guestwire.io/v1/namespaces", "", Attributes("list", resource="namespaces", **OURS)),
        (
            "GET",
            f"{GUEST}/userlist/more",
            "",
            USERLIST,
        ),
        ("GET", "/apis/guestwire.io/v1//x", "", Attributes("get", resource="", name="x", **OURS)),
    ],
)
def test_attributes(method: str, path: str, query: str, expected: Attributes) -> None:
    """A request is taken apart as the API server does, and nothing below a version is a mere path."""
    assert expected == Attributes.of(method, path, query)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            f"{GUEST}/userlist",
            (
                'guests.guestwire.io "vm1" is forbidden: User "eve" cannot get resource "guests/userlist" in API group '
                '"guestwire.io" in the namespace "ns"'
            ),
        ),
        (
            "/apis/guestwire.io/v1/guests",
            (
                'guests.guestwire.io is forbidden: User "eve" cannot list resource "guests" in API group '
                '"guestwire.io" at the cluster scope'
            ),
        ),
        ("/metrics", 'forbidden: User "eve" cannot get path "/metrics"'),
        (
            "/apis/guestwire.io/v1/namespaces/%ED%A0%80/guests",
            (
                'guests.guestwire.io is forbidden: User "eve" cannot list resource "guests" in API group '
                '"guestwire.io" in the namespace "?"'
            ),
        ),
    ],
)
def test_forbidden(path: str, expected: str) -> None:
    """A refusal is a Status in Kubernetes's words, whatever characters were asked for."""
    answer = Attributes.of("GET", path).forbidden("eve", "")
    status = msgspec.json.decode(answer.body)

    assert (403, 403, "Forbidden", expected) == (answer.status, status["code"], status["reason"], status["message"])


def test_subject_name() -> None:
    """A certificate names who asks by its one common name; two, or none, are nobody."""
    one = {"subject": ((("organizationName", "o"),), (("commonName", "alice"),))}
    two = {"subject": ((("commonName", "alice"),), (("commonName", "root"),))}

    assert ["alice", "", "", ""] == [subject_name(each) for each in (one, two, {}, None)]


def test_identity_of_headers() -> None:
    """User, groups, uid and extra come from the headers as the API server writes them; others are left alone."""
    headers = [
        (b"host", b"api"),
        (b"x-remote-user", "Zoë".encode()),
        (b"x-remote-group", b"dev"),
        (b"x-remote-group", b"system:authenticated"),
        (b"x-remote-uid", b"7"),
        (b"x-remote-extra-authentication.kubernetes.io%2fcredential-id", b"JTI=1"),
        (b"x-remote-extra-scopes", b"a"),
        (b"x-remote-extra-scopes", b"b"),
        (b"authorization", b"Bearer x"),
    ]
    names = RequestHeaders()
    claims = names.claims(headers)
    expected = Identity(
        "Zoë",
        ("dev", "system:authenticated"),
        "7",
        {"authentication.kubernetes.io/credential-id": ("JTI=1",), "scopes": ("a", "b")},
    )

    assert tuple(headers[1:8]) == claims
    assert expected == names.identity(claims)


@pytest.mark.parametrize(
    ("user", "groups", "expected"),
    [
        ("system:aggregator", (), ("system:authenticated",)),
        ("alice", ("dev",), ("dev", "system:authenticated")),
        ("system:anonymous", ("system:unauthenticated",), ("system:unauthenticated",)),
        ("system:anonymous", (), ()),
    ],
)
def test_authenticated_group(user: str, groups: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Whoever the front proxy names is authenticated, and is given the group that says so; but for nobody."""
    headers = [(b"x-remote-user", user.encode()), *((b"x-remote-group", each.encode()) for each in groups)]

    assert expected == RequestHeaders().identity(headers).groups


@pytest.mark.parametrize("headers", [[(b"x-remote-group", b"system:masters")], [(b"x-remote-user", b"\xff")]])
def test_headers_that_name_nobody(headers: list[tuple[bytes, bytes]]) -> None:
    """A group without a user is nobody, and so is what is no UTF-8."""
    with pytest.raises(Unauthenticated):
        RequestHeaders().identity(headers)


class Clerk:
    """A door that knows who names themselves in `x-name`, and has a list of what each may."""

    def __init__(self, *rights: tuple[str, str, str]) -> None:
        self.rights = set(rights)
        self.asked: list[tuple[str, str]] = []
        self.was_asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    def key(self, peer: str, headers: Headers) -> Hashable | None:
        return next((value.decode() for name, value in headers if name == b"x-name"), None)

    async def decide(self, key: Any, asked: Attributes) -> Decision:
        self.asked.append((asked.namespace, asked.name))
        self.was_asked.set()
        await self.open.wait()
        if key == "nobody-knows":
            raise TransientError
        return Decision((key, asked.namespace, asked.name) in self.rights, key)


def alice() -> Headers:
    """What she sends."""
    return [(b"x-name", b"alice")]


def access(door: Clerk, lifetime: float = 60.0) -> Access:
    """With that door only."""
    return Access([door], lifetime=lifetime, open_paths=frozenset({"/healthz"}))


async def ask(who: Access, path: str = f"{GUEST}/userlist", headers: Headers | None = None) -> Answer | None:
    """A GET's refusal."""
    return await who.refusal("", alice() if headers is None else headers, "GET", path, "")


async def test_a_decision_is_good_for_all_guests_of_a_namespace() -> None:
    """Who may read a kind in a namespace is asked for once, and then known by one lookup for every guest there."""
    door = Clerk(("alice", "ns", ""))
    who = access(door)
    other = f"{GUEST}2/userlist"

    before = Asker(who, "").granted(alice(), other.encode())
    refusals = [await ask(who), await ask(who, other)]

    assert [None, None] == refusals
    assert [("ns", "")] == door.asked
    assert (False, True) == (before, Asker(who, "").granted(alice(), other.encode()))
    assert [False, False, False, False] == [
        Asker(who, "").granted(alice(), f"{GUEST}/load".encode()),
        Asker(who, "").granted(alice(), f"{GUEST}/userlist".replace("/ns/", "/other/").encode()),
        Asker(who, "").granted([(b"x-name", b"eve")], other.encode()),
        Asker(who, "").granted([], other.encode()),
    ]


async def test_one_asker_says_this_and_that() -> None:
    """What an asker was granted is theirs as long as their headers say so, whatever else they say, until forgotten."""
    who = access(Clerk(("alice", "ns", ""), ("bob", "ns", "")))
    asker, path = Asker(who, ""), f"{GUEST}/userlist".encode()
    await ask(who)
    names = ["alice", "bob", "alice", *map(str, range(9)), "alice"]
    others = [asker.granted([(b"x-name", name.encode())], path) for name in names]
    await ask(who, headers=[(b"x-name", b"bob")])
    conditional = [(b"if-none-match", str(number).encode()) for number in range(9)]

    assert [name == "alice" for name in names] == others
    assert asker.granted([(b"x-name", b"bob")], path)
    assert [True] * 9 == [asker.granted([*alice(), each], path) for each in conditional]
    assert len(asker._keys) <= 4
    who.forget()
    assert not asker.granted(alice(), path)


async def test_a_right_to_one_guest() -> None:
    """A role may name its objects: then that guest's own decision counts, and nothing is known of the others."""
    door = Clerk(("alice", "ns", "vm1"))
    who = access(door)

    assert [None, 403] == [await ask(who), getattr(await ask(who, f"{GUEST}2/userlist"), "status", None)]
    assert [("ns", ""), ("ns", "vm1"), ("ns", "vm12")] == door.asked
    assert not Asker(who, "").granted(alice(), f"{GUEST}/userlist".encode())


async def test_refusals_are_remembered() -> None:
    """Whoever may not asks the door no more often than others."""
    door = Clerk()
    who = access(door)
    refusals = [await ask(who) for _ in range(3)]

    assert [403, 403, 403] == [getattr(each, "status", None) for each in refusals]
    assert [("ns", ""), ("ns", "vm1")] == door.asked


async def test_decisions_grow_old() -> None:
    """After its lifetime a decision is asked for anew, on the way of the lookup as well."""
    door = Clerk(("alice", "ns", ""))
    who = access(door, lifetime=0.001)
    await ask(who)
    door.rights.clear()
    await asyncio.sleep(0.01)

    assert not Asker(who, "").granted(alice(), f"{GUEST}/userlist".encode())
    assert 403 == getattr(await ask(who), "status", None)


async def test_lookups_do_not_make_decisions_younger() -> None:
    """What a lookup grants is granted for no longer than the decision behind it is good, however late it is used."""
    who = access(Clerk(("alice", "ns", "")))
    await ask(who)
    (decided,) = (until for _, until in who._decisions.values())
    who._granted.clear()
    await ask(who)
    (granted,) = who._granted.values()

    assert decided == granted


async def test_many_ask_at_once() -> None:
    """A hundred requests that wait for the same decision cause one question."""
    door = Clerk(("alice", "ns", ""))
    door.open.clear()
    who = access(door)
    asking = [asyncio.create_task(ask(who)) for _ in range(100)]
    await door.was_asked.wait()
    door.open.set()

    assert [None] * 100 == await asyncio.gather(*asking)
    assert [("ns", "")] == door.asked


async def test_forgotten_while_asking() -> None:
    """A decision that was asked for before everything was forgotten is not remembered afterwards."""
    door = Clerk(("alice", "ns", ""))
    door.open.clear()
    who = access(door)
    asking = asyncio.create_task(ask(who))
    await door.was_asked.wait()
    who.forget()
    door.open.set()
    await asking
    granted = Asker(who, "").granted(alice(), f"{GUEST}/userlist".encode())
    await ask(who)

    assert not granted
    assert [("ns", ""), ("ns", "")] == door.asked


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest decisions give way to new ones."""
    monkeypatch.setattr(authorization, "MOST", 3)
    namespaces = [f"ns{number}" for number in range(5)]
    paths = [f"{GUEST}/userlist".replace("/ns/", f"/{each}/") for each in namespaces]
    who = access(Clerk(*(("alice", each, "") for each in namespaces)))
    for path in paths:
        await ask(who, path)

    assert [False, False, True, True, True] == [Asker(who, "").granted(alice(), path.encode()) for path in paths]
    assert (3, 3) == (len(who._granted), len(who._decisions))


async def test_nobody_can_be_asked() -> None:
    """503 where the decision cannot be had, and nothing is remembered; 401 for nobody; health for all."""
    door = Clerk()
    who = access(door)
    unsure = [(b"x-name", b"nobody-knows")]
    answers = [await ask(who, headers=unsure), await ask(who, headers=unsure), await ask(who, headers=[])]

    assert [503, 503, 401] == [getattr(each, "status", None) for each in answers]
    assert [("ns", ""), ("ns", "")] == door.asked
    assert [None, 401] == [
        await ask(who, "/healthz", []),
        getattr(await ask(who, "/healthz/x", []), "status", None),
    ]
