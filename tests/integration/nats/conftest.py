"""The `nats` command, and a server set up from deploy/nats, with a key for each of its users."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import nkeys
import pytest

from guestwire.jetstream import Bus
from guestwire.settings import Nats
from guestwire.snapshot import Kind, ListMeta, User, UserList
from lab import nats_cli
from lab.certificates import Authority
from lab.errors import LabError
from lab.nats_cli import NatsCli
from lab.nats_server import NatsServer
from lab.paths import cache_dir
from lab.process import OwnedDirectory
from tests.conftest import part

from .facts import PROD, TEST, agent, fact, publish

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy" / "nats"
INBOXES = {
    "administrator": "_INBOX_administrator",
    "collector": "_INBOX_collector",
    "status-writer": "_INBOX_status-writer",
    "api": "_INBOX_api",
    "subscriber": "_INBOX_subscriber",
    "prod-administrator": "_INBOX",
    "prod-subscriber": "_INBOX",
}
"""By role: what its `nats.inbox` is, as docs/security.md tells."""


async def until(condition: Callable[[], Awaitable[object]], within: float = 60) -> None:
    """Wait for what has to be asked for, such as the view, which follows the stream a moment later."""
    async with asyncio.timeout(within):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)


def new_seed() -> str:
    """Of a user, as `nats auth nkey gen user` makes it."""
    return bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)).decode()


def public(seed: str) -> str:
    """The public half of a key."""
    return nkeys.from_seed(bytearray(seed.encode())).public_key.decode()


class Guarded:
    """A server with the roles of deploy/nats and TLS, and what each role's settings are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        authority = Authority(directory / "ca", "test")
        authority.issue(directory / "server", "nats-1", hosts=("127.0.0.1",))
        keys = (DEPLOY / "keys.conf").read_text()
        for role in INBOXES:
            seed = new_seed()
            (directory / f"{role}.nk").write_text(seed)
            name = f"{role.upper().replace('-', '_')}_KEY"
            keys, count = re.subn(rf"^{name} = U\w+$", f"{name} = {public(seed)}", keys, flags=re.MULTILINE)
            assert 1 == count, name
        (directory / "keys.conf").write_text(keys)
        shutil.copy(DEPLOY / "accounts.conf", directory)
        (directory / "tls.conf").write_text((DEPLOY / "tls.conf").read_text().replace("/etc/nats", str(directory)))
        includes = (
            name for name in ("tls.conf", "accounts.conf") if f'include "{name}"' in (DEPLOY / "nats.conf").read_text()
        )
        self.server = NatsServer(directory, config="\n".join(f'include "{name}"' for name in includes))

    def cli(self, program: Path, role: str) -> NatsCli:
        """The `nats` command in a role."""
        settings = self.settings(role)
        return NatsCli(
            program,
            self.directory,
            settings.servers[0],
            *("--nkey", settings.nkey, "--tlsca", settings.ca, "--inbox-prefix", settings.inbox),
        )

    def settings(self, role: str, **others: object) -> Nats:
        """Of a stage in its role."""
        found: dict[str, object] = {
            "servers": [self.server.url.replace("nats://", "tls://")],
            "ca": str(self.directory / "ca.crt"),
            "nkey": str(self.directory / f"{role}.nk"),
            "inbox": INBOXES[role],
            "bucket": "guestwire",
            "timeout": 2.0,
        }
        return msgspec.convert(found | others, Nats)


@pytest.fixture(scope="session")
def nats_program() -> Path:
    """The real command."""
    with part("nats command"):
        return nats_cli.build(cache_dir(), print)
    raise AssertionError


@pytest.fixture
def cli(nats_program: Path, nats_server: NatsServer, tmp_path: Path) -> NatsCli:
    """For a server that anyone may use."""
    return NatsCli(nats_program, tmp_path, nats_server.url)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    """It runs, and is empty."""
    with OwnedDirectory() as directory:
        one = Guarded(directory)
        with part("nats-server"):
            try:
                one.server.start()
            except LabError as error:
                raise AssertionError(str(error)) from error  # a mistake in deploy/nats, not something missing
        yield one
        one.server.stop()


@pytest.fixture
def made(guarded: Guarded, nats_program: Path) -> Guarded:
    """With the streams that the administrators made, by the commands of docs/security.md."""
    for role, name, file in (
        ("administrator", "GUESTWIRE", "stream"),
        ("administrator", "KV_guestwire", "bucket"),
        ("prod-administrator", "GUESTWIRE", "namespace"),
    ):
        cli = guarded.cli(nats_program, role)
        cli("stream", "add", name, "--config", str(DEPLOY / f"{file}.json"))
    return guarded


@pytest.fixture
async def facts(made: Guarded) -> Guarded:
    """With a guest in each of two namespaces, published by the collector's role."""
    async with Bus(made.settings("collector"), "collector") as bus:
        for ref in (PROD, TEST):
            await publish(
                bus, ref, fact(Kind.AGENT, agent(ref)), fact(Kind.USERLIST, UserList((User("root"),), ListMeta()))
            )
    return made
