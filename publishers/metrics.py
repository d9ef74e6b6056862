"""What a publisher counts; labels are bounded by kinds."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PUBLISHED = Counter("guestwire_publisher_messages_total", "Messages acknowledged by JetStream", ["kind"])
SECONDS = Histogram(
    "guestwire_publisher_ack_seconds",
    "Time from sending a message to its acknowledgement",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5),
)
PENDING = Gauge("guestwire_publisher_pending_guests", "Guests with something to publish")
RETRIES = Counter("guestwire_publisher_retries_total", "Snapshots kept because NATS did not answer")
FENCED = Counter("guestwire_publisher_fenced_total", "Snapshots dropped because another publisher was faster")
DRIFT = Gauge(
    "guestwire_publisher_stream_drift", "Settings of the stream that an operator made other than this project would"
)
TOO_LARGE = Counter("guestwire_publisher_too_large_total", "Messages over the server's size limit, dropped")
READINGS = Counter("guestwire_publisher_readings_total", "Readings on demand, by result", ["result"])
DELETED = Counter("guestwire_publisher_deleted_guests_total", "Guests deleted from the stream, long after they went")
