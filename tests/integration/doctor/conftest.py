"""`guestwire doctor` as people and programs run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries
from lab.process import free_port

GUESTWIRE = Path(sys.executable).with_name("guestwire")


@dataclass
class Examination:
    """What it found, and its exit status."""

    status: int
    ok: bool
    findings: list[dict[str, Any]]

    def of(self, area: str, about: str = "") -> list[dict[str, Any]]:
        """The findings of an area, of one of its things or of all."""
        return [each for each in self.findings if each["area"] == area and about in ("", each["about"])]

    def outcomes(self, area: str, about: str = "") -> list[str]:
        """How the checks of an area ended."""
        return [each["outcome"] for each in self.of(area, about)]

    def one(self, area: str, about: str) -> dict[str, Any]:
        """The only finding about something."""
        (finding,) = self.of(area, about)
        return finding

    def problem(self, area: str) -> tuple[str, str]:
        """The only problem of an area: what it is, and what to do."""
        (finding,) = [each for each in self.of(area) if each["outcome"] == "problem"]
        return finding["text"], "\n".join(finding["advice"])


def environment(**settings: object) -> dict[str, str]:
    """Ours without settings but these, None for the default of the product; else nothing is where it looks."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("GUESTWIRE_", "KUBE"))}
    given = {
        "LIBVIRT__URIS": "qemu+unix:///session?socket=/nowhere/libvirt-sock",
        "NATS__SERVERS": f"nats://127.0.0.1:{free_port()}",
        "NATS__TIMEOUT": 1,
        "COLLECT__COMMAND_TIMEOUT": 1,
        **settings,
    }
    named = {f"GUESTWIRE_{name}": str(value) for name, value in given.items() if value is not None}
    return {**plain, "HOME": "/nonexistent", **named}


def run(*arguments: str, prefix: Sequence[str] = (), **settings: object) -> subprocess.CompletedProcess[str]:
    """The command to its end; each keyword is a setting."""
    return subprocess.run(
        [*prefix, GUESTWIRE, "doctor", *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def examine(*domains: str, prefix: Sequence[str] = (), **settings: object) -> Examination:
    """`guestwire doctor --json`."""
    done = run(*domains, "--json", prefix=prefix, **settings)
    assert "" == done.stderr
    return Examination(done.returncode, **json.loads(done.stdout))


@pytest.fixture(scope="session")
def kube(kube_binaries: KubeBinaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiserver]:
    """An API server with KubeVirt's definition of a VMI, and an account that nobody gave any right."""
    with KubeApiserver(kube_binaries, tmp_path_factory.mktemp("kube")) as server:
        server.install_crd()
        server.kubectl("create", "serviceaccount", "writer", "-n", "default")
        yield server
