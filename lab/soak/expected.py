"""
What consumers should say about a guest, made of what its agent says: KubeVirt's conversion, restated here, so that a
mistake of the pipeline's own is not repeated.

Where an agent cannot be asked now, nobody but the stream knows what it said last. The bodies are then those on the
stream, and the comparison is whether everybody agrees about them; the agent record is compared with the truth all the
same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Bodies = dict[str, Any]
"""By kind, as JSON says them."""
FACTS = ("guestosinfo", "userlist", "filesystemlist", "interfaces")
CAP = 10
"""Of users and filesystems inside guestosinfo."""


@dataclass(frozen=True)
class Expected:
    """What is true about a guest."""

    namespace: str
    name: str
    mac: str
    there: bool
    phase: str = "Running"
    connected: bool = False
    hangs: bool = False
    bodies: Bodies = field(default_factory=dict)
    """Of facts, by kind."""

    @property
    def ref(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def agent(self) -> Bodies:
        """The fields of the agent record that have to be so."""
        record: Bodies = {"phase": self.phase, "connected": self.connected}
        if self.connected and self.phase == "Running":
            record["responsive"] = not self.hangs
        return record


def bodies(replies: dict[str, Any], mac: str) -> Bodies:
    """The facts of a guest with one NIC, by kind, from the agent's replies by command."""
    info, zone = replies["guest-info"], replies["guest-get-timezone"]
    users = [
        _filled({"userName": each["user"], "loginTime": each["login-time"]}) for each in replies["guest-get-users"]
    ]
    filesystems = [_filesystem(each) for each in replies["guest-get-fsinfo"]]
    commands = [_filled({"name": each["name"], "enabled": each["enabled"]}) for each in info["supported_commands"]]
    system = {_camel(key): value for key, value in replies["guest-get-osinfo"].items() if "variant" not in key}
    guestosinfo = {
        "fsInfo": {"disks": filesystems[:CAP] or None},
        "os": system,
        "timezone": f"{zone.get('zone', '')}, {zone['offset']}",
        "fsFreezeStatus": replies["guest-fsfreeze-status"],
        "guestAgentVersion": info["version"],
        "hostname": replies["guest-get-host-name"]["host-name"],
        "supportedCommands": commands,
        "userList": users[:CAP],
    }
    return {
        "guestosinfo": _filled(guestosinfo),
        "userlist": {"items": users, "metadata": {}},
        "filesystemlist": {"items": filesystems, "metadata": {}},
        "interfaces": {
            "domain": [{"name": "default", "mac": mac, "queues": 1, "linkState": "up"}],
            "guest": [_interface(each) for each in replies["guest-network-get-interfaces"]],
        },
    }


def _filesystem(entry: dict[str, Any]) -> Bodies:
    disks = [_filled({"busType": disk["bus-type"], "serial": disk.get("serial", "")}) for disk in entry["disk"]]
    return {
        "diskName": entry["name"],
        "mountPoint": entry["mountpoint"],
        "fileSystemType": entry["type"],
        "usedBytes": entry.get("used-bytes", 0),
        "totalBytes": entry.get("total-bytes", 0),
        **({"disk": disks} if disks else {}),
    }


def _interface(entry: dict[str, Any]) -> Bodies:
    addresses = [
        _filled({"address": each["ip-address"], "prefix": each["prefix"]}) for each in entry.get("ip-addresses", ())
    ]
    return _filled({"name": entry["name"], "mac": entry.get("hardware-address", ""), "addresses": addresses})


def _filled(fields: Bodies) -> Bodies:
    """Without what says nothing: the contract leaves it out."""
    return {key: value for key, value in fields.items() if value or isinstance(value, dict)}


def _camel(key: str) -> str:
    first, *rest = key.split("-")
    return first + "".join(map(str.title, rest))
