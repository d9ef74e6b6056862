"""`python -m lab.soak`: see the package. Exit status 0 when everything agrees at the end, else 1 after one line."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
import time

from guestwire import logs
from guestwire.errors import GuestwireError
from guestwire.settings import Log
from lab.build import build
from lab.errors import LabError
from lab.soak.run import Soak


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(prog="python -m lab.soak", description="the pipeline under change and faults")
    parser.add_argument("--minutes", type=float, default=10.0, help="of change and faults (default: 10)")
    parser.add_argument("--seed", default="", help="repeats what happened under it (default: a new one)")
    parser.add_argument("--guests", type=int, default=200, help="simulated ones (default: 200)")
    options = parser.parse_args()
    logs.configure(Log(level="error"))
    seed, began = options.seed or secrets.token_hex(4), time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    say(f"{options.minutes:g} min with SEED={seed}")
    try:
        parts = build(progress=lambda _: None)
        soak = Soak(parts, seconds=60 * options.minutes, seed=seed, guests=options.guests, say=say)
        problems = asyncio.run(_interruptible(soak))
    except (LabError, GuestwireError, OSError) as error:
        problems = [str(error).splitlines()[0]]
    except KeyboardInterrupt:
        say("ended by you")
        return 1
    for problem in problems:
        say(problem)
    if problems:
        more = f", and {len(problems) - 1} more" if problems[1:] else ""
        print(f"soak: {problems[0]}{more} (SEED={seed})", file=sys.stderr, flush=True)
        return 1
    say("everything agrees, and nothing has grown")
    return 0


async def _interruptible(soak: Soak) -> list[str]:
    """Its result; SIGTERM ends it as Ctrl-C does, which a shell may have told us to ignore."""
    running = asyncio.ensure_future(soak.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        return await running
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup) -> BaseException:
    """What went wrong first."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


if __name__ == "__main__":
    sys.exit(main())
