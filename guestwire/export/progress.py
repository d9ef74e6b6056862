"""How an export is getting on, for people: a line that is written over on a terminal, and a last word."""

from __future__ import annotations

import time
from typing import TextIO

from guestwire.export.exporter import Progress


class Line:
    """On a stream that may be a terminal; where it is none, only the last word is said."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._began = time.monotonic()

    def show(self, progress: Progress) -> None:
        """So far."""
        if not self._terminal:
            return
        share = progress.revision / max(progress.last, progress.revision, 1)
        rate = progress.messages / max(time.monotonic() - self._began, 0.001)
        self._out.write(
            f"\r\033[K{progress.messages:,} messages, revision {progress.revision:,} of {progress.last:,} "
            f"({share:.0%}), {rate:,.0f}/s"
        )
        self._out.flush()

    def end(self, progress: Progress, seconds: float) -> None:
        """All of it."""
        missed = f"; {progress.missed:,} in between were no longer in the stream" if progress.missed else ""
        start = "\r\033[K" if self._terminal else ""
        self._out.write(
            f"{start}{progress.messages:,} messages up to revision {progress.revision:,} in {seconds:.1f} s{missed}\n"
        )
        self._out.flush()
