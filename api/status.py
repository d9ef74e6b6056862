"""
Errors, as Kubernetes Status objects.

The code is the one HTTP has for the case; in KubeVirt's group the message is KubeVirt's, word for word, because its
clients match on it (pkg/virt-api/rest/subresource.go, where every failure is a 500 of plain text).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from api.answers import JSON, NO_STORE, NOSNIFF, Answer, of_bytes
from api.groups import Group
from guestwire.kinds import OPTIONAL


class Metadata(msgspec.Struct, frozen=True):
    """ListMeta, always empty here."""


class Cause(msgspec.Struct, frozen=True):
    """metav1.StatusCause."""

    reason: str
    message: str


class Details(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """What the error is about."""

    name: str = ""
    group: str = ""
    kind: str = ""
    retry_after_seconds: int = 0
    causes: tuple[Cause, ...] = ()


class Status(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """metav1.Status of a failure."""

    kind: Literal["Status"] = "Status"
    api_version: Literal["v1"] = "v1"
    metadata: Metadata = Metadata()
    status: Literal["Failure"] = "Failure"
    message: str
    reason: str
    details: Details = Details()
    code: int

    def answer(self, *head: bytes) -> Answer:
        """Ready to be sent, with further header lines."""
        return of_bytes(self.code, msgspec.json.encode(self), head=b"".join((NOSNIFF, NO_STORE, *head)))


def not_found(group: Group, name: str) -> Answer:
    """No such guest."""
    message = f'{group.singular} "{name}" not found'
    return Status(message=message, reason="NotFound", details=_guest(group, name), code=404).answer()


def not_running(group: Group, name: str) -> Answer:
    """The guest is there, but shut off."""
    return _conflict(group, name, group.not_running)


def no_agent(group: Group, name: str) -> Answer:
    """The guest runs without an agent that is connected."""
    return _conflict(group, name, group.no_agent)


def not_read(group: Group, name: str, kind: str, why: str = "") -> Answer:
    """The guest is there, but nothing is known of this kind; `why` as the agent record tells it."""
    if not why and kind in OPTIONAL:
        why = f"it is read where collect.{kind} is set, and on demand"
    message = f'{kind} of {group.singular} "{name}" has not been read{f": {why}" if why else ""}'
    return Status(message=message, reason="NotFound", details=_guest(group, name), code=404).answer()


def no_answer(group: Group, name: str, kind: str, why: str, age: float | None) -> Answer:
    """
    504: the guest was asked, as the client wished, and did not answer; `age` of the last value in seconds. `kind` is
    empty for all of it.
    """
    last = "nothing is known of it" if age is None else f"the last value is {age:.0f} s old"
    what = f"{kind} of {group.singular}" if kind else group.singular
    message = f'{what} "{name}" could not be read now: {why}; {last}'
    return Status(message=message, reason="Timeout", details=_guest(group, name), code=504).answer()


def too_many_readings() -> Answer:
    """429: as many guests are read on demand as may be."""
    message = "too many guests are being read on demand"
    details = Details(retry_after_seconds=1)
    return Status(message=message, reason="TooManyRequests", details=details, code=429).answer(b"retry-after: 1\r\n")


def not_caught_up() -> Answer:
    """Nothing can be said yet: what is not in the cache may still be in the stream."""
    message = "the cache is still being filled from the stream"
    details = Details(retry_after_seconds=1)
    return Status(message=message, reason="ServiceUnavailable", details=details, code=503).answer(b"retry-after: 1\r\n")


def too_many_connections() -> Answer:
    """The limit of connections is reached."""
    message = "too many connections"
    details = Details(retry_after_seconds=1)
    return Status(message=message, reason="ServiceUnavailable", details=details, code=503).answer(b"retry-after: 1\r\n")


def no_such_path() -> Answer:
    """Not a path of this API."""
    return Status(message="the server could not find the requested resource", reason="NotFound", code=404).answer()


def method_not_allowed() -> Answer:
    """Everything here is read only."""
    message = "the server does not allow this method on the requested resource"
    return Status(message=message, reason="MethodNotAllowed", code=405).answer(b"allow: GET, HEAD\r\n")


def misdirected() -> Answer:
    """The Host header names somebody else: a web page that had its own name lead here, say (`hosts`)."""
    message = "this server is not served under the name of the Host header; api.names may add it"
    return Status(message=message, reason="MisdirectedRequest", code=421).answer()


def not_acceptable() -> Answer:
    """The Accept header excludes JSON."""
    message = f"only the following media types are accepted: {JSON}"
    return Status(message=message, reason="NotAcceptable", code=406).answer()


def request_timeout() -> Answer:
    """The head of the request did not arrive in time."""
    return Status(message="the request did not arrive in time", reason="Timeout", code=408).answer()


def head_too_large() -> Answer:
    """Request line and headers are larger than this server reads."""
    return Status(message="request line and headers are too large", reason="RequestTooLarge", code=431).answer()


def bad_request(problem: str) -> Answer:
    """What came is no HTTP request, or asks for what cannot be."""
    return Status(message=problem, reason="BadRequest", code=400).answer()


def expired(what: str) -> Answer:
    """410: what changed since that revision cannot be told any more."""
    return Status(message=f"{what} is too old; list anew", reason="Expired", code=410).answer()


def not_reached(revision: int, current: int) -> Answer:
    """504: the stream is not that far here yet (k8s.io/apiserver, NewTooLargeResourceVersionError)."""
    cause = Cause(reason="ResourceVersionTooLarge", message="Too large resource version")
    details = Details(retry_after_seconds=1, causes=(cause,))
    message = f"Timeout: Too large resource version: {revision}, current: {current}"
    return Status(message=message, reason="Timeout", details=details, code=504).answer(b"retry-after: 1\r\n")


def internal_error() -> Answer:
    """A bug; the log tells more."""
    return Status(message="an error on the server", reason="InternalError", code=500).answer()


def _conflict(group: Group, name: str, why: str) -> Answer:
    message = f'Operation cannot be fulfilled on {group.singular} "{name}": {why}'
    return Status(message=message, reason="Conflict", details=_guest(group, name), code=409).answer()


def _guest(group: Group, name: str) -> Details:
    return Details(name=name, group=group.owner, kind=group.resource)
