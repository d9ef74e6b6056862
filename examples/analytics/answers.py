"""
The questions of this directory's SQL files, asked of an export.

    python -m examples.analytics.answers guests.duckdb
"""

from __future__ import annotations

import sys
from pathlib import Path

from guestwire.errors import GuestwireError
from guestwire.export import reading

QUESTIONS = sorted(Path(__file__).parent.glob("*.sql"))


def title(question: Path) -> str:
    """What a file asks, from its first line."""
    return question.read_text().partition("\n")[0].removeprefix("-- ")


def main(export: Path) -> None:
    """Every question and its answer, as tables."""
    with reading.connect(export) as db:
        for question in QUESTIONS:
            print(f"\n{title(question)}  ({question.name})", flush=True)
            answer = db.sql(question.read_text())
            answer.show(max_rows=20, max_width=120)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m examples.analytics.answers EXPORT")
    try:
        main(Path(sys.argv[1]))
    except GuestwireError as error:
        sys.exit(f"answers: {error}")
