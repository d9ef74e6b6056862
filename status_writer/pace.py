"""
How often a VMI is written.

At least `min_interval` lies between two patches of one VMI. Where a patch repeats the one before it, word for word,
somebody undoes it: another writer that disagrees, or a webhook. Then the interval doubles each time up to `SLOWEST`,
so that a disagreement costs next to nothing. It ends with the first patch that says something else, or with time.

Over all VMIs a bucket of tokens limits the rate, so that a start with ten thousand guests does not push everybody else
out of the API server.

Pure: the caller says what time it is (seconds of any clock that does not jump).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)

SLOWEST = 600.0
"""Seconds between two attempts at a status that somebody else keeps undoing."""

PEACE = 10
"""So many intervals after the last patch, the same patch again is news, not a repetition."""


@dataclass(frozen=True)
class _Last:
    moment: float
    words: bytes
    interval: float


class Pace(Generic[K]):
    """The last patch of each VMI."""

    def __init__(self, min_interval: float) -> None:
        self._min_interval = min_interval
        self._last: dict[K, _Last] = {}

    def __len__(self) -> int:
        return len(self._last)

    def wait(self, key: K, now: float) -> float:
        """Seconds to wait before the next patch; 0 when there is no need."""
        last = self._last.get(key)
        return max(0.0, last.moment + last.interval - now) if last else 0.0

    def patched(self, key: K, patch: list[dict[str, Any]], now: float) -> bool:
        """Remember a patch. True when it repeats the one before."""
        words = msgspec.json.encode([operation for operation in patch if operation["op"] != "test"])
        last = self._last.get(key)
        repeated = last is not None and last.words == words and now < last.moment + PEACE * max(1.0, last.interval)
        interval = min(SLOWEST, 2 * max(1.0, last.interval)) if last and repeated else self._min_interval
        self._last[key] = _Last(now, words, interval)
        return repeated

    def forget(self, key: K) -> None:
        """The VMI is gone."""
        self._last.pop(key, None)


class Bucket:
    """Tokens that come back at `rate` a second, up to `burst`; a rate of 0 is no limit."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._full_at = float("-inf")

    def take(self, now: float) -> float:
        """Take a token; 0, or the seconds until there is one, and then none is taken."""
        if not self._rate:
            return 0.0
        full_at = max(self._full_at, now) + 1 / self._rate
        wait = full_at - now - self._burst / self._rate
        if wait > 1e-6:
            return wait
        self._full_at = full_at
        return 0.0
