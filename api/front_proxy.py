"""
Readers who come through a cluster's API server: an extension API server behind its aggregation layer.

The API server relays a request over a connection of its own, with a client certificate, and says in headers who asked.
Whom to trust so far it publishes in the ConfigMap kube-system/extension-apiserver-authentication: the authority that
signs such certificates, the names that are allowed in them, and the headers. The same headers from anybody else are
forged, and refused.

Who asked is somebody of the cluster; what they may read, its API server is asked again for each of them
(SubjectAccessReview). The identity goes there as it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from api.authorization import Attributes, Decision
from api.cluster import TIMEOUT, Cluster
from api.identity import Headers, Identity, RequestHeaders, Unauthenticated
from api.tls import Tls
from guestwire.errors import ConfigError, ContractError, TransientError
from guestwire.lifecycle import backoff
from guestwire.logs import logger

log = logger("api")

CONFIG_MAP = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
PERIOD = 10.0
"""Seconds between two looks at the ConfigMap."""

AT_ONCE = 64
"""Reviews under way at once; more wait."""


class Trust(msgspec.Struct, frozen=True):
    """What the ConfigMap says."""

    authorities: str
    """PEM."""
    names: frozenset[str]
    """Allowed in certificates; any is when there is none here."""
    headers: RequestHeaders

    @classmethod
    def of(cls, data: Mapping[str, str]) -> Trust | None:
        """None where the API server relays nothing. Raises ContractError for what cannot be understood."""
        authorities = data.get("requestheader-client-ca-file", "")
        if not authorities.strip():
            return None
        usual = RequestHeaders()
        headers = RequestHeaders(
            _names(data, "requestheader-username-headers") or usual.user,
            _names(data, "requestheader-group-headers") or usual.group,
            _names(data, "requestheader-uid-headers") or usual.uid,
            _names(data, "requestheader-extra-headers-prefix") or usual.extra,
        )
        return cls(authorities, frozenset(_list(data, "requestheader-allowed-names")), headers)


class FrontProxy:
    """
    The door for who comes through the API server; use as an async context manager. `changed` is called when other
    proxies are trusted than before.
    """

    def __init__(self, cluster: Cluster, tls: Tls, changed: Callable[[], None], *, period: float = PERIOD) -> None:
        self.trust: Trust | None = None
        """As last read; None before, and then nobody is let in."""
        self._tls = tls
        self._changed = changed
        self._period = period
        self._cluster = cluster
        self._reviews = asyncio.Semaphore(AT_ONCE)
        self._said = ""

    async def __aenter__(self) -> Self:
        """Raises ConfigError when there is no way to the cluster."""
        await self._cluster.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._cluster.__aexit__(kind, error, trace)

    def key(self, peer: str, headers: Headers) -> tuple[tuple[bytes, bytes], ...] | None:
        """The headers that say who asks; None when there are none. Refuses them from anyone but the front proxy."""
        trust = self.trust
        claims = (trust.headers if trust else RequestHeaders()).claims(headers)
        if not claims:
            return None
        if trust is None or not peer or (trust.names and peer not in trust.names):
            raise Unauthenticated
        return claims

    async def decide(self, key: Any, asked: Attributes) -> Decision:
        """What the cluster says."""
        if self.trust is None:
            raise Unauthenticated
        identity = self.trust.headers.identity(key)
        try:
            return await self._review(identity, asked)
        except TransientError as error:
            self._tell("cannot ask who may read", error)
            raise

    async def run(self) -> None:
        """Keep knowing whom to trust, until cancelled. What was known stays while the API server is away."""
        pauses = backoff(longest=self._period)
        while True:
            try:
                answer = await self._cluster.ask("GET", CONFIG_MAP, "read extension-apiserver-authentication")
                trust = Trust.of(answer.get("data") or {})
                if trust != self.trust:
                    await self._tls.trust(trust.authorities if trust else "")
                    self.trust = trust
                    self._changed()
                    log.info("the front proxy is known", allowed=sorted(trust.names) if trust else [])
            except (TransientError, ContractError, ConfigError) as error:
                self._tell("cannot find out whom to trust as front proxy, trying on", error)
                await asyncio.sleep(next(pauses))
            else:
                if self.trust is None:
                    self._tell("the API server names no front proxy: it relays nothing", "")
                else:
                    self._said = ""
                pauses = backoff(longest=self._period)
                await asyncio.sleep(self._period)

    async def _review(self, identity: Identity, asked: Attributes) -> Decision:
        attributes = {"path": asked.path, "verb": asked.verb} if asked.path else msgspec.structs.asdict(asked)
        about = "nonResourceAttributes" if asked.path else "resourceAttributes"
        if not asked.path:
            attributes.pop("path")
        try:
            msgspec.json.encode(attributes)
        except UnicodeEncodeError:  # no name of a cluster
            return Decision(allowed=False, user=identity.user)
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {**msgspec.to_builtins(identity), about: attributes},
        }
        try:
            async with asyncio.timeout(TIMEOUT), self._reviews:
                answer = await self._cluster.ask("POST", REVIEWS, "review access", review)
        except TimeoutError:
            raise TransientError("review access: too many are waiting for an answer") from None
        status = answer["status"]
        return Decision(bool(status.get("allowed")), identity.user, status.get("reason", ""))

    def _tell(self, event: str, error: object) -> None:
        """Once, not at every request."""
        if self._said != f"{event} {error}":
            self._said = f"{event} {error}"
            log.warning(event, error=str(error))


def _list(data: Mapping[str, str], key: str) -> list[str]:
    try:
        return msgspec.json.decode(data.get(key) or "[]", type=list[str])
    except msgspec.DecodeError as error:
        raise ContractError(f"extension-apiserver-authentication: {key}: {error}") from error


def _names(data: Mapping[str, str], key: str) -> tuple[str, ...]:
    """Names of headers, as they are compared."""
    return tuple(name.lower() for name in _list(data, key))
