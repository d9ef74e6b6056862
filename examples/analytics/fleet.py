"""
A fleet of simulated guests with a past: what each would have said at any moment of a month.

Deterministic: the same number is the same guest. A few fill a filesystem within a week of the month's end, a few run
old agents, some are made or deleted meanwhile, one in fifty is deleted and made anew under its name.
"""

from __future__ import annotations

import math
import random
import uuid
from datetime import datetime, timedelta

import msgspec

from guestwire import codec
from guestwire.snapshot import (
    AgentState,
    DomainInterface,
    Filesystem,
    FilesystemDisk,
    FilesystemInfo,
    FilesystemList,
    GuestInterface,
    GuestOSInfo,
    GuestRef,
    GuestSnapshot,
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

MONTH = timedelta(days=30)
GIB = 1024**3
PEOPLE = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")


class System(msgspec.Struct, frozen=True):
    """An operating system with the kernels and the agent that it comes with."""

    os: OperatingSystem
    kernels: tuple[str, str]
    """Before and after the update of this month."""
    agent: str


def _system(id: str, name: str, version_id: str, version: str, kernels: tuple[str, str], agent: str) -> System:  # noqa: A002
    os = OperatingSystem(
        id=id,
        name=name,
        pretty_name=f"{name} {version}",
        version=version,
        version_id=version_id,
        machine="x86_64",
        kernel_version="#1 SMP PREEMPT_DYNAMIC",
    )
    return System(os, kernels, agent)


SYSTEMS = (
    _system("debian", "Debian GNU/Linux", "12", "12 (bookworm)", ("6.1.0-40-amd64", "6.1.0-41-amd64"), "7.2.19"),
    _system("debian", "Debian GNU/Linux", "13", "13 (trixie)", ("6.12.48-amd64", "6.12.57-amd64"), "10.0.5"),
    _system("ubuntu", "Ubuntu", "22.04", "22.04.5 LTS", ("5.15.0-157-generic", "5.15.0-161-generic"), "6.2.0"),
    _system("ubuntu", "Ubuntu", "24.04", "24.04.3 LTS", ("6.8.0-85-generic", "6.8.0-87-generic"), "8.2.2"),
    _system("rocky", "Rocky Linux", "9.6", "9.6", ("5.14.0-570.el9.x86_64", "5.14.0-611.el9.x86_64"), "9.1.0"),
)
OLD = _system("centos", "CentOS Linux", "7", "7 (Core)", ("3.10.0-1160.el7.x86_64", "3.10.0-1160.el7.x86_64"), "2.12.0")


class Disk(msgspec.Struct, frozen=True):
    """A filesystem's size, and the course that its usage takes: `slope` per day as a share of the size."""

    mount_point: str
    device: str
    total: int
    base: float
    slope: float = 0.0
    rotates: float = 0.0
    """Days after which what has grown is deleted again; 0: never."""


class SimulatedGuest:
    """One of many; `end` is the end of the month."""

    def __init__(self, number: int, end: datetime) -> None:
        self._random = random.Random(number)  # noqa: S311 - a fleet to look at, no secret
        self._begin, self._end = end - MONTH, end
        role = self._random.choice(("web", "db", "mail", "build", "cache"))
        self.ref = GuestRef(self._random.choice(("prod", "staging", "dev")), f"{role}-{number:04}")
        self.host = f"node{number % 25:02}"
        self.agent_is_old = number % 40 == 7
        self.fills = number % 80 == 11
        """Whether its /data is full within a week after the end."""
        self.system = OLD if self.agent_is_old else self._random.choices(SYSTEMS, (5, 3, 3, 4, 2))[0]
        self._updated_at = self._begin + MONTH * self._random.uniform(0.2, 1.2)
        made, gone = number % 50 == 3, number % 50 == 23
        self.begins = self._begin + MONTH * self._random.uniform(0.1, 0.9) if made else self._begin
        self.ends = self._begin + MONTH * self._random.uniform(0.1, 0.9) if gone else None
        self.reborn_at = self._begin + MONTH * self._random.uniform(0.3, 0.7) if number % 50 == 33 else None
        self._disks = self._make_disks()
        self._sessions = list(self._make_sessions())
        self._address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        self._mac = f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
        self._uids = [str(uuid.UUID(int=self._random.getrandbits(128))) for _ in range(2)]

    def _make_disks(self) -> list[Disk]:
        chance = self._random
        disks = [Disk("/", "vda1", 40 * GIB, chance.uniform(0.2, 0.6))]
        total = chance.choice((100, 200, 500)) * GIB
        if self.fills:
            slope = chance.uniform(0.015, 0.03)
            full_after = chance.uniform(1.0, 6.0)  # days after the end
            disks.append(Disk("/data", "vdb1", total, 1 - slope * (MONTH.days + full_after), slope))
        elif chance.random() < 0.6:
            slow = chance.choice((0.0, 0.0, 0.002, 0.004))  # 40 % of the size in 100 days at most
            rotates = 7.0 if chance.random() < 0.2 else 0.0
            disks.append(Disk("/data", "vdb1", total, chance.uniform(0.2, 0.5), 0.03 if rotates else slow, rotates))
        return disks

    def _make_sessions(self) -> list[tuple[datetime, datetime, str]]:
        chance, sessions = self._random, []
        for day in range(MONTH.days):
            for _ in range(chance.choice((0, 0, 1, 1, 2, 3))):
                began = self._begin + timedelta(days=day, hours=chance.gauss(13, 4))
                lasts = timedelta(hours=chance.expovariate(1 / 3) + 0.3)
                sessions.append((began, began + lasts, chance.choice(PEOPLE)))
        return sessions

    def exists(self, at: datetime) -> bool:
        """Whether there is anything to say about it, its last word included."""
        return self.begins <= at and (self.ends is None or at < self.ends + timedelta(days=1))

    def uid(self, at: datetime) -> str:
        """Who has the name at that time."""
        return self._uids[self.reborn_at is not None and at >= self.reborn_at]

    def users(self, at: datetime) -> tuple[User, ...]:
        """Who is logged in."""
        return tuple(
            User(name, login_time=round(began.timestamp(), 3))
            for began, ended, name in self._sessions
            if began <= at < ended
        )

    def filesystems(self, at: datetime) -> tuple[Filesystem, ...]:
        """How full its filesystems are: their course, and a little that comes and goes with the hour."""
        days = (at - self._begin) / timedelta(days=1)
        found = []
        for disk in self._disks:
            grown = disk.slope * (days % disk.rotates if disk.rotates else days)
            wave = 0.004 * math.sin(days * 2 * math.pi + disk.total) + self._random.uniform(-0.001, 0.001)
            share = min(max(disk.base + grown + wave, 0.01), 1.0)
            used = int(disk.total * share)
            device = (FilesystemDisk("virtio"),)
            found.append(Filesystem(disk.device, disk.mount_point, "ext4", used, disk.total, device))
        return tuple(found)

    def information(self, at: datetime) -> GuestOSInfo:
        """Its operating system, and what else belongs to `guestosinfo`."""
        return self._information(at, self.filesystems(at), self.users(at))

    def snapshot(self, at: datetime) -> GuestSnapshot:
        """All that its collector would know at that time."""
        gone = self.ends is not None and at >= self.ends
        agent = self._agent(at, Phase.GONE if gone else Phase.RUNNING)
        parts = [codec.part(Kind.AGENT, agent, at)]
        if not gone:
            disks, users = self.filesystems(at), self.users(at)
            parts += [
                codec.part(Kind.GUESTOSINFO, self._information(at, disks, users), at),
                codec.part(Kind.USERLIST, UserList(users, ListMeta()), at),
                codec.part(Kind.FILESYSTEMLIST, FilesystemList(disks, ListMeta()), at),
                codec.part(Kind.INTERFACES, self._interfaces(), at),
            ]
        return GuestSnapshot(self.ref, self.uid(at), self.host, tuple(parts), codec.new_trace_id())

    def _agent(self, at: datetime, phase: Phase) -> AgentState:
        running = phase is Phase.RUNNING
        return AgentState(
            self.ref.namespace,
            self.ref.name,
            self.uid(at),
            f"{self.ref.namespace}_{self.ref.name}",
            self.uid(at),
            self.host,
            phase,
            channel=True,
            connected=running,
            since=self.begins if running else at,
            responsive=True if running else None,
            version=self.system.agent,
            readings={str(kind): Reading(at) for kind in (Kind.FILESYSTEMLIST, Kind.USERLIST)},
        )

    def _information(self, at: datetime, disks: tuple[Filesystem, ...], users: tuple[User, ...]) -> GuestOSInfo:
        kernel = self.system.kernels[at >= self._updated_at]
        return GuestOSInfo(
            FilesystemInfo(disks[:10]),
            msgspec.structs.replace(self.system.os, kernel_release=kernel),
            "Europe/Berlin, 3600",
            fs_freeze_status="thawed",
            guest_agent_version=self.system.agent,
            hostname=self.ref.name,
            user_list=users[:10],
        )

    def _interfaces(self) -> Interfaces:
        address = IPAddress(self._address, 16)
        return Interfaces(
            (DomainInterface("default", self._mac, 1, "up"),), (GuestInterface("eth0", self._mac, (address,)),)
        )
