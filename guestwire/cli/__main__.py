"""`python -m guestwire.cli` is `guestwire`."""

from __future__ import annotations

from guestwire.cli import main

main()
