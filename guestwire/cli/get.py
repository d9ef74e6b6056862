"""`guestwire get`."""

from __future__ import annotations

import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPException
from typing import TextIO
from urllib.parse import quote, urlencode

import click
import msgspec

from guestwire import codec
from guestwire.cli import one_line_errors
from guestwire.cli.group import load_settings
from guestwire.errors import ConfigError, GuestwireError, NotConnected
from guestwire.health import split_address
from guestwire.settings import Api
from guestwire.snapshot import GuestRef, Kind

TIMEOUT = 30.0
"""Seconds; more than the API waits for a guest that is read on demand."""
KUBEVIRTS = (Kind.GUESTOSINFO, Kind.USERLIST, Kind.FILESYSTEMLIST)
"""Asked for where KubeVirt has them; the others under our own group."""


class Failure(msgspec.Struct):
    """What is told of a Kubernetes Status."""

    message: str


GUEST = "guest"
"""All that is known about one, as the resource `guests` has it."""


class Client(msgspec.Struct, frozen=True):
    """Who asks, and where: paths of PEM files, and what is in the one of a token."""

    server: str
    token: str = ""
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


@click.command()
@click.argument("kind", type=click.Choice([GUEST, *codec.kinds()]))
@click.argument("guest", metavar="[NAMESPACE/]NAME")
@click.option("--server", metavar="URL", help="The API's address (default: where `guestwire serve` listens).")
@click.option(
    "--output", "-o", type=click.Choice(["json", "raw"]), default="json", help="Indented, or the bytes as they came."
)
@click.option("--max-age", metavar="AGE", help="Have the guest read first if the value is older (5s, 1m; 0: always).")
@click.option("--allow-stale", is_flag=True, help="The last value also of a guest whose agent is away.")
@click.option("--token", type=click.File(), help="File with the reader's token.")
@click.option("--ca", type=click.Path(dir_okay=False), help="PEM of who signed the API's certificate.")
@click.option("--cert", type=click.Path(dir_okay=False), help="PEM of the reader's certificate.")
@click.option("--key", type=click.Path(dir_okay=False), help="PEM of its key, if that is in a file of its own.")
def get(
    kind: str,
    guest: str,
    server: str | None,
    output: str,
    max_age: str | None,
    token: TextIO | None,
    ca: str | None,
    cert: str | None,
    key: str | None,
    *,
    allow_stale: bool,
) -> None:
    """
    Ask the API about a guest: for one kind of facts, or for all that is known.

    \b
    guestwire get userlist default/vm1
    guestwire get userlist default/vm1 --max-age 0    who is logged in at this moment
    guestwire get guest default/vm1
    """  # noqa: D301 - click's mark for text that keeps its lines
    with one_line_errors():
        if key and not cert:
            raise ConfigError("--key: there is no --cert that it belongs to")
        url = server or _local(load_settings().settings.api)
        asks = Client(url.rstrip("/"), token.read().strip() if token else "", ca, cert, key)
        wishes = {"maxAge": max_age, "allowStale": "true" if allow_stale else None}
        body = read(asks, GuestRef.parse(guest), kind, **wishes)
        if output == "json":
            body = msgspec.json.format(body, indent=2) + b"\n"
        sys.stdout.buffer.write(body)


def path_of(ref: GuestRef, kind: str) -> str:
    """Where a guest's facts are read."""
    namespace, name = quote(ref.namespace, safe=""), quote(ref.name, safe="")
    if kind in KUBEVIRTS:
        return f"/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{name}/{kind}"
    guest = f"/apis/guestwire.io/v1/namespaces/{namespace}/guests/{name}"
    return guest if kind == GUEST else f"{guest}/{kind}"


def read(client: Client, ref: GuestRef, kind: str, **wishes: str | None) -> bytes:
    """One read over HTTP, past any proxy. Raises GuestwireError with the API's own message, and ConfigError."""
    if not client.server.startswith(("http://", "https://")):
        raise ConfigError(f"--server: {client.server} is no URL; write http://HOST:PORT")
    query = urlencode({name: value for name, value in wishes.items() if value is not None})
    url = f"{client.server}{path_of(ref, kind)}{f'?{query}' if query else ''}"
    request = urllib.request.Request(url)  # noqa: S310 - its scheme was just looked at
    if client.token:
        request.add_unredirected_header("Authorization", f"Bearer {client.token}")
    secure = urllib.request.HTTPSHandler(context=_secured(client))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), secure)
    try:
        with opener.open(request, timeout=TIMEOUT) as response:
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        raise GuestwireError(_message(error) + _hint(error.code, wishes)) from None
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise NotConnected(f"cannot reach the API at {client.server}: {reason or type(error).__name__}") from None


def _secured(client: Client) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=client.ca)
    except OSError as error:
        raise ConfigError(f"--ca: {client.ca}: {error.strerror or 'no certificates in PEM'}") from None
    if client.certificate:
        try:
            context.load_cert_chain(client.certificate, client.key)
        except OSError as error:
            reason = error.strerror if not isinstance(error, ssl.SSLError) else "not a certificate and its key in PEM"
            raise ConfigError(f"--cert, --key: {client.certificate}: {reason}") from None
    return context


def _hint(code: int, wishes: Mapping[str, str | None]) -> str:
    """What else may be asked for where there is an older value."""
    if code == HTTPStatus.CONFLICT and not wishes.get("allowStale"):
        return " (--allow-stale gives the last value)"
    if code == HTTPStatus.GATEWAY_TIMEOUT and wishes.get("maxAge"):
        return " (without --max-age that is given)"
    return ""


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
