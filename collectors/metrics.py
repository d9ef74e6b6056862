"""
What a collector counts; labels are bounded by commands, results, hosts, hints and states.

The states of guests and the ages of their readings are looked up when metrics are asked for: kept up to date instead,
they would cost every reading something.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as MetricsCollector

from collectors.guest import Guest
from guestwire import codec

COMMAND_SECONDS = Histogram(
    "guestwire_collector_command_seconds",
    "Duration of agent commands",
    ["command", "result"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
IN_FLIGHT = Gauge("guestwire_collector_commands_in_flight", "Agent commands under way", ["host"])
HINTS = Counter("guestwire_collector_events_total", "Events that libvirt sent", ["host", "hint"])
CONNECTED = Gauge("guestwire_collector_host_connected", "Whether a libvirt host is connected", ["host"])
RECONNECTS = Counter("guestwire_collector_reconnects_total", "Connections to a libvirt host that were made", ["host"])
GUESTS = Gauge("guestwire_collector_guests", "Guests known", ["host"])
AGENTS = Gauge("guestwire_collector_agents_connected", "Guests whose agent is connected", ["host"])
CORRECTIONS = Counter(
    "guestwire_collector_resync_corrections_total", "Changes that a resync found and no event had told", ["host"]
)
TRUNCATED = Counter(
    "guestwire_collector_truncated_entries_total", "Entries left out of replies, and texts shortened", ["command"]
)

STATES = ("asked", "silent", "frozen", "away")


def state(guest: Guest) -> str:
    """
    How a guest's agent is treated: asked as scheduled; left alone for its silence, longer each time; asked only whether
    it is frozen still; or not asked at all, as it is not connected or the guest does not run.
    """
    if not guest.askable:
        return "away"
    if guest.responsive is False:
        return "silent"
    return "frozen" if guest.frozen else "asked"


class Host(Protocol):
    """What is known of a host (`collectors.host_collector.HostCollector`)."""

    uri: str

    @property
    def guests(self) -> Mapping[str, Guest]:
        """By UUID."""
        ...


class Agents(MetricsCollector):
    """The guests of each host by state, and the oldest reading among them; to be registered once per process."""

    def __init__(self, hosts: Callable[[], Iterable[Host]]) -> None:
        self._hosts = hosts

    def describe(self) -> Iterable[Metric]:
        """Nothing is looked up when it is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Called from a thread: it reads, one attribute at a time."""
        agents = GaugeMetricFamily(
            "guestwire_collector_agents", "Guests by how their agent is treated", labels=("host", "state")
        )
        ages = GaugeMetricFamily(
            "guestwire_collector_oldest_reading_seconds",
            "Age of the oldest of the regular readings of the guests in a state",
            labels=("host", "state"),
        )
        now, count, oldest = codec.now(), Counts[tuple[str, str]](), dict[tuple[str, str], datetime]()
        for host in self._hosts():
            count.update(dict.fromkeys(((host.uri, treated) for treated in STATES), 0))
            for guest in list(host.guests.values()):
                labels = host.uri, state(guest)
                count[labels] += 1
                if read := guest.oldest_reading:
                    oldest[labels] = min(read, oldest.get(labels, read))
        for labels, many in count.items():
            agents.add_metric(labels, many)
        for labels, read in oldest.items():
            ages.add_metric(labels, max(0.0, (now - read).total_seconds()))
        yield agents
        yield ages
