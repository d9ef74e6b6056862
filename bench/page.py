"""
The live page in a real Chromium, with many guests and many changes a second.

    make bench BENCH=page ARGS="--guests 10000 --changes 1000 --seconds 20"

Measured in the page while it scrolls: time until all guests are there, tasks of the main thread longer than 50 ms (what
people feel as hanging), frames; and what the server and the stream cost.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from itertools import pairwise

import msgspec

from api.cache import Cache
from lab.browser import Browser
from lab.fleet import Fleet
from lab.process import OwnedDirectory
from lab.serving import serving

WATCH = """
window.long = [];
const longer = new PerformanceObserver((list) => long.push(...list.getEntries().map((each) => each.duration)));
longer.observe({entryTypes: ['longtask']});
window.frames_ = [];
(function frame(now) { frames_.push(now); if (arguments.length) scrollBy(0, 12); requestAnimationFrame(frame); })(0);
"""


class Result(msgspec.Struct):
    """What was measured; times in milliseconds unless their name says so."""

    guests: int
    changes_per_second: float
    first_picture: float
    frames_per_second: float
    slowest_frame: float
    long_tasks: int
    longest_task: float
    share_of_long_tasks: float
    heap_mib: float
    server_cpu: float
    """Seconds of processor time per second, of the server and of what makes the changes."""


async def measure(guests: int, changes: int, seconds: float) -> Result:
    """Serve, look, change, and read off."""
    cache = Cache()
    fleet = Fleet(cache)
    fleet.fill(guests)
    with OwnedDirectory() as directory:
        async with serving(cache) as url, Browser(directory) as browser:
            await browser.show(1280, 800)
            began = time.monotonic()
            await browser.open(url)
            await browser.until(f"document.getElementById('grid').ariaRowCount === '{guests + 1}'")
            first = 1000 * (time.monotonic() - began)
            await browser.run(WATCH)
            began, cpu, made = time.monotonic(), time.process_time(), 0
            while (passed := time.monotonic() - began) < seconds:
                due = int(changes * passed) - made
                fleet.change(due)
                made += due
                await asyncio.sleep(0.02)
            cpu, passed = time.process_time() - cpu, time.monotonic() - began
            tasks, frames, heap = await browser.run(
                "return [long, frames_, performance.memory.usedJSHeapSize / 2 ** 20]"
            )
    gaps = [after - before for before, after in pairwise(frames[1:])]
    return Result(
        guests,
        round(made / passed, 1),
        round(first),
        round(1000 * len(gaps) / sum(gaps), 1),
        round(max(gaps), 1),
        len(tasks),
        round(max(tasks, default=0), 1),
        round(sum(tasks) / 1000 / passed, 3),
        round(heap, 1),
        round(cpu / passed, 2),
    )


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guests", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=1000, help="per second")
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    print(msgspec.json.encode(asyncio.run(measure(given.guests, given.changes, given.seconds))).decode())


if __name__ == "__main__":
    main()
