"""
Whether processes grow: memory, file handles and threads, seen from outside.

A process that was killed begins anew. What it may reach is what it had at most between the end of its warming up and
the middle of its life, under change and faults; at the end, when nothing happens any more, it has to be back at that,
with an allowance for what an allocator keeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MIB = 2**20
WARM = 15.0
"""Seconds until a process has seen every guest."""
LEAST_LIFE = 45.0
"""Seconds that a process must have run to be judged."""
QUIET = 5
"""Samples at the end that count."""
MEMORY_SHARE, MEMORY, HANDLES, THREADS = 0.05, 4 * MIB, 8, 2
"""
What may be more at the end: a share of memory and so many bytes; file handles, as a collector opens its connections to
libvirt only when it needs them; threads.
"""


@dataclass(frozen=True)
class Size:
    """Of a process at a moment; memory in bytes that are its own."""

    memory: int
    handles: int
    threads: int

    def __str__(self) -> str:
        return f"{self.memory / MIB:6.1f} MiB {self.handles:4} handles {self.threads:3} threads"


def size(pid: int) -> Size | None:
    """None when it has just ended."""
    try:
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        handles = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return Size(int(fields["RssAnon"].split()[0]) * 1024, handles, int(fields["Threads"]))
    except (OSError, KeyError):
        return None


@dataclass
class Life:
    """One run of a process."""

    name: str
    pid: int
    began: float
    samples: list[tuple[float, Size]] = field(default_factory=list)

    @property
    def lasted(self) -> float:
        """Seconds."""
        return self.samples[-1][0] - self.began if self.samples else 0.0

    @property
    def before(self) -> Size:
        """The most it had of each until the middle of its life."""
        middle = self.began + max(self.lasted / 2, WARM)
        early = [size for at, size in self.samples if self.began + WARM <= at <= middle] or [self.samples[0][1]]
        return Size(*(max(getattr(size, what) for size in early) for what in ("memory", "handles", "threads")))

    @property
    def after(self) -> Size:
        """The least it had of each at the end."""
        late = [size for _, size in self.samples[-QUIET:]]
        return Size(*(min(getattr(size, what) for size in late) for what in ("memory", "handles", "threads")))

    def grown(self) -> Iterator[str]:
        """What has grown by more than is allowed."""
        before, after = self.before, self.after
        if after.memory > before.memory * (1 + MEMORY_SHARE) + MEMORY:
            yield f"{self.name}: memory grew from {before.memory / MIB:.1f} to {after.memory / MIB:.1f} MiB"
        if after.handles > before.handles + HANDLES:
            yield f"{self.name}: file handles grew from {before.handles} to {after.handles}"
        if after.threads > before.threads + THREADS:
            yield f"{self.name}: threads grew from {before.threads} to {after.threads}"

    def __str__(self) -> str:
        return f"{self.name:<30} {self.lasted:5.0f} s   {self.before}   ->   {self.after}"


class Lives:
    """The present run of each process."""

    def __init__(self) -> None:
        self._present: dict[str, Life] = {}

    def sample(self, name: str, pid: int | None, now: float) -> None:
        """Look at a process, if it runs; `now` by a monotonic clock."""
        if pid is None or (found := size(pid)) is None:
            return
        life = self._present.get(name)
        if life is None or life.pid != pid:
            life = self._present[name] = Life(name, pid, now)
        life.samples.append((now, found))

    @property
    def present(self) -> list[Life]:
        """One for each process."""
        return list(self._present.values())
