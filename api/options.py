"""The parameters of list and watch, as metav1.ListOptions has them; those that are not known are left alone."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import msgspec

from guestwire.errors import GuestwireError
from guestwire.snapshot import GuestRef


class OptionError(GuestwireError):
    """One line that names the parameter."""


class Options(msgspec.Struct, frozen=True):
    """What was asked for; 0, empty and None stand for what was not."""

    limit: int = 0
    start: Continue | None = None
    revision: int = 0
    match: str = ""
    """resourceVersionMatch."""
    any_revision: bool = True
    """No resourceVersion, or "0"."""
    labels: str = ""
    fields: str = ""
    watch: bool = False
    timeout: float = 0
    """Seconds."""
    bookmarks: bool = False
    initial_events: bool | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Options:
        """Raises OptionError."""
        version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
        token, watch, initial = query.get("continue", ""), _flag(query, "watch"), _flag(query, "sendInitialEvents")
        options = cls(
            limit=_number(query, "limit"),
            start=Continue.parse(token) if token else None,
            revision=_number(query, "resourceVersion"),
            match=match,
            any_revision=version in {"", "0"},
            labels=query.get("labelSelector", ""),
            fields=query.get("fieldSelector", ""),
            watch=bool(watch),
            timeout=_number(query, "timeoutSeconds"),
            bookmarks=bool(_flag(query, "allowWatchBookmarks")),
            initial_events=initial,
        )
        options._check(version)
        return options

    def _check(self, version: str) -> None:
        if self.match not in {"", "Exact", "NotOlderThan"}:
            raise OptionError(f"resourceVersionMatch: {self.match!r} is neither Exact nor NotOlderThan")
        if self.initial_events is not None and not self.watch:
            raise OptionError("sendInitialEvents: is for watches")
        if self.watch:
            if self.match and self.initial_events is None:
                raise OptionError("resourceVersionMatch: is for watches with sendInitialEvents only")
            if self.initial_events is not None and self.match != "NotOlderThan":
                raise OptionError("sendInitialEvents: needs resourceVersionMatch=NotOlderThan")
        elif self.match and not version:
            raise OptionError("resourceVersionMatch: needs a resourceVersion")
        elif self.match == "Exact" and self.any_revision:
            raise OptionError('resourceVersionMatch: Exact needs a resourceVersion other than "0"')
        if self.start and not self.any_revision:
            raise OptionError("resourceVersion: the continue token has one already")


class Continue(msgspec.Struct, frozen=True):
    """Where a list goes on: the revision it began with, and the last guest it has told."""

    revision: int
    namespace: str
    name: str

    @property
    def ref(self) -> GuestRef:
        """The last guest."""
        return GuestRef(self.namespace, self.name)

    @classmethod
    def parse(cls, token: str) -> Continue:
        """Raises OptionError."""
        try:
            data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            revision, namespace, name = msgspec.json.decode(data, type=tuple[int, str, str])
        except (binascii.Error, ValueError, msgspec.DecodeError):
            raise OptionError("continue: the token is not one of this API's") from None
        return cls(revision, namespace, name)

    def token(self) -> str:
        """Fit for a query."""
        data = msgspec.json.encode((self.revision, self.namespace, self.name))
        return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise OptionError(f"{name}: {text[:40]!r} is no whole number of 0 or more")
    return int(text or 0)


def _flag(query: Mapping[str, str], name: str) -> bool | None:
    """As Kubernetes reads it (apimachinery, runtime Convert_Slice_string_To_bool): what is not false is true."""
    return None if name not in query else query[name].lower() not in {"false", "0"}
