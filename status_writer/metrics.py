"""What the status writer counts, for `/metrics`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RECONCILE_SECONDS = Histogram(
    "guestwire_status_reconcile_seconds",
    "Time from taking up a guest to its outcome",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RESULTS = Counter("guestwire_status_results_total", "Reconciles by how they ended", ["result"])
PATCHES = Counter("guestwire_status_patches_total", "Patches that the API server took")
CONFLICTS = Counter("guestwire_status_conflicts_total", "Patches refused because the VMI had changed since it was read")
NO_EFFECT = Counter(
    "guestwire_status_no_effect_total", "Patches that the API server took, and whose result shows something else"
)
EVENTS = Counter("guestwire_status_events_total", "Kubernetes Events about agents, by what became of them", ["result"])
CUT = Counter(
    "guestwire_status_interfaces_cut_total", "Interfaces of guests left out of status, counted with every patch"
)
PENDING = Gauge("guestwire_status_pending", "Guests that wait for a reconcile, or are in one")
OLDEST = Gauge(
    "guestwire_status_oldest_unapplied_seconds", "Age of the oldest message received here whose facts are not in status"
)
UNACKNOWLEDGED = Gauge("guestwire_status_unacknowledged", "Messages received and not yet settled")
LAG = Gauge("guestwire_status_consumer_lag", "Messages of the consumer not yet delivered, when it was last asked")
VMIS = Gauge("guestwire_status_vmis", "VMIs in the watch cache")
