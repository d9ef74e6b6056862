"""How findings are shown, and what is skipped where an extra is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from guestwire import settings
from guestwire.checks import Finding, Outcome
from guestwire.cli.doctor import Report, in_force, lines, title


def test_a_finding_in_lines() -> None:
    """What was found first, then what to do, further in."""
    finding = Finding("guests", "web", Outcome.PROBLEM, "is ill", ("give it tea", "and rest"), "qemu:///system")

    assert "guests on qemu:///system" == title(finding)
    assert [
        "  \x1b[31mproblem\x1b[0m  web: is ill",
        "             give it tea",
        "             and rest",
    ] == lines(finding)


def test_guests_do_not_command_the_terminal() -> None:
    """Control characters in what a guest says are not printed."""
    (line,) = lines(Finding("guests", "web", Outcome.OK, "qemu-ga 1\x1b[2J\r\n\u202e"))

    assert line.endswith("web: qemu-ga 1?[2J???")


@pytest.mark.parametrize(
    ("outcomes", "status", "verdict"),
    [
        ([Outcome.OK, Outcome.NOTE, Outcome.SKIPPED], 0, "all that is needed works"),
        ([Outcome.OK, Outcome.PROBLEM], 1, "1 problem"),
        ([Outcome.PROBLEM, Outcome.PROBLEM], 1, "2 problems"),
    ],
)
def test_verdict(outcomes: list[Outcome], status: int, verdict: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Only problems make the exit status 1."""
    report = Report(quiet=False)
    for outcome in outcomes:
        report.tell(Finding("NATS", "", outcome, "x"))
    with pytest.raises(SystemExit) as end:
        report.end()

    assert (status, verdict) == (end.value.code, capsys.readouterr().out.splitlines()[-1])


def test_settings_in_force(tmp_path: Path) -> None:
    """Which file and which variables are in force, and how many settings come from each."""
    file = tmp_path / "guestwire.toml"
    file.write_text('cluster = "a"\n[nats]\nhistory = 5\n')
    loaded = settings.load(file, {"GUESTWIRE_CLUSTER": "b"})

    assert f"1 from the environment (GUESTWIRE_CLUSTER); 1 from file {file}" == in_force(loaded).text
    assert in_force(settings.load(None, {})).text.startswith("defaults only")


@pytest.mark.parametrize(
    ("package", "area", "extra"), [("libvirt", "libvirt", "collector"), ("kubernetes", "cluster", "status-writer")]
)
def test_missing_extra(package: str, area: str, extra: str) -> None:
    """Where a package is not installed its checks are skipped, with the extra that brings it."""
    program = f"import sys; sys.modules['{package}'] = None; from guestwire.cli import main; main()"
    environment = {"GUESTWIRE_NATS__SERVERS": "nats://127.0.0.1:1", "GUESTWIRE_NATS__TIMEOUT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, "doctor", "--json"], env=environment, capture_output=True, check=False
    )
    (finding,) = [each for each in json.loads(done.stdout)["findings"] if each["area"] == area]

    assert "skipped" == finding["outcome"]
    assert f"pip install 'guestwire[{extra}]'" in finding["text"]
