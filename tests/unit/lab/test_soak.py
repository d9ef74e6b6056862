"""What the soak decides without its world: which faults there are, what differs, and what has grown."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.soak import comparison
from lab.soak.expected import Expected, bodies
from lab.soak.faults import LAST_KILL, PIPELINE, REAL_GUESTS, SERVERS, Kind, plan
from lab.soak.growth import WARM, Lives
from lab.soak.pipeline import Process
from lab.soak.truth import COMMANDS, MOST_AWAY, Truth

Eventually = Callable[..., Awaitable[float]]

LEAKS = """
import sys, threading, time
kept = []
for line in sys.stdin:
    kept += [open("/dev/null") for _ in range(20)], b"x" * 40_000_000
    for _ in range(5):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    print(flush=True)
"""


def truth(steps: int, seed: str = "s") -> Truth:
    """Guests, changed so often."""
    one = Truth(30, seed)
    for _ in range(steps):
        one.step()
    return one


def state(one: Truth) -> list[object]:
    """All that is true."""
    return [(guest.xml(), guest.there, guest.phase, [guest.reply(name) for name in COMMANDS]) for guest in one.guests]


def test_changes_repeat() -> None:
    """The same seed makes the same changes; another one makes others."""
    assert state(truth(500)) == state(truth(500))
    assert state(truth(500)) != state(truth(500, "t"))


def test_not_all_are_away() -> None:
    """However long it goes on, so many guests at most are away, and some are."""
    away = sum(not guest.answers for guest in truth(20_000).guests)

    assert 0 < away <= MOST_AWAY


def test_faults_repeat() -> None:
    """The same seed plans the same faults; another one plans others."""
    assert list(plan("s", 60, 200)) == list(plan("s", 60, 200))
    assert list(plan("s", 60, 200)) != list(plan("t", 60, 200))


@pytest.mark.parametrize("seed", [str(number) for number in range(20)])
def test_every_kind_of_fault(seed: str) -> None:
    """Ten minutes hold every one; the last third of them kills nothing of the pipeline."""
    faults = list(plan(seed, 600, 200))
    killed = {fault.target for fault in faults if fault.kind is Kind.KILL}
    late = {fault.target for fault in faults if fault.kind is Kind.KILL and fault.at > 600 * LAST_KILL}

    assert {*PIPELINE, *SERVERS, *REAL_GUESTS} == killed
    assert not late & set(PIPELINE)
    assert set(Kind) == {fault.kind for fault in faults}


@pytest.fixture
def guest() -> Expected:
    """One that runs, as it should be said of."""
    one = Truth(1, "s").guests[0]
    one.users["alice"] = 1.7e9
    facts = bodies({name: one.reply(name) for name in COMMANDS}, one.mac)
    return Expected("soak", one.name, one.mac, there=True, connected=True, bodies=facts)


def said(guest: Expected) -> dict[str, object]:
    """What a consumer has that knows all about a guest."""
    return {"agent": {**guest.agent, "host": "h"}, **guest.bodies}


def status(guest: Expected) -> dict[str, object]:
    """A VMI's status that shows all about a guest."""
    addresses = [each["address"] for each in guest.bodies["interfaces"]["guest"][0]["addresses"]]
    return {
        "conditions": [{"type": "AgentConnected"}],
        "guestOSInfo": guest.bodies["guestosinfo"]["os"],
        "interfaces": [{"mac": guest.mac, "ipAddresses": addresses}],
    }


def test_agreement(guest: Expected) -> None:
    """Nothing differs where nothing does."""
    assert [] == list(comparison.bodies([guest], {guest.ref: said(guest)}))
    assert [] == list(comparison.statuses([guest], {guest.ref: status(guest)}))


def test_differences_of_bodies(guest: Expected) -> None:
    """A value, a kind that is missing, a state, and a guest too few or too many: each is a line."""
    stale = said(guest) | {"userlist": {"items": [], "metadata": {}}}
    poor = {kind: body for kind, body in said(guest).items() if kind != "interfaces"}
    dead = said(guest) | {"agent": {"phase": "Running", "connected": False}}
    gone = replace(guest, there=False, bodies={})

    assert 1 == len(list(comparison.bodies([guest], {guest.ref: stale})))
    assert 1 == len(list(comparison.bodies([guest], {guest.ref: poor})))
    assert 2 == len(list(comparison.bodies([guest], {guest.ref: dead})))
    assert 1 == len(list(comparison.bodies([guest], {})))
    assert 1 == len(list(comparison.bodies([gone], {guest.ref: said(guest)})))


def test_differences_of_statuses(guest: Expected) -> None:
    """A condition, the system, an address: each is a line, as is a VMI of a guest that is gone and still shown."""
    shown = status(guest)

    assert 1 == len(list(comparison.statuses([guest], {guest.ref: shown | {"conditions": []}})))
    assert 1 == len(list(comparison.statuses([guest], {guest.ref: shown | {"guestOSInfo": None}})))
    assert 1 == len(list(comparison.statuses([guest], {guest.ref: shown | {"interfaces": []}})))
    assert 3 == len(list(comparison.statuses([replace(guest, there=False, bodies={})], {guest.ref: shown})))
    assert 1 == len(list(comparison.statuses([guest], {})))


def test_differences_of_rows(guest: Expected) -> None:
    """Rows of an export that are too few or too many."""
    none = {kind: dict[tuple[str, str], set[tuple[object, ...]]]() for kind in (*guest.bodies, "agent")}
    lines = list(comparison.rows([guest], none))

    assert {"agent", "userlist", "filesystemlist", "interfaces"} == {line.split(":")[0].split()[-1] for line in lines}
    assert [] == list(comparison.rows([replace(guest, there=False, bodies={})], none))


async def test_troubles(tmp_path: Path, eventually: Eventually) -> None:
    """A process that ends by itself, and what it logs as an error, count; a kill and a warning do not."""
    said = ('{"level":"error","event":"lost"}', '{"level":"warning","event":"late"}', "Traceback", "done")
    runs = f"import sys, time; print(*{said}, sep=chr(10), flush=True); time.sleep(%s); sys.exit(3)"
    ends = Process("ends", [sys.executable, "-c", runs % 0.1], os.environ, tmp_path / "ends.log", print)
    killed = Process("killed", [sys.executable, "-c", runs % 60], os.environ, tmp_path / "killed.log", print)
    running = [asyncio.create_task(process.run()) for process in (ends, killed)]
    await eventually(lambda: ends.troubles and killed.pid)
    killed.kill()
    await eventually(lambda: killed.pid, what="it is started again")
    for process in (ends, killed):
        process.stop()
    await asyncio.gather(*running)

    assert {"ends ended by itself, with status 3", "ends logged lost: ", "ends logged Traceback: "} <= set(
        ends.troubles
    )
    assert not any(word in trouble for word in ("ended by itself", "late", "done") for trouble in killed.troubles)


@pytest.fixture
def leaking() -> Iterator[subprocess.Popen[str]]:
    """A process that grows for every line that it is told."""
    argv = [sys.executable, "-c", LEAKS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def grow(process: subprocess.Popen[str]) -> None:
    """Let it grow, once."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    process.stdout.readline()


def test_growth(leaking: subprocess.Popen[str]) -> None:
    """A real process that leaks memory, handles and threads is found out; what it had early on is allowed."""
    lives, began = Lives(), time.monotonic()
    lives.sample("leaking", leaking.pid, began)
    grow(leaking)
    for second in range(40):
        lives.sample("leaking", leaking.pid, began + WARM + second)
    [life] = lives.present
    assert [] == list(life.grown())
    grow(leaking)
    for second in range(5):
        lives.sample("leaking", leaking.pid, began + WARM + 40 + second)

    assert ["memory", "file handles", "threads"] == [line.split(": ")[1].split(" grew")[0] for line in life.grown()]
