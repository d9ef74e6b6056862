"""
What is served, as OpenAPI: version 2 in one document, version 3 in one for each version of a group.

Everything is made from structs: bodies from the contract's, the rest from those that are written. Clients that want
protobuf get 406, and then ask for JSON.

    schemas     structs as schemas
    objects     the objects as structs
    operations  paths, parameters, answers

The API server of a cluster merges what its extension servers say. It takes of version 2 only what lies under their own
groups, but all that the index of version 3 names; so that index names our group only. KubeVirt's belongs to KubeVirt
wherever there is one: its documents are served, and not announced.
"""

from __future__ import annotations

from typing import Any

from api.answers import JSON, Answer
from api.discovery import digest, of_document
from api.groups import GROUPS, GUESTWIRE, Group
from api.openapi.objects import GVK, WatchEvent
from api.openapi.operations import ERROR, HEADERS, MEANINGS, ROOT, Operation, Parameter, of_version
from api.openapi.schemas import PREFIX, Dialect, Schema
from guestwire import __version__

INFO = {"title": "guestwire", "version": f"v{__version__}"}
WATCHED = f"{JSON};stream=watch"
SEVERAL = [(group, version) for group in GROUPS for version in group.versions]


def version_2() -> dict[str, Any]:
    """All there is."""
    dialect = Dialect(2)
    every = [*ROOT, *(each for group, version in SEVERAL for each in of_version(group, version))]
    paths = {each.path: {"get": _operation(dialect, each)} for each in every}
    return {"swagger": "2.0", "info": INFO, "paths": paths, "definitions": _definitions(dialect)}


def version_3(group: Group, version: str) -> dict[str, Any]:
    """A version of a group."""
    dialect = Dialect(3)
    paths = {each.path: {"get": _operation(dialect, each)} for each in of_version(group, version)}
    return {"openapi": "3.0.0", "info": INFO, "paths": paths, "components": {"schemas": _definitions(dialect)}}


def _operation(dialect: Dialect, operation: Operation) -> dict[str, Any]:
    if operation.streams:
        dialect.of(WatchEvent)  # OpenAPI 2 has one body for each code
    told: dict[str, Any] = {
        "description": operation.description,
        "operationId": operation.name,
        "parameters": [_parameter(dialect, each) for each in operation.parameters],
        "responses": {str(code): _response(dialect, operation, code) for code in sorted(operation.codes)},
        "x-kubernetes-action": operation.action,
    }
    if dialect.number == 2:
        told["produces"] = [JSON, *([WATCHED] if operation.streams else [])]
    if operation.kind:
        told["x-kubernetes-group-version-kind"] = _gvk(operation.kind)
    return told


def _parameter(dialect: Dialect, parameter: Parameter) -> dict[str, Any]:
    told: dict[str, Any] = {"name": parameter.name, "in": parameter.where, "description": parameter.description}
    if parameter.where == "path":
        told["required"] = True
    return {**told, **parameter.schema} if dialect.number == 2 else {**told, "schema": parameter.schema}


def _response(dialect: Dialect, operation: Operation, code: int) -> dict[str, Any]:
    told: dict[str, Any] = {"description": MEANINGS[code]}
    if code == 304:
        return told
    schema = dialect.of(operation.answer if code == 200 else ERROR)
    if dialect.number == 2:
        told["schema"] = schema
    else:
        told["content"] = {JSON: {"schema": schema}}
        if operation.streams and code == 200:
            told["content"][WATCHED] = {"schema": dialect.of(WatchEvent)}
    names = operation.headers if code == 200 else ()
    if names:
        told["headers"] = {name: _header(dialect, HEADERS[name]) for name in names}
    return told


def _header(dialect: Dialect, description: str) -> dict[str, Any]:
    schema: Schema = {"type": "string"}
    return {"description": description, **(schema if dialect.number == 2 else {"schema": schema})}


def _definitions(dialect: Dialect) -> dict[str, Schema]:
    """With the marks by which kubectl finds a kind."""
    for struct, kind in GVK.items():
        name = PREFIX + struct.__name__
        if name in dialect.definitions:
            dialect.definitions[name]["x-kubernetes-group-version-kind"] = [_gvk(kind)]
    return dict(sorted(dialect.definitions.items()))


def _gvk(kind: str) -> dict[str, str]:
    return {"group": GUESTWIRE.name, "kind": kind, "version": GUESTWIRE.versions[0]}


def _documents() -> dict[str, Answer]:
    found = {f"apis/{group.name}/{version}": of_document(version_3(group, version)) for group, version in SEVERAL}
    index = {
        key: {"serverRelativeURL": f"/openapi/v3/{key}?hash={digest(answer.body)}"}
        for key, answer in found.items()
        if key.startswith(f"apis/{GUESTWIRE.name}/")
    }
    return {
        "/openapi/v2": of_document(version_2()),
        "/openapi/v3": of_document({"paths": index}),
        **{f"/openapi/v3/{key}": answer for key, answer in found.items()},
    }


DOCUMENTS = _documents()
"""By path, ready to be sent."""
