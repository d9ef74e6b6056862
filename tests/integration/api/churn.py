"""Guests that come, change and go, and what is true of them: what clients must end up with."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from guestwire.snapshot import GuestRef
from lab.errors import LabError
from lab.nats_server import NatsServer
from lab.process import wait_until
from tests.integration.api.fleet import Collector, Replica, users

NAMES: tuple[str, ...] = ("alice", "bob", "carol")
PATIENCE = 90.0

Store = dict[str, Any]
"""Objects by namespace/name."""


class Churn:
    """A dozen guests, or twice as many as `names`."""

    def __init__(self, nats: NatsServer, *, names: int = 6) -> None:
        self.collector = Collector(nats)
        self._names = names
        self.truth: dict[str, list[str]] = {}
        """Users by guest."""
        self._random = random.Random(7)

    def go_on(self, changes: int = 40) -> None:
        """So many changes."""
        for _ in range(changes):
            ref = GuestRef(self._random.choice(("default", "other")), f"vm{self._random.randrange(self._names)}")
            names = self._random.sample(NAMES, self._random.randrange(4))
            if str(ref) not in self.truth:
                self.truth[str(ref)] = names
                self.collector.guest(ref, *names)
            elif self._random.random() < 0.3:
                del self.truth[str(ref)]
                self.collector.gone(ref)
            elif names != self.truth[str(ref)]:
                self.truth[str(ref)] = names
                self.collector.publish((ref, "userlist", users(*names)))

    def all_gone(self) -> None:
        """With the stream that held them."""
        self.collector.new_stream()
        self.truth.clear()

    def converged(self, store: Callable[[], Store], *replicas: Replica) -> None:
        """Wait until a store is what all these tell, and what is told is true."""

        def level() -> bool:
            held = store()
            return self.truth == _users(held) and all(held == each.guests() for each in replicas)

        try:
            wait_until(level, PATIENCE, "a store that holds what is true")
        except LabError as error:
            held, told = _users(store()), [_users(each.guests()) for each in replicas]
            pytest.fail(f"{error}\ntrue: {self.truth}\nheld: {held}\ntold: {told}")


def _users(store: Store) -> dict[str, list[str] | None]:
    """By guest; a user list comes in a message of its own, a moment after the agent's."""
    known = {key: each["status"].get("userlist") for key, each in store.items()}
    return {key: [user["userName"] for user in told["items"]] if told else None for key, told in known.items()}
