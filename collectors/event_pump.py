"""
libvirt's event loop, in one thread of its own for the whole process.

The default implementation must be registered once, before the first connection is opened; without it neither events nor
keepalive work. Callbacks run in this thread: they hand over plain values and return, they never block and never log.
"""

from __future__ import annotations

import threading

import libvirt

_lock = threading.Lock()
_thread: threading.Thread | None = None


def ensure_running() -> None:
    """Register libvirt's default event loop and turn it, unless that is done already. Call before `libvirt.open`."""
    global _thread  # noqa: PLW0603 - one per process is libvirt's own rule
    with _lock:
        if _thread is None:
            libvirt.registerErrorHandler(lambda _context, _error: None, None)  # else it prints each to standard error
            libvirt.virEventRegisterDefaultImpl()
            _thread = threading.Thread(target=_turn, name="libvirt events", daemon=True)
            _thread.start()


def _turn() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
