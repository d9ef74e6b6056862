"""
What a check finds, and the check of NATS.

Each check looks at one thing that the pipeline needs, within a bounded time, and changes nothing. What it finds is told
with what to do about it, so a finding is of use to somebody who has not read the documentation.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum

import msgspec
import nats.errors
import nats.js.errors

from guestwire import subjects
from guestwire.drift import drift, mended, told
from guestwire.errors import GuestwireError, NotConnected
from guestwire.jetstream import (
    Bus,
    covers,  # the very judgement that `guestwire collect` makes
    stream_config,
    translated,
)
from guestwire.settings import Nats

LEAST_VERSION = (2, 11)
"""The first nats-server that gives the last messages of several subjects by one request (`multi_last`, ADR-31)."""
ATOMIC_BATCHES = (2, 12)
"""The first that stores several messages or none (ADR-50)."""
LEAST_PAYLOAD = 1024 * 1024
"""Bytes: nats-server's own default."""


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    """Nothing is wrong, but somebody may have expected more."""
    PROBLEM = "problem"
    SKIPPED = "skipped"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    area: str
    """What was checked: `settings`, `libvirt`, `guests`, `NATS`, `cluster`."""
    about: str
    """Which of them: a URI, a domain's name; empty where there is one only."""
    outcome: Outcome
    text: str
    advice: tuple[str, ...] = ()
    """What to do, line by line."""
    host: str = ""
    """Of a guest: the libvirt URI where it was found."""


async def check_nats(settings: Nats, *, chosen: bool) -> list[Finding]:
    """
    Server, JetStream and stream; ConfigError for settings that no server could mend. Where no server was `chosen` in
    the settings, its absence is no problem: `guestwire up` starts one.
    """
    servers = ", ".join(settings.servers)
    bus = _Once(settings, "doctor")
    try:
        await bus.connect()
    except NotConnected as error:
        return [_unreachable(servers, str(error), chosen=chosen)]
    try:
        server = bus.client.connected_server_version
        version = (server.major, server.minor, server.patch)
        findings = [check_server(servers, version, bus.client.max_payload)]
        try:
            findings += [await _jetstream(bus), await _stream(bus)]
        except GuestwireError as error:
            advice = "start it with -js, or give it (and this account) a `jetstream {}` block"
            findings.append(Finding("NATS", servers, Outcome.PROBLEM, str(error), (advice,)))
        return findings
    finally:
        await bus.close()


class _Once(Bus):
    """A bus that connects at the first attempt or says why not, and keeps quiet in the log."""

    def __init__(self, settings: Nats, name: str) -> None:
        super().__init__(settings, name)
        self._said: list[str] = []

    async def connect(self) -> None:
        """Raises NotConnected with the reasons the servers gave."""
        options = self._options()
        try:
            async with asyncio.timeout(self.settings.timeout * (len(self.settings.servers) + 1)):
                await self._client.connect(**options)
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            await self._client.close()
            reasons = "; ".join(sorted(set(self._said)))
            raise NotConnected(reasons or str(error) or "no answer in time") from error
        self._opened = True

    async def _error(self, error: Exception) -> None:
        self._said.append(str(error).removeprefix("nats: ") or type(error).__name__)

    async def _disconnected(self) -> None:
        """Not worth a word."""


def _unreachable(servers: str, reason: str, *, chosen: bool) -> Finding:
    if not chosen:
        text = f"nobody is there ({reason}); `guestwire up` starts a server of its own"
        return Finding("NATS", servers, Outcome.NOTE, text, ("to use another, set GUESTWIRE_NATS__SERVERS",))
    if "uthorization" in reason or "uthentication" in reason:
        advice = "set GUESTWIRE_NATS__CREDENTIALS or GUESTWIRE_NATS__NKEY to the file of a user who may come in"
    elif "certificate" in reason.lower() or "ssl" in reason.lower():
        advice = "set GUESTWIRE_NATS__CA to the certificates of the authority that signed the server's"
    else:
        advice = "start nats-server there (with -js), or set GUESTWIRE_NATS__SERVERS to where it is"
    return Finding("NATS", servers, Outcome.PROBLEM, f"cannot be used: {reason}", (advice,))


def check_server(servers: str, version: tuple[int, int, int], max_payload: int) -> Finding:
    """Whether a server is new enough and takes messages as large as ours."""
    name = "nats-server {}.{}.{}".format(*version)
    if version < LEAST_VERSION:
        advice = "update it to {}.{} or later: the status writer asks for several last messages at once"
        return Finding("NATS", servers, Outcome.PROBLEM, f"{name} is too old", (advice.format(*LEAST_VERSION),))
    if max_payload < LEAST_PAYLOAD:
        text = f"{name} takes messages of at most {max_payload} bytes"
        return Finding("NATS", servers, Outcome.PROBLEM, text, (f"set max_payload to {LEAST_PAYLOAD} or more",))
    batches = ", atomic batches" if version >= ATOMIC_BATCHES else "; atomic batches come with {}.{}"
    knows = f"several last messages at once, message TTL{batches.format(*ATOMIC_BATCHES)}"
    return Finding("NATS", servers, Outcome.OK, f"{name} ({knows})")


async def _jetstream(bus: Bus) -> Finding:
    servers = ", ".join(bus.settings.servers)
    try:
        with translated("JetStream"):
            account = await bus.js.account_info()
    except NotConnected as error:
        if isinstance(error.__cause__, nats.js.errors.ServiceUnavailableError):
            raise NotConnected("JetStream is off, on the server or for this account") from error
        raise
    return Finding("NATS", servers, Outcome.OK, f"JetStream is on, with {account.streams} streams")


async def _stream(bus: Bus) -> Finding:
    """Whether the stream is fit. It is not made here: that is `guestwire collect`'s."""
    name, ours = bus.settings.stream, subjects.STREAM_SUBJECT
    about = f"stream {name}"
    with translated(about):
        try:
            config = (await bus.js.stream_info(name)).config
        except nats.js.errors.NotFoundError:
            return await _no_stream(bus, about)
    if not any(covers(subject) for subject in config.subjects or ()):
        text = f"does not take {ours}"
        advice = "add the subject to it, or set GUESTWIRE_NATS__STREAM to another name"
        return Finding("NATS", about, Outcome.PROBLEM, text, (advice,))
    if not config.allow_direct:
        advice = f"nats stream edit {name} --allow-direct"
        return Finding("NATS", about, Outcome.PROBLEM, "gives no last messages directly", (advice,))
    if found := drift(config, stream_config(bus.settings)):
        advice = mended(name, found) or "make another stream, and set GUESTWIRE_NATS__STREAM to it"
        text = f"stays as its operator made it: {told(found)}"
        return Finding("NATS", about, Outcome.NOTE, text, (f"if that is not meant: {advice}",))
    return Finding("NATS", about, Outcome.OK, f"takes {ours}, {config.num_replicas or 1} copies")


async def _no_stream(bus: Bus, about: str) -> Finding:
    ours = subjects.STREAM_SUBJECT
    try:
        other = await bus.js.find_stream_name_by_subject(ours)
    except nats.js.errors.NotFoundError:
        return Finding("NATS", about, Outcome.NOTE, "not there yet; `guestwire collect` makes it")
    advice = f"take {ours} away from {other}, or set GUESTWIRE_NATS__STREAM={other} if it takes all of it"
    return Finding("NATS", about, Outcome.PROBLEM, f"cannot be made: stream {other} has its subjects", (advice,))
