"""The API's own server over a cache that somebody fills: for the page's pictures and its benchmark."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.app import Api, Limits
from api.cache import Cache
from api.history import History
from api.metrics import Metrics
from api.server import Server, config, listen
from guestwire import settings


@asynccontextmanager
async def serving(cache: Cache, history: History | None = None) -> AsyncIterator[str]:
    """Serve whoever asks on this machine; where."""
    metrics = Metrics(cache, connected=lambda: True, skipped=lambda: 0, api=settings.Api())
    api = Api(cache, metrics, Limits(), history=history)
    server = Server(config(api, grace=5))
    listening = listen(settings.Api(listen="127.0.0.1:0"))
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        api.end()
        await task
