"""`guestwire doctor`: what the pipeline needs, looked at in the order in which facts flow."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable

import click
import msgspec

from guestwire import logs
from guestwire.checks import Finding, Outcome, check_nats
from guestwire.cli import EXTRAS, one_line_errors
from guestwire.cli.group import load_settings
from guestwire.settings import FILE_VARIABLE, Loaded

COLORS = {Outcome.OK: "green", Outcome.NOTE: "yellow", Outcome.PROBLEM: "red", Outcome.SKIPPED: None}
WIDTH = max(len(outcome) for outcome in Outcome)

Tell = Callable[[Finding], None]


@click.command()
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def doctor(domains: tuple[str, ...], *, as_json: bool) -> None:
    """
    Check what the pipeline needs, and say what to do: settings, libvirt, each guest's agent, NATS, and the cluster if
    there is a kubeconfig. Changes nothing.

    Each DOMAIN is a domain's name, UUID or [NAMESPACE/]NAME; without any all domains are checked. Exit status: 0 when
    everything needed works, else 1.
    """
    loaded = load_settings()
    logs.configure(msgspec.structs.replace(loaded.settings.log, level="error"))  # it speaks to people
    report = Report(quiet=as_json)
    with one_line_errors():
        asyncio.run(examine(loaded, domains, report.tell))
    report.end()


class Report:
    """Findings as they come, for people, or all at the end, for programs."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._findings: list[Finding] = []

    def tell(self, finding: Finding) -> None:
        """Take a finding, and show it unless quiet."""
        if not self._quiet:
            heading = title(finding)
            if not self._findings or heading != title(self._findings[-1]):
                click.secho(heading, bold=True)
            for line in lines(finding):
                click.echo(line)
        self._findings.append(finding)

    def end(self) -> None:
        """The verdict, and the exit status."""
        counted = Counter(finding.outcome for finding in self._findings)
        problems = counted[Outcome.PROBLEM]
        if self._quiet:
            body = msgspec.json.encode({"ok": not problems, "findings": self._findings})
            click.echo(msgspec.json.format(body, indent=2))
        else:
            verdict = f"{problems} problem{'' if problems == 1 else 's'}" if problems else "all that is needed works"
            click.secho(f"\n{verdict}", bold=True)
        sys.exit(1 if problems else 0)


def title(finding: Finding) -> str:
    """What stands above the findings of one area, of guests: of one host."""
    return f"{finding.area} on {finding.host}" if finding.host else finding.area


def lines(finding: Finding) -> list[str]:
    """A finding as people read it; what guests and hosts say cannot command the terminal."""
    about = f"{plain(finding.about)}: " if finding.about else ""
    outcome = click.style(f"{finding.outcome:<{WIDTH}}", fg=COLORS[finding.outcome])
    shown = f"  {outcome}  {about}{plain(finding.text)}"
    return [shown, *(f"  {'':<{WIDTH}}    {plain(line)}" for line in finding.advice)]


def plain(text: str) -> str:
    """Without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


async def examine(loaded: Loaded, domains: tuple[str, ...], tell: Tell) -> None:
    """Every check, in order."""
    tell(in_force(loaded))
    await _check_hosts(loaded, domains, tell)
    for finding in await check_nats(loaded.settings.nats, chosen="nats.servers" in loaded.sources):
        tell(finding)
    try:
        from status_writer.checks import check_cluster  # noqa: PLC0415 - needs its extra
    except ModuleNotFoundError as error:
        tell(_not_installed("cluster", error))
        return
    for finding in await check_cluster(loaded.settings.status):
        tell(finding)


async def _check_hosts(loaded: Loaded, domains: tuple[str, ...], tell: Tell) -> None:
    try:
        from collectors.checks import check_host  # noqa: PLC0415 - needs its extra
    except ModuleNotFoundError as error:
        tell(_not_installed("libvirt", error))
        return
    settings = loaded.settings
    seen: set[str] = set()
    for uri in settings.libvirt.uris:
        seen |= await check_host(uri, domains, settings.collect, tell)
    for name in dict.fromkeys(domains):
        if name not in seen:
            advice = f"`virsh list --all` shows them; looked at {', '.join(settings.libvirt.uris)}"
            tell(Finding("guests", name, Outcome.PROBLEM, "not found on any host that could be looked at", (advice,)))


def in_force(loaded: Loaded) -> Finding:
    """Which settings are not the defaults, and where they came from."""
    by_source: dict[str, list[str]] = {}
    for source in loaded.sources.values():
        kind, _, name = source.partition(" ")
        by_source.setdefault(f"file {name}" if kind == "file" else "the environment", []).append(name)
    if not by_source:
        text = f"defaults only; no settings file (--config, {FILE_VARIABLE}), nothing set in the environment"
        return Finding("settings", "", Outcome.OK, text)
    parts = []
    for source, names in by_source.items():
        listed = "" if source.startswith("file") else f" ({', '.join(sorted(names))})"
        parts.append(f"{len(names)} from {source}{listed}")
    return Finding("settings", "", Outcome.OK, "; ".join(parts))


def _not_installed(area: str, error: ModuleNotFoundError) -> Finding:
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        raise error
    text = f"{package} is not installed here; for this part: pip install 'guestwire[{EXTRAS[package]}]'"
    return Finding(area, "", Outcome.SKIPPED, text)
