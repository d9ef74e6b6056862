"""
TLS of the server, with certificates that change while it runs.

The server is given one context, which does nothing but to choose the newest of ours for each handshake. So an
authority that is no longer trusted is gone with the next connection, which no context can be told in place. A client's
certificate is asked for, not demanded: whether somebody may do without is decided by request. Tickets are not given
out, as a session that is taken up again would be taken up with the trust of another day.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import msgspec

from guestwire.errors import ConfigError


class Material(msgspec.Struct, frozen=True):
    """What a context is made of. The certificate may be a chain, the authorities may be many."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All that there are."""
        return [path for path in (self.certificate, self.key, self.client_ca) if path]

    def authorities(self) -> str:
        """PEM of the authorities that sign clients. Raises ConfigError."""
        return _text("api.client_ca", self.client_ca) if self.client_ca else ""

    def context(self) -> ssl.SSLContext:
        """With the certificate, and without authorities. Raises ConfigError, which names the setting."""
        context = _bare()
        for setting, path in (("api.certificate", self.certificate), ("api.key", self.key)):
            _text(setting, path)
        try:
            context.load_cert_chain(self.certificate, self.key, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            problem = f"not a certificate and its key, without a pass phrase: {_reason(error)}"
            raise ConfigError(f"api.certificate, api.key: {self.certificate}, {self.key}: {problem}") from None
        return context


Loaded = tuple[str, ssl.SSLContext]
"""PEM of the authorities in files, and a context with the certificate."""


class Tls:
    """Use `context`. Raises ConfigError when there is something wrong with the files at the start."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self.authorities = ""
        """PEM of whom to trust about clients."""
        self._present = _bare()
        self.context = _bare()
        self.context.sni_callback = self._choose
        self.apply(self.load())

    def load(self) -> Loaded:
        """What the files say now; good for a thread. Raises ConfigError."""
        return self.material.authorities(), self.material.context()

    def apply(self, loaded: Loaded) -> bool:
        """
        For all handshakes from now on; True when other clients are trusted than before. Authorities that are in no
        file, those of the front proxy, stay. Raises ConfigError.
        """
        authorities, context = loaded
        return self._take(context, authorities if self.material.client_ca else self.authorities)

    async def trust(self, authorities: str) -> None:
        """Trust these about clients, and no others. Raises ConfigError."""
        self._take(await asyncio.to_thread(self.material.context), authorities)

    def _take(self, context: ssl.SSLContext, authorities: str) -> bool:
        file = self.material.client_ca
        trust(context, authorities, f"api.client_ca: {file}" if file else "the front proxy's authorities")
        changed = authorities != self.authorities
        self.authorities, self._present = authorities, context
        return changed

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called in every handshake, also when the client names no server."""
        connection.context = self._present


def trust(context: ssl.SSLContext, authorities: str, what: str) -> None:
    """Add PEM certificates of authorities. Raises ConfigError, beginning with `what`."""
    if not authorities.strip():
        return
    try:
        context.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{what}: no PEM certificates: {_reason(error)}") from None


def _bare() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


def _text(setting: str, path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting}: {path}: {getattr(error, 'strerror', None) or 'not PEM'}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error) or type(error).__name__
