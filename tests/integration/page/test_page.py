"""The page as people see it, in a real Chromium: what it shows, how it is used, and that nothing in it is run."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from guestwire import codec, subjects
from guestwire.follower import Follower
from guestwire.jetstream import Bus
from guestwire.lifecycle import cancel
from guestwire.snapshot import (
    AgentState,
    Filesystem,
    FilesystemInfo,
    FilesystemList,
    GuestOSInfo,
    GuestRef,
    Kind,
    ListMeta,
    OperatingSystem,
    Phase,
    User,
    UserList,
)
from lab.browser import Browser

LIVE = "document.getElementById('state').dataset.state === 'live'"
COUNT = "document.getElementById('count').textContent"
NAMES = "[...document.querySelectorAll('.body .row:not([hidden]) .guest')].map((each) => each.textContent)"
BANNER = "document.getElementById('banner').hidden ? '' : document.getElementById('banner').innerText"
OPEN = "document.getElementById('guest').hidden ? '' : document.getElementById('guest').innerText"
FACTS = "document.querySelectorAll('#guest .facts section').length"
VM = GuestRef("default", "vm1")


async def live(browser: Browser, url: str) -> None:
    """Open the page, and wait until it has been told everything."""
    await browser.open(url)
    await browser.until(LIVE)


async def test_ten_thousand_guests(serve: Any, browser: Browser) -> None:
    """All are counted and can be reached; in the document are only those that can be seen."""
    served = await serve()
    served.fleet.fill(10_000)
    await live(browser, served.url)
    await browser.until(f"{COUNT} === '10,000 guests'")
    total = await browser.until("document.getElementById('grid').ariaRowCount === '10001' && '10001'")
    rows = await browser.run("return document.querySelectorAll('.body .row').length")
    await browser.run("document.getElementById('grid').focus()")
    await browser.press("End")
    last = await browser.until("document.querySelector('[aria-selected=true]')?.getAttribute('aria-rowindex')")

    assert ("10001", "10001") == (total, last)
    assert rows < 100
    assert [] == await browser.complaints()


async def test_by_keys_alone(served: Any, browser: Browser) -> None:
    """Search, walk, open and close without a mouse; the focus is always somewhere, and seen."""
    served.fleet.agent(GuestRef("zoo", "tiger7"))
    served.fleet.agent(GuestRef("zoo", "tiger12"))
    await live(browser, served.url)
    await browser.press("/", *"tiger")
    await browser.until(f"{NAMES}.join() === 'tiger7,tiger12'")
    await browser.press("ArrowDown", "ArrowDown", "Enter")
    opened = await browser.until(
        "document.activeElement.id === 'guest' && document.getElementById('guest-name').textContent"
    )
    await browser.press("Escape")
    focus = await browser.run("return document.activeElement.id")
    active = await browser.run(
        "const id = document.activeElement.getAttribute('aria-activedescendant');"
        "return [document.getElementById(id).innerText, getComputedStyle(document.activeElement).outlineStyle]"
    )

    assert ("zoo/tiger12", "grid") == (opened, focus)
    assert ("solid", True) == (active[1], active[0].startswith("zoo/tiger12"))
    assert "" == await browser.run(f"return {OPEN}")


async def test_sorting(served: Any, browser: Browser) -> None:
    """A click on a column sorts by it, another the other way; what can be read aloud says so."""
    await live(browser, served.url)
    for order in ("descending", "ascending"):
        await browser.click(".head .disk button")
        await browser.until(f"document.querySelector('.head .disk').getAttribute('aria-sort') === '{order}'")
        shares = await browser.run(
            "const rows = [...document.querySelectorAll('.body .row:not([hidden])')];"
            "rows.sort((a, b) => a.index - b.index); return rows.map((each) => each.row.used)"
        )

        assert sorted(shares, reverse=order == "descending") == shares


async def test_changes_are_shown(served: Any, browser: Browser) -> None:
    """A change shows by itself. Of a row that did not change nothing is painted again, whatever others do."""
    first, second = GuestRef("aaa", "vm1"), GuestRef("aaa", "vm2")
    for ref in (first, second):
        served.fleet.agent(ref)
        served.fleet.users(ref)
    await live(browser, served.url)
    await browser.until(f"{NAMES}.slice(0, 2).join() === 'vm1,vm2' || {NAMES}.includes('vm1')")
    await browser.run(
        "window.painted = 0; const rows = [...document.querySelectorAll('.body .row')];"
        "const row = rows.find((each) => each.row?.name === 'vm2');"
        "new MutationObserver((all) => painted += all.filter((e) => !e.target.closest('time')).length)"
        ".observe(row, {subtree: true, childList: true, characterData: true, attributes: true});"
    )
    served.fleet.agent(first, connected=False)
    for ref in served.fleet.refs:
        served.fleet.agent(ref)
    await browser.until(
        "[...document.querySelectorAll('.body .row')].some("
        "(each) => each.row?.name === 'vm1' && each.innerText.includes('disconnected'))"
    )
    served.fleet.agent(second, connected=False, phase=Phase.GONE)
    await browser.until(f"!{NAMES}.includes('vm2')")
    gone = await browser.run("return window.painted")
    served.fleet.agent(GuestRef("aaa", "vm3"))
    await browser.until(f"{NAMES}.includes('vm3')")

    assert gone <= 20


async def test_nothing_is_run(served: Any, browser: Browser) -> None:
    """Whatever a guest says is shown as it is: no script, no markup, no style of it takes effect."""
    evil = "<script>hacked=1</script><img src=x onerror='hacked=1'>"
    ref = GuestRef("aaa", evil)
    served.fleet.agent(ref, reason=evil, version=evil, host=evil)
    served.fleet.say(ref, Kind.USERLIST, UserList((User(evil), User("\u202egnol\x00\n", login_time=2**60)), ListMeta()))
    disk = Filesystem("a", evil, evil, 99, 100)
    served.fleet.say(ref, Kind.FILESYSTEMLIST, FilesystemList((disk,), ListMeta()))
    info = OperatingSystem(id="x", pretty_name=evil, kernel_release=evil)
    served.fleet.say(ref, Kind.GUESTOSINFO, GuestOSInfo(FilesystemInfo(None), info, evil, hostname=evil))
    await live(browser, served.url)
    await browser.until(f"{NAMES}.includes({json.dumps(evil)})")
    await browser.run("document.getElementById('grid').focus()")
    await browser.press("Home", "Enter")
    await browser.until(f"{FACTS} === 4")
    shown = await browser.run(
        f"return [typeof hacked, document.querySelectorAll('main img, aside img, main script').length, {OPEN}]"
    )

    assert ["undefined", 0] == shown[:2]
    assert shown[2].count("hacked=1") > 5
    assert [] == [each for each in await browser.complaints() if "history" not in each]


async def test_policy_holds(served: Any, browser: Browser) -> None:
    """Should text ever become markup all the same, the browser refuses to: no inline script, no handler, no frame."""
    await live(browser, served.url)
    outcome = await browser.run(
        "try { document.body.innerHTML = '<b>x</b>'; return 'made' } catch (error) { return error.name }"
    )
    await browser.run(
        "const script = document.createElement('script'); try { script.text = 'hacked=1' } catch { return }"
        "document.body.append(script)"
    )
    elsewhere = await browser.run("return fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => error.name)")

    assert ("TypeError", "undefined", "TypeError") == (outcome, await browser.run("return typeof hacked"), elsewhere)
    assert any("Content Security Policy" in each for each in await browser.complaints())


async def test_token(serve: Any, browser: Browser) -> None:
    """Where the API asks who reads, the page asks for a token, again if it is wrong, and keeps it in this tab only."""
    served = await serve(tokens={"secret": "*"})
    served.fleet.fill(3)
    await browser.open(served.url)
    for text, words in (("wrong", "Give a token"), ("secret", "does not take this token")):
        await browser.until(
            f"document.getElementById('token').open && document.getElementById('token').innerText.includes('{words}')"
            " && document.activeElement.id === 'token-text' && !document.activeElement.value"
        )
        await browser.press(*text, "Enter")
    await browser.until(LIVE)
    kept = await browser.run("return [{...sessionStorage}, {...localStorage}, document.cookie, location.href]")

    assert [{"guestwire-token": "secret"}, {}, "", served.url + "/"] == kept


async def test_reader_of_a_namespace(serve: Any, browser: Browser) -> None:
    """Who may not watch all is told so, and asked for the namespace."""
    served = await serve(tokens={"mine": "mine"})
    served.fleet.fill(3)
    served.fleet.agent(GuestRef("mine", "vm1"))
    await browser.open(served.url)
    await browser.until("document.getElementById('token').open")
    await browser.press(*"mine", "Enter")
    refused = await browser.until(f"({BANNER}).includes('cannot watch') && ({BANNER})")
    await browser.click("#banner input")
    await browser.press(*"mine", "Enter", "Tab")
    await browser.until(LIVE)

    assert 'cannot watch resource "guests"' in refused
    assert ["vm1"] == await browser.until(f"{NAMES}.length && {NAMES}")


async def test_connection_lost(served: Any, browser: Browser) -> None:
    """While the API is away the page says so, and how old is what it shows; then it goes on where it was."""
    await live(browser, served.url)
    await served.stop()
    words = await browser.until(f"({BANNER}).includes('lost') && ({BANNER})")
    shown = await browser.run(f"return {COUNT}")
    served.fleet.agent(GuestRef("aaa", "new"))
    served.start()
    await browser.click("#banner button")
    await browser.until(LIVE)
    await browser.until(f"{NAMES}.includes('new') && {COUNT} === '31 guests'")

    assert ("30 guests", True) == (shown, "ago." in words)
    assert "" == await browser.run(f"return {BANNER}")


async def test_nothing_to_show_yet(serve: Any, browser: Browser) -> None:
    """An API that still reads the stream is waited for; an empty fleet is told to be one."""
    served = await serve()
    served.cache.begin()
    await browser.open(served.url)
    await browser.until(f"({BANNER}).includes('still reading')")
    served.cache.complete()
    await browser.until(LIVE)
    words = await browser.until(
        "!document.getElementById('empty').hidden && document.getElementById('empty').textContent"
    )

    assert words.startswith("There are no guests yet")


async def test_history_of_a_guest(serve: Any, bus: Bus, browser: Browser) -> None:
    """One guest in depth: its facts, what happened to it, newest first; and what happens now, as it happens."""
    served = await serve(bus=bus)
    follower = asyncio.create_task(Follower(bus, subjects.pattern(cluster="local"), served.cache).run())
    names: dict[str, Any] = {
        "namespace": VM.namespace,
        "name": VM.name,
        "domain": "d",
        "domain_uuid": "u1",
        "host": "h1",
    }
    state = AgentState(uid="u1", phase=Phase.RUNNING, channel=True, connected=True, since=codec.now(), **names)
    await publish(bus, Kind.AGENT, state)
    await publish(bus, Kind.USERLIST, UserList((), ListMeta()))
    await live(browser, f"{served.url}/#guest=default/vm1")
    await browser.until(f"({OPEN}).includes('the first that is kept')")
    await publish(bus, Kind.USERLIST, UserList((User("alice"),), ListMeta()))
    entry = await browser.until(
        "document.querySelector('.timeline > li')?.innerText.includes('alice')"
        " && document.querySelector('.timeline > li').innerText"
    )
    count = await browser.run("return document.querySelectorAll('.timeline > li').length")
    await cancel(follower)

    assert (True, 3) == ("items[alice]" in entry, count)


async def publish(bus: Bus, kind: str, body: Any) -> None:
    """As a collector does."""
    part = codec.part(kind, body, codec.now())
    trace = codec.new_trace_id()
    headers = codec.event_headers(
        ref=VM, uid="u1", cluster="local", host="h1", part=part, message_id=codec.new_trace_id(), trace_id=trace
    )
    await bus.js.publish(subjects.subject("local", VM, kind), part.body, headers=headers)


CONTRAST = """
const light = (text) => {
  const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
  const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return [0.2126 * x + 0.7152 * y + 0.0722 * z, a];
};
const ground = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const color = getComputedStyle(each).backgroundColor;
    if (light(color)[1] === 1) return color;
  }
  return 'rgb(255, 255, 255)';
};
const poor = [];
for (const element of document.querySelectorAll('body *')) {
  const text = [...element.childNodes].filter((each) => each.nodeType === 3 && each.data.trim());
  if (!text.length || !element.checkVisibility() || element.closest('.hidden, .skip, script, noscript')) continue;
  const [a, b] = [light(getComputedStyle(element).color)[0], light(ground(element))[0]];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push(`${element.tagName}.${element.className} ${text[0].data}: ${ratio.toFixed(2)}`);
}
return poor;
"""


async def test_can_be_read(served: Any, browser: Browser) -> None:
    """Text has a contrast of 4.5 at least, in light and dark, on the desk and on a phone, where nothing is cut off."""
    await live(browser, served.url)
    for width, dark, phone in ((1280, False, False), (1280, True, False), (390, False, True), (390, True, True)):
        await browser.show(width, 844, dark=dark, phone=phone)
        await browser.until(f"{NAMES}.length > 3")
        await browser.run("document.getElementById('grid').focus()")
        await browser.press("Home", "Enter")
        await browser.until(f"{FACTS} > 0")

        assert [] == await browser.run(CONTRAST)
        assert width >= await browser.run("return document.documentElement.scrollWidth")
        await browser.press("Escape")
