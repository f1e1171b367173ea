"""The file of a client: a recalled text is in none of its bytes."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import sqlite3
import time
from pathlib import Path

from twisted.trial import unittest

from imd.client import Outgoing, SqliteStore
from tests.unit.client.support import Pipe

SECRET = "nobody shall read this"
LONG = SECRET * 1000


class BytesTests(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.pipe = self.begin(self.folder)

    def begin(self, folder: Path) -> Pipe:
        self.store = SqliteStore(folder / "a.db")
        self.addCleanup(self.store.close)
        pipe = Pipe(store=self.store)
        pipe.open(features=["events", "sync"])
        return pipe

    def found(self, folder: Path | None = None) -> int:
        """How often the text is in the files."""
        files = (folder or self.folder).iterdir()
        return sum(file.read_bytes().count(SECRET.encode()) for file in files)

    def say(self, *texts: str) -> list[str]:
        """Messages that are sent and accepted; gives their ids."""
        ids = []
        for text in texts:
            outgoing = self.pipe.program.send(text, to="bob")
            message_id = f"m-{outgoing.client_msg_id}"
            self.accept(outgoing.client_msg_id, message_id)
            ids.append(message_id)
        return ids

    def accept(self, client_msg_id: str, event_id: str) -> None:
        self.pipe.gets(type="accepted", clientMsgId=client_msg_id, id=event_id, sendTime=1)

    def recall_here(self, message_id: str) -> None:
        self.accept(self.pipe.program.recall(message_id).client_msg_id, f"r-{message_id}")

    def recall_elsewhere(self, seq: int, message_id: str) -> None:
        """The user's other device recalls it, so this one gets a copy of the recall."""
        recall = {"kind": "recall", "of": message_id, "userId": "alice", "to": "bob"}
        self.pipe.gets(seq=seq, id=f"r{seq}", sendTime=1, **recall)

    def test_recall_here(self) -> None:
        """Short texts and long ones, which SQLite puts into pages of their own."""
        one, two = self.say(SECRET, LONG)
        self.assertGreater(self.found(), 0)
        self.recall_here(one)
        self.recall_here(two)
        self.assertEqual(self.found(), 0)

    def test_recall_elsewhere(self) -> None:
        """Messages that left the outbox long ago, and ones that have failed."""
        for seq, message_id in enumerate(self.say(*[SECRET] * 5), 1):
            self.recall_elsewhere(seq, message_id)
        self.assertEqual(self.found(), 0)
        failed = self.pipe.program.send(LONG, to="bob")
        self.pipe.gets(seq=6, id="m", userId="alice", to="bob", clientMsgId=failed.client_msg_id, sendTime=1)
        self.pipe.gets(type="error", clientMsgId=failed.client_msg_id, code="forbidden", message="no")
        self.recall_elsewhere(7, "m")
        self.assertEqual((self.found(), self.pipe.program.outbox), (0, ()))

    def test_edit(self) -> None:
        """Neither what the message said before nor what it should say."""
        [message_id] = self.say("x")
        edit = self.pipe.program.edit(message_id, SECRET)
        self.accept(edit.client_msg_id, "e1")
        self.pipe.program.edit(message_id, LONG)
        self.recall_elsewhere(1, message_id)
        self.assertEqual(self.found(), 0)

    def test_recall_before_the_answer(self) -> None:
        """A message that may have to be sent again goes with its answer."""
        outgoing = self.pipe.program.send(SECRET, to="bob")
        copy = {"id": "m", "userId": "alice", "to": "bob", "msg": SECRET, "sendTime": 1}
        self.pipe.gets(seq=1, clientMsgId=outgoing.client_msg_id, **copy)
        self.recall_elsewhere(2, "m")
        self.assertEqual(len(self.store.load().outbox), 1)
        self.accept(outgoing.client_msg_id, "m")
        self.assertEqual((self.found(), self.store.load().outbox), (0, []))

    def test_killed(self) -> None:
        """A process that was killed has left its log; the next one empties it."""
        self.say(SECRET)
        left = Path(self.mktemp())
        shutil.copytree(self.folder, left)
        self.assertGreater(self.found(left), 0)
        self.begin(left)
        self.assertEqual(self.found(left), 0)

    def test_rows_that_moved(self) -> None:
        """Texts that SQLite has moved from page to page, among others that are still to be sent."""
        rng = random.Random(1)
        waiting: list[Outgoing] = []
        for number in range(1500):
            if rng.random() < 0.55 or not waiting:
                text = f"<{number:06}>" * rng.choice([1, 3, 10, 40, 400])
                waiting.append(Outgoing(f"c{number}", text, to="bob"))
                self.store.put_outgoing(waiting[-1])
            elif rng.random() < 0.5:
                outgoing = rng.choice(waiting)
                outgoing.id, outgoing.sent_at = "m" * 28, rng.randrange(10**12)
                self.store.put_outgoing(outgoing)
            else:
                outgoing = waiting.pop(rng.randrange(len(waiting)))
                self.store.drop_outgoing(outgoing.client_msg_id)
        self.store.forget()
        content = b"".join(file.read_bytes() for file in self.folder.iterdir()).decode(errors="replace")
        kept = {outgoing.msg[:8] for outgoing in waiting}
        self.assertEqual(set(re.findall(r"<\d{6}>", content)), kept)
        self.assertEqual([each.msg for each in self.store.load().outbox], [each.msg for each in waiting])

    def test_older_file(self) -> None:
        """A version that did not overwrite has left texts in unused pages; opening the file removes them."""
        path = self.folder / "old.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA secure_delete = OFF")
            file.execute("CREATE TABLE outbox (number INTEGER PRIMARY KEY, client_msg_id TEXT, message TEXT)")
            file.execute("INSERT INTO outbox VALUES (1, 'c1', ?)", (LONG,))
            file.execute("DELETE FROM outbox")
        self.assertGreater(self.found(), 0)
        SqliteStore(path).close()
        self.assertEqual(self.found(), 0)

    def test_reader(self) -> None:
        """A program that reads the file holds nobody up; the log is emptied by a write when it has ended."""
        [message_id] = self.say(SECRET)
        reader = sqlite3.connect(self.folder / "a.db", isolation_level=None)
        self.addCleanup(reader.close)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM outbox").fetchall()
        begun = time.monotonic()
        self.recall_here(message_id)
        self.assertLess(time.monotonic() - begun, 4)
        self.assertGreater(self.found(), 0)
        reader.execute("ROLLBACK")
        self.pipe.message(1)
        self.pipe.core.handled("m1")
        self.assertEqual(self.found(), 0)

    def test_others_recalls_cost_nothing(self) -> None:
        """Without a text of one's own since the last time there is nothing to empty."""
        done: list[str] = []
        self.recall_here(self.say(SECRET)[0])
        self.store._file.set_trace_callback(done.append)
        for seq in range(1, 20):
            self.recall_elsewhere(seq, f"m{seq}")
        self.assertEqual([statement for statement in done if "checkpoint" in statement], [])
