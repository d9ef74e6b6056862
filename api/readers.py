"""
Who may read where there is no cluster to ask: a file with one line for each token or certificate.

    # name   token or certificate   namespaces
    alice    sha256:6f1e…           default,prod
    monitor  certificate            *

A line holds the SHA-256 of a token, which is safe for tokens of `guestwire token`: 256 random bits are not guessed,
however fast the hash is. `certificate` stands for whoever has a certificate of `api.client_ca` with that common name.
Names and namespaces with spaces, commas or percent signs are percent-encoded. Several lines may have the same name, for
a token that is to be replaced. Tokens are compared by their hashes: how long that takes tells nothing about a token.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from api.authorization import Attributes, Decision
from api.documents import DOCUMENTS
from api.identity import Headers, Unauthenticated
from guestwire.errors import ConfigError

BEARER = b"bearer "
CERTIFICATE = "certificate"
EVERYWHERE = "*"


class Reader(msgspec.Struct, frozen=True, eq=False):
    """A line of the file. Itself the key of decisions: a file that is read again makes other readers."""

    name: str
    namespaces: frozenset[str] | None
    """None for all there are, and what belongs to none."""

    def may(self, asked: Attributes) -> bool:
        """Resources of granted namespaces, and the documents that describe them; all else only who may read all."""
        if self.namespaces is None:
            return True
        return asked.path in DOCUMENTS if asked.path else asked.namespace in self.namespaces


class Table(msgspec.Struct, frozen=True, eq=False):
    """The file, read."""

    text: str = ""
    by_digest: dict[bytes, Reader] = {}
    by_certificate: dict[str, Reader] = {}


class Readers:
    """The door for tokens and certificates; `certificates` says whether those were verified for this purpose."""

    def __init__(self, table: Table, *, certificates: bool) -> None:
        self.table = table
        self._certificates = certificates

    def key(self, peer: str, headers: Headers) -> Reader | None:
        """The reader. Who sends a token that is none is refused, whatever else they have."""
        given = [value for name, value in headers if name == b"authorization"]
        if not given:
            return self.table.by_certificate.get(peer) if self._certificates else None
        if len(given) > 1 or given[0][: len(BEARER)].lower() != BEARER:
            raise Unauthenticated
        digest = hashlib.sha256(given[0][len(BEARER) :].strip()).digest()
        reader = self.table.by_digest.get(digest)
        if reader is None:
            raise Unauthenticated
        return reader

    async def decide(self, key: Any, asked: Attributes) -> Decision:
        """By the line."""
        return Decision(key.may(asked), key.name)


def read(file: Path) -> Table:
    """The file's table. Raises ConfigError that names the line."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api.readers: {file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"api.readers: {file}: {error}") from None


def parse(text: str) -> Table:
    """A file's text. What is wrong is told without what stands there, which may be a token by mistake."""
    table = Table(text, {}, {})
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3:
            raise ConfigError(f"line {number}: expected NAME sha256:HEX|certificate NAMESPACE,NAMESPACE|*")
        name, proof, granted = words
        reader = Reader(unquote(name), _namespaces(granted))
        if proof == CERTIFICATE:
            if table.by_certificate.setdefault(reader.name, reader) is not reader:
                raise ConfigError(f"line {number}: this certificate has a line already")
        elif table.by_digest.setdefault(_digest(proof, number), reader) is not reader:
            raise ConfigError(f"line {number}: this token has a line already")
    return table


def _namespaces(granted: str) -> frozenset[str] | None:
    """A namespace that is called like the sign for all is written %2A."""
    return None if granted == EVERYWHERE else frozenset(unquote(each) for each in granted.split(",") if each)


def _digest(proof: str, number: int) -> bytes:
    algorithm, _, text = proof.partition(":")
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if algorithm != "sha256" or len(digest) != hashlib.sha256().digest_size:
        raise ConfigError(f"line {number}: the second word must be sha256: and 64 hexadecimal digits, or certificate")
    return digest
