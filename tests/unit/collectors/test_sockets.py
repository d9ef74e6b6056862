"""Sockets that come and go."""

from __future__ import annotations

import socket
from pathlib import Path

from collectors import sockets
from collectors.sockets import LINGER, Presence


def listen(path: Path) -> socket.socket:
    """A listening socket there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    return server


def test_find(tmp_path: Path) -> None:
    """Sockets only, each once however many paths lead to it, the shortest first."""
    with listen(tmp_path / "a" / "sock"), listen(tmp_path / "b" / "sock"):
        (tmp_path / "c").mkdir()
        (tmp_path / "c" / "sock").write_text("no socket")
        (tmp_path / "longer-way-to-a").symlink_to(tmp_path / "a")

        found = sockets.find([f"{tmp_path}/*/sock", f"{tmp_path}/nowhere/*"])

    assert {str(tmp_path / "a" / "sock"), str(tmp_path / "b" / "sock")} == set(found.values())


def test_presence() -> None:
    """What is new has come; what is missing is gone only after a while, and not if it returns meanwhile."""
    presence = Presence()

    assert ({(1, 1): "a", (1, 2): "b"}, set()) == presence.update({(1, 1): "a", (1, 2): "b"}, 0)
    assert ({}, set()) == presence.update({(1, 1): "a"}, 1)
    assert ({}, set()) == presence.update({(1, 1): "a", (1, 2): "b"}, LINGER)
    assert ({}, set()) == presence.update({(1, 1): "a"}, LINGER + 1)
    assert ({}, {(1, 2)}) == presence.update({(1, 1): "a"}, 2 * LINGER + 1)
    assert ({(1, 2): "b"}, set()) == presence.update({(1, 1): "a", (1, 2): "b"}, 2 * LINGER + 2)
