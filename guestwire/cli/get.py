"""`guestwire get`."""

from __future__ import annotations

import ssl
import sys
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import TextIO
from urllib.parse import quote

import click
import msgspec

from guestwire import codec
from guestwire.cli import one_line_errors
from guestwire.cli.group import load_settings
from guestwire.errors import ConfigError, GuestwireError, NotConnected
from guestwire.health import split_address
from guestwire.settings import Api
from guestwire.snapshot import GuestRef, Kind

TIMEOUT = 10.0
KUBEVIRTS = (Kind.GUESTOSINFO, Kind.USERLIST, Kind.FILESYSTEMLIST)
"""Asked for where KubeVirt has them; the others under our own group."""


class Failure(msgspec.Struct):
    """What is told of a Kubernetes Status."""

    message: str


@click.command()
@click.argument("kind", type=click.Choice(codec.kinds()))
@click.argument("guest", metavar="[NAMESPACE/]NAME")
@click.option("--server", metavar="URL", help="The API's address (default: where `guestwire serve` listens).")
@click.option(
    "--output", "-o", type=click.Choice(["json", "raw"]), default="json", help="Indented, or the bytes as they came."
)
@click.option("--token", type=click.File(), help="File with the reader's token.")
@click.option("--ca", type=click.Path(dir_okay=False), help="PEM of who signed the API's certificate.")
def get(kind: str, guest: str, server: str | None, output: str, token: TextIO | None, ca: str | None) -> None:
    """
    Ask the API about a guest.

    \b
    guestwire get userlist default/vm1
    """  # noqa: D301 - click's mark for text that keeps its lines
    with one_line_errors():
        url = server or _local(load_settings().settings.api)
        secret = token.read().strip() if token else ""
        body = read(url.rstrip("/"), GuestRef.parse(guest), kind, secret, ca)
        if output == "json":
            body = msgspec.json.format(body, indent=2) + b"\n"
        sys.stdout.buffer.write(body)


def read(server: str, ref: GuestRef, kind: str, token: str = "", ca: str | None = None) -> bytes:
    """One read over HTTP, past any proxy. Raises GuestwireError with the API's own message."""
    namespace, name = quote(ref.namespace, safe=""), quote(ref.name, safe="")
    group, resource = "guestwire.io", "guests"
    if kind in KUBEVIRTS:
        group, resource = "subresources.kubevirt.io", "virtualmachineinstances"
    path = f"/apis/{group}/v1/namespaces/{namespace}/{resource}/{name}/{kind}"
    if not server.startswith(("http://", "https://")):
        raise ConfigError(f"--server: {server} is no URL; write http://HOST:PORT")
    request = urllib.request.Request(server + path)  # noqa: S310 - its scheme was just looked at
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        secure = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), secure)
        with opener.open(request, timeout=TIMEOUT) as response:
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


def _local(api: Api) -> str:
    """The URL of the API on this host; where it listens on any address, loopback is one of them."""
    scheme = "https" if api.certificate else "http"
    host, port = split_address(api.listen)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
