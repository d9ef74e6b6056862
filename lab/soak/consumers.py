"""
What each consumer says now, asked the way its users ask: HTTP, kubectl, the subscriber's file, SQL.

Everything here blocks.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from lab.errors import LabError
from lab.soak.expected import FACTS, Bodies, Expected
from lab.world import Cluster

Ref = tuple[str, str]
Said = dict[Ref, Bodies]
"""The bodies that a consumer has of each guest, by kind; a guest that it does not know is not there."""

OWN = "/apis/guestwire.io/v1"
KUBEVIRT = "/apis/subresources.kubevirt.io/v1/namespaces/{}/virtualmachineinstances/{}/{}"
KUBEVIRT_KINDS = ("guestosinfo", "userlist", "filesystemlist")
PATIENCE = 20.0
"""Seconds for which an export may be busy writing."""
EXPORTED = "SELECT namespace, name, events.kind, body FROM events JOIN present USING (epoch, revision)"
TABLES = {
    "userlist": "SELECT namespace, name, user_name FROM users_now",
    "filesystemlist": "SELECT namespace, name, mount_point, used_bytes FROM filesystems_now",
    "interfaces": "SELECT namespace, name, interface, address FROM addresses_now",
    "agent": "SELECT namespace, name, phase, connected FROM guests",
}
"""What the tables for SQL have, beside the messages as they came, by the kind that it is made of."""


class Rest:
    """The API."""

    def __init__(self, address: str) -> None:
        self._address = address

    def said(self, expected: Iterable[Expected]) -> tuple[Said, list[str]]:
        """Every kind about every guest; and each path that was answered with another status than it should."""
        said: Said = {}
        wrong: list[str] = []
        with closing(http.client.HTTPConnection(self._address, timeout=10)) as api:
            for item in _get(api, f"{OWN}/guests")[1]["items"]:
                said[item["metadata"]["namespace"], item["metadata"]["name"]] = {}
            for guest in expected:
                for kind in ("agent", *(guest.bodies if guest.there else FACTS)):
                    path = f"{OWN}/namespaces/{guest.namespace}/guests/{guest.name}/{kind}"
                    status, body = _get(api, f"{path}?allowStale=true")
                    wrong += _unlike(path, 200 if guest.there else 404, status)
                    if status == http.HTTPStatus.OK:
                        said.setdefault(guest.ref, {})[kind] = body
                wrong += self._kubevirt(api, guest, said.get(guest.ref, {}))
        return said, wrong

    def _kubevirt(self, api: http.client.HTTPConnection, guest: Expected, own: Bodies) -> Iterator[str]:
        """KubeVirt's paths: another status while the agent is away, else the same bodies."""
        expected = 404 if not guest.there else 200 if guest.connected else 409
        for kind in KUBEVIRT_KINDS:
            path = KUBEVIRT.format(*guest.ref, kind)
            status, body = _get(api, path)
            if expected != http.HTTPStatus.OK or kind in guest.bodies:
                yield from _unlike(path, expected, status)
            if status == http.HTTPStatus.OK and body != own.get(kind):
                yield f"{path}: another body than below {OWN}"


def vmis(cluster: Cluster) -> dict[Ref, dict[str, Any]]:
    """The status of every VMI."""
    items = json.loads(cluster.kubectl("get", "vmi", "-A", "-o", "json"))["items"]
    return {(one["metadata"]["namespace"], one["metadata"]["name"]): one.get("status") or {} for one in items}


def subscriber(path: Path) -> Said:
    """What the subscriber has stored."""
    said: Said = {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        for namespace, name, kind, body in db.execute("SELECT namespace, name, kind, body FROM latest"):
            said.setdefault((namespace, name), {})[kind] = json.loads(body)
    return said


def export(path: Path) -> tuple[Said, dict[str, dict[Ref, set[tuple[Any, ...]]]]]:
    """The present messages in an export, and the rows that are made of them, by kind."""
    said: Said = {}
    rows: dict[str, dict[Ref, set[tuple[Any, ...]]]] = {}
    with closing(_open(path)) as db:
        for namespace, name, kind, body in db.execute(EXPORTED).fetchall():
            said.setdefault((namespace, name), {})[kind] = json.loads(body)
        for kind, query in TABLES.items():
            of_kind = rows.setdefault(kind, {})
            for namespace, name, *row in db.execute(query).fetchall():
                of_kind.setdefault((namespace, name), set()).add(tuple(row))
    return said, rows


def _open(path: Path) -> duckdb.DuckDBPyConnection:
    """Once it is not being written."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return duckdb.connect(path, read_only=True)
        except duckdb.IOException as error:
            if time.monotonic() > deadline:
                raise LabError(f"the export cannot be read: {error}") from error
        time.sleep(0.05)


def _get(api: http.client.HTTPConnection, path: str) -> tuple[int, Any]:
    try:
        api.request("GET", path)
        answer = api.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise LabError(f"GET {path}: {error!r}") from error


def _unlike(path: str, expected: int, status: int) -> list[str]:
    return [] if status == expected else [f"{path}: status {status} instead of {expected}"]
