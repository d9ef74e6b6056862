"""`guestwire completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """
    Print the script that completes `guestwire` on the command line.

    \b
    bash: guestwire completion bash > ~/.local/share/bash-completion/completions/guestwire
    zsh:  guestwire completion zsh > ~/.zfunc/_guestwire    (with ~/.zfunc in fpath before compinit)
    fish: guestwire completion fish > ~/.config/fish/completions/guestwire.fish

    Or for this shell only: source <(guestwire completion bash)
    """  # noqa: D301 - click's mark for text that keeps its lines
    root = click.get_current_context().find_root()
    kind = get_completion_class(shell)
    if kind is None:  # click knows the three shells above
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(root.command, {}, "guestwire", "_GUESTWIRE_COMPLETE").source())
