"""
What can be asked for: paths, parameters and answers, in words that both versions of OpenAPI have.

The router serves them; this tells of them. Tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from api import discovery, history
from api.groups import GROUPS, GUESTWIRE, Group
from api.openapi.objects import GVK, SUBJECTS, Guest, GuestList
from api.status import Status
from guestwire.kinds import BODIES
from guestwire.snapshot import Kind


class Parameter(NamedTuple):
    """Of a request; `type` is one of JSON Schema's."""

    name: str
    where: str
    type: str
    description: str
    values: tuple[str, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """What it may be."""
        schema: dict[str, Any] = {"type": self.type}
        if self.type == "integer":
            schema |= {"format": "int64", "minimum": 0}
        return schema | ({"enum": list(self.values)} if self.values else {})


class Operation(NamedTuple):
    """A GET; nothing can be written."""

    path: str
    name: str
    """Unique, as clients that are generated call it."""
    description: str
    answer: type
    """The body of a 200."""
    parameters: tuple[Parameter, ...]
    codes: tuple[int, ...]
    headers: tuple[str, ...] = ()
    """Of a 200."""
    action: str = "get"
    kind: str = ""
    """Of the resource in the group; empty where the body is no Kubernetes object."""
    streams: bool = False
    """Whether it can be watched."""


NAMESPACE = Parameter("namespace", "path", "string", "Namespace of the guest.")
NAME = Parameter("name", "path", "string", "Name of the guest.")

KNOWN = Parameter("If-None-Match", "header", "string", "ETags the client has; 304 when the present one is among them.")

INCLUDE = Parameter(
    "includeObject",
    "query",
    "string",
    "What a row of a Table holds of its guest; Metadata where it is not given.",
    ("Metadata", "Object", "None"),
)

LIST_OPTIONS = (
    Parameter(
        "allowWatchBookmarks", "query", "boolean", "Whether a watch may tell its revision when nothing else is to tell."
    ),
    Parameter(
        "continue", "query", "string", "Where a list goes on: metadata.continue of the part before. Expires with 410."
    ),
    Parameter(
        "fieldSelector",
        "query",
        "string",
        "Only guests of these fields, with =, == and !=: metadata.name, metadata.namespace.",
    ),
    Parameter(
        "labelSelector",
        "query",
        "string",
        "Only guests of these labels, in the whole grammar of Kubernetes, as `guestwire.io/os in (debian, ubuntu)`.",
    ),
    Parameter("limit", "query", "integer", "Most guests of an answer; 0 for all."),
    Parameter(
        "resourceVersion",
        "query",
        "string",
        "For a list, a revision it must not be older than; for a watch, the one after which it begins. A revision "
        "is the sequence of a message in the stream, the same on every replica.",
    ),
    Parameter(
        "resourceVersionMatch", "query", "string", "How a list follows resourceVersion.", ("Exact", "NotOlderThan")
    ),
    Parameter(
        "sendInitialEvents",
        "query",
        "boolean",
        "Whether a watch begins with all guests, and a bookmark that says when these have been told. Needs "
        "resourceVersionMatch=NotOlderThan.",
    ),
    Parameter("timeoutSeconds", "query", "integer", "How long a watch lasts at most; 0 for half an hour or more."),
    Parameter("watch", "query", "boolean", "Tell changes as they come, one WatchEvent per line."),
)

WISHES = (
    Parameter(
        "allowStale",
        "query",
        "boolean",
        "Whether to answer with what was last known while the guest's agent is away; a Warning header says so.",
    ),
    Parameter(
        "maxAge",
        "query",
        "string",
        "Read the guest now if what is known of it is older, as 5s or 1m30s, though no more than once a second; 504 "
        "when it does not answer.",
    ),
)

HISTORY_OPTIONS = (
    Parameter("before", "query", "integer", "Only what is older than this revision: metadata.before of a page."),
    Parameter("kind", "query", "string", "Only this kind of facts.", tuple(map(str, BODIES))),
    Parameter("limit", "query", "integer", "Most entries of a page: 50 where it is not given, 500 at most."),
)

MEANINGS = {
    200: "OK",
    304: "Not Modified: the client has it already.",
    400: "Bad Request: a parameter that cannot be.",
    401: "Unauthorized: nobody knows who asks.",
    403: "Forbidden: who asks may not read this.",
    404: "Not Found: there is no such guest, or this was never read from it.",
    406: "Not Acceptable: only JSON is served.",
    409: "Conflict: the guest does not run, or its agent is away.",
    410: "Gone: what changed since that revision cannot be told any more; list anew.",
    429: "Too Many Requests: as many guests are read on demand as may be.",
    500: "Internal Server Error: a bug.",
    503: "Service Unavailable: nothing can be said yet; try again.",
    504: "Gateway Timeout: the guest, or the stream, has not come as far as was asked for.",
}
"""Of a code; all but 200 and 304 come with a Status."""

ALWAYS = (200, 401, 403, 406, 500, 503)

HEADERS = {
    "Age": "Seconds since this was last seen to be so.",
    "ETag": "The revision of what is answered.",
    "Last-Modified": "When it became so.",
    "Warning": "110 when this is the last known value of a guest whose agent is away.",
}


def of_version(group: Group, version: str) -> Iterable[Operation]:
    """All of a version of a group."""
    base = f"/apis/{group.name}/{version}"
    words = _words(group) + version.capitalize()
    yield Operation(
        f"{base}/",
        f"get{words}APIResources",
        "The resources of this version.",
        discovery.APIResourceList,
        (KNOWN,),
        (*ALWAYS, 304),
        ("ETag",),
    )
    one = f"{base}/namespaces/{{namespace}}/{group.resource}/{{name}}"
    if group is GUESTWIRE:
        yield from _guests(base, one, words)
        yield _history(one, words)
    for kind in group.kinds:
        yield Operation(
            f"{one}/{kind}",
            f"read{words}Namespaced{group.resource.capitalize()}{kind.capitalize()}",
            f"{SUBJECTS[kind]} of a guest.",
            BODIES[kind],
            (NAMESPACE, NAME, *(WISHES if kind != Kind.AGENT else ()), KNOWN),  # what is said of the agent is not read
            (*ALWAYS, 304, 400, 404, 409, 429, 504),
            ("Age", "ETag", "Last-Modified", "Warning"),
        )


def _guests(base: str, one: str, words: str) -> Iterable[Operation]:
    codes = (*ALWAYS, 400, 410, 504)
    many = (*LIST_OPTIONS, INCLUDE)
    kind = GVK[Guest]
    for path, name, of in (
        (f"{base}/guests", f"list{words}GuestForAllNamespaces", "all namespaces"),
        (f"{base}/namespaces/{{namespace}}/guests", f"list{words}NamespacedGuest", "a namespace"),
    ):
        parameters = (NAMESPACE, *many) if "{namespace}" in path else many
        text = f"List or watch the guests of {of}."
        yield Operation(path, name, text, GuestList, parameters, codes, (), "list", kind, streams=True)
    yield Operation(
        one,
        f"read{words}NamespacedGuest",
        "All that is known of a guest.",
        Guest,
        (NAMESPACE, NAME, INCLUDE, *WISHES, KNOWN),
        (*ALWAYS, 304, 400, 404, 429, 504),
        ("Age", "ETag", "Last-Modified", "Warning"),
        "get",
        kind,
    )


def _history(one: str, words: str) -> Operation:
    return Operation(
        f"{one}/{history.SUBRESOURCE}",
        f"read{words}NamespacedGuestHistory",
        "What happened to a guest, as far as the stream still tells, newest first.",
        history.GuestHistory,
        (NAMESPACE, NAME, *HISTORY_OPTIONS),
        (*ALWAYS, 400, 404),
    )


def _words(group: Group) -> str:
    """In names of operations."""
    return "".join(word.capitalize() for word in group.name.split("."))


ROOT: tuple[Operation, ...] = (
    Operation(
        "/apis/",
        "getAPIVersions",
        "The groups that are served. As APIGroupDiscoveryList by Accept, with their resources.",
        discovery.APIGroupList,
        (KNOWN,),
        (*ALWAYS, 304),
        ("ETag",),
    ),
    *(
        Operation(
            f"/apis/{group.name}/",
            f"get{_words(group)}APIGroup",
            "The versions of this group.",
            discovery.APIGroup,
            (KNOWN,),
            (*ALWAYS, 304),
            ("ETag",),
        )
        for group in GROUPS
    ),
    Operation(
        "/version/",
        "getVersion",
        "The version of this server.",
        discovery.Version,
        (KNOWN,),
        (*ALWAYS, 304),
        ("ETag",),
    ),
)
"""Those of no version; told in OpenAPI 2 only, as in 3 they would take the place of the cluster's own."""

ERROR = Status
"""The body of every code from 400 on."""
