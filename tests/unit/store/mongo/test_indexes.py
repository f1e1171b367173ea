"""The indexes of history, beside what an operator has made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pymongo
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.trial import unittest

from imd.command import look_mongo
from imd.command.findings import Finding, Level
from imd.config.settings import Mongodb
from imd.store.mongo import archive as mongo_archive
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.indexes import (
    INDEXES,
    LEDGER_INDEXES,
    MADE_BY,
    ROOM_INDEXES,
    STATE_INDEXES,
    conflict,
    is_kept_unique,
    make_indexes,
    missing_indexes,
    serving,
)
from tests.support.rabbit import own_mongo, until
from tests.support.servers import MongoServer, shared


class ServingTests(unittest.TestCase):
    def test_equal(self) -> None:
        """The same keys serve under any name, unique or not; a full index serves for a partial one."""
        user, *_, participants = INDEXES
        keys = list(participants.keys)
        for index, found in (
            (user, {"v": 2, "key": user.keys}),
            (user, {"key": user.keys, "unique": True, "hidden": False}),
            (participants, {"key": keys}),
            (participants, {"key": keys, "partialFilterExpression": {"covers": {"$exists": True}}}),
        ):
            self.assertEqual(serving(index, {"mine": found}), "mine", found)

    def test_other(self) -> None:
        """Other keys, another order, a filter or a collation do not serve."""
        user, *_, participants = INDEXES
        for index, found in (
            (user, {"key": [("_id", 1), ("userId", 1)]}),
            (user, {"key": [("userId", -1), ("_id", 1)]}),
            (user, {"key": user.keys, "sparse": True}),
            (user, {"key": user.keys, "hidden": True}),
            (user, {"key": user.keys, "collation": {"locale": "en"}}),
            (user, {"key": user.keys, "partialFilterExpression": {"covers": {"$exists": True}}}),
            (participants, {"key": participants.keys, "partialFilterExpression": {"msg": "x"}}),
        ):
            self.assertIsNone(serving(index, {"mine": found}), found)

    def test_promises(self) -> None:
        """An index that has to be unique, or to end documents, is served by one that does the same."""
        hiding, ends = STATE_INDEXES
        *_, outbox = ROOM_INDEXES
        [closed] = LEDGER_INDEXES
        exp = {"partialFilterExpression": {"exp": {"$exists": True}}}
        for index, options, serves in (
            (MADE_BY, {"unique": True}, True),
            (MADE_BY, {}, False),
            (MADE_BY, {"unique": True, "sparse": True}, False),
            (outbox, {"sparse": True}, True),
            (outbox, {}, True),
            (outbox, {"sparse": True, "hidden": True}, False),
            (outbox, {"sparse": True, "expireAfterSeconds": 0}, False),
            (closed, {"expireAfterSeconds": 0}, True),
            (closed, {"expireAfterSeconds": 1}, False),
            (closed, {}, False),
            (ends, {"expireAfterSeconds": 0, **exp}, True),
            (ends, {"expireAfterSeconds": 0}, True),
            (ends, exp, False),
            (hiding, {}, True),
            (hiding, {"partialFilterExpression": {"receipts": False}}, True),
            (hiding, {"partialFilterExpression": {"receipts": {"$eq": False}}}, True),
            (hiding, {"partialFilterExpression": {"receipts": 0}}, False),
            (hiding, {"partialFilterExpression": {"receipts": {"$exists": True}}}, False),
        ):
            found = {"mine": {"key": index.keys, **options}}
            self.assertEqual(serving(index, found), "mine" if serves else None, (index, options))

    def test_kept_unique(self) -> None:
        """By any unique index of all that have the field that does not serve. Where one would serve and could
        not be made, it is listed because it is being built.
        """
        part = {"partialFilterExpression": {"name": "x"}}
        for options, kept in (
            ({"unique": True}, False),
            ({"unique": True, "hidden": True}, True),
            ({"unique": True, "sparse": True, "hidden": True, "expireAfterSeconds": 1}, True),
            ({}, False),
            ({"unique": True, **part}, False),
        ):
            self.assertEqual(is_kept_unique(MADE_BY, {"mine": {"key": MADE_BY.keys, **options}}), kept)
        self.assertFalse(is_kept_unique(MADE_BY, {"mine": {"key": [("name", 1)], "unique": True}}))

    def test_beside(self) -> None:
        """Indexes of the same keys can be beside each other if their kinds differ; not before MongoDB 5.0."""
        found: dict[str, dict[str, Any]] = {"mine": {"key": MADE_BY.keys}}
        self.assertIsNone(conflict(MADE_BY, found))
        self.assertIn("mine has the same keys, but not unique", conflict(MADE_BY, found, alone=True) or "")
        found["mine"]["collation"] = {"locale": "en"}
        self.assertIsNone(conflict(MADE_BY, {"mine": {**found["mine"], "unique": True}}))
        del found["mine"]["collation"]
        hidden = {"mine": {**found["mine"], "unique": True, "hidden": True}}
        self.assertIn("mine has the same keys, but hidden", conflict(MADE_BY, hidden) or "")


class MakeIndexesTests(unittest.TestCase):
    timeout = 300

    def setUp(self) -> None:
        self.url = shared().mongo_url()
        self.client: Any = pymongo.MongoClient(self.url)
        self.addCleanup(self.client.close)
        self.collection = self.client.get_default_database()["im_message"]

    async def doctor(self) -> list[Finding]:
        findings: list[Finding] = await deferToThread(
            lambda: list(look_mongo.look(Mongodb(url=self.url), 10))
        )
        return [finding for finding in findings if "index" in finding.what]

    def test_another_name(self) -> None:
        """An equal index serves under any name; all the others are made."""
        self.collection.create_index([("userId", 1), ("_id", 1)], name="by_sender")
        self.assertEqual(make_indexes(self.collection), [])
        information = self.collection.index_information()
        self.assertEqual(missing_indexes(information), [])
        self.assertEqual(len(information), 5)
        self.assertEqual(make_indexes(self.collection), [])

    def test_taken_name(self) -> None:
        """If an index of other keys has the name, ours gets another name."""
        self.collection.create_index([("msg", 1)], name="to_1__id_1")
        self.collection.create_index([("userId", 1), ("_id", 1)], sparse=True)
        self.assertEqual(make_indexes(self.collection), [])
        self.assertEqual(missing_indexes(self.collection.index_information()), [])

    async def test_conflict(self) -> None:
        """An index that cannot be made is named once in the log, and by the doctor; all others are made."""
        self.patch(mongo_archive, "INDEX_SECONDS", 0.0)
        self.patch(mongo_archive, "PING_SECONDS", 0.05)
        # A slow ping is no problem here.
        self.patch(mongo_archive, "SELECTION_SECONDS", 60.0)
        self.collection.create_index([("to", 1), ("_id", 1)], name="aside", hidden=True)
        archive = MongoArchive(reactor, self.url)
        self.addCleanup(archive.stop)
        tries = 0
        made = archive._have_indexes

        def count(troubles: list[str]) -> None:
            nonlocal tries
            tries += 1
            made(troubles)

        self.patch(archive, "_have_indexes", count)
        with capturedLogs() as captured:
            await archive.start()
            await until(lambda: tries >= 3, "it tries again")
        said = [formatEvent(event) for event in captured if "an index" in event.get("log_format", "")]
        self.assertEqual(len(said), 1, said)
        self.assertIn("(to, _id): the index aside has the same keys, but hidden", said[0])
        information = self.collection.index_information()
        [missing] = missing_indexes(information)
        self.assertEqual((missing.fields, archive.problem()), ("to, _id", None))
        self.assertIn("aside", conflict(missing, information) or "")
        [finding] = await self.doctor()
        self.assertIs(finding.level, Level.WARNING)
        self.assertIn("the index aside", finding.what)
        self.assertIn("Drop", finding.advice)
        self.collection.drop_index("aside")
        await until(lambda: archive._indexed, "it is made")
        [finding] = await self.doctor()
        self.assertIs(finding.level, Level.OK)

    async def test_what_removes_documents(self) -> None:
        """The doctor names an index by which MongoDB removes messages, and a capped collection."""
        self.collection.database.create_collection("im_message", capped=True, size=1 << 20)
        make_indexes(self.collection)
        self.assertTrue(any("capped" in finding.what for finding in await self.all_findings()))
        self.collection.drop()
        make_indexes(self.collection)
        self.collection.create_index("createTime", expireAfterSeconds=86_400)
        warned = [finding for finding in await self.doctor() if finding.level is Level.WARNING]
        self.assertEqual(len(warned), 1)
        self.assertIn("createTime_1 of im_message removes documents after 86400 s", warned[0].what)

    async def all_findings(self) -> list[Finding]:
        findings: list[Finding] = await deferToThread(
            lambda: list(look_mongo.look(Mongodb(url=self.url), 10))
        )
        return findings


class BuildingTests(unittest.TestCase):
    """An index that is still being built, by another node or by an operator."""

    timeout = 300

    def setUp(self) -> None:
        self.client: Any = pymongo.MongoClient(own_mongo(self, ServerForTests).url)
        self.addCleanup(self.client.close)
        self.rooms = self.client.get_default_database()["im_room"]

    def hold_builds(self, mode: str) -> None:
        self.client.admin.command("configureFailPoint", "hangAfterStartingIndexBuild", mode=mode)

    async def test_building(self) -> None:
        """A unique index counts when it is built: whoever wants it waits, and learns what came of it."""
        for room in ("r-1", "r-2"):
            self.rooms.insert_one({"_id": room, "madeBy": "x"})
        self.hold_builds("alwaysOn")
        by_another = deferToThread(make_indexes, self.rooms, (MADE_BY,))
        await until(lambda: "madeBy_1" in self.rooms.index_information(), "it is being built")
        mine = deferToThread(make_indexes, self.rooms, (MADE_BY,))
        self.hold_builds("off")
        for [trouble] in (await by_another, await mine):
            self.assertIn("im_room (madeBy): documents have the same value; no room can be created", trouble)
        self.rooms.delete_one({"_id": "r-2"})
        for _ in range(2):
            self.assertEqual(make_indexes(self.rooms, (MADE_BY,)), [])
        self.assertEqual(set(self.rooms.index_information()), {"_id_", "madeBy_1"})


class ServerForTests(MongoServer):
    """MongoDB with its switches for tests."""

    def _command(self) -> list[str | Path]:
        return [*super()._command(), "--setParameter", "enableTestCommands=1"]
