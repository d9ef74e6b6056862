"""Building the guest's image: once, whoever asks, and from nothing but the cache after that."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab import guest_image
from lab.errors import LabError
from lab.guest_image import GuestImage
from lab.paths import cache_dir
from lab.process import program

pytestmark = pytest.mark.lab


def test_second_build_needs_nothing(image: GuestImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built is found again without package manager and without a step of work."""
    (tmp_path / "busybox").symlink_to(program("busybox"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="apt-get is not installed"):
        program("apt-get")
    steps: list[str] = []
    assert guest_image.build(cache_dir(), steps.append) == image
    assert steps == []


def test_two_builders_build_once(image: GuestImage, tmp_path: Path) -> None:
    """Of two builders at the same time one builds; both get the same image."""
    shutil.copytree(cache_dir() / "guest-packages", tmp_path / "guest-packages")
    steps: list[str] = []
    with ThreadPoolExecutor(2) as builders:
        first, second = [builders.submit(guest_image.build, tmp_path, steps.append) for _ in range(2)]
    assert first.result() == second.result()
    assert steps == ["packing kernel, modules and agent"]
    assert first.result().initrd.stat().st_size == image.initrd.stat().st_size
