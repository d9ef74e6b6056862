"""
Staying connected to one libvirt host, and listing its domains again and again: events get lost inside libvirt, and
whatever happened while the connection was down was told to nobody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from collectors import metrics
from collectors.host import Host
from guestwire.errors import NotConnected
from guestwire.lifecycle import backoff, sleep_unless
from guestwire.logs import logger
from guestwire.settings import Settings

log = logger("collector")


class Connection:
    """`connected` while the host can be asked; `listed` is called with the UUIDs of all domains, and whether for the
    first time since connecting.
    """

    def __init__(self, host: Host, settings: Settings, listed: Callable[[set[str], bool], None]) -> None:
        self.connected = False
        self._host = host
        self._resync = settings.collect.resync
        self._retry_max = settings.libvirt.retry_max
        self._listed = listed

    async def keep(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        uri, said, pauses = self._host.uri, "", backoff(longest=self._retry_max)
        while not stop.is_set():
            try:
                await self._host.open()
                log.info("connected to libvirt", uri=uri, host=self._host.name)
                metrics.RECONNECTS.labels(uri).inc()
                said, pauses = "", backoff(longest=self._retry_max)
                self._set(connected=True)
                await self._list_until_lost(stop)
                if not stop.is_set():
                    log.warning("lost libvirt, reconnecting", uri=uri)
                    await self._host.close()
            except NotConnected as error:
                if str(error) != said:
                    log.warning("cannot use libvirt, trying on", uri=uri, error=str(error))
                    said = str(error)
            self._set(connected=False)
            await sleep_unless(stop, next(pauses))

    def _set(self, *, connected: bool) -> None:
        self.connected = connected
        metrics.CONNECTED.labels(self._host.uri).set(connected)

    async def _list_until_lost(self, stop: asyncio.Event) -> None:
        first = True
        while not stop.is_set() and not self._host.lost.is_set():
            self._listed(set(await self._host.list()), first)
            first = False
            waits = [asyncio.ensure_future(event.wait()) for event in (stop, self._host.lost)]
            period = self._resync * random.uniform(0.9, 1.1)  # noqa: S311
            _, rest = await asyncio.wait(waits, timeout=period, return_when=asyncio.FIRST_COMPLETED)
            for wait in rest:
                wait.cancel()
