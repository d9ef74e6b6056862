"""
Metrics of the API, read from plain attributes when they are asked for: a request costs an addition, no lock.

Those of guests are beside them (`guest_metrics`); `scrapes` answers for both.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.cache import Cache
from api.guest_metrics import GuestMetrics
from api.scrape import Scrapes, combined
from guestwire.settings import Api


class Metrics(Collector):
    """Of this process. Labels are bounded: `path` is one of a few kinds of path, `code` a status."""

    def __init__(
        self,
        cache: Cache,
        *,
        connected: Callable[[], bool],
        skipped: Callable[[], int],
        api: Api = Api(),  # noqa: B008 - a constant
    ) -> None:
        self.requests: Counter[tuple[int, str]] = Counter()
        """Requests answered, by status and kind of path."""
        self._cache = cache
        self._connected = connected
        self._skipped = skipped
        self._registry = CollectorRegistry()
        self._registry.register(self)
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=self._registry)
        naming = api.guest_metrics
        guests = None if naming == "off" else GuestMetrics(cache, naming, api.guest_metrics_limit)
        self.scrapes = Scrapes(self.text, guests, combined=combined(api))

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "guestwire_api_requests_total", "Requests answered, by status and kind of path.", labels=("code", "path")
        )
        for (code, path), count in self.requests.items():
            requests.add_metric((str(code), path), count)
        yield requests
        cache = self._cache
        yield _counter("guestwire_api_messages_applied_total", "Messages taken into the cache.", cache.applied)
        yield _counter(
            "guestwire_api_messages_skipped_total", "Messages that do not follow the contract.", self._skipped()
        )
        yield _gauge("guestwire_api_cache_guests", "Guests in the cache.", len(cache.fleet.guests))
        yield _gauge("guestwire_api_watches", "Clients that watch.", cache.fleet.watches)
        yield _gauge("guestwire_api_cache_revision", "Stream sequence of the last message applied.", cache.revision)
        yield _gauge("guestwire_api_caught_up", "1 when the cache was filled from the stream.", cache.caught_up)
        yield _gauge("guestwire_api_nats_connected", "1 while connected to NATS.", self._connected())
        if cache.newest:
            age = max(0.0, time.time() - cache.newest)
            yield _gauge("guestwire_api_newest_message_age_seconds", "Seconds since the newest message.", age)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))
