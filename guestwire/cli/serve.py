"""`guestwire serve`."""

from __future__ import annotations

import click

from guestwire.cli import one_line_errors
from guestwire.cli.group import run_stage


@click.command()
def serve() -> None:
    """
    Answer reads of guests from memory: KubeVirt's paths, the resource `guests` with lists and watches for Kubernetes's
    clients, a live page for browsers, metrics.

    \b
    curl localhost:8470/apis/subresources.kubevirt.io/v1/namespaces/NS/virtualmachineinstances/NAME/guestosinfo
    curl localhost:8470/apis/guestwire.io/v1/guests?watch=true

    Only this host is served (api.listen), and whoever asks there, unless it is known who may read: api.readers holds
    tokens and certificates, api.aggregated has a cluster's API server ask.
    """  # noqa: D301 - click's mark for text that keeps its lines
    with one_line_errors():
        import uvloop  # noqa: PLC0415 - of the extra `api`, which other commands do without

        from api.server import main  # noqa: PLC0415
    run_stage(main, uvloop.new_event_loop)
