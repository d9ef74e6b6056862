"""Who may read where there is no cluster: tokens, TLS, certificates of clients, over a socket."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
import subprocess
import sysconfig
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.types import Receive, Scope, Send

from api.app import Api, Limits
from api.cache import Cache
from api.metrics import Metrics
from api.security import Security
from api.server import Server, config, listen
from guestwire import codec, settings
from guestwire.errors import ConfigError
from guestwire.jetstream import Message
from guestwire.snapshot import AgentState, Body, GuestRef, Kind, ListMeta, Phase, User, UserList
from guestwire.subjects import Address
from lab.certificates import Authority, KeyPair

GUESTWIRE = Path(sysconfig.get_path("scripts"), "guestwire")
USERLIST = "/apis/guestwire.io/v1/namespaces/{}/guests/vm1/userlist"
KUBEVIRTS = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm1/userlist"
HERE, ELSEWHERE = USERLIST.format("default"), USERLIST.format("other")
BODY = b'{"items":[{"userName":"root"}],"metadata":{}}'
SLOW = "Content-Length: 0"
"""A request that has a body, be it an empty one, is left to the application."""


def line(name: str, secret: str, granted: str) -> str:
    """A line of the file."""
    return f"{name} sha256:{hashlib.sha256(secret.encode()).hexdigest()} {granted}\n"


def bearer(secret: str) -> str:
    """What a client sends."""
    return f"Authorization: Bearer {secret}"


READERS = line("alice", "alices", "default") + line("monitor", "monitors", "*") + "carol certificate default\n"


class CountingApi(Api):
    """The application, counting what it is asked."""

    asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await super().__call__(scope, receive, send)


class Reply(msgspec.Struct):
    """What came back; names of headers in lower case, without Date and Age."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> str:
        """The message of a Status."""
        return str(msgspec.json.decode(self.body)["message"])


class Connection:
    """One connection, on which requests are written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, path: str, *headers: str, method: str = "GET") -> Reply:
        """A request, and its answer."""
        self._writer.write("".join(f"{each}\r\n" for each in (f"{method} {path} HTTP/1.1", *headers, "")).encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        pairs = (text.partition(": ") for text in head[1:-1])
        found = {name: value for name, _, value in pairs if name not in {"date", "age"}}
        status = int(head[0].split()[1])
        length = 0 if method == "HEAD" or status == 304 else int(found["content-length"])
        return Reply(status, found, await self._reader.readexactly(length))

    async def closed(self) -> bool:
        """Waits for the other side to say nothing more."""
        with suppress(ConnectionError):
            return await self._reader.read() == b""
        return True


class Site:
    """The server with its security, and a cache that has two guests of the same name."""

    def __init__(self, api: CountingApi, port: int, server_ca: Authority) -> None:
        self.api = api
        self.port = port
        self._server_ca = server_ca
        self.tls = False

    @asynccontextmanager
    async def connected(self, pair: KeyPair | None = None) -> AsyncIterator[Connection]:
        """A connection of its own, with a client's certificate."""
        context = None
        if self.tls:
            context = ssl.create_default_context(cafile=str(self._server_ca.certificate))
            if pair:
                context.load_cert_chain(pair.certificate, pair.key)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def ask(self, path: str = HERE, *headers: str, method: str = "GET", pair: KeyPair | None = None) -> Reply:
        """One request on a connection of its own."""
        async with self.connected(pair) as connection:
            return await connection.ask(path, *headers, method=method)

    async def status(self, *headers: str, pair: KeyPair | None = None) -> int:
        """Of such a request; 0 when there is no connection to be had."""
        try:
            return (await self.ask(HERE, *headers, pair=pair)).status
        except (OSError, asyncio.IncompleteReadError):
            return 0


def filled() -> Cache:
    """A guest in each of two namespaces."""
    cache = Cache()
    cache.begin()
    for namespace in ("default", "other"):
        ref = GuestRef(namespace, "vm1")
        said: Iterable[tuple[str, Body]] = (
            (
                Kind.AGENT,
                AgentState(
                    namespace=namespace,
                    name="vm1",
                    uid="u1",
                    domain="d",
                    domain_uuid="u1",
                    host="h",
                    phase=Phase.RUNNING,
                    channel=True,
                    connected=True,
                    since=codec.now(),
                ),
            ),
            (Kind.USERLIST, UserList((User("root"),), ListMeta())),
        )
        for kind, body in said:
            event = codec.Event(id="1", source="/guestwire/local/h", uid="u1", time=codec.now(), trace_id="")
            cache.apply(Message(Address("local", ref, kind), cache.revision + 1, event, codec.encode(body), {}))
    cache.complete()
    return cache


@asynccontextmanager
async def serving(directory: Path, *, limits: Limits | None = None, **options: Any) -> AsyncIterator[Site]:
    """The real server by settings of the API."""
    chosen = settings.Api(listen="127.0.0.1:0", **options)
    security, cache = Security(chosen), filled()
    metrics = Metrics(cache, connected=lambda: False, skipped=lambda: 0)
    api = CountingApi(cache, metrics, limits or Limits(), security.access)
    server = Server(config(api, 5, security.tls))
    listening = listen(chosen)
    serving = asyncio.create_task(server.serve([listening]))
    securing = asyncio.create_task(security.run(server.end_connections))
    site = Site(api, listening.getsockname()[1], Authority(directory / "server-ca", "server-ca"))
    site.tls = bool(chosen.certificate)
    try:
        yield site
    finally:
        securing.cancel()
        await asyncio.wait([securing])
        server.should_exit = True
        await serving


@pytest.fixture
def readers(tmp_path: Path) -> Path:
    """The file of readers."""
    file = tmp_path / "readers"
    file.write_text(READERS)
    return file


@pytest.fixture
async def alone(tmp_path: Path, readers: Path) -> AsyncIterator[Site]:
    """With tokens, in clear on loopback."""
    async with serving(tmp_path, readers=str(readers)) as site:
        yield site


@pytest.fixture
def client_ca(tmp_path: Path) -> Authority:
    """Signs clients."""
    return Authority(tmp_path / "client-ca", "client-ca")


@pytest.fixture
async def mutual(tmp_path: Path, readers: Path, client_ca: Authority) -> AsyncIterator[Site]:
    """With TLS, tokens and certificates."""
    served = Authority(tmp_path / "server-ca", "server-ca").issue(tmp_path / "tls", "api", hosts=["127.0.0.1"])
    options: dict[str, Any] = {
        "certificate": str(served.certificate),
        "key": str(served.key),
        "client_ca": str(client_ca.certificate),
    }
    async with serving(tmp_path, readers=str(readers), **options) as site:
        yield site


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for it."""
    try:
        async with asyncio.timeout(60):
            while not await condition():  # noqa: ASYNC110 - what changes is behind a socket
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"{what}: not within 60 s")


async def test_a_token_reads(alone: Site) -> None:
    """A token reads the namespaces of its line; the first read is decided, all others are answered by one lookup."""
    first = await alone.ask(HERE, bearer("alices"))
    asked = alone.api.asked
    others = [await alone.ask(HERE, bearer("alices")) for _ in range(3)]

    assert (200, BODY) == (first.status, first.body)
    assert [first] * 3 == others
    assert (1, 1) == (asked, alone.api.asked)
    assert (await alone.ask(KUBEVIRTS, bearer("alices"))).body == first.body


@pytest.mark.parametrize("headers", [(), ('If-None-Match: "2"',), ("Connection: close",)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("secret", ["alices", "monitors", "wrong"])
async def test_both_ways_answer_the_same(alone: Site, secret: str, method: str, headers: tuple[str, ...]) -> None:
    """What the protocol class answers to an asker it knows is what the application answers, byte for byte."""
    await alone.ask(HERE, bearer(secret))
    before = alone.api.asked
    fast = await alone.ask(HERE, bearer(secret), *headers, method=method)
    slow = await alone.ask(HERE, bearer(secret), SLOW, *headers, method=method)

    assert fast == slow
    assert (1 if secret != "wrong" else 2) == alone.api.asked - before


async def test_refused(alone: Site) -> None:
    """Nobody is told how to be somebody; somebody is told what they may not; neither learns what is there."""
    nobody = await alone.ask(HERE)
    wrong = await alone.ask(HERE, bearer("nonsense"))
    denied = await alone.ask(ELSEWHERE, bearer("alices"))
    missing = await alone.ask(ELSEWHERE.replace("vm1", "vm9"), bearer("alices"))

    assert (401, 'Bearer realm="guestwire"', "Unauthorized") == (
        nobody.status,
        nobody.headers["www-authenticate"],
        nobody.message,
    )
    assert nobody == wrong
    assert (
        403,
        (
            'guests.guestwire.io "vm1" is forbidden: User "alice" cannot get resource "guests/userlist" in API group '
            '"guestwire.io" in the namespace "other"'
        ),
    ) == (denied.status, denied.message)
    assert denied.message.replace("vm1", "vm9") == missing.message
    assert 200 == (await alone.ask(ELSEWHERE, bearer("monitors"))).status


async def test_every_request_is_judged_for_itself(alone: Site) -> None:
    """On one connection a good token does nothing for the next request."""
    async with alone.connected() as connection:
        codes = [
            (await connection.ask(HERE, *headers)).status
            for headers in ((bearer("alices"),), (), (bearer("alices"),), (bearer("wrong"),), (bearer("alices"),))
        ]

    assert [200, 401, 200, 401, 200] == codes


@pytest.mark.parametrize(
    "header",
    [
        "X-Remote-User: alice",
        "Authorization: Basic YWxpY2VzOg==",
        "Authorization:",
        "Authorization: Bearer",
        "Cookie: a",
    ],
)
async def test_no_tokens(alone: Site, header: str) -> None:
    """What a front proxy would say counts for nothing, and so does all else that is no token."""
    assert 401 == (await alone.ask(HERE, header)).status


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/healthz", [200, 200, 200]),
        ("/livez", [200, 200, 200]),
        ("/readyz", [200, 200, 200]),
        ("/metrics", [401, 403, 200]),
        ("/apis", [401, 200, 200]),
        ("/version", [401, 200, 200]),
        ("/nowhere", [401, 403, 404]),
        ("/apis/guestwire.io/v1/nothing", [401, 403, 404]),
    ],
)
async def test_paths(alone: Site, path: str, expected: list[int]) -> None:
    """Health is everybody's, discovery any reader's, all else takes the right to everything."""
    codes = [(await alone.ask(path, *headers)).status for headers in ((), (bearer("alices"),), (bearer("monitors"),))]

    assert expected == codes


async def test_open_metrics(tmp_path: Path, readers: Path) -> None:
    """By setting, metrics are everybody's too, and nothing else with them."""
    async with serving(tmp_path, readers=str(readers), open_metrics=True) as site:
        assert [200, 401] == [(await site.ask(path)).status for path in ("/metrics", "/apis")]


async def test_file_of_readers_changes(alone: Site, readers: Path) -> None:
    """A line that is taken out counts no more, on the path of one lookup and on old connections too."""
    async with alone.connected() as kept:
        assert [200] * 3 == [(await kept.ask(HERE, bearer("alices"))).status for _ in range(3)]

        rewrite(readers, READERS.replace("alice", "#alice") + line("dora", "doras", "default"))
        await until(lambda: has(alone, 200, bearer("doras")), "the new line in force")
        assert 401 == (await kept.ask(HERE, bearer("alices"))).status

        rewrite(readers, "nonsense\n")
        assert 200 == (await kept.ask(HERE, bearer("doras"))).status

        rewrite(readers, READERS)
        await until(lambda: has(alone, 200, bearer("alices")), "the mended file in force")
        assert 401 == (await kept.ask(HERE, bearer("doras"))).status


def rewrite(file: Path, text: str) -> None:
    """As an editor does."""
    file.write_text(text)


def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """Run `guestwire` to its end: exit status, standard output, standard error."""
    done = subprocess.run(
        [GUESTWIRE, *arguments], env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


async def has(site: Site, expected: int, *headers: str, pair: KeyPair | None = None) -> bool:
    """Whether a read has that status."""
    return expected == await site.status(*headers, pair=pair)


async def test_certificates(mutual: Site, client_ca: Authority, tmp_path: Path) -> None:
    """A certificate reads what the line with its name says, by one lookup; a token beside it counts instead."""
    carol = client_ca.issue(tmp_path / "carol", "carol")
    replies = [await mutual.ask(HERE, pair=carol) for _ in range(3)]

    assert [(200, BODY)] * 3 == [(each.status, each.body) for each in replies]
    assert 1 == mutual.api.asked
    assert 403 == (await mutual.ask(ELSEWHERE, pair=carol)).status
    assert [200, 401, 401, 200] == [
        (await mutual.ask(ELSEWHERE, bearer("monitors"), pair=carol)).status,
        (await mutual.ask(HERE, bearer("wrong"), pair=carol)).status,
        (await mutual.ask(HERE)).status,
        (await mutual.ask(HERE, bearer("alices"))).status,
    ]


async def test_certificates_of_others(mutual: Site, client_ca: Authority, tmp_path: Path) -> None:
    """A name without a line is nobody, one with a token's line too, another authority's carol gets no connection."""
    other = Authority(tmp_path / "other-ca", "client-ca").issue(tmp_path / "other", "carol")
    codes = [
        await mutual.status(pair=client_ca.issue(tmp_path / name, name, organization="carol"))
        for name in ("mallory", "alice")
    ]

    assert [401, 401, 0] == [*codes, await mutual.status(pair=other)]


async def test_authority_of_clients_changes(mutual: Site, client_ca: Authority, tmp_path: Path) -> None:
    """With another authority in the file its clients are let in, and those of before are out, connected or not."""
    before = client_ca.issue(tmp_path / "before", "carol")
    new = Authority(tmp_path / "new-ca", "new-ca")
    after = new.issue(tmp_path / "after", "carol")
    async with mutual.connected(before) as kept:
        assert 200 == (await kept.ask(HERE)).status
        assert 0 == await mutual.status(pair=after)

        client_ca.certificate.write_bytes(new.certificate.read_bytes())
        await until(lambda: has(mutual, 200, pair=after), "the new authority in force")

        assert await kept.closed()
    assert 0 == await mutual.status(pair=before)


async def test_certificate_of_the_server_changes(mutual: Site, tmp_path: Path) -> None:
    """A renewed certificate is shown to new connections, as soon as its key is there; old ones go on."""

    async def serial() -> Any:
        async with mutual.connected() as connection:
            return connection._writer.get_extra_info("peercert")["serialNumber"]

    before = await serial()
    issued = Authority(tmp_path / "server-ca", "server-ca").issue(tmp_path / "next", "api", hosts=["127.0.0.1"])
    async with mutual.connected() as kept:
        (tmp_path / "tls.crt").write_bytes(issued.certificate.read_bytes())
        assert before == await serial()
        (tmp_path / "tls.key").write_bytes(issued.key.read_bytes())

        async def renewed() -> bool:
            return bool(await serial() != before)

        await until(renewed, "the new certificate shown")
        assert 200 == (await kept.ask(HERE, bearer("alices"))).status


async def test_get_with_a_token(mutual: Site, tmp_path: Path) -> None:
    """`guestwire get` takes a token from a file, and the authority that signed the server; without, it says why not."""
    (tmp_path / "token").write_text("alices\n")
    server = f"https://127.0.0.1:{mutual.port}"
    given = ("--server", server, "--ca", str(tmp_path / "server-ca.crt"))

    async def get(*arguments: str) -> tuple[int, str, str]:
        return await asyncio.to_thread(run, "get", "userlist", "vm1", "-o", "raw", *arguments)

    assert (0, BODY.decode(), "") == await get(*given, "--token", str(tmp_path / "token"))
    assert (1, "", "guestwire: Unauthorized\n") == await get(*given)
    status, _, said = await get("--server", server, "--token", str(tmp_path / "token"))
    assert (1, True) == (status, "certificate verify failed" in said)


async def test_get_with_a_certificate(mutual: Site, client_ca: Authority, tmp_path: Path) -> None:
    """`guestwire get` shows a certificate; what is none is told by the option's name."""
    pair = client_ca.issue(tmp_path / "carol", "carol")
    given = ("--server", f"https://127.0.0.1:{mutual.port}", "--ca", str(tmp_path / "server-ca.crt"), "-o", "raw")

    async def get(*arguments: str) -> tuple[int, str, str]:
        return await asyncio.to_thread(run, "get", "userlist", "vm1", *given, *arguments)

    assert (0, BODY.decode(), "") == await get("--cert", str(pair.certificate), "--key", str(pair.key))
    status, _, said = await get("--cert", str(tmp_path / "nobody.crt"))
    assert (2, f"guestwire: --cert, --key: {tmp_path}/nobody.crt: No such file or directory\n") == (status, said)
    status, _, said = await get("--key", str(pair.key))
    assert (2, True) == (status, said.startswith("guestwire: --key: "))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_sessions_are_not_taken_up_again(
    mutual: Site, client_ca: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Every connection shows its certificate anew: a session of before would bring the trust of before with it."""
    context = ssl.create_default_context(cafile=str(tmp_path / "server-ca.crt"))
    context.maximum_version = version
    carol = client_ca.issue(tmp_path / "carol", "carol")
    context.load_cert_chain(carol.certificate, carol.key)

    def ask(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool, bytes]:
        address = ("127.0.0.1", mutual.port)
        with (
            socket.create_connection(address, timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure,
        ):
            secure.sendall(f"GET {HERE} HTTP/1.1\r\n\r\n".encode())
            return secure.session, bool(secure.session_reused), secure.recv(12)

    session, _, first = await asyncio.to_thread(ask, None)
    _, again, second = await asyncio.to_thread(ask, session)

    assert (b"HTTP/1.1 200", False, b"HTTP/1.1 200") == (first, again, second)


async def test_handshakes_take_no_longer_than_heads(tmp_path: Path) -> None:
    """Who connects and does not begin TLS is cut off when the head of a request would have been due."""
    pair = Authority(tmp_path / "ca", "ca").issue(tmp_path / "tls", "api")
    limits = Limits(head=0.5)
    async with serving(tmp_path, limits=limits, certificate=str(pair.certificate), key=str(pair.key)) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        try:
            said = await asyncio.wait_for(reader.read(), 50)
        except ConnectionError:
            said = b""
        writer.close()

    assert b"" == said


def test_old_tls_is_refused(tmp_path: Path) -> None:
    """Nothing older than TLS 1.2, and no tickets: a session is never taken up with the trust of another day."""
    pair = Authority(tmp_path / "ca", "ca").issue(tmp_path / "tls", "api")
    tls = Security(settings.Api(certificate=str(pair.certificate), key=str(pair.key))).tls

    assert tls
    assert (ssl.TLSVersion.TLSv1_2, 0, True) == (
        tls.context.minimum_version,
        tls.context.num_tickets,
        bool(tls.context.options & ssl.OP_NO_TICKET),
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"certificate": "{tls}.crt"}, "api.certificate, api.key: one is set without the other"),
        ({"client_ca": "{ca}.crt"}, "api.client_ca: needs TLS; set api.certificate and api.key"),
        ({"aggregated": True}, "api.aggregated: needs TLS; set api.certificate and api.key"),
        (
            {"certificate": "{tls}.crt", "key": "{tls}.key", "client_ca": "{ca}.crt"},
            "api.client_ca: api.readers must say what clients with a certificate may read",
        ),
        (
            {
                "certificate": "{tls}.crt",
                "key": "{tls}.key",
                "client_ca": "{ca}.crt",
                "readers": "{readers}",
                "aggregated": True,
            },
            "api.client_ca: with api.aggregated the only clients with a certificate are front proxies",
        ),
        ({"readers": "{none}"}, "api.readers: {none}: No such file or directory"),
        ({"certificate": "{none}", "key": "{tls}.key"}, "api.certificate: {none}: No such file or directory"),
        ({"certificate": "{tls}.crt", "key": "{none}"}, "api.key: {none}: No such file or directory"),
        (
            {"certificate": "{tls}.crt", "key": "{ca}.key"},
            (
                "api.certificate, api.key: {tls}.crt, {ca}.key: not a certificate and its key, without a pass phrase: "
                "KEY_VALUES_MISMATCH"
            ),
        ),
        (
            {"certificate": "{tls}.crt", "key": "{tls}.key", "client_ca": "{readers}", "readers": "{readers}"},
            "api.client_ca: {readers}: no PEM certificates: ",
        ),
    ],
)
def test_wrong_settings(tmp_path: Path, readers: Path, options: dict[str, Any], expected: str) -> None:
    """What does not go together, or is no such file, is told in one line that names the setting."""
    authority = Authority(tmp_path / "ca", "ca")
    authority.issue(tmp_path / "tls", "api")
    names = {"tls": tmp_path / "tls", "ca": tmp_path / "ca", "readers": readers, "none": tmp_path / "none"}
    given: dict[str, Any] = {
        key: value.format(**names) if isinstance(value, str) else value for key, value in options.items()
    }
    with pytest.raises(ConfigError) as caught:
        Security(settings.Api(**given))

    assert str(caught.value).startswith(expected.format(**names))
    assert "\n" not in str(caught.value)


def test_who_may_read_in_words(readers: Path) -> None:
    """For the log."""
    assert "whoever asks" == Security(settings.Api()).asked
    assert "holders of tokens" == Security(settings.Api(readers=str(readers))).asked


def test_listens_elsewhere_only_when_secure(readers: Path) -> None:
    """Tokens do not travel in clear: other than loopback addresses take TLS, or the setting that insists."""
    with pytest.raises(ConfigError) as caught:
        listen(settings.Api(listen="0.0.0.0:0", readers=str(readers)))
    several: list[dict[str, Any]] = [{"certificate": "c", "key": "k"}, {"insecure": True}]
    for secure in several:
        with listen(settings.Api(listen="0.0.0.0:0", readers=str(readers), **secure)) as listening:
            assert "0.0.0.0" == listening.getsockname()[0]

    assert (
        "api.listen: 0.0.0.0:0 is no loopback address, and tokens would come in clear; set api.certificate and api.key"
    ) == str(caught.value)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"GUESTWIRE_API__READERS": "/nowhere"}, "guestwire: api.readers: /nowhere: No such file or directory\n"),
        (
            {
                "GUESTWIRE_API__AGGREGATED": "true",
                "GUESTWIRE_API__CERTIFICATE": "{tls}.crt",
                "GUESTWIRE_API__KEY": "{tls}.key",
                "GUESTWIRE_API__KUBECONFIG": "/nowhere",
            },
            "guestwire: api.kubeconfig: no file /nowhere\n",
        ),
    ],
)
def test_process_ends_with_wrong_settings(tmp_path: Path, environ: dict[str, str], expected: str) -> None:
    """`guestwire serve` ends with status 2 and one line on standard error."""
    Authority(tmp_path / "ca", "ca").issue(tmp_path / "tls", "api")
    given = {name: value.format(tls=tmp_path / "tls") for name, value in environ.items()}
    status, _, said = run("serve", GUESTWIRE_API__LISTEN="127.0.0.1:0", **given)

    assert (2, expected) == (status, said.splitlines(keepends=True)[-1])
