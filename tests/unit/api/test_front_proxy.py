"""Whom to trust as front proxy, and what it takes to be one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from api.cluster import Cluster
from api.front_proxy import FrontProxy, Trust
from api.identity import Headers, RequestHeaders, Unauthenticated
from api.tls import Material, Tls
from guestwire.errors import ContractError
from lab.certificates import Authority

USUAL = {
    "client-ca-file": "PEM of those who sign users",
    "requestheader-allowed-names": '["front-proxy-client"]',
    "requestheader-client-ca-file": "PEM",
    "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
    "requestheader-group-headers": '["X-Remote-Group"]',
    "requestheader-uid-headers": '["X-Remote-Uid"]',
    "requestheader-username-headers": '["X-Remote-User"]',
}
ALICE: Headers = [(b"host", b"api"), (b"x-remote-user", b"alice")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (USUAL, Trust("PEM", frozenset({"front-proxy-client"}), RequestHeaders())),
        ({"requestheader-client-ca-file": "PEM"}, Trust("PEM", frozenset(), RequestHeaders())),
        (
            {**USUAL, "requestheader-username-headers": '["X-Who", "X-User"]', "requestheader-allowed-names": "[]"},
            Trust("PEM", frozenset(), RequestHeaders(user=("x-who", "x-user"))),
        ),
        ({**USUAL, "requestheader-client-ca-file": " "}, None),
        ({}, None),
    ],
)
def test_trust(data: Mapping[str, str], expected: Trust | None) -> None:
    """The ConfigMap says whom to trust, about what, and in which headers; without an authority it is nobody."""
    assert expected == Trust.of(data)


@pytest.mark.parametrize("text", ["front-proxy-client", '{"a": "b"}', "[1]"])
def test_trust_that_makes_no_sense(text: str) -> None:
    """What cannot be read is told by its name, and is no trust in anybody."""
    with pytest.raises(ContractError, match="requestheader-allowed-names"):
        Trust.of({**USUAL, "requestheader-allowed-names": text})


@pytest.fixture
def door(tmp_path: Path) -> FrontProxy:
    """The door, with nothing known yet."""
    pair = Authority(tmp_path / "ca", "ca").issue(tmp_path / "tls", "api")
    return FrontProxy(Cluster(""), Tls(Material(pair.certificate, pair.key)), lambda: None)


def asker(door: FrontProxy, peer: str, headers: Headers) -> object:
    """The key, or 401."""
    try:
        return door.key(peer, headers)
    except Unauthenticated:
        return 401


@pytest.mark.parametrize(
    ("names", "peer", "headers", "expected"),
    [
        (["front"], "front", ALICE, ((b"x-remote-user", b"alice"),)),
        ([], "anyone", ALICE, ((b"x-remote-user", b"alice"),)),
        (["front"], "back", ALICE, 401),
        (["front"], "", ALICE, 401),
        ([], "", ALICE, 401),
        (["front"], "", [(b"x-remote-group", b"system:masters")], 401),
        (["front"], "", [(b"x-remote-extra-scopes", b"all")], 401),
        (["front"], "front", [(b"host", b"api")], None),
        (["front"], "", [(b"authorization", b"Bearer x")], None),
    ],
)
def test_key(door: FrontProxy, names: list[str], peer: str, headers: Headers, expected: object) -> None:
    """Only who has a certificate under an allowed name may say who asks; who says nothing of it is for another door."""
    door.trust = Trust("PEM", frozenset(names), RequestHeaders())

    assert expected == asker(door, peer, headers)


def test_key_before_anything_is_known(door: FrontProxy) -> None:
    """Till the ConfigMap was read nobody is the front proxy."""
    assert [401, None] == [asker(door, "front-proxy-client", ALICE), asker(door, "", [])]
