"""
The contract as an AsyncAPI 3 document, made from the structs: a channel per kind, and the request that reads a guest.

It is written from the pipeline's side: it sends facts and answers requests. AsyncAPI's bindings for NATS say nothing
about streams and headers: headers are a message's `headers` schema, and the stream is told in words.
"""

from __future__ import annotations

from typing import Any

import msgspec

from guestwire import __version__, subjects
from guestwire.kinds import BODIES

PARAMETERS = {
    "cluster": {"description": "the collector's setting `cluster`, as a token", "examples": ["local"]},
    "namespace": {"description": "the guest's namespace, as a token", "examples": ["default"]},
    "name": {"description": "the guest's name, as a token", "examples": ["demo", "web=2E1"]},
}


def document() -> dict[str, Any]:
    """All of it, ready to be written as JSON."""
    references, schemas = msgspec.json.schema_components(
        list(BODIES.values()), ref_template="#/components/schemas/{name}"
    )
    bodies = dict(zip(BODIES, references, strict=True))
    return {
        "asyncapi": "3.0.0",
        "id": "urn:guestwire:v1",
        "info": {
            "title": "guestwire",
            "version": __version__,
            "description": "What QEMU guest agents know about virtual machines, on NATS, the moment it changes. "
            "A JetStream stream (GUESTWIRE by default) takes every fact: the last message of a subject is the present "
            "value, the stream sequence its revision. Ignore kinds and fields that you do not know.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"nats": {"host": "127.0.0.1:4222", "protocol": "nats", "description": "the setting nats.servers"}},
        "channels": {kind: _channel(kind) for kind in BODIES} | {"read": _read_channel()},
        "operations": {f"send-{kind}": _send(kind) for kind in BODIES} | {"read": _read()},
        "components": {
            "messages": {kind: _message(kind, body) for kind, body in bodies.items()} | _read_messages(),
            "messageTraits": {"cloudEvent": {"headers": _event_headers()}},
            "parameters": PARAMETERS,
            "schemas": schemas,
        },
    }


def _reference(*path: str) -> dict[str, str]:
    return {"$ref": "/".join(("#", *path))}


def _parameters(*more: str) -> dict[str, Any]:
    return {name: _reference("components", "parameters", name) for name in (*PARAMETERS, *more)}


def _channel(kind: str) -> dict[str, Any]:
    return {
        "address": f"{subjects.PREFIX}.{{cluster}}.{{namespace}}.{{name}}.{kind}",
        "title": kind,
        "parameters": _parameters(),
        "messages": {kind: _reference("components", "messages", kind)},
    }


def _send(kind: str) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": _reference("channels", kind),
        "summary": f"{kind} of a guest, when it has changed",
        "messages": [_reference("channels", kind, "messages", kind)],
    }


def _message(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"io.guestwire.guest.{kind}.v1",
        "title": kind,
        "contentType": "application/json",
        "traits": [_reference("components", "messageTraits", "cloudEvent")],
        "headers": {
            "type": "object",
            "properties": {
                "ce-type": {"type": "string", "const": f"io.guestwire.guest.{kind}.v1"},
                "ce-dataschema": {"type": "string", "const": f"urn:guestwire:v1:{kind}"},
            },
        },
        "payload": body,
    }


def _event_headers() -> dict[str, Any]:
    """What every message has; values are percent-encoded as the NATS binding of CloudEvents says."""

    def text(description: str, **more: Any) -> dict[str, Any]:
        return {"type": "string", "description": description, **more}

    properties = {
        "ce-specversion": text("CloudEvents, binary mode", const="1.0"),
        "ce-id": text("names this change of this subject; a repeated message has the same"),
        "ce-source": text("/guestwire/<cluster>/<host>: whose collector wrote it", format="uri-reference"),
        "ce-type": text("io.guestwire.guest.<kind>.v1"),
        "ce-subject": text("<namespace>/<name>"),
        "ce-time": text("when the content was read from the guest; in agent, when it was made", format="date-time"),
        "ce-datacontenttype": text("of the body", const="application/json"),
        "ce-dataschema": text("urn:guestwire:v1:<kind>", format="uri"),
        "ce-guestuid": text("KubeVirt's uid of the VMI, else the UUID of the domain"),
        "Nats-Msg-Id": text("the ce-id, by which the server drops doubles"),
        "traceparent": text("W3C Trace Context; all messages of one look at a guest share the trace id"),
    }
    return {"type": "object", "required": list(properties), "properties": properties}


# --- reading a guest now ---------------------------------------------------------------------------------------------


def _read_channel() -> dict[str, Any]:
    what = {"description": "a kind but agent, or all", "enum": [*(kind for kind in BODIES if kind != "agent"), "all"]}
    return {
        "address": f"{subjects.PREFIX}.{{cluster}}.{{namespace}}.{{name}}.read.{{kind}}",
        "title": "read",
        "parameters": _parameters() | {"kind": what},
        "messages": {name: _reference("components", "messages", name) for name in _read_messages()},
    }


def _read() -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": _reference("channels", "read"),
        "summary": "have a guest read now, whatever the schedule says",
        "messages": [_reference("channels", "read", "messages", "readRequest")],
        "reply": {
            "address": {"location": "$message.header#/reply", "description": "NATS's reply subject"},
            "channel": _reference("channels", "read"),
            "messages": [_reference("channels", "read", "messages", "readAnswer")],
        },
    }


def _read_messages() -> dict[str, Any]:
    revisions = {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "description": "by kind, changed or not",
    }
    answer = {
        "type": "object",
        "required": ["namespace", "name", "revisions"],
        "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}, "revisions": revisions},
    }
    errors = {
        "Nats-Service-Error-Code": {"type": "string", "enum": ["400", "429", "500", "504"]},
        "Nats-Service-Error": {"type": "string", "description": "the reason; the body is empty then"},
    }
    return {
        "readRequest": {
            "title": "request to read a guest",
            "payload": {"description": "empty; the subject says it all"},
        },
        "readAnswer": {
            "title": "what was read",
            "contentType": "application/json",
            "headers": {"type": "object", "properties": errors},
            "payload": answer,
        },
    }
