"""What an export that stays counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

MESSAGES = Counter("guestwire_export_messages_total", "Messages of the stream that were written")
ROWS = Counter("guestwire_export_rows_total", "Rows that were written, of all tables")
MISSED = Counter("guestwire_export_missed_total", "Messages that had left the stream before they could be read")
LAG = Gauge("guestwire_export_lag_messages", "Revisions of the stream that are still to be written")
COMMITTED = Gauge("guestwire_export_last_commit_timestamp_seconds", "When rows were last written")
