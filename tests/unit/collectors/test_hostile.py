"""Hostile guests: floods, odd characters, wrong shapes. Nothing crashes, and what is said about them stays small."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import tracemalloc
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors import agent_commands
from collectors.agent_commands import AgentCommand, Reply
from collectors.bounds import (
    MOST_BYTES,
    MOST_ENTRIES,
    MOST_INNER,
    MOST_LIST,
    MOST_OBJECTS,
    MOST_TEXT,
)
from collectors.guest import Guest
from collectors.replies import AgentInfo
from guestwire.errors import ContractError
from guestwire.kinds import BODIES
from guestwire.snapshot import Body, Filesystem
from tests.conftest import REQUIRED
from tests.fuzz.agent_replies import DOMAIN, FULLEST, MOST_BODY, NOW, WITHOUT_BOUNDS, full_guest, fullest, holds

ROOT = Path(__file__).parents[3]
LISTS = [
    AgentCommand.INFO,
    AgentCommand.INTERFACES,
    AgentCommand.USERS,
    AgentCommand.FILESYSTEMS,
    AgentCommand.DISKS,
    AgentCommand.CPUSTATS,
    AgentCommand.DISKSTATS,
    AgentCommand.VCPUS,
]

WITHOUT_TEXTS = {*WITHOUT_BOUNDS, AgentCommand.CPUSTATS, AgentCommand.VCPUS}


def parse(command: AgentCommand, returned: Any) -> Reply:
    """A reply that returns this value."""
    return agent_commands.parse(command, json.dumps({"return": returned}))


def flood(command: AgentCommand, entry: str, size: int = MOST_BYTES) -> str:
    """A reply as long as libvirt lets through, of this entry again and again; `%d` in it counts."""
    before, after = ('{"version":"1","supported_commands":[', "]}") if command is AgentCommand.INFO else ("[", "]")
    room = size - len(f'{{"return":{before}{after}}}')
    many = room // (len(entry.replace("%d", "1000000")) + 1)
    entries = ",".join(entry.replace("%d", str(1_000_000 + number)) for number in range(many))
    return f'{{"return":{before}{entries}{after}}}'


def entries(reply: Reply) -> tuple[Any, ...]:
    """What was taken of a list."""
    match reply.value:
        case AgentInfo():
            return reply.value.commands
        case Body():
            [only] = msgspec.structs.astuple(reply.value)
            return tuple(only)
    return tuple(reply.value)


@pytest.mark.parametrize(
    ("command", "entry"),
    [
        (AgentCommand.INFO, {"name": "guest-%d", "enabled": True}),
        (AgentCommand.USERS, {"user": "user%d", "domain": "d", "login-time": 1700000000.5}),
        (
            AgentCommand.FILESYSTEMS,
            {"name": "sd%d", "mountpoint": "/%d", "type": "ext4", "disk": [{"bus-type": "scsi"}]},
        ),
        (AgentCommand.INTERFACES, {"name": "eth%d", "ip-addresses": [{"ip-address": "192.0.2.1", "prefix": 24}]}),
        (AgentCommand.DISKS, {"name": "/dev/sd%d", "partition": False, "dependencies": []}),
        (AgentCommand.CPUSTATS, {"cpu": 0, "user": 1, "nice": 2, "system": 3, "idle": 4}),
        (AgentCommand.DISKSTATS, {"name": "sd%d", "major": 8, "minor": 0, "stats": {"read-sectors": 1}}),
        (AgentCommand.VCPUS, {"logical-id": 0, "online": True}),
    ],
)
def test_a_hundred_thousand(command: AgentCommand, entry: dict[str, Any]) -> None:
    """Of 100,000 honest-looking entries the first thousand are taken, and the rest is counted."""
    text = json.dumps(entry)
    listed = ",".join(text.replace("%d", str(number)) for number in range(100_000))
    returned = f'{{"supported_commands":[{listed}]}}' if command is AgentCommand.INFO else f"[{listed}]"
    reply = agent_commands.parse(command, f'{{"return":{returned}}}')

    assert (MOST_ENTRIES, 100_000 - MOST_ENTRIES) == (len(entries(reply)), reply.truncated)


WIDE = json.dumps("\x01" * 500)


@pytest.mark.parametrize("command", LISTS)
@pytest.mark.parametrize(
    "entry",
    [
        '{"name":"%d"}',
        '{"name":"n","user":"%d","type":"%d"}',
        '{"name":"%d","ip-addresses":[{"ip-address":"%d","prefix":24}],"disk":[{"serial":"%d","bus-type":"virtio"}]}',
        f'{{"name":{WIDE},"user":{WIDE},"mountpoint":{WIDE},"enabled":true}}',
        f'{{"name":"%d","x":{"[" * 500}{"]" * 500}}}',
        (
            '{"name":"%d","partition":true,"dependencies":["%d","%d"],"major":%d,"minor":%d,'
            '"stats":{"read-sectors":%d},"cpu":%d,"user":%d,"nice":%d,"system":%d,"idle":%d,"logical-id":%d,'
            '"online":false}'
        ),
    ],
    ids=["short", "middling", "nested", "wide", "deep", "complete"],
)
def test_ten_mebibytes(command: AgentCommand, entry: str) -> None:
    """The largest reply libvirt lets through costs two seconds of a processor and a hundred mebibytes at most."""
    reply = flood(command, entry)
    began = time.thread_time()
    holds(Guest(DOMAIN, "host", NOW), command, reply)
    seconds = time.thread_time() - began
    tracemalloc.start()
    try:
        holds(Guest(DOMAIN, "host", NOW), command, reply)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(reply) > 0.99 * MOST_BYTES
    assert seconds < 2
    assert peak < 100 * 2**20


@pytest.mark.parametrize("command", [c for c in AgentCommand if c not in WITHOUT_TEXTS])
def test_one_long_text(command: AgentCommand) -> None:
    """A text of ten mebibytes is cut as any other, whatever command it answers."""
    text = '"' + "x" * (MOST_BYTES - 1000) + '"'
    returned = {
        AgentCommand.INFO: f'{{"version":{text}}}',
        AgentCommand.FREEZE_STATUS: text,
        AgentCommand.OSINFO: f'{{"pretty-name":{text}}}',
        AgentCommand.HOSTNAME: f'{{"host-name":{text}}}',
        AgentCommand.TIMEZONE: f'{{"zone":{text},"offset":0}}',
        AgentCommand.INTERFACES: f'[{{"name":{text}}}]',
        AgentCommand.USERS: f'[{{"user":{text}}}]',
        AgentCommand.FILESYSTEMS: f'[{{"mountpoint":{text}}}]',
        AgentCommand.DISKS: f'[{{"name":{text},"partition":true}}]',
        AgentCommand.DISKSTATS: f'[{{"name":{text},"major":1,"minor":1,"stats":{{}}}}]',
    }[command]
    reply = agent_commands.parse(command, f'{{"return":{returned}}}')

    assert 1 == reply.truncated
    assert ["x" * MOST_TEXT] == re.findall("x+", msgspec.json.encode(reply.value).decode())


def test_inner_lists_are_cut() -> None:
    """Many addresses of an interface, also by its aliases, and many disks of a filesystem are cut and counted."""
    address, disk = {"ip-address": "192.0.2.1"}, {"bus-type": "scsi"}
    interfaces = [{"name": "eth0", "ip-addresses": [address] * 3000}] + [
        {"name": f"eth0:{number}", "ip-addresses": [address]} for number in range(2000)
    ]
    one, two = parse(AgentCommand.INTERFACES, interfaces), parse(AgentCommand.FILESYSTEMS, [{"disk": [disk] * 5000}])

    assert (1, MOST_INNER, 5000 - MOST_INNER) == (len(one.value), len(one.value[0].addresses), one.truncated)
    assert (MOST_INNER, 5000 - MOST_INNER) == (len(two.value[0].disk), two.truncated)


def test_too_large() -> None:
    """A reply over libvirt's own limit is not even parsed."""
    with pytest.raises(ContractError, match="too large"):
        agent_commands.parse(AgentCommand.USERS, '{"return": []}' + " " * MOST_BYTES)


def test_too_many_objects() -> None:
    """A reply of empty objects would cost hundreds of mebibytes once decoded, so it is not."""
    with pytest.raises(ContractError, match="objects"):
        agent_commands.parse(AgentCommand.USERS, '{"return":[' + "{}," * MOST_OBJECTS + "{}]}")


@pytest.mark.parametrize("command", list(AgentCommand))
def test_fullest(command: AgentCommand) -> None:
    """The fullest reply to each command is cut, also where it is no list, and fills what a list may hold."""
    value = fullest()[command]
    size = len(msgspec.json.encode(entries(value))) if command in LISTS else 0

    assert (value.truncated > 0) == (command not in WITHOUT_BOUNDS)
    assert size <= MOST_LIST
    assert size > 0.9 * MOST_LIST or len(entries(value)) == MOST_ENTRIES if command in LISTS else True


def test_everything_at_its_fullest() -> None:
    """A guest that floods every reply at once still fits into messages, guestosinfo too."""
    sizes = {part.kind: len(part.body) for part in full_guest().snapshot("t").parts}

    assert set(BODIES) == set(sizes)
    assert max(sizes.values()) <= MOST_BODY
    for command, returned in FULLEST.items():
        assert holds(full_guest(), command, json.dumps({"return": returned}))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a" * 1025, "a" * 1024),
        ("é" * 513, "é" * 512),
        ("\U0001f600" * 300, "\U0001f600" * 256),
        ("\x00" * 171, "\x00" * 170),
        ("\n" * 513, "\n" * 512),
        ('"' * 2000, '"' * 512),
        ("a" * 1020 + "\x01" * 9, "a" * 1020),
        ("a" * 1018 + "\x01" * 9, "a" * 1018 + "\x01"),
        ("a" * 1024, "a" * 1024),
    ],
)
def test_texts_are_cut_by_bytes(text: str, kept: str) -> None:
    """A text ends where its encoded form reaches the limit, never inside a character; a cut one is counted."""
    assert Reply(kept, int(kept != text)) == parse(AgentCommand.HOSTNAME, {"host-name": text})


def test_characters() -> None:
    """Every character but lone surrogates passes as it is; NUL and its kind travel escaped."""
    text = "".join(map(chr, [*range(0x180), 0x2028, 0xFFFD, 0xFFFF, 0x1F600, 0x10FFFF]))
    guest = Guest(DOMAIN, "host", NOW)

    assert Reply(text) == parse(AgentCommand.HOSTNAME, {"host-name": text})
    assert holds(guest, AgentCommand.HOSTNAME, json.dumps({"return": {"host-name": text}}))
    [body] = [part.body for part in guest.snapshot("t").parts if part.kind == "guestosinfo"]
    assert text == json.loads(body)["hostname"]
    assert not set(range(0x20)) & set(body)


@pytest.mark.parametrize("text", [r"\ud800", r"\udc00\ud800", "\ud800", r"\ud800A"])
@pytest.mark.parametrize(
    ("command", "shape"),
    [(AgentCommand.HOSTNAME, '{"host-name":"%s"}'), (AgentCommand.USERS, '[{"user":"ann"},{"user":"%s"}]')],
)
def test_lone_surrogates(command: AgentCommand, shape: str, text: str) -> None:
    """Text that is none in UTF-8 spoils that reply, and nothing else of the guest."""
    guest = full_guest()

    assert not holds(guest, command, '{"return":' + shape.replace("%s", text) + "}")
    assert holds(guest, AgentCommand.FREEZE_STATUS, '{"return":"thawed"}')


@pytest.mark.parametrize(
    ("command", "returned"),
    [
        (AgentCommand.TIMEZONE, '{"offset":1e400}'),
        (AgentCommand.TIMEZONE, '{"offset":9223372036854775808}'),
        (AgentCommand.TIMEZONE, '{"offset":' + "9" * 5000 + "}"),
        (AgentCommand.TIMEZONE, '{"offset":1.5}'),
        (AgentCommand.TIMEZONE, '{"offset":true}'),
        (AgentCommand.FILESYSTEMS, '[{"used-bytes":-1}]'),
        (AgentCommand.FILESYSTEMS, '[{"used-bytes":9223372036854775808}]'),
        (AgentCommand.FILESYSTEMS, '[{"total-bytes":' + "9" * 5000 + "}]"),
        (AgentCommand.FILESYSTEMS, '[{"total-bytes":NaN}]'),
        (AgentCommand.FILESYSTEMS, '[{"disk":{}}]'),
        (AgentCommand.INTERFACES, '[{"name":"e","ip-addresses":[{"prefix":129}]}]'),
        (AgentCommand.INTERFACES, '[{"hardware-address":"m"}]'),
        (AgentCommand.INTERFACES, '[{"name":null}]'),
        (AgentCommand.USERS, '[{"login-time":1e400}]'),
        (AgentCommand.USERS, '[{"login-time":Infinity}]'),
        (AgentCommand.USERS, '[{"login-time":"1"}]'),
        (AgentCommand.USERS, '[{"user":"ann"},{"user":["bob"]}]'),
        (AgentCommand.INFO, '{"version":1}'),
        (AgentCommand.INFO, '{"supported_commands":[{"name":"x","enabled":1}]}'),
        (AgentCommand.HOSTNAME, '{"x":' + "[" * 100_000 + "]" * 100_000 + "}"),
        (AgentCommand.LOAD, '{"load1m":-0.5,"load5m":0,"load15m":0}'),
        (AgentCommand.LOAD, '{"load1m":1e400,"load5m":0,"load15m":0}'),
        (AgentCommand.LOAD, '{"load1m":NaN,"load5m":0,"load15m":0}'),
        (AgentCommand.LOAD, '{"load1m":null,"load5m":0,"load15m":0}'),
        (AgentCommand.DISKS, '[{"name":"a"}]'),
        (AgentCommand.DISKS, '[{"name":"a","partition":true,"dependencies":[null]}]'),
        (AgentCommand.DISKS, '[{"name":"a","partition":true,"address":{"bus-type":"virtio"}}]'),
        (AgentCommand.CPUSTATS, '[{"type":"windows","cpu":0}]'),
        (AgentCommand.CPUSTATS, '[{"cpu":0,"user":-1,"nice":0,"system":0,"idle":0}]'),
        (AgentCommand.CPUSTATS, '[{"cpu":0,"user":9223372036854775808,"nice":0,"system":0,"idle":0}]'),
        (AgentCommand.DISKSTATS, '[{"name":"a","major":1,"minor":1}]'),
        (AgentCommand.DISKSTATS, '[{"name":"a","major":1,"minor":1,"stats":{"read-sectors":18014398509481984}}]'),
        (AgentCommand.DISKSTATS, '[{"name":"a","major":1,"minor":1,"stats":{"read-ios":-1}}]'),
        (AgentCommand.TIME, "9223372036854775808"),
        (AgentCommand.TIME, "1.5"),
        (AgentCommand.TIME, '"1795454509265990000"'),
        (AgentCommand.VCPUS, '[{"logical-id":0}]'),
        (AgentCommand.VCPUS, '[{"logical-id":0,"online":1}]'),
    ],
)
def test_wrong(command: AgentCommand, returned: str) -> None:
    """A number out of range, a wrong type, one bad entry among good ones: the whole reply is refused in a line."""
    guest = full_guest()
    before = guest.snapshot("t").parts

    assert not holds(guest, command, f'{{"return":{returned}}}')
    assert [part.digest for part in before if part.kind != "agent"] == [
        part.digest for part in guest.snapshot("t").parts if part.kind != "agent"
    ]


@pytest.mark.parametrize(
    "seconds", ["-0.0", "1e308", "-1e308", "9223372036854775.807", "18446744073709551616", "1e-300"]
)
def test_login_times(seconds: str) -> None:
    """Any number is a login time that can be sent."""
    assert holds(
        Guest(DOMAIN, "host", NOW), AgentCommand.USERS, f'{{"return":[{{"user":"u","login-time":{seconds}}}]}}'
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBER = st.integers(0, 2**63 - 1)
DISK = st.fixed_dictionaries({"serial": TEXT, "bus-type": TEXT})
ENTRY = st.fixed_dictionaries(
    {"name": TEXT, "disk": st.lists(DISK, max_size=3)},
    optional={"mountpoint": TEXT, "type": TEXT, "used-bytes": NUMBER, "total-bytes": NUMBER},
)


@given(
    st.lists(ENTRY, max_size=4),
    st.sampled_from([(1, 1, 1), (1, 1, 300), (1, 50, 1), (1, 50, 30), (400, 1, 1), (100, 1, 30)]),
)
def test_bounds(said: list[dict[str, Any]], times: tuple[int, int, int]) -> None:
    """Within every bound nothing is lost; beyond one something is, from the end, and it is counted."""
    copies, disks, texts = times
    said = [{**entry, "name": entry["name"] * texts, "disk": entry["disk"] * disks} for entry in said] * copies
    reply = parse(AgentCommand.FILESYSTEMS, said)
    kept: tuple[Filesystem, ...] = reply.value

    assert len(msgspec.json.encode(kept)) <= MOST_LIST + len("[]")
    assert len(kept) <= MOST_ENTRIES
    assert len(said) - len(kept) <= reply.truncated
    for entry, filesystem in zip(said, kept, strict=False):
        assert entry["name"].startswith(filesystem.disk_name)
        assert len(filesystem.disk) <= MOST_INNER
        assert [disk["serial"] for disk in entry["disk"][:MOST_INNER]] == [disk.serial for disk in filesystem.disk]
    whole = [(entry["name"], len(entry["disk"])) for entry in said]
    assert (reply.truncated == 0) == (whole == [(filesystem.disk_name, len(filesystem.disk)) for filesystem in kept])


@given(st.sampled_from(AgentCommand), st.binary(max_size=200))
def test_any_bytes(command: AgentCommand, data: bytes) -> None:
    """Whatever comes over the channel, all that is said about the guest stays readable."""
    holds(Guest(DOMAIN, "host", NOW), command, data.decode("utf-8", "surrogateescape"))


@pytest.mark.skipif(find_spec("atheris") is None and not REQUIRED, reason="no atheris here: Linux on x86-64 only")
def test_fuzzing() -> None:
    """Coverage-guided fuzzing of 20,000 replies finds nothing, and does read a good part of them."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.fuzz_agent_replies", "--runs", "20000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = re.search(r"20000 inputs in .*'readable': (\d+)", done.stdout)

    assert 0 == done.returncode, done.stderr[-2000:]
    assert said, done.stdout[-2000:] + done.stderr[-2000:]
    assert int(said[1]) > 2000
