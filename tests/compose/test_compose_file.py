"""compose.yaml as a text: by the specification, with settings that exist, and every service locked in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from guestwire import settings
from guestwire.settings import Settings
from lab.containers import COMPOSE_FILE

DOCUMENT: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
STAGES = ("collector", "status-writer", "api", "export")


def filled_in(text: str) -> str:
    """A value as compose reads it when no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def effective(service: str) -> Settings:
    """The settings a service's environment makes."""
    environ = {name: filled_in(str(value)) for name, value in SERVICES[service]["environment"].items()}
    return settings.load(environ=environ).settings


def test_schema() -> None:
    """The file is one by the compose specification."""
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    assert [] == [error.message for error in Draft202012Validator(schema).iter_errors(DOCUMENT)]


def test_schema_is_strict() -> None:
    """A misspelt key is an error by that schema, so the test above can fail."""
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    misspelt = {"services": {"api": {**SERVICES["api"], "read_onyl": True}}}
    assert [] != [*Draft202012Validator(schema).iter_errors(misspelt)]


def test_variables_are_told() -> None:
    """Every variable of the file stands in the comment at its head."""
    text = COMPOSE_FILE.read_text()
    head, body = text.split("name: guestwire\n", 1)
    assert set() == {name for name in re.findall(r"\$\{(\w+)", body) if not re.search(rf"\b{name}\b", head)}


@pytest.mark.parametrize("service", STAGES)
def test_settings(service: str) -> None:
    """Each stage's environment is made of settings that exist, and finds the server in its container."""
    assert ("nats://nats:4222",) == effective(service).nats.servers


@pytest.mark.parametrize(
    ("service", "listen"),
    [
        ("collector", effective("collector").collect.health),
        ("status-writer", effective("status-writer").status.health),
        ("export", effective("export").export.health),
        ("api", effective("api").api.listen.replace("0.0.0.0", "127.0.0.1")),
    ],
)
def test_health_check_asks_where_the_stage_listens(service: str, listen: str) -> None:
    """The health check of each stage asks /readyz on the address that its settings name."""
    assert f"'http://{listen}/readyz'" in SERVICES[service]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("service", SERVICES)
def test_locked_in(service: str) -> None:
    """No service runs as root, writes to its image, keeps a capability or can gain one."""
    found = {key: SERVICES[service].get(key) for key in ("read_only", "cap_drop", "cap_add", "security_opt")}
    assert {"read_only": True, "cap_drop": ["ALL"], "cap_add": None, "security_opt": ["no-new-privileges"]} == found
    assert "0" != filled_in(SERVICES[service]["user"]).split(":")[0]


def test_profiles() -> None:
    """Without a profile everything starts that needs no cluster and keeps no history, and nothing else."""
    wanted = {"nats": None, "collector": None, "status-writer": ["kubernetes"], "api": None, "export": ["export"]}
    assert wanted == {name: service.get("profiles") for name, service in SERVICES.items()}


def test_published_on_loopback_only() -> None:
    """The one published port is the API's, on the host's own address."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert {"api": ["127.0.0.1:8470:8470"]} == {
        name: [filled_in(port) for port in ports] for name, ports in published.items()
    }
