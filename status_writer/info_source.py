"""
`infoSource` of an interface: who knows it, as words joined by ", " in the order in which they came (KubeVirt's
pkg/network/vmispec/infosource.go). Pure.
"""

from __future__ import annotations

DOMAIN, GUEST_AGENT, MULTUS = "domain", "guest-agent", "multus-status"


def words(sources: str | None) -> list[str]:
    """The words of an `infoSource`."""
    return [word.strip() for word in (sources or "").split(",") if word.strip()]


def add_source(sources: str, source: str) -> str:
    """With one more word, appended unless it is there."""
    present = words(sources)
    return ", ".join(present if source in present else [*present, source])


def remove_source(sources: str, source: str) -> str:
    """Without a word."""
    return ", ".join(word for word in words(sources) if word != source)
