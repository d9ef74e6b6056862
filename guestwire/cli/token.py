"""`guestwire token`."""

from __future__ import annotations

import hashlib
import secrets
from urllib.parse import quote

import click


@click.command()
@click.argument("name")
@click.argument("namespaces", nargs=-1, metavar="[NAMESPACE]...")
@click.option("--all", "everywhere", is_flag=True, help="All namespaces, and what belongs to none.")
def token(name: str, namespaces: tuple[str, ...], *, everywhere: bool) -> None:
    """
    Make a token for a reader of the API, and the line for the file of `api.readers`.

    \b
    guestwire token alice default prod >> /etc/guestwire/readers

    The line goes to standard output, the token to standard error: it is shown this once, and kept nowhere.
    """  # noqa: D301 - click's mark for text that keeps its lines
    if not name:
        raise click.UsageError("the name is empty")
    if everywhere == bool(namespaces):
        raise click.UsageError("name namespaces, or say --all")
    if "*" in namespaces:  # it would grant a namespace of that name
        raise click.UsageError("'*' is the file's word for all namespaces; say --all")
    made = secrets.token_urlsafe(32)
    digest = hashlib.sha256(made.encode()).hexdigest()
    granted = "*" if everywhere else ",".join(_word(each) for each in namespaces)
    click.echo(f"{_word(name)} sha256:{digest} {granted}")
    click.echo(f"token of {name}: {made}", err=True)


def _word(text: str) -> str:
    """One word of the line, for any text."""
    return quote(text, safe=":@+")
