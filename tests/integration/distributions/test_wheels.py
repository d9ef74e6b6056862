"""The two distributions, as their users install them: into empty environments, from wheels."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from guestwire import codec, subjects
from guestwire.jetstream import Bus
from guestwire.snapshot import GuestRef, ListMeta, User, UserList
from lab.process import free_port

ROOT = Path(__file__).parents[3]
STAGES = ("api", "collectors", "publishers", "status_writer")

SUBSCRIBER = """
import sys, guestwire
with guestwire.iter_changes(sys.argv[1], kinds=["userlist"]) as changes:
    for change in changes:
        print(change.ref, [user.user_name for user in change.new.items], flush=True)
        break
"""


def files(*paths: str) -> list[str]:
    """This tree's own, without what was built in it."""
    command = ("git", "ls-files", "--cached", "--others", "--exclude-standard", *paths)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, built from a copy of this tree."""
    tree, directory = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheels")
    for name in files("pyproject.toml", "README.md", "LICENSE", "stages", "guestwire", *STAGES):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    command = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps")
    subprocess.run((*command, "--no-build-isolation", "--wheel-dir", directory, tree, tree / "stages"), check=True)
    return directory


class Environment:
    """An environment of its own, with what a requirement brings in the versions this project is tested with."""

    def __init__(self, directory: Path, wheels: Path, requirement: str) -> None:
        venv.create(directory, with_pip=False)
        self.directory = directory
        versions = directory / "versions.txt"
        pinned = re.findall(r"^([\w.-]+==[^\s;\\]+)", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE)
        versions.write_text("\n".join(pinned))
        command = ("uv", "pip", "install", "--quiet", "--python", directory / "bin" / "python", "--find-links", wheels)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        subprocess.run((*command, "--constraint", versions, requirement), check=True, env={**os.environ, "PATH": path})

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, far from this tree."""
        program, *arguments = command
        return subprocess.run(
            (self.directory / "bin" / program, *arguments),
            capture_output=True,
            text=True,
            cwd=self.directory,
            check=False,
            timeout=60,
        )

    @property
    def names(self) -> set[str]:
        """What can be imported, and no metadata."""
        [packages] = self.directory.glob("lib/python*/site-packages")
        return {
            entry.name
            for entry in packages.iterdir()
            if not re.search(r"\.(dist-info|pth)$|^__|^_virtualenv", entry.name)
        }


@pytest.fixture(scope="module")
def subscriber(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Environment:
    """For who only listens."""
    return Environment(tmp_path_factory.mktemp("subscriber"), wheels, "guestwire")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Environment:
    """For a host that runs everything."""
    return Environment(tmp_path_factory.mktemp("pipeline"), wheels, "guestwire[all]")


def test_wheels_hold_what_is_theirs(wheels: Path) -> None:
    """Each file of a package is in its wheel, and nothing else is."""
    held = {
        name
        for wheel in wheels.glob("guestwire*.whl")
        for name in zipfile.ZipFile(wheel).namelist()
        if ".dist-info/" not in name
    }

    assert set(files("guestwire", *STAGES)) == held


def test_subscribers_get_what_they_need(subscriber: Environment) -> None:
    """nats-py, msgspec, and one package of ours."""
    assert {"guestwire", "nats", "msgspec"} == subscriber.names


def test_subscribers_have_no_command_line(subscriber: Environment) -> None:
    """Which is said in one line, with what to do."""
    done = subscriber.run("guestwire", "--help")

    assert (1, "guestwire: the command line needs click: pip install 'guestwire[process]'\n") == (
        done.returncode,
        done.stderr,
    )


async def test_subscribers_listen(subscriber: Environment, nats_server: Any, bus: Bus) -> None:
    """A script of a few lines hears what is published."""
    ref, part = GuestRef("default", "vm1"), codec.part("userlist", UserList((User("alice"),), ListMeta()), codec.now())
    headers = codec.event_headers(
        ref=ref, uid="1", cluster="local", host="h", part=part, message_id="1", trace_id=codec.new_trace_id()
    )
    await bus.js.publish(subjects.subject("local", ref, part.kind), part.body, headers=headers)
    done = await asyncio.to_thread(subscriber.run, "python", "-c", SUBSCRIBER, nats_server.url)

    assert (0, "default/vm1 ['alice']\n") == (done.returncode, done.stdout), done.stderr


def test_pipeline_knows_every_stage(pipeline: Environment) -> None:
    """All names are there, and each command can say what it does."""
    assert {"guestwire", *STAGES} <= pipeline.names
    commands = re.findall(
        r"^  ([a-z-]+) ", pipeline.run("guestwire", "--help").stdout.partition("Commands:")[2], re.MULTILINE
    )
    assert len(commands) > 10
    assert [0] * len(commands) == [pipeline.run("guestwire", command, "--help").returncode for command in commands]


@pytest.fixture
def served(pipeline: Environment, nats_server: Any) -> Iterator[str]:
    """The API from its wheel."""
    port = free_port()
    environ = {"GUESTWIRE_NATS__SERVERS": nats_server.url, "GUESTWIRE_API__LISTEN": f"127.0.0.1:{port}"}
    with subprocess.Popen(
        (pipeline.directory / "bin" / "guestwire", "serve"),
        env={**os.environ, **environ},
        cwd=pipeline.directory,
        stderr=subprocess.DEVNULL,
    ) as process:
        yield f"http://127.0.0.1:{port}"
        process.terminate()


async def test_api_serves(served: str, eventually: Any) -> None:
    """Documents, and the page with its files, which are data of the package."""

    def there() -> bool:
        try:
            return bool(read(f"{served}/livez"))
        except OSError:
            return False

    await eventually(there, 60, "the API serves")
    groups = json.loads(read(f"{served}/apis"))["groups"]
    assert ["guestwire.io", "subresources.kubevirt.io"] == [group["name"] for group in groups]
    assert (ROOT / "api" / "page" / "main.js").read_bytes() == read(f"{served}/page/main.js")


def read(url: str) -> bytes:
    """What is served there."""
    with urlopen(url, timeout=5) as answer:  # noqa: S310 - the API's own
        return bytes(answer.read())
