"""Names of guests become subject tokens and come back whole."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestwire import subjects
from guestwire.errors import ContractError
from guestwire.snapshot import GuestRef
from guestwire.subjects import Address

TEXT = st.text(st.characters(exclude_categories=[]), max_size=60)


@given(TEXT)
def test_token_round_trip(text: str) -> None:
    """Any text, lone surrogates included, survives as a token."""
    assert text == subjects.decode_token(subjects.encode_token(text))


@given(TEXT)
def test_token_alphabet(text: str) -> None:
    """A token holds nothing that NATS or a shell could misread."""
    assert re.fullmatch(r"[A-Za-z0-9_=-]+", subjects.encode_token(text))


@given(TEXT, TEXT)
def test_tokens_differ(one: str, other: str) -> None:
    """Two texts never share a token."""
    assert (one == other) == (subjects.encode_token(one) == subjects.encode_token(other))


@given(TEXT, TEXT, TEXT, TEXT)
def test_address_round_trip(cluster: str, namespace: str, name: str, kind: str) -> None:
    """A subject says whom and what it is about, and fits the stream's subject."""
    address = Address(cluster, GuestRef(namespace, name), kind)

    assert address == Address.parse(address.subject)
    assert len(subjects.STREAM_SUBJECT.split(".")) == len(address.subject.split("."))


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "guestwire.v1.a.b.c",
        "guestwire.v2.a.b.c.agent",
        "guestwire.v1.a.b.c.agent.x",
        "guestwire.v1.a.b..agent",
        "guestwire.v1.a.b.c=2.agent",
        "guestwire.v1.a.b.=41.agent",
        "guestwire.v1.a.b.=FF.agent",
        "guestwire.v1.a.b.\u00e9.agent",
    ],
)
def test_foreign_subjects(subject: str) -> None:
    """What no name encodes to is refused."""
    with pytest.raises(ContractError):
        Address.parse(subject)


def test_readable() -> None:
    """Ordinary names stay as they are; dots are escaped."""
    assert "guestwire.v1.local.prod.web-1.agent" == subjects.subject("local", GuestRef("prod", "web-1"), "agent")
    assert "guestwire.v1.local.prod.web=2E1.agent" == subjects.subject("local", GuestRef("prod", "web.1"), "agent")


def test_pattern() -> None:
    """What is not named matches anything."""
    assert "guestwire.v1.*.prod.*.userlist" == subjects.pattern(namespace="prod", kind="userlist")


@pytest.mark.parametrize(
    ("domain", "ref"),
    [
        ("prod_web", GuestRef("prod", "web")),
        ("prod_web_1", GuestRef("prod", "web_1")),
        ("web", GuestRef("default", "web")),
        ("_web", GuestRef("default", "_web")),
        ("web_", GuestRef("default", "web_")),
    ],
)
def test_ref_of_domain(domain: str, ref: GuestRef) -> None:
    """A domain's name is split at the first underscore; an empty half leaves it whole in `default`."""
    assert ref == GuestRef.of_domain(domain)
