"""
With 10,000 guests and 1,000 changes a second the page stays fluent, whatever else the machine has to do.

What people feel as hanging are tasks of the main thread longer than 50 ms (W3C Long Tasks). How many there are anyhow
is measured in the same run, before and after, in an empty page that sorts a list in each frame. The page may hang more
than that by what drawing a table without a GPU on a busy machine costs (a share of 0.3 was seen with five processes for
each core, 0.01 without), but for no more than 0.3 s at once. As the machine may get busy in between, it may try again;
what is slow by itself is slow every time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from lab.browser import Browser

SECONDS = 3.0
TRIES = 4
GUESTS = 10_000
WORK = 10_000
"""Texts that the empty page sorts in each frame: about as much as the page has to do."""

WATCH = """
const [work] = arguments;
window.tasks = [];
const longer = new PerformanceObserver((list) => tasks.push(...list.getEntries().map((each) => each.duration)));
longer.observe({entryTypes: ['longtask']});
window.frames_ = 0;
const texts = Array.from({length: work}, (_, index) => String((index * 7919) % 10007));
(function frame() { frames_ += 1; [...texts].sort(); scrollBy(0, 30); requestAnimationFrame(frame); })();
"""

FREEZE = "setTimeout(() => { const end = performance.now() + 1000; while (performance.now() < end); }, 1000)"


class Fluency(NamedTuple):
    """What somebody who scrolls has seen; `longest` in milliseconds."""

    frames_per_second: float
    share_of_long_tasks: float
    longest: float

    def like(self, *usual: Fluency) -> bool:
        """Whether it is about as fluent as what is usual on this machine at this time, at the worst."""
        return (
            self.share_of_long_tasks <= max(each.share_of_long_tasks for each in usual) + 0.3
            and self.longest <= 4 * max(each.longest for each in usual) + 300
            and self.frames_per_second >= min(each.frames_per_second for each in usual) / 3
        )


class Scene:
    """A browser in which the page, and an empty page, are looked at in turn."""

    def __init__(self, browser: Browser, served: Any) -> None:
        self.browser = browser
        self.served = served
        self.seen: list[tuple[Fluency, Fluency, Fluency]] = []

    async def usual(self) -> Fluency:
        """How an empty page does."""
        await self.browser.open("about:blank")
        return await self.watched(work=WORK)

    async def watched(self, change: Callable[[int], None] | None = None, *, work: int = 0) -> Fluency:
        """Scroll for a while, with 1,000 changes a second, or some work of our own in each frame."""
        await self.browser.run(WATCH, work)
        began, made = time.monotonic(), 0
        while (passed := time.monotonic() - began) < SECONDS:
            if change:
                due = int(1000 * passed) - made
                change(due)
                made += due
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)  # observers are told a little later
        tasks, frames = await self.browser.run("return [tasks, frames_]")
        passed = time.monotonic() - began
        return Fluency(frames / passed, sum(tasks) / 1000 / passed, max(tasks, default=0))

    async def fluent(self, meanwhile: str = "") -> bool:
        """Whether the page is in one of a few tries, with something that runs in it besides."""
        before = await self.usual()
        for _ in range(TRIES):
            await self.browser.open(self.served.url)
            await self.browser.until(f"document.getElementById('grid').ariaRowCount === '{GUESTS + 1}'")
            await self.browser.run(meanwhile)
            found = await self.watched(self.served.fleet.change)
            after = await self.usual()
            self.seen.append((before, found, after))
            if found.like(before, after):
                return True
            before = after
        return False


@pytest.fixture
async def scene(serve: Any, browser: Browser) -> Scene:
    """With 10,000 guests."""
    served = await serve()
    served.fleet.fill(GUESTS)
    return Scene(browser, served)


async def test_stays_fluent(scene: Scene) -> None:
    """While somebody scrolls, it hangs no more than an empty page would."""
    assert await scene.fluent(), scene.seen


async def test_freeze_is_noticed(scene: Scene) -> None:
    """A page that hangs for a second is not fluent by this measure: the measure can fail."""
    assert not await scene.fluent(FREEZE), scene.seen


async def test_all_changes_arrive(scene: Scene) -> None:
    """The last of thousands of changes is shown."""
    ref = scene.served.fleet.refs[0]
    await scene.browser.open(scene.served.url)
    await scene.watched(scene.served.fleet.change)
    scene.served.fleet.agent(ref, connected=False, host="last-change")
    await scene.browser.run(
        "document.getElementById('search').value = 'last-change';"
        "document.getElementById('search').dispatchEvent(new Event('input'))"
    )
    names = "[...document.querySelectorAll('.body .row:not([hidden]) .guest')].map((each) => each.textContent)"

    assert ref.name == await scene.browser.until(f"{names}.length === 1 && {names}[0]")
