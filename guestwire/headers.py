"""
The headers of a message as they arrived, read where they are asked for.

Most messages are asked for five of their fifteen headers. Parsing all of them took a reader more time than the rest of
the message; `codec.Event` reads its five at once from `raw` where they stand as this project writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping


class Headers(Mapping[str, str]):
    """
    A header block of NATS (ADR-4): a line of version and status, then `name: value` lines. Of a name that is there
    twice the last counts; what is not UTF-8 in a value is replaced. Both as nats-py has it. (A name with a space before
    its colon is found once all were read.)
    """

    __slots__ = ("_all", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        """The block as it arrived."""
        self._all: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        if self._all is None:
            start = self.raw.rfind(b"\r\n%b:" % name.encode())
            if start >= 0:
                start += len(name) + 3
                return self.raw[start : self.raw.find(b"\r\n", start)].strip().decode(errors="replace")
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def __repr__(self) -> str:
        return f"Headers({self._parsed()})"

    def _parsed(self) -> dict[str, str]:
        if self._all is None:
            pairs = (line.partition(b":") for line in self.raw.split(b"\r\n")[1:])
            names = ((name.strip(), value) for name, colon, value in pairs if colon)
            decoded = ((name.decode(), value) for name, value in names if name.isascii())
            self._all = {
                name: value.strip().decode(errors="replace")
                for name, value in decoded
                if len(name.split()) <= 1 and name == name.strip()
            }
        return self._all
