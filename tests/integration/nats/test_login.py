"""Every way to prove who one is, against real servers that demand it; and wrong settings, told in one line."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import nkeys
import pytest

from guestwire.checks import Outcome, check_nats
from guestwire.errors import ConfigError
from guestwire.jetstream import Bus
from guestwire.login import options
from guestwire.settings import Nats
from lab.certificates import Authority
from lab.nats_server import NatsServer

from .conftest import new_seed, public

pytestmark = pytest.mark.lab

Eventually = Callable[..., Awaitable[float]]
SECRET = "correct-horse-battery"
OPERATOR, ACCOUNT = 14 << 3, 0
"""Prefixes of nkeys (nkeys: PREFIX_BYTE_OPERATOR, PREFIX_BYTE_ACCOUNT)."""


def file(path: Path, text: str) -> str:
    """A file with a line in it."""
    path.write_text(f"{text}\n")
    return str(path)


def key(prefix: int) -> nkeys.KeyPair:
    """A new one."""
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def jwt(signer: nkeys.KeyPair, subject: str, name: str, claims: dict[str, Any]) -> str:
    """Signed as NATS wants it (nats-architecture-and-design, ADR-14)."""

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    body = {"iss": signer.public_key.decode(), "sub": subject, "name": name, "iat": int(time.time()), "nats": claims}
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
    signed = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(body)}"
    return f"{signed}.{base64.urlsafe_b64encode(signer.sign(signed.encode())).rstrip(b'=').decode()}"


def by_credentials(directory: Path) -> tuple[str, dict[str, str]]:
    """A server that believes an operator, and a user of one of its accounts."""
    operator, account, system, seed = key(OPERATOR), key(ACCOUNT), key(ACCOUNT), new_seed()
    account_id, system_id = account.public_key.decode(), system.public_key.decode()
    unlimited = {"subs": -1, "data": -1, "payload": -1}
    limits = unlimited | {"imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    operator_jwt = jwt(operator, operator.public_key.decode(), "o", {"type": "operator", "version": 2})
    account_jwt = jwt(operator, account_id, "a", {"type": "account", "version": 2, "limits": limits | storage})
    system_jwt = jwt(operator, system_id, "SYS", {"type": "account", "version": 2, "limits": limits})
    user_jwt = jwt(account, public(seed), "u", {"type": "user", "version": 2, **unlimited})
    creds = (
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------"
    )
    config = (
        f'operator: "{operator_jwt}"\nsystem_account: {system_id}\nresolver: MEMORY\n'
        f'resolver_preload {{ {account_id}: "{account_jwt}", {system_id}: "{system_jwt}" }}'
    )
    return config, {"credentials": file(directory / "user.creds", creds)}


def by_nkey(directory: Path) -> tuple[str, dict[str, str]]:
    """A server that knows a user's public key."""
    seed = new_seed()
    config = f"accounts {{ A {{ jetstream: enabled, users: [{{ nkey: {public(seed)} }}] }} }}"
    return config, {"nkey": file(directory / "user.nk", seed)}


def by_password(directory: Path) -> tuple[str, dict[str, str]]:
    """User and password."""
    config = f'authorization {{ user: guest, password: "{SECRET}" }}'
    return config, {"user": "guest", "password": file(directory / "password", SECRET)}


def by_token(directory: Path) -> tuple[str, dict[str, str]]:
    """A token."""
    return f'authorization {{ token: "{SECRET}" }}', {"token": file(directory / "token", SECRET)}


def by_certificate(directory: Path) -> tuple[str, dict[str, str]]:
    """TLS, and a server that lets in whose certificate it knows."""
    authority = Authority(directory / "ca", "test")
    server = authority.issue(directory / "server", "server", hosts=("127.0.0.1",))
    user = authority.issue(directory / "user", "collector")
    config = (
        f'tls {{ cert_file: "{server.certificate}", key_file: "{server.key}", ca_file: "{authority.certificate}", '
        "verify_and_map: true }\n"
        'accounts { A { jetstream: enabled, users: [{ user: "CN=collector" }] } }'
    )
    settings = {"ca": authority.certificate, "certificate": user.certificate, "key": user.key}
    return config, {name: str(path) for name, path in settings.items()}


WAYS = [by_credentials, by_nkey, by_password, by_token, by_certificate]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[NatsServer, Nats, dict[str, str]]]:
    """A server, the settings that it lets in, and those about who asks."""
    config, identity = request.param(tmp_path)
    with NatsServer(tmp_path / "nats", config=config) as server:
        url = server.url.replace("nats://", "tls://") if "ca" in identity else server.url
        yield server, msgspec.convert({"servers": [url], **identity}, Nats), identity


async def test_let_in(
    way: tuple[NatsServer, Nats, dict[str, str]], eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """With it a stage does its work, also after the server was restarted; and the log has no secret in it."""
    server, settings, _ = way
    reconnected: list[None] = []
    caplog.set_level("DEBUG")
    async with Bus(settings, "test") as bus:
        await bus.ensure_stream()
        bus.on_reconnect(lambda: reconnected.append(None))
        server.restart()
        await eventually(lambda: reconnected, within=60)
        assert "GUESTWIRE" == (await bus.js.stream_info("GUESTWIRE")).config.name
    assert SECRET not in caplog.text


async def test_not_let_in(way: tuple[NatsServer, Nats, dict[str, str]]) -> None:
    """Without it nobody is."""
    _, settings, identity = way
    without = Nats(servers=settings.servers, ca=identity.get("ca", ""), timeout=2)
    findings = await check_nats(without, chosen=True)

    assert [Outcome.PROBLEM] == [finding.outcome for finding in findings]


async def test_secrets_that_change(tmp_path: Path) -> None:
    """A password is read again at every connection."""
    _, identity = by_password(tmp_path)
    connect = options(msgspec.convert(identity, Nats))
    before = connect["password"]()
    file(Path(identity["password"]), "another")

    assert (SECRET, "another") == (before, connect["password"]())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"servers": ("nats://guest:hunter2@127.0.0.1:4222",)}, "nats.servers: an address must not hold a user"),
        ({"servers": ("nats://hunter2@127.0.0.1:4222",)}, "nats.servers: an address must not hold a user"),
        ({"servers": ("127.0.0.1:4222",)}, "nats.servers: '127.0.0.1:4222' is no address"),
        ({"credentials": "{}/none"}, "nats.credentials: no file"),
        ({"credentials": "{}/junk"}, "nats.credentials: .* holds no user's JWT and seed"),
        ({"nkey": "{}/none"}, "nats.nkey: no file"),
        ({"nkey": "{}/junk"}, "nats.nkey: .* holds no seed of a user"),
        ({"nkey": "{}/empty"}, "nats.nkey: .* holds no seed of a user"),
        ({"nkey": "{}"}, "nats.nkey: .* cannot be read"),
        ({"user": "guest"}, "nats.user and nats.password belong together"),
        ({"password": "{}/junk"}, "nats.user and nats.password belong together"),
        ({"user": "guest", "password": "{}/none"}, "nats.password: no file"),
        ({"user": "guest", "password": "{}/empty"}, "nats.password: .* is empty"),
        ({"token": "{}/none"}, "nats.token: no file"),
        ({"ca": "{}/none"}, "nats.ca: no file"),
        ({"ca": "{}/junk"}, "nats.ca: .* holds no certificates"),
        ({"key": "{}/junk"}, "nats.key: a private key needs its certificate"),
        ({"certificate": "{}/none"}, "nats.certificate: no file"),
        ({"certificate": "{}/junk", "key": "{}/none"}, "nats.key: no file"),
        ({"certificate": "{}/junk", "key": "{}/junk"}, "nats.certificate: .* cannot be used"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    """One line that names the setting, and shows nothing that a file holds."""
    file(tmp_path / "junk", "hunter2")
    (tmp_path / "empty").write_text("")
    filled = {name: value.format(tmp_path) if isinstance(value, str) else value for name, value in settings.items()}
    with pytest.raises(ConfigError, match=f"^{words}") as raised:
        options(msgspec.convert(filled, Nats))

    assert "hunter2" not in str(raised.value)
    assert 1 == len(str(raised.value).splitlines())
