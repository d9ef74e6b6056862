"""
Who may read: what a request asks for, decisions about it, and their memory.

A door knows one kind of asker: who has a token or certificate of ours (`readers`), or comes through the API server of
a cluster (`front_proxy`). The first door that knows the asker decides. Decisions are remembered for a few seconds, the
refusing ones too, so that a read from the cache costs one lookup here (`Asker`); whatever is not in there, goes to
the application, which asks the door (`refusal`).

A guest's name is left out of the question at first: the answer is then good for all guests of the namespace. Only when
that is refused, the question is asked for the one guest, as a role may name the objects it is for.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qs

import msgspec

from api import status
from api.answers import Answer
from api.identity import Headers, Unauthenticated
from api.names import plain, printable
from guestwire.errors import TransientError
from guestwire.logs import logger

log = logger("api")

MOST = 20_000
"""Decisions remembered at once; the oldest are forgotten first."""

WORDINGS = 4
"""Different headers of one connection remembered at once."""

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Attributes(msgspec.Struct, frozen=True):
    """What is asked for, in Kubernetes's words: a resource, or else a path."""

    verb: str
    path: str = ""
    """Of what is no resource: discovery documents, metrics."""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @classmethod
    def of(cls, method: str, path: str, query: str = "") -> Attributes:
        """
        Of a request; `path` as it was sent, without a slash at its end. All below a group's version is a resource,
        known or not, as for the API server: rights to documents must never reach that far.
        """
        reads = method in {"GET", "HEAD"}
        parts = path.split("/")[1:]
        if len(parts) < 4 or parts[0] != "apis":
            return cls("get" if reads else method.lower(), path)
        verb = "get" if reads else VERBS.get(method, method.lower())
        _, group, version, *rest = parts
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = plain(rest[1]), rest[2:]
        resource, name, subresource = (*rest, "", "")[:3]
        name = plain(name)
        if reads and not name:
            asked = parse_qs(query, keep_blank_values=True)
            verb = "list" if asked.get("watch", ["false"])[-1].lower() in {"false", "0"} else "watch"
            only = re.fullmatch(r"metadata\.name==?([^,=!\\]+)", asked.get("fieldSelector", [""])[-1])
            name = only[1] if only else ""
        return cls(verb, "", group, version, resource, subresource, namespace, name)

    def forbidden(self, user: str, reason: str) -> Answer:
        """403 in the words of k8s.io/apiserver (endpoints/handlers/responsewriters/errors.go)."""
        if self.path:
            subject, what = "forbidden", f"path {_quoted(self.path)}"
        else:
            resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
            where = f"in the namespace {_quoted(self.namespace)}" if self.namespace else "at the cluster scope"
            name = f" {_quoted(self.name)}" if self.name else ""
            subject = f"{self.resource}.{self.group}{name} is forbidden"
            what = f"resource {_quoted(resource)} in API group {_quoted(self.group)} {where}"
        message = f"{subject}: User {_quoted(user)} cannot {self.verb} {what}" + (f": {reason}" if reason else "")
        details = status.Details(name=printable(self.name), group=printable(self.group), kind=printable(self.resource))
        return status.Status(message=message, reason="Forbidden", details=details, code=403).answer()


class Decision(msgspec.Struct, frozen=True):
    """Whether somebody may."""

    allowed: bool
    user: str
    reason: str = ""
    """Why not, where the one who decides says so."""


Remembered = tuple[Decision, float]
"""And until when it is good, by the monotonic clock."""


class Door(Protocol):
    """Knows one kind of asker."""

    def key(self, peer: str, headers: Headers) -> Hashable | None:
        """
        What tells this asker from any other, None for one of another door; `peer` is the name in the certificate of the
        connection. Raises Unauthenticated for who must not go on to the next door.
        """

    async def decide(self, key: Any, asked: Attributes) -> Decision:
        """Raises Unauthenticated, and TransientError when nobody can be asked."""
        ...


class Access:
    """All doors, and the memory of their decisions; `lifetime` of a decision in seconds."""

    def __init__(
        self,
        doors: Sequence[Door],
        *,
        lifetime: float,
        open_paths: frozenset[str],
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.ready = ready
        """Whether the doors know what they need."""
        self.generation = 0
        """Grows whenever all is forgotten."""
        self._doors = doors
        self._lifetime = lifetime
        self._open = open_paths
        self._granted: dict[tuple[Hashable, bytes, bytes], float] = {}
        self._decisions: dict[tuple[Hashable, Attributes], Remembered] = {}
        self._asking: dict[tuple[Hashable, Attributes], asyncio.Task[Decision]] = {}
        self._told: list[Callable[[], None]] = []

    def when_forgotten(self, told: Callable[[], None]) -> None:
        """To be called whenever the generation has grown."""
        self._told.append(told)

    def granted(self, key: Hashable, path: bytes) -> bool:
        """Whether a GET of a guest's kind, at the path as it was sent, is known to be allowed."""
        guest, _, kind = path.rpartition(b"/")
        return self._granted.get((key, guest.rpartition(b"/")[0], kind), 0.0) > time.monotonic()

    async def refusal(self, peer: str, headers: Headers, method: str, path: str, query: str) -> Answer | None:
        """401, 403 or 503; None for who may."""
        if path in self._open:
            return None
        asked = Attributes.of(method, path, query)
        try:
            door, key = self.key(peer, headers)
            generation = self.generation
            decision, until = await self._decision(door, key, msgspec.structs.replace(asked, name=""))
            if decision.allowed and asked.verb == "get" and asked.subresource and generation == self.generation:
                guest, _, kind = path.encode().rpartition(b"/")
                _put(self._granted, (key, guest.rpartition(b"/")[0], kind), until)
            if not decision.allowed and asked.name:
                decision, _ = await self._decision(door, key, asked)
        except Unauthenticated:
            return unauthorized()
        except TransientError:
            return cannot_decide()
        return None if decision.allowed else asked.forbidden(decision.user, decision.reason)

    def forget(self) -> None:
        """All decisions: who decides, or whom to trust, has changed. Those under way are not remembered."""
        self.generation += 1
        self._granted.clear()
        self._decisions.clear()
        self._asking.clear()
        for told in self._told:
            told()

    def key(self, peer: str, headers: Headers) -> tuple[Door, Hashable]:
        """Whose asker this is, and what tells them from others. Raises Unauthenticated."""
        for door in self._doors:
            key = door.key(peer, headers)
            if key is not None:
                return door, key
        raise Unauthenticated

    async def _decision(self, door: Door, key: Hashable, asked: Attributes) -> Remembered:
        """The remembered one, or else a new one; many who wait for the same cause one question."""
        question = (key, asked)
        known = self._decisions.get(question)
        if known and known[1] > time.monotonic():
            return known
        task = self._asking.get(question)
        if task is None:
            task = self._asking[question] = asyncio.create_task(door.decide(key, asked))
            task.add_done_callback(lambda done: self._settle(question, done))
        return await asyncio.shield(task), time.monotonic() + self._lifetime

    def _settle(self, question: tuple[Hashable, Attributes], task: asyncio.Task[Decision]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if self._asking.get(question) is task:
            del self._asking[question]
            if not failed:
                _put(self._decisions, question, (task.result(), time.monotonic() + self._lifetime))


class Asker:
    """
    The client of a connection, which says mostly the same in every request: what told who asks last time, is found by a
    lookup of all headers. (By their hash first, with a secret seed: how long that takes tells nothing of a token.)
    """

    def __init__(self, access: Access, peer: str) -> None:
        self._access = access
        self._peer = peer
        self._keys: dict[tuple[tuple[bytes, bytes], ...], Hashable] = {}
        self._generation = access.generation

    def granted(self, headers: Headers, path: bytes) -> bool:
        """Whether a GET of a guest's kind, at the path as it was sent, is known to be allowed."""
        said = tuple(headers)
        key = self._keys.get(said)
        if key is None or self._generation != self._access.generation:
            try:
                _, key = self._access.key(self._peer, said)
            except Unauthenticated:
                return False
            if len(self._keys) >= WORDINGS or self._generation != self._access.generation:
                self._keys.clear()
            self._keys[said] = key
            self._generation = self._access.generation
        return self._access.granted(key, path)


def unauthorized() -> Answer:
    """401. How to do better is no secret."""
    refusal = status.Status(message="Unauthorized", reason="Unauthorized", code=401)
    return refusal.answer(b'www-authenticate: Bearer realm="guestwire"\r\n')


def cannot_decide() -> Answer:
    """503: whoever decides does not answer; the log tells more."""
    return status.Status(
        message="it cannot be found out at the moment who may read this",
        reason="ServiceUnavailable",
        details=status.Details(retry_after_seconds=1),
        code=503,
    ).answer(b"retry-after: 1\r\n")


def _put(memory: dict[Any, Any], key: Any, value: Any) -> None:
    memory.pop(key, None)
    while len(memory) >= MOST:
        del memory[next(iter(memory))]
    memory[key] = value


def _quoted(text: str) -> str:
    return msgspec.json.encode(printable(text)).decode()
