"""Metrics that are looked up when somebody asks: states of guests, and how old what is known of them is."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from collectors.agent_commands import AgentCommand, Reply
from collectors.domain import Domain
from collectors.guest import Guest
from collectors.metrics import STATES, Agents
from guestwire import codec
from guestwire.snapshot import GuestRef, Phase

DOMAIN = Domain(
    GuestRef("ns", "vm"), "ns_vm", "uuid", "uid", Phase.RUNNING, channel=True, connected=True, interfaces=()
)


class OneHost:
    """A host and its guests."""

    def __init__(self, uri: str, *guests: Guest) -> None:
        self.uri = uri
        self.guests = {str(number): guest for number, guest in enumerate(guests)}


def guest(read_at: datetime | None = None, **domain: object) -> Guest:
    """One that answered, at that time."""
    made = Guest(msgspec.structs.replace(DOMAIN, **domain), "h", codec.now())
    if read_at:
        made.read(AgentCommand.USERS, Reply(()), read_at)
    return made


def values(*hosts: OneHost) -> dict[tuple[str, str, str], float]:
    """By metric, host and state."""
    registry = CollectorRegistry()
    registry.register(Agents(lambda: hosts))
    return {
        (sample.name.removeprefix("guestwire_collector_"), sample.labels["host"], sample.labels["state"]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def test_states() -> None:
    """Every guest is in one state; a state without guests is 0, not missing."""
    silent, frozen, frozen_and_silent = guest(), guest(), guest()
    silent.unresponsive("silent")
    frozen.frozen = True
    frozen_and_silent.frozen = True
    frozen_and_silent.unresponsive("silent")
    away = [guest(connected=False), guest(phase=Phase.PAUSED), guest(phase=Phase.STOPPED)]
    found = values(OneHost("a", guest(), guest(), silent, frozen, frozen_and_silent, *away), OneHost("b"))

    assert {"asked": 2, "silent": 2, "frozen": 1, "away": 3} == {s: found["agents", "a", s] for s in STATES}
    assert dict.fromkeys(STATES, 0) == {s: found["agents", "b", s] for s in STATES}


def test_oldest_reading() -> None:
    """The oldest per host and state; a guest that was never read has no age, and no guest has a label."""
    now = codec.now()
    young, old, silent = (guest(now - timedelta(seconds=age)) for age in (10, 100, 1000))
    silent.unresponsive("silent")
    found = values(OneHost("a", young, old, silent, guest()), OneHost("b", guest()))
    ages = {key[1:]: value for key, value in found.items() if key[0] == "oldest_reading_seconds"}

    assert {("a", "asked"): pytest.approx(100, abs=30), ("a", "silent"): pytest.approx(1000, abs=30)} == ages


def test_a_host_that_returns() -> None:
    """A socket that is there again before its first collector has left is one host."""
    assert 2 == values(OneHost("a", guest()), OneHost("a", guest()))["agents", "a", "asked"]


def test_clock_that_went_back() -> None:
    """A reading from the future is of age 0."""
    found = values(OneHost("a", guest(codec.now() + timedelta(hours=1))))

    assert 0 == found["oldest_reading_seconds", "a", "asked"]


def test_text() -> None:
    """As a scraper gets it."""
    registry = CollectorRegistry()
    registry.register(Agents(lambda: [OneHost("qemu:///system", guest())]))

    assert 'guestwire_collector_agents{host="qemu:///system",state="asked"} 1.0' in generate_latest(registry).decode()
