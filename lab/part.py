"""What every part of the lab can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Part(ABC):
    """Something real that starts and stops; as a context manager it does both. Its `repr` says where it listens."""

    @abstractmethod
    def start(self) -> None:
        """Return when it is ready. Raises LabError."""

    @abstractmethod
    def stop(self) -> None:
        """End it, and whatever belongs to it; no error when it is not running."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
