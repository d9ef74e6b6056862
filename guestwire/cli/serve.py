"""`guestwire serve`."""

from __future__ import annotations

import click

from guestwire.cli import one_line_errors
from guestwire.cli.group import run_stage


@click.command()
def serve() -> None:
    """
    Answer REST reads from memory, at KubeVirt's paths.

    \b
    curl localhost:8470/apis/subresources.kubevirt.io/v1/namespaces/NS/virtualmachineinstances/NAME/guestosinfo
    """  # noqa: D301 - click's mark for text that keeps its lines
    with one_line_errors():
        import uvloop  # noqa: PLC0415 - of the extra `api`, which other commands do without

        from api.server import main  # noqa: PLC0415
    run_stage(main, uvloop.new_event_loop)
