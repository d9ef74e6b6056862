"""Builds everything the lab needs, side by side; what is built already is only looked up."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lab import guest_image, kube_build, nats_cli
from lab.errors import LabError
from lab.guest_image import GuestImage
from lab.kube_build import KubeBinaries
from lab.paths import cache_dir

Built = TypeVar("Built")


@dataclass(frozen=True)
class LabParts:
    """What the lab's classes take: a guest's image and the programs of a Kubernetes control plane."""

    image: GuestImage
    kube: KubeBinaries


def build(cache: Path | None = None, progress: Callable[[str], None] = print) -> LabParts:
    """All parts, in `cache` (None: `lab.paths.cache_dir()`); the first time takes minutes, later ones an instant.

    `progress` gets one line per step: seconds since the start, part, step.

    Raises:
        LabError: a part cannot be built. The others are finished first, so that the next attempt is short.
    """
    directory = cache_dir() if cache is None else cache
    started = time.monotonic()

    def part(name: str, make: Callable[[Path, Callable[[str], None]], Built]) -> Built:
        def report(step: str) -> None:
            progress(f"{time.monotonic() - started:4.0f} s  {name:<6} {step}")

        try:
            built = make(directory, report)
        except LabError as error:
            report(f"failed: {str(error).splitlines()[0]}")
            raise
        report("ready")
        return built

    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="lab-build") as builders:
        image = builders.submit(part, "guest", guest_image.build)
        kube = builders.submit(part, "kube", kube_build.build)
        nats = builders.submit(part, "nats", nats_cli.build)
        nats.result()
        return LabParts(image.result(), kube.result())
