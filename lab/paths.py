"""Where the lab keeps what it builds once and uses often.

Guests run as an unprivileged account when the lab runs as root, so QEMU must be able to walk down to its kernel:
a cache below a private home directory would only fail much later, inside libvirt, with a bare "permission denied".
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import LabError

CACHE_VARIABLE = "LAB_CACHE"


def cache_dir() -> Path:
    """The lab's cache directory, created when it is missing.

    `LAB_CACHE` if set, else `/var/cache/guestwire-lab` for root, else `~/.cache/guestwire-lab`.

    Raises:
        LabError: the directory cannot be made, or the account that runs the guests cannot walk down to it.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    as_root = os.geteuid() == 0
    if chosen:
        path = Path(chosen).absolute()
    elif as_root:
        path = Path("/var/cache/guestwire-lab")
    else:
        path = Path.home() / ".cache" / "guestwire-lab"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if as_root:
            path.chmod(0o755)
    except OSError as error:
        raise LabError(f"cannot make the lab's cache directory {path}: {error.strerror}") from error
    if as_root:
        _check_traversable(path)
    return path


@contextmanager
def locked(path: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the lock file `path`; `waiting` is called if another has it. The kernel gives it back whatever happens."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check_traversable(path: Path) -> None:
    """Raise LabError when an unprivileged account could not reach `path`."""
    for parent in path.parents:
        if not parent.stat().st_mode & stat.S_IXOTH:
            raise LabError(
                f"{path} cannot be used as the lab's cache: guests run unprivileged and {parent} is closed to others; "
                f"set {CACHE_VARIABLE} to a path that everyone can walk"
            )
