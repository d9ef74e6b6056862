"""
Subjects: `guestwire.v1.<cluster>.<namespace>.<name>.<kind>`.

A token holds only `A-Za-z0-9_-` and `=XX` for every other byte of the UTF-8 text (`=` itself is `=3D`), so that names
with dots, spaces or anything else survive NATS's token rules (ADR-6) and can be had back. The empty text is a lone `=`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

import msgspec

from guestwire.errors import ContractError
from guestwire.snapshot import GuestRef

PREFIX = "guestwire.v1"
STREAM_SUBJECT = f"{PREFIX}.*.*.*.*"
"""What the stream stores: six tokens. Requests and later additions use another number of tokens."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]+\Z")
_TOKEN = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+\Z")


def encode_token(text: str) -> str:
    """A NATS subject token that stands for `text`, whatever it holds."""
    if _PLAIN.match(text):  # nearly always, and ten times as fast
        return text
    if not text:
        return "="
    # quote() escapes all but letters, digits and "_.-~"; "%" becomes our "=" once those two are escaped as well.
    return quote(text, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E").replace("%", "=")


@lru_cache(maxsize=65536)
def decode_token(token: str) -> str:
    """The text behind a token. ContractError when no text encodes to it."""
    if token == "=":  # noqa: S105
        return ""
    if _TOKEN.match(token):
        try:
            text = unquote_to_bytes(token.replace("=", "%")).decode(errors="surrogatepass")
        except UnicodeDecodeError:
            text = ""
        if text and encode_token(text) == token:
            return text
    raise ContractError(f"not a subject token of ours: {token[:80]!r}")


class Address(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where a message belongs: the decoded subject."""

    cluster: str
    ref: GuestRef
    kind: str

    @property
    def subject(self) -> str:
        """The NATS subject."""
        return subject(self.cluster, self.ref, self.kind)

    @classmethod
    def parse(cls, text: str) -> Address:
        """From a NATS subject. ContractError when it is not one of ours."""
        tokens = text.split(".")
        if len(tokens) != 6 or not text.startswith(f"{PREFIX}."):
            raise ContractError(f"not a subject of ours: {text[:200]!r}")
        _, _, cluster, namespace, name, kind = tokens
        if not _PLAIN.match(name):  # nearly never; and there are more names than are worth remembering
            name = decode_token(name)
        return cls(decode_token(cluster), GuestRef(decode_token(namespace), name), decode_token(kind))


def subject(cluster: str, ref: GuestRef, kind: str) -> str:
    """The subject of one kind of facts about a guest."""
    return ".".join((PREFIX, *map(encode_token, (cluster, ref.namespace, ref.name, kind))))


def request(cluster: str, ref: GuestRef | None, kind: str | None) -> str:
    """
    Where a reading is asked for: `guestwire.v1.<cluster>.<namespace>.<name>.read.<kind>`, a token more than what the
    stream stores; None matches anything.
    """
    guest = ("*", "*") if ref is None else (encode_token(ref.namespace), encode_token(ref.name))
    return ".".join((PREFIX, encode_token(cluster), *guest, "read", "*" if kind is None else encode_token(kind)))


def parse_request(text: str) -> tuple[GuestRef, str]:
    """Guest and kind of a request's subject. ContractError when it is not one of ours."""
    tokens = text.split(".")
    if len(tokens) != 7 or tokens[5] != "read":
        raise ContractError(f"not a request of ours: {text[:200]!r}")
    return GuestRef(decode_token(tokens[3]), decode_token(tokens[4])), decode_token(tokens[6])


def of_guest(cluster: str, ref: GuestRef) -> str:
    """Wildcard for every kind of facts about a guest."""
    return ".".join((PREFIX, *map(encode_token, (cluster, ref.namespace, ref.name)), "*"))


def pattern(
    *,
    cluster: str | None = None,
    namespace: str | None = None,
    name: str | None = None,
    kind: str | None = None,
) -> str:
    """A subscription subject; None matches anything."""
    tokens = ("*" if text is None else encode_token(text) for text in (cluster, namespace, name, kind))
    return ".".join((PREFIX, *tokens))
