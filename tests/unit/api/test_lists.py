"""Lists that are on their way when the stream is read anew."""

from __future__ import annotations

from typing import Any

import pytest

from api.cache import Cache
from api.forms import OBJECTS
from api.lists import SLICE, Listing
from api.options import Options
from api.selectors import select
from lab.fleet import Fleet


@pytest.fixture
def cache() -> Cache:
    """With guests for several slices, and more than fits into one piece."""
    cache = Cache()
    Fleet(cache).fill(5 * SLICE)
    return cache


async def told(cache: Cache, labels: str = "") -> list[dict[str, Any]]:
    """What a list sends; the stream is read anew as soon as something was."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and message.get("more_body"):
            cache.begin()

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    listing = Listing(cache.fleet, Options.of({}), select(None, labels, ""), OBJECTS, gzip=False)
    await listing({"type": "http", "method": "GET", "headers": []}, receive, send)
    return sent


async def test_large_list_is_cut_off(cache: Cache) -> None:
    """What would follow is of another list: the answer never ends, and so the client does not take it for whole."""
    sent = await told(cache)

    assert 200 == sent[0]["status"]
    assert [] == [message for message in sent[1:] if not message.get("more_body")]


async def test_small_list_is_refused(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which nothing was sent yet: 503, and it is asked for again."""
    sliced = cache.fleet.select

    def then_anew(*arguments: Any) -> Any:
        found = sliced(*arguments)
        cache.begin()
        return found

    monkeypatch.setattr(cache.fleet, "select", then_anew)
    sent = await told(cache, "guestwire.io/os=none")

    assert 503 == sent[0]["status"]
