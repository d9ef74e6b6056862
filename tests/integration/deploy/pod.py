"""
A container of a workload as kubelet would run it, without images: its arguments, environment, account, capabilities
and volumes, in a mount namespace of its own whose root is a read-only copy of the machine's, with nothing in /tmp.

The network is the machine's. Hence the environment may be overridden, for addresses on loopback.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.process import Daemon

PROGRAMS = {"nats": "nats-server"}
"""Entry points of images by container; guestwire's for all others."""
HOMES = {0: "/root", 10001: "/tmp"}  # noqa: S108 - paths of the pod
"""Of the accounts in the images, from which a container's HOME comes."""
TMP = Path("/tmp")  # noqa: S108 - a path of the pod
PROJECT = Path(__file__).parents[3]
DEVICE = Path("/").stat().st_dev


class Pod(Daemon):
    """The first container of a pod.

    Args:
        workload: What makes such pods.
        environment: All of the container's, as `conftest.environment` reads it, with what the machine makes necessary.
        directory: For its log and its root.
        volumes: A file or directory for each mount, by the path in the pod; empty directories are made here.
        arguments: More of them, behind the manifest's.
        capabilities: Instead of the manifest's.
    """

    def __init__(
        self,
        workload: Mapping[str, Any],
        environment: Mapping[str, str],
        directory: Path,
        *,
        volumes: Mapping[str, Path] | None = None,
        arguments: tuple[str, ...] = (),
        capabilities: tuple[str, ...] | None = None,
    ) -> None:
        spec = workload["spec"]["template"]["spec"]
        container = spec["containers"][0]
        held = container["securityContext"]["capabilities"]
        kept = held.get("add", ()) if capabilities is None else capabilities
        root = directory / "root"
        root.mkdir(parents=True)
        account = spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]
        mounts = {Path(path): (source, False) for path, source in (volumes or {}).items()}
        for mount in container.get("volumeMounts", []):
            if mount["name"] in emptied(spec) or mount["name"] in claimed(workload):
                source = directory / mount["name"]
                source.mkdir()
                os.chown(source, *account)
                mounts[Path(mount["mountPath"])] = (source, True)
            elif Path(mount["mountPath"]) not in mounts:
                raise LabError(f"no source for the volume {mount['name']}")
        program = Path(sys.executable).with_name(PROGRAMS.get(container["name"], "guestwire"))
        bounding = ",".join(["-all", *(f"+{name.lower()}" for name in kept)])
        confined = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--no-new-privs",
            f"--reuid={account[0]}",
            f"--regid={account[1]}",
        ]
        confined += ["--clear-groups", "--inh-caps=-all", f"--bounding-set={bounding}", "--"]
        script = world(root)
        for path, (source, writable) in sorted(mounts.items()):
            script += bind(root, path, source, writable=writable)
        script += project(root)
        script += [f"mount -o remount,ro {path}" for path in (root, *([] if TMP in mounts else [root / "tmp"]))]
        command = shlex.join(["chroot", str(root), *confined, str(program), *container["args"], *arguments])
        super().__init__(
            ["unshare", "--mount", "--propagation", "private", "sh", "-euc", "\n".join([*script, f"exec {command}"])],
            log=directory / "log",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": HOMES[account[0]], **environment},
            cwd=Path("/"),
        )


def emptied(spec: Mapping[str, Any]) -> set[str]:
    """Volumes that begin empty."""
    return {each["name"] for each in spec.get("volumes", []) if "emptyDir" in each}


def claimed(workload: Mapping[str, Any]) -> set[str]:
    """Volumes that are claimed for each pod."""
    return {each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", [])}


def world(root: Path) -> list[str]:
    """Commands that make `root` a copy of the machine that forgets what is written, with an empty /tmp."""
    layers = root.with_name("layers")
    script = [
        f"mkdir {layers}",
        f"mount -t tmpfs tmpfs {layers}",
        f"mkdir {layers}/upper {layers}/work",
        f"mount -t overlay -o lowerdir=/,upperdir={layers}/upper,workdir={layers}/work overlay {root}",
    ]
    script += [f"mount --rbind /{name} {root}/{name}" for name in ("proc", "sys", "dev")]
    return [*script, f"mount -t tmpfs tmpfs {root}{TMP}"]


def project(root: Path) -> list[str]:
    """Commands that mount this project and its Python where they are not in the copy: on another device, or in /tmp."""
    needed = (PROJECT, Path(sys.prefix), Path(sys.base_prefix))
    elsewhere = {path for path in needed if path.stat().st_dev != DEVICE or path.is_relative_to(TMP)}
    return [command for path in sorted(elsewhere) for command in bind(root, path, path, writable=False)]


def bind(root: Path, path: Path, source: Path, *, writable: bool) -> list[str]:
    """Commands that mount a volume."""
    target = root / path.resolve().relative_to("/")
    made = f"mkdir -p {target}" if source.is_dir() else f"mkdir -p {target.parent}; touch {target}"
    return [made, f"mount --rbind {source} {target}", *([] if writable else [f"mount -o remount,bind,ro {target}"])]
