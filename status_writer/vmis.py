"""
The API server's VMIs: a watch cache to read from, and JSON patches of the status.

List and watch as Kubernetes means them: a consistent list, a watch from its resourceVersion with bookmarks, a new list
when the server has forgotten that version (410), reconnecting with back-off.

KubeVirt's VMI has no status subresource: its status is part of the object. Elsewhere there may be one, and then a patch
of the object would leave the status as it is. Discovery tells, again with every list.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec

from guestwire.errors import NotConnected, Rejected, TransientError
from guestwire.lifecycle import backoff
from guestwire.logs import logger
from guestwire.settings import Status
from guestwire.snapshot import GuestRef
from status_writer.answers import Expired, Gone, NotServed, error_of_watch
from status_writer.api_server import ApiServer
from status_writer.cache import Cache, ref_of
from status_writer.status_patch import Patch, Vmi

log = logger("status")

GROUP_VERSION = "/apis/kubevirt.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
PLURAL = "virtualmachineinstances"
PAGE = 500
"""VMIs per page of the list."""

WATCH_SECONDS = 300
"""Longest life of one watch request; the server ends it, and the next goes on from there."""

WATCH_SILENCE = 120.0
"""Seconds without a byte that mean a dead connection: bookmarks come about once a minute."""


class Vmis:
    """
    Use as an async context manager; `run` keeps the cache. `changed` is called with each guest whose VMI changed,
    `recovered` when the API server can be reached again.
    """

    def __init__(
        self, settings: Status, changed: Callable[[GuestRef], None], recovered: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._server = ApiServer(settings)
        self._recovered = recovered
        self._cache = Cache(changed)
        self._subresource = ""
        self._version = ""
        self.synced = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, trace)

    @property
    def ready(self) -> bool:
        """Whether the cache follows the API server."""
        return self.synced.is_set()

    async def wait_synced(self, stop: asyncio.Event) -> bool:
        """Wait until the cache is filled for the first time; False when `stop` was set before."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self.synced, stop)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self.ready

    def get(self, ref: GuestRef) -> Vmi | None:
        """A VMI as the cache has it."""
        return self._cache.get(ref)

    async def read(self, ref: GuestRef) -> Vmi | None:
        """A VMI as it is now; None when there is none."""
        try:
            return self._cache.answered(await self._server.get(_path(ref), f"read VMI {ref}"))
        except Gone:
            self._cache.drop(ref)
            return None

    async def patch(self, ref: GuestRef, patch: Patch) -> Vmi | None:
        """Patch the status; the VMI afterwards, None when there is none. Raises Conflict, TransientError, Rejected."""
        path = _path(ref) + self._subresource + "?fieldManager=guestwire"
        try:
            with self._cache.writing(ref):
                async with self._server.request("PATCH", path, f"patch VMI {ref}", body=patch) as response:
                    return self._cache.answered(msgspec.json.decode(await response.read()))
        except Gone:
            self._cache.drop(ref)
            return None
        except NotServed:
            await self._discover()
            raise

    async def record(self, namespace: str, event: dict[str, Any]) -> None:
        """Create an Event (core/v1). Raises TransientError, Rejected; Gone when there is no such namespace."""
        await self._server.post(f"/api/v1/namespaces/{quote(namespace)}/events", "create event", event)

    async def run(self) -> None:
        """Keep the cache, until cancelled."""
        said = ""
        pauses = backoff(longest=30)
        while True:
            try:
                await self._discover()
                if not self._version:
                    await self._list()
                self.synced.set()
                if said:
                    log.info("VMIs can be watched again")
                    self._recovered()
                said, pauses = "", backoff(longest=30)
                await asyncio.gather(self._watch(), asyncio.sleep(1))  # at most one watch a second
            except Expired:
                log.debug("watch expired, listing again")
                self._version = ""
            except (TransientError, Rejected) as error:
                self.synced.clear()
                if not isinstance(error, NotConnected):  # then going on from there may be the very problem
                    self._version = ""
                if str(error) != said:
                    said = str(error)
                    log.warning("cannot watch VMIs, trying on", error=said)
                await asyncio.sleep(max(next(pauses), getattr(error, "delay", None) or 0))

    async def _discover(self) -> None:
        try:
            resources = (await self._server.get(GROUP_VERSION, "discover VMIs"))["resources"]
        except NotServed:
            resources = []
        names = {each["name"] for each in resources}
        if PLURAL not in names:
            raise TransientError(f"the API server has no {PLURAL}.kubevirt.io; install KubeVirt or its CRD")
        self._subresource = "/status" if f"{PLURAL}/status" in names else ""
        await self._check_rights()

    async def _check_rights(self) -> None:
        """Ask before it shows with every VMI. The rights to list and watch show by themselves."""
        asked = {
            "verb": "patch",
            "group": "kubevirt.io",
            "resource": PLURAL,
            "subresource": self._subresource.removeprefix("/"),
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        try:
            answer = await self._server.post(REVIEWS, "review rights", review)
        except NotServed:
            return
        if not answer["status"].get("allowed"):
            who = self._settings.impersonate_user or "the user of the kubeconfig"
            raise TransientError(f"{who} may not patch {PLURAL}.kubevirt.io{self._subresource}; grant the right")

    async def _list(self) -> None:
        """Fill the cache anew."""
        found: set[GuestRef] = set()
        token = ""
        while True:
            path = f"{GROUP_VERSION}/{PLURAL}?limit={PAGE}" + (f"&continue={quote(token)}" if token else "")
            page = await self._server.get(path, "list VMIs")
            found.update(map(self._cache.listed, page["items"]))
            token = page["metadata"].get("continue", "")
            if not token:
                break
        self._cache.keep_only(found)
        self._version = str(page["metadata"]["resourceVersion"])

    async def _watch(self) -> None:
        """One watch request to its end."""
        seconds = WATCH_SECONDS - random.randrange(WATCH_SECONDS // 10)  # noqa: S311 - spreads reconnects
        path = (
            f"{GROUP_VERSION}/{PLURAL}?watch=true&allowWatchBookmarks=true"
            f"&timeoutSeconds={seconds}&resourceVersion={self._version}"
        )
        limit = aiohttp.ClientTimeout(sock_connect=self._settings.timeout, sock_read=WATCH_SILENCE)
        async with self._server.request("GET", path, "watch VMIs", limit=limit) as response:
            async for line in response.content:
                event = msgspec.json.decode(line)
                item = event["object"]
                match event["type"]:
                    case "ADDED" | "MODIFIED":
                        self._cache.watched(item)
                    case "DELETED":
                        self._cache.drop(ref_of(item))
                    case "ERROR":
                        raise error_of_watch(item)
                self._version = str(item["metadata"]["resourceVersion"])


def _path(ref: GuestRef) -> str:
    return f"{GROUP_VERSION}/namespaces/{ref.namespace}/{PLURAL}/{ref.name}"
