"""
Programs of Debian packages that are fetched and unpacked into the lab's cache, never installed.

For servers whose packages would start them on this machine, at once and at every boot. A program that is installed
already is taken as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.paths import cache_dir, locked
from lab.process import program


def unpacked(package: str, *names: str) -> tuple[Path, ...]:
    """Paths of a package's programs. Libraries they need are not fetched. Raises LabError."""
    try:
        return tuple(Path(program(name)) for name in names)
    except LabError:
        home = cache_dir() / f"unpacked-{package}"
    with locked(home.with_suffix(".lock")):
        if not home.is_dir():
            _fetch(package, home)
    programs = tuple(_find(home, name) for name in names)
    for path in programs:
        if "not found" in subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout:
            raise LabError(f"{path} needs a library that this machine lacks: see ldd {path}")
    return programs


def _fetch(package: str, home: Path) -> None:
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="unpack-") as scratch:
        # The sandbox account of apt cannot write here, and only complains about it.
        _run(["apt-get", "-o", "APT::Sandbox::User=root", "-qq", "download", package], cwd=Path(scratch))
        root = Path(scratch, "root")
        for file in Path(scratch).glob("*.deb"):
            _run([program("dpkg-deb"), "-x", str(file), str(root)], cwd=Path(scratch))
        root.chmod(0o755)
        root.rename(home)


def _find(home: Path, name: str) -> Path:
    found = shutil.which(name, path=f"{home}/usr/sbin:{home}/usr/bin")
    if found is None:
        raise LabError(f"no program {name} in {home}")
    return Path(found)


def _run(command: Sequence[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        complaint = (done.stderr.strip() or "no output").splitlines()[-1]
        raise LabError(f"{' '.join(command)} failed: {complaint} (does `apt-get update` help?)")
