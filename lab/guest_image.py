"""Builds the lab's guest: a kernel and an initramfs with a real QEMU guest agent.

Made of the distribution's own packages, so that no image is downloaded from anywhere else: the cloud kernel and
qemu-guest-agent are fetched and unpacked but never installed, busybox and the agent's libraries are the machine's.
`guest_init.sh` is all the software in the guest besides.

The result is kept under a digest of everything it is made of; the packages are kept as well. So a second build finds
its result, and a changed init script is built again, both without network or package manager.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.paths import locked
from lab.process import program

KERNEL_PACKAGE = "linux-image-cloud-amd64"
"""Depends on the present kernel for virtual machines."""
AGENT_PACKAGE = "qemu-guest-agent"
MODULES = {
    "virtio_pci": "",
    "virtio_console": "",
    "virtio_blk": "",
    "virtio_net": "",
    "dummy": "numdummies=0",
    "veth": "",
    "bridge": "",
    "brd": "rd_nr=32 rd_size=8192",
}
"""Modules the guest may load, with their parameters; what they depend on comes along."""
DISK_MIB = 64
"""Size of the guest's ext4 disk (sparse: it takes what is written)."""

_FILES = {
    "etc/passwd": "root::0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\nusers:x:100:\n",
    "etc/os-release": (
        'ID=guestwire-lab\nNAME="Guestwire Lab Linux"\nPRETTY_NAME="Guestwire Lab Linux 1 (Test Guest)"\n'
        'VERSION="1 (Test Guest)"\nVERSION_ID="1"\nVARIANT="Lab"\nVARIANT_ID=lab\n'
    ),
}


@dataclass(frozen=True)
class GuestImage:
    """What a guest boots from; `disk` is a template, each guest gets a copy."""

    kernel: Path
    initrd: Path
    disk: Path


def build(cache: Path, progress: Callable[[str], None]) -> GuestImage:
    """The guest image in `cache`, built first when it is not there.

    `progress` gets one short line per step. Safe to call from several processes at once: one builds, the others wait.

    Raises:
        LabError: a package cannot be fetched, or a program that the build needs is missing or fails.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "guest.lock"):
        packages = _packages(cache / "guest-packages", progress)
        directory = cache / f"guest-{_digest(packages)}"
        if not directory.is_dir():
            progress("packing kernel, modules and agent")
            with tempfile.TemporaryDirectory(dir=cache, prefix="guest-build-") as scratch:
                finished = _make(Path(scratch), packages)
                finished.rename(directory)
    return GuestImage(directory / "kernel", directory / "initrd", directory / "disk")


def _packages(directory: Path, progress: Callable[[str], None]) -> list[Path]:
    """The kernel's and the agent's package files, fetched into `directory` on the first call."""
    if not directory.is_dir():
        progress("fetching kernel and agent packages")
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix="guest-fetch-") as scratch:
            fetched = Path(scratch, "packages")
            fetched.mkdir()
            # The sandbox account of apt cannot write here, and only complains about it.
            options = ["-o", "APT::Sandbox::User=root", "-qq"]
            _run("apt-get", *options, "download", _kernel_name(), AGENT_PACKAGE, cwd=fetched)
            fetched.rename(directory)
    return sorted(directory.glob("*.deb"))


def _kernel_name() -> str:
    """Name of the package that holds the kernel itself, for example linux-image-6.1.0-56-cloud-amd64."""
    try:
        found = re.search(r"Depends: (linux-image-\S+)", _run("apt-cache", "depends", "--important", KERNEL_PACKAGE))
    except LabError:
        found = None
    if found is None:
        raise LabError(f"apt knows no package {KERNEL_PACKAGE}: run `apt-get update` (guests are built on Debian only)")
    return found[1]


def _digest(packages: list[Path]) -> str:
    """Digest of everything the image is made of: package versions, busybox, the init script, this recipe."""
    digest = hashlib.sha256()
    for package in packages:
        digest.update(package.name.encode())
    for source in (Path(program("busybox")), _init_script(), Path(__file__)):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _init_script() -> Path:
    return Path(__file__).with_name("guest_init.sh")


def _make(scratch: Path, packages: list[Path]) -> Path:
    """Build below `scratch`; returns the directory to keep."""
    unpacked, root, finished = scratch / "unpacked", scratch / "root", scratch / "finished"
    for package in packages:
        _run("dpkg-deb", "-x", str(package), str(unpacked))
    for directory in ("bin", "dev", "etc/modules", "lib/modules", "proc", "root", "run", "sys", "tmp", "var"):
        (root / directory).mkdir(parents=True)
    _add_programs(root, unpacked / "usr/sbin/qemu-ga")
    _add_modules(root, unpacked / "lib/modules")
    for name, text in _FILES.items():
        (root / name).write_text(text)
    (root / "var/run").symlink_to("/run")

    finished.mkdir(mode=0o755)
    shutil.copyfile(next(unpacked.glob("boot/vmlinuz-*")), finished / "kernel")
    _pack(root, finished / "initrd")
    _make_disk(finished / "disk")
    return finished


def _add_programs(root: Path, agent: Path) -> None:
    """Busybox under all its names, the agent with the libraries it needs, and the init script."""
    busybox = program("busybox")
    shutil.copy(busybox, root / "bin/busybox")
    for name in _run(busybox, "--list").split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    shutil.copy(agent, root / "bin/qemu-ga")
    for line in _run("ldd", str(agent)).splitlines():
        if "not found" in line:
            raise LabError(f"the guest agent needs a library that this machine lacks: {line.strip()}")
        if (path := re.search(r"(/\S+) \(0x", line)) is not None:
            target = root / path[1].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path[1], target)
    shutil.copyfile(_init_script(), root / "init")
    (root / "init").chmod(0o755)


def _add_modules(root: Path, tree: Path) -> None:
    """Each of MODULES with what it depends on, and a list per module: the files to insert, in order."""
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in tree.rglob("*.ko*")}
    for module, parameters in MODULES.items():
        order = _insertion_order(module, files)
        for name in order:
            (root / "lib/modules" / f"{name}.ko").write_bytes(_module_bytes(files[name]))
        lines = [f"{name}.ko {parameters if name == module else ''}".strip() + "\n" for name in order]
        (root / "etc/modules" / module).write_text("".join(lines))


def _insertion_order(module: str, files: dict[str, Path]) -> list[str]:
    """`module` after everything it depends on; what is not among `files` is built into the kernel."""
    if module not in files:
        return []
    order: list[str] = []
    # A module names its dependencies itself, in its .modinfo section.
    depends = re.search(rb"\x00depends=([^\x00]*)\x00", _module_bytes(files[module]))
    for name in (depends[1].decode() if depends else "").split(","):
        needed = _insertion_order(name.replace("-", "_"), files)
        order += [each for each in needed if each not in order]
    return [*order, module]


def _module_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def _pack(root: Path, target: Path) -> None:
    """Write the tree at `root` as the initramfs `target`; everything in it belongs to root."""
    names = "\n".join(sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    with target.open("wb") as archive:
        # Not compressed: an emulated CPU takes longer to unpack it than QEMU to hand it over.
        subprocess.run(
            [program("busybox"), "cpio", "-o", "-H", "newc", "-R", "0:0"],
            cwd=root,
            input=names.encode(),
            stdout=archive,
            stderr=subprocess.DEVNULL,
            check=True,
        )


def _make_disk(path: Path) -> None:
    path.touch()
    os.truncate(path, DISK_MIB << 20)
    _run("mkfs.ext4", "-q", "-L", "data", str(path))


def _run(name: str, *arguments: str, cwd: Path | None = None) -> str:
    """Standard output of a program; LabError with the last line of its complaint when it fails."""
    result = subprocess.run(
        [program(name), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if result.returncode != 0:
        complaint = (result.stderr.strip() or result.stdout.strip() or "no output").splitlines()[-1]
        raise LabError(f"{Path(name).name} {' '.join(arguments)} failed: {complaint}")
    return result.stdout
