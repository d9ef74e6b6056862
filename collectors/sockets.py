"""
Hosts that come and go: sockets of private libvirt daemons, found by glob.

KubeVirt runs a virtqemud in every virt-launcher pod; from the node its socket is
`/proc/<pid>/root/var/run/libvirt/virtqemud-sock`. Every process of the pod shows the same socket, so sockets are told
apart by device and inode, and of several paths the shortest is taken.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable

SCAN = 2.0
"""Seconds between two looks."""
LINGER = 10.0
"""Seconds for which a socket may be missing before its guests count as gone: a daemon may be starting again."""

Identity = tuple[int, int]
"""Device and inode."""


def find(patterns: Iterable[str]) -> dict[Identity, str]:
    """Sockets that match any of the glob patterns, by identity."""
    found: dict[Identity, str] = {}
    for pattern in patterns:
        for path in sorted(glob.glob(pattern), key=lambda path: (len(path), path)):  # noqa: PTH207 - plain paths will do
            try:
                status = os.stat(path)  # noqa: PTH116
            except OSError:  # its process has just ended
                continue
            if stat.S_ISSOCK(status.st_mode):
                found.setdefault((status.st_dev, status.st_ino), path)
    return found


class Presence:
    """Which sockets are there, with those that have just gone lingering for a while."""

    def __init__(self) -> None:
        self._paths: dict[Identity, str] = {}
        self._missing: dict[Identity, float] = {}

    def update(self, found: dict[Identity, str], now: float) -> tuple[dict[Identity, str], set[Identity]]:
        """What has come, and what has been missing for too long; times in seconds of a monotonic clock."""
        come = {identity: path for identity, path in found.items() if identity not in self._paths}
        for identity in self._paths:
            if identity in found:
                self._missing.pop(identity, None)
            else:
                self._missing.setdefault(identity, now)
        gone = {identity for identity, since in self._missing.items() if now - since >= LINGER}
        for identity in gone:
            del self._paths[identity], self._missing[identity]
        self._paths |= come
        return come, gone
