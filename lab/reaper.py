"""Program that outlives a lab's owner for a moment: it waits for the end of its standard input, then cleans up.

Started by `lab.process.OwnedDirectory` as a plain script, with the directory as its one argument. The owner holds the
other end of the pipe, so the input ends when the owner closes the directory and just as well when the owner is killed:
one path for both, hence a path that every run exercises. It ends every process whose command line or environment
mentions the directory (a QEMU that a killed libvirtd left running does) and then removes the directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

PATIENCE_SECONDS = 10.0


def processes_of(directory: str) -> list[int]:
    """Ids of all living processes, but this one, that mention `directory` in their command line or environment."""
    needle = os.fsencode(directory)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            mentions = needle in (entry / "cmdline").read_bytes() or needle in (entry / "environ").read_bytes()
        except OSError:  # ended meanwhile, or another user's
            continue
        if mentions:
            found.append(int(entry.name))
    return found


def end_processes_of(directory: str) -> None:
    """Kill the processes that mention `directory`, and those they start meanwhile, until none is left."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := processes_of(directory)) and time.monotonic() < deadline:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.02)


def main(directory: str) -> None:
    """Wait for the end of standard input, then end the directory's processes and remove it."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    end_processes_of(directory)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
