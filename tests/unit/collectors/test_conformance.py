"""
KubeVirt's own expectations of the parser and of the aggregated answers, run where their restatement lies beside this
checkout (`shared/conformance/kubevirt`), one JSON file a case.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collectors import agent_commands
from collectors.agent_commands import AgentCommand, Reply
from collectors.domain import Domain
from collectors.guest import Guest
from guestwire import codec
from guestwire.errors import ContractError
from guestwire.snapshot import CAP_IN_GUESTOSINFO, Filesystem, GuestRef, Phase, User

CASES = Path(__file__).parents[4] / "shared" / "conformance" / "kubevirt"
COMMANDS = {command.value for command in AgentCommand}

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"no {CASES}")


def cases(pattern: str) -> list[Any]:
    """Cases of a group, by file name."""
    return [pytest.param(json.loads(path.read_text()), id=path.stem) for path in sorted(CASES.glob(pattern))]


def said(case: dict[str, Any]) -> Any:
    """What we make of the case's reply, in the words of its expectation."""
    value = agent_commands.parse(AgentCommand(case["command"]), case["input"]["reply"]).value
    plain = json.loads(msgspec.json.encode(value))
    match case["command"]:
        case AgentCommand.INFO:
            commands = [
                {"name": c["name"], **({"enabled": True} if c.get("enabled") else {})} for c in plain["commands"]
            ]
            return {"guestAgentVersion": plain["version"], **({"supportedCommands": commands} if commands else {})}
        case AgentCommand.OSINFO:
            return {"os": plain}
        case AgentCommand.USERS | AgentCommand.FILESYSTEMS:
            return {"items": plain}
        case AgentCommand.INTERFACES:
            return {
                "guestAgentInterfaces": [
                    {
                        "mac": interface.get("mac", ""),
                        "ip": interface["addresses"][0]["address"],
                        "ips": [address["address"] for address in interface["addresses"]],
                        "interfaceName": interface["name"],
                    }
                    for interface in plain
                    if interface["name"] != "lo"
                ]
            }
    return plain


@pytest.mark.parametrize("case", [c for c in cases("parse-*.json") if c.values[0]["command"] in COMMANDS])
def test_parse(case: dict[str, Any]) -> None:
    """A reply means to us what it means to KubeVirt; one it rejects, we reject."""
    expected = case["expected"]
    if "error" in expected:
        with pytest.raises(ContractError):
            said(case)
        return
    got = said(case)
    if case["command"] == AgentCommand.TIMEZONE and isinstance(expected, dict) and "zone" in expected:
        expected = f"{expected['zone']}, {expected['offset']}"
    if isinstance(expected, dict) and len(expected) == 1 and not isinstance(got, dict):
        [expected] = expected.values()
    assert expected == got


@pytest.mark.parametrize("case", cases("aggregate-*.json"))
def test_aggregate(case: dict[str, Any]) -> None:
    """The three answers hold what KubeVirt's hold."""
    domain = Domain(GuestRef("ns", "vm"), "d", "u", "u", Phase.RUNNING, channel=True, connected=True, interfaces=())
    guest = Guest(domain, "host", codec.now())
    users = [msgspec.convert(user, User) for user in case["input"].get("users", [])]
    filesystems = [msgspec.convert(entry, Filesystem) for entry in case["input"].get("filesystems", [])]
    guest.read(AgentCommand.USERS, Reply(tuple(users)), codec.now())
    guest.read(AgentCommand.FILESYSTEMS, Reply(tuple(filesystems)), codec.now())
    bodies = {part.kind: json.loads(part.body) for part in guest.snapshot("t").parts}
    got = bodies[case["command"]]
    expected = case["expected"]
    if case["compare"] == "contains":
        got = {key: got[key] for key in expected if key in got}

    assert expected == got
    assert len(bodies["guestosinfo"].get("userList", [])) <= CAP_IN_GUESTOSINFO
