"""
How a connection to NATS proves who it is, and whom it trusts: nats-py's options from the settings.

Every way that nats-server knows: a .creds file, an nkey, user and password, a token, a client certificate. Secrets are
files, read again at every connection, so that a changed one counts from the next on; none of them is ever in a log, and
an address with a password in it is refused because addresses are logged.
"""

from __future__ import annotations

import importlib.util
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from guestwire.errors import ConfigError
from guestwire.settings import Nats

SCHEMES = ("nats", "tls", "ws", "wss")


def options(settings: Nats) -> dict[str, Any]:
    """Options of nats-py's `connect`. Raises ConfigError for what no retry mends, naming the setting."""
    _check_addresses(settings)
    chosen: dict[str, Any] = {"inbox_prefix": settings.inbox}
    if settings.credentials:
        _check_credentials(settings.credentials)
        chosen["user_credentials"] = settings.credentials
    if settings.nkey:
        _check_seed(settings.nkey)
        chosen["nkeys_seed"] = settings.nkey
    if bool(settings.user) != bool(settings.password):
        raise ConfigError("nats.user and nats.password belong together: set both or none")
    if settings.user:
        chosen |= {"user": settings.user, "password": _secret(settings.password, "nats.password")}
    if settings.token:
        chosen["token"] = _secret(settings.token, "nats.token")
    if settings.key and not settings.certificate:
        raise ConfigError("nats.key: a private key needs its certificate, nats.certificate")
    if settings.ca or settings.certificate:
        chosen["tls"] = _tls(settings)
    return chosen


def _check_addresses(settings: Nats) -> None:
    for server in settings.servers:
        try:
            address = urlsplit(server)
        except ValueError:
            address = urlsplit("")
        if address.username is not None:  # before anything that would show it
            raise ConfigError(
                "nats.servers: an address must not hold a user, password or token, for it is logged; "
                "write nats.user, nats.password or nats.token"
            )
        if address.scheme not in SCHEMES or not address.netloc:
            raise ConfigError(f"nats.servers: {server!r} is no address of a NATS server; write nats://HOST:4222")


def _read(path: str, setting: str) -> str:
    try:
        return Path(path).read_text().strip()
    except FileNotFoundError:
        raise ConfigError(f"{setting}: no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {getattr(error, 'strerror', 'not text')}") from None


def _secret(path: str, setting: str) -> Callable[[], str]:
    """Reads a secret whenever it is needed; it must be there now."""
    if not _read(path, setting):
        raise ConfigError(f"{setting}: {path} is empty")
    return lambda: Path(path).read_text().strip()


def _check_credentials(path: str) -> None:
    _need_nkeys("nats.credentials")
    text = _read(path, "nats.credentials")
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise ConfigError(f"nats.credentials: {path} holds no user's JWT and seed")


def _check_seed(path: str) -> None:
    _need_nkeys("nats.nkey")
    import nkeys  # noqa: PLC0415 - only who uses a key needs the package

    try:
        nkeys.from_seed(bytearray(_read(path, "nats.nkey").encode())).wipe()
    except (nkeys.NkeysError, ValueError):
        raise ConfigError(f"nats.nkey: {path} holds no seed of a user") from None


def _need_nkeys(setting: str) -> None:
    if importlib.util.find_spec("nkeys") is None:
        raise ConfigError(f"{setting}: signing needs the Python package nkeys; install nats-py[nkeys]")


def _tls(settings: Nats) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
    except FileNotFoundError:
        raise ConfigError(f"nats.ca: no file {settings.ca}") from None
    except OSError as error:  # an SSLError among them
        raise ConfigError(f"nats.ca: {settings.ca} holds no certificates: {_reason(error)}") from None
    if settings.certificate:
        for path, setting in ((settings.certificate, "nats.certificate"), (settings.key, "nats.key")):
            if path and not Path(path).is_file():
                raise ConfigError(f"{setting}: no file {path}")
        try:
            # An empty password, or OpenSSL would ask the terminal for one.
            context.load_cert_chain(settings.certificate, settings.key or None, password="")
        except OSError as error:
            raise ConfigError(
                f"nats.certificate: {settings.certificate} with its key cannot be used: {_reason(error)}"
            ) from None
    return context


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or "not PEM")
