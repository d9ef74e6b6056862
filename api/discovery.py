"""
Discovery documents: what kubectl and API clients read before they ask for anything.

Group by group, as every API server has them, and all at once (`aggregated`), as newer clients ask for. Unlike in
KubeVirt's own, its group has its proper name and each resource its verbs.
"""

from __future__ import annotations

import hashlib
import platform
from typing import Any, Literal

import msgspec

from api.answers import ETAG, JSON, NOSNIFF, REVALIDATE, Answer, of_bytes
from api.groups import GROUPS, GUESTWIRE, Group
from guestwire import __version__

SHORT_NAMES = ("gst",)
CATEGORIES = ("guestwire",)

READS = ("get", "list", "watch")


class GroupVersion(msgspec.Struct, rename="camel", frozen=True):
    """metav1.GroupVersionForDiscovery."""

    group_version: str
    """The group and the version, as `apiVersion` has them."""
    version: str
    """The version alone."""


class APIGroup(msgspec.Struct, rename="camel", frozen=True):
    """metav1.APIGroup: a group and its versions."""

    kind: Literal["APIGroup"]
    api_version: Literal["v1"]
    name: str
    """Name of the group."""
    versions: tuple[GroupVersion, ...]
    """All that are served."""
    preferred_version: GroupVersion


class APIGroupList(msgspec.Struct, rename="camel", frozen=True):
    """metav1.APIGroupList: the groups of this server."""

    kind: Literal["APIGroupList"]
    api_version: Literal["v1"]
    groups: tuple[APIGroup, ...]
    """All that are served."""


class APIResource(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """metav1.APIResource: a resource or a subresource, and what can be done with it."""

    name: str
    """In the plural; of a subresource, behind its resource's."""
    singular_name: str
    """In the singular; empty for a subresource."""
    namespaced: bool
    """Whether it belongs to a namespace."""
    kind: str
    """Of its objects; empty where the body is no Kubernetes object."""
    verbs: tuple[str, ...]
    """What can be done with it."""
    short_names: tuple[str, ...] = ()
    """Other names for people."""
    categories: tuple[str, ...] = ()
    """Names for this and other resources together."""


class APIResourceList(msgspec.Struct, rename="camel", frozen=True):
    """metav1.APIResourceList: the resources of a version of a group."""

    kind: Literal["APIResourceList"]
    api_version: Literal["v1"]
    group_version: str
    """The group and the version, as `apiVersion` has them."""
    resources: tuple[APIResource, ...]
    """All that are served."""


class Version(msgspec.Struct, rename="camel", frozen=True):
    """version.Info: of this server, not of a cluster."""

    major: str
    minor: str
    git_version: str
    """The whole version."""
    platform: str
    """Operating system and processor."""


def of_document(value: object, content_type: str = JSON) -> Answer:
    """A document, as JSON that others may keep and ask about; its digest is the ETag."""
    body = msgspec.json.encode(value)
    etag = ETAG + f'"{digest(body)}"\r\n'.encode()
    return of_bytes(200, body, content_type=content_type, head=etag + NOSNIFF + REVALIDATE + b"vary: Accept\r\n")


def digest(body: bytes) -> str:
    """Tells one body from another."""
    return hashlib.sha256(body).hexdigest()[:32].upper()


def _group(group: Group) -> APIGroup:
    versions = tuple(GroupVersion(f"{group.name}/{version}", version) for version in group.versions)
    return APIGroup("APIGroup", "v1", group.name, versions, versions[0])


def _resources(group: Group, version: str) -> APIResourceList:
    kinds = (APIResource(f"{group.resource}/{kind}", "", True, "", ("get",)) for kind in group.subresources)
    own = () if group is not GUESTWIRE else (_guests(group),)
    return APIResourceList("APIResourceList", "v1", f"{group.name}/{version}", (*own, *kinds))


def _guests(group: Group) -> APIResource:
    return APIResource(group.resource, "guest", True, "Guest", READS, SHORT_NAMES, CATEGORIES)


def _version() -> Version:
    major, minor, *_ = __version__.split(".")
    return Version(major, minor, f"v{__version__}", f"{platform.system().lower()}/{platform.machine()}")


def aggregated(version: str) -> Answer:
    """apidiscovery.k8s.io APIGroupDiscoveryList: every group with every resource."""
    items = [{"metadata": {"name": group.name}, "versions": _discovered(group)} for group in GROUPS]
    document = {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }
    return of_document(document, f"{JSON};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")


def _discovered(group: Group) -> list[dict[str, Any]]:
    """KubeVirt's resource itself is not served here, so it has neither a kind nor verbs."""
    nothing = {"group": "", "version": "", "kind": ""}
    subresources = [{"subresource": kind, "responseKind": nothing, "verbs": ["get"]} for kind in group.subresources]
    resource: dict[str, Any] = {
        "resource": group.resource,
        "responseKind": nothing,
        "scope": "Namespaced",
        "singularResource": "",
        "verbs": [],
        "subresources": subresources,
    }
    if group is GUESTWIRE:
        own = _guests(group)
        resource |= {
            "responseKind": {"group": group.name, "version": group.versions[0], "kind": own.kind},
            "singularResource": own.singular_name,
            "verbs": own.verbs,
            "shortNames": own.short_names,
            "categories": own.categories,
        }
    return [{"version": version, "freshness": "Current", "resources": [resource]} for version in group.versions]


PROBES = ("/healthz", "/livez", "/readyz", "/metrics")
"""The paths that are no documents."""

RESOURCES = {f"/apis/{group.name}/{version}": (group, version) for group in GROUPS for version in group.versions}
"""Where the resources of a version are told."""

DOCUMENTS: dict[str, Answer] = {
    "/apis": of_document(APIGroupList("APIGroupList", "v1", tuple(map(_group, GROUPS)))),
    **{f"/apis/{group.name}": of_document(_group(group)) for group in GROUPS},
    **{path: of_document(_resources(group, version)) for path, (group, version) in RESOURCES.items()},
    "/version": of_document(_version()),
}
"""By path, ready to be sent."""

AGGREGATED: dict[str, Answer] = {version: aggregated(version) for version in ("v2", "v2beta1")}
"""In place of `/apis`, by version."""
