"""systemd units for plain hosts: valid, hardened, with settings that exist; and each process works under its rules."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from guestwire import codec, settings
from guestwire.jetstream import Bus
from guestwire.settings import Nats
from guestwire.snapshot import GuestRef, Kind, ListMeta, UserList
from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries
from lab.libvirtd import Libvirtd
from lab.nats_server import NatsServer
from lab.process import Daemon, free_port, program
from tests.conftest import part

from .conftest import ROOT
from .test_pods import answers

pytestmark = pytest.mark.lab

SYSTEMD = ROOT / "deploy" / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.glob("*.service"))
BOUND = 1.5
"""Highest exposure that systemd may find; docs/deployment.md tells the figures."""
DANGEROUS = ("ptrace", "mount", "bpf", "setuid", "init_module", "reboot", "keyctl")


@pytest.fixture(scope="module")
def analyze() -> Path:
    """Systemd's own checks, which need no systemd that runs."""
    with part("systemd-analyze"):
        return Path(program("systemd-analyze"))
    raise AssertionError


def said(*command: str | Path) -> str:
    """What a command prints on both outputs; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def values(unit: str, key: str) -> list[str]:
    """Every value of a key, in order."""
    return re.findall(rf"^{key}=(.*)$", (SYSTEMD / unit).read_text(), flags=re.MULTILINE)


def stage(unit: str) -> str:
    """The command that a unit runs."""
    return unit.removeprefix("guestwire-").removesuffix(".service")


def arguments(unit: str, state: Path) -> list[str]:
    """What its command is given, with another directory for /var/lib."""
    return [word.replace("/var/lib", str(state)) for word in values(unit, "ExecStart")[0].split()[2:]]


def environment(unit: str, credentials: Path) -> dict[str, str]:
    """What its lines Environment= set, with %d for the directory of its credentials."""
    pairs = (value.partition("=") for value in values(unit, "Environment"))
    return {name: value.replace("%d", str(credentials)) for name, _, value in pairs}


@pytest.fixture
def installed(analyze: Path, tmp_path: Path) -> Path:
    """The root of a machine with the units, systemd's own, and the command where the units look for it."""
    root = tmp_path / "root"
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    shutil.copytree(SYSTEMD, root / "etc/systemd/system")
    command = root / "opt/guestwire/bin/guestwire"
    command.parent.mkdir(parents=True)
    command.touch(mode=0o755)
    return root


def test_verified(analyze: Path, installed: Path) -> None:
    """Systemd finds nothing to say about the units."""
    assert "" == said(analyze, "verify", "--man=no", f"--root={installed}", "guestwire.target", *UNITS)


def test_verification_is_strict(analyze: Path, installed: Path) -> None:
    """A misspelt key is told, so the test above can fail."""
    with (installed / "etc/systemd/system" / UNITS[0]).open("a") as unit:
        unit.write("[Service]\nProtectSytem=strict\n")

    assert "ProtectSytem" in said(analyze, "verify", "--man=no", f"--root={installed}", UNITS[0])


@pytest.mark.parametrize("unit", UNITS)
def test_exposure(analyze: Path, unit: str) -> None:
    """Systemd rates the exposure of each unit no higher than the bound, and the documentation tells the figure."""
    text = said(analyze, "security", "--offline=true", "--no-pager", f"--threshold={BOUND * 10:.0f}", SYSTEMD / unit)
    (figure,) = re.findall(r"Overall exposure level for \S+: (\S+)", text)

    assert float(figure) <= BOUND
    assert f"| `{unit}` | {figure} |" in (ROOT / "docs/deployment.md").read_text()


@pytest.mark.parametrize("unit", UNITS)
def test_settings(unit: str) -> None:
    """The environment of each unit is made of settings that exist."""
    environ = environment(unit, Path("/run/credentials"))

    assert "json" == settings.load(environ=environ).settings.log.format


@pytest.mark.parametrize("unit", UNITS)
def test_life(unit: str) -> None:
    """Each unit runs the command of its name, belongs to the target, and may end in its own time."""
    stop = float(values(unit, "TimeoutStopSec")[0])

    assert ["/opt/guestwire/bin/guestwire", stage(unit)] == values(unit, "ExecStart")[0].split()[:2]
    assert (["guestwire.target"], ["guestwire.target"]) == (values(unit, "PartOf"), values(unit, "WantedBy"))
    assert 2 * settings.Settings().shutdown_grace < stop


def test_account(installed: Path) -> None:
    """systemd-sysusers makes the collector's account, a member of the group libvirt, and that of the export."""
    said(program("systemd-sysusers"), f"--root={installed}", SYSTEMD / "guestwire.sysusers")
    (groups,) = [line for line in (installed / "etc/group").read_text().splitlines() if line.startswith("libvirt:")]

    assert ["guestwire"] == values("guestwire-collect.service", "User")
    assert "guestwire" in groups.split(":")[-1].split(",")
    assert ["guestwire-export"] == values("guestwire-export.service", "User")
    assert "guestwire-export:" in (installed / "etc/group").read_text()


def system_calls(analyze: Path, unit: str) -> set[str]:
    """The system calls that a unit's filters leave: what the first ones name, without what those with ~ name."""
    left: set[str] = set()
    for value in values(unit, "SystemCallFilter"):
        names = set().union(*(expanded(analyze, each) for each in value.removeprefix("~").split()))
        left = left - names if value.startswith("~") else left | names
    return left


def expanded(analyze: Path, name: str) -> set[str]:
    """A system call, or all of a set."""
    if not name.startswith("@"):
        return {name}
    lines = said(analyze, "syscall-filter", "--no-pager", name).splitlines()[1:]
    words = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return set().union(*(expanded(analyze, word) for word in words))


async def make_stream(nats: NatsServer, *subjects: str) -> None:
    """What a collector does first; the others wait for it. With a message of each of these subjects."""
    async with Bus(Nats(servers=(nats.url,)), "test") as bus:
        await bus.ensure_stream()
        for subject in subjects:
            part = codec.part(Kind.USERLIST, UserList((), ListMeta()), codec.now())
            headers = codec.event_headers(
                ref=GuestRef("ns", "vm"), uid="u", cluster="c", host="h", part=part, message_id="1", trace_id="1" * 32
            )
            await bus.js.publish(subject, part.body, headers=headers)


@pytest.fixture(scope="module")
def kube(kube_binaries: KubeBinaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiserver]:
    """An API server with VMIs."""
    with KubeApiserver(kube_binaries, tmp_path_factory.mktemp("kube")) as server:
        server.install_crd()
        yield server


def confined(analyze: Path, unit: str, directory: Path, command: list[str], environ: dict[str, str]) -> Daemon:
    """A command under the rules of a unit, without any capability."""
    names = directory / "names"
    names.write_text("\n".join(sorted(system_calls(analyze, unit))))
    families = [getattr(socket, family) for family in values(unit, "RestrictAddressFamilies")[0].split()]
    rules = [str(names), ",".join(str(int(family)) for family in families)]
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"] if os.geteuid() == 0 else []
    return Daemon(
        [*powerless, sys.executable, Path(__file__).with_name("confined.py"), *rules, *command],
        log=directory / "log",
        env={"PATH": "/usr/bin:/bin", **environ},
        cwd=Path("/"),
    )


@pytest.mark.parametrize("unit", UNITS)
def test_works_under_its_rules(
    unit: str, analyze: Path, tmp_path: Path, host: Libvirtd, kube: KubeApiserver, nats_server: NatsServer
) -> None:
    """With the system calls, sockets and memory that its unit leaves it, each process becomes ready."""
    address = f"127.0.0.1:{free_port()}"
    host.socket.chmod(0o777)
    shutil.copy(kube.kubeconfig, tmp_path / "kubeconfig")
    here = {
        "GUESTWIRE_NATS__SERVERS": nats_server.url,
        "GUESTWIRE_LIBVIRT__URIS": host.uri,
        "GUESTWIRE_COLLECT__HEALTH": address,
        "GUESTWIRE_STATUS__HEALTH": address,
        "GUESTWIRE_API__LISTEN": address,
        "GUESTWIRE_EXPORT__HEALTH": address,
    }
    (tmp_path / "guestwire-export").mkdir()
    asyncio.run(make_stream(nats_server))
    command = [str(Path(sys.executable).with_name("guestwire")), stage(unit), *arguments(unit, tmp_path)]
    with confined(analyze, unit, tmp_path, command, {**environment(unit, tmp_path), **here}) as process:
        process.ready(lambda: answers(address, "/readyz"), 60)


def test_export_writes_under_its_rules(analyze: Path, tmp_path: Path, nats_server: NatsServer) -> None:
    """What it needs to write tables, and to make the present state of them, is left to it too."""
    unit, address = "guestwire-export.service", f"127.0.0.1:{free_port()}"
    (tmp_path / "guestwire-export").mkdir()
    here = {"GUESTWIRE_NATS__SERVERS": nats_server.url, "GUESTWIRE_EXPORT__HEALTH": address}
    asyncio.run(make_stream(nats_server, "guestwire.v1.c.ns.vm.userlist"))
    command = [str(Path(sys.executable).with_name("guestwire")), stage(unit), *arguments(unit, tmp_path)]
    present = tmp_path / "guestwire-export" / "guests" / "now" / "users.parquet"
    with confined(analyze, unit, tmp_path, command, {**environment(unit, tmp_path), **here}) as process:
        process.ready(lambda: answers(address, "/readyz") and present.exists(), 60)


@pytest.mark.parametrize("unit", UNITS)
def test_rules_are_at_work(unit: str, analyze: Path, tmp_path: Path) -> None:
    """Under those rules code cannot be made, other sockets cannot be had, and dangerous calls are none of them."""
    attempts = (
        "import mmap, socket\n"
        "for attempt in (lambda: mmap.mmap(-1, 4096, prot=7), lambda: socket.socket(socket.AF_NETLINK)):\n"
        "    try: attempt()\n"
        "    except PermissionError: print('refused')\n"
    )
    with confined(analyze, unit, tmp_path, [sys.executable, "-c", attempts], {}) as process:
        assert 0 == process.wait(60)

    assert ["refused"] * 2 == process.log.read_text().split()
    assert set() == system_calls(analyze, unit) & set(DANGEROUS)
