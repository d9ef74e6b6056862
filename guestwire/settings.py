"""
Settings: defaults < TOML file < environment.

`[nats] servers` in the file is `GUESTWIRE_NATS__SERVERS` in the environment. Durations are seconds, secrets are paths
to files, lists in the environment are separated by commas. A wrong value is a ConfigError of one line that names the
path and where it was set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from guestwire import settings_tree
from guestwire.errors import ConfigError

PREFIX = "GUESTWIRE_"
FILE_VARIABLE = "GUESTWIRE_CONFIG"

Seconds = Annotated[float, Meta(gt=0)]
SecondsOrNever = Annotated[float, Meta(ge=0)]
SecondsOrOff = SecondsOrNever | None
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
    user: Annotated[str, Meta(description="name of a user with a password; empty for none")] = ""
    password: Annotated[str, Meta(description="path of the file that holds that user's password")] = ""
    token: Annotated[str, Meta(description="path of the file that holds a token; empty for none")] = ""
    ca: Annotated[str, Meta(description="path of the CA certificates for tls:// servers; empty for the system's")] = ""
    certificate: Annotated[str, Meta(description="path of a client certificate, PEM; empty for none")] = ""
    key: Annotated[str, Meta(description="path of its private key, PEM; empty when it is in the same file")] = ""
    inbox: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$",
            description="where answers come to; with rights by role, a subject that others may not read",
        ),
    ] = "_INBOX"
    stream: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+$", description="name of the JetStream stream")] = "GUESTWIRE"
    history: Annotated[int, Meta(ge=1, le=64, description="messages kept per subject, for replay")] = 64
    replicas: Annotated[int, Meta(ge=1, le=5, description="copies of the stream in a NATS cluster")] = 1
    bucket: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_-]*$",
            description="name of a key-value view of the present values, e.g. guestwire; empty for none",
        ),
    ] = ""
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
    connections: Annotated[Count, Meta(description="agent calls at once per host, each on a connection of its own")] = 8
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
    load: Annotated[SecondsOrOff, Meta(description="longest age of load averages; empty or 0: not read")] = None
    disks: Annotated[SecondsOrOff, Meta(description="longest age of the list of disks; empty or 0: not read")] = None
    cpustats: Annotated[SecondsOrOff, Meta(description="longest age of CPU counters; empty or 0: not read")] = None
    diskstats: Annotated[SecondsOrOff, Meta(description="longest age of disk counters; empty or 0: not read")] = None
    time: Annotated[SecondsOrOff, Meta(description="longest age of the clock's offset; empty or 0: not read")] = None
    vcpus: Annotated[SecondsOrOff, Meta(description="longest age of the list of vCPUs; empty or 0: not read")] = None


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
    activity_share: Annotated[
        float,
        Meta(ge=0, le=1, description="share by which load, CPU or disk activity must move to be published at once"),
    ] = 0.1
    activity_age: Annotated[
        SecondsOrNever, Meta(description="how long a smaller move of activity or clock may stay unpublished")
    ] = 300.0
    health: Annotated[Listen, Meta(description="address of /healthz, /readyz and /metrics")] = "127.0.0.1:9471"


class Publish(Section, frozen=True):
    output: Annotated[
        Literal["nats", "ndjson"], Meta(description="where snapshots go: NATS, or standard output for a look")
    ] = "nats"
    heartbeat: Annotated[
        Seconds, Meta(description="how often an unchanged agent record is sent, with its reading times")
    ] = 300.0
    retention: Annotated[
        SecondsOrNever,
        Meta(description="how long a guest that is gone stays in the stream, with its history; 0: for good"),
    ] = 7 * 86400.0
    workers: Annotated[Count, Meta(description="batches of snapshots on their way to NATS at once")] = 8

    @property
    def silence(self) -> float:
        """
        Seconds without an agent record after which nobody is taken to look at the guest: three heartbeats, for one may
        be late and one may be lost on a server that restarts.
        """
        return 3 * self.heartbeat


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
    max_rate: Annotated[
        SecondsOrNever, Meta(description="patches a second of one process, at most; 0 for no limit")
    ] = 100.0
    events: Annotated[
        bool,
        Meta(description="record Kubernetes Events on the VMI when its agent connects or disconnects; needs the right"),
    ] = False
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
    certificate: Annotated[str, Meta(description="path of the server's certificate for TLS, PEM; empty for none")] = ""
    key: Annotated[str, Meta(description="path of the certificate's private key, PEM")] = ""
    readers: Annotated[
        str, Meta(description="path of the file of who may read, by token or certificate; see `guestwire token`")
    ] = ""
    client_ca: Annotated[
        str, Meta(description="path of the authorities that sign clients' certificates, PEM; empty for none")
    ] = ""
    aggregated: Annotated[
        bool, Meta(description="serve a cluster's API server, which tells who asks and is asked who may")
    ] = False
    kubeconfig: Annotated[
        str,
        Meta(description="path, of that cluster; empty for $KUBECONFIG, the cluster this runs in, or ~/.kube/config"),
    ] = ""
    decisions: Annotated[Seconds, Meta(description="how long it is remembered who may read, and who may not")] = 10.0
    open_metrics: Annotated[
        bool, Meta(description="serve /metrics to whoever asks, also where reading is not open")
    ] = False
    guest_metrics: Annotated[
        Literal["off", "guestwire", "kubevirt"],
        Meta(description="metrics of guests: none, under names of our own, or under KubeVirt's where it has them"),
    ] = "guestwire"
    guest_metrics_limit: Annotated[
        Count, Meta(description="series of guests at most; beyond it guests are left out, the last by name")
    ] = 500_000
    insecure: Annotated[
        bool,
        Meta(description="serve on other than loopback addresses without authentication or TLS, to whoever asks"),
    ] = False
    names: Annotated[
        tuple[str, ...],
        Meta(description="names, besides localhost and addresses, under which it is served without TLS"),
    ] = ()
    connections: Annotated[Count, Meta(description="connections at once; more are turned away with 503")] = 4096
    read_timeout: Annotated[
        Seconds, Meta(description="longest wait for a guest that is read because a client asked for it (maxAge)")
    ] = 10.0


class Export(Section, frozen=True):
    health: Annotated[
        Listen, Meta(description="address of /healthz, /readyz and /metrics of `guestwire export --follow`")
    ] = "127.0.0.1:9473"


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
    export: Export = Export()
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
            value, default = settings_tree.at(self.settings, path), settings_tree.at(Settings(), path)
            inside = (source for name, source in self.sources.items() if f"{name}.".startswith(f"{path}."))
            yield Entry(path, value, default, next(inside, "default"), description)


def load(file: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Settings from a TOML file (or the one that GUESTWIRE_CONFIG names) and the environment. Raises ConfigError."""
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    path = file or environ.get(FILE_VARIABLE)
    if path:
        tree = settings_tree.read_file(Path(path))
        sources = dict.fromkeys(settings_tree.paths(tree), f"file {path}")
    fields = _fields(Settings)
    variables = {PREFIX + name.upper().replace(".", "__"): name for name in fields}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable == FILE_VARIABLE:
            continue
        name = variables.get(variable)
        if name is None:
            raise ConfigError(f"environment {variable}: no such setting{settings_tree.hint(variable, variables)}")
        settings_tree.put(tree, name, settings_tree.from_text(text, fields[name][0]))
        sources[name] = f"environment {variable}"
    try:
        return Loaded(msgspec.convert(tree, Settings, strict=False), sources)
    except msgspec.ValidationError as error:
        raise ConfigError(settings_tree.explain(str(error), sources, fields)) from None


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
