"""A terminal that is drawn upon line by line, and whose keys are taken one by one; as it was before when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import TracebackType
from typing import Self

BEGIN = "\x1b[?1049h\x1b[?25l\x1b[2J"
"""The other screen, no cursor, nothing on it (xterm's control sequences)."""
END = "\x1b[?25h\x1b[?1049l"
TO_TOP, TO_END_OF_LINE, TO_END, PLAIN = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[0m"
STYLES = {"bold": "\x1b[1m", "inverse": "\x1b[7m", "warning": "\x1b[33m", "": ""}

SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\x03": "interrupt",
}


class Screen:
    """Of standard input and output, which are a terminal; a context manager inside an event loop."""

    def __init__(self) -> None:
        self.keys: asyncio.Queue[str] = asyncio.Queue(maxsize=256)
        """Keys by name, or the text that was typed; "resize" when the terminal's size has changed."""
        self._input = sys.stdin.fileno()
        self._drawn: list[str] = []

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._input)
        tty.setcbreak(self._input)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._input, self._read)
        self._loop.add_signal_handler(signal.SIGWINCH, self._put, "resize")
        self._write(BEGIN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self._input)
        self._loop.remove_signal_handler(signal.SIGWINCH)
        termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)
        self._write(END)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        columns, lines = shutil.get_terminal_size()
        with contextlib.suppress(OSError):
            columns, lines = os.get_terminal_size(sys.stdout.fileno())
        return max(20, columns), max(5, lines)

    def draw(self, lines: Sequence[tuple[str, str]]) -> None:
        """Show lines, each with its style; nothing is written when nothing is new."""
        texts = [f"{STYLES[style]}{text}{PLAIN if style else ''}{TO_END_OF_LINE}" for text, style in lines]
        if texts != self._drawn:
            self._drawn = texts
            self._write(TO_TOP + "\r\n".join(texts) + TO_END)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _read(self) -> None:
        data = os.read(self._input, 1024)
        if not data:
            self._put("interrupt")
        elif data in SEQUENCES:
            self._put(SEQUENCES[data])
        elif not data.startswith(b"\x1b"):
            for each in data.decode(errors="replace"):
                self._put(SEQUENCES.get(each.encode(), each))

    def _put(self, key: str) -> None:
        if key == "resize":
            self._drawn = []
        with contextlib.suppress(asyncio.QueueFull):  # nobody types that fast
            self.keys.put_nowait(key)
