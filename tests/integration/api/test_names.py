"""Who comes under another's name, as a web page does that had its own lead here, is answered nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

USERLIST = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm1/userlist"


@pytest.mark.parametrize("path", [USERLIST, "/", "/page/main.js", "/livez", "/metrics", "/nothing"])
async def test_foreign_name(alone: Any, path: str) -> None:
    """Who comes under another's name gets nothing, on no path, and no part of the page."""
    for method in ("GET", "HEAD", "POST"):
        reply = await asked_as(alone, "evil.example:8470", method, path)

        assert 421 == reply.status
        assert method == "HEAD" or "MisdirectedRequest" == msgspec.json.decode(reply.body)["reason"]


async def test_foreign_name_is_not_remembered(alone: Any) -> None:
    """A connection on which ours was asked for is no way in for another's name, however often it is tried."""
    statuses = []
    async with alone.connected() as connection:
        for host in ("localhost", "localhost", "evil.example", "evil.example", "localhost", "evil.example"):
            connection.send(f"GET {USERLIST} HTTP/1.1", f"Host: {host}")
            statuses.append((await connection.reply()).status)

    assert [200, 200, 421, 421, 200, 421] == statuses


async def test_without_a_name(alone: Any) -> None:
    """Clients of HTTP/1.0 name nobody, and are answered."""
    async with alone.connected() as connection:
        connection.send(f"GET {USERLIST} HTTP/1.0")

        assert 200 == (await connection.reply()).status


async def asked_as(site: Any, host: str, method: str, path: str) -> Any:
    """The answer to a request under a name."""
    async with site.connected() as connection:
        connection.send(f"{method} {path} HTTP/1.1", f"Host: {host}")
        return await connection.reply(to_head=method == "HEAD")
