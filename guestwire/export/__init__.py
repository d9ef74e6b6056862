"""
The stream as tables, for analytics: a DuckDB file or a directory of Parquet files, every message in it exactly once.

The stream remembers the present and 64 messages a subject; an export remembers all it has ever read. What it holds is
the history, and the present state is made of it by views (`views`). `tables` says what the columns are and how a
message becomes rows, `exporter` reads the stream, `duckdb_store` and `parquet_store` keep rows and position together.

Needs the extra `guestwire[export]`, and nothing else of the project imports this package but its command.
"""

from __future__ import annotations
