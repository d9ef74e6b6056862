"""
What is served against what OpenAPI says: requests by the thousand, made from the documents by schemathesis, valid and
invalid ones, to the API as it is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import sampled_from
from schemathesis import GenerationMode
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from guestwire.snapshot import GuestRef, Kind
from lab.nats_server import NatsServer
from lab.process import OwnedDirectory
from tests.conftest import part
from tests.integration.api.fleet import Collector, Replica, state

VM = GuestRef("default", "vm1")
AWAY = GuestRef("default", "away")
DOCUMENTS = (
    "/openapi/v2",
    "/openapi/v3/apis/guestwire.io/v1",
    "/openapi/v3/apis/subresources.kubevirt.io/v1",
    "/openapi/v3/apis/subresources.kubevirt.io/v1alpha3",
)

EXCUSED = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)


def no_bug(context: Any, response: Any, case: Any) -> None:
    """503 and 504 are answers; 500 is none."""
    assert 500 != response.status_code


CHECKS = [
    no_bug,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]


@pytest.fixture(scope="module")
def api() -> Iterator[Replica]:
    """An API that knows everything of one guest, and another whose agent is away."""
    with OwnedDirectory() as directory, part("nats-server"), NatsServer(directory / "nats") as nats:
        collector = Collector(nats)
        collector.everything(VM)
        collector.publish((AWAY, Kind.AGENT, state(AWAY, connected=False)))
        replica = Replica(nats, directory / "api")
        replica.start()
        yield replica
        replica.stop()


def walk(operation: Any, mode: GenerationMode) -> set[int]:
    """Ask an operation many things, of guests that are there and of others; the codes it answered with."""
    codes: set[int] = set()

    @settings(max_examples=25, phases=[Phase.explicit, Phase.generate], suppress_health_check=EXCUSED)
    @given(case=operation.as_strategy(generation_mode=mode), ref=sampled_from((None, VM, VM, AWAY)))
    def ask(case: Any, ref: GuestRef | None) -> None:
        if ref and case.path_parameters:
            case.path_parameters |= {name: getattr(ref, name) for name in case.path_parameters}
        if ref == VM and case.query and mode is GenerationMode.POSITIVE:
            case.query.pop("maxAge", None)  # there is no collector that could read it
        if case.query and "watch" in case.query:
            case.query["timeoutSeconds"] = 1
        response = case.call(timeout=60)
        case.validate_response(response, checks=[each for each in CHECKS if each not in excused(response, case)])
        codes.add(response.status_code)

    ask()
    return codes


def wrong(operation: Any) -> bool:
    """Whether a request for it can be wrong: headers and names may be any text."""
    return any(parameter.location == ParameterLocation.QUERY for parameter in operation.iter_parameters())


def excused(response: Any, case: Any) -> list[Any]:
    """A watch is many bodies, and 304 has none: OpenAPI 2 cannot tell them from the others."""
    streamed = response.status_code == 200 and case.query and is_watch(case.query.get("watch"))
    return [
        *([checks.response_schema_conformance] if streamed else []),
        *([checks.content_type_conformance] if response.status_code == 304 else []),
    ]


def is_watch(said: object) -> bool:
    """As Kubernetes reads it: what is not false is true."""
    return said is not None and str(said).lower() not in {"false", "0"}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
@pytest.mark.parametrize("document", DOCUMENTS)
def test_served_as_described(api: Replica, document: str, mode: GenerationMode) -> None:
    """
    To requests as they should and should not be, every operation answers with a code, a type, headers and a body that
    are described for it, and methods that are not described are not allowed.
    """
    schema = schemathesis.openapi.from_url(api.url + document)
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    answered = {each.label: walk(each, mode) for each in operations if mode is GenerationMode.POSITIVE or wrong(each)}

    assert answered
    if mode is GenerationMode.POSITIVE:
        assert {} == {label: codes for label, codes in answered.items() if 200 not in codes}


@pytest.mark.parametrize(
    "path",
    ["/", "/apis", "/apis/guestwire.io", "/apis/guestwire.io/v1", "/version", *DOCUMENTS, "/openapi/v3"],
)
def test_documents_are_conditional(api: Replica, path: str) -> None:
    """A client that has a document is not sent it again; another one's digest, or another form, is another document."""
    status, headers, body = api.get(path)
    again = api.get(path, If_None_Match=headers["etag"])

    assert (200, "Accept", "no-cache") == (status, headers["vary"], headers["cache-control"])
    assert json.loads(body)
    assert (304, b"", headers["etag"]) == (again[0], again[2], again[1]["etag"])
    assert 200 == api.get(path, If_None_Match='"0"')[0]
    assert 406 == api.get(path, Accept="application/com.github.proto-openapi.spec.v2.v1.0+protobuf")[0]


def test_discovery_all_at_once(api: Replica) -> None:
    """It has a type and an ETag of its own, by which clients tell it from the other form."""
    _, plain, _ = api.get("/apis")
    wanted = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    status, headers, body = api.get("/apis", Accept=f"{wanted},application/json")

    assert (200, wanted) == (status, headers["content-type"])
    assert plain["etag"] != headers["etag"]
    assert ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2") == tuple(
        json.loads(body)[each] for each in ("kind", "apiVersion")
    )
    assert 304 == api.get("/apis", Accept=wanted, If_None_Match=headers["etag"])[0]


def test_events_are_as_described(api: Replica) -> None:
    """Every line of a watch is a WatchEvent, and its object is a Guest, or a bookmark of one."""
    query = "watch=true&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true"
    _, _, body = api.get(f"/apis/guestwire.io/v1/guests?{query}&resourceVersionMatch=NotOlderThan")
    document = json.loads(api.get("/openapi/v3/apis/guestwire.io/v1")[2])
    events = [json.loads(line) for line in body.splitlines()]
    described = document["components"]["schemas"]["io.guestwire.v1.WatchEvent"]["properties"]

    assert ["ADDED", "ADDED", "BOOKMARK"] == [event["type"] for event in events]
    for event in events:
        assert set(described) == set(event)
        assert event["type"] in described["type"]["enum"]
        assert ("guestwire.io/v1", "Guest") == (event["object"]["apiVersion"], event["object"]["kind"])
