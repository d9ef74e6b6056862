"""The table from outcome to consequence."""

from __future__ import annotations

import asyncio

import pytest

from guestwire.errors import ContractError, NotConnected, Rejected, TransientError
from status_writer.outcome import TABLE, Conflict, Outcome, Verb, of_error

EXPECTED = {
    Outcome.PATCHED: (Verb.ACK, "written", "info", False),
    Outcome.UNCHANGED: (Verb.ACK, "unchanged", "debug", False),
    Outcome.GONE: (Verb.ACK, "gone", "debug", False),
    Outcome.FOREIGN: (Verb.ACK, "foreign", "debug", False),
    Outcome.REVERTED: (Verb.ACK, "reverted", "debug", True),
    Outcome.IN_VAIN: (Verb.ACK, "reverted", "debug", False),
    Outcome.LATER: (Verb.NONE, "later", "debug", False),
    Outcome.CONFLICT: (Verb.NAK, "retried", "info", True),
    Outcome.TRANSIENT: (Verb.NAK, "retried", "warning", True),
    Outcome.PERMANENT: (Verb.TERM, "dropped", "error", True),
    Outcome.BUG: (Verb.NAK, "errors", "exception", True),
    Outcome.CANCELLED: (Verb.NONE, "cancelled", "debug", False),
}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_its_consequence(outcome: Outcome) -> None:
    """Each way a reconcile can end settles its messages, counts and speaks as agreed."""
    given = TABLE[outcome]

    assert EXPECTED[outcome] == (given.verb, given.result, given.level, given.retry)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Conflict(), Outcome.CONFLICT),
        (TransientError(), Outcome.TRANSIENT),
        (NotConnected(), Outcome.TRANSIENT),
        (Rejected(), Outcome.PERMANENT),
        (ContractError(), Outcome.PERMANENT),
        (ZeroDivisionError(), Outcome.BUG),
        (ExceptionGroup("", [TransientError()]), Outcome.BUG),
        (asyncio.CancelledError(), Outcome.CANCELLED),
    ],
)
def test_errors_by_consequence(error: BaseException, outcome: Outcome) -> None:
    """An exception that ends a reconcile is an outcome; one that nobody foresaw is a bug, and retried."""
    assert outcome == of_error(error)


def test_nothing_is_lost_silently() -> None:
    """What is not settled for good is delivered again, and only refused content is given up."""
    assert {Outcome.PERMANENT} == {outcome for outcome, given in TABLE.items() if given.verb is Verb.TERM}
    assert all(given.retry for given in TABLE.values() if given.verb in (Verb.NAK, Verb.TERM))
