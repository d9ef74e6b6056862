"""Files that are read again when they change: certificates that were renewed, tokens that were added."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from guestwire.errors import ConfigError
from guestwire.logs import logger

log = logger("api")

PERIOD = 1.0
"""Seconds between two looks: cheap, and as good for volumes of a pod, where no event tells of a change."""

T = TypeVar("T")
Stamp = tuple[int, int, int] | None


async def follow(paths: Sequence[Path], load: Callable[[], T], apply: Callable[[T], None]) -> None:
    """
    Until cancelled: `load` in a thread when one of the files was changed or replaced, `apply` what it gave. While
    either raises ConfigError, because somebody is writing, or made a mistake, what was good stays.
    """
    seen: list[Stamp] | None = None
    said = ""
    while True:
        stamps = await asyncio.to_thread(_stamps, paths)
        if stamps != seen:
            try:
                apply(await asyncio.to_thread(load))
            except ConfigError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("what was read before stays in force", error=said)
            else:
                if seen is not None or said:
                    log.info("read again", files=[str(path) for path in paths])
                seen, said = stamps, ""
        await asyncio.sleep(PERIOD)


def _stamps(paths: Sequence[Path]) -> list[Stamp]:
    return [_stamp(path) for path in paths]


def _stamp(path: Path) -> Stamp:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
