"""The one error of the lab."""

from __future__ import annotations


class LabError(Exception):
    """A part of the lab could not be built, started or reached; the message says what and why.

    The first line stands alone; lines after it, if any, are the tail of a log or of a command's output.
    """
