"""What a collector counts; labels are bounded by commands, results, hosts and hints."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

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
