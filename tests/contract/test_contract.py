"""
The published contract: messages of every release, schemas, and the examples in the documentation.

`golden/v<release>` holds bodies as that release wrote them, `<kind>.<case>.json`, byte for byte, and in `message.json`
subject and headers of one of them. Files of a release are never changed; later releases add a folder of their own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from guestwire import codec
from guestwire.cli.schema import files
from guestwire.codec import Event
from guestwire.kinds import BODIES as STRUCTS
from guestwire.subjects import Address

ROOT = Path(__file__).parents[2]
GOLDEN = sorted(Path(__file__).parent.glob("golden/v*/*.json"))
BODIES = [file for file in GOLDEN if file.name != "message.json"]
MESSAGES = [file for file in GOLDEN if file.name == "message.json"]


def name(file: Path) -> str:
    """`v0.1.0/agent.connected`."""
    return f"{file.parent.name}/{file.stem}"


def kind_of(file: Path) -> str:
    """From the file's name."""
    return file.name.partition(".")[0]


def validate(kind: str, body: Any) -> None:
    """Against the published schema."""
    schema = json.loads((ROOT / "schema" / f"{kind}.v1.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(body)


@pytest.mark.parametrize("file", BODIES, ids=name)
def test_golden_body(file: Path) -> None:
    """What a release wrote is understood, and would be written the same today."""
    data = file.read_bytes()

    assert data == codec.encode(codec.decode(data, STRUCTS[kind_of(file)]))


@pytest.mark.parametrize("file", BODIES, ids=name)
def test_golden_body_follows_the_schema(file: Path) -> None:
    """A subscriber that checks bodies against the published schema takes what any release wrote."""
    validate(kind_of(file), json.loads(file.read_bytes()))


@pytest.mark.parametrize("file", MESSAGES, ids=name)
def test_golden_message(file: Path) -> None:
    """Subject and headers that a release wrote still say where a message belongs, when it was true, and from where."""
    message = json.loads(file.read_text())
    address, event = Address.parse(message["subject"]), Event.of(message["headers"])

    assert message["subject"] == address.subject
    assert message["expected"] == {
        "cluster": address.cluster,
        "namespace": address.ref.namespace,
        "name": address.ref.name,
        "kind": address.kind,
        "id": event.id,
        "uid": event.uid,
        "host": event.host,
        "time": codec.timestamp(event.time),
        "trace_id": event.trace_id,
    }


def test_every_kind_has_golden_bodies() -> None:
    """No kind is without an example that later releases must decode."""
    assert set(codec.kinds()) == {kind_of(file) for file in BODIES}


def test_schemas_are_those_of_the_structs() -> None:
    """The published schemas and the AsyncAPI document are generated, all of them, and nothing else lies beside them."""
    assert files() == {file.name: file.read_text() for file in (ROOT / "schema").iterdir()}


def examples() -> list[Any]:
    """The JSON bodies in docs/messages.md, each with the kind that its heading names."""
    text = (ROOT / "docs" / "messages.md").read_text()
    found = []
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE):
        heading, _, rest = section.partition("\n")
        kind = heading.strip("` ")
        if kind in codec.kinds():
            blocks = re.findall(r"```json\n(.*?)```", rest, flags=re.DOTALL)
            found += [pytest.param(kind, block, id=f"{kind}-{number}") for number, block in enumerate(blocks)]
    return found


@pytest.mark.parametrize(("kind", "text"), examples())
def test_documented_body(kind: str, text: str) -> None:
    """An example in the documentation is a body: it follows the schema, and no key in it is unknown."""
    body = json.loads(text)
    validate(kind, body)

    assert body == json.loads(codec.encode(codec.decode(text.encode(), STRUCTS[kind])))


def test_every_kind_is_documented() -> None:
    """Each kind has a section with an example."""
    assert set(codec.kinds()) == {example.values[0] for example in examples()}
