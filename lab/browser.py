"""
A real Chromium without a window, driven as a person would: keys, clicks, and looking at what is there (W3C WebDriver).

It reaches this machine only: any other name does not resolve, so a page that needs something from outside shows it.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientError, ClientSession, ClientTimeout

from lab.errors import LabError
from lab.process import Daemon, free_port, program

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # the lab runs as root, and shows its own pages only
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--lang=en-GB",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Browser:
    """One window; an async context manager. Profile and log in `directory`, whose end is also the browser's."""

    def __init__(self, directory: Path) -> None:
        self._profile = directory / "chromium"
        self._port = free_port()
        self._driver = Daemon([program("chromedriver"), f"--port={self._port}"], log=directory / "chromedriver.log")
        self._session = ""

    async def __aenter__(self) -> Self:
        self._http = ClientSession(timeout=ClientTimeout(total=120))
        try:
            self._driver.start()
            await self._begin()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._session:
                await self._ask("DELETE", "")
        finally:
            await self._http.close()
            self._driver.stop()

    async def _begin(self) -> None:
        options = {
            "binary": program("chromium"),
            "args": [*ARGUMENTS, f"--user-data-dir={self._profile}"],
        }
        capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        wanted = {"capabilities": {"alwaysMatch": capabilities}}
        for _ in range(300):
            try:
                async with self._http.get(f"http://127.0.0.1:{self._port}/status"):
                    break
            except ClientError:
                await asyncio.sleep(0.1)
        else:
            raise LabError(f"chromedriver does not answer\n{self._driver.log_tail()}")
        async with self._http.post(f"http://127.0.0.1:{self._port}/session", json=wanted) as response:
            value = (await response.json())["value"]
        if "sessionId" not in value:
            raise LabError(f"chromium does not start: {value.get('message', '')}")
        self._session = value["sessionId"]

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        url = f"http://127.0.0.1:{self._port}/session/{self._session}{path}"
        async with self._http.request(method, url, json=body or {} if method == "POST" else None) as response:
            value = (await response.json())["value"]
        if response.status >= 400:
            raise LabError(f"{path}: {value['error']}: {value['message'].splitlines()[0]}")
        return value

    async def open(self, url: str) -> None:
        """Go to an address; returns when the document has loaded."""
        await self._ask("POST", "/url", {"url": url})

    async def run(self, script: str, *arguments: object) -> Any:
        """What a function body in the page returns; a promise is awaited."""
        return await self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    async def until(self, expression: str, within: float = 60) -> Any:
        """Wait until an expression in the page is true; its value. Raises LabError with what the page says instead."""
        end = time.monotonic() + within
        while not (value := await self.run(f"return {expression}")):
            if time.monotonic() > end:
                text = await self.run("return document.body.innerText.slice(0, 1000)")
                raise LabError(f"{expression}: not within {within:g} s; the page says: {text}")
            await asyncio.sleep(0.05)
        return value

    async def press(self, *keys: str) -> None:
        """Press and release keys, one after the other, wherever the focus is; `KEYS` has those without a character."""
        actions = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        await self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    async def click(self, selector: str) -> None:
        """Click the first element of a selector, where a person would."""
        found = await self._ask("POST", "/element", {"using": "css selector", "value": selector})
        await self._ask("POST", f"/element/{next(iter(found.values()))}/click")

    async def devtools(self, command: str, **parameters: object) -> Any:
        """A command of Chrome's DevTools protocol."""
        return await self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    async def show(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """The size of the window in CSS pixels, and what the person prefers."""
        await self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self) -> bytes:
        """What is to be seen, as PNG."""
        return base64.b64decode(await self._ask("GET", "/screenshot"))

    async def complaints(self) -> list[str]:
        """What the console was told since the last time: errors, and violations of the page's policy."""
        entries = await self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in {"SEVERE", "WARNING"}]


KEYS = {
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "Tab": "\ue004",
    "PageDown": "\ue00f",
    "End": "\ue010",
    "Home": "\ue011",
    "ArrowUp": "\ue013",
    "ArrowDown": "\ue015",
}
"""By their names in KeyboardEvent.key."""
