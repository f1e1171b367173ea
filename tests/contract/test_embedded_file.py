"""The embedded backend's file: faults that it survives, items that fail alone, refusing and forgetting."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

import imd
from imd.contracts.archive import HistoryQuery
from imd.contracts.inbox import ConnectRequest, Duplicate, Failed, Placed, Registered
from imd.protocol.errors import ConfigurationError, Unavailable
from imd.protocol.ids import MessageIds
from imd.protocol.message import decode_message
from imd.store.embedded import worker as embedded_worker
from tests.contract.embedded_harness import EmbeddedHarness
from tests.contract.support import ids_of, numbers_of, submission_of, write_file

DAY_SECONDS = 86_400
ROOT = Path(imd.__file__).resolve().parents[1]


def start_child(folder: str) -> subprocess.Popen[bytes]:
    """A process that accepts without end, and prints the ids of what was answered, a batch a line."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", CHILD, folder], stdout=subprocess.PIPE, env=environment)


class EmbeddedFileTests(EmbeddedHarness):
    """The file and its folder."""

    async def test_modes(self) -> None:
        """The folder, made if missing, and what is in it are their owner's alone."""
        self.folder = os.path.join(self.folder, "deep", "er")
        await self.begin()
        await self.send_many("alice", "bob", 1)
        self.assertEqual(stat.S_IMODE(os.stat(self.folder).st_mode), 0o700)
        for name in ("imd.db", "imd.db-wal", "lock"):
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.folder, name)).st_mode), 0o600, name)

    async def test_lock(self) -> None:
        """A folder in use cannot be used again, until it is let go."""
        await self.begin()
        second = self.new_store()
        error = await self.assertFailure(second.start(), ConfigurationError)
        self.assertIn(self.folder, str(error))
        self.assertIsNotNone(second.problem())
        await self.assertFailure(second.accept([submission_of(self.message("a", "b"))]), Unavailable)
        await second.stop()
        await self.send_many("alice", "bob", 1)
        await self.begin_again()
        await self.send_many("alice", "bob", 1)

    async def test_folders_that_cannot_be_used(self) -> None:
        """Something else in the folder's or the file's place, or a newer format, stops the start."""
        write_file(self.folder, b"a file")
        await self.assertFailure(self.new_store().start(), ConfigurationError)
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        path = os.path.join(self.folder, "imd.db")
        write_file(path, b"this is no database, however long one looks at it" * 100)
        await self.assertFailure(self.new_store().start(), ConfigurationError)
        os.unlink(path)
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        error = await self.assertFailure(self.new_store().start(), ConfigurationError)
        self.assertIn("99", str(error))

    async def test_start_and_stop_for_each_role(self) -> None:
        """One object is inbox, queue and archive: starting and stopping it for each is no harm."""
        store = self.new_store()
        self.assertIsNotNone(store.problem())
        await gatherResults([store.start(), store.start()])
        await store.start()
        self.assertIsNone(store.problem())
        await gatherResults([store.stop(), store.stop()])
        await store.stop()
        self.assertIsNotNone(store.problem())
        await self.assertFailure(store.pull("bob", "", 0, 1), Unavailable)

    async def test_stop_before_start(self) -> None:
        """A store that was never started may be stopped."""
        store = self.new_store()
        await store.stop()
        self.assertIsNotNone(store.problem())

    async def test_stop_finishes_what_waits(self) -> None:
        """Everything that was asked for before the stop is answered."""
        await self.begin()
        calls = [self.inbox.accept([submission_of(self.message("alice", "bob"))]) for _ in range(200)]
        await self.store.stop()
        self.assertEqual([call.called for call in calls], [True] * 200)
        await self.begin()
        self.assertEqual((await self.read("bob")).head, 200)

    async def test_restart(self) -> None:
        """Epoch, numbers, cursors, attempts and clientMsgIds are kept; channels are gone."""
        await self.begin()
        first = self.message("alice", "bob", client_msg_id="c-1")
        await self.send(first)
        await self.send_many("alice", "bob", 4)
        epoch = (await self.connect("bob", "phone", attempt=7)).page.epoch
        await self.ack("bob", 2)
        await self.connect("bob", "tablet")
        await self.begin_again()
        self.assertEqual(await self.channels_told("bob"), [])
        page = await self.read("bob")
        self.assertEqual((page.epoch, page.head, numbers_of(page)), (epoch, 6, [3, 4, 5, 6]))
        again = self.message("alice", "bob", client_msg_id="c-1")
        self.assertEqual(await self.send(again), [Duplicate(first.id, first.send_time)])
        outcome = await self.connect("bob", "phone")
        self.assertEqual((outcome.seq, outcome.recovered), (2, True))
        (outcome,) = await self.send(self.message("alice", "carol"))
        self.assertNotEqual(outcome.deliveries[0].epoch, epoch)

    async def test_file_of_the_first_format(self) -> None:
        """A visitor's agent and its questions are found: those since the agent's last message to it."""
        await self.begin(desk_grace_seconds=1, unopened_messages=2)
        await self.agent("anna")
        await self.send_many("alice", "bob", 1)
        for text in ("one", "two", "three"):
            await self.ask("visitor-1", text)
            if text == "one":
                await self.send(self.message("anna", "visitor-1"), self.message("carol", "visitor-1"))
        await self.ask("visitor-2")
        await self.send(self.message("anna", "visitor-2"))
        await self.leave("anna", seq=4)
        waiting, _ = await self.ask("visitor-1", "four")
        await self.store.stop()
        with closing(sqlite3.connect(os.path.join(self.folder, "imd.db"))) as file:
            first = "'user', 'device', 'message', 'participant', 'inbox', 'waiting', 'sent', 'visitor'"
            later = file.execute(
                f"SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ({first})"
            ).fetchall()
            file.executescript("".join(f"DROP TABLE {name};" for (name,) in later))
            file.executescript(
                "ALTER TABLE user DROP COLUMN owed; "
                "ALTER TABLE user DROP COLUMN opened; ALTER TABLE device DROP COLUMN sync; "
                "PRAGMA user_version = 1"
            )
        await self.begin(desk_grace_seconds=1, unopened_messages=2)
        await self.advance(2.5)
        await self.serve()
        await self.agent("bert")
        await self.serve()
        texts = [decode_message(body).msg for _, body in (await self.read("bert")).messages]
        self.assertEqual(texts, ["two", "three", "four"])
        self.assertEqual(ids_of(await self.read("bert"))[-1], waiting.id)
        # Inboxes from then count as opened.
        await self.send_many("alice", "bob", 2)
        outcome = await self.connect("bob")
        self.assertEqual((outcome.seq, outcome.recovered, outcome.page.head), (0, True, 3))
        await self.begin_again()
        self.assertEqual((await self.read("bert")).head, 3)

    async def test_kill(self) -> None:
        """kill -9 in the middle of accepting: whatever was answered is there, numbered without holes."""
        child = start_child(self.folder)
        assert child.stdout is not None
        answered: list[str] = []
        try:
            for _ in range(40):
                line = await deferToThread(child.stdout.readline)
                answered += line.decode().split()
        finally:
            os.kill(child.pid, signal.SIGKILL)
            rest = await deferToThread(child.stdout.read)
            child.wait()
            child.stdout.close()
        # A line may have been cut short by the kill.
        answered += rest.decode().rpartition("\n")[0].split()
        self.assertGreater(len(answered), 1000)

        await self.begin(max_messages=10**9, unopened_messages=10**9)
        page = await self.read("bob", limit=1)
        kept: list[str] = []
        while len(kept) < page.head:
            found = await self.read("bob", after=len(kept), limit=1000)
            self.assertEqual(
                numbers_of(found), list(range(len(kept) + 1, len(kept) + len(found.messages) + 1))
            )
            kept += ids_of(found)
        self.assertEqual(kept[: len(answered)], answered)
        archived: list[str] = []
        before = None
        while True:
            history = await self.store.history(HistoryQuery("bob", None, before=before, limit=200))
            archived = [decode_message(body).id for body in history.messages] + archived
            if not history.more:
                break
            before = archived[0]
        self.assertEqual(archived, kept)


CHILD = """
import itertools, sys
from twisted.internet import defer, reactor, task
from imd.store.embedded.backend import EmbeddedStore
from imd.protocol.ids import MessageIds, ServerClock
from imd.contracts.inbox import InboxOptions, Placed, Submission
from imd.protocol.message import IMessage, encode_message

clock = ServerClock()
ids = MessageIds(clock)
store = EmbeddedStore(sys.argv[1], InboxOptions(max_messages=10**9, unopened_messages=10**9), clock)

def submission():
    message_id, at = ids.next()
    message = IMessage(id=message_id, user_id="alice", from_user_type="USER_TYPE", to="bob", msg="hi")
    body = encode_message(message)
    return Submission("alice", "phone", message_id, "content", message_id, at, ["bob"], body)

async def main():
    await store.start()
    batches = [[submission() for _ in range(30)] for _ in range(2)]
    calls = [store.accept(batch) for batch in batches]
    while True:
        batch, outcomes = batches.pop(0), await calls.pop(0)
        assert all(type(outcome) is Placed for outcome in outcomes), outcomes
        print(*[s.message_id for s in batch], flush=True)
        batches.append([submission() for _ in range(30)])
        calls.append(store.accept(batches[-1]))

task.react(lambda reactor: defer.Deferred.fromCoroutine(main()))
"""


class EmbeddedFailureTests(EmbeddedHarness):
    """One bad item fails alone; too many items are refused."""

    async def in_one_group(self, *calls: Any) -> list[Any]:
        """Ask for all this while the thread is busy, so that one transaction does it."""
        busy = threading.Event()
        first = self.store._do(None, lambda: busy.wait(180))
        asked = [call() for call in calls]
        busy.set()
        await first
        return [await answer for answer in asked]

    async def test_bad_message(self) -> None:
        """A message that cannot be kept fails alone, whatever else its batch and transaction hold."""
        await self.begin()
        good = [self.message("alice", "bob", str(n)) for n in range(4)]
        no_message = submission_of(self.message("alice", "bob"))
        no_message.body = b"no JSON"
        to_nobody = submission_of(self.message("alice", "bob"))
        to_nobody.recipients = []
        unstorable = submission_of(self.message("alice", "bob"))
        unstorable.recipients = ["bob", "lone \ud800 surrogate"]
        one, other, connected = await self.in_one_group(
            lambda: self.inbox.accept(
                [submission_of(good[0]), no_message, unstorable, to_nobody, submission_of(good[1])]
            ),
            lambda: self.inbox.accept([submission_of(good[2]), submission_of(good[3])]),
            lambda: self.inbox.connect(ConnectRequest("bob", "phone", "one")),
        )
        self.assertEqual([type(o) for o in one], [Placed, Failed, Failed, Failed, Placed])
        self.assertEqual([type(o) for o in other], [Placed, Placed])
        self.assertEqual(ids_of(await self.read("bob")), [message.id for message in good])
        self.assertIsInstance(connected, Registered)
        self.assertEqual(await self.channels_told("bob"), ["one"])
        self.assertEqual(len(self.flushLoggedErrors(UnicodeEncodeError)), 1)

    async def test_message_that_sqlite_refuses(self) -> None:
        """The same when SQLite itself will not have a row: nothing is left of that message."""
        await self.begin()
        await self.store._do(
            None,
            lambda: self.store._state.connection.execute(
                "CREATE TRIGGER poison BEFORE INSERT ON inbox WHEN NEW.size > 5000 "
                "BEGIN SELECT RAISE(ABORT, 'poison'); END"
            ),
        )
        await self.connect("carol", channel="carol's")
        bad = self.message("alice", msg="x" * 5000, group=["bob", "carol"], client_msg_id="c-1")
        good = [self.message("alice", "bob") for _ in range(3)]
        outcomes = await self.send(good[0], bad, good[1], bad, good[2])
        self.assertEqual([type(o) for o in outcomes], [Placed, Failed, Placed, Failed, Placed])
        self.assertEqual(numbers_of(await self.read("bob")), [1, 2, 3])
        self.assertEqual((await self.read("carol")).head, 0)
        self.assertEqual((await self.store.history(HistoryQuery("carol", None))).messages, [])
        self.assertEqual(await self.channels_told("carol"), ["carol's"])
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.IntegrityError)), 1, "one for all of a kind")

    async def test_operation_that_fails(self) -> None:
        """An operation that cannot be done is Unavailable, and others of its transaction are done."""
        await self.begin()
        bad, good = await self.in_one_group(
            lambda: self.assertFailure(
                self.inbox.connect(ConnectRequest("\ud800", "phone", "one")), Unavailable
            ),
            lambda: self.inbox.connect(ConnectRequest("bob", "phone", "two")),
        )
        self.assertIsInstance(bad, Unavailable)
        self.assertIsInstance(good, Registered)
        self.assertEqual(len(self.flushLoggedErrors(UnicodeEncodeError)), 1)

    async def test_full_disk(self) -> None:
        """Without room everything new is Unavailable and leaves nothing; with room again all goes on."""
        await self.begin()
        await self.send_many("alice", "bob", 3)
        connection = self.store._state.connection

        def limit(pages: int) -> Any:
            return self.store._do(
                None, lambda: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
            )

        await limit(1)  # which SQLite takes as what it has already
        big = [submission_of(self.message("alice", "bob", "x" * 50_000)) for _ in range(20)]
        await self.assertFailure(self.inbox.accept(big), Unavailable)
        failures = await self.in_one_group(
            lambda: self.assertFailure(self.inbox.accept(big), Unavailable),
            lambda: self.assertFailure(
                self.inbox.connect(ConnectRequest("bob", "phone", "lost")), Unavailable
            ),
        )
        self.assertEqual([type(failure) for failure in failures], [Unavailable, Unavailable])
        await limit(1_000_000)
        self.assertEqual(await self.channels_told("bob"), [])
        self.assertEqual(numbers_of(await self.read("bob")), [1, 2, 3, 4])
        outcomes = await self.inbox.accept(big)
        self.assertEqual([o.deliveries[0].seq for o in outcomes], list(range(5, 25)))

    async def test_full_queue(self) -> None:
        """Past its bound the queue refuses at once; what is in it is done."""
        # Twenty thousand messages may take longer on a busy machine.
        self.patch(embedded_worker, "ANSWER_SECONDS", 600.0)
        await self.begin()
        busy = threading.Event()
        self.addCleanup(busy.set)
        first = self.store._do(None, lambda: busy.wait(180))
        batch = [submission_of(self.message("alice", "bob")) for _ in range(1000)]
        waiting = [self.inbox.accept(batch) for _ in range(20)]
        refused = self.inbox.accept(batch)
        self.assertTrue(refused.called)
        self.assertIn("queue is full", str(await self.assertFailure(refused, Unavailable)))
        await self.assertFailure(self.inbox.pull("bob", "", 0, 1), Unavailable)
        self.assertIsNone(self.store.problem())
        busy.set()
        await first
        outcomes = [outcome for answers in waiting for outcome in await answers]
        self.assertEqual([o.deliveries[0].seq for o in outcomes], list(range(1, 20_001)))

    async def test_disk_that_does_not_answer(self) -> None:
        """Calls that wait for too long fail, and so do later ones; the store goes on when the disk does."""
        self.patch(embedded_worker, "ANSWER_SECONDS", 0.5)
        await self.begin()
        stuck = threading.Event()
        self.addCleanup(stuck.set)
        hung = self.store._do(None, lambda: stuck.wait(20))
        waiting = self.inbox.pull("bob", "", 0, 1)
        await self.assertFailure(hung, Unavailable)
        await self.assertFailure(waiting, Unavailable)
        self.assertIn("disk", self.store.problem() or "")
        late = self.inbox.pull("bob", "", 0, 1)
        self.assertTrue(late.called)
        await self.assertFailure(late, Unavailable)
        stuck.set()
        self.patch(embedded_worker, "ANSWER_SECONDS", 20.0)

        async def usable() -> bool:
            return self.store.problem() is None

        await self.until(usable)
        self.assertEqual((await self.read("bob")).head, 0)


class EmbeddedSweepTests(EmbeddedHarness):
    """Old rows are deleted, a few at a time."""

    def rows(self, table: str) -> int:
        """How many there are, seen from outside."""
        connection = sqlite3.connect(f"file:{self.folder}/imd.db?mode=ro", uri=True)
        try:
            return int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
        finally:
            connection.close()

    async def test_old_messages_leave_inboxes(self) -> None:
        """A message is in an inbox for keep_days at most, then in the archive alone; numbers go on."""
        await self.begin(keep_days=1)
        self.ids = MessageIds(self.clock)
        old = await self.send_many("alice", "bob", 3)
        await self.advance(0.9 * DAY_SECONDS)
        await self.send_many("alice", "bob", 2)
        await self.advance(0.2 * DAY_SECONDS)

        async def swept() -> bool:
            return self.rows("inbox") == 2

        await self.until(swept)
        page = await self.read("bob")
        self.assertEqual((page.head, numbers_of(page)), (5, [4, 5]))
        self.assertEqual((await self.connect("bob")).seq, 3)
        history = await self.store.history(HistoryQuery("bob", None))
        self.assertEqual([decode_message(body).id for body in history.messages][:3], [m.id for m in old])

    async def test_forgotten_rows_go(self) -> None:
        """clientMsgIds, tokens and cursors whose time is over take no room."""
        await self.begin(dedup_seconds=60, visitor_days=1, keep_days=1)
        await self.send(*[self.message("alice", "bob", client_msg_id=f"c-{n}") for n in range(300)])
        await self.inbox.remember_visitor("visitor-1", "hash")
        await self.visit("bob", "phone", 0)
        tables = ("sent", "newcomer", "device")
        self.assertEqual([self.rows(table) for table in tables], [300, 1, 1])
        await self.advance(2 * DAY_SECONDS)

        async def swept() -> bool:
            return [self.rows(table) for table in tables] == [0, 0, 0]

        await self.until(swept)
