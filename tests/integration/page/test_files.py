"""The page's files over a socket: who gets them, under which policy, and that they need nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api import static

PAGE = Path(static.__file__).parent / "page"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


async def test_root_for_browsers_and_for_clients(served: Any) -> None:
    """A browser gets the page, everybody else the paths that are served."""
    types = {}
    for accept in (BROWSER, "*/*", "application/json", "text/html;q=0.1, application/json", "text/html;q=0"):
        status, headers, body = await served.get("/", Accept=accept)
        types[accept] = status, headers["content-type"].partition(";")[0]
        if accept == "*/*":
            assert "/apis" in msgspec.json.decode(body)["paths"]

    assert [
        (200, "text/html"),
        (200, "application/json"),
        (200, "application/json"),
        (200, "application/json"),
    ] == list(types.values())[:4]
    assert "text/html" != types["text/html;q=0"][1]


async def test_policy(served: Any) -> None:
    """Every file says what the page may do: run its own scripts, talk to its own origin, and nothing else."""
    for path in ("/", *(f"/page/{file.name}" for file in PAGE.iterdir())):
        status, headers, _ = await served.get(path, Accept=BROWSER)
        policy = dict(each.split(" ", 1) for each in headers["content-security-policy"].split("; "))

        assert (200, "nosniff", "no-referrer") == (
            status,
            headers["x-content-type-options"],
            headers["referrer-policy"],
        )
        assert ("'none'", "'self'", "'self'", "'self'") == tuple(
            policy[name] for name in ("default-src", "script-src", "style-src", "connect-src")
        )
        assert ("'none'", "'none'", "'none'") == tuple(
            policy[name] for name in ("form-action", "frame-ancestors", "base-uri")
        )


async def test_not_sent_twice(served: Any) -> None:
    """Who has a file is told so, by its ETag."""
    _, headers, _ = await served.get("/page/main.js")
    status, again, body = await served.get("/page/main.js", If_None_Match=headers["etag"])

    assert (304, b"", headers["etag"]) == (status, body, again["etag"])


async def test_open_to_everybody(serve: Any) -> None:
    """Files hold nothing of any guest: they are served without a token, and nothing else is."""
    served = await serve(tokens={"all": "*"})
    paths = ("/", "/page/main.js", "/page/nothing.js", "/page/../app.py", "/page/%2e%2e/app.py", "/apis")

    assert [200, 200, 401, 401, 401, 401] == [(await served.get(path, Accept=BROWSER))[0] for path in paths]
    assert 401 == (await served.get("/", Accept="*/*"))[0]


async def test_only_read(served: Any) -> None:
    """HEAD is answered like GET, without a body; nothing can be written, and who tries is told what can be done."""
    async with served.http.head(served.url + "/page/main.js") as head:
        assert (200, b"") == (head.status, await head.read())
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        for path, expected in (
            ("/page/main.js", (405, "GET, HEAD")),
            ("/", (405, "GET, HEAD")),
            ("/page/x.js", (404, "")),
        ):
            async with served.http.request(method, served.url + path, headers={"Accept": BROWSER}) as reply:
                status = await reply.json()

                assert expected == (reply.status, reply.headers.get("allow", ""))
                assert ("Status", reply.status) == (status["kind"], status["code"])


@pytest.mark.parametrize("file", sorted(PAGE.glob("*")), ids=lambda file: file.name)
def test_nothing_from_elsewhere(file: Path) -> None:
    """No file names another origin (the name of SVG's vocabulary is none); no markup holds script or style."""
    text = file.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")

    assert [] == re.findall(r"https?://|\bsrc=\"//", text)
    assert [] == re.findall(r"<style|\bstyle=|\bon[a-z]+=|innerHTML|outerHTML|insertAdjacentHTML|document\.write", text)
    assert [] == re.findall(r"<script(?![^>]*src=)", text)


@pytest.mark.parametrize("file", sorted(PAGE.glob("*")), ids=lambda file: file.name)
def test_files_that_are_named_exist(file: Path) -> None:
    """What a file loads is there, and what is there is loaded by something."""
    names = re.findall(r'from "\./([\w.]+)"|(?:src|href)="page/([\w.]+)"', file.read_text())
    everything = "".join(each.read_text() for each in PAGE.iterdir())

    assert [] == [name for pair in names for name in pair if name and not (PAGE / name).exists()]
    assert file.name == static.INDEX or f'/{file.name}"' in everything
