"""
Requests to the API server: credentials, time-outs, and what failures mean.

Credentials come from a kubeconfig or from the service account of the pod this runs in. When the server does not take
them any more (401) they are read again, as tokens are renewed on disk; requests under way keep the old connection.

This is the one module of the writer that knows the kubernetes client; its errors are translated here. NB: that client
sends a list as a merge patch unless it is told otherwise, copies every body before it encodes it unless its
`param_serialize` is left out, and looks for proxies in the environment at every request unless `trust_env` is off.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from guestwire.errors import ConfigError, NotConnected
from guestwire.logs import logger
from guestwire.settings import Status
from status_writer.answers import error_of

log = logger("status")

RENEWAL = 1.0
"""Shortest time between two looks at credentials that were refused."""


class ApiServer:
    """Use as an async context manager."""

    def __init__(self, settings: Status) -> None:
        self._settings = settings
        self._retired: ApiClient | None = None
        self._renewed = float("-inf")

    async def __aenter__(self) -> Self:
        self._client = await connect(self._settings)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in (self._client, self._retired):
            if client is not None:
                await client.close()  # type: ignore[no-untyped-call]

    async def get(self, path: str, what: str) -> Any:
        """The decoded answer to a GET."""
        async with self.request("GET", path, what) as response:
            return msgspec.json.decode(await response.read())

    async def post(self, path: str, what: str, body: Any) -> Any:
        """The decoded answer to a POST."""
        async with self.request("POST", path, what, body=body) as response:
            return msgspec.json.decode(await response.read())

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        what: str,
        *,
        body: Any = None,
        limit: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful response; all else raises, by consequence. `what` begins the message."""
        client = self._client
        patience = limit or aiohttp.ClientTimeout(total=self._settings.timeout)
        try:
            headers = await self._headers(client, method, body)
            url = client.configuration.host + path
            async with asyncio.timeout(self._settings.timeout):  # for the head, also where the body has no end
                answer = await client.call_api(method, url, headers, body, _request_timeout=patience)
            async with answer.response as response:
                if response.status >= 400:
                    if response.status == 401:
                        await self._renew(client)
                    raise error_of(what, response.status, await response.read(), response.headers)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError) as error:
            raise NotConnected(f"{what}: {error or type(error).__name__}") from error

    async def _headers(self, client: ApiClient, method: str, body: Any) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "guestwire"}
        if body is not None:
            headers["Content-Type"] = "application/json-patch+json" if method == "PATCH" else "application/json"
        if self._settings.impersonate_user:
            headers["Impersonate-User"] = self._settings.impersonate_user
        token = await client.configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = token
        return headers

    async def _renew(self, refused: ApiClient) -> None:
        """Credentials were refused: they may have been renewed on disk, or by an exec plugin."""
        if refused is not self._client or time.monotonic() < self._renewed + RENEWAL:
            return
        self._renewed = time.monotonic()
        log.warning("the API server refuses the credentials, reading them again")
        try:
            renewed = await connect(self._settings)
        except ConfigError as error:  # it was good at the start: somebody may be writing it
            raise NotConnected(str(error)) from error
        retired, self._retired, self._client = self._retired, self._client, renewed
        if retired is not None:
            await retired.close()  # type: ignore[no-untyped-call]


async def connect(settings: Status, environ: Mapping[str, str] = os.environ) -> ApiClient:
    """A client by the settings. ConfigError, naming the path, for a kubeconfig that is missing or broken."""
    configuration = Configuration(client_session_kwargs={"trust_env": False})
    path = kubeconfig(settings, environ)
    try:
        if path is None:
            kube_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                path, context=settings.context or None, client_configuration=configuration, persist_config=False
            )
        return ApiClient(configuration)
    except Exception as error:  # the loader fails in as many ways as a file can be wrong
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"status.kubeconfig: {path or 'the cluster this runs in'}: {reason}") from None


def kubeconfig(settings: Status, environ: Mapping[str, str]) -> str | None:
    """Path of the kubeconfig in force; None means the cluster this runs in. ConfigError when it is not there."""
    path = settings.kubeconfig or environ.get("KUBECONFIG", "")
    if not path and "KUBERNETES_SERVICE_HOST" in environ:
        return None
    chosen = path or str(Path("~/.kube/config").expanduser())
    if any(Path(each).expanduser().is_file() for each in chosen.split(os.pathsep) if each):
        return chosen
    hint = "" if path else ", and this runs in no cluster; set status.kubeconfig or KUBECONFIG"
    raise ConfigError(f"status.kubeconfig: no file {chosen}{hint}")
