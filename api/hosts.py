"""
Under which names the API is served (RFC 9110, 7.4).

A web page of a stranger's can have its own name lead to 127.0.0.1 once it is loaded (DNS rebinding), and would then
read an API that asks nobody who they are as its own origin. The Host header still tells that name. So where neither TLS
proves the name nor other hosts are let in anyhow, only names that nobody else can give out are answered: addresses,
which are no names, `localhost` and what is below it (RFC 6761, 6.3), the name of `api.listen`, those of `api.names`.

Without a Host header no browser asks (HTTP/1.0), so there is nothing to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address

from guestwire.health import split_address
from guestwire.settings import Api

LOCAL = "localhost"

HOST = re.compile(r"(\[(?P<address>[^\]]+)\]|(?P<name>[^\s:,\[\]]+))(:\d*)?")

REMEMBERED = 64
"""Host headers of which it is remembered whether they are allowed."""


class Hosts:
    """Those that are answered."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(name.lower().removesuffix(".") for name in (LOCAL, *names))
        self.allow = lru_cache(maxsize=REMEMBERED)(self._allow)

    def _allow(self, host: bytes) -> bool:
        """Whether a Host header, or the lack of one, is that of a client who means us."""
        found = HOST.fullmatch(host.decode("latin-1").lower())
        if found is None:
            return not host
        name = (found["name"] or "").removesuffix(".")
        return name in self._names or name.endswith(f".{LOCAL}") or _is_address(name or found["address"])


def of_settings(api: Api, address: str) -> Hosts | None:
    """By the settings and the address that is listened on; None where every name is as good as another."""
    if api.certificate or not (api.names or ip_address(address).is_loopback):
        return None
    return Hosts((split_address(api.listen)[0], *api.names))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
