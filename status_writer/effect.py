"""
Whether patches do something.

KubeVirt's admission webhook puts the old status back into every object that anybody but its own service accounts
changes, and the answer is a plain 200. One such answer may be a coincidence; `IN_A_ROW` of them, over whichever VMIs,
mean that this process writes in vain: it says so once, and is not ready until a patch has an effect again.

A VMI whose patches come to nothing is tried again `ATTEMPTS` times, and then only when there is news of it.
"""

from __future__ import annotations

from guestwire.logs import logger
from guestwire.snapshot import GuestRef
from status_writer.metrics import NO_EFFECT

log = logger("status")

IN_A_ROW = 3
ATTEMPTS = 5
"""With the intervals of `pace` about half a minute."""

HINT = "under KubeVirt set status.impersonate_user to one of its service accounts, and grant the right to impersonate"


class Effect:
    """Told of every patch that the API server took."""

    def __init__(self) -> None:
        self._vain: dict[GuestRef, int] = {}
        self._in_a_row = 0

    def __len__(self) -> int:
        """VMIs whose last patch came to nothing."""
        return len(self._vain)

    @property
    def holds(self) -> bool:
        """False when patches are taken and come to nothing."""
        return self._in_a_row < IN_A_ROW

    def shown(self, ref: GuestRef) -> None:
        """The answer shows what was written."""
        if not self.holds:
            log.info("patches have an effect again", vmi=str(ref))
        self._in_a_row = 0
        self._vain.pop(ref, None)

    def not_shown(self, ref: GuestRef, changed: list[str]) -> bool:
        """The answer shows something else. True when it is worth another attempt without any news."""
        NO_EFFECT.inc()
        self._vain[ref] = self._vain.get(ref, 0) + 1
        self._in_a_row += 1
        if self._in_a_row == IN_A_ROW:
            log.error("the API server takes patches and keeps its own status", vmi=str(ref), changed=changed, hint=HINT)
        return self._vain[ref] < ATTEMPTS

    def forget(self, ref: GuestRef) -> None:
        """The VMI is gone."""
        self._vain.pop(ref, None)
