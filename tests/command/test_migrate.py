"""`imd migrate` on real servers without nodes, and what the doctor says of the list of conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bson import ObjectId
from pymongo.write_concern import WriteConcern

from imd.command import look_list, migrate
from imd.command.findings import Level
from imd.contracts.archive import left_out
from imd.protocol.events import RoomEvent, RoomMessage, encode_event
from imd.protocol.ids import MessageIds, ServerClock
from imd.protocol.message import encode_message
from imd.store.mongo.level import begin_level, write_level
from imd.store.mongo.migrate import step
from imd.store.mongo.write import write_messages
from tests.command import here, write_ini
from tests.command.test_upgrade import Killed, ServersTestCase
from tests.contract.support import Writing

LISTS = "im_conversation"


class MigrateTests(Writing, ServersTestCase):
    """An archive whose list is lost stands for one that never had a list."""

    def setUp(self) -> None:
        super().setUp()
        self.ids = MessageIds(ServerClock())
        concern = WriteConcern(w="majority", j=True)
        self.archive = self.database.get_collection("im_message", write_concern=concern)

    def bodies(self) -> list[bytes]:
        """Messages of every kind, and a room's event, which is none."""
        many = [f"u{n}" for n in range(20)]
        bodies = [encode_message(self.message("alice", f"u{n % 7}")) for n in range(25)]
        bodies.append(encode_message(self.message("alice", "alice")))
        bodies += [encode_message(self.message("bob", group=["carol", "alice"])) for _ in range(3)]
        bodies.append(encode_message(self.message("alice", group=many)))
        partly = encode_message(self.message("bob", group=["carol", "dave"]))
        bodies.append(b"%b,%b}" % (partly[:-1], left_out(["dave"])))
        bodies.append(encode_message(self.message("visitor-1")))
        bodies.append(encode_message(self.message("sam", "visitor-1")))
        room = "r-" + "5f" * 16
        for version in (1, 3, 2):
            message_id, now = self.ids.next()
            more: dict[str, Any] = {"from_user_type": "USER_TYPE", "room": room, "send_time": now}
            bodies.append(
                encode_event(
                    RoomMessage(id=message_id, user_id="alice", room_version=version, msg="hi", **more)
                )
            )
        event_id, now = self.ids.next()
        event = RoomEvent(id=event_id, user_id="alice", version=4, action="set", **{**more, "send_time": now})
        return [*bodies, encode_event(event)]

    def listed(self) -> dict[str, Any]:
        return {one["_id"]: one for one in self.database[LISTS].find()}

    def run_it(self, *options: str) -> tuple[int, dict[str, Any]]:
        code, said = here("migrate", self.file, "--json", *options)
        return code, json.loads(said)

    def findings(self) -> list[tuple[Level, str]]:
        return [(one.level, one.what) for one in look_list.look(self.settings, 60.0)]

    def test_migrated(self) -> None:
        """The list becomes the one that the writer of messages makes, whatever stops the command in between.
        Documents that no node wrote are passed over."""
        write_messages(self.archive, self.bodies(), 10.0)
        expected = self.listed()
        self.assertEqual(len(expected), 7 + 1 + 1 + 1 + 1 + 1)
        self.database[LISTS].delete_many({})
        self.archive.insert_many([{"_id": ObjectId(), "msg": 1}, {"_id": "0" * 28, "kind": "message"}])
        self.put(2, 2)
        self.assertEqual(self.findings()[0][0], Level.WARNING)
        self.patch(migrate, "SLICE", 5)
        steps: list[int] = []

        def breaks_off(*args: Any) -> Any:
            steps.append(1)
            if len(steps) == 3:
                step(*args)
                raise Killed
            if len(steps) == 5:
                raise Killed
            return step(*args)

        self.patch(migrate, "step", breaks_off)
        for _ in range(2):
            self.assertRaises(Killed, self.run_it)
        [(level, what)] = self.findings()
        self.assertEqual(level, Level.WARNING)
        self.assertIn("stopped after 20 messages", what)
        # A message that a node archives meanwhile is not taken back.
        newest = self.message("alice", "u0")
        write_messages(self.archive, [encode_message(newest)], 10.0)
        code, said = self.run_it()
        self.assertEqual((code, said), (0, {"done": 38, "foreign": 1, "complete": True}))
        listed = self.listed()
        (pair,) = [key for key, one in listed.items() if one.get("m") == ["alice", "u0"]]
        self.assertEqual(listed.pop(pair)["at"], newest.id)
        expected.pop(pair)
        self.assertEqual(listed, expected)
        self.assertEqual(self.run_it()[1]["done"], 38)
        self.assertEqual([level for level, _ in self.findings()], [Level.OK])

    def test_refused(self) -> None:
        """Below the level of events nodes of 0.1 archive messages past the list."""
        self.put(1, 1)
        code, said = self.run_it()
        self.assertEqual(code, 1)
        self.assertIn("imd upgrade --finish", said["error"])
        self.assertEqual(self.findings()[0][0], Level.NOTE)
        self.assertIsNone(self.database["im_cluster"].find_one({"_id": "list"}))

    def test_new_installation(self) -> None:
        """It needs no migration, unless it works at the first level first: then the list begins anew."""
        begin_level(self.archive, 2)
        write_messages(self.archive, self.bodies(), 10.0)
        self.assertEqual([level for level, _ in self.findings()], [Level.OK])
        self.assertEqual(self.run_it()[1]["done"], 0)
        write_level(self.archive, 1)
        write_level(self.archive, 2)
        self.assertEqual(self.findings()[0][0], Level.WARNING)

    def test_embedded(self) -> None:
        """A file's list is made when the file gets its format."""
        file = write_ini(Path(self.mktemp()) / "node.ini", node={"backend": "embedded"})
        self.assertEqual(here("migrate", file)[0], 0)

    def test_rate(self) -> None:
        self.assertRaises(SystemExit, here, "migrate", self.file, "--rate", "0")
