"""The embedded backend's file gets a newer format: whole or not at all, and with a copy of the old one."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from contextlib import closing
from typing import Any

from imd.contracts.inbox import Submission
from imd.contracts.state import Mark
from imd.contracts.state_rules import pair_id
from imd.protocol.errors import ConfigurationError
from imd.protocol.events import RoomMessage, encode_event
from imd.protocol.selector import Selector
from imd.store.embedded import formats
from tests.contract.embedded_harness import EmbeddedHarness
from tests.contract.support import write_file

STEPS = (
    "CREATE TABLE one (x INTEGER); INSERT INTO one SELECT COUNT(*) FROM message;",
    "ALTER TABLE one ADD COLUMN y INTEGER NOT NULL DEFAULT 7;",
)


PRESENT = formats.STEPS
BASE = formats.newest()


class FormatTests(EmbeddedHarness):
    """`STEPS` stands for the steps of a later version."""

    @property
    def file(self) -> str:
        return os.path.join(self.folder, "imd.db")

    @property
    def copy(self) -> str:
        return f"{self.file}.format-{BASE}"

    def ask(self, path: str, statement: str) -> Any:
        """The first row, of a file that no store has open."""
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
            return file.execute(statement).fetchone()

    def copies(self) -> list[str]:
        return sorted(name for name in os.listdir(self.folder) if name.startswith("imd.db.format-"))

    async def fill(self) -> None:
        """A file of the present format, with three messages to bob."""
        await self.begin()
        await self.send_many("alice", "bob", 3)
        await self.store.stop()

    async def refused(self) -> str:
        store = self.new_store()
        error = await self.assertFailure(store.start(), ConfigurationError)
        await store.stop()
        return str(error)

    async def test_steps_and_copy(self) -> None:
        """A file of an older format goes through all later steps; the copy is the file as it was."""
        await self.fill()
        self.patch(formats, "STEPS", PRESENT + STEPS)
        await self.begin()
        self.assertEqual((await self.read("bob")).head, 3)
        await self.store.stop()
        self.assertEqual(self.ask(self.file, "SELECT x, y FROM one"), (3, 7))
        self.assertEqual(self.ask(self.file, "PRAGMA user_version"), (BASE + 2,))
        self.assertEqual(self.ask(self.copy, "PRAGMA user_version"), (BASE,))
        self.assertEqual(self.ask(self.copy, "PRAGMA integrity_check"), ("ok",))
        self.assertEqual(self.ask(self.copy, "SELECT COUNT(*) FROM message"), (3,))
        self.assertEqual(stat.S_IMODE(os.stat(self.copy).st_mode), 0o600)
        # The copy is the way back: in the file's place it serves the older version.
        os.replace(self.copy, self.file)
        self.patch(formats, "STEPS", PRESENT)
        await self.begin()
        self.assertEqual((await self.read("bob")).head, 3)

    async def test_one_step(self) -> None:
        """A file goes on from the format that it has."""
        self.patch(formats, "STEPS", PRESENT + STEPS[:1])
        await self.fill()
        self.patch(formats, "STEPS", PRESENT + STEPS)
        await self.begin()
        await self.store.stop()
        self.assertEqual(self.ask(self.file, "SELECT x, y FROM one"), (0, 7))
        self.assertEqual(self.copies(), [f"imd.db.format-{BASE + 1}"])

    async def test_state(self) -> None:
        """A file of format 6 gets the tables of marks and settings."""
        await self.fill()
        self.make_older(6)
        await self.begin()
        self.assertEqual((await self.read("bob")).head, 3)
        mark = Mark(pair_id("alice", "bob"), Selector(with_="bob"), "0" * 28, "bob")
        self.assertEqual((await self.store.states.change("alice", [mark], None, 0)).version, 1)
        self.assertEqual(self.copies(), ["imd.db.format-6"])

    async def test_talks(self) -> None:
        """A file of format 7 gets the list of conversations that its messages make."""
        await self.begin()
        await self.send_many("alice", "bob", 3)
        await self.send(self.message("bob", group=["carol", "alice"]), self.message("carol", "carol"))
        await self.ask_agent()
        for version in (1, 3, 2):
            await self.say_in_room(version)
        rows = "SELECT json_group_array(hex(key) || {}) FROM (SELECT * FROM {} ORDER BY 1, 2)"
        tables = rows.format("at || version || highest", "talk")
        members = rows.format("uid", "talk_member")
        await self.store.stop()
        before = [self.ask(self.file, text) for text in (tables, members)]
        self.assertEqual(before[0][0].count(","), 3)
        self.make_older(7)
        await self.begin()
        await self.store.stop()
        self.assertEqual([self.ask(self.file, text) for text in (tables, members)], before)

    async def ask_agent(self) -> None:
        """A visitor and an agent write to each other, which is in no list."""
        await self.connect("anna", answers_visitors=True)
        await self.send(self.message("visitor-1"))
        await self.send(self.message("anna", "visitor-1"))

    async def say_in_room(self, version: int) -> None:
        message_id, now = self.ids.next()
        said = RoomMessage(
            id=message_id, user_id="alice", from_user_type="USER_TYPE", room="r-1",
            room_version=version, msg="hi", send_time=now,
        )  # fmt: skip
        body = encode_event(said)
        what = Submission("alice", "phone", None, "-", message_id, now, ["bob"], body, kind="message")
        await self.inbox.accept([what])

    def make_older(self, version: int) -> None:
        """Take the tables of later formats out of the file."""
        with closing(sqlite3.connect(self.file)) as file:
            for step in PRESENT[version - formats.BASE :]:
                for table in re.findall(r"CREATE TABLE (\w+)", step):
                    file.execute(f"DROP TABLE {table}")
            file.execute(f"PRAGMA user_version = {version}")
            file.commit()

    async def test_new_file(self) -> None:
        """A new file has the newest format, and no copy of nothing."""
        self.patch(formats, "STEPS", PRESENT + STEPS)
        await self.begin()
        await self.store.stop()
        self.assertEqual(self.ask(self.file, "SELECT x FROM one"), (0,))
        self.assertEqual(self.copies(), [])

    async def test_step_that_fails(self) -> None:
        """A step that fails leaves the file as it was, and the next start begins anew."""
        await self.fill()
        self.patch(formats, "STEPS", (*PRESENT, STEPS[0], "ALTER TABLE nowhere ADD COLUMN y INTEGER;"))
        self.assertIn("nowhere", await self.refused())
        self.assertEqual(self.ask(self.file, "PRAGMA user_version"), (BASE,))
        self.assertEqual(self.ask(self.file, "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'one'"), (0,))
        self.patch(formats, "STEPS", PRESENT + STEPS)
        await self.begin()
        self.assertEqual((await self.read("bob")).head, 3)

    async def test_copy_that_cannot_be_kept(self) -> None:
        """Without a copy nothing is changed; the refusal names the copy. A half copy is replaced."""
        await self.fill()
        self.patch(formats, "STEPS", PRESENT + STEPS)
        os.mkdir(self.copy)
        self.assertIn(self.copy, await self.refused())
        self.assertEqual(self.ask(self.file, "PRAGMA user_version"), (BASE,))
        os.rmdir(self.copy)
        write_file(f"{self.copy}.part", b"of a node that was killed")
        await self.begin()
        await self.store.stop()
        self.assertEqual(self.ask(self.copy, "PRAGMA integrity_check"), ("ok",))
        self.assertEqual(self.copies(), [os.path.basename(self.copy)])
