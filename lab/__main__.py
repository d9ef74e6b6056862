"""`python -m lab build`: builds the lab's parts into its cache."""

from __future__ import annotations

import argparse
import sys

from lab.build import build
from lab.errors import LabError


def main() -> int:
    """Exit status of the command line: 0, or 1 after one line that says what failed."""
    parser = argparse.ArgumentParser(prog="python -m lab", description="a whole small world on one machine")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build what the lab needs into its cache; quick when it is there")
    commands.add_parser("demo", help="the whole pipeline on a real guest, explained as it happens")
    if parser.parse_args().command == "demo":
        from lab import demo  # noqa: PLC0415 - building must not need the whole pipeline

        return demo.main()
    try:
        build(progress=lambda line: print(line, flush=True))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
