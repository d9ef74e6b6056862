"""
Logs: one line per fact, ours and third parties' through one renderer.

The event is a constant text, facts are keys. JSON for machines, columns for a terminal. Nothing is logged from inside a
libvirt callback: it runs in libvirt's thread.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec
import structlog

from guestwire.settings import Log

NOISY = ("nats", "uvicorn.access", "kubernetes", "aiohttp.access", "asyncio", "urllib3")
"""Third parties that report as news what their callers report already."""


def _dumps(record: Any, **_: Any) -> str:
    return msgspec.json.encode(record, enc_hook=repr).decode(errors="replace")


def configure(settings: Log) -> None:
    """Send every record of this process to standard error."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    last: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dumps)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)


def logger(stage: str) -> structlog.stdlib.BoundLogger:
    """The logger of a stage."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(stage)
    return bound
