"""A booted guest for the lab's own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd


@pytest.fixture(scope="module")
def guest(host: Libvirtd, image: GuestImage) -> Iterator[Guest]:
    """A guest with its agent connected, for all tests of a module; a test leaves it as it found it."""
    with Guest(host, image, name="web", uid="6d2ad1a5-7b7e-4b0e-9d0c-0d5b9e6f8a11") as machine:
        machine.wait_agent()
        yield machine
