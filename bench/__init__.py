"""Benchmarks: each prints a table, and one line of JSON with its figures last. Run with `make bench BENCH=<name>`."""
