"""
The simulated guests: what is true about them, and how it changes.

A step changes one guest, chosen by a seed, so the same seed gives the same history whatever the pipeline makes of it.
Twenty guests at most are away at once: undefined, paused, or without their agent; the one that is so for longest
returns first.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

from collectors.host import Hint
from guestwire.snapshot import Phase

NAMESPACE = "soak"
HOSTS = tuple(f"soak-{number}" for number in range(1, 5))
MOST_AWAY = 20
LOST_HINTS = 0.05
"""The share of events that are lost, as libvirt loses some."""
MIB = 2**20
FILESYSTEM = 1000 * MIB
COMMANDS = (
    "guest-info",
    "guest-fsfreeze-status",
    "guest-get-osinfo",
    "guest-get-host-name",
    "guest-get-timezone",
    "guest-network-get-interfaces",
    "guest-get-users",
    "guest-get-fsinfo",
)
SYSTEM = {
    "id": "debian",
    "name": "Debian GNU/Linux",
    "pretty-name": "Debian GNU/Linux 12 (bookworm)",
    "version": "12 (bookworm)",
    "version-id": "12",
    "kernel-release": "6.1.0-40-amd64",
    "kernel-version": "#1 SMP",
    "machine": "x86_64",
}

Listener = Callable[[str, str, Hint], None]
"""Told a host, a domain's UUID, and what an event says."""


class SimulatedGuest:
    """A domain and its agent; `there` says whether it is defined at all."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"vm-{number:03d}"
        self.host = HOSTS[number % len(HOSTS)]
        self.uid = ""
        """Of its VMI."""
        self.mac = f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"
        self.awake = asyncio.Event()
        self.awake.set()
        self.in_step = True
        """Whether the agent has answered what it was asked last."""
        self.channel = asyncio.Lock()
        """An agent is asked one thing at a time."""
        self._lives = 0
        self.define()

    def define(self) -> None:
        """As new, under a UUID of its own."""
        self._lives += 1
        self.uuid = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.{self._lives}.soak"))
        self.there = self.connected = True
        self.phase = Phase.RUNNING
        self.hostname = self.name
        self.users: dict[str, float] = {}
        self.addresses = [f"10.20.{self.number >> 8}.{self.number & 255}", f"fd00::{self.number:x}"]
        self.used = {"/": 100 * MIB}

    @property
    def answers(self) -> bool:
        """Whether its agent would answer now."""
        return self.there and self.connected and self.phase is Phase.RUNNING and self.awake.is_set()

    def xml(self) -> str:
        """Its live XML, as far as anybody reads it."""
        state = "connected" if self.connected else "disconnected"
        return f"""<domain type="kvm">
  <name>{NAMESPACE}_{self.name}</name>
  <uuid>{self.uuid}</uuid>
  <metadata><kubevirt xmlns="http://kubevirt.io"><uid>{self.uid}</uid></kubevirt></metadata>
  <devices>
    <interface type="bridge"><mac address="{self.mac}"/><alias name="ua-default"/></interface>
    <channel type="unix"><target type="virtio" name="org.qemu.guest_agent.0" state="{state}"/></channel>
  </devices>
</domain>"""

    def reply(self, command: str) -> Any:
        """What its agent returns for a command."""
        match command:
            case "guest-info":
                commands = [{"name": name, "enabled": True, "success-response": True} for name in COMMANDS]
                return {"version": "7.2.22", "supported_commands": commands}
            case "guest-fsfreeze-status":
                return "thawed"
            case "guest-get-osinfo":
                return SYSTEM
            case "guest-get-host-name":
                return {"host-name": self.hostname}
            case "guest-get-timezone":
                return {"zone": "UTC", "offset": 0}
            case "guest-network-get-interfaces":
                addresses = [{"ip-address": each, "prefix": 64 if ":" in each else 24} for each in self.addresses]
                return [{"name": "eth0", "hardware-address": self.mac, "ip-addresses": addresses}]
            case "guest-get-users":
                return [{"user": user, "login-time": since} for user, since in self.users.items()]
            case "guest-get-fsinfo":
                return [
                    {"name": f"vd{chr(97 + place)}1", "mountpoint": mount, "type": "ext4", "used-bytes": used,
                     "total-bytes": FILESYSTEM, "disk": [{"bus-type": "virtio", "serial": f"s{place}"}]}
                    for place, (mount, used) in enumerate(self.used.items())
                ]  # fmt: skip
        raise LookupError(command)


class Truth:
    """All of them; `step` changes one."""

    def __init__(self, count: int, seed: str, *, lost: float = LOST_HINTS) -> None:
        self.guests = [SimulatedGuest(number) for number in range(count)]
        self.listeners: set[Listener] = set()
        self._lost = lost
        self._random = random.Random(f"{seed}/guests")  # noqa: S311
        self._away: deque[tuple[SimulatedGuest, Callable[[SimulatedGuest], None]]] = deque()
        self._facts = (self._user, self._address, self._filled, self._mounted, self._renamed)
        self._states = (self._agent_goes, self._paused, self._undefined)
        self._count = 0

    def at(self, host: str) -> dict[str, SimulatedGuest]:
        """The domains of a host by UUID."""
        return {guest.uuid: guest for guest in self.guests if guest.there and guest.host == host}

    def step(self) -> None:
        """One change."""
        self._count += 1
        pick = self._random
        if len(self._away) >= MOST_AWAY or (self._away and pick.random() < 0.05):
            guest, back = self._away.popleft()
            back(guest)
            return
        guest = pick.choice(self.guests)
        if any(guest is away for away, _ in self._away):
            return
        if pick.random() < 0.1:
            pick.choice(self._states)(guest)
        else:
            pick.choices(self._facts, (6, 6, 4, 2, 1))[0](guest)

    def tell(self, guest: SimulatedGuest, hint: Hint) -> None:
        """An event, if it is not lost."""
        if self._random.random() >= self._lost:
            for listener in list(self.listeners):
                listener(guest.host, guest.uuid, hint)

    # --- facts: nobody tells ------------------------------------------------------------------------------------

    def _user(self, guest: SimulatedGuest) -> None:
        user = self._random.choice(("alice", "bob", "carol", "dora", "erin"))
        if guest.users.pop(user, None) is None:
            guest.users[user] = 1.7e9 + self._count

    def _address(self, guest: SimulatedGuest) -> None:
        address = f"10.30.0.{self._random.randint(1, 9)}"
        if address in guest.addresses:
            guest.addresses.remove(address)
        else:
            guest.addresses.append(address)

    def _filled(self, guest: SimulatedGuest) -> None:
        guest.used["/"] = self._random.randint(1, 999) * MIB

    def _mounted(self, guest: SimulatedGuest) -> None:
        if guest.used.pop("/data", None) is None:
            guest.used["/data"] = 10 * MIB

    def _renamed(self, guest: SimulatedGuest) -> None:
        guest.hostname = f"{guest.name}-{self._count}"

    # --- states: an event tells --------------------------------------------------------------------------------

    def _agent_goes(self, guest: SimulatedGuest) -> None:
        guest.connected = False
        self.tell(guest, Hint.AGENT)
        self._away.append((guest, self._agent_returns))

    def _agent_returns(self, guest: SimulatedGuest) -> None:
        guest.connected = True
        self.tell(guest, Hint.AGENT)

    def _paused(self, guest: SimulatedGuest) -> None:
        guest.phase = Phase.PAUSED
        self.tell(guest, Hint.STATE)
        self._away.append((guest, self._resumed))

    def _resumed(self, guest: SimulatedGuest) -> None:
        guest.phase = Phase.RUNNING
        self.tell(guest, Hint.EVERYTHING)

    def _undefined(self, guest: SimulatedGuest) -> None:
        guest.there = False
        self.tell(guest, Hint.STATE)
        self._away.append((guest, self._defined))

    def _defined(self, guest: SimulatedGuest) -> None:
        guest.define()
        self.tell(guest, Hint.STATE)
