"""Which NATS servers will do; older ones than the lab's cannot be had there."""

from __future__ import annotations

import pytest

from guestwire.checks import LEAST_PAYLOAD, Outcome, check_server


@pytest.mark.parametrize(
    ("version", "payload", "outcome", "words"),
    [
        ((2, 10, 29), LEAST_PAYLOAD, Outcome.PROBLEM, "nats-server 2.10.29 is too old"),
        ((1, 99, 0), LEAST_PAYLOAD, Outcome.PROBLEM, "too old"),
        ((2, 11, 0), LEAST_PAYLOAD, Outcome.OK, "message TTL; atomic batches come with 2.12"),
        ((2, 12, 0), LEAST_PAYLOAD, Outcome.OK, "message TTL, atomic batches)"),
        ((3, 0, 0), LEAST_PAYLOAD, Outcome.OK, "atomic batches)"),
        ((2, 12, 0), LEAST_PAYLOAD - 1, Outcome.PROBLEM, "at most 1048575 bytes"),
    ],
)
def test_servers_that_do(version: tuple[int, int, int], payload: int, outcome: Outcome, words: str) -> None:
    """From 2.11 on, with the default's size of messages; what a later one can do is told."""
    finding = check_server("nats://n1:4222", version, payload)

    assert (outcome, True) == (finding.outcome, words in finding.text)
