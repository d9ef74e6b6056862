"""
The stream, looked at from time to time: made again if somebody deleted it, and told of where it is not as it would be.

An operator may change it while collectors run. That is respected (`guestwire.drift`), and shows in the log and in a
metric. What a stream that was made anew lacks comes with the next heartbeat of each guest: its fence does not hold.
"""

from __future__ import annotations

import asyncio
import random

from guestwire.errors import ConfigError, TransientError
from guestwire.jetstream import Bus
from guestwire.lifecycle import sleep_unless
from guestwire.logs import logger
from publishers import metrics

log = logger("publisher")

PACE = 60.0
"""Seconds between two looks, give or take a fifth: hosts that start together do not look together."""


async def keep(bus: Bus, stop: asyncio.Event, pace: float = PACE) -> None:
    """Look until `stop`; the stream was there at the start."""
    said = ""
    while True:
        metrics.DRIFT.set(len(bus.drift))
        if await sleep_unless(stop, pace * random.uniform(0.8, 1.2)):  # noqa: S311 - no secret
            return
        try:
            await bus.ensure_stream()
        except TransientError as error:  # whoever publishes tells it
            log.debug("cannot look at the stream", error=str(error))
        except ConfigError as error:
            if str(error) != said:
                log.warning("the stream is none that can be used any more", error=str(error))
            said = str(error)
