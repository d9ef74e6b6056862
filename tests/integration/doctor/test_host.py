"""Connections that cannot be had, or are good for little: each made for real, and told with the way out of it."""

from __future__ import annotations

import getpass
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt
import pytest

from collectors import event_pump
from collectors.checks import CONNECT_SECONDS, check_connection
from guestwire.checks import Outcome
from lab.libvirtd import Libvirtd

from .conftest import examine, run

pytestmark = pytest.mark.lab

DAC = "-dac_override,-dac_read_search"
HELD_TO_MODES = ("setpriv", "--inh-caps", DAC, "--bounding-set", DAC, "--") if os.geteuid() == 0 else ()
"""Before a command: so that also root cannot open what its mode forbids."""


@pytest.fixture
def daemon(directory: Path, request: pytest.FixtureRequest) -> Iterator[Libvirtd]:
    """A daemon of the test's own, not started."""
    daemon = Libvirtd(directory / str(abs(hash(request.node.name)) % 1000))
    yield daemon
    daemon.stop()


def configure(daemon: Libvirtd, line: str) -> None:
    """Add a line to the daemon's configuration."""
    file = daemon.directory / "libvirt" / "daemon.conf"
    file.write_text(f"{file.read_text()}{line}\n")


@contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    """A file with another mode for a while."""
    before = path.stat().st_mode
    path.chmod(bits)
    yield
    path.chmod(before)


def test_good_host(host: Libvirtd) -> None:
    """A host that works is said to, with its versions and its events; that it has no domain is no problem."""
    found = examine(LIBVIRT__URIS=host.uri)

    assert ["ok", "ok"] == found.outcomes("libvirt", host.uri)
    assert "connected, libvirt " in found.of("libvirt")[0]["text"]
    assert ["note"] == found.outcomes("guests")


def test_no_socket() -> None:
    """A socket that the URI names and nobody made: the URI is to be corrected."""
    found = examine(LIBVIRT__URIS="qemu+unix:///session?socket=/nowhere/libvirt-sock")
    text, advice = found.problem("libvirt")

    assert 1 == found.status
    assert "No such file" in text
    assert "correct the path in libvirt.uris" in advice


def test_dead_daemon(daemon: Libvirtd) -> None:
    """A socket whose daemon was killed: it is to be restarted, by name."""
    daemon.start()
    daemon.kill()
    text, advice = examine(LIBVIRT__URIS=daemon.uri).problem("libvirt")

    assert "refused" in text
    assert "systemctl restart " in advice


def test_hung_daemon(host: Libvirtd) -> None:
    """A daemon that accepts connections and says nothing costs a bounded time."""
    daemon = host._daemon.pid
    assert daemon is not None
    os.kill(daemon, signal.SIGSTOP)
    began = time.monotonic()
    found = examine(LIBVIRT__URIS=host.uri)
    took = time.monotonic() - began
    os.kill(daemon, signal.SIGCONT)
    text, advice = found.problem("libvirt")

    assert CONNECT_SECONDS < took < 2 * CONNECT_SECONDS
    assert "no answer within" in text
    assert "systemctl restart" in advice


def test_socket_of_a_group(host: Libvirtd) -> None:
    """A socket that one may not open: the group that may, and how to become a member."""
    with mode(host.socket, 0o060):
        found = examine(LIBVIRT__URIS=host.uri, prefix=HELD_TO_MODES)
    text, advice = found.problem("libvirt")

    assert "Permission denied" in text
    assert f"usermod -aG {host.socket.group()} {getpass.getuser()}, then log in again" in advice


def test_socket_of_one_account(host: Libvirtd) -> None:
    """A socket without rights for its group: who it belongs to."""
    with mode(host.socket, 0):
        found = examine(LIBVIRT__URIS=host.uri, prefix=HELD_TO_MODES)

    assert f"run as {host.socket.owner()}" in found.problem("libvirt")[1]


def test_folder_in_the_way(host: Libvirtd) -> None:
    """It may be a folder above the socket that keeps people out; then that one is named."""
    with mode(host.socket.parent, 0):
        found = examine(LIBVIRT__URIS=host.uri, prefix=HELD_TO_MODES)

    assert found.problem("libvirt")[1].startswith(f"{host.socket.parent} is {host.directory.owner()}'s")


def test_access_control(daemon: Libvirtd) -> None:
    """A daemon with access control that does not know this user: the rights to grant."""
    configure(daemon, 'access_drivers = ["polkit"]')
    daemon.start()
    text, advice = examine(LIBVIRT__URIS=daemon.uri).problem("libvirt")

    assert "access denied" in text
    assert "domain:write" in advice


def test_read_only_connection(host: Libvirtd) -> None:
    """A connection for reading is told from one for writing, without a domain to try it on."""
    event_pump.ensure_running()
    outcomes = []
    for connect in (libvirt.open, libvirt.openReadOnly):
        connection = connect(host.uri)
        outcomes.append([finding.outcome for finding in check_connection(connection, host.uri)])
        connection.close()

    assert [[Outcome.OK, Outcome.OK], [Outcome.PROBLEM]] == outcomes


def test_other_driver() -> None:
    """A driver other than QEMU's has no guest agents."""
    text, advice = examine(LIBVIRT__URIS="test:///default").problem("libvirt")

    assert "TEST" in text
    assert "qemu: URI" in advice


def test_unknown_domain(host: Libvirtd) -> None:
    """A domain that was asked for and is nowhere is a problem, under the name that was given."""
    found = examine("prod/nobody", LIBVIRT__URIS=host.uri)

    assert ["problem"] == found.outcomes("guests", "prod/nobody")


def test_wrong_setting() -> None:
    """A wrong setting is told as everywhere: one line, status 2."""
    done = run(NATS__SERVRES="nats://127.0.0.1:1")

    assert 2 == done.returncode
    assert [
        "guestwire: environment GUESTWIRE_NATS__SERVRES: no such setting; did you mean GUESTWIRE_NATS__SERVERS?"
    ] == (done.stderr.splitlines())


def test_for_people(host: Libvirtd) -> None:
    """What people read: a heading per area, what to do below each problem, a verdict, and no colors in a pipe."""
    done = run(LIBVIRT__URIS=host.uri)
    lines = done.stdout.splitlines()

    assert 1 == done.returncode
    assert ["settings", "libvirt", "guests", "NATS", "cluster"] == [line for line in lines if line[:1].isalpha()]
    assert "\x1b" not in done.stdout
    assert "1 problem" == lines[-1]
    assert any(line.startswith("  ok       ") for line in lines)
    assert any(line.startswith("             start nats-server there") for line in lines)
