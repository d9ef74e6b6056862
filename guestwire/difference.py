"""
What differs between two values of a kind, field by field.

It works on the JSON as it travels, so that fields and kinds which this version does not know are compared as well.
Entries of a list are matched by what names them (a mount point, a user's name, an interface's name), not by their
place. As everywhere in the contract, null is the same as absent; unknown (absent) and empty differ. In `agent` the
times of readings do not count, as in `codec.digest()`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from guestwire.errors import ContractError
from guestwire.snapshot import Kind

Value = Any
"""A JSON value: dict, list, str, int, float, bool or None."""

NAMES = (("mountPoint",), ("userName", "domain"), ("name",), ("address",), ("cpu",), ("id",), ("busType", "serial"))
"""What names an entry of a list: the first row of which every entry has the first field."""


class Difference(msgspec.Struct, frozen=True):
    """One place where two values differ."""

    path: str
    """`guest[eth0].addresses[10.0.0.7].prefix`: fields, and in brackets what names an entry; empty: the whole value."""
    old: Value
    """None: was not there."""
    new: Value
    """None: is not there. Where nothing but the order of a list changed, old and new are its entries' names."""


def difference(kind: str, old: bytes | None, new: bytes | None) -> list[Difference]:
    """
    From one body to another of the same kind, in the order of the old one's fields; None stands for no value at all.

    Empty when nothing that counts differs. Raises ContractError for what is no JSON.
    """
    try:
        return list(_differences("", _value(kind, old), _value(kind, new)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"{kind}: {error}") from error


def _value(kind: str, body: bytes | None) -> Value:
    value = None if body is None else msgspec.json.decode(body)
    if kind == Kind.AGENT and isinstance(value, dict) and isinstance(readings := value.get("readings"), dict):
        for reading in readings.values():
            if isinstance(reading, dict):
                reading.pop("observedAt", None)
    return value


def _differences(path: str, old: Value, new: Value) -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _differences(f"{path}.{name}" if path else name, old.get(name), new.get(name))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _of_lists(path, old, new)
    elif old != new or isinstance(old, bool) != isinstance(new, bool):  # True == 1
        yield Difference(path, old, new)


def _of_lists(path: str, old: list[Value], new: list[Value]) -> Iterator[Difference]:
    name = _naming([*old, *new])
    if name is None:
        before, now = dict(enumerate(old)), dict(enumerate(new))
    else:
        before, now = _named(name, old), _named(name, new)
    for key in {**before, **now}:
        yield from _differences(f"{path}[{_bracketed(key)}]", before.get(key), now.get(key))
    stayed, stay = [key for key in before if key in now], [key for key in now if key in before]
    if stayed != stay:
        yield Difference(path, stayed, stay)


def _naming(entries: list[Value]) -> Callable[[Value], str] | None:
    """How the entries of a list are named; None: by their place only."""
    if all(isinstance(entry, str) for entry in entries):
        return str
    if not all(isinstance(entry, dict) for entry in entries):
        return None
    for first, *others in NAMES:
        if all(isinstance(entry.get(first), str | int) for entry in entries):
            return lambda entry: ",".join(str(entry[field]) for field in (first, *others) if entry.get(field, "") != "")
    return None


def _named(name: Callable[[Value], str], entries: list[Value]) -> dict[Any, Value]:
    """Entries by name; a second one of a name gets `#2`."""
    seen: Counter[str] = Counter()
    named: dict[Any, Value] = {}
    for entry in entries:
        key = first = name(entry)
        while key in named:
            seen[first] += 1
            key = f"{first}#{seen[first] + 1}"
        named[key] = entry
    return named


def _bracketed(key: str | int) -> str:
    """A guest chooses its names: one that could be taken for more than a name is quoted."""
    text = str(key)
    plain = text.isprintable() and not set(text) & set('[]"')
    return text if plain else msgspec.json.encode(text).decode()
