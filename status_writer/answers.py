"""What a failed answer of the API server means, by consequence. Pure: bytes in, exceptions out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from guestwire.errors import NotConnected, Rejected, TransientError
from status_writer.outcome import Conflict


class Expired(Exception):  # noqa: N818 - Kubernetes' word
    """The server has forgotten the version a watch wanted to go on from."""


class Gone(Exception):  # noqa: N818
    """There is no such object."""


class NotServed(TransientError):  # noqa: N818
    """The path is not there (yet, or any more); which is not the same as an object that is not there."""


def error_of(what: str, status: int, body: bytes, headers: Mapping[str, str]) -> Exception:
    """What a failed answer means."""
    answer = _status_of(body)
    details = answer.get("details") or {}
    message = f"{what}: {status} {answer.get('message') or body[:200].decode(errors='replace').strip()}"
    match status:
        case 404:
            return Gone(message) if details.get("name") else NotServed(message)
        case 409:
            return Conflict(message)
        case 410:
            return Expired(message)
        case 422 if not details.get("causes") and not details.get("kind"):
            return Conflict(message)  # the patch could not be applied: a `test` failed, or a path has gone
        case 400 | 403 | 422:
            return Rejected(message)
        case 401:
            return NotConnected(message)
        case _:
            return TransientError(message, delay=_seconds(headers.get("Retry-After")))


def _status_of(body: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def error_of_watch(status: Mapping[str, Any]) -> Exception:
    """What a watch's ERROR event means."""
    if status.get("code") == 410:
        return Expired()
    return TransientError(f"watch VMIs: {status.get('code')} {status.get('message')}")


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None
