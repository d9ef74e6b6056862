"""
A fleet as it might be: guests of several systems and namespaces, told to a cache as if the stream had told it.

For pages and benchmarks that need thousands of guests, where real ones would need a hall of machines. Every message is
of the contract and goes the way it goes in the API.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from api.cache import Cache
from guestwire import codec
from guestwire.jetstream import Message
from guestwire.kinds import BODIES
from guestwire.snapshot import (
    AgentState,
    Body,
    DomainInterface,
    Filesystem,
    FilesystemDisk,
    FilesystemInfo,
    FilesystemList,
    GuestInterface,
    GuestOSInfo,
    GuestRef,
    Interfaces,
    IPAddress,
    Kind,
    ListMeta,
    OperatingSystem,
    Phase,
    Reading,
    User,
    UserList,
)
from guestwire.subjects import Address

SYSTEMS = (
    ("debian", "Debian GNU/Linux", "12", "12 (bookworm)", "6.1.0-40-amd64", 40),
    ("ubuntu", "Ubuntu", "24.04", "24.04.3 LTS", "6.8.0-85-generic", 25),
    ("rocky", "Rocky Linux", "9.6", "9.6 (Blue Onyx)", "5.14.0-570.el9.x86_64", 15),
    ("mswindows", "Microsoft Windows", "2022", "Server 2022 Standard", "20348", 10),
    ("debian", "Debian GNU/Linux", "13", "13 (trixie)", "6.12.48+deb13-amd64", 6),
    ("freebsd", "FreeBSD", "14.3", "14.3-RELEASE", "14.3-RELEASE", 4),
)
NAMESPACES = ("prod", "prod", "prod", "staging", "shop", "data", "ci", "default")
ROLES = ("web", "db", "cache", "queue", "build", "mail", "ldap", "api", "batch", "proxy")
PEOPLE = ("alice", "bob", "carol", "deploy", "root", "postgres", "dora", "Administrator")
STATES = (("connected", 93), ("disconnected", 3), ("unresponsive", 1), ("frozen", 1), ("none", 2))
GIB = 2**30


class Fleet:
    """Guests told to a cache; what is random is the same for the same seed."""

    def __init__(self, cache: Cache, seed: int = 1) -> None:
        self.cache = cache
        self.refs: list[GuestRef] = []
        self._random = random.Random(seed)  # noqa: S311
        self.agents: dict[GuestRef, AgentState] = {}

    def fill(self, count: int) -> None:
        """Begin with so many guests."""
        self.cache.begin()
        for number in range(count):
            self.add(number)
        self.cache.complete()

    def add(self, number: int) -> None:
        """One guest more, everything about it."""
        pick = self._random
        role = pick.choice(ROLES)
        ref = GuestRef(pick.choice(NAMESPACES), f"{role}{number:02d}")
        self.refs.append(ref)
        (state,) = pick.choices([name for name, _ in STATES], [weight for _, weight in STATES])
        self.agent(ref, **_said(state))
        (system,) = pick.choices(SYSTEMS, [each[-1] for each in SYSTEMS])
        os_id, name, version_id, version, kernel, _ = system
        info = OperatingSystem(
            id=os_id,
            name=name,
            version_id=version_id,
            version=version,
            pretty_name=f"{name} {version}",
            kernel_release=kernel,
            machine="x86_64",
        )
        self.say(ref, Kind.GUESTOSINFO, GuestOSInfo(FilesystemInfo(None), info, "UTC, 0", hostname=ref.name))
        mac = f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
        address = IPAddress(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 16)
        nic = GuestInterface("eth0", mac, (address, IPAddress(f"fd00::{number:x}", 64)))
        self.say(ref, Kind.INTERFACES, Interfaces((DomainInterface("net0", mac),), (nic,)))
        self.users(ref)
        self.disks(ref, windows=os_id == "mswindows")

    def agent(self, ref: GuestRef, **facts: Any) -> AgentState:
        """Something about its agent, which is running well but for that; what was said."""
        now = codec.now()
        kinds = (Kind.GUESTOSINFO, Kind.USERLIST, Kind.FILESYSTEMLIST, Kind.INTERFACES)
        before = self.agents.get(ref)
        usual: dict[str, Any] = {
            "host": before.host if before else f"node{self._random.randrange(1, 25)}",
            "phase": Phase.RUNNING,
            "channel": True,
            "connected": True,
            "responsive": True,
            "since": before.since if before else now - timedelta(seconds=self._random.expovariate(1 / 200_000)),
            "version": before.version if before else "7.2.22",
            "readings": {kind: Reading(now - timedelta(seconds=self._random.uniform(0, 50))) for kind in kinds},
        }
        uid = f"00000000-0000-4000-8000-{abs(hash(ref)) % 16**12:012x}"
        said: dict[str, Any] = {
            "namespace": ref.namespace,
            "name": ref.name,
            "uid": uid,
            "domain": f"{ref.namespace}_{ref.name}",
            "domain_uuid": uid,
        }
        state = self.agents[ref] = AgentState(**(said | usual | facts))
        self.say(ref, Kind.AGENT, state)
        return state

    def users(self, ref: GuestRef) -> None:
        """Others are logged in."""
        names = self._random.sample(PEOPLE, self._random.choices((0, 1, 2, 4), (60, 25, 12, 3))[0])
        since = int(codec.now().timestamp()) - self._random.randrange(100_000)
        self.say(ref, Kind.USERLIST, UserList(tuple(User(name, login_time=since) for name in names), ListMeta()))

    def disks(self, ref: GuestRef, *, windows: bool = False) -> None:
        """Its filesystems are filled otherwise."""
        pick = self._random
        unix = (("/", "ext4"), ("/var", "xfs"), ("/boot", "ext2"))
        mounts = (("C:\\", "NTFS"), ("D:\\", "NTFS")) if windows else unix
        items = []
        for mount, kind in mounts:
            total = pick.choice((8, 20, 40, 100, 500)) * GIB
            used = int(total * pick.betavariate(2, 3.2))
            items.append(Filesystem("vda1", mount, kind, used, total, (FilesystemDisk("virtio", "a1"),)))
        self.say(ref, Kind.FILESYSTEMLIST, FilesystemList(tuple(items), ListMeta()))

    def change(self, count: int) -> None:
        """So many changes of guests by chance: logins, disks, and as many heartbeats."""
        for _ in range(count):
            ref = self._random.choice(self.refs)
            self._random.choice((self.users, self.disks, self.agent, self.agent))(ref)

    def say(self, ref: GuestRef, kind: str, body: Body) -> None:
        """A message of any kind."""
        assert isinstance(body, BODIES[kind])  # noqa: S101
        agent = self.agents.get(ref)
        event = codec.Event("1", f"/guestwire/lab/{agent.host if agent else 'h'}", _uid(agent), codec.now(), "")
        revision = self.cache.revision + 1
        self.cache.apply(Message(Address("lab", ref, kind), revision, event, codec.encode(body), {}))


def _uid(agent: AgentState | None) -> str:
    return agent.uid if agent else ""


def _said(state: str) -> dict[str, Any]:
    facts: dict[str, dict[str, Any]] = {
        "connected": {},
        "disconnected": {"connected": False, "responsive": None},
        "unresponsive": {"responsive": False, "reason": "guest agent did not answer within 5 s"},
        "frozen": {"frozen": True},
        "none": {"channel": False, "connected": False, "responsive": None},
    }
    return facts[state]
