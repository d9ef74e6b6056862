"""
The cluster's API server, of which the API asks two things: whom to trust as its front proxy, and who may read.

The one module of the API that knows the kubernetes client; its errors are translated here. Credentials come from a
kubeconfig or from the service account of the pod this runs in, and are read again when the server does not take them
any more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from guestwire.errors import ConfigError, NotConnected, TransientError
from guestwire.logs import logger

log = logger("api")

TIMEOUT = 10.0
"""Longest wait for an answer, in seconds."""

RENEWAL = 1.0
"""Shortest time between two looks at credentials that were refused, in seconds."""


class Cluster:
    """Use as an async context manager. Entering raises ConfigError for a kubeconfig that is missing or broken."""

    def __init__(self, kubeconfig: str) -> None:
        self._kubeconfig = kubeconfig
        self._retired: ApiClient | None = None
        self._renewed = float("-inf")

    async def __aenter__(self) -> Self:
        self._client = await connect(self._kubeconfig)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in (self._client, self._retired):
            if client is not None:
                await client.close()  # type: ignore[no-untyped-call]

    async def ask(self, method: str, path: str, what: str, body: Any = None) -> Any:
        """The decoded answer. Raises TransientError, beginning with `what`, for all that is no success."""
        client = self._client
        headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "guestwire"}
        try:
            token = await client.configuration.get_api_key_with_prefix("BearerToken")
            if token:
                headers["Authorization"] = token
            answer = await client.call_api(
                method,
                client.configuration.host + path,
                headers,
                body,
                _request_timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            )
            async with answer.response as response:
                content = await response.read()
                if response.status == 401:
                    await self._renew(client)
                if response.status >= 400:
                    raise TransientError(f"{what}: {response.status}: {_message(content)}")
                return msgspec.json.decode(content)
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError) as error:
            raise NotConnected(f"{what}: {error or type(error).__name__}") from error

    async def _renew(self, refused: ApiClient) -> None:
        if refused is not self._client or time.monotonic() < self._renewed + RENEWAL:
            return
        self._renewed = time.monotonic()
        log.warning("the API server refuses the credentials, reading them again")
        try:
            renewed = await connect(self._kubeconfig)
        except ConfigError as error:  # it was good at the start: somebody may be writing it
            raise NotConnected(str(error)) from error
        retired, self._retired, self._client = self._retired, self._client, renewed
        if retired is not None:
            await retired.close()  # type: ignore[no-untyped-call]


async def connect(kubeconfig: str, environ: Mapping[str, str] = os.environ) -> ApiClient:
    """A client by a kubeconfig; where none is named, by $KUBECONFIG, the pod, or ~/.kube/config."""
    configuration = Configuration(client_session_kwargs={"trust_env": False})
    path = _file(kubeconfig, environ)
    try:
        if path is None:
            kube_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                path, client_configuration=configuration, persist_config=False
            )
        return ApiClient(configuration)
    except Exception as error:  # the loader fails in as many ways as a file can be wrong
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"api.kubeconfig: {path or 'the cluster this runs in'}: {reason}") from None


def _file(kubeconfig: str, environ: Mapping[str, str]) -> str | None:
    """Path of the kubeconfig in force, or several as in $KUBECONFIG; None means the cluster this runs in."""
    path = kubeconfig or environ.get("KUBECONFIG", "")
    if not path and "KUBERNETES_SERVICE_HOST" in environ:
        return None
    chosen = path or "~/.kube/config"
    files = [os.path.expanduser(each) for each in chosen.split(os.pathsep) if each]  # noqa: PTH111 - homeless is no error
    if any(map(os.path.isfile, files)):
        return os.pathsep.join(files)
    raise ConfigError(f"api.kubeconfig: no file {chosen}{'' if path else ', and this runs in no cluster'}")


def _message(content: bytes) -> str:
    """What a Status says; of anything else no more than a line."""
    try:
        return str(msgspec.json.decode(content)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return content[:200].decode(errors="replace").replace("\n", " ")
