"""Settings as nested tables and dotted paths: read from a file or the environment, before they are structs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from guestwire.errors import ConfigError


def read_file(path: Path) -> dict[str, Any]:
    """A TOML file's tables. ConfigError when it cannot be read."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings file {path}: {error}") from None


def paths(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted path of every leaf."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def at(settings: Any, path: str) -> Any:
    """The value at a path, in structs."""
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set a value at a path, in tables."""
    *tables, leaf = path.split(".")
    for table in tables:
        inner = tree.setdefault(table, {})
        if not isinstance(inner, dict):  # a scalar in the file where a table belongs: convert() names the path
            return
        tree = inner
    tree[leaf] = value


def from_text(text: str, kind: Any) -> Any:
    """What a text of the environment stands for: a list by its commas, nothing by being empty where that is a value."""
    if get_origin(kind) is tuple:
        return [item.strip() for item in text.split(",") if item.strip()]
    return text if text or type(None) not in get_args(kind) else None


def hint(name: str, known: Mapping[str, Any]) -> str:
    """What to say behind an unknown name."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else "; `guestwire config` lists them all"


def explain(message: str, sources: Mapping[str, str], fields: Mapping[str, Any]) -> str:
    """From msgspec's "Expected ... - at `$.nats.timeout`", with where the value was set, and the nearest name."""
    problem, _, location = message.partition(" - at `$")
    path = location.rstrip("`").split("[")[0].lstrip(".")
    if "unknown field" in problem:
        path = f"{path}.{problem.split('`')[1]}".lstrip(".")
        return f"{sources.get(path, 'settings')}: {path}: no such setting{hint(path, fields)}"
    return f"{sources.get(path, 'settings')}: {path or 'settings'}: {problem[:1].lower()}{problem[1:]}"
