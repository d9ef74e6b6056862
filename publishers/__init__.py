"""Snapshots -> NATS: what changed, once, in order and fenced; and readings on demand."""
