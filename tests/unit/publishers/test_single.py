"""
What became of each message, when the answers to all of them come by one subject: against a model of JetStream that
refuses, knows messages already, keeps silent, and answers out of order where a cluster does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import nats.errors
from hypothesis import given
from hypothesis import strategies as st

from guestwire.errors import NotConnected, Unanswered
from guestwire.jetstream import Bus
from guestwire.settings import Nats
from guestwire.snapshot import Part
from guestwire.wire import Answer, Content
from publishers import single
from publishers.ledger import Outgoing, Page
from publishers.single import Fenced, TooLarge

NOW = datetime(2026, 2, 3, tzinfo=UTC)
FATES = (
    "taken",
    "taken",
    "taken",
    "known",
    "fenced",
    "overtaken",
    "full",
    "too large",
    "silent",
    "lost on the way back",
)


class Model:
    """A stream: the revision of each subject's only message, by the fates of messages."""

    def __init__(self, fates: Sequence[str], *, early: bool) -> None:
        self.fates = dict(enumerate(fates))
        self.early = early
        """A cluster's leader refuses before it has agreed with the others on what came before."""
        self.revisions = {number: 100 + number for number, fate in self.fates.items() if fate == "known"}
        self.last = 1000

    async def request_many(self, contents: Sequence[Content], _timeout: float, *, apart: bool = True) -> list[Answer]:
        """As `Wire` does."""
        unanswered = nats.errors.TimeoutError("no answer")
        replies = {int(content.subject): self.answer(int(content.subject)) for content in contents}
        if apart:
            return [reply or unanswered for reply in replies.values()]
        answers: list[Answer] = [reply if isinstance(reply, Exception) else unanswered for reply in replies.values()]
        arriving = [reply for reply in replies.values() if isinstance(reply, bytes)]
        if self.early:
            arriving.sort(key=lambda reply: b'"seq":1' in reply and b"duplicate" not in reply)
        free = [index for index, answer in enumerate(answers) if answer is unanswered]
        for index, reply in zip(free, arriving, strict=False):
            answers[index] = reply
        return answers

    def answer(self, number: int) -> Answer | None:
        """The answer to a message that arrives, or None."""
        fate = self.fates[number]
        match fate:
            case "too large":
                return nats.errors.MaxPayloadError()
            case "silent":
                return None
            case "fenced":
                return _json(error={"err_code": 10071, "description": "wrong last sequence: 7"}, seq=0)
            case "overtaken":
                return _json(error={"err_code": 10164, "description": "wrong last sequence"}, seq=0)
            case "full":
                return _json(error={"err_code": 10077, "description": "maximum bytes exceeded"})
        if number in self.revisions:
            return _json(stream="S", seq=self.revisions[number], duplicate=True)
        self.last += 1
        self.revisions[number] = self.last
        return None if fate == "lost on the way back" else _json(stream="S", seq=self.last)


def _json(**fields: Any) -> bytes:
    return msgspec.json.encode(fields)


class Connected:
    """What of a bus is used here."""

    def __init__(self, model: Model) -> None:
        self.client = model
        self.settings = Nats()


@given(st.lists(st.sampled_from(FATES), min_size=1, max_size=12), st.booleans())
def test_outcomes(fates: list[str], early: bool) -> None:
    """A message that is taken for published has its own revision; whatever else, another attempt gets there."""
    model = Model(fates, early=early)
    pages = [Page(str(number)) for number in range(len(fates))]
    left = list(range(len(fates)))
    for attempt in range(3):
        outgoing = [
            Outgoing(pages[number], Part("userlist", b"", "d", NOW), "uid", Content(str(number), "", b""))
            for number in left
        ]
        outcomes = asyncio.run(single.publish(cast("Bus", Connected(model)), outgoing))
        for number, outcome in zip(left, outcomes, strict=True):
            last = pages[number].last.get("userlist")
            if outcome is None:
                assert last
                assert model.revisions[number] == last.revision
            elif isinstance(outcome, TooLarge):
                assert "too large" == fates[number]
            elif isinstance(outcome, Fenced):
                assert fates[number] in {"fenced", "overtaken"}
            else:
                assert isinstance(outcome, NotConnected)
                assert not last
                if not isinstance(outcome, Unanswered):
                    assert "full" == fates[number]
        left = [number for number, outcome in zip(left, outcomes, strict=True) if isinstance(outcome, NotConnected)]
        if attempt == 0:  # what came of nothing becomes of it all: the next attempts are heard
            model.fates = {number: "taken" if fate == "silent" else fate for number, fate in model.fates.items()}
            model.fates = {n: "taken" if fate == "lost on the way back" else fate for n, fate in model.fates.items()}

    assert [number for number, fate in enumerate(fates) if fate == "full"] == left
