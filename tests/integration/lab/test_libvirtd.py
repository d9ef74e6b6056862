"""Private libvirt daemons: side by side, killed, restarted, and with nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lab
from lab.errors import LabError
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import ACCOUNT, Libvirtd
from lab.process import OwnedDirectory, wait_until
from lab.reaper import processes_of

pytestmark = pytest.mark.lab

OWNER = """
import sys, time
from pathlib import Path
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd
from lab.process import OwnedDirectory

directory = OwnedDirectory()
host = Libvirtd(directory.path / "h1")
host.start()
Guest(host, GuestImage(*map(Path, sys.argv[1:])), disk=False).start()
host.kill()
host.start()
print(directory.path, flush=True)
time.sleep(600)
"""
"""Owns a daemon, killed and started once, and a guest that the first daemon started."""


@pytest.fixture(scope="module")
def other_host(directory: Path) -> Iterator[Libvirtd]:
    """A second host; its identity differs, as that of two machines would."""
    with Libvirtd(directory / "h2", host_uuid="5f3c2a10-9a0e-4c38-8f7a-2f7f4f3f9a02") as daemon:
        yield daemon


def domain_names(host: Libvirtd) -> list[str]:
    with host.connection() as connection:
        return sorted(domain.name() for domain in connection.listAllDomains())


def test_restart_keeps_guests(host: Libvirtd, guest: Guest) -> None:
    """A killed daemon leaves its guests running; started again it finds them as they are."""
    guest.control("login", "alice")
    machine = processes_of(guest.uuid)
    host.kill()
    answer_without_daemon = guest.control("ping")
    with pytest.raises(LabError, match="libvirt at"):
        guest.agent_command("guest-ping")
    host.start()
    guest.wait_agent()
    logged_in = [user["user"] for user in guest.agent_command("guest-get-users")]
    guest.control("logout", "alice")
    assert answer_without_daemon == "pong"
    assert len(machine) == 1
    assert processes_of(guest.uuid) == machine
    assert logged_in == ["alice"]


def test_side_by_side(host: Libvirtd, other_host: Libvirtd, guest: Guest) -> None:
    """Two daemons know nothing of each other's guests."""
    assert domain_names(host) == [guest.domain_name]
    assert domain_names(other_host) == []


def test_migrate(host: Libvirtd, other_host: Libvirtd, guest: Guest) -> None:
    """A guest moves to the other host and back, live: who was logged in still is."""
    guest.control("login", "mary")
    guest.migrate(other_host)
    there = domain_names(host), domain_names(other_host)
    guest.wait_agent()
    logged_in = [user["user"] for user in guest.agent_command("guest-get-users")]
    guest.migrate(host)
    back = domain_names(host), domain_names(other_host)
    guest.control("logout", "mary")
    guest.wait_agent()
    assert there == ([], ["default_web"])
    assert logged_in == ["mary"]
    assert back == (["default_web"], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_runs_without_rights(host: Libvirtd, guest: Guest) -> None:
    """Root's daemons and guests run as an account without rights."""
    assert ACCOUNT in host.directory.owner()
    assert {ACCOUNT} == {Path(f"/proc/{pid}").owner() for pid in processes_of(str(host.directory))}
    assert processes_of(guest.uuid)


def test_stop_ends_guests(directory: Path, image: GuestImage) -> None:
    """The end of a host is the end of its guests."""
    with Libvirtd(directory / "h3") as host:
        guest = Guest(host, image, disk=False)
        guest.start()
        during = processes_of(guest.uuid)
    assert len(during) == 1
    assert processes_of(str(host.directory)) == []


def test_killed_owner_leaves_nothing(image: GuestImage) -> None:
    """When the process that owns a lab is killed, daemons, guests and files are gone at once."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, image.kernel, image.initrd, image.disk],
        cwd=Path(lab.__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        directory = Path(owner.stdout.readline().strip())
        during = processes_of(str(directory))
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not directory.exists(), 10, "directory removed")
    assert len(during) == 3  # daemon, guest, and who waits for the owner's end
    assert processes_of(str(directory)) == []


def test_unowned_directory(tmp_path: Path) -> None:
    """A directory that nobody cleans up is refused."""
    with pytest.raises(LabError, match="is in no OwnedDirectory"):
        Libvirtd(tmp_path)


def test_long_directory() -> None:
    """A path that would make sockets' paths too long is refused, instead of guests failing to start."""
    with OwnedDirectory() as directory, pytest.raises(LabError, match="exceed 107 bytes"):
        Libvirtd(directory / ("x" * 40))


def test_daemon_that_cannot_start(directory: Path) -> None:
    """A daemon that ends while starting is an error with the end of its log."""
    host = Libvirtd(directory / "h4", host_uuid="no-uuid")
    with pytest.raises(LabError, match=r"(?s)ended with status .* while starting\n.*no-uuid"):
        host.start()
