"""`guestwire get`."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import quote

import click
import msgspec

from guestwire.cli import one_line_errors
from guestwire.cli.group import load_settings
from guestwire.errors import ConfigError, GuestwireError, NotConnected
from guestwire.health import split_address
from guestwire.snapshot import GuestRef, Kind

TIMEOUT = 10.0
KINDS = (Kind.GUESTOSINFO, Kind.USERLIST, Kind.FILESYSTEMLIST)


class Failure(msgspec.Struct):
    """What is told of a Kubernetes Status."""

    message: str


@click.command()
@click.argument("kind", type=click.Choice([str(kind) for kind in KINDS]))
@click.argument("guest", metavar="[NAMESPACE/]NAME")
@click.option("--server", metavar="URL", help="The API's address (default: where `guestwire serve` listens).")
@click.option(
    "--output", "-o", type=click.Choice(["json", "raw"]), default="json", help="Indented, or the bytes as they came."
)
def get(kind: str, guest: str, server: str | None, output: str) -> None:
    """
    Ask the API about a guest.

    \b
    guestwire get userlist default/vm1
    """  # noqa: D301 - click's mark for text that keeps its lines
    with one_line_errors():
        body = read((server or _local(load_settings().settings.api.listen)).rstrip("/"), GuestRef.parse(guest), kind)
        if output == "json":
            body = msgspec.json.format(body, indent=2) + b"\n"
        sys.stdout.buffer.write(body)


def read(server: str, ref: GuestRef, kind: str) -> bytes:
    """One read over HTTP, past any proxy. Raises GuestwireError with the API's own message."""
    namespace, name = quote(ref.namespace, safe=""), quote(ref.name, safe="")
    path = f"/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{name}/{kind}"
    if not server.startswith(("http://", "https://")):
        raise ConfigError(f"--server: {server} is no URL; write http://HOST:PORT")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(server + path, timeout=TIMEOUT) as response:
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        raise GuestwireError(_message(error)) from None
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise NotConnected(f"cannot reach the API at {server}: {reason or type(error).__name__}") from None


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return msgspec.json.decode(error.read(), type=Failure).message
    except (msgspec.DecodeError, OSError, HTTPException):
        return f"{error.url}: {error.code} {error.reason}"


def _local(listen: str) -> str:
    """The URL of the API on this host; where it listens on any address, loopback is one of them."""
    host, port = split_address(listen)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
