"""
Coverage-guided fuzzing of agent replies: `python -m tests.fuzz.fuzz_agent_replies --runs 1000000`.

An input is a byte for the command, a byte for a flood, and the reply. It starts from the recorded replies. A JSON
reply is changed as a tree, since most changes of its bytes only break it. In a flood, lists or texts are multiplied
and the guest has said as much as it may before, so that inputs stay short and the bounds are reached all the same.
A finding stays in the folder that libFuzzer names.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import atheris  # type: ignore[import-untyped]
from atheris.import_hook import instrument_imports  # type: ignore[import-untyped]

with instrument_imports(include=["collectors", "guestwire"]):
    from collectors.agent_commands import AgentCommand
    from collectors.guest import Guest
    from tests.fuzz.agent_replies import DOMAIN, NOW, full_guest, holds

COMMANDS = list(AgentCommand)
RECORDED = Path(__file__).parents[1] / "unit" / "collectors" / "recorded"
LONG_LISTS, LONG_TEXTS = 1, 2
"""Floods, as the second byte."""
ONE_FLOOD_IN = 200
LONGEST = 16 * 1024
"""Bytes of an input; floods make megabytes of them."""
TEXTS = ["", "\x00", "\x01\x1f\x7f", '"\\', "\ud800", "\uffff\u2028", "\U0001f600", "a:b", "frozen"]
NUMBERS = [0, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")]
ODD: list[Any] = [*TEXTS, *NUMBERS, None, True, [], [[]], {}, {"name": {}}]
SEEDS = [
    bytes([COMMANDS.index(AgentCommand(command)), 0]) + json.dumps(reply).encode()
    for path in sorted(RECORDED.glob("*.json"))
    for command, reply in json.loads(path.read_text())["replies"].items()
    if "return" in reply
]
counts: Counter[str] = Counter()


def as_json(text: str | bytes) -> Any:
    """None where there is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def flooded(value: Any, flood: int, most: int = 1100) -> Any:
    """The same with more entries, or longer texts, than are taken."""
    match value:
        case dict():
            return {name: flooded(inner, flood, most) for name, inner in value.items()}
        case list() if value:
            entries = [flooded(inner, flood, min(most // 10, 110)) for inner in value[:4]]
            return (entries * most)[: max(most, 1)] if flood == LONG_LISTS else entries
        case str() if flood == LONG_TEXTS:
            return value * (2000 // max(1, len(value)))
    return value


def play(data: bytes) -> None:
    """One input: raises what must not happen."""
    command, flood = (COMMANDS[data[0] % len(COMMANDS)], data[1]) if len(data) > 1 else (COMMANDS[0], 0)
    text = data[2:].decode("utf-8", "surrogateescape")
    guest = Guest(DOMAIN, "host", NOW)
    if flood in {LONG_LISTS, LONG_TEXTS}:
        counts["floods"] += 1
        guest = full_guest()
        text = json.dumps(flooded(as_json(text), flood))
    counts["readable" if holds(guest, command, text) else "refused"] += 1


def change(value: Any, dice: random.Random) -> Any:
    """The same tree with something odd in one place."""
    if isinstance(value, dict | list) and value and dice.random() < 0.85:
        place: Any = dice.choice(list(value)) if isinstance(value, dict) else dice.randrange(len(value))
        changed: Any = value.copy()
        match dice.randrange(8):
            case 0:
                del changed[place]
            case 1 if isinstance(value, list):
                changed.insert(place, value[dice.randrange(len(value))])
            case 2 if isinstance(value, dict):
                changed[dice.choice(list(value))] = value[place]
            case _:
                changed[place] = change(value[place], dice)
        return changed
    if isinstance(value, str) and dice.random() < 0.9:
        cut = dice.randrange(len(value) + 1)
        return value[:cut] + dice.choice(TEXTS) * dice.choice([1, 2, 200]) + value[cut:]
    if isinstance(value, int | float) and not isinstance(value, bool) and dice.random() < 0.9:
        return dice.choice([value + 1, -value, dice.getrandbits(70), dice.choice(NUMBERS)])
    return dice.choice(ODD)


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Mostly a change of the tree; else, or where there is none, one that libFuzzer makes of the bytes."""
    dice = random.Random(seed)
    tree = as_json(data[2:])
    if tree is None and dice.random() < 0.8:
        data = dice.choice(SEEDS)
        tree = as_json(data[2:])
    command = data[0] if data and dice.random() < 0.99 else dice.randrange(len(COMMANDS))
    flood = dice.choice([LONG_LISTS, LONG_TEXTS]) if dice.randrange(ONE_FLOOD_IN) == 0 else 0
    if tree is not None and dice.random() < 0.9:
        changed = json.dumps(change(tree, dice), ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    else:
        changed = bytes(atheris.Mutate(data[2:] or b"{", most - 2))
    return (bytes([command, flood]) + changed)[:most]


def main() -> None:
    """Run so many inputs; libFuzzer ends the process, with an error at the first finding."""
    arguments = argparse.ArgumentParser(description="Fuzz the parser of agent replies.")
    arguments.add_argument("--runs", type=int, default=1_000_000, help="inputs to try")
    arguments.add_argument("--seed", type=int, default=1, help="of the random changes")
    given = arguments.parse_args()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-agent-replies-"))
    for number, seed in enumerate(SEEDS):
        (folder / f"recorded-{number}").write_bytes(seed)

    def one(data: bytes) -> None:
        play(data)
        if counts["readable"] + counts["refused"] == given.runs:
            print(f"{given.runs} inputs in {time.monotonic() - began:.0f} s: {dict(counts)}", flush=True)
            shutil.rmtree(folder)

    options = {
        "runs": given.runs,
        "seed": given.seed,
        "max_len": LONGEST,
        "mutate_depth": 2,  # more odd places at once mostly make a reply that is refused for the first
        "timeout": 20,
        # A child begins with its parent's peak for its own.
        "rss_limit_mb": 1024 + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "artifact_prefix": f"{folder}/",
    }
    flags = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *flags, str(folder)], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
