"""Faults of rooms: Redis forgets their copies, and a node dies between MongoDB and Redis."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from tests.protocol.clusters import RawRedis
from tests.tools.drill.doings import ORPHAN
from tests.tools.drill.history import Answer

if TYPE_CHECKING:
    from tests.tools.drill.client import Device
    from tests.tools.drill.faults import Stage

COPY = ("run", "version", "members", "roles", "rules")
"""the fields of a room's hash in Redis that are its copy"""
SWEPT_SECONDS = 20.0
"""nodes look for events older than 10 s every 5 s or so"""
STEP_SECONDS = 120.0
TRY_SECONDS = 3.0


async def room_cold(stage: Stage) -> str:
    """As if the copies were of another run. The time between is longer than a load takes.

    The note of the events that are in inboxes stays. It goes only with a copy that nobody has used for a
    week, and then no event is left whose placing is not noted in MongoDB.
    """
    forgotten = 0
    for _ in range(3):
        forgotten += await asyncio.to_thread(_forget, stage.cluster.redis_url, list(stage.world.known.rooms))
        await stage.hold(2.2, 2.6)
    return f"{forgotten} copies"


def _forget(url: str, rooms: list[str]) -> int:
    connection = RawRedis(url)
    try:
        return sum(int(connection("HDEL", f"imd:room:{room}", *COPY) > 0) for room in rooms)
    finally:
        connection.close()


async def room_orphan(stage: Stage) -> str:
    """A change is made, its write concern is not met, and its node is killed before anybody is told.

    Its client never asks again, and nobody uses the room: another node has to find the event.
    """
    number = stage.rng.randrange(len(stage.cluster.nodes))
    node = stage.cluster.nodes[number]
    maker = next(prober for prober in stage.world.probers if prober.pinned == number)
    users = stage.rng.sample(stage.world.users, 3)
    room = await _create(stage, maker, users[:2])
    await asyncio.to_thread(_fail_concern, stage, "alwaysOn")
    try:
        key = await _change(stage, maker, room, users[2])
    finally:
        await asyncio.to_thread(node.kill)
        await asyncio.to_thread(_fail_concern, stage, "off")
        await asyncio.to_thread(node.start)
    concerned = [device for device in stage.world.devices if device.user in users]
    try:
        await stage.world.until(lambda: all(key in one.seen for one in concerned), SWEPT_SECONDS, "a sweep")
    except TimeoutError:
        return f"{node.name}; nobody was told"
    return node.name


async def _create(stage: Stage, maker: Device, users: list[str]) -> str:
    """The maker's new room, with these."""
    named = [{"userId": user} for user in users]
    key = maker.do("room", action="create", name=ORPHAN, users=named)
    rooms: list[str] = []

    def is_accepted() -> bool:
        # The maker may have dropped the connection on which the answer came.
        own = (one for one in stage.history.connections if one.device == maker.name)
        answers = (event for one in own for event in one.events if type(event) is Answer)
        rooms.extend(answer.room for answer in answers if answer.key == key and answer.room)
        return bool(rooms)

    await stage.world.until(is_accepted, STEP_SECONDS, "a room is created")
    return rooms[0]


async def _change(stage: Stage, maker: Device, room: str, user: str) -> str:
    """Let the maker ask once, and give up, until one such change is in MongoDB; gives its key."""
    keys: list[str] = []
    end = time.monotonic() + STEP_SECONDS
    while time.monotonic() < end:
        keys.append(maker.do("room", action="add", room=room, users=[{"userId": user}]))
        maker.give_up(keys[-1])
        tried = time.monotonic()
        while time.monotonic() < tried + TRY_SECONDS:
            # A slow one may be made after it was asked for again, which changes nothing then.
            if (key := await asyncio.to_thread(_made, stage, room, keys)) is not None:
                return key
    raise TimeoutError(f"a change is made: not within {STEP_SECONDS:g} s")


def _made(stage: Stage, room: str, keys: list[str]) -> str | None:
    """The one of these changes that is in MongoDB, if any is."""
    with stage.cluster.mongo() as client:
        found = client.get_default_database()["im_room"].find_one({"_id": room}) or {"past": ()}
        made = (past["client_msg_id"] for past in found["past"])
        return next((key for key in made if key in keys), None)


def _fail_concern(stage: Stage, mode: str) -> None:
    """Let changes of rooms be made, and be answered with a write concern that is not met."""
    command: dict[str, Any] = {"configureFailPoint": "failCommand", "mode": mode}
    if mode != "off":
        unmet = {"code": 64, "errmsg": "waiting for replication timed out"}
        command["data"] = {"failCommands": ["findAndModify"], "writeConcernError": unmet}
    with stage.cluster.mongo() as client:
        client.admin.command(command)
