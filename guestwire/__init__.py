"""
What QEMU guest agents know about virtual machines, as events on NATS.

This package is the kernel that the stages share and the public face for Python subscribers. It needs nats-py
and msgspec only; `guestwire.cli` is the one place that knows every stage.

What subscribers need is loaded when it is first asked for: whoever does not subscribe does not load NATS's client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from guestwire.blocking import ChangeIterator, iter_changes
    from guestwire.change import Change, Value
    from guestwire.difference import Difference
    from guestwire.settings import Nats
    from guestwire.subscription import changes

__version__ = "0.1.0"

__all__ = [
    "Address",
    "Change",
    "ChangeIterator",
    "ConfigError",
    "ContractError",
    "Difference",
    "GuestRef",
    "GuestwireError",
    "Kind",
    "Nats",
    "NotConnected",
    "PermanentError",
    "TransientError",
    "Value",
    "__version__",
    "changes",
    "iter_changes",
]

_MODULES = {
    "Change": "change",
    "ChangeIterator": "blocking",
    "Difference": "difference",
    "Nats": "settings",
    "Value": "change",
    "changes": "subscription",
    "iter_changes": "blocking",
}
"""Where to load a name from."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
