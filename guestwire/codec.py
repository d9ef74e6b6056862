"""
Structs to bytes and back, digests, and the CloudEvents headers around them.

JSON keys are sorted at every level and absent values are absent, so equal facts are equal bytes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeVar, cast
from urllib.parse import quote, unquote

import msgspec

from guestwire.errors import ContractError
from guestwire.headers import Headers
from guestwire.kinds import BODIES
from guestwire.snapshot import AgentState, Body, GuestRef, Kind, Part, Reading

B = TypeVar("B", bound=Body)

_encoder = msgspec.json.Encoder(order="sorted")
_decoders: dict[type[Body], msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(kind) for kind in BODIES.values()}


def encode(body: Body) -> bytes:
    """The JSON of a body as it travels: compact, keys sorted."""
    return _encoder.encode(body)


def decode(data: bytes | memoryview, kind: type[B]) -> B:
    """The struct behind a message body. ContractError, naming the path, when it does not fit."""
    try:
        return cast("B", _decoders[kind].decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"{kind.__name__}: {error}") from error


def digest(body: Body, encoded: bytes | None = None) -> str:
    """
    Names what counts as a change. In `agent` the times of readings do not: they move with every look at the guest,
    and travel with the next change or heartbeat.
    """
    if isinstance(body, AgentState):
        timeless = {kind: Reading(None, reading.error, reading.truncated) for kind, reading in body.readings.items()}
        encoded = encode(msgspec.structs.replace(body, readings=timeless))
    return blake2b(encoded if encoded is not None else encode(body), digest_size=16).hexdigest()


def part(kind: str, body: Body, observed_at: datetime) -> Part:
    """Encode a body once, for the bus and for every reader behind it."""
    encoded = encode(body)
    return Part(kind, encoded, digest(body, encoded), observed_at)


def digest_of_message(kind: str, data: bytes) -> str:
    """The digest of a published body; of an unknown kind, that of its bytes."""
    struct = BODIES.get(kind)
    if struct is not AgentState:
        return blake2b(data, digest_size=16).hexdigest()
    return digest(decode(data, AgentState))


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with `Z`, microseconds kept."""
    moment = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return _encoder.encode(moment)[1:-1].decode()


def new_trace_id() -> str:
    """A W3C trace id."""
    return f"{random.getrandbits(128):032x}"


def traceparent(trace_id: str, span_id: str) -> str:
    """W3C trace context: 32 and 16 hexadecimal digits, and that nobody here records spans."""
    return f"00-{trace_id}-{span_id}-00"


# --- CloudEvents 1.0, binary mode over NATS: one header per attribute, the body untouched ------------------------

HEADER_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace('"', "").replace("%", "")
"""What the NATS binding leaves as it is: U+0021 to U+007E but for the double quote and the percent sign."""
_SAFE = re.compile(f"[{re.escape(HEADER_SAFE)}]*\\Z")


def event_lines(
    *, ref: GuestRef, uid: str, cluster: str, host: str, kind: str, time: str, message_id: str, trace: str
) -> str:
    """
    Header lines of a message: CloudEvents attributes, de-duplication id, W3C trace context. Each ends in CR LF. `time`
    is a `timestamp`, `trace` a `traceparent`.
    """
    return (
        f"{_common_lines(cluster, host, kind)}"
        f"ce-id: {message_id}\r\n"
        f"ce-subject: {_header_value(f'{ref.namespace}/{ref.name}')}\r\n"
        f"ce-time: {time}\r\n"
        f"ce-guestuid: {_header_value(uid)}\r\n"
        f"Nats-Msg-Id: {message_id}\r\n"
        f"traceparent: {trace}\r\n"
    )


@lru_cache(maxsize=4096)
def _common_lines(cluster: str, host: str, kind: str) -> str:
    """What all messages of a kind from one host have in common."""
    source = f"/guestwire/{quote(cluster, safe='')}/{quote(host, safe='')}"
    return (
        "ce-specversion: 1.0\r\n"
        f"ce-source: {_header_value(source)}\r\n"
        f"ce-type: {_header_value(f'io.guestwire.guest.{kind}.v1')}\r\n"
        "ce-datacontenttype: application/json\r\n"
        f"ce-dataschema: {_header_value(f'urn:guestwire:v1:{kind}')}\r\n"
    )


def _header_value(text: str) -> str:
    return text if _SAFE.match(text) else quote(text, safe=HEADER_SAFE)  # quote() is slow


def _header_text(value: str) -> str:
    return unquote(value) if "%" in value else value


def event_headers(
    *, ref: GuestRef, uid: str, cluster: str, host: str, part: Part, message_id: str, trace_id: str
) -> dict[str, str]:
    """The same lines as a dictionary."""
    lines = event_lines(
        ref=ref,
        uid=uid,
        cluster=cluster,
        host=host,
        kind=part.kind,
        time=timestamp(part.observed_at),
        message_id=message_id,
        trace=traceparent(trace_id, f"{random.getrandbits(64):016x}"),
    )
    return {name: value for name, _, value in (line.partition(": ") for line in lines.split("\r\n")[:-1])}


_WRITTEN = re.compile(
    r"NATS/1\.0\r\nce-specversion: 1\.0\r\nce-source: ([!-~]+)\r\n"
    r"ce-type: .*\r\nce-datacontenttype: .*\r\nce-dataschema: .*\r\n"
    r"ce-id: ([!-~]+)\r\nce-subject: .*\r\nce-time: ([!-~]+)\r\nce-guestuid: ([!-~]+)\r\n"
    r"Nats-Msg-Id: .*\r\ntraceparent: 00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\r\n(?:Nats-.*\r\n)*\r\n"
)
"""`event_lines` as they arrive, with what the server or the publisher adds: read at once, not by name."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """What the headers of a message say; header names in any case."""

    id: str
    source: str
    uid: str
    time: datetime
    trace_id: str

    @classmethod
    def of(cls, headers: Mapping[str, str] | None) -> Event:
        """ContractError when an attribute is missing or no time can be read."""
        written = _WRITTEN.fullmatch(headers.raw.decode("latin-1")) if isinstance(headers, Headers) else None
        if written:
            source, event_id, time, uid, trace_id = written.groups()
            return cls._made(event_id, source, uid, time, trace_id)
        given = {} if headers is None else headers
        if not all(map(given.get, ("ce-id", "ce-time", "ce-source", "ce-guestuid"))):  # written in another case?
            given = {name.lower(): value for name, value in given.items()}
        parts = given.get("traceparent", "").split("-")
        trace_id = parts[1] if len(parts) == 4 else ""
        try:
            event_id, source, uid, time = (given[name] for name in ("ce-id", "ce-source", "ce-guestuid", "ce-time"))
        except KeyError as error:
            raise ContractError(f"CloudEvents header missing: {error}") from error
        return cls._made(event_id, source, uid, time, trace_id)

    @classmethod
    def _made(cls, event_id: str, source: str, uid: str, time: str, trace_id: str) -> Event:
        try:
            moment = datetime.fromisoformat(_header_text(time))
        except ValueError as error:
            raise ContractError(f"CloudEvents header unreadable: {error}") from error
        if moment.tzinfo is None:
            raise ContractError("CloudEvents header unreadable: ce-time without a zone")
        return cls(_header_text(event_id), _header_text(source), _header_text(uid), moment, trace_id)

    @property
    def host(self) -> str:
        """The host whose collector sent it."""
        return unquote(self.source.rpartition("/")[2])


def kinds() -> tuple[str, ...]:
    """Every kind this version knows."""
    return tuple(kind.value for kind in Kind)
