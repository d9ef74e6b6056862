"""What differs between two values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guestwire import codec
from guestwire.difference import Difference, difference
from guestwire.errors import ContractError
from guestwire.snapshot import (
    AgentState,
    DomainInterface,
    Filesystem,
    FilesystemList,
    GuestInterface,
    Interfaces,
    IPAddress,
    Kind,
    ListMeta,
    Phase,
    Reading,
    User,
    UserList,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def users(*items: User) -> bytes:
    """A `userlist`."""
    return codec.encode(UserList(items, ListMeta()))


def interfaces(*guest: GuestInterface) -> bytes:
    """An `interfaces` with one device."""
    return codec.encode(Interfaces((DomainInterface("net1"),), guest))


def agent(**fields: object) -> bytes:
    """An `agent` record."""
    state = AgentState("default", "web", "u", "web", "u", "h", Phase.RUNNING, True, True, NOW)
    return codec.encode(msgspec.structs.replace(state, **fields))


def test_users_by_name() -> None:
    """Whoever comes and goes is named, wherever in the list; the same name of two domains is two users."""
    old = users(User("alice", login_time=1.5), User("bob", "A"), User("bob", "B"))
    new = users(User("bob", "B"), User("carol"), User("alice", login_time=2.5))

    assert [
        Difference("items[alice].loginTime", 1.5, 2.5),
        Difference("items[bob,A]", {"userName": "bob", "domain": "A"}, None),
        Difference("items[carol]", None, {"userName": "carol"}),
        Difference("items", ["alice", "bob,B"], ["bob,B", "alice"]),
    ] == difference(Kind.USERLIST, old, new)


def test_filesystems_by_mount_point() -> None:
    """A filesystem that fills up is one number at its mount point."""
    root, boot = Filesystem("vda1", "/", "ext4", 10, 100), Filesystem("vda2", "/boot", "ext4", 1, 2)
    old = codec.encode(FilesystemList((boot, root), ListMeta()))
    new = codec.encode(FilesystemList((boot, msgspec.structs.replace(root, used_bytes=20)), ListMeta()))

    assert [Difference("items[/].usedBytes", 10, 20)] == difference(Kind.FILESYSTEMLIST, old, new)


def test_addresses_by_interface() -> None:
    """An address that was added is named below its interface."""
    old = interfaces(GuestInterface("lo"), GuestInterface("eth0", "m", (IPAddress("10.0.0.7", 24),)))
    new = interfaces(GuestInterface("eth0", "m", (IPAddress("10.0.0.7", 16), IPAddress("::1", 128))))

    assert [
        Difference("guest[lo]", {"name": "lo"}, None),
        Difference("guest[eth0].addresses[10.0.0.7].prefix", 24, 16),
        Difference("guest[eth0].addresses[::1]", None, {"address": "::1", "prefix": 128}),
    ] == difference(Kind.INTERFACES, old, new)


def test_unknown_is_not_empty() -> None:
    """Interfaces that became known to be none differ from unknown ones."""
    unknown = codec.encode(Interfaces((DomainInterface("net1"),)))

    assert [Difference("guest", None, [])] == difference(Kind.INTERFACES, unknown, interfaces())


def test_a_heartbeat_is_no_difference() -> None:
    """Times of readings do not count in `agent`, as in its digest; their errors do."""
    old = agent(readings={"userlist": Reading(NOW)})
    later = NOW + timedelta(minutes=1)
    refused = "guest-get-users: disabled"

    assert [] == difference(Kind.AGENT, old, agent(readings={"userlist": Reading(later)}))
    assert [Difference("readings.userlist.error", None, refused)] == difference(
        Kind.AGENT, old, agent(readings={"userlist": Reading(later, refused)})
    )


def test_commands_are_names() -> None:
    """A list of texts is compared as a set of them."""
    old, new = agent(commands=("guest-info", "guest-exec")), agent(commands=("guest-info",))

    assert [Difference("commands[guest-exec]", "guest-exec", None)] == difference(Kind.AGENT, old, new)


def test_no_value() -> None:
    """The first value and the end of one are a difference of the whole."""
    body = users()
    value: dict[str, object] = {"items": [], "metadata": {}}

    assert [] == difference(Kind.USERLIST, None, None)
    assert [Difference("", None, value)] == difference(Kind.USERLIST, None, body)
    assert [Difference("", value, None)] == difference(Kind.USERLIST, body, None)


def test_kinds_and_fields_to_come() -> None:
    """What this version does not know is compared all the same; entries without a name by their place."""
    old, new = b'{"a":[{"x":1},{"x":2}],"b":true}', b'{"a":[{"x":1},{"x":3}],"b":1}'

    assert [Difference("a[1].x", 2, 3), Difference("b", True, 1)] == difference("later", old, new)


def test_a_name_cannot_pretend() -> None:
    """A guest's own names are quoted where they could be taken for a path or command a terminal."""
    [told] = difference(Kind.USERLIST, users(), users(User("x].y[\x1b")))

    assert 'items["x].y[\\u001b"]' == told.path


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'"\xff"', b"[" * 100_000])
def test_no_json(body: bytes) -> None:
    """What is no JSON is refused by the contract's error, with the kind."""
    with pytest.raises(ContractError, match=r"^userlist: "):
        difference(Kind.USERLIST, users(), body)


scalars = st.booleans() | st.integers(0, 2) | st.sampled_from(["", "a", "a#2"])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "x"]), inner | st.none(), max_size=2)
    ),
    max_leaves=6,
)
lists = st.lists(st.fixed_dictionaries({"name": st.sampled_from(["a", "a#2", "a#3"]), "x": scalars}), max_size=4)


def comparable(value: object) -> object:
    """Equal to another's exactly where the JSON is equal, but for members that are null."""
    if isinstance(value, dict):
        return {name: comparable(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [comparable(each) for each in value]
    return (isinstance(value, bool), value)


@pytest.mark.parametrize("strategy", [values, lists], ids=["any", "named entries"])
def test_a_difference_is_found_where_there_is_one(strategy: st.SearchStrategy[object]) -> None:
    """Two values differ by nothing if and only if they are equal, null being absent."""

    @settings(max_examples=400)
    @given(strategy, strategy)
    def holds(old: object, new: object) -> None:
        found = difference("any", msgspec.json.encode(old), msgspec.json.encode(new))

        assert (comparable(old) == comparable(new)) == (found == [])

    holds()
