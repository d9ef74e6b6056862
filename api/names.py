"""Names in paths and in answers: a guest of a plain libvirt host may be called anything."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from guestwire.snapshot import GuestRef


def plain(segment: str) -> str:
    """The name behind a segment of a path."""
    return unquote(segment, errors="surrogatepass")


def guest_at(parameters: Mapping[str, str]) -> GuestRef:
    """The guest that a path's parameters name."""
    return GuestRef(plain(parameters["namespace"]), plain(parameters["name"]))


def printable(text: str) -> str:
    """A name that is no proper Unicode, told as well as can be."""
    return text.encode(errors="replace").decode()
