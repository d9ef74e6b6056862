"""
Schemas of structs, in the dialects of OpenAPI 2.0 and of 3.0.

What a struct says is taken from it: names on the wire, types, what is always written, and its docstrings, those behind
fields included. An absent field is unknown here, so no default is told for it. Names of definitions carry the group,
since the API server of a cluster puts them beside everybody else's.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import inspect as types

from api import history, status
from api.groups import GUESTWIRE
from guestwire import snapshot

Schema = dict[str, Any]

SCALARS: dict[type[types.Type], Schema] = {
    types.StrType: {"type": "string"},
    types.BoolType: {"type": "boolean"},
    types.IntType: {"type": "integer", "format": "int64"},
    types.FloatType: {"type": "number", "format": "double"},
    types.DateTimeType: {"type": "string", "format": "date-time"},
}

NAMES: dict[type, str] = {
    snapshot.ListMeta: "NoListMeta",
    status.Metadata: "NoListMeta",
    history.Metadata: "GuestHistoryMeta",
    history.Entry: "GuestHistoryEntry",
    history.Change: "Difference",
}
"""Of structs that are not to be called as their class is; ListMeta is that of lists."""

PREFIX = "io.{}.{}.".format(GUESTWIRE.name.removesuffix(".io"), GUESTWIRE.versions[0])


class Dialect:
    """
    OpenAPI 2 or 3, by its number. `definitions` gathers the structs that were asked for, and those within them; whoever
    asks for a struct is given a reference.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.definitions: dict[str, Schema] = {}
        self._fields: dict[str, tuple[str, ...]] = {}

    def of(self, type_: Any) -> Schema:
        """The schema of a type."""
        return self._schema(types.type_info(type_))

    def _schema(self, type_: types.Type) -> Schema:
        match type_:
            case types.StructType():
                return self._reference(type_)
            case types.Metadata():
                return self._schema(type_.type) | (type_.extra_json_schema or {})
            case types.UnionType():
                return self._nullable(self._schema(_only(type_)))
            case types.VarTupleType() | types.ListType():
                return {"type": "array", "items": self._schema(type_.item_type)}
            case types.DictType():
                return {"type": "object", "additionalProperties": self._schema(type_.value_type)}
            case types.EnumType():
                return {"type": "string", "enum": sorted(each.value for each in type_.cls)}
            case types.LiteralType():
                return {"type": "string", "enum": sorted(map(str, type_.values))}
            case types.AnyType():
                return {}
        return dict(SCALARS[type(type_)])

    def _reference(self, struct: types.StructType) -> Schema:
        name = PREFIX + NAMES.get(struct.cls, struct.cls.__name__)
        if name not in self.definitions:
            self.definitions[name] = {}  # so that one within itself ends
            self._fields[name] = struct.cls.__struct_fields__
            self.definitions[name] = self._definition(struct)
        elif struct.cls.__struct_fields__ != self._fields[name]:
            raise TypeError(f"{struct.cls} needs a name of its own: {name} is another struct")
        place = "#/definitions/" if self.number == 2 else "#/components/schemas/"
        return {"$ref": place + name}

    def _definition(self, struct: types.StructType) -> Schema:
        notes = field_notes(struct.cls)
        schema: Schema = {"type": "object", "description": class_note(struct.cls)}
        fields = {field.encode_name: field for field in struct.fields}
        required = [name for name, field in fields.items() if field.required or not _omits(struct.cls)]
        if required:
            schema["required"] = required
        schema["properties"] = {name: self._property(field, notes) for name, field in fields.items()}
        return schema

    def _property(self, field: types.Field, notes: dict[str, str]) -> Schema:
        type_ = field.type
        if isinstance(type_, types.UnionType) and not field.required:
            type_ = _only(type_)  # null is unknown, and not written
        schema = self._schema(type_)
        note = schema.pop("description", "") or notes.get(field.name, "")
        return self._described(schema, note) if note else schema

    def _described(self, schema: Schema, note: str) -> Schema:
        """3.0 ignores what stands beside a reference."""
        if self.number == 3 and "$ref" in schema:
            return {"description": note, "allOf": [schema]}
        return {**schema, "description": note}

    def _nullable(self, schema: Schema) -> Schema:
        return {**schema, "x-nullable" if self.number == 2 else "nullable": True}


def class_note(cls: type) -> str:
    """The docstring of a class as one paragraph."""
    return " ".join((cls.__doc__ or "").split())


@cache
def field_notes(cls: type) -> dict[str, str]:
    """The docstrings behind the fields of a class and of those it is made from, by field; none without the source."""
    notes: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        try:
            source = textwrap.dedent(inspect.getsource(each)) if each not in {object, msgspec.Struct} else ""
        except (OSError, TypeError):
            continue
        body = next((node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef)), [])
        for field, behind in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(behind, ast.Expr):
                text = behind.value.value if isinstance(behind.value, ast.Constant) else None
                if isinstance(text, str):
                    notes[field.target.id] = " ".join(text.split())
    return notes


def _only(union: types.UnionType) -> types.Type:
    """The contract has unions with null, and no others."""
    (only,) = (each for each in union.types if not isinstance(each, types.NoneType))
    return only


def _omits(cls: type) -> bool:
    return bool(cls.__struct_config__.omit_defaults)  # type: ignore[attr-defined]
