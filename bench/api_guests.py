"""
The guests of `bench.api`: put on the stream once, and then changed by a process of its own
(`python -m bench.api_guests URL GUESTS RATE`).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from nats.js.client import JetStreamContext

from guestwire import codec, logs, subjects
from guestwire.jetstream import Bus
from guestwire.settings import Log, Nats
from guestwire.snapshot import (
    AgentState,
    Body,
    Command,
    Filesystem,
    FilesystemInfo,
    GuestOSInfo,
    GuestRef,
    Kind,
    ListMeta,
    OperatingSystem,
    Phase,
    Reading,
    User,
    UserList,
)

WINDOW = 1000
"""Messages on their way to NATS at once."""
KINDS = (Kind.AGENT, Kind.GUESTOSINFO, Kind.USERLIST)
COMMANDS = tuple(Command(f"guest-some-command-{number}", enabled=True) for number in range(30))


def guest(number: int) -> GuestRef:
    """One of many."""
    return GuestRef("bench", f"vm{number}")


def body(number: int, kind: str, turn: int = 0) -> Body:
    """What a guest says; `turn` makes it another."""
    ref, now = guest(number), codec.now()
    if kind == Kind.AGENT:
        commands = tuple(command.name for command in COMMANDS)
        read = (Kind.GUESTOSINFO, Kind.USERLIST, Kind.FILESYSTEMLIST, Kind.INTERFACES)
        readings: dict[str, Reading] = {each: Reading(now) for each in read}
        return AgentState(
            ref.namespace, ref.name, f"uid-{number}", f"bench_{ref.name}", f"uid-{number}", f"host-{number % 200}",
            Phase.RUNNING, channel=True, connected=True, since=now, commands=commands, readings=readings,
        )  # fmt: skip
    if kind == Kind.USERLIST:
        return UserList((User("root", login_time=1.7e9 + turn), User(f"user{number}", login_time=1.7e9)), ListMeta())
    disks = tuple(Filesystem(f"vda{each}", f"/mnt/{each}", "ext4", 10**9 + turn, 10**10) for each in range(3))
    system = OperatingSystem("debian", "6.1.0", "#1 SMP", "x86_64", "Debian GNU/Linux", "Debian 12", "12", "12")
    return GuestOSInfo(FilesystemInfo(disks), system, "UTC, 0", hostname=ref.name, supported_commands=COMMANDS)


async def publish(url: str, guests: int, say: Callable[[str], None]) -> int:
    """Put the guests on the stream; the bytes of their bodies."""
    size = 0
    async with Bus(Nats(servers=(url,), timeout=60), "bench") as bus:
        await bus.ensure_stream()
        stream = bus.client.jetstream(publish_async_max_pending=WINDOW, timeout=60)
        for number in range(guests):
            for kind in KINDS:
                size += await send(stream, number, kind)
            if number % 20_000 == 0:
                say(f"{number} of {guests} guests published")
        await stream.publish_async_completed()
        held = (await bus.js.stream_info(bus.settings.stream)).state.messages
        if held != guests * len(KINDS):
            raise RuntimeError(f"{held} messages on the stream, not {guests * len(KINDS)}")
    return size


async def send(stream: JetStreamContext, number: int, kind: str, turn: int = 0) -> int:
    """One message of a guest, as a collector sends it; the bytes of its body."""
    part = codec.part(kind, body(number, kind, turn), codec.now())
    name = f"{number}-{kind}-{turn}"
    headers = codec.event_headers(
        ref=guest(number), uid=f"uid-{number}", cluster="local", host="h", part=part, message_id=name, trace_id="0" * 32
    )
    await stream.publish_async(subjects.subject("local", guest(number), kind), part.body, headers=headers)
    return len(part.body)


async def change(url: str, guests: int, rate: int) -> None:
    """Change so many guests a second, for ever."""
    async with Bus(Nats(servers=(url,), timeout=60), "bench") as bus:
        stream = bus.client.jetstream(publish_async_max_pending=WINDOW, timeout=60)
        turn, began = 0, time.monotonic()
        while True:
            turn += 1
            await send(stream, turn * 7919 % guests, Kind.GUESTOSINFO, time.time_ns())
            await asyncio.sleep(max(0.0, began + turn / rate - time.monotonic()) if turn % 10 == 0 else 0)


if __name__ == "__main__":
    logs.configure(Log(level="error"))
    asyncio.run(change(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
