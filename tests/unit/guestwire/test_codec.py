"""Bodies are KubeVirt's JSON, digests tell changes, headers are CloudEvents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestwire import codec
from guestwire.codec import Event
from guestwire.errors import ContractError
from guestwire.snapshot import (
    AgentState,
    Filesystem,
    FilesystemInfo,
    FilesystemList,
    GuestOSInfo,
    GuestRef,
    ListMeta,
    OperatingSystem,
    Phase,
    Reading,
    User,
    UserList,
)

NOW = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)


def agent(**changes: object) -> AgentState:
    """An agent record."""
    record = AgentState(
        "ns", "vm", "uid", "ns_vm", "uuid", "host", Phase.RUNNING, channel=True, connected=True, since=NOW
    )
    return msgspec.structs.replace(record, **changes)


def test_nothing_known() -> None:
    """The body right after connecting is KubeVirt's, byte for byte but for its line breaks."""
    body = GuestOSInfo(FilesystemInfo(None), OperatingSystem(), ", 0")

    assert b'{"fsInfo":{"disks":null},"os":{},"timezone":", 0"}' == codec.encode(body)


def test_empty_lists() -> None:
    """A list without items keeps its `items` and `metadata`."""
    assert b'{"items":[],"metadata":{}}' == codec.encode(UserList((), ListMeta()))
    assert b'{"items":[],"metadata":{}}' == codec.encode(FilesystemList((), ListMeta()))


def test_sizes() -> None:
    """Sizes are written even when 0, and exact beyond 32 bits."""
    body = FilesystemList((Filesystem("vda", "/", "ext4", 0, 2**62 + 1),), ListMeta())

    assert b'"totalBytes":4611686018427387905,"usedBytes":0' in codec.encode(body)


@pytest.mark.parametrize(
    ("login_time", "written"),
    [(1700000000.0, b"1700000000"), (1580467675.876078, b"1580467675.876078"), (1700000000, b"1700000000")],
)
def test_login_time(login_time: float, written: bytes) -> None:
    """Whole seconds have no fraction, also after a round trip."""
    encoded = codec.encode(UserList((User("a", login_time=login_time),), ListMeta()))

    assert b'"loginTime":' + written + b"," in encoded
    assert encoded == codec.encode(codec.decode(encoded, UserList))


def test_unknown_fields() -> None:
    """A field of a newer version is no error."""
    assert UserList((), ListMeta()) == codec.decode(b'{"items":[],"metadata":{},"later":1}', UserList)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"items":1,"metadata":{}}', b"\xff", b"nul"])
def test_undecodable(data: bytes) -> None:
    """What does not fit is a ContractError that names the struct."""
    with pytest.raises(ContractError, match="UserList"):
        codec.decode(data, UserList)


def test_agent_digest_ignores_reading_times() -> None:
    """Looking again is no change; an error, a version, a connection is."""
    one = agent(readings={"guest-info": Reading(NOW)})

    assert codec.digest(one) == codec.digest(agent(readings={"guest-info": Reading(NOW + timedelta(hours=1))}))
    assert codec.digest(one) != codec.digest(agent(readings={"guest-info": Reading(NOW, "refused")}))
    assert codec.digest(one) != codec.digest(agent(readings={"guest-info": Reading(NOW)}, connected=False))


def test_digest_of_message() -> None:
    """The digest of what was published is the digest of what would be."""
    part = codec.part("agent", agent(readings={"guest-info": Reading(NOW)}), NOW)

    assert part.digest == codec.digest_of_message("agent", part.body)
    assert codec.digest_of_message("later", b"x") != codec.digest_of_message("later", b"y")


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_headers_round_trip(namespace: str, name: str, uid: str, host: str) -> None:
    """Whatever the names hold, headers are printable ASCII and say it."""
    part = codec.part("userlist", UserList((), ListMeta()), NOW)
    try:
        headers = codec.event_headers(
            ref=GuestRef(namespace, name),
            uid=uid,
            cluster="c/1",
            host=host,
            part=part,
            message_id="id-1",
            trace_id=codec.new_trace_id(),
        )
    except UnicodeEncodeError:  # lone surrogates: no libvirt name holds them
        return
    event = Event.of({key.upper(): value for key, value in headers.items()})

    assert all("!" <= char <= "~" for value in headers.values() for char in value)
    assert (uid, host, NOW, "id-1") == (event.uid, event.host, event.time, event.id)
    assert 32 == len(event.trace_id)


def test_headers_missing() -> None:
    """A message without our headers is not ours."""
    with pytest.raises(ContractError):
        Event.of(None)


def test_timestamp() -> None:
    """Times are UTC with a Z."""
    assert "2026-02-03T04:05:06.000789Z" == codec.timestamp(NOW.astimezone(timezone(timedelta(hours=2))))
