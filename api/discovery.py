"""
Discovery documents: what kubectl and API clients read before they ask for anything.

Unlike in KubeVirt's own, its group has its proper name and each resource its verbs.
"""

from __future__ import annotations

import platform
from typing import Any

import msgspec

from api.answers import Answer, of_bytes
from api.groups import GROUPS, Group
from guestwire import __version__


def _group(group: Group) -> dict[str, Any]:
    versions = [{"groupVersion": f"{group.name}/{version}", "version": version} for version in group.versions]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group.name,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def _resources(group: Group, version: str) -> dict[str, Any]:
    entry = {"singularName": "", "namespaced": True, "kind": "", "verbs": ["get"]}
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group.name}/{version}",
        "resources": [{"name": f"{group.resource}/{kind}", **entry} for kind in group.kinds],
    }


def _version() -> dict[str, str]:
    major, minor, *_ = __version__.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{__version__}",
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }


_DOCUMENTS: dict[str, dict[str, Any]] = {
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(group) for group in GROUPS]},
    **{f"/apis/{group.name}": _group(group) for group in GROUPS},
    **{f"/apis/{group.name}/{version}": _resources(group, version) for group in GROUPS for version in group.versions},
    "/version": _version(),
}

PROBES = ("/healthz", "/livez", "/readyz", "/metrics")
"""The paths that are no documents."""

DOCUMENTS: dict[str, Answer] = {
    path: of_bytes(200, msgspec.json.encode(document))
    for path, document in {"/": {"paths": sorted((*_DOCUMENTS, *PROBES))}, **_DOCUMENTS}.items()
}
"""By path, ready to be sent."""
