"""Room for looks: never more than its places, newcomers first, nobody starves, nobody holds a place for ever."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from collectors.room import TURNS, Room


async def queue(room: Room, order: list[str], *names: str) -> list[asyncio.Task[None]]:
    """Who waits, in that order; a name with N has not been read yet. Each leaves when it has been noted."""

    async def one(name: str) -> None:
        ticket = await room.enter(first=name.startswith("N"))
        order.append(name)
        room.leave(ticket)

    tasks = [asyncio.create_task(one(name)) for name in names]
    await asyncio.sleep(0)
    return tasks


async def test_newcomers_first() -> None:
    """Who has not been read goes first; every fourth place goes to the others."""
    room, order = Room(places=1), list[str]()
    ticket = await room.enter(first=False)
    tasks = await queue(room, order, *(f"o{n}" for n in range(4)), *(f"N{n}" for n in range(8)))
    room.leave(ticket)
    await asyncio.gather(*tasks)

    assert TURNS == 4
    assert ["N0", "N1", "N2", "o0", "N3", "N4", "N5", "o1", "N6", "N7", "o2", "o3"] == order


async def test_long_look_gives_up_its_place() -> None:
    """Who waits for a host that hardly answers does not hold up the others; to leave later does no harm."""
    room = Room(places=2, patience=0.05)
    slow = [await room.enter(first=True) for _ in range(2)]
    async with asyncio.timeout(30):
        others = [await room.enter(first=False) for _ in range(2)]
    for ticket in slow + others:
        room.leave(ticket)
    async with asyncio.timeout(30):
        for _ in range(2):
            await room.enter(first=False)


async def test_cancelled() -> None:
    """Who gives up while waiting, or just as it got a place, takes none."""
    room = Room(places=1)
    ticket = await room.enter(first=True)
    waiting = [asyncio.create_task(room.enter(first=True)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    room.leave(ticket)
    waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    async with asyncio.timeout(30):
        await room.enter(first=False)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=60), st.integers(1, 5))
def test_never_more_than_its_places(looks: list[tuple[bool, int]], places: int) -> None:
    """However long looks take, all get in, and never more at once than there is room."""

    async def play() -> None:
        room, inside, most = Room(places), 0, 0

        async def look(first: bool, steps: int) -> None:
            nonlocal inside, most
            ticket = await room.enter(first=first)
            inside += 1
            most = max(most, inside)
            for _ in range(steps):
                await asyncio.sleep(0)
            inside -= 1
            room.leave(ticket)

        await asyncio.gather(*(look(first, steps) for first, steps in looks))
        assert 0 == inside
        assert most <= places

    asyncio.run(play())
