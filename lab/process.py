"""Processes and directories that end with their owner.

Two means, because there are two kinds of process. A `Daemon` stays our child: the kernel kills it when we die
(PR_SET_PDEATHSIG, set by util-linux' setpriv between fork and exec). Something that detaches itself, like a QEMU that
libvirtd started, is found by its `OwnedDirectory` instead (see `lab.reaper`).

The kernel ties PR_SET_PDEATHSIG to the *thread* that forked, not to the process. All daemons are therefore forked by
one thread that lives as long as the interpreter; a part may be started from any short-lived thread.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar

from lab import reaper
from lab.errors import LabError
from lab.part import Part

EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")

_forker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lab-forker")


def free_port() -> int:
    """
    A TCP port of 127.0.0.1 that nobody listened on a moment ago. None of those from which the kernel takes the near end
    of connections: one of them could be gone before it is listened on.
    """
    first = int(EPHEMERAL_PORTS.read_text().split()[0])
    lowest = min(10_000, first // 2)
    while True:
        port = lowest + secrets.randbelow(first - lowest)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Return once `condition()` is true, looking every 50 ms.

    Raises:
        LabError: it did not become true within `timeout` seconds; `what` begins the message.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            raise LabError(f"{what}: not within {timeout:g} s")
        time.sleep(0.05)


def program(name: str) -> str:
    """Path of an installed program; the system's sbin directories count although many accounts' PATH lacks them.

    Raises:
        LabError: it is not installed.
    """
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        raise LabError(f"{name} is not installed (lab/install-packages.sh installs what the lab needs)")
    return path


class Daemon(Part):
    """A long-running child process with its output in a log file; may be started again after it ended.

    Args:
        argv: Program and arguments; the program is looked up as by `program`.
        log: Appended to: standard output and error of every run.
        env: The whole environment of the child; None means ours.
        cwd: Working directory of the child; None means ours.
        user: Account to run as; only root may name one. None means ours.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> None:
        self.argv = [os.fspath(part) for part in argv]
        self.log = log
        self._env = env
        self._cwd = cwd
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and return at once.

        Raises:
            LabError: it already runs, or the program or the account does not exist.
        """
        if self.alive:
            raise LabError(f"{self.name} already runs (pid {self.pid})")
        identity = _identity_options(self._user)
        command = [program(self.argv[0]), *self.argv[1:]]
        wrapped = [program("setpriv"), "--pdeathsig", "KILL", *identity, "--", *command]
        with self.log.open("ab") as log:
            self._process = _forker.submit(self._fork, wrapped, log).result()

    def ready(self, condition: Callable[[], bool], timeout: float) -> None:
        """Return once `condition()` is true.

        Raises:
            LabError: the process ended before, or `timeout` seconds passed; with the tail of its log.
        """

        def ready_or_ended() -> bool:
            return condition() or not self.alive

        try:
            wait_until(ready_or_ended, timeout, f"{self.name} is not ready")
        except LabError as error:
            raise LabError(f"{error}\n{self.log_tail()}") from None
        if not self.alive:
            raise LabError(f"{self.name} ended with status {self.wait(0)} while starting\n{self.log_tail()}")

    def stop(self, grace: float = 10.0) -> None:
        """End the process with SIGTERM, and with SIGKILL when it still runs after `grace` seconds."""
        if self.alive:
            self._signal(signal.SIGTERM)
            if self.wait(grace) is None:
                self.kill()

    def kill(self) -> None:
        """End the process with SIGKILL."""
        if self.alive:
            self._signal(signal.SIGKILL)
            self.wait()

    def wait(self, timeout: float | None = None) -> int | None:
        """Exit status (negative: a signal), once the process has ended; None when `timeout` seconds end first."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process id of the present run, None when there is none."""
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def name(self) -> str:
        """Base name of the program."""
        return Path(self.argv[0]).name

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the log."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError as error:
            return f"({self.log}: {error.strerror})"
        return "\n".join(text.splitlines()[-lines:])

    def __repr__(self) -> str:
        return f"<Daemon {self.name} {f'pid {self.pid}' if self.alive else 'stopped'}>"

    def _fork(self, argv: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C at the terminal is for the owner, which then stops its parts in order.
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self._env,
            cwd=self._cwd,
            start_new_session=True,
        )

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


def _identity_options(user: str | None) -> list[str]:
    """Options of setpriv that make the child run as `user`."""
    if user is None:
        return []
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise LabError(f"there is no account {user!r} on this machine") from None
    return ["--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups"]


class OwnedDirectory:
    """A new directory that ends with its owner, along with every process that mentions it.

    A process counts when its command line, or the environment it was started with, contains the path. The path is
    short because sockets live in it (a Unix socket path may be 107 bytes long).

    Use as a context manager, or call `close`; when the owner is killed the same clean-up happens without it.
    """

    _open: ClassVar[set[Path]] = set()

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))
        self.path.chmod(0o755)
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, str(self.path)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._open.add(self.path)

    @classmethod
    def covers(cls, path: Path) -> bool:
        """Whether `path` lies below an owned directory of this process that is still open."""
        return any(path.is_relative_to(owned) for owned in cls._open)

    def close(self) -> None:
        """End the directory's processes and remove it; returns when both are done."""
        self._open.discard(self.path)
        if self._reaper.stdin is not None:
            self._reaper.stdin.close()
        self._reaper.wait()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<OwnedDirectory {self.path}>"
