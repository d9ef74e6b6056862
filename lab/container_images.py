"""Container images of deploy/Containerfile, built where no image registry can be reached.

The base image is made of the distribution's own packages: debootstrap fills a directory from the archives that this
machine's apt uses, and podman makes an image of it. It is kept in the cache under a digest of its recipe; what is built
upon it is kept by podman, layer by layer, so that a second build within a day takes seconds.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lab.errors import LabError
from lab.paths import locked
from lab.process import program

REPOSITORY = Path(__file__).parent.parent
CONTAINERFILE = REPOSITORY / "deploy" / "Containerfile"
TARGETS = ("nats", "collector", "status-writer", "api", "export")
"""Images that deploy/Containerfile can make."""

VERSION = "lab"
LABEL = "org.opencontainers.image.title=guestwire"
"""Of all images made here, as deploy/Containerfile sets it."""
PODMAN_CONFIGURATION = Path(__file__).with_name("containers.conf")

PACKAGES = ("ca-certificates", "python3")
"""In the base image, besides the packages that every Debian has."""
PRUNED = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists", "var/log")
"""Emptied: documentation and caches, a third of the image."""
MACHINE_FILES = ("/etc/ssl/certs", "/etc/pip.conf")
"""Lent to builds, read-only: the certificate authorities this machine trusts, and where its pip looks for packages."""

_TARGET_FORMAT = "$(CODENAME) $(REPO_URI) $(RELEASE) $(COMPONENT)"

Progress = Callable[[str], None]


def missing() -> str | None:
    """Why this machine cannot build and run containers for the lab; None when it can."""
    if os.geteuid() != 0:
        return "containers need root here: debootstrap makes device files, podman makes networks"
    for name in ("podman", "runc", "netavark", "aardvark-dns", "catatonit", "debootstrap", "iptables"):
        if not Path("/usr/lib/podman", name).exists():
            try:
                program(name)
            except LabError:
                return f"{name} is not installed (sh lab/install-packages.sh lab/packages-containers.txt)"
    return None


def image_name(target: str) -> str:
    """Name of the lab's image of a target."""
    return f"localhost/guestwire-{target}:{VERSION}"


def build(cache: Path, progress: Progress, targets: Sequence[str] = TARGETS) -> None:
    """Bring the images of `targets` up to date with the sources, a line of progress per image and step.

    Raises:
        LabError: a step failed, with the tail of its output; or the machine lacks something (see `missing`).
    """
    base = base_image(cache, progress)
    lent = [f"--volume={path}:{path}:ro" for path in MACHINE_FILES if Path(path).exists()]
    for target in targets:
        options = ["--file", str(CONTAINERFILE), "--target", target, "--tag", image_name(target)]
        run(
            ["podman", "build", *options, f"--build-arg=BASE_IMAGE={base}", *lent, str(REPOSITORY)],
            f"{target} image",
            partial(_tell_step, progress, f"{target} image"),
        )
    # Replaced images, and layers that builds start from: a day's worth stays, so that the archives' updates arrive too.
    output(["podman", "image", "prune", "--force", f"--filter=label={LABEL}", "--filter=until=24h"])


def base_image(cache: Path, progress: Progress) -> str:
    """Name of the base image, made first when it is not there (about a minute, once)."""
    if (reason := missing()) is not None:
        raise LabError(reason)
    sources = _apt_sources()
    recipe = "\n".join([*sources, *PACKAGES, *PRUNED])
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    home = cache / f"container-base-{digest}"
    name = f"localhost/guestwire-lab-base:{digest}"
    with locked(cache / "container-base.lock", partial(progress, "base image: another process is making it; waiting")):
        if not home.is_dir():
            _bootstrap(home, sources, progress)
        if not output(["podman", "images", "--quiet", name]):
            run(["podman", "import", "--quiet", str(home / "root.tar"), name], "base image: importing", progress)
    return name


def run(argv: Sequence[str], step: str, on_line: Progress) -> None:
    """Run a command to its end; `on_line` gets its output line by line. LabError with the last lines when it fails."""
    tail: list[str] = []
    with subprocess.Popen(
        [program(argv[0]), *argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment(),
    ) as process:
        for line in process.stdout or ():
            tail = [*tail[-14:], line.rstrip()]
            on_line(line.rstrip())
    if process.returncode != 0:
        raise LabError("\n".join([f"{step}: {argv[0]} ended with status {process.returncode}", *tail]))


def output(argv: Sequence[str]) -> str:
    """Standard output of a command, without the last line's end. LabError with its complaint when it fails."""
    result = subprocess.run(
        [program(argv[0]), *argv[1:]], capture_output=True, text=True, check=False, env=environment()
    )
    if result.returncode != 0:
        raise LabError(f"{' '.join(argv)}: status {result.returncode}\n{result.stderr.strip()}")
    return result.stdout.strip()


def environment() -> dict[str, str]:
    """Environment of podman: this machine's proxies, the lab's configuration, and no variable of a compose file."""
    kept = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    search = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return kept | {"PATH": search, "HOME": str(Path.home()), "CONTAINERS_CONF": str(PODMAN_CONFIGURATION)}


def _tell_step(progress: Progress, subject: str, line: str) -> None:
    """Pass on the lines in which podman names a command it runs, e.g. `[2/3] STEP 4/7: RUN pip install ...`."""
    if (step := re.search(r"STEP \d+/\d+: RUN (.*)", line)) is not None:
        progress(f"{subject}: {' '.join(step[1].split())[:100]}")


def _apt_sources() -> list[str]:
    """Debian's archives as this machine's apt uses them, one `deb` line each; the release itself comes first."""
    targets = output(["apt-get", "indextargets", "--format", _TARGET_FORMAT, "Created-By: Packages", "Origin: Debian"])
    components: dict[tuple[str, str], set[str]] = {}
    # A codename without a suffix is the release; -updates and -security are additions to it.
    for target in sorted(targets.splitlines(), key=lambda line: "-" in line.split()[0]):
        _, uri, release, component = target.split()
        components.setdefault((uri, release), set()).add(component)
    if not components:
        raise LabError("apt knows no archive of Debian here: run `apt-get update`")
    return [f"deb {uri} {release} {' '.join(sorted(found))}" for (uri, release), found in components.items()]


def _bootstrap(home: Path, sources: Sequence[str], progress: Progress) -> None:
    """Fill a directory with a small Debian, pack it as `root.tar`, and give `home` its name."""
    partial = home.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    root = partial / "root"
    root.mkdir(parents=True)
    _, uri, release, *_ = sources[0].split()
    progress("base image: debootstrap (about a minute, once)")
    # In mounts of its own: what debootstrap mounts is gone with it, also when it is killed.
    debootstrap = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    run(
        [*debootstrap, release, str(root), uri],
        "base image",
        lambda line: progress(f"base image: {line.removeprefix('I: ')}") if "base system" in line else None,
    )
    (root / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in sources))
    for pruned in PRUNED:
        for path in (root / pruned).iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    output(["tar", "--create", "--numeric-owner", "--file", str(partial / "root.tar"), "--directory", str(root), "."])
    shutil.rmtree(root)
    partial.rename(home)
