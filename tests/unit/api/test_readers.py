"""The file of readers: lines, grants, and what is wrong with it."""

from __future__ import annotations

import hashlib

import pytest
from click.testing import CliRunner

from api.authorization import Attributes
from api.identity import Unauthenticated
from api.readers import Readers, parse
from guestwire.cli.token import token
from guestwire.errors import ConfigError

DIGEST = hashlib.sha256(b"secret").hexdigest()
FILE = f"""
# who      what           where
alice      sha256:{DIGEST}  default,prod   # she is on call
monitor    certificate    *
a%20b      certificate    with%2Ccomma,%2A
"""


def bearer(value: bytes) -> list[tuple[bytes, bytes]]:
    """What a client sends."""
    return [(b"host", b"api"), (b"authorization", value)]


def at(namespace: str) -> Attributes:
    """A read there."""
    return Attributes("get", resource="guests", namespace=namespace, name="vm1")


def test_tokens() -> None:
    """A token is known by its hash, whatever case its scheme has, and wins over a certificate."""
    readers = Readers(parse(FILE), certificates=True)
    names = [
        getattr(readers.key("monitor", bearer(each)), "name", "") for each in (b"Bearer secret", b"bearer  secret ")
    ]

    assert ["alice", "alice"] == names


@pytest.mark.parametrize(
    "headers",
    [
        bearer(b"Bearer wrong"),
        bearer(b"Bearer "),
        bearer(b"Basic c2VjcmV0"),
        bearer(b"secret"),
        bearer(b"Bearer " + DIGEST.encode()),
        bearer(b"Bearer secret") + bearer(b"Bearer secret"),
    ],
)
def test_wrong_tokens(headers: list[tuple[bytes, bytes]]) -> None:
    """What is no token of the file is refused, the hash itself too, and even with a good certificate."""
    with pytest.raises(Unauthenticated):
        Readers(parse(FILE), certificates=True).key("monitor", headers)


def test_certificates() -> None:
    """A certificate's name is a reader where certificates are verified for that, and only one with such a line."""
    verified, other = Readers(parse(FILE), certificates=True), Readers(parse(FILE), certificates=False)
    names = [getattr(verified.key(peer, []), "name", None) for peer in ("monitor", "a b", "alice", "")]

    assert ["monitor", "a b", None, None] == names
    assert other.key("monitor", []) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alice", [True, True, False, False, True, False, False]),
        ("monitor", [True, True, True, True, True, True, True]),
        ("a b", [False, False, False, False, True, False, False]),
    ],
)
def test_grants(name: str, expected: list[bool]) -> None:
    """A namespace is granted by its name; lists over all, metrics and unknown paths take the right to everything."""
    table = parse(FILE)
    reader = table.by_certificate.get(name) or next(iter(table.by_digest.values()))
    asked = [at("default"), at("prod"), at("other"), at("")]
    asked += [Attributes("get", path) for path in ("/apis", "/metrics", "/page")]

    assert expected == [reader.may(each) for each in asked]


def test_a_namespace_called_like_the_sign_for_all() -> None:
    """Percent-encoded it is a namespace, not all of them."""
    reader = parse(FILE).by_certificate["a b"]

    assert [True, True, False] == [reader.may(at(each)) for each in ("*", "with,comma", "default")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("alice", "line 1: expected NAME sha256:HEX|certificate NAMESPACE,NAMESPACE|*"),
        ("alice s3cret * more", "line 1: expected NAME sha256:HEX|certificate NAMESPACE,NAMESPACE|*"),
        ("alice s3cret *", "line 1: the second word must be sha256: and 64 hexadecimal digits, or certificate"),
        ("alice sha256:abcd *", "line 1: the second word must be sha256: and 64 hexadecimal digits, or certificate"),
        (f"alice md5:{DIGEST} *", "line 1: the second word must be sha256: and 64 hexadecimal digits, or certificate"),
        (f"\nalice sha256:{DIGEST} a\nbob sha256:{DIGEST} b", "line 3: this token has a line already"),
        ("alice certificate a\nalice certificate b", "line 2: this certificate has a line already"),
    ],
)
def test_wrong_lines(line: str, expected: str) -> None:
    """What is wrong is told by the line's number, and never quotes what may be a secret."""
    with pytest.raises(ConfigError) as caught:
        parse(line)

    assert expected == str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "namespaces"),
    [(["ann", "default", "my, ns#*"], {"default", "my, ns#*"}), (["--all", "ann"], None)],
)
def test_token_command(arguments: list[str], namespaces: set[str] | None) -> None:
    """Its line on standard output grants what was asked for, to the token on standard error, which is in no file."""
    done = CliRunner().invoke(token, arguments)
    made = done.stderr.removeprefix("token of ann: ").strip()
    reader = Readers(parse(done.stdout), certificates=False).key("", bearer(b"Bearer " + made.encode()))

    assert (0, "ann", namespaces) == (done.exit_code, getattr(reader, "name", ""), getattr(reader, "namespaces", ""))
    assert made not in done.stdout
    assert 43 == len(made)


def test_tokens_are_not_made_by_accident() -> None:
    """Neither all nor nothing is granted without a word; nor does the file's sign for all pass for a namespace."""
    accidents = (["a"], ["--all", "a", "b"], ["", "b"], ["a", "*"])

    assert [2, 2, 2, 2] == [CliRunner().invoke(token, each).exit_code for each in accidents]
