"""The documentation against the code: settings, commands, links, and the names that the architecture mentions."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from guestwire.cli import COMMANDS
from guestwire.cli.config import table
from guestwire.settings import Loaded, Settings

ROOT = Path(__file__).parents[2]
PACKAGES = ("guestwire", "collectors", "publishers", "status_writer", "api", "lab", "bench")
BUILT = {"build", "dist", "node_modules"}
PAGES = sorted(
    file
    for file in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in BUILT for part in file.relative_to(ROOT).parts)
)


def relative(file: Path) -> str:
    """As it is written from the root."""
    return str(file.relative_to(ROOT))


@cache
def prose(file: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(file: Path) -> set[str]:
    """What a link may name behind `#`: headings in lower case, spaces as dashes, without punctuation."""
    headings = re.findall(r"^#+ (.+)$", prose(file), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def sources() -> str:
    """All code of the project."""
    return "\n".join(file.read_text() for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")))


def test_every_setting_is_documented() -> None:
    """The table in docs/configuration.md is what the settings say; CONTRIBUTING.md tells how to write it anew."""
    page = (ROOT / "docs" / "configuration.md").read_text()

    assert table(Loaded(Settings(), {}).entries()) == page.partition("<!-- guestwire config --markdown -->\n")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    """Each command is named in the README or below docs/."""
    text = "".join(page.read_text() for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")])

    assert re.search(rf"guestwire {command}\b", text)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that exists, and a heading that is in it."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)

    assert [] == broken


def mentioned(pattern: str) -> list[str]:
    """What ARCHITECTURE.md sets in code letters and the pattern takes, whole; once each."""
    spans = re.findall(r"`([^`\n]+)`", prose(ROOT / "ARCHITECTURE.md"))
    return sorted({span for span in spans if re.fullmatch(pattern, span)})


@pytest.mark.parametrize("path", mentioned(r"[\w./-]+(/|\.(py|md|toml|yaml|sh))"))
def test_architecture_names_files_that_exist(path: str) -> None:
    """A path in the text is a path in the tree."""
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", mentioned(r"[A-Za-z_][\w.]*\(\)"))
def test_architecture_names_functions_that_exist(name: str) -> None:
    """`Class.method()` and `module.function()` in the text are defined in the code."""
    *owners, function = name.removesuffix("()").split(".")
    owner = owners[-1] if owners else ""
    defined = [f"def {function}("] + ([f"class {owner}"] if owner[:1].isupper() else [])

    assert [] == [words for words in defined if words not in sources()]


@pytest.mark.parametrize("name", mentioned(r"(?:[A-Z][a-z]+){2,}"))
def test_architecture_names_classes_that_exist(name: str) -> None:
    """A name in camel case in the text is one in the code."""
    assert re.search(rf"\b{name}\b", sources())


def test_architecture_names_something() -> None:
    """The three tests above look at names: a text without any would prove nothing."""
    assert all(len(mentioned(pattern)) >= 5 for pattern in (r"[\w./-]+\.py", r"[\w.]+\(\)", r"(?:[A-Z][a-z]+){2,}"))
