"""One writer at a time: a lock that its process's end, whatever it is, gives back."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from guestwire.errors import GuestwireError


@contextlib.contextmanager
def locked(file: Path, what: Path) -> Iterator[None]:
    """Hold the lock of that file. GuestwireError when another process does."""
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GuestwireError(f"another export writes to {what}") from None
        yield
