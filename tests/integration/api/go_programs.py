"""Clients in Go, made of Kubernetes's own libraries: each a package of the module in `informer/`."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from lab.errors import LabError
from lab.kube_build import go_toolchain
from lab.paths import cache_dir, locked

MODULE = Path(__file__).parent / "informer"


def build(package: str = ".") -> Path:
    """The program of a package, in the lab's cache by what it is made of. Raises LabError."""
    files = [MODULE / "go.mod", MODULE / "go.sum", *sorted((MODULE / package).glob("*.go"))]
    name = (MODULE / package).resolve().name
    binary = cache_dir() / f"{name}-{hashlib.sha256(b''.join(each.read_bytes() for each in files)).hexdigest()[:12]}"
    with locked(cache_dir() / f"{name}.lock"):
        if binary.exists():
            return binary
        half = binary.with_suffix(".partial")
        env = os.environ | {"GOWORK": "off", "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
        command = [go_toolchain(cache_dir(), print), "build", "-mod=readonly", "-trimpath", "-buildvcs=false"]
        done = subprocess.run(
            [*command, "-o", str(half), f"./{package}"],
            cwd=MODULE,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"{name}: go build ended with status {done.returncode}\n{done.stderr[-2000:]}")
        half.rename(binary)
    return binary
