"""
Settings: defaults < TOML file < environment.

`[nats] servers` in the file is `GUESTWIRE_NATS__SERVERS` in the environment. Durations are seconds, secrets are paths
to files, lists in the environment are separated by commas. A wrong value is a ConfigError of one line that names the
path and where it was set.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from guestwire.errors import ConfigError

PREFIX = "GUESTWIRE_"
FILE_VARIABLE = "GUESTWIRE_CONFIG"

Seconds = Annotated[float, Meta(gt=0)]
SecondsOrNever = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Listen = Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$")]


class Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base of every table of settings."""


class Nats(Section, frozen=True):
    servers: Annotated[tuple[str, ...], Meta(min_length=1, description="NATS servers, any of one cluster")] = (
        "nats://127.0.0.1:4222",
    )
    credentials: Annotated[str, Meta(description="path of a .creds file; empty for none")] = ""
    nkey: Annotated[str, Meta(description="path of an nkey seed file; empty for none")] = ""
    ca: Annotated[str, Meta(description="path of the CA certificates for tls:// servers; empty for the system's")] = ""
    stream: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+$", description="name of the JetStream stream")] = "GUESTWIRE"
    history: Annotated[int, Meta(ge=1, le=64, description="messages kept per subject, for replay")] = 64
    replicas: Annotated[int, Meta(ge=1, le=5, description="copies of the stream in a NATS cluster")] = 1
    timeout: Annotated[Seconds, Meta(description="longest wait for an acknowledgement or an answer of NATS")] = 5.0


class Libvirt(Section, frozen=True):
    uris: Annotated[tuple[str, ...], Meta(description="libvirt hosts to watch")] = ("qemu:///system",)
    sockets: Annotated[
        tuple[str, ...],
        Meta(description="globs of sockets of more libvirt daemons, which may come and go, as KubeVirt's do"),
    ] = ()
    socket_uri: Annotated[str, Meta(pattern=r"\{\}", description="URI for such a socket, with {} for its path")] = (
        "qemu+unix:///session?socket={}"
    )
    connections: Annotated[Count, Meta(description="connections per host for agent calls, 4 calls in flight each")] = 2
    retry_max: Annotated[Seconds, Meta(description="longest pause between attempts to reach a host")] = 30.0


class Ages(Section, frozen=True):
    users: Annotated[Seconds | None, Meta(description="longest age of logged-in users; empty for the profile's")] = None
    interfaces: Annotated[Seconds | None, Meta(description="longest age of addresses; empty for the profile's")] = None
    system: Annotated[
        Seconds | None, Meta(description="longest age of OS, host name and time zone; empty for the profile's")
    ] = None
    filesystems: Annotated[Seconds | None, Meta(description="longest age of filesystems; empty for the profile's")] = (
        None
    )


class Collect(Ages, frozen=True):
    profile: Annotated[
        Literal["default", "economy"],
        Meta(description="how often agents are asked: at most 600 commands per guest and hour, or at most 250"),
    ] = "default"
    namespaces: Annotated[
        dict[str, Ages], Meta(description="longest ages of the guests of single namespaces; in the file only")
    ] = msgspec.field(default_factory=dict)
    host: Annotated[str, Meta(description="this host's name in messages; empty for the one libvirt tells")] = ""
    command_timeout: Annotated[int, Meta(ge=1, le=60, description="longest wait for one agent command")] = 5
    resync: Annotated[Seconds, Meta(description="how often every domain's state is compared with libvirt's")] = 60.0
    usage_share: Annotated[
        float,
        Meta(ge=0, le=1, description="share of a filesystem by which its usage must move to be published at once"),
    ] = 0.01
    usage_age: Annotated[SecondsOrNever, Meta(description="how long a smaller move of usage may stay unpublished")] = (
        300.0
    )
    health: Annotated[Listen, Meta(description="address of /healthz, /readyz and /metrics")] = "127.0.0.1:9471"


class Publish(Section, frozen=True):
    output: Annotated[
        Literal["nats", "ndjson"], Meta(description="where snapshots go: NATS, or standard output for a look")
    ] = "nats"
    heartbeat: Annotated[
        Seconds, Meta(description="how often an unchanged agent record is sent, with its reading times")
    ] = 300.0
    workers: Annotated[Count, Meta(description="guests published at once")] = 64


class Status(Section, frozen=True):
    kubeconfig: Annotated[
        str, Meta(description="path; empty for $KUBECONFIG, the cluster this runs in, or ~/.kube/config")
    ] = ""
    context: Annotated[str, Meta(description="context of the kubeconfig; empty for its current one")] = ""
    impersonate_user: Annotated[
        str,
        Meta(
            description="user to act as; under KubeVirt one of its service accounts, as its webhook reverts all others"
        ),
    ] = ""
    grace: Annotated[
        SecondsOrNever, Meta(description="how long guest facts stay in status after the agent has gone")
    ] = 60.0
    keep: Annotated[bool, Meta(description="keep guest facts in status for good when the agent has gone")] = False
    probe_refresh: Annotated[
        Seconds, Meta(description="how old lastProbeTime of AgentConnected may become before it is written again")
    ] = 600.0
    min_interval: Annotated[SecondsOrNever, Meta(description="shortest time between two patches of one VMI")] = 1.0
    workers: Annotated[Count, Meta(description="VMIs reconciled at once")] = 8
    durable: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_-]+$", description="name of the durable consumer, shared by all replicas")
    ] = "status-writer"
    timeout: Annotated[Seconds, Meta(description="longest wait for one answer of the API server")] = 10.0
    health: Annotated[Listen, Meta(description="address of /healthz, /readyz and /metrics")] = "127.0.0.1:9472"


class Api(Section, frozen=True):
    listen: Annotated[Listen, Meta(description="address of the REST API, with /healthz, /readyz and /metrics")] = (
        "127.0.0.1:8470"
    )
    insecure: Annotated[
        bool, Meta(description="serve without authentication on other than loopback addresses, to whoever asks")
    ] = False
    connections: Annotated[Count, Meta(description="connections at once; more are turned away with 503")] = 4096


class Up(Section, frozen=True):
    state: Annotated[str, Meta(description="directory of logs and NATS files; empty for the user's state home")] = ""
    nats: Annotated[
        Listen, Meta(description="address of the NATS server that `up` starts; another port when the default is taken")
    ] = "127.0.0.1:4222"


class Log(Section, frozen=True):
    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="least important record shown")] = (
        "info"
    )
    format: Annotated[
        Literal["auto", "json", "console"], Meta(description="auto: console on a terminal, else one JSON line a record")
    ] = "auto"


class Settings(Section, frozen=True):
    cluster: Annotated[
        str, Meta(min_length=1, description="name of this cluster or site, a token of every subject")
    ] = "local"
    shutdown_grace: Annotated[Seconds, Meta(description="longest time from the first signal to the end")] = 10.0
    nats: Nats = Nats()
    libvirt: Libvirt = Libvirt()
    collect: Collect = Collect()
    publish: Publish = Publish()
    status: Status = Status()
    api: Api = Api()
    up: Up = Up()
    log: Log = Log()


class Entry(msgspec.Struct, frozen=True):
    """One setting as it is in force."""

    path: str
    value: Any
    default: Any
    source: str
    """`default`, `file PATH` or `environment NAME`."""
    description: str

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.path.upper().replace(".", "__")


class Loaded(msgspec.Struct, frozen=True):
    """Effective settings, and where each came from."""

    settings: Settings
    sources: dict[str, str]

    def entries(self) -> Iterator[Entry]:
        """Every setting, in the order of its definition."""
        for path, (_, description) in _fields(Settings).items():
            value, default = _at(self.settings, path), _at(Settings(), path)
            inside = (source for name, source in self.sources.items() if f"{name}.".startswith(f"{path}."))
            yield Entry(path, value, default, next(inside, "default"), description)


def load(file: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Settings from a TOML file (or the one that GUESTWIRE_CONFIG names) and the environment. Raises ConfigError."""
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    path = file or environ.get(FILE_VARIABLE)
    if path:
        tree = _read_file(Path(path))
        sources = dict.fromkeys(_paths(tree), f"file {path}")
    fields = _fields(Settings)
    variables = {PREFIX + name.upper().replace(".", "__"): name for name in fields}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable == FILE_VARIABLE:
            continue
        name = variables.get(variable)
        if name is None:
            raise ConfigError(f"environment {variable}: no such setting{_hint(variable, variables)}")
        _set(tree, name, _from_text(text, fields[name][0]))
        sources[name] = f"environment {variable}"
    try:
        return Loaded(msgspec.convert(tree, Settings, strict=False), sources)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), sources, fields)) from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings file {path}: {error}") from None


def _fields(struct: type[Section], prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Every leaf: its dotted path, type and description."""
    found: dict[str, tuple[Any, str]] = {}
    for name, hint in get_type_hints(struct, include_extras=True).items():
        if isinstance(hint, type) and issubclass(hint, Section):
            found |= _fields(hint, f"{prefix}{name}.")
        else:
            metas = [meta for meta in get_args(hint)[1:] if isinstance(meta, Meta)]
            found[prefix + name] = (get_args(hint)[0], next((m.description for m in metas if m.description), ""))
    return found


def _paths(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _at(settings: Any, path: str) -> Any:
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
    *tables, leaf = path.split(".")
    for table in tables:
        inner = tree.setdefault(table, {})
        if not isinstance(inner, dict):  # a scalar in the file where a table belongs: convert() names the path
            return
        tree = inner
    tree[leaf] = value


def _from_text(text: str, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        return [item.strip() for item in text.split(",") if item.strip()]
    return text


def _hint(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else "; `guestwire config` lists them all"


def _explain(message: str, sources: Mapping[str, str], fields: Mapping[str, Any]) -> str:
    """From msgspec's "Expected ... - at `$.nats.timeout`", with where the value was set, and the nearest name."""
    problem, _, location = message.partition(" - at `$")
    path = location.rstrip("`").split("[")[0].lstrip(".")
    if "unknown field" in problem:
        path = f"{path}.{problem.split('`')[1]}".lstrip(".")
        return f"{sources.get(path, 'settings')}: {path}: no such setting{_hint(path, fields)}"
    return f"{sources.get(path, 'settings')}: {path or 'settings'}: {problem[:1].lower()}{problem[1:]}"
