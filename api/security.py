"""
The settings of security made into parts: TLS, doors, and what keeps them up to date.

Without authentication and TLS only loopback addresses are served, unless the settings insist.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from api import files, readers
from api.authorization import Access, Door
from api.discovery import PROBES
from api.tls import Loaded, Material, Tls
from guestwire.errors import ConfigError
from guestwire.settings import Api

if TYPE_CHECKING:
    from api.front_proxy import FrontProxy

METRICS = "/metrics"


class Security:
    """Made from settings, by reading files. Raises ConfigError."""

    def __init__(self, api: Api) -> None:
        check(api)
        self._api = api
        self._changed: Callable[[], None] = lambda: None
        self.tls = Tls(_material(api)) if api.certificate else None
        self._readers: readers.Readers | None = None
        self._front_proxy: FrontProxy | None = None
        doors: list[Door] = []
        if api.aggregated and self.tls:
            from api.cluster import Cluster  # noqa: PLC0415 - only here the kubernetes client is needed
            from api.front_proxy import FrontProxy  # noqa: PLC0415

            self._front_proxy = FrontProxy(Cluster(api.kubeconfig), self.tls, self._distrust)
            doors.append(self._front_proxy)
        if api.readers:
            self._readers = readers.Readers(readers.read(Path(api.readers)), certificates=bool(api.client_ca))
            doors.append(self._readers)
        paths = frozenset(path for path in PROBES if path != METRICS or api.open_metrics)
        self.asked = ", ".join(_who(api)) or "whoever asks"
        """Who may read, in words."""
        self.access = Access(doors, lifetime=api.decisions, open_paths=paths, ready=self._ready) if doors else None

    async def run(self, changed: Callable[[], None]) -> None:
        """
        Until cancelled: follow the files and the cluster. `changed` is called when connections of before should not go
        on, as other clients are trusted.
        """
        self._changed = changed
        async with contextlib.AsyncExitStack() as stack:
            if self._front_proxy:
                await stack.enter_async_context(self._front_proxy)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            if self._front_proxy:
                group.create_task(self._front_proxy.run())
            if self.tls:
                group.create_task(files.follow(self.tls.material.files, self.tls.load, self._renew))
            if self._readers:
                file = Path(self._api.readers)
                group.create_task(files.follow([file], lambda: readers.read(file), self._replace))
            await asyncio.Event().wait()

    def _ready(self) -> bool:
        return self._front_proxy is None or self._front_proxy.trust is not None

    def _renew(self, loaded: Loaded) -> None:
        if self.tls and self.tls.apply(loaded):
            self._distrust()

    def _replace(self, table: readers.Table) -> None:
        if self._readers and self.access and table.text != self._readers.table.text:
            self._readers.table = table
            self.access.forget()

    def _distrust(self) -> None:
        if self.access:
            self.access.forget()
        self._changed()


def check(api: Api) -> None:
    """What does not go together. Raises ConfigError."""
    if bool(api.certificate) != bool(api.key):
        raise ConfigError("api.certificate, api.key: one is set without the other")
    for setting in ("client_ca", "aggregated"):
        if getattr(api, setting) and not api.certificate:
            raise ConfigError(f"api.{setting}: needs TLS; set api.certificate and api.key")
    if api.client_ca and not api.readers:
        raise ConfigError("api.client_ca: api.readers must say what clients with a certificate may read")
    if api.client_ca and api.aggregated:
        raise ConfigError("api.client_ca: with api.aggregated the only clients with a certificate are front proxies")


def exposed(api: Api) -> str:
    """Why others than this host must not reach the API by these settings; empty when they may."""
    if api.insecure:
        return ""
    if not (api.readers or api.aggregated):
        return "the API asks nobody who they are; listen on 127.0.0.1, or set api.insecure to serve whoever asks"
    return "" if api.certificate else "tokens would come in clear; set api.certificate and api.key"


def _who(api: Api) -> Iterator[str]:
    if api.aggregated:
        yield "users of the cluster"
    if api.readers:
        yield "holders of tokens"
    if api.client_ca:
        yield "clients with a certificate"


def _material(api: Api) -> Material:
    return Material(Path(api.certificate), Path(api.key), Path(api.client_ca) if api.client_ca else None)
