"""Under which names the API answers."""

from __future__ import annotations

import pytest

from api import hosts
from api.hosts import Hosts
from guestwire.settings import Api

OURS = [
    "",
    "localhost",
    "localhost:8470",
    "LOCALHOST.:8470",
    "guestwire.localhost",
    "127.0.0.1:8470",
    "127.8.8.8",
    "192.0.2.7:80",
    "[::1]:8470",
    "[::1]",
    "api.example",
    "API.Example.:443",
]

FOREIGN = [
    "evil.example",
    "evil.example:8470",
    "localhost.evil.example",
    "evillocalhost",
    "127.0.0.1.evil.example",
    "127.0.0.1@evil.example",
    "2130706433",
    "localhost, evil.example",
    "localhost:8470, evil.example",
    "[::1].evil.example",
    "[evil.example]",
    "localhost:evil.example",
    ":8470",
    " ",
    "\x00localhost",
    "\xe9",
]


@pytest.mark.parametrize("host", OURS)
def test_ours(host: str) -> None:
    """Addresses are no names that somebody gives out; localhost and what the settings name are ours."""
    assert Hosts(["api.example."]).allow(host.encode("latin-1"))


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign(host: str) -> None:
    """Whatever else a browser may come with is another's, also what merely contains a name of ours."""
    assert not Hosts(["api.example"]).allow(host.encode("latin-1"))


@pytest.mark.parametrize(
    ("api", "address", "asked"),
    [
        (Api(), "127.0.0.1", True),
        (Api(listen="[::1]:8470"), "::1", True),
        (Api(insecure=True), "127.0.0.1", True),
        (Api(readers="/readers"), "127.0.0.1", True),
        (Api(certificate="/c", key="/k"), "127.0.0.1", False),
        (Api(listen="0.0.0.0:8470", insecure=True), "0.0.0.0", False),
        (Api(listen="0.0.0.0:8470", insecure=True, names=("api",)), "0.0.0.0", True),
    ],
)
def test_where_names_count(api: Api, address: str, asked: bool) -> None:
    """On loopback without TLS, and wherever names are set; TLS proves the name, other hosts come under any."""
    assert asked == (hosts.of_settings(api, address) is not None)


def test_name_that_is_listened_on() -> None:
    """This host's own name, if it is what the settings say to listen on."""
    found = hosts.of_settings(Api(listen="desk:8470"), "127.0.1.1")

    assert found
    assert found.allow(b"desk:8470")
