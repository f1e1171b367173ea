"""The embedded backend keeps the rules of inboxes, desk and archive."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.trial import unittest

from imd.contracts.archive import Archive, ArchiveQueue, ArchiveRecord, HistoryQuery
from imd.contracts.inbox import (
    NEWCOMER_SECONDS,
    ConnectRequest,
    Duplicate,
    InboxOptions,
    Leave,
    Placed,
    Submission,
)
from imd.protocol.events import Edit, Recall
from imd.protocol.message import IMessage, encode_message
from imd.store.embedded.backend import EmbeddedStore
from imd.store.embedded.write_ahead import EMPTY_SECONDS
from imd.store.shown import kind_of
from tests.contract.accept_contract import AcceptContract
from tests.contract.archive_contract import ArchiveContract
from tests.contract.desk_contract import DeskContract
from tests.contract.device_contract import DeviceContract
from tests.contract.embedded_harness import EmbeddedHarness, SteppedClock
from tests.contract.events_contract import DATA, EventsContract, EventsHarness, Item
from tests.contract.newcomer_contract import VISITOR, NewcomerContract
from tests.contract.opening_contract import OpeningContract
from tests.contract.own_devices_contract import OwnDevicesContract
from tests.contract.support import ids_of, submission_of
from tests.contract.talks_contract import TalksContract
from tests.contract.unanswered_contract import UnansweredContract

DAY_SECONDS = 86_400


class EmbeddedAcceptTests(AcceptContract, EmbeddedHarness):
    """The rules of placing and pulling."""


class EmbeddedDeviceTests(DeviceContract, EmbeddedHarness):
    """The rules of devices."""


class EmbeddedOwnDevicesTests(OwnDevicesContract, EmbeddedHarness):
    """The rules of what one's own other devices get."""


class EmbeddedDeskTests(DeskContract, EmbeddedHarness):
    """The rules of the desk, and what becomes of visitors that say nothing."""

    async def test_silent_visitors_are_no_load(self) -> None:
        """After a day of silence an answered visitor has no agent, and counts no longer as its load."""
        await self.begin()
        await self.agent("anna")
        await self.ask("visitor-1")
        await self.send(self.message("anna", "visitor-1"))
        await self.agent("bert")
        await self.advance(1.5 * DAY_SECONDS)
        self.assertEqual(await self.agents_of("visitor-1"), [""])
        self.assertEqual((await self.ask("visitor-1"))[1].agent, "")
        await self.agent("anna")
        self.assertEqual((await self.ask("visitor-1"))[1].agent, "anna")

    async def test_new_agent_may_read_what_waited(self) -> None:
        """An agent that was given a visitor's messages later took part in them too."""
        await self.begin()
        message, _ = await self.ask("visitor-1")
        await self.agent("anna")
        await self.serve()
        history = await self.store.history(HistoryQuery("anna", None))
        self.assertEqual(history.messages, [encode_message(message)])

    async def test_desk_outlives_the_process(self) -> None:
        """Assignments and what waits are kept; an agent counts as gone since the start."""
        await self.begin(desk_grace_seconds=60)
        await self.agent("anna")
        await self.ask("visitor-1")
        await self.leave("anna")
        await self.advance(61)
        waiting = [(await self.ask(f"visitor-{n}"))[0].id for n in (3, 2, 3)]
        await self.inbox.remember_visitor("visitor-1", "hash")
        await self.begin_again(desk_grace_seconds=60)
        self.assertTrue(await self.inbox.knows_visitor("visitor-1", "hash"))
        self.assertEqual(await self.agents_of("visitor-1", "visitor-2"), ["anna", ""])
        await self.advance(59)
        self.assertEqual(await self.serve(), [])
        self.assertEqual((await self.ask("visitor-1"))[1].agent, "anna")
        await self.agent("bert")
        await self.serve()
        self.assertEqual(ids_of(await self.read("bert")), [waiting[0], waiting[2], waiting[1]])
        await self.advance(2)
        await self.serve()
        self.assertEqual(await self.agents_of("visitor-1", "visitor-2"), ["bert", "bert"])
        self.assertEqual(len((await self.read("bert")).messages), 5)


class EmbeddedUnansweredTests(UnansweredContract, EmbeddedHarness):
    """Unanswered messages."""

    async def settle_down(self) -> None:
        await self.store._sweep_once()


class EmbeddedOpeningTests(OpeningContract, EmbeddedHarness):
    """Inboxes that no device has opened."""

    async def traces_of(self, user: str) -> int:
        with closing(sqlite3.connect(os.path.join(self.folder, "imd.db"))) as file:
            return int(file.execute("SELECT COUNT(*) FROM user WHERE name = ?", (user,)).fetchone()[0])


class EmbeddedNewcomerTests(NewcomerContract, EmbeddedHarness):
    """Visitors that never wrote."""

    async def settle_down(self) -> None:
        await self.store._sweep_once()

    async def traces_of(self, visitor: str) -> int:
        with closing(sqlite3.connect(os.path.join(self.folder, "imd.db"))) as file:
            return sum(
                len(file.execute(f"SELECT 1 FROM {rows} = ?", (visitor,)).fetchall())
                for rows in (
                    *("user WHERE name", "visitor WHERE name", "newcomer WHERE name"),
                    # Devices of nobody are taken for the visitor's.
                    "device d LEFT JOIN user u USING (uid) WHERE COALESCE(u.name, 'visitor-1')",
                )
            )

    async def test_next_life(self) -> None:
        """An hour goes on when the process is another, and a message counts that the last one placed."""
        await self.come()
        await self.inbox.remember_visitor("visitor-2", "hash")
        await self.connect("visitor-2")
        await self.ask("visitor-2")
        await self.advance(1500)
        await self.begin_again()
        self.assertTrue(await self.known())
        await self.begin_again()
        self.assertEqual(await self.pass_by(NEWCOMER_SECONDS + 60), 0)
        self.assertGreater(await self.traces_of("visitor-2"), 0)
        self.assertTrue(await self.inbox.knows_visitor("visitor-2", "hash"))
        await self.send(self.message("anna", VISITOR))
        self.assertEqual((await self.read(VISITOR)).head, 1)


class EmbeddedArchiveTests(ArchiveContract, unittest.TestCase):
    """The rules of the archive: messages go in by `accept`."""

    async def make_archive(self) -> tuple[ArchiveQueue, Archive]:
        self.clock = SteppedClock()
        self.folder = self.mktemp()
        self.store = EmbeddedStore(self.folder, InboxOptions(desk_grace_seconds=1), self.clock)
        self.addCleanup(self.store.stop)
        await self.store.start()
        return self.store, self.store

    async def spoil(self, messages: list[IMessage]) -> None:
        ways = ["", "{}", "[]", '{"id":7}', "{", b"\x00\xff", b'{"id":"1"}', 7, '{"id":"1","to":7}', "null"]
        with closing(sqlite3.connect(os.path.join(self.folder, "imd.db"), timeout=20)) as file:
            for message, way in zip(messages, ways * len(messages), strict=False):
                file.execute("UPDATE message SET body = ? WHERE id = ?", (way, message.id))
            file.commit()

    async def put(self, message: IMessage, agent: str = "") -> None:
        epoch = ""
        if agent:
            request = ConnectRequest(agent, "desk", "channel", answers_visitors=True)
            epoch = (await self.store.connect(request)).page.epoch
        (outcome,) = await self.store.accept([submission_of(message)])
        self.assertIsInstance(outcome, Placed)
        self.assertEqual(outcome.agent, agent)
        await self.store.publish([ArchiveRecord(encode_message(message), agent)])
        if agent:
            seq = outcome.deliveries[-1].seq
            await self.store.leave(Leave(agent, "desk", "channel", epoch, seq, False))
            self.clock.seconds += 2


class _EmbeddedEvents(EventsHarness, unittest.TestCase):
    """Messages and events are archived as they are placed."""

    async def make_archive(self) -> Archive:
        self.folder = self.mktemp()
        self.clock = SteppedClock()
        self.store = EmbeddedStore(self.folder, InboxOptions(), self.clock)
        self.addCleanup(self.store.stop)
        await self.store.start()
        return self.store

    async def put(self, *items: Item) -> None:
        if not any(item.without for item in items):
            await self.place(*items)
            return
        # Each by itself: its blocks must not leave out others' recipients.
        for item in items:
            author = item.content.user_id
            for user in item.without:
                await self.store.blocks.block(user, author, True)
            await self.place(item)
            for user in item.without:
                await self.store.blocks.block(user, author, False)

    async def place(self, *items: Item) -> None:
        agents = {item.agent for item in items} - {""}
        for number, agent in enumerate(sorted(agents)):
            await self.store.connect(
                ConnectRequest(agent, "phone", f"channel-{number}", answers_visitors=True)
            )
        for outcome in await self.store.accept([self.submission(item) for item in items]):
            self.assertIsInstance(outcome, Placed | Duplicate)

    async def put_all(self, batches: Sequence[Sequence[Item]]) -> None:
        await gatherResults([ensureDeferred(self.put(*batch)) for batch in batches])

    def submission(self, item: Item) -> Submission:
        content = item.content
        if isinstance(content, IMessage):
            return submission_of(content)
        recipients: list[str] = []
        if content.room:
            recipients = [name for name in ("alice", "bob") if name != content.user_id]
        elif not content.is_visitor:
            recipients = [content.to] if content.to else list(content.group or ())
        return Submission(
            sender=content.user_id,
            device="phone",
            client_msg_id=content.client_msg_id,
            checksum="-",
            message_id=content.id,
            send_time=content.send_time,
            recipients=recipients,
            body=item.body,
            kind=kind_of(content),
            archived=item.archived,
        )


class EmbeddedEventsTests(_EmbeddedEvents, EventsContract):
    """The rules of events."""

    async def test_recalled_text_leaves_the_files(self) -> None:
        """Short and long texts and those of edits, while others stay: no byte is left in file and log."""
        await self.begin()
        messages, events = [], []
        for number in range(60):
            size = (0, 300, 9000)[number % 3]
            message = self.message("alice", "bob", f"first-{number}-{'x' * size}-first-{number}.")
            messages.append(message)
            if number % 4 == 0:
                # Not longer, so no row has to move.
                events.append(self.of(Edit, message, "alice", msg=f"second-{number}.", data=DATA))
        await self.put(*map(Item, messages))
        await self.put(*events)
        await self.put(*[self.of(Recall, message, "alice") for message in messages[:30]])
        late = self.of(Edit, messages[1], "alice", msg="second-1.")
        await self.put(late)
        self.assertIn(b"first-31.", self.bytes_of_files())
        self.clock.seconds += EMPTY_SECONDS
        await self.store._sweep_once()
        kept = self.bytes_of_files()
        texts = [f"{word}-{number}" for word in ("first", "second") for number in range(30)]
        self.assertEqual([text for text in texts if f"{text}.".encode() in kept], [])
        self.assertIn(b"first-31.", kept)

    async def test_reader_of_the_file(self) -> None:
        """While another program reads, the log stays and nobody waits; then it goes. A start empties it."""
        await self.begin()
        message = self.message("alice", "bob", "a secret")
        await self.put(Item(message))
        with closing(sqlite3.connect(f"{self.folder}/imd.db")) as file:
            file.execute("BEGIN")
            file.execute("SELECT * FROM message").fetchall()
            await self.put(self.of(Recall, message, "alice"))
            await self.store._sweep_once()
            self.assertIn(b"a secret", self.bytes_of_files())
        self.clock.seconds += EMPTY_SECONDS
        await self.store._sweep_once()
        self.assertNotIn(b"a secret", self.bytes_of_files())

    def bytes_of_files(self) -> bytes:
        return b"".join([path.read_bytes() for path in Path(self.folder).iterdir()])

    async def stored_text(self) -> str:
        with closing(sqlite3.connect(f"{self.folder}/imd.db")) as file:
            return "\n".join(file.iterdump())


class EmbeddedTalksTests(_EmbeddedEvents, TalksContract):
    """The rules of the list of conversations."""

    async def put_all(self, batches: Sequence[Sequence[Item]]) -> None:
        # Blocks of one batch would leave out recipients of another.
        for batch in batches:
            await self.put(*batch)
