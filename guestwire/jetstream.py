"""
The connection to NATS and the one stream.

The stream's last message per subject is the cache of record, its sequence the revision. A process starts while NATS is
away and keeps trying; nats-py reconnects by itself afterwards. nats-py's exceptions are translated here and by whoever
publishes or consumes, nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec
import nats
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.client import JetStreamContext

from guestwire import bucket, login, subjects
from guestwire.codec import Event
from guestwire.drift import Drift, drift, told
from guestwire.errors import ConfigError, ContractError, NotConnected, TransientError, Unanswered
from guestwire.isolation import Isolation
from guestwire.lifecycle import backoff, sleep_unless
from guestwire.logs import logger
from guestwire.settings import Nats
from guestwire.snapshot import GuestRef
from guestwire.subjects import Address
from guestwire.wire import Delivery, Wire

log = logger("bus")

DUPLICATE_WINDOW = 120.0
"""Seconds in which the server drops a message id it has seen (NATS's default)."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message of the stream: where it belongs, its revision, what its headers say, and its bytes."""

    address: Address
    revision: int
    event: Event
    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def of(cls, msg: Msg) -> Message:
        """From a delivered message of nats-py's. Raises ContractError."""
        event = Event.of(msg.headers)
        return cls(Address.parse(msg.subject), msg.metadata.sequence.stream, event, msg.data, msg.headers or {})

    @classmethod
    def arrived(cls, delivery: Delivery, revision: int) -> Message:
        """From a message as it arrived. Raises ContractError."""
        headers = delivery.headers
        return cls(Address.parse(delivery.subject), revision, Event.of(headers), delivery.body, headers)


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """nats-py's exceptions, by consequence."""
    try:
        yield
    except (nats.errors.NoRespondersError, nats.js.errors.ServiceUnavailableError) as error:
        raise Unanswered(f"{what}: JetStream is not available") from error
    except TimeoutError as error:
        raise Unanswered(f"{what}: no answer in time") from error
    except (nats.errors.Error, OSError) as error:
        raise NotConnected(f"{what}: {error or type(error).__name__}") from error


class Bus:
    """One connection; use it as an async context manager, or `open` it with a `stop` to give up on."""

    def __init__(self, settings: Nats, name: str) -> None:
        self.settings = settings
        self.atomic = False
        """Whether the stream takes atomic batches, as far as `ensure_stream` saw."""
        self.drift: tuple[Drift, ...] = ()
        """Where the stream is not as `stream_config` would make it, likewise."""
        self._name = name
        self._client = Wire()
        self.isolation = Isolation(lambda: self._client)
        """Whoever asks JetStream tells it how that went."""
        self._opened = False
        self._on_reconnect: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        await self.open(asyncio.Event())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether the connection is up at this moment."""
        return bool(self._client.is_connected)

    @property
    def client(self) -> Wire:
        """nats-py's connection."""
        return self._client

    @property
    def js(self) -> JetStreamContext:
        """nats-py's JetStream context."""
        return self._client.jetstream(timeout=self.settings.timeout)

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever the connection is up again; returns what undoes that."""
        self._on_reconnect.append(callback)
        return lambda: self._on_reconnect.remove(callback)

    async def open(self, stop: asyncio.Event) -> bool:
        """Connect, trying until it works or `stop` is set (False). Raises ConfigError for what no retry mends."""
        options = self._options()
        said = ""
        for pause in backoff(longest=10):
            try:
                await self._client.connect(**options)
            except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
                problem = str(error) or type(error).__name__
                if problem != said:
                    log.warning("cannot connect to NATS, trying on", servers=self.settings.servers, error=problem)
                    said = problem
                await self._start_over()
                if await sleep_unless(stop, pause):
                    return False
            except asyncio.CancelledError:
                self._client.abort()
                raise
            else:
                self._opened = True
                self._client.options["max_reconnect_attempts"] = -1
                url = self._client.connected_url
                log.info("connected to NATS", server=url.netloc if url else "")
                return True
        return False

    async def _start_over(self) -> None:
        self._client.abort()
        await self._client.close()
        self._client = Wire()

    async def close(self) -> None:
        """Send what is buffered, then disconnect."""
        if self._client.is_closed or not self._opened:
            return
        try:
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                await self._client.flush(timeout=2) if self.connected else None
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                async with asyncio.timeout(2):
                    await self._client.close()
        finally:
            self._client.abort()

    async def ensure_stream(self) -> None:
        """
        Create the stream and its key-value view unless they are there. A stream that is there stays as its operator
        made it; ConfigError when it does not take our subjects.
        """
        settings = self.settings
        with translated(f"stream {settings.stream}"):
            try:
                info = await self.js.stream_info(settings.stream)
            except nats.js.errors.NotFoundError:
                info = await self.js.add_stream(stream_config(settings))
                log.info("stream created", stream=settings.stream, replicas=settings.replicas)
        self.atomic = bool(info.config.allow_atomic)
        if not any(covers(subject) for subject in info.config.subjects or ()):
            raise ConfigError(
                f"nats.stream: stream {settings.stream} exists but does not take {subjects.STREAM_SUBJECT}; "
                "name another stream or add the subject"
            )
        self._note(drift(info.config, stream_config(settings)))
        if settings.bucket:
            await bucket.ensure(self.js, settings, info)

    def _note(self, found: tuple[Drift, ...]) -> None:
        if found and found != self.drift:
            log.warning("the stream stays as its operator made it", stream=self.settings.stream, drift=told(found))
        self.drift = found

    async def ensure_stream_patiently(self, stop: asyncio.Event, *, create: bool = True) -> bool:
        """`ensure_stream`, or wait for someone else's, until it works or `stop` is set (False)."""
        for pause in backoff(longest=5):
            try:
                if create:
                    await self.ensure_stream()
                else:
                    with translated(f"stream {self.settings.stream}"):
                        await self.js.stream_info(self.settings.stream)
            except TransientError as error:
                log.warning("stream is not there yet", stream=self.settings.stream, error=str(error))
                if await sleep_unless(stop, pause):
                    return False
            else:
                return True
        return False

    async def delete(self, cluster: str, ref: GuestRef, last: int, *, spare: str = "") -> None:
        """
        Delete all messages about a guest up to a revision, and its keys unless there are newer messages: a guest that
        returns in the very moment loses nothing. A kind to be spared may have a newer message, and keeps its key.
        Raises NotConnected.
        """
        settings = self.settings
        with translated(f"delete {ref}"):
            if settings.bucket:
                newest = await bucket.last_revision(self.js, settings.bucket)
                messages = await self.last(cluster, ref)
                if all(message.revision <= last or kind == spare for kind, message in messages.items()):
                    for kind in messages.keys() - {spare} if spare else ("*",):
                        await bucket.delete(self.js, settings.bucket, cluster, ref, newest, kind)
            await self.js.purge_stream(settings.stream, subject=subjects.of_guest(cluster, ref), seq=last + 1)

    async def last(self, cluster: str, ref: GuestRef) -> dict[str, Message]:
        """The last message of each kind about a guest, straight from the stream. Raises NotConnected."""
        request = {"multi_last": [subjects.of_guest(cluster, ref)]}
        return {message.address.kind: message for message in await self.get(request, f"last messages of {ref}")}

    async def get(self, request: Mapping[str, object], what: str) -> list[Message]:
        """
        Messages straight from the stream, which may answer from any of its replicas, by a batched request of its direct
        get (NATS ADR-31). Raises NotConnected, beginning with `what`.
        """
        answers: asyncio.Queue[Msg] = asyncio.Queue()

        async def answered(msg: Msg) -> None:
            answers.put_nowait(msg)

        with translated(what):
            inbox = self._client.new_inbox()
            subscription = await self._client.subscribe(inbox, cb=answered)
            try:
                direct = f"$JS.API.DIRECT.GET.{self.settings.stream}"
                await self._client.publish(direct, msgspec.json.encode(request), reply=inbox)
                async with asyncio.timeout(self.settings.timeout):
                    return await _collect(answers, what)
            finally:
                await subscription.unsubscribe()

    def _options(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "servers": list(settings.servers),
            "name": f"guestwire {self._name}",
            "connect_timeout": settings.timeout,
            "max_reconnect_attempts": 1,  # or the first connect would try for ever without a word
            "reconnect_time_wait": 1,
            "ping_interval": 5,  # a server that stands still is left after three of them
            "allow_reconnect": True,
            "error_cb": self._error,
            "disconnected_cb": self._disconnected,
            "reconnected_cb": self._reconnected,
            "reconnect_to_server_handler": self.isolation.choose,
            **login.options(settings),
        }

    async def _error(self, error: Exception) -> None:
        if self.connected:
            log.warning("NATS reports an error", error=str(error) or type(error).__name__)

    async def _disconnected(self) -> None:
        if not self._client.is_closed:
            log.warning("disconnected from NATS, reconnecting")

    async def _reconnected(self) -> None:
        log.info("connected to NATS again")
        for callback in self._on_reconnect:
            callback()


async def _collect(answers: asyncio.Queue[Msg], what: str) -> list[Message]:
    """Messages up to the mark of their end."""
    found: list[Message] = []
    while True:
        msg = await answers.get()
        headers = msg.headers or {}
        status = headers.get("Status")
        if status in {"204", "404"}:  # end of the batch; nothing at all
            return found
        if status:
            raise NotConnected(f"{what}: {status} {headers.get('Description', '')}")
        with contextlib.suppress(ContractError):
            address = Address.parse(headers["Nats-Subject"])
            found.append(Message(address, int(headers["Nats-Sequence"]), Event.of(headers), msg.data, headers))


def stream_config(settings: Nats) -> StreamConfig:
    """The stream as this project makes it: history per subject, last message served directly, batches allowed."""
    return StreamConfig(
        name=settings.stream,
        description="What QEMU guest agents know; the last message per subject is the present value",
        subjects=[subjects.STREAM_SUBJECT],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=settings.replicas,
        max_msgs_per_subject=settings.history,
        duplicate_window=DUPLICATE_WINDOW,
        allow_direct=True,
        allow_rollup_hdrs=True,
        allow_msg_ttl=True,
        allow_atomic=True,
    )


def covers(subject: str) -> bool:
    """Whether a stream's subject takes all of ours."""
    theirs, ours = subject.split("."), subjects.STREAM_SUBJECT.split(".")
    for position, word in enumerate(theirs):
        if word == ">":
            return position < len(ours)
        if position >= len(ours) or word not in {"*", ours[position]}:
            return False
    return len(theirs) == len(ours)
