"""What selectors select, and what is no selector."""

from __future__ import annotations

import pytest

from api.options import OptionError
from api.selectors import select

LABELS = {"guestwire.io/os": "debian", "guestwire.io/agent": "connected", "cpus": "8"}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("", True),
        ("  ", True),
        ("guestwire.io/os=debian", True),
        ("guestwire.io/os == debian", True),
        ("guestwire.io/os=ubuntu", False),
        ("guestwire.io/os!=ubuntu", True),
        ("guestwire.io/os!=debian", False),
        ("nowhere!=debian", True),
        ("guestwire.io/os in (ubuntu, debian)", True),
        ("guestwire.io/os in (ubuntu)", False),
        ("guestwire.io/os notin (ubuntu,fedora)", True),
        ("nowhere notin (ubuntu)", True),
        ("nowhere in ()", False),
        ("guestwire.io/os", True),
        ("!guestwire.io/os", False),
        ("!nowhere", True),
        ("nowhere", False),
        ("nowhere=", False),
        ("cpus>4", True),
        ("cpus > 8", False),
        ("cpus<9", True),
        ("guestwire.io/os>4", False),
        ("guestwire.io/os in (ubuntu,debian),guestwire.io/agent=connected,cpus>7", True),
        ("guestwire.io/os in (ubuntu,debian),guestwire.io/agent=disconnected", False),
    ],
)
def test_labels(labels: str, expected: bool) -> None:
    """As the grammar of Kubernetes says."""
    assert expected == select(None, labels, "").selects(LABELS)


@pytest.mark.parametrize(
    "labels",
    ["=debian", "a=b=c", "a in b", "a in (b", "a,,b", "a=b,", "a=<script>", "a>b", "-a", "a/b/c=d", "a in (b c)"],
)
def test_no_labels(labels: str) -> None:
    """What cannot be understood is refused, and the parameter named."""
    with pytest.raises(OptionError, match=r"^labelSelector: "):
        select(None, labels, "")


@pytest.mark.parametrize(
    ("namespace", "fields", "expected"),
    [
        (None, "", {"a/x", "a/y", "b/x"}),
        ("a", "", {"a/x", "a/y"}),
        (None, "metadata.name=x", {"a/x", "b/x"}),
        (None, "metadata.namespace==b", {"b/x"}),
        (None, "metadata.name!=x", {"a/y"}),
        ("a", "metadata.namespace!=a", set()),
        ("a", "metadata.namespace=b", set()),
        (None, "metadata.name=x,metadata.namespace=a", {"a/x"}),
        (None, "metadata.name=x,metadata.name=y", set()),
        (None, r"metadata.name=x\,y", set()),
    ],
)
def test_fields(namespace: str | None, fields: str, expected: set[str]) -> None:
    """Names and namespaces can be chosen, in the path's namespace."""
    selector = select(namespace, "", fields)

    guests = [("a", "x"), ("a", "y"), ("b", "x")]
    assert expected == {"/".join(guest) for guest in guests if selector.within(guest) and selector.selects({})}


def test_escaped_field_value() -> None:
    """A comma, an equals sign or a backslash of a name is escaped."""
    selector = select(None, "", r"metadata.name=a\,b\=c\\d")

    assert selector.within(("n", r"a,b=c\d"))


@pytest.mark.parametrize("fields", ["status.phase=Running", "metadata.name", "spec.x!=y"])
def test_no_fields(fields: str) -> None:
    """There are two fields."""
    with pytest.raises(OptionError, match=r"^fieldSelector: "):
        select(None, "", fields)
