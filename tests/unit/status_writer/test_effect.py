"""Whether patches do something."""

from __future__ import annotations

from typing import cast

import pytest

from guestwire.logs import Said
from guestwire.snapshot import GuestRef
from status_writer.effect import ATTEMPTS, IN_A_ROW, Effect

ONE, OTHER = GuestRef("ns", "one"), GuestRef("ns", "other")


def test_a_coincidence_is_none() -> None:
    """Some patches without effect, with others in between that have one, are nobody's fault."""
    effect = Effect()
    for _ in range(5 * IN_A_ROW):
        effect.not_shown(ONE, [])
        assert effect.holds
        effect.shown(OTHER)


def test_in_a_row_they_mean_something(caplog: pytest.LogCaptureFixture) -> None:
    """Several in a row, of whichever VMIs, are told once; the first that has an effect again is told too."""
    effect = Effect()
    caplog.set_level("INFO")
    for number in range(IN_A_ROW + 5):
        effect.not_shown(GuestRef("ns", str(number)), ["/status/conditions"])
    held = effect.holds
    effect.shown(ONE)

    assert (False, True) == (held, effect.holds)
    assert ["the API server takes patches and keeps its own status", "patches have an effect again"] == [
        said.event for record in caplog.records if isinstance(said := cast("object", record.msg), Said)
    ]


def test_attempts_end() -> None:
    """One VMI is worth some attempts; an effect starts the count anew, and a VMI that is gone is forgotten."""
    effect = Effect()
    assert [True] * (ATTEMPTS - 1) + [False] * 2 == [effect.not_shown(ONE, []) for _ in range(ATTEMPTS + 1)]
    effect.shown(ONE)
    assert effect.not_shown(ONE, [])
    effect.forget(ONE)
    effect.forget(OTHER)

    assert 0 == len(effect)


@pytest.mark.parametrize("ref", [ONE, OTHER])
def test_an_effect_somewhere_is_an_effect(ref: GuestRef) -> None:
    """Readiness is about the whole process, not about one VMI."""
    effect = Effect()
    for _ in range(IN_A_ROW):
        effect.not_shown(ONE, [])
    effect.shown(ref)

    assert effect.holds
