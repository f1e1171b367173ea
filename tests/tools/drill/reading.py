"""A device's questions at the end: all history, changes, rooms and members that its user may read."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from tests.tools.drill.history import Frame, ReadBack, Room

if TYPE_CHECKING:
    from tests.tools.drill.client import Device

MOST_FAILURES = 10
PAUSE_SECONDS = 0.3
# A device that is away comes back, and a server that is busy answers again: neither counts as a failure.
ANSWER_SECONDS = 120.0
TEMPORARY = {"unavailable", "rate_limited"}
RULES = ("name", "posting", "history", "joining")


async def read_all(device: Device) -> list[Frame]:
    """All messages of the user, oldest first, as `history` with `all` gives them."""
    return await _pages(device, {"all": True})


async def read_back(device: Device) -> ReadBack:
    """Messages, events and rooms. Raises ConnectionError, TimeoutError."""
    found = ReadBack()
    found.pages[""] = await _pages(device, {"all": True})
    found.changes[""] = await _changes(device, {"all": True})
    for shown in await _rooms(device):
        room = shown["room"]
        roles = await _members(device, room)
        found.rooms[room] = Room(shown["version"], roles, {name: shown[name] for name in RULES})
        found.pages[room] = await _pages(device, {"room": room})
        found.changes[room] = await _changes(device, {"room": room})
    found.talks = await _talks(device)
    return found


async def _ask(device: Device, frame: dict[str, Any]) -> dict[str, Any]:
    """The answer, after some tries. Raises ConnectionError, TimeoutError."""
    failures, end = 0, time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return await device.ask(frame)
        except (ConnectionError, TimeoutError) as error:
            failures += device.live and str(error) not in TEMPORARY
            if failures > MOST_FAILURES or time.monotonic() > end:
                raise
            await asyncio.sleep(PAUSE_SECONDS)


async def _pages(device: Device, which: dict[str, Any]) -> list[Frame]:
    pages: list[list[Frame]] = []
    frame = {"type": "history", **which, "limit": 200}
    while True:
        page = await _ask(device, frame)
        pages.insert(0, page["messages"])
        if not page["more"]:
            return [entry for one in pages for entry in one]
        frame["before"] = page["messages"][0]["id"]


async def _changes(device: Device, which: dict[str, Any]) -> list[Frame]:
    found: list[Frame] = []
    frame = {"type": "changes", **which, "limit": 200}
    while True:
        page = await _ask(device, frame)
        found += page["events"]
        if not page["more"]:
            return found
        frame["after"] = found[-1]["id"]


async def _rooms(device: Device) -> list[Frame]:
    found: list[Frame] = []
    frame: dict[str, Any] = {"type": "rooms"}
    while True:
        page = await _ask(device, frame)
        found += page["rooms"]
        if not page["more"]:
            return found
        frame["after"] = found[-1]["room"]


async def _talks(device: Device) -> list[Frame]:
    found: list[Frame] = []
    frame: dict[str, Any] = {"type": "conversations", "limit": 50}
    while True:
        page = await _ask(device, frame)
        found += page["conversations"]
        if not page["more"]:
            return found
        frame["before"] = found[-1]["at"]


async def _members(device: Device, room: str) -> dict[str, str]:
    page = await _ask(device, {"type": "members", "room": room, "limit": 200})
    return {user["userId"]: user["role"] for user in page["users"]}
