"""
The command line, and the one place that knows every stage.

Each command is a module of its own here; stages are imported when their command runs, so that each process needs its
own extra only. Exit status: 0 done, 1 failed, 2 wrong settings or usage.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from guestwire.errors import ConfigError, GuestwireError

COMMANDS = {
    "up": "the whole pipeline on this host",
    "collect": "read guest agents, publish what changed",
    "write-status": "patch VMI status from what was published",
    "serve": "answer REST reads from memory",
    "watch": "print changes as they come",
    "top": "show all guests in a terminal, as they are now",
    "history": "show what became of one kind of facts about a guest",
    "diff": "show what is different between two moments",
    "get": "ask the API about a guest",
    "forget": "have guests of a host that is gone declared gone",
    "export": "write history and present state into DuckDB or Parquet",
    "token": "make a token for the API",
    "doctor": "check what the pipeline needs, and say what to do",
    "config": "show the settings in force",
    "schema": "print the JSON Schema of a message body",
    "completion": "print the shell's completion script",
}
"""In the order of the help text; `write-status` lives in the module `write_status`."""

EXTRAS = {
    "libvirt": "collector",
    "libvirt_qemu": "collector",
    "kubernetes": "status-writer",
    "aiohttp": "status-writer",
    "api": "api",
    "starlette": "api",
    "uvicorn": "api",
    "httptools": "api",
    "uvloop": "api",
    "duckdb": "export",
    "pyarrow": "export",
}
"""Which extra brings a package, for the message when it is missing."""


def main() -> None:
    """Entry point of the `guestwire` script."""
    try:
        from guestwire.cli.group import group  # noqa: PLC0415 - click may be missing where only the client is
    except ModuleNotFoundError as error:
        sys.exit(f"guestwire: the command line needs {error.name}: pip install 'guestwire[process]'")
    group()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What is wrong in one line on standard error, and an honest exit status."""
    try:
        yield
    except ConfigError as error:
        print(f"guestwire: {error}", file=sys.stderr)
        sys.exit(2)
    except GuestwireError as error:
        print(f"guestwire: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        root = (error.name or "").partition(".")[0]
        if root not in EXTRAS:
            raise
        print(f"guestwire: {root} is not installed: pip install 'guestwire[{EXTRAS[root]}]'", file=sys.stderr)
        sys.exit(2)


def command_module(name: str) -> str:
    """The module of a command."""
    return f"guestwire.cli.{name.replace('-', '_')}"


def load_command(name: str) -> object:
    """The click command of that name."""
    return getattr(importlib.import_module(command_module(name)), name.replace("-", "_"))
