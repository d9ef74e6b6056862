"""RFC 6902, as far as patches of this project use it."""

from __future__ import annotations

import copy
from typing import Any


class GuardError(Exception):
    """A `test` operation did not hold."""


def apply(document: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """The document after a patch; the given one stays as it is."""
    result = copy.deepcopy(document)
    for operation in patch:
        *parents, last = operation["path"].lstrip("/").split("/")
        target: Any = result
        for name in parents:
            target = target[int(name)] if isinstance(target, list) else target[name]
        value = copy.deepcopy(operation.get("value"))
        match operation["op"], target:
            case "test", list():
                _check(target[int(last)] == value, operation)
            case "test", _:
                _check(target.get(last) == value, operation)
            case "add", list():
                target.insert(len(target) if last == "-" else int(last), value)
            case "add", _:
                target[last] = value
            case "replace", list():
                target[int(last)] = value
            case "replace", _:
                _check(last in target, operation)
                target[last] = value
            case "remove", list():
                del target[int(last)]
            case "remove", _:
                del target[last]
            case other:
                raise AssertionError(other)
    return result


def _check(holds: bool, operation: dict[str, Any]) -> None:
    if not holds:
        raise GuardError(operation)
