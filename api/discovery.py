"""
Discovery documents: what kubectl and API clients read before they ask for anything.

Unlike KubeVirt's own, the group has its proper name and each resource its verbs.
"""

from __future__ import annotations

import platform
from typing import Any

import msgspec

from api.answers import GROUP, KINDS, RESOURCE, VERSIONS, Answer, of_bytes
from guestwire import __version__

_VERSIONS = [{"groupVersion": f"{GROUP}/{version}", "version": version} for version in VERSIONS]

_GROUP: dict[str, Any] = {
    "kind": "APIGroup",
    "apiVersion": "v1",
    "name": GROUP,
    "versions": _VERSIONS,
    "preferredVersion": _VERSIONS[0],
}


def _resources(version: str) -> dict[str, Any]:
    entry = {"singularName": "", "namespaced": True, "kind": "", "verbs": ["get"]}
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{GROUP}/{version}",
        "resources": [{"name": f"{RESOURCE}/{kind}", **entry} for kind in KINDS],
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
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_GROUP]},
    f"/apis/{GROUP}": _GROUP,
    **{f"/apis/{GROUP}/{version}": _resources(version) for version in VERSIONS},
    "/version": _version(),
}

PROBES = ("/healthz", "/livez", "/readyz", "/metrics")
"""The paths that are no documents."""

DOCUMENTS: dict[str, Answer] = {
    path: of_bytes(200, msgspec.json.encode(document))
    for path, document in {"/": {"paths": sorted((*_DOCUMENTS, *PROBES))}, **_DOCUMENTS}.items()
}
"""By path, ready to be sent."""
