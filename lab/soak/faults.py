"""
Faults: what is done to whom, when, and for how long, all of it drawn from the seed before the first one happens.

Kinds are dealt like cards, so that each comes before any comes again. In the last third of the time no process of the
pipeline is killed: what grows in one that meets faults of others needs some time to show.

Nothing is done that the pipeline does not promise to survive. Servers keep their data when they are killed, a process
is frozen for less than what anybody waits for it, and an agent that hangs is woken.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

PIPELINE = ("collector", "collector of simulated guests", "api", "status writer", "subscriber", "export")
SERVERS = ("NATS", "libvirtd", "API server")
REAL_GUESTS = ("real-1", "real-2")
PAUSE = (0.5, 4.0)
LAST_KILL = 2 / 3
"""The share of the time after which no process of the pipeline is killed any more."""


class Kind(StrEnum):
    """What a fault does."""

    KILL = "kill"
    """SIGKILL. A process of the pipeline starts again by itself, a server or the machine of a guest after a while."""
    FREEZE = "freeze"
    HANG_UP = "hang up"
    """The simulated hosts' daemon goes away."""
    HANG = "hang"
    """Agents do not answer."""


@dataclass(frozen=True)
class Fault:
    """One of them; `at` and `seconds` by the clock of the faults."""

    at: float
    kind: Kind
    target: str
    seconds: float = 0.0
    """For how long; 0 where it mends itself."""
    guests: tuple[int, ...] = ()
    """The simulated guests that hang."""

    def __str__(self) -> str:
        lasts = f" for {self.seconds:.1f} s" if self.seconds else ""
        whom = f" ({', '.join(map(str, self.guests))})" if self.guests else ""
        return f"{self.kind} {self.target}{whom}{lasts}"


_KILLS = [(Kind.KILL, name) for name in PIPELINE]
_OTHERS = [
    *((Kind.KILL, name) for name in (*SERVERS, *REAL_GUESTS)),
    *((Kind.FREEZE, name) for name in (*PIPELINE, *SERVERS)),
    *((Kind.HANG, name) for name in REAL_GUESTS),
    (Kind.HANG_UP, "simulated hosts"),
    (Kind.HANG, "simulated agents"),
    (Kind.HANG, "simulated agents"),
]
_SECONDS = {Kind.KILL: (0.5, 4.0), Kind.FREEZE: (1.0, 6.0), Kind.HANG_UP: (0.5, 4.0), Kind.HANG: (4.0, 12.0)}


def plan(seed: str, seconds: float, guests: int) -> Iterator[Fault]:
    """The faults of a run of so many seconds; the same for the same arguments."""
    pick = random.Random(f"{seed}/faults")  # noqa: S311
    at, deck = pick.uniform(*PAUSE), list[tuple[Kind, str]]()
    while at < seconds:
        calm = at > LAST_KILL * seconds
        deck = [card for card in deck if not calm or card not in _KILLS]
        if not deck:
            deck = [*_OTHERS, *(() if calm else _KILLS)]
            pick.shuffle(deck)
        kind, target = deck.pop()
        lasts = pick.uniform(*_SECONDS[kind])
        some = pick.sample(range(guests), pick.randint(1, 12))
        yield Fault(
            at,
            kind,
            target,
            0.0 if (kind, target) in _KILLS else lasts,
            tuple(sorted(some)) if target == "simulated agents" else (),
        )
        at += pick.uniform(*PAUSE)
