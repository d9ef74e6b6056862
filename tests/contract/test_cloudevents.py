"""
Messages as CloudEvents, read by the official SDK.

It has no binding for NATS. That binding differs from the one for HTTP in a single header: the type of the body is
`ce-datacontenttype` on NATS, and `Content-Type` over HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from guestwire import codec
from guestwire.snapshot import GuestRef, Part

GOLDEN = sorted(Path(__file__).parent.glob("golden/v*/*.json"))
MESSAGES = [file for file in GOLDEN if file.name == "message.json"]
BODIES = [file for file in GOLDEN if file.name != "message.json"]


def read(headers: Mapping[str, str], body: bytes) -> BaseCloudEvent:
    """A message as the SDK understands it; it raises for what is no CloudEvent."""
    events = {name: value for name, value in headers.items() if name.lower().startswith("ce-")}
    content_type = events.pop("ce-datacontenttype")
    return from_http_event(HTTPMessage({**events, "Content-Type": content_type}, body))


@pytest.mark.parametrize("file", MESSAGES, ids=str)
def test_golden_message(file: Path) -> None:
    """Headers that a release wrote, with a name that needs every kind of escaping."""
    message: Any = json.loads(file.read_text())
    event, expected = read(message["headers"], b"{}"), message["expected"]

    assert expected["id"] == event.get_id()
    assert f"{expected['namespace']}/{expected['name']}" == event.get_subject()
    assert expected["uid"] == event.get_extension("guestuid")
    time = event.get_time()
    assert time is not None
    assert expected["time"] == codec.timestamp(time)


@pytest.mark.parametrize("file", BODIES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_golden_body(file: Path) -> None:
    """Every golden body in the headers that it gets today: all attributes, and the data as it was."""
    kind, body = file.name.partition(".")[0], file.read_bytes()
    now = codec.now()
    headers = codec.event_headers(
        ref=GuestRef("prod", 'a "b" é%'), uid="u", cluster="c 1", host="h/1", part=Part(kind, body, "", now),
        message_id="0" * 32, trace_id=codec.new_trace_id(),
    )  # fmt: skip
    event = read(headers, body)

    assert {
        "specversion": "1.0",
        "id": "0" * 32,
        "source": "/guestwire/c%201/h%2F1",
        "type": f"io.guestwire.guest.{kind}.v1",
        "subject": 'prod/a "b" é%',
        "time": now,
        "datacontenttype": "application/json",
        "dataschema": f"urn:guestwire:v1:{kind}",
        "guestuid": "u",
    } == event.get_attributes()
    assert json.loads(body) == event.get_data()
