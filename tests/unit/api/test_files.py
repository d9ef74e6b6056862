"""Files that are read again when they change."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from api import files
from guestwire.errors import ConfigError
from guestwire.lifecycle import cancel


async def test_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change is applied; what cannot be read is tried again until it can, and what was good stays meanwhile."""
    monkeypatch.setattr(files, "PERIOD", 0.01)
    file, spoilt, applied = tmp_path / "file", asyncio.Event(), asyncio.Queue[str]()
    file.write_text("good")
    loop = asyncio.get_running_loop()

    def load() -> str:
        text = file.read_text() if file.exists() else ""
        if not text:
            loop.call_soon_threadsafe(spoilt.set)
            raise ConfigError("empty")
        return text

    following = asyncio.create_task(files.follow([file], load, applied.put_nowait))
    first = await applied.get()
    file.unlink()
    await spoilt.wait()
    nothing = applied.empty()
    replacement = tmp_path / "replacement"
    replacement.write_text("fine")
    replacement.rename(file)
    second = await applied.get()
    await cancel(following)

    assert ("good", True, "fine") == (first, nothing, second)
