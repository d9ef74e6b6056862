"""Processes and directories that end with their owner."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import lab
from lab.errors import LabError
from lab.process import Daemon, OwnedDirectory, wait_until
from lab.reaper import processes_of

SLEEPER = """
import sys, time
from pathlib import Path
from lab.process import Daemon
daemon = Daemon(["sleep", "600"], log=Path(sys.argv[1]))
daemon.start()
print(daemon.pid, flush=True)
time.sleep(600)
"""


def exists(pid: int) -> bool:
    """Whether a process runs; one that has ended and only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_daemon_ends_with_owner(tmp_path: Path) -> None:
    """The kernel kills a daemon whose owner is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER, tmp_path / "log"],
        cwd=Path(lab.__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        during = exists(pid)
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not exists(pid), 5, "daemon gone")
    assert during


def test_daemon_outlives_thread(tmp_path: Path) -> None:
    """A daemon started by a thread does not end with the thread."""
    daemon = Daemon(["sleep", "600"], log=tmp_path / "log")
    thread = threading.Thread(target=daemon.start)
    thread.start()
    thread.join()
    ended = daemon.wait(0.5)
    daemon.kill()
    assert ended is None
    assert daemon.wait() == -signal.SIGKILL


def test_stop_grace(tmp_path: Path) -> None:
    """What ignores SIGTERM is killed after the grace."""
    daemon = Daemon(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], log=tmp_path / "log")
    with daemon:
        daemon.ready(lambda: "ready" in daemon.log_tail(), 5)
        daemon.stop(grace=0.3)
    assert not daemon.alive
    assert daemon.wait() == -signal.SIGKILL


def test_ready_reports_end(tmp_path: Path) -> None:
    """A daemon that ends instead of getting ready is an error with its last words."""
    daemon = Daemon(["sh", "-c", "echo no disk left; exit 3"], log=tmp_path / "log")
    daemon.start()
    with pytest.raises(LabError, match=r"sh ended with status 3 while starting\nno disk left"):
        daemon.ready(lambda: False, 5)


def test_missing_program(tmp_path: Path) -> None:
    """A program that is not installed is named."""
    with pytest.raises(LabError, match="no-such-program is not installed"):
        Daemon(["no-such-program"], log=tmp_path / "log").start()


def test_wait_until() -> None:
    """What does not become true is named, with the time it had."""
    with pytest.raises(LabError, match=r"^water boils: not within 0\.1 s$"):
        wait_until(lambda: False, 0.1, "water boils")


@pytest.mark.parametrize("mention", ["argument", "environment"])
def test_owned_directory(mention: str) -> None:
    """Closing a directory ends processes that mention it, detached ones too, and removes it."""
    with OwnedDirectory() as directory:
        command = ["sh", "-c", "sleep 600; :", str(directory)] if mention == "argument" else ["sleep", "600"]
        environment = {"HOME": str(directory)} if mention == "environment" else {}
        detached = subprocess.Popen(command, env=environment, start_new_session=True)
        wait_until(lambda: detached.pid in processes_of(str(directory)), 5, "process there")
    assert detached.wait(5) == -signal.SIGKILL
    assert not directory.exists()
