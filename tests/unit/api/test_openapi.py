"""What OpenAPI says, held against the structs and the code it is made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from starlette.routing import Route

from api import documents
from api.app import Api, Limits
from api.cache import Cache
from api.fresh import Wish
from api.groups import GROUPS, GUESTWIRE
from api.history import History, Page
from api.metrics import Metrics
from api.openapi import version_2, version_3
from api.openapi.operations import of_version
from api.openapi.schemas import PREFIX, Dialect, field_notes
from api.options import Options
from guestwire import settings
from guestwire.jetstream import Bus
from guestwire.machine import DiskStats
from guestwire.snapshot import AgentState, User

GOLDEN = sorted((Path(__file__).parents[2] / "contract" / "golden").glob("v*/*.json"))
BODIES = [file for file in GOLDEN if file.name != "message.json"]
EVERY = [each for group in GROUPS for version in group.versions for each in of_version(group, version)]


ALL_AT_ONCE = b"application/json;g=apidiscovery.k8s.io;v=%b;as=APIGroupDiscoveryList"


class Asked(dict[str, str]):
    """A query that remembers what it was asked for."""

    def __init__(self, **given: str) -> None:
        super().__init__(given)
        self.names: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """Of a parameter."""
        self.names.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.names.add(str(key))
        return super().__contains__(key)


def nodes(document: Any) -> Iterator[dict[str, Any]]:
    """Every object within a document."""
    if isinstance(document, dict):
        yield document
        for each in document.values():
            yield from nodes(each)
    elif isinstance(document, list):
        for each in document:
            yield from nodes(each)


def _type(validator: Any, wanted: Any, instance: Any, schema: dict[str, Any]) -> Iterator[Any]:
    """`type` with OpenAPI's `nullable`."""
    if instance is not None or not (schema.get("nullable") or schema.get("x-nullable")):
        yield from jsonschema.Draft4Validator.VALIDATORS["type"](validator, wanted, instance, schema)


Validator = jsonschema.validators.extend(jsonschema.Draft4Validator, {"type": _type})  # type: ignore[no-untyped-call]


def check(document: dict[str, Any], name: str, body: Any) -> None:
    """Validate against a definition, with fields that it does not name forbidden."""
    copy = json.loads(json.dumps(document))
    for node in nodes(copy):
        if isinstance(node.get("properties"), dict) and node.get("type") == "object":
            node["additionalProperties"] = False
    place = "components/schemas" if "components" in copy else "definitions"
    Validator({**copy, "allOf": [{"$ref": f"#/{place}/{PREFIX}{name}"}]}).validate(body)


@pytest.mark.parametrize("document", [version_2(), version_3(GUESTWIRE, "v1")], ids=["v2", "v3"])
@pytest.mark.parametrize("file", BODIES, ids=lambda file: file.stem)
def test_bodies_are_as_described(document: dict[str, Any], file: Path) -> None:
    """What collectors publish has the described types, all that is required, and no field that is not described."""
    kind = file.name.partition(".")[0]
    body = json.loads(file.read_bytes())
    struct = next(each.answer for each in EVERY if each.path.endswith(f"/{kind}"))

    check(document, struct.__name__, body)
    with pytest.raises(jsonschema.ValidationError):
        check(document, struct.__name__, {**body, "noSuchField": 1})


@pytest.mark.parametrize("document", [version_2(), version_3(GUESTWIRE, "v1")], ids=["v2", "v3"])
def test_numbers_have_their_width(document: dict[str, Any]) -> None:
    """Sizes and counters pass 32 bits, so generated clients are told how wide each number is."""
    formats = {
        (node["type"], node.get("format")) for node in nodes(document) if node.get("type") in ("integer", "number")
    }

    assert {("integer", "int64"), ("number", "double")} == formats


@pytest.mark.parametrize("document", [version_2(), *(version_3(group, "v1") for group in GROUPS)])
def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    """Every reference is to a definition of the same document, and every definition is referred to."""
    definitions = document.get("definitions") or document["components"]["schemas"]
    named = {node["$ref"].rpartition("/")[2] for node in nodes(document) if "$ref" in node}

    assert set() == named - set(definitions)
    assert set(definitions) - named <= {f"{PREFIX}WatchEvent"}


def test_null_is_only_where_it_is_written() -> None:
    """Unknown is absent; the one field that is null when there is nothing says so, in both dialects."""
    two, three = (
        {
            (name, field)
            for name, schema in definitions.items()
            for field, node in schema["properties"].items()
            if node.get("nullable") or node.get("x-nullable")
        }
        for definitions in (version_2()["definitions"], version_3(GUESTWIRE, "v1")["components"]["schemas"])
    )

    assert {(f"{PREFIX}FilesystemInfo", "disks")} == two == three


def test_descriptions_come_from_the_structs() -> None:
    """The docstring behind a field is its description, of a struct within another its own; bases count too."""
    schemas = version_3(GUESTWIRE, "v1")["components"]["schemas"]
    agent = schemas[f"{PREFIX}AgentState"]

    assert (
        field_notes(AgentState)["domain"]
        == agent["properties"]["domain"]["description"]
        == "libvirt's name of the domain."
    )
    assert "Requests under way; not a counter." == field_notes(DiskStats)["in_flight"]
    assert (AgentState.__doc__ or "") == agent["description"]
    assert "Processes that ran or waited to" in schemas[f"{PREFIX}Load"]["description"]
    assert "The load averages." == schemas[f"{PREFIX}GuestStatus"]["properties"]["load"]["description"]
    assert {"$ref": f"#/components/schemas/{PREFIX}OperatingSystem"} == schemas[f"{PREFIX}GuestOSInfo"]["properties"][
        "os"
    ]


def test_every_struct_is_described() -> None:
    """`kubectl explain` has something to say about each."""
    for document in (version_2(), *(version_3(group, "v1") for group in GROUPS)):
        definitions = document.get("definitions") or document["components"]["schemas"]

        assert [] == [name for name, schema in definitions.items() if not schema["description"]]


def test_parameters_are_those_that_are_read() -> None:
    """Every parameter that the code looks for is described, and no other."""
    listed, wished, paged = Asked(watch="true"), Asked(), Asked()
    Options.of(listed)
    Wish.of(wished)
    Page.of(paged)
    by_answer = {
        each.name: {one.name for one in each.parameters if one.where == "query"} for each in EVERY if each.parameters
    }

    assert listed.names | {"includeObject"} == by_answer["listGuestwireIoV1GuestForAllNamespaces"]
    assert listed.names | {"includeObject"} == by_answer["listGuestwireIoV1NamespacedGuest"]
    assert wished.names == by_answer["readGuestwireIoV1NamespacedGuestsUserlist"]
    assert paged.names == by_answer["readGuestwireIoV1NamespacedGuestHistory"]


def test_every_path_is_described() -> None:
    """Each route below a version of a group is described, with its kinds and versions."""
    cache = Cache()
    history = History(Bus(settings.Nats(), "test"), "local")
    api = Api(cache, Metrics(cache, connected=lambda: True, skipped=lambda: 0), Limits(), history=history)
    served = set()
    for route in api._routes.routes:
        assert isinstance(route, Route)
        if not route.path.startswith("/apis/"):
            continue
        for group in GROUPS:
            for version in group.versions:
                for kind in group.kinds:
                    path = route.path.replace("{version}", version).replace("{kind}", kind)
                    if path.startswith(f"/apis/{group.name}/{version}"):
                        served.add(path.rstrip("/"))

    assert served == {each.path.rstrip("/") for each in EVERY}


def test_names_of_operations_are_unique() -> None:
    """Clients that are generated make functions of them."""
    names = [path["get"]["operationId"] for path in version_2()["paths"].values()]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"", "APIGroupList"),
        (b"application/json", "APIGroupList"),
        (b"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "v2"),
        (b"application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io", "v2beta1"),
        (b"application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json", "APIGroupList"),
        (b"application/vnd.kubernetes.protobuf", None),
        (b"application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList", None),
        (b"application/json;g=meta.k8s.io;v=v1;as=Table", None),
        (
            b",".join((ALL_AT_ONCE % b"v2", ALL_AT_ONCE % b"v2beta1", b"application/json")),
            "v2",
        ),
    ],
)
def test_form_of_discovery(accept: bytes, expected: str | None) -> None:
    """A client is given the newest form it asks for, else the next one; 406 when there is none."""
    answer = documents.find("/apis", accept)
    body = json.loads(answer.body) if answer else {}
    got = body["apiVersion"].rpartition("/")[2] if "items" in body else body.get("kind")

    assert expected == got
    assert answer is None or ("as=APIGroupDiscoveryList" in answer.entity.decode()) == ("items" in body)


def test_both_forms_of_discovery_tell_the_same() -> None:
    """Groups, versions, resources, subresources and verbs are the same in both."""
    asked = documents.find("/apis", b"application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io")
    assert asked
    all_at_once = json.loads(asked.body)
    one = {
        (group["metadata"]["name"], version["version"], name, tuple(verbs))
        for group in all_at_once["items"]
        for version in group["versions"]
        for resource in version["resources"]
        for name, verbs in (
            *([(resource["resource"], resource["verbs"])] if resource["verbs"] else []),
            *((f"{resource['resource']}/{each['subresource']}", each["verbs"]) for each in resource["subresources"]),
        )
    }
    other = {
        (group.name, version, resource["name"], tuple(resource["verbs"]))
        for group in GROUPS
        for version in group.versions
        for resource in json.loads(documents.DOCUMENTS[f"/apis/{group.name}/{version}"].body)["resources"]
    }

    assert other == one


def test_index_names_our_own_only() -> None:
    """
    A cluster's API server takes all that an extension server's index names, so nothing is there of the cluster's, or of
    KubeVirt's.
    """
    index = json.loads(documents.DOCUMENTS["/openapi/v3"].body)["paths"]

    assert {"apis/guestwire.io/v1"} == set(index)
    for key, entry in index.items():
        path, _, digest = entry["serverRelativeURL"].partition("?hash=")
        assert (f"/openapi/v3/{key}", f'"{digest}"'.encode()) == (path, documents.DOCUMENTS[path].etag)


def test_a_type_that_is_new_is_noticed() -> None:
    """A struct with a type that nobody thought of fails at once, rather than to be described wrongly."""
    with pytest.raises(KeyError):
        Dialect(3).of(bytes)


def test_names_of_structs_do_not_collide() -> None:
    """Two structs of one name are not taken for one another."""
    other = msgspec.defstruct("User", [("id", int)])
    dialect = Dialect(3)
    dialect.of(User)

    with pytest.raises(TypeError, match="needs a name of its own"):
        dialect.of(other)
