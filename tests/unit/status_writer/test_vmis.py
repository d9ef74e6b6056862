"""What the API server's answers mean, and which kubeconfig is in force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from guestwire.errors import ConfigError, GuestwireError, NotConnected, Rejected, TransientError
from guestwire.settings import Status
from status_writer.answers import Expired, Gone, NotServed, error_of
from status_writer.api_server import connect, kubeconfig
from status_writer.outcome import Conflict


def answer(message: str, **details: Any) -> bytes:
    """A Status object."""
    return msgspec.json.encode({"kind": "Status", "message": message, "details": details})


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, answer("not found", name="vm", kind="virtualmachineinstances"), Gone),
        (404, answer("the server could not find the requested resource"), NotServed),
        (404, b"404 page not found\n", NotServed),
        (409, answer("the object has been modified"), Conflict),
        (410, answer("too old resource version"), Expired),
        (422, answer("the server rejected our request due to an error in our request"), Conflict),
        (422, answer("is invalid", name="vm", kind="VirtualMachineInstance", causes=[{"field": "x"}]), Rejected),
        (400, answer("bad"), Rejected),
        (403, answer("forbidden", name="vm"), Rejected),
        (401, answer("Unauthorized"), NotConnected),
        (429, answer("too many requests"), TransientError),
        (500, answer("internal"), TransientError),
        (503, b"no healthy upstream", TransientError),
    ],
)
def test_answers_by_consequence(status: int, body: bytes, expected: type[Exception]) -> None:
    """Each failure is named by what follows from it, and says what the server said."""
    error = error_of("patch VMI ns/vm", status, body, {})

    assert expected is type(error)
    assert str(error).startswith(f"patch VMI ns/vm: {status} ")


@pytest.mark.parametrize(("header", "delay"), [("7", 7.0), (None, None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
def test_retry_after_is_respected(header: str | None, delay: float | None) -> None:
    """When an overloaded server says how long to wait, the error carries it."""
    error = error_of("list", 429, b"", {} if header is None else {"Retry-After": header})

    assert isinstance(error, TransientError)
    assert delay == error.delay


def test_which_kubeconfig(tmp_path: Path) -> None:
    """The setting, then $KUBECONFIG, then the cluster around the process, then the home directory."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.touch()
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}

    assert str(one) == kubeconfig(Status(kubeconfig=str(one)), {"KUBECONFIG": str(two), **inside})
    assert f"{one}:{two}" == kubeconfig(Status(), {"KUBECONFIG": f"{one}:{two}", **inside})
    assert f"/none:{two}" == kubeconfig(Status(), {"KUBECONFIG": f"/none:{two}"})
    assert kubeconfig(Status(), inside) is None


def test_home_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings the home directory's is used; when there is none, the message says what to do."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"no file .*/\.kube/config, and this runs in no cluster; set status.kubeconfig"
    ):
        kubeconfig(Status(), {})
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").touch()

    assert str(tmp_path / ".kube" / "config") == kubeconfig(Status(), {})


CONTEXT = "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
COMPLETE = CONTEXT + "users: [{name: u, user: {}}]\nclusters: [{name: c, cluster: {server: 'https://x', %s}}]\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "\0",
        "just text",
        "current-context: missing\ncontexts: []\n",
        CONTEXT + "users: []\nclusters: []\n",
        COMPLETE % "certificate-authority: /no/such/file",
        COMPLETE % "certificate-authority-data: bm90IGEgY2VydA==",
    ],
)
async def test_broken_kubeconfig_is_one_line(tmp_path: Path, content: str) -> None:
    """Whatever is wrong with a kubeconfig, one line names the file."""
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        await connect(Status(kubeconfig=str(path)), {})

    assert str(caught.value).startswith(f"status.kubeconfig: {path}: ")
    assert "\n" not in str(caught.value)


async def test_missing_kubeconfig_is_one_line(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(ConfigError, match=f"^status.kubeconfig: no file {tmp_path}/none$"):
        await connect(Status(kubeconfig=f"{tmp_path}/none"), {})


async def test_unknown_context_is_one_line(tmp_path: Path) -> None:
    """A context that the file does not have is named."""
    path = tmp_path / "config"
    path.write_text(CONTEXT + "users: []\nclusters: []\n")
    with pytest.raises(GuestwireError, match="nowhere"):
        await connect(Status(kubeconfig=str(path), context="nowhere"), {})
