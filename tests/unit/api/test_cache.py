"""The rules of the cache: which answer a guest gets, as messages come in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cache import Cache
from api.groups import GROUPS, GUESTWIRE, KINDS, KUBEVIRT, Group
from guestwire import codec
from guestwire.codec import Event
from guestwire.errors import ContractError
from guestwire.jetstream import Message
from guestwire.snapshot import AgentState, Body, GuestRef, Kind, ListMeta, Phase, Reading, User, UserList
from guestwire.subjects import Address

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VM = GuestRef("default", "vm1")


def message(
    revision: int, kind: str, body: Body, *, ref: GuestRef = VM, uid: str = "u1", at: datetime = NOON
) -> Message:
    """A message of the stream, as a collector makes it."""
    event = Event(id=str(revision), source="/guestwire/local/h", uid=uid, time=at, trace_id="")
    return Message(Address("local", ref, kind), revision, event, codec.encode(body), {})


def agent(revision: int, *, ref: GuestRef = VM, uid: str = "u1", **facts: Any) -> Message:
    """An `agent` message: running and connected, but for what `facts` say."""
    usual: dict[str, Any] = {"phase": Phase.RUNNING, "channel": True, "connected": True, "since": NOON}
    state = AgentState(
        namespace=ref.namespace, name=ref.name, uid=uid, domain="d", domain_uuid=uid, host="h", **(usual | facts)
    )
    return message(revision, Kind.AGENT, state, ref=ref, uid=uid)


def userlist(revision: int, *names: str, ref: GuestRef = VM, uid: str = "u1", at: datetime = NOON) -> Message:
    """A `userlist` message."""
    body = UserList(tuple(User(name) for name in names), ListMeta())
    return message(revision, Kind.USERLIST, body, ref=ref, uid=uid, at=at)


def filled(*messages: Message) -> Cache:
    """A cache that has caught up with these."""
    cache = Cache()
    cache.begin()
    for each in messages:
        cache.apply(each)
    cache.complete()
    return cache


def outcome(cache: Cache, kind: str = Kind.USERLIST, ref: GuestRef = VM, group: Group = KUBEVIRT) -> tuple[int, str]:
    """Status and message of an error, or status and ETag."""
    answer = cache.find(group, ref, kind)
    if answer.status == 200:
        return 200, answer.etag.decode()
    return answer.status, msgspec.json.decode(answer.body)["message"]


def test_answers_with_the_message_as_it_came() -> None:
    """The body served is the message's body, byte for byte, and its ETag the revision."""
    sent = userlist(2, "root")
    answer = filled(agent(1), sent).find(KUBEVIRT, VM, Kind.USERLIST)

    assert (200, sent.body, b'"2"') == (answer.status, answer.body, answer.etag)


def test_table_of_hits_agrees_with_find() -> None:
    """Of a guest that was asked about, the protocol class's table holds exactly the answers with a body."""
    cache = filled(agent(1), userlist(2, "root"), agent(3, ref=GuestRef("default", "vm2")))
    before = dict(cache.answers)
    cache.find(KUBEVIRT, VM, Kind.FILESYSTEMLIST)

    assert {} == before
    assert {
        b"/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm1/userlist",
        b"/apis/guestwire.io/v1/namespaces/default/guests/vm1/userlist",
        b"/apis/guestwire.io/v1/namespaces/default/guests/vm1/agent",
    } == set(cache.answers)
    assert cache.find(KUBEVIRT, VM, Kind.USERLIST) is cache.answers[KUBEVIRT.path(VM, Kind.USERLIST)]


def test_answers_are_kept_ready_once_a_guest_was_asked_about() -> None:
    """What is said of it later is in the table at once, also of another guest that took its place."""
    cache = filled(agent(1), userlist(2, "root"))
    cache.find(KUBEVIRT, VM, Kind.USERLIST)
    path = KUBEVIRT.path(VM, Kind.USERLIST)
    seen = [cache.answers[path].etag]
    for said in (userlist(3, "admin"), agent(4, uid="u2"), userlist(5, "other", uid="u2")):
        cache.apply(said)
        seen.append(cache.answers[path].etag if path in cache.answers else b"")

    assert [b'"2"', b'"3"', b"", b'"5"'] == seen


def test_one_answer_for_both_groups() -> None:
    """What is served under two paths is held once."""
    cache = filled(agent(1), userlist(2, "root"))

    assert cache.find(KUBEVIRT, VM, Kind.USERLIST) is cache.find(GUESTWIRE, VM, Kind.USERLIST)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != Kind.AGENT])
def test_every_kind_is_served(kind: str) -> None:
    """Under our own group any kind is answered with its message's bytes and revision, while the agent is there."""
    cache = filled(agent(1), message(2, kind, ListMeta()))
    served = cache.find(GUESTWIRE, VM, kind)
    cache.apply(agent(3, connected=False))

    assert (200, b"{}", b'"2"') == (served.status, served.body, served.etag)
    assert (
        409,
        'Operation cannot be fulfilled on guests.guestwire.io "vm1": the guest\'s agent is not connected',
    ) == outcome(cache, kind, group=GUESTWIRE)


def test_kind_that_was_not_read() -> None:
    """Our own group says of what is unknown that it is, and why; nothing is made up for it."""
    error = "guest-get-load: this agent does not have the command, or it is disabled"
    cache = filled(agent(1, readings={Kind.LOAD: Reading(None, error)}))

    assert (404, f'load of guests.guestwire.io "vm1" has not been read: {error}') == outcome(
        cache, Kind.LOAD, group=GUESTWIRE
    )
    assert (404, 'userlist of guests.guestwire.io "vm1" has not been read') == outcome(
        cache, Kind.USERLIST, group=GUESTWIRE
    )
    assert (200, "") == outcome(cache, Kind.USERLIST, group=KUBEVIRT)


@pytest.mark.parametrize("facts", [{"connected": False}, {"phase": Phase.STOPPED, "connected": False}])
def test_agent_record_is_served_without_an_agent(facts: dict[str, Any]) -> None:
    """What the agent record is for is to tell why there is nothing else."""
    sent = agent(3, **facts)
    cache = filled(agent(1), userlist(2, "root"), sent)
    answer = cache.find(GUESTWIRE, VM, Kind.AGENT)

    assert (200, sent.body, b'"3"') == (answer.status, answer.body, answer.etag)
    cache.apply(agent(4, phase=Phase.GONE, connected=False))
    assert (404, 'guests.guestwire.io "vm1" not found') == outcome(cache, Kind.AGENT, group=GUESTWIRE)


def test_nothing_is_known_before_the_fill_is_complete() -> None:
    """503 until caught up, even for what has arrived: the rest of it may still be on its way."""
    cache = Cache()
    cache.begin()
    cache.apply(agent(1))
    cache.apply(userlist(2, "root"))

    assert (503, "the cache is still being filled from the stream") == outcome(cache)


def test_never_seen_is_not_found() -> None:
    """404 with KubeVirt's text for a guest nobody has seen."""
    assert (404, 'virtualmachineinstance.kubevirt.io "vm1" not found') == outcome(filled())


def test_facts_without_an_agent_record_are_not_served() -> None:
    """A guest exists by its agent record; facts alone are kept for it, unserved."""
    cache = filled(userlist(1, "root"))
    before = outcome(cache)
    cache.apply(agent(2))

    assert ((404, 'virtualmachineinstance.kubevirt.io "vm1" not found'), (200, '"1"')) == (before, outcome(cache))


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"phase": Phase.STOPPED, "connected": False}, "VMI is not running"),
        ({"phase": Phase.STOPPED}, "VMI is not running"),
        ({"connected": False}, "VMI does not have guest agent connected"),
        ({"connected": False, "phase": Phase.PAUSED}, "VMI does not have guest agent connected"),
    ],
)
def test_conflicts_with_kubevirts_words(facts: dict[str, Any], why: str) -> None:
    """409 for a guest that is shut off or has no agent, running first, in KubeVirt's order and words."""
    cache = filled(agent(1), userlist(2, "root"), agent(3, **facts))

    expected = f'Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "vm1": {why}'
    assert (409, expected) == outcome(cache)
    assert {GUESTWIRE.path(VM, Kind.AGENT)} == set(cache.answers)


def test_paused_guest_is_served() -> None:
    """A paused guest counts as running: its last facts are served."""
    assert (200, '"2"') == outcome(filled(agent(1), userlist(2, "root"), agent(3, phase=Phase.PAUSED)))


def test_facts_survive_a_disconnect() -> None:
    """When the agent is back, what was known is served again, without a new message."""
    cache = filled(agent(1), userlist(2, "root"), agent(3, connected=False), agent(4))

    assert (200, '"2"') == outcome(cache)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("guestosinfo", b'{"fsInfo":{"disks":null},"os":{},"timezone":", 0"}'),
        ("userlist", b'{"items":[],"metadata":{}}'),
        ("filesystemlist", b'{"items":[],"metadata":{}}'),
    ],
)
def test_nothing_collected_yet(kind: str, expected: bytes) -> None:
    """Connected, but not read yet: KubeVirt's zero value, which no client may keep."""
    answer = filled(agent(1)).find(KUBEVIRT, VM, kind)

    assert (200, expected, b"") == (answer.status, answer.body, answer.etag)
    assert (b"cache-control", b"no-store") in answer.headers()


def test_gone_guest_is_forgotten() -> None:
    """After Gone nothing of the guest is kept."""
    cache = filled(agent(1), userlist(2, "root"), agent(3, phase=Phase.GONE, connected=False))

    assert (404, 'virtualmachineinstance.kubevirt.io "vm1" not found') == outcome(cache)
    assert (0, {}, {}) == (len(cache), cache.answers, cache._guests)


def test_guest_of_the_same_name_does_not_inherit_facts() -> None:
    """A guest made anew under an old name is not answered for with the facts of the one before it."""
    cache = filled(agent(1), userlist(2, "root"), agent(3, uid="u2"))
    before = outcome(cache)
    cache.apply(userlist(4, "admin", uid="u2"))

    assert ((200, ""), (200, '"4"')) == (before, outcome(cache))


def test_late_fact_of_the_former_guest_is_not_served() -> None:
    """A reading of the former guest that was still under way is not taken for the new guest's."""
    cache = filled(agent(1), agent(2, uid="u2"), userlist(3, "root", uid="u1"))

    assert (200, "") == outcome(cache)


def test_older_revision_is_refused() -> None:
    """A message that is not newer than what was applied changes nothing."""
    cache = filled(agent(1), userlist(5, "new"))
    results = [cache.apply(userlist(4, "old")), cache.apply(userlist(5, "twice")), cache.apply(userlist(6, "newer"))]

    assert [False, False, True] == results
    assert (200, '"6"') == outcome(cache)


def test_undecodable_agent_record_changes_nothing() -> None:
    """A record that does not follow the contract is refused; the guest stays as it was."""
    cache = filled(agent(1), userlist(2, "root"))
    broken = msgspec.structs.replace(agent(3), body=b'{"connected": "perhaps"}')

    with pytest.raises(ContractError):
        cache.apply(broken)
    assert (200, '"2"') == outcome(cache)


def test_unknown_kinds_are_ignored() -> None:
    """Kinds of a later version leave the cache alone, and what comes behind them is taken in."""
    cache = filled(agent(1), message(2, "weather", ListMeta()), userlist(3, "root"))

    assert (3, (200, '"3"')) == (cache.revision, outcome(cache))
    assert not [key for key in cache.answers if b"weather" in key]


def test_stream_made_anew_replaces_everything() -> None:
    """In a stream made anew revisions start over; what it does not hold is forgotten, but not before it is read."""
    other = GuestRef("default", "vm2")
    cache = filled(agent(7), userlist(8, "root"), agent(9, ref=other), userlist(10, "root", ref=other))
    cache.begin()
    cache.apply(agent(1))
    during = outcome(cache, ref=other)
    cache.apply(userlist(2, "admin"))
    cache.complete()

    assert (200, '"10"') == during
    assert (404, 'virtualmachineinstance.kubevirt.io "vm2" not found') == outcome(cache, ref=other)
    assert (200, '"2"') == outcome(cache)
    assert 1 == len(cache)


def test_stream_made_anew_without_the_facts() -> None:
    """A fact that the new stream does not hold is forgotten even though its guest is there."""
    cache = filled(agent(7), userlist(8, "root"))
    cache.begin()
    cache.apply(agent(1))
    cache.complete()

    assert (200, "") == outcome(cache)


def test_age_counts_from_the_last_reading() -> None:
    """A body that is still true is not published again; the agent record's reading times make it younger."""
    cache = filled(agent(1), userlist(2, "root"))
    before = cache.find(KUBEVIRT, VM, Kind.USERLIST).observed
    cache.apply(agent(3, readings={Kind.USERLIST: Reading(NOON + timedelta(seconds=90))}))
    answer = cache.find(KUBEVIRT, VM, Kind.USERLIST)

    assert (0.0, 90.0) == (before - NOON.timestamp(), answer.observed - NOON.timestamp())
    assert (b"last-modified", b"Sun, 01 Mar 2026 12:00:00 GMT") in answer.headers()


REFS = [GuestRef("default", "vm1"), GuestRef("default", "vm2"), GuestRef("a/b", "vm1 %/")]


class Told(msgspec.Struct, frozen=True):
    """One thing a collector says."""

    ref: GuestRef
    kind: str
    phase: Phase
    connected: bool


@given(st.lists(st.builds(Told, st.sampled_from(REFS), st.sampled_from(KINDS), st.sampled_from(Phase), st.booleans())))
def test_late_reader_answers_as_an_early_one(story: list[Told]) -> None:
    """Whether every message was seen and every guest asked about in between, or only the last per subject."""
    lives = dict.fromkeys(REFS, 0)
    messages: list[Message] = []
    for revision, told in enumerate(story, 1):
        uid = str(lives[told.ref])
        if told.kind == Kind.AGENT:
            messages.append(agent(revision, ref=told.ref, uid=uid, phase=told.phase, connected=told.connected))
            lives[told.ref] += told.phase == Phase.GONE
        else:
            messages.append(message(revision, told.kind, ListMeta(), ref=told.ref, uid=uid))
    last = {each.address: each for each in messages}
    early, late = filled(), filled(*sorted(last.values(), key=lambda each: each.revision))
    for each in messages:
        early.apply(each)
        early.find(KUBEVIRT, each.address.ref, Kind.USERLIST)

    for ref in REFS:
        for group in GROUPS:
            for kind in group.kinds:
                assert early.find(group, ref, kind) == late.find(group, ref, kind)
                assert (group.path(ref, kind) in early.answers) == bool(early.find(group, ref, kind).etag)
    assert early.answers == late.answers
