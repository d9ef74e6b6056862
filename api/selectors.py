"""
Which guests are asked for: Kubernetes's label and field selectors.

The grammar of labels is that of apimachinery's pkg/labels/selector.go; of fields there are two, as for any resource
that declares none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from api.fleet import Scope
from api.guest import Labels
from api.options import OptionError

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}"
_VALUE = rf"(?:{_NAME})?"
_SET = re.compile(rf"(?P<key>{_KEY})\s+(?P<operator>in|notin)\s*\(\s*(?P<values>{_VALUE}(?:\s*,\s*{_VALUE})*)\s*\)")
_COMPARED = re.compile(rf"(?P<key>{_KEY})\s*(?P<operator>==|=|!=|>|<)\s*(?P<values>{_VALUE})")
_THERE = re.compile(rf"(?P<operator>!?)\s*(?P<key>{_KEY})")
_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")

FIELDS = ("metadata.namespace", "metadata.name")


Test = Callable[[Labels], bool]


class Selector(NamedTuple):
    """Of what its scope leaves, a guest is selected when every test says so."""

    scope: Scope
    tests: tuple[Test, ...]
    unwanted: tuple[tuple[int, str], ...] = ()
    """Which namespace (0) or name (1) is left out."""

    def within(self, ref: tuple[str, str]) -> bool:
        """Whether a guest's namespace and name are asked for; they never change."""
        return all(wanted in {None, said} for wanted, said in zip(self.scope, ref, strict=True)) and not any(
            ref[place] == value for place, value in self.unwanted
        )

    def selects(self, labels: Labels) -> bool:
        """Whether a guest with these labels is."""
        return all(test(labels) for test in self.tests)

    @property
    def everything(self) -> bool:
        """Whether the scope says it all."""
        return not self.tests and not self.unwanted


NOTHING = Selector(("", ""), (lambda _labels: False,))


def select(namespace: str | None, labels: str, fields: str) -> Selector:
    """What a request asks for, in a namespace or in all. Raises OptionError."""
    wanted: list[str | None] = [namespace, None]
    unwanted: list[tuple[int, str]] = []
    for part in filter(None, _split_fields(fields)):
        found = re.fullmatch(r"(?s)(.*?)(==|=|!=)(.*)", part)
        if not found:
            raise OptionError(f"fieldSelector: invalid selector: '{part}'; can't understand it")
        field, operator, value = found[1], found[2], re.sub(r"\\([,=\\])", r"\1", found[3])
        if field not in FIELDS:
            raise OptionError(f"fieldSelector: field label not supported: {field}; there are {' and '.join(FIELDS)}")
        place = FIELDS.index(field)
        if operator == "!=":
            unwanted.append((place, value))
        elif wanted[place] not in {None, value}:
            return NOTHING
        else:
            wanted[place] = value
    return Selector((wanted[0], wanted[1]), _tests(labels), tuple(unwanted))


def _split_fields(text: str) -> list[str]:
    """At commas that no backslash precedes."""
    return [part.strip() for part in re.findall(r"(?:\\.|[^,\\])+", text)]


def _tests(text: str) -> tuple[Test, ...]:
    if not text.strip():
        return ()
    return tuple(_test(part.strip()) for part in _OUTSIDE_PARENTHESES.split(text))


def _test(part: str) -> Test:
    found = _SET.fullmatch(part) or _COMPARED.fullmatch(part) or _THERE.fullmatch(part)
    if not found:
        raise OptionError(f"labelSelector: unable to parse requirement: {part!r}")
    said: Mapping[str, str] = found.groupdict()
    key, operator = said["key"], said["operator"]
    if "values" not in said:
        return (lambda labels: key not in labels) if operator else (lambda labels: key in labels)
    values = frozenset(value.strip() for value in said["values"].split(","))
    if operator in {"in", "=", "=="}:
        return lambda labels: labels.get(key) in values
    if operator in {"notin", "!="}:
        return lambda labels: labels.get(key) not in values
    try:
        bound = int(said["values"])
    except ValueError:
        raise OptionError(f"labelSelector: {part!r} compares with what is no integer") from None
    sign = 1 if operator == ">" else -1
    return lambda labels: _integer(labels.get(key, "")) and sign * int(labels[key]) > sign * bound


def _integer(text: str) -> bool:
    return text.isascii() and text.isdigit()
