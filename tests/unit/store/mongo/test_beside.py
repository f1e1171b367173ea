"""Rooms, states, blocks and the ledger go on beside any index that an operator has made."""

from __future__ import annotations

from typing import Any

import pymongo
from msgspec.structs import replace
from pymongo.errors import DuplicateKeyError
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.trial import unittest

from imd.command import look_mongo
from imd.command.findings import Finding, Level
from imd.config.settings import Mongodb
from imd.contracts.room_rules import Stamp, made_by
from imd.contracts.rooms import Action
from imd.contracts.state import Changes, Mark
from imd.contracts.state_rules import pair_id
from imd.protocol.errors import Unavailable
from imd.protocol.selector import Selector
from imd.store import state as cluster_state
from imd.store.mongo import archive as mongo_archive
from imd.store.mongo import rooms as mongo_rooms
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.blocks import Attempt, BlockDocuments
from imd.store.mongo.rooms import Known, Made, RoomDocuments
from imd.store.state import ClusterStates
from tests.support.rabbit import until
from tests.support.rooms import action
from tests.support.servers import shared

HIDDEN_SPARSE = {"hidden": True, "sparse": True}
OF_VISITORS = {"partialFilterExpression": {"exp": {"$exists": True}}}


def make(rooms: RoomDocuments, wanted: Action) -> Any:
    return rooms.attempt(wanted, Stamp(f"{wanted.room}-made", 1000), 100, 3_600_000, True)


class BesideTests(unittest.TestCase):
    timeout = 300

    def setUp(self) -> None:
        # Tries to make indexes follow each other closely; a slow ping is no problem here.
        for name, seconds in (("INDEX_SECONDS", 0.0), ("PING_SECONDS", 0.05), ("SELECTION_SECONDS", 60.0)):
            self.patch(mongo_archive, name, seconds)
        self.patch(cluster_state, "ANSWER_SECONDS", 60.0)
        self.url = shared().mongo_url()
        self.client: Any = pymongo.MongoClient(self.url)
        self.addCleanup(self.client.close)
        self.database = self.client.get_default_database()

    async def node(self) -> MongoArchive:
        """A node's archive, after its tries to make the indexes. `said` is what the log has about them."""
        archive = MongoArchive(reactor, self.url, timeout_seconds=60)
        self.addCleanup(archive.stop)
        tries, made = [], archive._have_indexes

        def count(troubles: list[str]) -> None:
            tries.append(troubles)
            made(troubles)

        self.patch(archive, "_have_indexes", count)
        with capturedLogs() as captured:
            await archive.start()
            await until(lambda: archive._indexed or len(tries) >= 3, "indexes are made, or tried again")
        self.said = [formatEvent(event) for event in captured if "an index" in event.get("log_format", "")]
        return archive

    async def doctor(self, *levels: Level) -> list[Finding]:
        """Findings about indexes, of these levels."""
        found = await deferToThread(lambda: list(look_mongo.look(Mongodb(url=self.url), 60)))
        return [
            one for one in found if one.level in levels and ("index" in one.what or "im_room" in one.what)
        ]

    async def nothing_to_say(self) -> None:
        """Neither the log nor the doctor complain."""
        self.assertEqual(self.said, [])
        self.assertEqual(await self.doctor(Level.WARNING, Level.PROBLEM), [])

    async def named(self, *words: str, level: Level = Level.WARNING) -> Finding:
        """One line of the log, and one finding of the doctor, which have these words in them."""
        [line] = self.said
        found: list[Finding] = []
        while not found:
            # MongoDB lists an index also while a try to make it is under way.
            found = await self.doctor(Level.WARNING, Level.PROBLEM)
        [finding] = found
        for word in words:
            self.assertIn(word, line)
            self.assertIn(word, finding.what)
        self.assertIs(finding.level, level)
        return finding

    def names(self, collection: str, field: str) -> set[str]:
        """The indexes whose first key this is."""
        information = self.database[collection].index_information()
        return {name for name, found in information.items() if found["key"][0][0] == field}

    # rooms

    def check_rooms(self) -> RoomDocuments:
        """A room is made once, and changed."""
        rooms = RoomDocuments(self.database)
        wanted = action("olga", "create", "r-1", ["mary"], name="Weekend")
        self.assertIsInstance(make(rooms, wanted), Made)
        again = make(rooms, replace(wanted, room="r-2"))
        self.assertIsInstance(again, Known)
        self.assertEqual(again.document.room.id, "r-1")
        self.assertIsInstance(make(rooms, action("olga", "set", "r-1", name="Sunday")), Made)
        self.assertEqual(self.database["im_room"].count_documents({}), 1)
        return rooms

    async def test_rooms_under_other_names(self) -> None:
        """Equal indexes serve under any name."""
        rooms = self.database["im_room"]
        rooms.create_index("madeBy", unique=True, name="mine")
        rooms.create_index([("members.u", 1), ("_id", 1)], name="by_member")
        rooms.create_index("outbox.at", name="full")
        self.check_rooms()
        await self.node()
        self.assertEqual(set(rooms.index_information()), {"_id_", "mine", "by_member", "full"})
        await self.nothing_to_say()

    async def test_rooms_with_taken_names(self) -> None:
        """Beside an index that is not unique, sparse or of the same keys imd makes its own."""
        rooms = self.database["im_room"]
        rooms.create_index("madeBy", name="madeBy_1")
        rooms.create_index("name", name="outbox.at_1")
        self.check_rooms()
        with self.assertRaises(DuplicateKeyError):
            rooms.insert_one({"madeBy": rooms.find_one()["madeBy"]})
        await self.node()
        self.assertEqual(len(self.names("im_room", "madeBy")), 2)
        self.assertEqual(len(self.names("im_room", "outbox.at")), 1)
        await self.nothing_to_say()

    async def test_rooms_beside_a_conflict(self) -> None:
        """Rooms are made and changed; the other indexes are made; the conflict is named, until it is over."""
        rooms = self.database["im_room"]
        rooms.create_index([("members.u", 1), ("_id", 1)], name="aside", hidden=True)
        self.check_rooms()
        archive = await self.node()
        self.assertEqual(len(self.names("im_room", "outbox.at")), 1)
        finding = await self.named("im_room (members.u, _id): the index aside has the same keys, but hidden")
        self.assertIn("Drop", finding.advice)
        rooms.drop_index("aside")
        await until(lambda: archive._indexed, "it is made")
        self.assertEqual(await self.doctor(Level.WARNING, Level.PROBLEM), [])

    async def test_hidden_but_unique(self) -> None:
        """An index that is only slow keeps one room one room: rooms are made, and it is named."""
        self.database["im_room"].create_index("madeBy", unique=True, hidden=True, name="aside")
        self.check_rooms()
        await self.node()
        await self.named("im_room (madeBy): the index aside has the same keys, but hidden", "is slow")

    async def test_rooms_that_may_be_made_twice(self) -> None:
        """Without a unique index new rooms are refused; all else goes on, and again when it can be made."""
        rooms = RoomDocuments(self.database)
        first = action("olga", "create", "r-1", ["mary"], name="Weekend")
        self.assertIsInstance(make(rooms, first), Made)
        collection = self.database["im_room"]
        for name in self.names("im_room", "madeBy"):
            collection.drop_index(name)
        collection.insert_one({**collection.find_one(), "_id": "r-0"})
        rooms = RoomDocuments(self.database)
        new = action("olga", "create", "r-3", ["mary"], name="Weekend")
        refused = self.assertRaises(Unavailable, make, rooms, new)
        self.assertIn("im_room (madeBy): documents have the same value", str(refused))
        self.assertIsInstance(make(rooms, first), Known)
        self.assertIsInstance(make(rooms, action("olga", "set", "r-1", name="Sunday")), Made)
        self.assertEqual([room.room for room in rooms.rooms_of("olga", "r-0", 10)], ["r-1"])
        self.patch(mongo_rooms, "TRY_SECONDS", 0.0)
        archive = await self.node()
        self.assertIsNone(archive.problem())
        await self.named("im_room (madeBy): ", "no room can be created", level=Level.PROBLEM)
        collection.delete_one({"_id": "r-0"})
        self.assertIsInstance(make(rooms, new), Made)
        self.assertEqual(await self.doctor(Level.WARNING, Level.PROBLEM), [])

    async def test_seldom_tried(self) -> None:
        """Creates that are refused do not have MongoDB build an index each time."""
        collection = self.database["im_room"]
        collection.insert_many([{"_id": room, "madeBy": "x"} for room in ("r-1", "r-2")])
        rooms = RoomDocuments(self.database)
        wanted = action("olga", "create", "r-3", ["mary"], name="Weekend")
        self.assertNotEqual(made_by(wanted), "x")
        self.assertRaises(Unavailable, make, rooms, wanted)
        collection.delete_many({})
        self.assertRaises(Unavailable, make, rooms, wanted)
        self.patch(mongo_rooms, "TRY_SECONDS", 0.0)
        self.assertIsInstance(make(rooms, wanted), Made)

    # states

    async def check_states(self, archive: MongoArchive) -> None:
        """Marks are set and read."""
        states = ClusterStates(reactor, archive, 30)
        self.addCleanup(states.stop)
        await states.start()
        mark = Mark(pair_id("alice", "bob"), Selector(with_="bob"), f"{1:028x}", "bob")
        self.assertIsInstance(await states.change("alice", [mark], None, None), Changes)
        self.assertEqual(await states.versions(["alice", "bob"]), {"alice": 1, "bob": 1})

    async def test_states_under_other_names(self) -> None:
        states = self.database["im_state"]
        hiding = {"partialFilterExpression": {"receipts": {"$eq": False}}}
        states.create_index([("receipts", 1), ("_id", 1)], name="hiding", **hiding)
        states.create_index("exp", name="ends", expireAfterSeconds=0)
        self.database["im_mark"].create_index("exp", name="ends", expireAfterSeconds=0, **OF_VISITORS)
        await self.check_states(await self.node())
        self.assertEqual(set(states.index_information()), {"_id_", "hiding", "ends"})
        self.assertEqual(set(self.database["im_mark"].index_information()), {"_id_", "ends"})
        await self.nothing_to_say()

    async def test_states_beside_others(self) -> None:
        """An index with another filter does not serve, nor one without an end; both do no harm."""
        states = self.database["im_state"]
        states.create_index("exp", name="exp_1")
        other = {"partialFilterExpression": {"receipts": 0}}
        states.create_index([("receipts", 1), ("_id", 1)], name="receipts_1__id_1", **other)
        await self.check_states(await self.node())
        self.assertEqual(len(self.names("im_state", "exp")), 2)
        self.assertEqual(len(self.names("im_state", "receipts")), 2)
        await self.nothing_to_say()

    async def test_states_beside_a_conflict(self) -> None:
        """Another end, or none, of the same documents: it is named, and states go on."""
        self.database["im_mark"].create_index("exp", name="exp_1", expireAfterSeconds=9, **OF_VISITORS)
        await self.check_states(await self.node())
        self.assertEqual(len(self.names("im_state", "exp")), 1)
        await self.named("im_mark (exp): the index exp_1 has the same keys, but expireAfterSeconds = 9")

    async def test_states_that_never_end(self) -> None:
        self.database["im_state"].create_index("exp", name="aside", **OF_VISITORS)
        await self.check_states(await self.node())
        self.assertEqual(len(self.names("im_mark", "exp")), 1)
        await self.named("im_state (exp): the index aside has the same keys, but no expireAfterSeconds")

    # blocks

    async def test_blocks(self) -> None:
        """A user's first block is written, whatever the index is."""
        lists = self.database["im_block"]
        for name, options in (("mine", {"sparse": True}), ("full", {}), ("aside", HIDDEN_SPARSE)):
            lists.drop()
            lists.create_index("owed", name=name, **options)
            attempt = BlockDocuments(self.database).attempt("alice", "eve", True, 1000)
            self.assertIsInstance(attempt, Attempt, name)
            self.assertEqual(BlockDocuments(self.database).owed(2000), ["alice"])
            await self.node()
            self.assertEqual(self.names("im_block", "owed"), {name})
            if name != "aside":
                await self.nothing_to_say()
        await self.named("im_block (owed): the index aside has the same keys, but hidden")

    # the ledger

    async def test_ledger(self) -> None:
        """Closed blocks end by an index of any name; one with another end is named."""
        ledger = self.database["im_archive_ledger"]
        ledger.create_index("expires", name="mine", expireAfterSeconds=0)
        await self.node()
        self.assertEqual(self.names("im_archive_ledger", "expires"), {"mine"})
        await self.nothing_to_say()
        ledger.drop()
        ledger.create_index("expires", name="aside")
        await self.node()
        await self.named(
            "im_archive_ledger (expires): the index aside has the same keys, but no expireAfterSeconds"
        )

    # all

    async def test_several(self) -> None:
        """Each collection's indexes are made for themselves, and conflicts of equal fields are told apart."""
        keys = [("conversation", 1), ("_id", 1)]
        self.database["im_event"].create_index(keys, name="aside", hidden=True)
        self.database["im_reaction"].create_index("_id.of", name="aside", hidden=True)
        await self.node()
        self.assertEqual(len(self.said), 2, self.said)
        found = await self.doctor(Level.WARNING, Level.PROBLEM)
        self.assertEqual(
            [finding.what.partition(":")[0] for finding in found],
            ["no index of im_event (conversation, _id)", "no index of im_reaction (_id.of)"],
        )
        self.assertEqual(len(self.names("im_message", "conversation")), 1)

    async def test_collection_that_cannot_be_asked(self) -> None:
        """Its indexes are named, and all others are made."""
        self.database.command("create", "im_event", viewOn="im_message", pipeline=[])
        await self.node()
        self.assertEqual(len(self.said), 1, self.said)
        self.assertIn("im_event: code 166", self.said[0])
        self.assertEqual(len(self.names("im_archive_ledger", "expires")), 1)
