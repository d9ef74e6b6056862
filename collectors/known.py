"""What one agent command has brought: its fact as it is told, the times, and what went wrong."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from collectors.noise import Limits, Sample, Small


class Known(msgspec.Struct):
    """Of one guest."""

    fact: Any = None
    """As it is told; None while it is unknown."""
    told_at: datetime | None = None
    """When the guest last said exactly this."""
    earlier: Sample | None = None
    """The fact told before, where activity is compared."""
    moved_since: datetime | None = None
    """Since when readings differ from the fact by too little to be told."""
    observed_at: datetime | None = None
    """When the command was last answered."""
    error: str = ""
    truncated: int = 0

    def take(self, value: Any, now: datetime, rule: Small | None, limits: Limits) -> bool:
        """A reading; True when it is the fact from now on, in place of another or of none."""
        self.observed_at = now
        differs: bool = self.fact != value
        if differs and rule and self.fact is not None:
            if self._may_wait(value, now, rule, limits):
                return False
            if rule.looks_back:
                self.earlier = Sample(self.fact, self.told_at)
        self.fact, self.told_at, self.moved_since = value, now, None
        return differs

    def _may_wait(self, value: Any, now: datetime, rule: Small, limits: Limits) -> bool:
        """Whether a reading moved by so little, and for so short a time, that it is not told yet."""
        share, age = rule.limits(limits)
        if not rule.move(self.earlier, Sample(self.fact, self.told_at), Sample(value, now), share):
            return False
        self.moved_since = self.moved_since or now
        return now - self.moved_since < timedelta(seconds=age)
