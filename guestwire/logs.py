"""
Logs: one line per fact, ours and third parties' through one renderer.

The event is a constant text, facts are keys. JSON for machines, columns for a terminal: that takes structlog, which
processes of ours have and subscribers need not; theirs are plain records of the standard library. Nothing is logged
from inside a libvirt callback: it runs in libvirt's thread.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec

from guestwire.settings import Log

NOISY = ("nats", "uvicorn.access", "kubernetes", "aiohttp.access", "asyncio", "urllib3")
"""Third parties that report as news what their callers report already."""


class Said(msgspec.Struct, frozen=True):
    """The message of a record."""

    event: str
    facts: dict[str, Any]

    def __str__(self) -> str:
        """For whoever has another way of writing records."""
        return " ".join((self.event, *(f"{name}={value!r}" for name, value in self.facts.items())))


class Logger:
    """A logger of the standard library that takes facts by their names."""

    def __init__(self, stage: str) -> None:
        self._logger = logging.getLogger(stage)

    def debug(self, event: str, **facts: Any) -> None:
        """For who looks for a fault."""
        self._log(logging.DEBUG, event, facts)

    def info(self, event: str, **facts: Any) -> None:
        """What is worth knowing."""
        self._log(logging.INFO, event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """What somebody may have to do something about."""
        self._log(logging.WARNING, event, facts)

    def error(self, event: str, **facts: Any) -> None:
        """What somebody has to do something about."""
        self._log(logging.ERROR, event, facts)

    def exception(self, event: str, **facts: Any) -> None:
        """A bug, with where it is."""
        self._log(logging.ERROR, event, facts, trace=True)

    def _log(self, level: int, event: str, facts: dict[str, Any], *, trace: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, Said(event, facts), exc_info=trace, stacklevel=3)


def logger(stage: str) -> Logger:
    """The logger of a stage."""
    return Logger(stage)


def _dumps(record: Any, **_: Any) -> str:
    return msgspec.json.encode(record, enc_hook=repr).decode(errors="replace")


def _facts(_logger: Any, _method: str, record: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Those of ours, as keys."""
    said = record["_record"].msg
    return {**record, "event": said.event, **said.facts} if isinstance(said, Said) else record


def configure(settings: Log) -> None:
    """Send every record of this process to standard error."""
    import structlog  # noqa: PLC0415 - subscribers need not have it

    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    last: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dumps)]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                _facts,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
