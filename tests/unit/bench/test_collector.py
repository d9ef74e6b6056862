"""What the benchmark of the collector computes without measuring."""

from __future__ import annotations

import pytest

from bench.collector import commands_per_hour


@pytest.mark.parametrize(("profile", "commands"), [("default", 600), ("economy", 144)])
def test_commands_per_hour(profile: str, commands: int) -> None:
    """The schedule costs in steady state what the profiles promise."""
    assert commands == pytest.approx(commands_per_hour(profile, hours=4), rel=0.01)
