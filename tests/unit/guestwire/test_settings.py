"""Settings: defaults < file < environment, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from guestwire import settings
from guestwire.errors import ConfigError
from guestwire.settings import Settings


def test_defaults() -> None:
    """Nothing set: the defaults, and every entry says so."""
    loaded = settings.load(environ={})

    assert Settings() == loaded.settings
    assert {"default"} == {entry.source for entry in loaded.entries()}


def test_every_setting_is_described() -> None:
    """`guestwire config` has a line about each."""
    assert [] == [entry.path for entry in settings.load(environ={}).entries() if not entry.description]


def test_environment_beats_file(tmp_path: Path) -> None:
    """Each value comes from where it was last set, and says so."""
    file = tmp_path / "guestwire.toml"
    file.write_text('cluster = "x"\n[nats]\nservers = ["nats://a:1"]\ntimeout = 2\n')
    loaded = settings.load(
        file, {"GUESTWIRE_NATS__SERVERS": "nats://b:1, nats://c:1", "GUESTWIRE_STATUS__KEEP": "true"}
    )
    sources = {entry.path: entry.source for entry in loaded.entries()}

    assert ("nats://b:1", "nats://c:1") == loaded.settings.nats.servers
    assert (2.0, "x", True) == (loaded.settings.nats.timeout, loaded.settings.cluster, loaded.settings.status.keep)
    assert "environment GUESTWIRE_NATS__SERVERS" == sources["nats.servers"]
    assert f"file {file}" == sources["nats.timeout"]


def test_empty_is_unset_where_that_is_a_value() -> None:
    """An age may be taken back in the environment; a text stays one."""
    loaded = settings.load(environ={"GUESTWIRE_COLLECT__USERS": "", "GUESTWIRE_COLLECT__HOST": ""}).settings

    assert (None, "") == (loaded.collect.users, loaded.collect.host)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"GUESTWIRE_NATS__SERVRES": "x"}, ["GUESTWIRE_NATS__SERVRES", "did you mean GUESTWIRE_NATS__SERVERS"]),
        ({"GUESTWIRE_NATS__TIMEOUT": "soon"}, ["GUESTWIRE_NATS__TIMEOUT", "nats.timeout", "float"]),
        ({"GUESTWIRE_NATS__TIMEOUT": "-1"}, ["nats.timeout", "> 0"]),
        ({"GUESTWIRE_NATS__SERVERS": ""}, ["nats.servers"]),
        ({"GUESTWIRE_NATS__HISTORY": "65"}, ["nats.history", "<= 64"]),
        ({"GUESTWIRE_API__LISTEN": "8080"}, ["api.listen"]),
        ({"GUESTWIRE_LOG__LEVEL": "loud"}, ["log.level", "loud"]),
        ({"GUESTWIRE_CLUSTER": ""}, ["cluster"]),
        ({"GUESTWIRE_CONFIG": "/nowhere/x.toml"}, ["/nowhere/x.toml", "No such file"]),
    ],
)
def test_mistakes_in_the_environment(environ: dict[str, str], words: list[str]) -> None:
    """One line that names the setting."""
    with pytest.raises(ConfigError) as raised:
        settings.load(environ=environ)

    assert 1 == len(str(raised.value).splitlines())
    assert [] == [word for word in words if word not in str(raised.value)]


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[nats]\nservres = 1", ["nats.servres", "did you mean nats.servers"]),
        ("nats = 1", ["nats", "object"]),
        ("[nats", ["x.toml"]),
        ("[nats]\nservers = [1]", ["nats.servers"]),
        ("[sttaus]\nkeep = true", ["sttaus"]),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, toml: str, words: list[str]) -> None:
    """One line that names the path."""
    file = tmp_path / "x.toml"
    file.write_text(toml)
    with pytest.raises(ConfigError) as raised:
        settings.load(file, {"GUESTWIRE_NATS__TIMEOUT": "3"})

    assert 1 == len(str(raised.value).splitlines())
    assert [] == [word for word in words if word not in str(raised.value)]
