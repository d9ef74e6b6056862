"""`guestwire forget`: guests of which nobody will tell again are declared gone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click
import msgspec

from guestwire import codec, logs
from guestwire.cli import one_line_errors
from guestwire.cli.doctor import plain
from guestwire.cli.fleet_table import age
from guestwire.cli.group import load_settings
from guestwire.cli.stream import connected
from guestwire.errors import ConfigError, GuestwireError
from guestwire.settings import Settings
from guestwire.snapshot import GuestRef

if TYPE_CHECKING:
    from publishers.burial import Burial, Found

T = TypeVar("T")

HEADING = f"{'GUEST':<24} {'HOST':<16} {'PHASE':<8} {'HEARD':<6} WHAT WILL BE DONE"


class Plan(NamedTuple):
    """What is to become of a guest."""

    found: Found
    words: str
    due: bool
    refused: bool = False


@click.command()
@click.argument("guests", nargs=-1, metavar="[NAMESPACE/NAME]...")
@click.option("--host", help="All guests of which this host told last.")
@click.option("--purge", is_flag=True, help="Also delete at once what is kept of them, but for the last word.")
@click.option("--force", is_flag=True, help="Also guests of which something was heard lately.")
@click.option("--yes", "-y", is_flag=True, help="Do it without asking.")
def forget(guests: tuple[str, ...], host: str | None, *, purge: bool, force: bool, yes: bool) -> None:
    """
    Declare guests gone whose host or collector never comes back, so that every reader forgets them.

    \b
    guestwire forget --host node7            all guests of a host that was given up
    guestwire forget prod/db1 --purge --yes  one guest, and what is kept of it

    Lists what it will do, and asks. A guest of which anything was heard within three heartbeats (publish.heartbeat) is
    left alone unless forced, and in any case one of which somebody tells meanwhile. Needs the rights of a collector.
    Exit status: 0 when it was done for all of them, else 1.
    """  # noqa: D301 - click's mark for text that keeps its lines
    if bool(guests) == bool(host):
        raise click.UsageError("name guests, or a host with --host")
    settings = load_settings().settings
    logs.configure(msgspec.structs.replace(settings.log, level="error"))  # it speaks to people
    refs = [GuestRef.parse(guest) for guest in guests]
    with one_line_errors():
        found = _at_work(settings, lambda burial: burial.of_host(host) if host else burial.of(refs))
        _must_be_known(found, refs, host, settings)
        now = codec.now()
        plans = [_plan(each, now, 0 if force else settings.publish.silence, purge=purge) for each in found]
        click.echo("\n".join([HEADING, *(_line(plan, now) for plan in plans)]))
        due, left = [plan.found for plan in plans if plan.due], sum(plan.refused for plan in plans)
        if due and _agreed(len(due), purge=purge, yes=yes):
            left += _at_work(settings, lambda burial: _carry_out(burial, due, purge=purge))
        if left:
            raise GuestwireError(f"{_guests(left)} left alone")


def _at_work(settings: Settings, work: Callable[[Burial], Awaitable[T]]) -> T:
    """On a connection of its own: none is held while somebody thinks about the answer."""
    from publishers.burial import Burial  # noqa: PLC0415 - of the stages, which not every installation has

    async def main() -> T:
        async with connected(settings.nats, "forget") as bus:
            return await work(Burial(bus, settings.cluster, settings.publish))

    return asyncio.run(main())


def _must_be_known(found: Sequence[Found], refs: Sequence[GuestRef], host: str | None, settings: Settings) -> None:
    """Nothing is done when a name is wrong."""
    if host and not found:
        raise GuestwireError(f"no guest of host {host} is known in cluster {settings.cluster}")
    if missing := [str(ref) for ref in refs if ref not in {each.ref for each in found}]:
        raise GuestwireError(f"nothing is known of {plain(', '.join(missing))} in cluster {settings.cluster}")


def _plan(found: Found, now: datetime, silence: float, *, purge: bool) -> Plan:
    if found.gone:
        words = "what is kept of it is deleted" if purge else "nothing: it is gone already"
        return Plan(found, words, due=purge)
    if (now - found.heard).total_seconds() < silence:
        return Plan(found, "nothing: somebody tells of it (--force)", due=False, refused=True)
    return Plan(found, f"declared gone{', what is kept of it deleted' if purge else ''}", due=True)


def _line(plan: Plan, now: datetime) -> str:
    found = plan.found
    heard = age((now - found.heard).total_seconds())
    return f"{plain(str(found.ref)):<24} {plain(found.host):<16} {found.agent.phase:<8} {heard:<6} {plan.words}"


def _agreed(count: int, *, purge: bool, yes: bool) -> bool:
    """By --yes, or by whoever sits at the terminal. ConfigError where neither is."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError("nothing was done: say --yes")
    question = f"Declare {_guests(count)} gone{', and delete what is kept of them' if purge else ''}?"
    return click.confirm(question, abort=True)


async def _carry_out(burial: Burial, due: Sequence[Found], *, purge: bool) -> int:
    """How many were left alone after all."""
    left = 0
    for each in due:
        buried = each.gone or await burial.bury(each)
        if not buried or (purge and not await burial.purge(each.ref)):
            click.echo(f"{plain(str(each.ref))}: left alone, somebody has told of it meanwhile")
            left += 1
    click.echo(f"done for {_guests(len(due) - left)}")
    return left


def _guests(count: int) -> str:
    return f"{count} guest{'' if count == 1 else 's'}"
