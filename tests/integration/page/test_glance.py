"""The fleet at a glance: what each card says of a small fleet that is known, and what a click on it shows."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from guestwire import codec
from guestwire.lifecycle import cancel
from guestwire.snapshot import (
    Filesystem,
    FilesystemInfo,
    FilesystemList,
    GuestOSInfo,
    GuestRef,
    Kind,
    ListMeta,
    OperatingSystem,
    Reading,
    User,
    UserList,
)
from lab.browser import Browser

LIVE = "document.getElementById('state').dataset.state === 'live'"
COUNT = "document.getElementById('count').textContent"
CHIPS = "[...document.querySelectorAll('#chips button')].map((each) => each.firstChild.textContent)"
SHOWN = """(() => {
  const rows = [...document.querySelectorAll('.body .row:not([hidden])')];
  rows.sort((a, b) => a.index - b.index);
  return rows.map((each) => each.querySelector('.cell.name').textContent);
})()
"""
CARD = """(() => {
  const all = [...document.querySelectorAll('.card')];
  const card = all.find((each) => each.querySelector('h3').textContent === TITLE);
  if (!card) return null;
  const lines = [...card.querySelectorAll('li:not([hidden]) button')];
  return [card.querySelector('.note').textContent,
    ...lines.map((line) => ['.what', '.value'].map((part) => line.querySelector(part).innerText).join(' | '))];
})()
"""
DEBIAN, UBUNTU = "Debian GNU/Linux 12 (bookworm)", "Ubuntu 24.04 LTS"
ALL = ["a/web1", "a/web2", "b/db1", "b/db2", "c/bare"]


def say(served: Any, name: str, *, system: str, users: tuple[str, ...], disk: tuple[str, int], **agent: Any) -> None:
    """Everything about one guest; the disk's share in percent."""
    ref = GuestRef(*name.split("/"))
    served.fleet.agent(ref, **agent)
    info = OperatingSystem(id="x", pretty_name=system)
    served.fleet.say(ref, Kind.GUESTOSINFO, GuestOSInfo(FilesystemInfo(None), info, "UTC, 0"))
    served.fleet.say(ref, Kind.USERLIST, UserList(tuple(User(each) for each in users), ListMeta()))
    mount, share = disk
    items = (Filesystem("d", "/small", "ext4", 1, 100), Filesystem("e", mount, "ext4", share, 100))
    served.fleet.say(ref, Kind.FILESYSTEMLIST, FilesystemList(items, ListMeta()))


def read(minutes: float) -> dict[str, Reading]:
    """Readings of so long ago."""
    return {Kind.USERLIST: Reading(codec.now() - timedelta(minutes=minutes))}


@pytest.fixture
async def small(serve: Any, browser: Browser) -> Any:
    """Five guests, and the page that shows them."""
    served = await serve()
    served.cache.begin()
    say(served, "a/web1", system=DEBIAN, users=("alice", "root"), disk=("/", 50), readings=read(0))
    say(served, "a/web2", system=DEBIAN, users=("alice",), disk=("/var", 97), readings=read(5))
    say(served, "b/db1", system=UBUNTU, users=(), disk=("/", 88), readings=read(60), frozen=True)
    say(served, "b/db2", system=UBUNTU, users=("bob",), disk=("/", 5), readings=read(0), connected=False)
    served.fleet.agent(GuestRef("c", "bare"), channel=False, connected=False, readings={})
    served.cache.complete()
    await browser.open(served.url)
    await browser.until(LIVE)
    await browser.until(f"{COUNT} === '5 guests' && {SHOWN}.length === 5")
    return served


async def card(browser: Browser, title: str, lines: int) -> Any:
    """What a card says, once it has so many lines."""
    expression = CARD.replace("TITLE", json.dumps(title))
    return await browser.until(f"{expression}?.length === {lines + 1} && {expression}")


async def press(browser: Browser, title: str, words: str) -> None:
    """Click a line of a card, where a person would; it is marked by its place first."""
    await browser.run(
        "const [title, words] = arguments;"
        "document.querySelectorAll('[data-pressed-here]').forEach((each) => delete each.dataset.pressedHere);"
        "const all = [...document.querySelectorAll('.card')];"
        "const card = all.find((each) => each.querySelector('h3').textContent === title);"
        "const lines = [...card.querySelectorAll('li:not([hidden]) button')];"
        "lines.find((each) => each.querySelector('.what').innerText.startsWith(words)).dataset.pressedHere = '';",
        title,
        words,
    )
    await browser.click("[data-pressed-here]")


async def shown(browser: Browser, *names: str) -> None:
    """Wait until the table shows these guests in this order, and the count says so."""
    count = "5 guests" if len(names) == 5 else f"{len(names)} of 5 guests"
    await browser.until(f"{SHOWN}.join() === {json.dumps(','.join(names))} && {COUNT} === '{count}'", within=20)


CARDS = {
    "Agents": [
        "5 guests",
        "connected | 2",
        "frozen | 1",
        "does not answer | 0",
        "disconnected | 1",
        "no agent | 1",
        "not heard of | 0",
    ],
    "Operating systems": ["2 systems", f"{DEBIAN} | 2", f"{UBUNTU} | 1"],
    "Fullest filesystems": ["used, where it is known", "a/web2/var | 97 %", "b/db1/ | 88 %", "a/web1/ | 50 %"],
    "Logged in": ["3 users on 2 guests", "alice | 2 guests", "root | 1 guest"],
    "Freshness": [
        "newest message: ",
        "within 3 minutes | 2",
        "within 15 minutes | 1",
        "longer ago | 1",
        "never read | 1",
    ],
}


async def test_cards_count(small: Any, browser: Browser) -> None:
    """Each card says what is so; facts of a guest whose agent is away are not known, and not counted."""
    found = {title: await card(browser, title, len(lines) - 1) for title, lines in CARDS.items()}

    assert found["Freshness"].pop(0).startswith("newest message: ")
    assert {**CARDS, "Freshness": CARDS["Freshness"][1:]} == found


@pytest.mark.parametrize(
    ("title", "words", "chip", "address", "names"),
    [
        ("Agents", "frozen", "agent: frozen", "agent=frozen", ["b/db1"]),
        ("Agents", "disconnected", "agent: disconnected", "agent=disconnected", ["b/db2"]),
        ("Agents", "no agent", "agent: no agent", "agent=none", ["c/bare"]),
        ("Operating systems", "Debian", f"os: {DEBIAN}", "os=Debian", ["a/web1", "a/web2"]),
        ("Logged in", "root", "user: root", "user=root", ["a/web1"]),
        ("Freshness", "within 3", "seen: within 3 minutes", "fresh=recent", ["a/web1", "b/db2"]),
        ("Freshness", "longer", "seen: longer ago", "fresh=old", ["b/db1"]),
        ("Freshness", "never", "seen: never read", "fresh=never", ["c/bare"]),
    ],
)
async def test_line_shows_whom_it_counts(
    small: Any, browser: Browser, title: str, words: str, chip: str, address: str, names: list[str]
) -> None:
    """A click on a line shows those guests, as a chip says, and the page's address; both take it back."""
    await press(browser, title, words)
    await shown(browser, *names)
    pressed = await browser.run("return document.querySelector('[data-pressed-here]').ariaPressed")
    chips, where = await browser.run(f"return [{CHIPS}, location.hash]")
    await browser.open("about:blank")
    await browser.open(f"{small.url}/{where}")
    again = await browser.until(f"{SHOWN}.join() === {json.dumps(','.join(names))} && {COUNT}")
    await browser.click("#chips button")
    await shown(browser, *ALL)
    await press(browser, title, words)
    await shown(browser, *names)
    await press(browser, title, words)
    await shown(browser, *ALL)

    assert ("true", [chip]) == (pressed, chips)
    assert f"{len(names)} of 5 guests" == again
    assert where.startswith(f"#{address}")
    assert [[], ""] == await browser.run(f"return [{CHIPS}, location.hash]")


async def test_fullest_opens_its_guest(small: Any, browser: Browser) -> None:
    """A click on a filesystem opens the guest it is in."""
    await press(browser, "Fullest filesystems", "a/web2")
    await browser.until("!document.getElementById('guest').hidden")

    assert "a/web2" == await browser.run("return document.getElementById('guest-name').textContent")


async def test_namespace(small: Any, browser: Browser) -> None:
    """All namespaces are offered; the chosen one is shown, is part of the address, and goes with other filters."""
    offered = await browser.run("return [...document.querySelectorAll('#namespace option')].map((each) => each.value)")
    await browser.click("#namespace option[value=b]")
    await shown(browser, "b/db1", "b/db2")
    where = await browser.run("return location.hash")
    await press(browser, "Agents", "frozen")
    await shown(browser, "b/db1")
    await browser.click("#namespace option[value='']")
    await browser.click("#chips button")
    await shown(browser, *ALL)

    assert (["", "a", "b", "c"], "#namespace=b") == (offered, where)


async def test_search(small: Any, browser: Browser) -> None:
    """Every word must be found somewhere; what nobody has leaves the table empty, and says so."""
    await browser.press("/")
    for text, names in (("alice", ["a/web1", "a/web2"]), ("alice bookworm root", ["a/web1"]), ("frozen", ["b/db1"])):
        await browser.press(*text)
        await shown(browser, *names)
        await browser.press("Escape")
        await shown(browser, *ALL)
    await browser.press(*"nobody-has-this")
    words = await browser.until(
        "!document.getElementById('empty').hidden && document.getElementById('empty').innerText"
    )

    assert "No guest is like that." == words


async def test_cards_are_live(small: Any, browser: Browser) -> None:
    """A change shows in the cards, and a guest leaves a list it does not belong to any more."""
    await press(browser, "Agents", "frozen")
    await shown(browser, "b/db1")
    say(small, "b/db1", system=UBUNTU, users=("bob",), disk=("/", 99), frozen=False)
    await shown(browser)
    expression = CARD.replace("TITLE", '"Fullest filesystems"')
    fullest = await browser.until(f"{expression}[1].includes('99') && {expression}[1]")
    agents = await card(browser, "Agents", 6)
    users = await card(browser, "Logged in", 3)

    assert ("b/db1/ | 99 %", "connected | 3", "frozen | 0") == (fullest, agents[1], agents[2])
    assert ["4 users on 3 guests", "alice | 2 guests", "bob | 1 guest", "root | 1 guest"] == users


async def test_stale(small: Any, browser: Browser) -> None:
    """Of whom nobody has told for long is shown as that, with nothing arriving, until somebody tells of them again."""
    await browser.run("location.hash = 'agent=stale&guest=a/web1'; location.reload()")
    await browser.until(f"{LIVE} && {COUNT} === '0 of 5 guests'")
    warning = "!document.querySelector('.warning').hidden"
    assert not await browser.run(f"return {warning}")
    small.cache.silence = 3
    await browser.until(f"{COUNT} === '5 of 5 guests' && {warning}")

    async def tell() -> None:
        while True:
            small.fleet.agent(GuestRef("a", "web1"))
            await asyncio.sleep(0.2)

    telling = asyncio.create_task(tell())
    try:
        await shown(browser, *ALL[1:])
        await browser.until(f"!({warning})")
    finally:
        await cancel(telling)
