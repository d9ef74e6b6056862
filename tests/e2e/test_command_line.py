"""The command line as people meet it: help, mistakes in one line, exit statuses, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guestwire.cli import COMMANDS
from lab.libvirtd import Libvirtd
from lab.nats_server import NatsServer
from lab.process import free_port

GUESTWIRE = Path(sys.executable).with_name("guestwire")


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; each keyword is a setting in the environment."""
    return subprocess.run(
        [GUESTWIRE, *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def environment(**settings: str) -> dict[str, str]:
    """Ours, without settings but these, on free ports, without a kubeconfig."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("GUESTWIRE_", "KUBECONFIG"))}
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("COLLECT__HEALTH", "STATUS__HEALTH", "API__LISTEN")}
    given = {f"GUESTWIRE_{name}": value for name, value in {**ports, "LOG__FORMAT": "json", **settings}.items()}
    return {**plain, "HOME": "/nonexistent", **given}


def running(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    """A command that goes on; its standard error is piped."""
    return subprocess.Popen([GUESTWIRE, *arguments], env=environment(**settings), stderr=subprocess.PIPE, text=True)


def until(process: subprocess.Popen[str], text: str, seconds: float = 15) -> str:
    """The line of standard error that holds the text."""
    assert process.stderr is not None
    deadline = time.monotonic() + seconds
    seen = []
    while time.monotonic() < deadline:
        line = process.stderr.readline()
        seen.append(line)
        if text in line:
            return line
        if not line:
            break
    raise AssertionError(f"no {text!r} in {seen}")


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> int:
    """Send a signal; the exit status."""
    process.send_signal(number)
    process.communicate(timeout=20)
    return process.returncode


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help(command: list[str]) -> None:
    """Every command explains itself, in words beyond its name."""
    done = run(*command, "--help")

    assert 0 == done.returncode
    assert "Usage: guestwire" in done.stdout
    assert len(done.stdout.splitlines()) > 5


def test_unknown_command() -> None:
    """A mistyped command is told, with status 2."""
    done = run("colect")

    assert (2, True) == (done.returncode, "colect" in done.stderr)


@pytest.mark.parametrize("command", ["collect", "serve", "write-status", "up", "config", "watch"])
def test_unknown_setting(command: str) -> None:
    """One line with the name and the nearest one, status 2."""
    done = run(command, NATS__SERVRES="nats://127.0.0.1:1")

    assert 2 == done.returncode
    assert [
        "guestwire: environment GUESTWIRE_NATS__SERVRES: no such setting; did you mean GUESTWIRE_NATS__SERVERS?"
    ] == done.stderr.splitlines()


@pytest.mark.parametrize(
    ("command", "settings", "words"),
    [
        ("collect", {"NATS__SERVERS": "localhost:4222"}, ["nats.servers", "nats://"]),
        ("collect", {"NATS__CREDENTIALS": "/nowhere.creds"}, ["nats.credentials", "/nowhere.creds"]),
        ("write-status", {"STATUS__KUBECONFIG": "/nowhere/config"}, ["status.kubeconfig", "/nowhere/config"]),
        ("write-status", {}, ["kubeconfig"]),
        ("serve", {"API__LISTEN": "0.0.0.0:1"}, ["api.listen", "insecure"]),
        ("up", {"UP__STATE": "/proc/none"}, ["up.state", "/proc/none"]),
        ("up", {"STATUS__KUBECONFIG": "/nowhere/config", "UP__STATE": "{}/state"}, ["/nowhere/config"]),
    ],
)  # fmt: skip
def test_wrong_settings(
    command: str, settings: dict[str, str], words: list[str], nats_server: NatsServer, tmp_path: Path
) -> None:
    """What no retry mends ends at once, with status 2 and a line that names the setting."""
    given = {name: value.format(tmp_path) for name, value in settings.items()}
    done = run(command, **{"NATS__SERVERS": nats_server.url, **given})
    text = done.stderr + done.stdout

    assert 2 == done.returncode
    assert [] == [word for word in words if word not in text]
    assert "Traceback" not in text


@pytest.mark.parametrize("command", ["collect", "serve"])
def test_unreachable_nats(command: str) -> None:
    """NATS away at the start: one line that names the address, tried on; a signal ends it with status 0."""
    address = f"nats://127.0.0.1:{free_port()}"
    with running(command, NATS__SERVERS=address) as process:
        line = until(process, "cannot connect to NATS")
        assert address in line
        time.sleep(1)
        assert process.poll() is None
        assert 0 == end(process)


def test_nats_comes_later(nats_server: NatsServer) -> None:
    """Started before NATS, it goes on once NATS is there."""
    nats_server.stop()
    with running("collect", NATS__SERVERS=nats_server.url, LIBVIRT__URIS="test:///default") as process:
        until(process, "cannot connect to NATS")
        nats_server.start()
        until(process, "stream created")
        assert 0 == end(process, signal.SIGINT)


def test_wrong_libvirt_uri(nats_server: NatsServer) -> None:
    """A host that is not there: one line with the URI and libvirt's reason, tried on."""
    uri = "qemu+unix:///session?socket=/nowhere/libvirt-sock"
    with running("collect", NATS__SERVERS=nats_server.url, LIBVIRT__URIS=uri) as process:
        line = until(process, "cannot use libvirt")
        assert uri in line
        assert "No such file" in line
        time.sleep(2)
        assert 0 == end(process)


def test_taken_port(nats_server: NatsServer, host: Libvirtd) -> None:
    """A port that somebody has: one line that names the address, status 2."""
    with running(
        "collect", NATS__SERVERS=nats_server.url, LIBVIRT__URIS=host.uri, COLLECT__HEALTH="127.0.0.1:0"
    ) as one:
        until(one, "connected to libvirt")
        taken = nats_server.url.removeprefix("nats://")
        done = run("collect", NATS__SERVERS=nats_server.url, COLLECT__HEALTH=taken)
        assert (2, True) == (done.returncode, taken in done.stderr)
        assert 0 == end(one)


def test_ndjson(host: Libvirtd) -> None:
    """Without NATS: snapshots on standard output, for a look."""
    process = subprocess.Popen(
        [GUESTWIRE, "collect"],
        env=environment(LIBVIRT__URIS="test:///default", PUBLISH__OUTPUT="ndjson"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    process.communicate(timeout=20)

    assert '{"subject":"guestwire.v1.local.default.test.agent"' in line
    assert 0 == process.returncode


def test_config_tells_sources(tmp_path: Path) -> None:
    """`config` shows the value, where it came from, and how to set it."""
    file = tmp_path / "guestwire.toml"
    file.write_text("[nats]\nhistory = 5\n")
    done = run("--config", str(file), "config", "--changed", CLUSTER="prod")

    assert f"nats.history = 5\n    messages kept per subject, for replay\n    from file {file}" in done.stdout
    assert 'cluster = "prod"' in done.stdout
    assert "from environment GUESTWIRE_CLUSTER" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """Each shell gets a script."""
    done = run("completion", shell)

    assert 0 == done.returncode
    assert "guestwire" in done.stdout
