"""
Who asks: an identity, and where it comes from.

A client's certificate has been verified by TLS before its subject is looked at here. The rest is what the front proxy
of a Kubernetes API server says in headers, in the words of k8s.io/apiserver (authentication/request/headerrequest).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

Headers = Sequence[tuple[bytes, bytes]]
"""As they came, names in lower case."""

ANONYMOUS = "system:anonymous"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"


class Unauthenticated(Exception):  # noqa: N818 - the word of HTTP and Kubernetes
    """Nobody, or somebody who claims to be another: 401."""


class Identity(msgspec.Struct, frozen=True):
    """A user of a cluster (authentication.k8s.io UserInfo)."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = {}


def subject_name(certificate: Mapping[str, Any] | None) -> str:
    """The common name of a verified certificate (`SSLSocket.getpeercert`); empty unless there is just one."""
    subject = certificate.get("subject", ()) if certificate else ()
    names = [value for entry in subject for key, value in entry if key == "commonName"]
    return names[0] if len(names) == 1 else ""


class RequestHeaders(msgspec.Struct, frozen=True):
    """The headers in which a front proxy says who asks; names in lower case."""

    user: tuple[str, ...] = ("x-remote-user",)
    group: tuple[str, ...] = ("x-remote-group",)
    uid: tuple[str, ...] = ("x-remote-uid",)
    extra: tuple[str, ...] = ("x-remote-extra-",)
    """Beginnings of names."""

    def claims(self, headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
        """Those of the headers that say who asks."""
        exact = {name.encode() for name in (*self.user, *self.group, *self.uid)}
        prefixes = tuple(prefix.encode() for prefix in self.extra)
        return tuple(each for each in headers if each[0] in exact or each[0].startswith(prefixes))

    def identity(self, claims: Headers) -> Identity:
        """Whom they name. Raises Unauthenticated when that is nobody, or not UTF-8."""
        try:
            said = [(name.decode(), value.decode()) for name, value in claims]
        except UnicodeDecodeError:
            raise Unauthenticated from None
        user = _first(said, self.user)
        if not user:
            raise Unauthenticated
        extra: dict[str, tuple[str, ...]] = {}
        for name, value in said:
            for prefix in self.extra:
                if name.startswith(prefix):
                    key = unquote(name.removeprefix(prefix))
                    extra[key] = (*extra.get(key, ()), value)
        groups = tuple(value for wanted in self.group for name, value in said if name == wanted)
        if user != ANONYMOUS and not {AUTHENTICATED, UNAUTHENTICATED} & set(groups):
            groups = (*groups, AUTHENTICATED)  # the aggregator's own requests come without any group
        return Identity(user, groups, _first(said, self.uid), extra)


def _first(said: list[tuple[str, str]], names: tuple[str, ...]) -> str:
    return next((value for wanted in names for name, value in said if name == wanted and value), "")
