"""`imd room` on both backends."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.command.cli import main
from tests.contract.room_contract import RoomHarness
from tests.contract.test_rooms import ClusterRoomsHarness, EmbeddedRoomsHarness
from tests.support.rooms import action

_UNKNOWN = f"r-{'0' * 32}"


class _Shown(RoomHarness):
    """Shows rooms by the configuration that `config` writes."""

    mktemp: Any

    def config(self) -> str:
        raise NotImplementedError

    def written(self) -> Path:
        path = Path(self.mktemp())
        path.write_text(self.config())
        return path

    async def show(self, room: str, *words: str) -> tuple[int, str]:
        """The exit code, and the output."""
        path = self.written()
        output = io.StringIO()

        def run() -> int:
            with redirect_stdout(output):
                return main(["room", room, "--config", str(path), "--seconds", "60", *words])

        return await deferToThread(run), output.getvalue()

    async def test_room(self) -> None:
        """Name, version, rules and members."""
        await self.begin_rooms()
        room = await self.make("mary", name="Weekend")
        await self.change(room, "olga", "add", [("adam", "admin")])
        code, text = await self.show(room)
        self.assertEqual(code, 0)
        self.assertIn(f"Weekend ({room}): version 2, 3 members", text)
        self.assertRegex(text, r"adam +admin +2")
        code, text = await self.show(room, "--json")
        shown = json.loads(text)
        self.assertEqual((code, shown["version"], shown["waiting"]), (0, 2, 0))
        self.assertEqual(shown["members"][2], {"userId": "adam", "role": "admin", "joined": 2})

    async def test_unknown_room(self) -> None:
        """No such room."""
        await self.begin_rooms()
        code, text = await self.show(_UNKNOWN)
        self.assertEqual((code, text), (1, f"{_UNKNOWN}: no such room\n"))

    assertIn: Any
    assertRegex: Any


class ClusterRoomTests(ClusterRoomsHarness, _Shown, unittest.TestCase):
    def config(self) -> str:
        redis = f"[redis]\nurl = {self.server.url}\n"
        mongodb = f"[mongodb]\nurl = {self.mongo_url}\n"
        return f"[node]\nbackend = cluster\n{redis}{mongodb}"

    async def test_copy(self) -> None:
        """The version that messages are placed by, and whether it counts; events that are not finished."""
        await self.begin_rooms()
        room = await self.make("mary")
        await self.rooms.change(action("olga", "set", room, name="y"), self.stamp)
        _, text = await self.show(room)
        self.assertIn("Redis: a copy of version 2\n1 events are not finished", text)
        await self.redis.command("SET", "imd:run", "7 x y 1 1")
        _, text = await self.show(room)
        self.assertIn("a copy of version 2, of another run: it does not count", text)
        await self.redis.command("DEL", f"imd:room:{room}")
        _, text = await self.show(room)
        self.assertIn("Redis: no copy", text)


class EmbeddedRoomTests(EmbeddedRoomsHarness, _Shown, unittest.TestCase):
    def config(self) -> str:
        return f"[node]\ndata = {self.folder}\n"
