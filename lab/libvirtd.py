"""A private, unprivileged libvirt daemon: one host of the lab.

It has the shape of the daemon in a KubeVirt virt-launcher: a session daemon behind its own socket, running as an
account without rights. Everything it writes lies in its own directory, so any number run side by side, and it shares
nothing with a libvirt that the machine may have.

`kill` leaves the guests running, as libvirt means it to: a daemon that is started again finds them. `stop` is the end
of the host and ends them too.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt

from lab.errors import LabError
from lab.part import Part
from lab.paths import cache_dir
from lab.process import Daemon, OwnedDirectory, program
from lab.reaper import end_processes_of

ACCOUNT = "nobody"
"""Runs daemon and guests when the lab is root's; otherwise they run as whoever runs the lab."""

MAX_SOCKET_PATH = 107
"""Bytes, Linux' limit for the path of a Unix socket."""
_DEEPEST_SOCKET = "libvirt/qemu/channel/target/domain-999-a-name-of-20-letters/org.qemu.guest_agent.0"

# libvirt would print each error as well as raise it.
libvirt.registerErrorHandler(lambda _context, _error: None, None)


class Libvirtd(Part):
    """A libvirt daemon in `directory`, which must lie in an `OwnedDirectory`.

    Args:
        directory: Where the daemon and its guests keep everything; created if missing.
        host_uuid: Identity of the host. Two daemons need different ones to migrate a guest between them.
    """

    def __init__(self, directory: Path, *, host_uuid: str | None = None) -> None:
        if not OwnedDirectory.covers(directory):
            raise LabError(f"{directory} is in no OwnedDirectory: guests started there could outlive this process")
        if len(os.fsencode(directory / _DEEPEST_SOCKET)) > MAX_SOCKET_PATH:
            raise LabError(
                f"{directory} is too long a path: guests' sockets below it would exceed {MAX_SOCKET_PATH} bytes"
            )
        self.directory = directory
        self._account = ACCOUNT if os.geteuid() == 0 else None
        # Distributions ship libvirt's QEMU driver in one big daemon or in one of its own.
        modular = shutil.which("libvirtd", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None
        self._program = "virtqemud" if modular else "libvirtd"
        self.socket = directory / "libvirt" / ("virtqemud-sock" if modular else "libvirt-sock")
        self.uri = f"qemu+unix:///session?socket={self.socket}"
        self._write_configuration(host_uuid)
        names = ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "HOME")
        self._daemon = Daemon(
            [program(self._program), "--config", directory / "libvirt/daemon.conf"],
            log=directory / "libvirtd.log",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **dict.fromkeys(names, str(directory))},
            cwd=directory,
            user=self._account,
        )

    def start(self) -> None:
        """Start the daemon, or start it again; returns once it serves.

        Raises:
            LabError: it ends or does not serve; with the tail of its log.
        """
        self._daemon.start()
        self._daemon.ready(self._serves, timeout=20)

    def stop(self) -> None:
        """End the daemon and all its guests."""
        self._daemon.stop()
        end_processes_of(str(self.directory))

    def kill(self) -> None:
        """End the daemon with SIGKILL; its guests run on."""
        self._daemon.kill()

    def restart(self) -> None:
        """Kill the daemon and start it again; its guests do not notice."""
        self.kill()
        self.start()

    @property
    def alive(self) -> bool:
        """Whether the daemon runs."""
        return self._daemon.alive

    @property
    def pid(self) -> int | None:
        """Its process id, None when it does not run."""
        return self._daemon.pid

    @contextmanager
    def connection(self) -> Iterator[libvirt.virConnect]:
        """A new connection, closed at the end.

        Raises:
            LabError: the daemon does not answer, or a libvirt call within the block fails.
        """
        try:
            connection = libvirt.open(self.uri)
            try:
                yield connection
            finally:
                connection.close()
        except libvirt.libvirtError as error:
            raise LabError(f"libvirt at {self.socket}: {error.get_error_message()}") from error

    def give(self, path: Path) -> Path:
        """Let the account that runs the guests have `path`; returns it."""
        if self._account is not None:
            account = pwd.getpwnam(self._account)
            os.chown(path, account.pw_uid, account.pw_gid)
        return path

    def _serves(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def _write_configuration(self, host_uuid: str | None) -> None:
        configuration = self.directory / "libvirt"
        configuration.mkdir(parents=True, exist_ok=True)
        # There is no virtlogd beside a private daemon, and no security driver without rights.
        (configuration / "qemu.conf").write_text('stdio_handler = "file"\nsecurity_driver = "none"\n')
        identity = "" if host_uuid is None else f'host_uuid = "{host_uuid}"\n'
        (configuration / "daemon.conf").write_text(f'{identity}log_outputs = "3:stderr"\n')
        # A daemon asks QEMU for 2 s what it can do, and then keeps the answer: one for all daemons, as it checks itself
        # whether QEMU has changed since.
        answers = cache_dir() / "capabilities"
        answers.mkdir(exist_ok=True)
        kept = configuration / "qemu/cache/capabilities"
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not kept.is_symlink():
            kept.symlink_to(answers)
        for path in (self.directory, configuration, configuration / "qemu", kept.parent, answers):
            self.give(path)

    def __repr__(self) -> str:
        return f"<Libvirtd {self.uri}{'' if self.alive else ', stopped'}>"
