"""
What QEMU guest agents know about virtual machines, as events on NATS.

This package is the kernel that the stages share and the public face for Python subscribers. It needs nats-py
and msgspec only; `guestwire.cli` is the one place that knows every stage.
"""

from __future__ import annotations

from guestwire.errors import (
    ConfigError,
    ContractError,
    GuestwireError,
    NotConnected,
    PermanentError,
    TransientError,
)
from guestwire.snapshot import GuestRef, Kind
from guestwire.subjects import Address

__version__ = "0.1.0"

__all__ = [
    "Address",
    "ConfigError",
    "ContractError",
    "GuestRef",
    "GuestwireError",
    "Kind",
    "NotConnected",
    "PermanentError",
    "TransientError",
    "__version__",
]
