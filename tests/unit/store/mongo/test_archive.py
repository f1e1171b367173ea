"""The archive on a real MongoDB: documents, refusals and pages of history."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import msgspec
import pymongo
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.trial import unittest

from imd.contracts.archive import HistoryQuery
from imd.protocol.errors import ConfigurationError, Unavailable
from imd.protocol.message import IMessage, conversation_id, encode_message
from imd.store.mongo import document as archive_document
from imd.store.mongo import write as mongo_write
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.cover import cover_lists
from imd.store.mongo.document import UNREADABLE, Document, Unfit, read_archived, to_document
from imd.store.mongo.entry import to_json
from tests.support.rabbit import own_mongo, until
from tests.support.servers import free_port, shared

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
NOW_MS = 1_767_323_045_678
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
SENDERS = st.sampled_from(["CUSTOMER_SERVICE", "USER_TYPE", "CUSTOMER_TYPE", "VISITOR_TYPE"])


def message(number: int, sender: str = "alice", **fields: Any) -> IMessage:
    fields.setdefault("from_user_type", "USER_TYPE")
    fields.setdefault("msg", f"text {number}")
    return IMessage(id=f"{number:028x}", user_id=sender, send_time=1_764_000_000_000 + number, **fields)


def body(number: int, sender: str = "alice", **fields: Any) -> bytes:
    return encode_message(message(number, sender, **fields))


def with_agent(plain: bytes, agent: str) -> bytes:
    return b'%b,"agent":%b}' % (plain[:-1], msgspec.json.encode(agent))


def encoded(plain: bytes) -> Document:
    try:
        return to_document(read_archived(plain), NOW_MS)
    except UNREADABLE as error:
        raise Unfit(str(error)) from None


def document(plain: bytes) -> dict[str, Any]:
    codec = bson.CodecOptions(tz_aware=True)  # type: ignore[attr-defined]
    return bson.decode(encoded(plain).encoded, codec)  # type: ignore[no-any-return]


class DocumentTests(unittest.TestCase):
    def test_fields(self) -> None:
        """A document has the seed's fields, and the fields that history is found by."""
        found = document(body(5, to="bob", client_msg_id="c-1", content_type="text/plain"))
        self.assertEqual(
            found,
            {
                "_id": f"{5:028x}",
                "userId": "alice",
                "to": "bob",
                "group": None,
                "msg": "text 5",
                "loginType": "USER_TYPE",
                "isCustomerService": False,
                "isVisitor": False,
                "isConnect": False,
                "sendTime": datetime.fromtimestamp(1_764_000_000, UTC) + timedelta(milliseconds=5),
                "createTime": NOW,
                "conversation": conversation_id(["alice", "bob"]),
                "participants": ["alice", "bob"],
                "fromUserType": "USER_TYPE",
                "clientMsgId": "c-1",
                "contentType": "text/plain",
            },
        )

    def test_group(self) -> None:
        """The list is kept as it was sent; participants are a set."""
        found = document(body(5, group=["carol", "bob", "carol"], from_user_type="CUSTOMER_TYPE"))
        self.assertEqual(found["to"], "")
        self.assertEqual(found["group"], ["carol", "bob", "carol"])
        self.assertEqual(found["participants"], ["alice", "bob", "carol"])
        self.assertEqual(found["conversation"], conversation_id(["alice", "bob", "carol"]))
        self.assertEqual(found["loginType"], "CUSTOMER_TYPE")

    def test_visitor(self) -> None:
        """A visitor's message belongs to the visitor's conversation, and its agent is a participant."""
        plain = body(5, "visitor-1", from_user_type="VISITOR_TYPE", is_visitor=True)
        found = document(with_agent(plain, "alice"))
        self.assertEqual(found["participants"], ["alice", "visitor-1"])
        self.assertEqual(found["conversation"], conversation_id(["visitor-1"]))
        self.assertEqual((found["isVisitor"], found["loginType"], found["agent"]), (True, None, "alice"))
        answer = document(body(6, to="visitor-1", from_user_type="CUSTOMER_SERVICE"))
        self.assertEqual(answer["conversation"], found["conversation"])
        self.assertEqual((answer["isCustomerService"], answer["loginType"]), (True, "USER_TYPE"))

    @given(
        st.builds(
            IMessage,
            id=TEXT.filter(bool),
            user_id=TEXT.filter(bool),
            client_msg_id=st.none() | TEXT,
            from_user_type=SENDERS.filter(lambda kind: kind != "VISITOR_TYPE"),
            to=TEXT,
            group=st.none() | st.lists(TEXT, max_size=4),
            msg=TEXT,
            content_type=st.none() | TEXT,
            send_time=st.integers(0, 2**45),
        )
    )
    @settings(deadline=None)
    def test_round_trip(self, sent: IMessage) -> None:
        """The archive returns the JSON that it was given, byte for byte."""
        self.assertEqual(to_json(document(encode_message(sent))), encode_message(sent))

    @given(st.binary(max_size=50))
    @settings(deadline=None)
    def test_any_bytes(self, plain: bytes) -> None:
        """Bytes that are no message raise Unfit, and no other exception."""
        with self.assertRaises(Unfit):
            encoded(plain)

    def test_unfit(self) -> None:
        """A message that can be decoded but never stored is Unfit, and the reason does not show it."""
        self.patch(archive_document, "MAX_DOCUMENT_BYTES", 2000)
        unfit = [
            body(1, to="bob", from_user_type="KING"),
            body(1, sender="", to="bob"),
            encode_message(IMessage(user_id="alice", to="bob", msg="x", from_user_type="USER_TYPE")),
            body(1, to="bob").replace(b"1764000000001", b"9" * 18),
            body(1, to="bob", msg="secret" * 400),
            b'{"id":1}',
            b"[" * 100_000,
        ]
        for plain in unfit:
            with self.assertRaises(Unfit) as error:
                encoded(plain)
            self.assertNotIn("secret", str(error.exception))


class MongoArchiveTests(unittest.TestCase):
    timeout = 300

    async def started(self, url: str | None = None, **options: float) -> MongoArchive:
        self.url = url or shared().mongo_url()
        archive = MongoArchive(reactor, self.url, **options)
        self.addCleanup(archive.stop)
        await archive.start()
        client: Any = pymongo.MongoClient(self.url, tz_aware=True)
        self.addCleanup(client.close)
        self.collection = client.get_default_database()["im_message"]
        return archive

    async def test_insert(self) -> None:
        """A batch that is given several times is written once."""
        archive = await self.started()
        self.assertIsNone(archive.problem())
        batch = [body(number, to="bob") for number in range(50)]
        first = await archive.insert(batch[:30])
        self.assertEqual((first.written, first.duplicates, first.refused), (30, 0, []))
        second = await archive.insert([msgspec.Raw(one) for one in batch])
        self.assertEqual((second.written, second.duplicates, second.refused), (20, 30, []))
        self.assertEqual(self.collection.count_documents({}), 50)
        found = self.collection.find_one({"_id": f"{7:028x}"})
        self.assertEqual((found["msg"], found["sendTime"].microsecond), ("text 7", 7000))
        self.assertLess(datetime.now(UTC) - found["createTime"], timedelta(minutes=5))

    async def test_odd_strings(self) -> None:
        """A text comes back as it was, NUL included."""
        archive = await self.started()
        odd = body(1, to="bob", msg="\x00 \U0001f600 $ne . \x7f", client_msg_id="\x00")
        self.assertEqual((await archive.insert([odd])).refused, [])
        page = await archive.history(HistoryQuery("bob", None))
        self.assertEqual(page.messages, [odd])

    async def test_indexes(self) -> None:
        """The seed's index and those of history are made; a message between two is in three beside `_id`."""
        archive = await self.started()
        await until(lambda: archive._indexed, "the indexes")
        found = {tuple(index["key"]): index for index in self.collection.index_information().values()}
        by_id = ("_id", 1)
        self.assertEqual(
            set(found),
            {(by_id,), *(((name, 1), by_id) for name in ("userId", "to", "conversation", "participants"))},
        )
        partial = {keys[0][0]: index.get("partialFilterExpression") for keys, index in found.items()}
        self.assertEqual(partial.pop("participants"), {"covers": {"$exists": True}})
        self.assertEqual(set(partial.values()), {None})

    async def test_pages_are_read_by_indexes(self) -> None:
        """No page sorts in memory, or reads more documents than it returns."""
        archive = await self.started()
        await until(lambda: archive._indexed, "the indexes")
        batch = []
        for number in range(1, 600):
            other = f"u{number % 7}"
            batch.append(body(3 * number, to=other))
            batch.append(body(3 * number + 1, other, to="alice"))
            batch.append(body(3 * number + 2, other, group=["alice", "bob", f"u{number % 5}"]))
        await archive.insert(batch)
        database = self.collection.database
        database.command("profile", 2)
        pair = conversation_id(["alice", "u3"])
        pages = [
            await archive.history(HistoryQuery("alice", conversation, before=before, limit=20))
            for conversation in (pair, None)
            for before in (None, f"{900:028x}", f"{901:028x}", f"{902:028x}")
        ]
        database.command("profile", 0)
        self.assertEqual([len(page.messages) for page in pages], [20] * 8)
        asked = list(database["system.profile"].find({"op": "query", "ns": self.collection.full_name}))
        self.assertGreater(len(asked), 16)
        for one in asked:
            self.assertTrue(one["planSummary"].startswith("IXSCAN"), one["planSummary"])
            self.assertFalse(one.get("hasSortStage"), one["command"])
            self.assertLessEqual(one["docsExamined"], 60, one["command"])

    async def test_lists_in_any_order(self) -> None:
        """Pages of all conversations follow the ids, even if messages are written together, again or late."""
        chance = random.Random(3)
        archive = await self.started()
        await until(lambda: archive._indexed, "the indexes")
        people = ["alice", "bob", "carol", "dora", "emil"]
        made: dict[str, tuple[bytes, set[str]]] = {}
        at_ms = 1_764_000_000_000
        for number in range(400):
            at_ms += chance.choice((0, 1, 50, 4000, 60_000))
            sender, *others = chance.sample(people, chance.choice((2, 3, 3, 4)))
            to = {"to": others[0]} if chance.random() < 0.3 else {"group": others}
            message_id = f"{at_ms:012x}{number:016x}"
            plain = encode_message(
                IMessage(
                    id=message_id, user_id=sender, from_user_type="USER_TYPE", msg="x", send_time=at_ms, **to
                )
            )
            made[message_id] = plain, {sender, *([others[0]] if "to" in to else others)}
        waiting = [plain for plain, _ in made.values()]
        given: list[bytes] = []
        while waiting:
            size = chance.randrange(1, 40)
            batch, waiting = waiting[:size], waiting[size:]
            chance.shuffle(batch)
            if chance.random() < 0.5:
                # An interrupted write: some documents are there, and all come again, in other batches.
                self.write_some(batch, chance.random())
                size = len(batch) // 2
                batch, waiting[:0] = batch[:size], batch[size:]
            again = chance.sample(given, min(len(given), 5))
            self.assertEqual((await archive.insert([*batch, *again])).refused, [])
            given += batch
        for viewer in people:
            mine = [plain for _, (plain, who) in sorted(made.items()) if viewer in who]
            for limit in (1, 7, 50):
                for _ in range(12):
                    before = chance.choice([None, *sorted(made)])
                    if before is not None and chance.random() < 0.3:
                        before = before[: chance.randrange(8, 20)]
                    page = await archive.history(HistoryQuery(viewer, None, before=before, limit=limit))
                    earlier = [one for one in mine if before is None or json.loads(one)["id"] < before]
                    self.assertEqual(page.messages, earlier[-limit:], (viewer, before))
                    self.assertEqual(page.more, len(earlier) > limit)

    def write_some(self, batch: list[bytes], part: float) -> None:
        """Write only the first documents of a batch."""
        documents = [encoded(plain) for plain in batch]
        cover_lists(documents)
        some = documents[: 1 + int(part * len(documents))]
        mongo_write._write(self.collection, [one.encoded for one in some])

    async def test_refused_newest_of_a_list(self) -> None:
        """If a cover is refused, the messages that it was to cover are found all the same."""
        archive = await self.started()
        await until(lambda: archive._indexed, "the collection is there")
        self.collection.database.command("collMod", "im_message", validator={"msg": {"$ne": "bad"}})
        good = [body(number, group=["bob", "carol"]) for number in range(1, 4)]
        result = await archive.insert([*good, body(4, group=["bob", "carol"], msg="bad")])
        self.assertEqual((result.written, len(result.refused)), (3, 1))
        for viewer in ("alice", "carol"):
            self.assertEqual((await archive.history(HistoryQuery(viewer, None))).messages, good)

    async def test_large_batch_is_divided(self) -> None:
        """A batch too large for one command is written, and its errors belong to the right documents."""
        self.patch(mongo_write, "INSERT_BYTES", 3000)
        archive = await self.started()
        await archive.insert([body(7, to="bob")])
        batch = [body(number, to="bob", msg="x" * (5000 if number == 3 else 400)) for number in range(1, 20)]
        result = await archive.insert(batch)
        self.assertEqual((result.written, result.duplicates), (18, 1))
        self.assertEqual(self.collection.count_documents({}), 19)

    async def test_refused(self) -> None:
        """Refused documents are reported, and their neighbours are written."""
        archive = await self.started()
        rule = {"msg": {"$not": {"$regex": "^bad"}}}
        self.collection.database.create_collection("other")
        await until(lambda: archive._indexed, "the collection is there")
        self.collection.database.command("collMod", "im_message", validator=rule)
        self.collection.create_index("clientMsgId", unique=True, sparse=True)
        batch = [
            body(1, to="bob", client_msg_id="one"),
            body(2, to="bob", msg="bad"),
            body(3, to="bob", client_msg_id="one"),
            b'{"id":"4"}',
            body(5, to="bob"),
        ]
        for written, duplicates in ((2, 0), (0, 2)):
            result = await archive.insert(batch)
            self.assertEqual((result.written, result.duplicates), (written, duplicates))
            self.assertEqual({one.body for one in result.refused}, {batch[1], batch[2], batch[3]})
            reasons = {one.message_id: one.reason for one in result.refused}
            self.assertIn("121", reasons[f"{2:028x}"])
            self.assertIn("11000", reasons[f"{3:028x}"])
        self.assertEqual((await archive.insert([batch[1]])).written, 0, "on its own as well")

    async def test_history(self) -> None:
        """Pages of a conversation, of all conversations of a user, and of the messages of a participant."""
        archive = await self.started()
        sent = [
            body(number, to="bob") if number % 2 else body(number, "bob", to="alice") for number in range(9)
        ]
        other = body(20, "carol", to="bob")
        visitor = body(30, "visitor-1", from_user_type="VISITOR_TYPE", is_visitor=True)
        taken = with_agent(visitor, "alice")
        later = body(31, "bob", to="visitor-1", from_user_type="CUSTOMER_SERVICE")
        await archive.insert([*sent, other, taken, later])
        pair = conversation_id(["alice", "bob"])
        newest = await archive.history(HistoryQuery("alice", pair, limit=4))
        self.assertEqual((newest.messages, newest.more), (sent[5:], True))
        older = await archive.history(HistoryQuery("alice", pair, before=f"{5:028x}", limit=5))
        self.assertEqual((older.messages, older.more), (sent[:5], False))
        all_of_bob = await archive.history(HistoryQuery("bob", None))
        self.assertEqual(all_of_bob.messages, [*sent, other, later])
        desk = conversation_id(["visitor-1"])
        self.assertEqual((await archive.history(HistoryQuery("bob", desk))).messages, [visitor, later])
        own = await archive.history(HistoryQuery("alice", desk, only_own=True))
        self.assertEqual(own.messages, [visitor])
        self.assertEqual((await archive.history(HistoryQuery("nobody", None))).messages, [])

    async def test_write_concern(self) -> None:
        """Majority and journal, unless the url says otherwise; w=0 is refused."""
        archive = await self.started()
        self.assertEqual(archive._collection.write_concern.document, {"w": "majority", "j": True})
        archive = await self.started(shared().mongo_url() + "?w=1&journal=false")
        self.assertEqual(archive._collection.write_concern.document, {"w": 1, "j": False})

    async def test_configuration(self) -> None:
        """A url that can never work fails the start, and its password stays in it."""
        for url in ("mongodb://u:s3cret@/imd", "mongodb://u:s3cret@h/imd?w=0", "mongodb://u:s3cret@h:port/"):
            archive = MongoArchive(reactor, url)
            self.addCleanup(archive.stop)
            with self.assertRaises(ConfigurationError) as error:
                await archive.start()
            self.assertNotIn("s3cret", str(error.exception))

    async def test_nobody_there(self) -> None:
        """A start without MongoDB waits, everything else is Unavailable at once or within the deadline."""
        archive = MongoArchive(reactor, f"mongodb://127.0.0.1:{free_port()}/imd", timeout_seconds=1)
        started = archive.start()
        started.addErrback(lambda _: None)
        await until(lambda: "Selection" in (archive.problem() or ""), "it says why")
        for deferred in (archive.insert([body(1, to="bob")]), archive.history(HistoryQuery("alice", None))):
            with self.assertRaises(Unavailable):
                await deferred
        self.assertFalse(started.called)
        await archive.stop()

    async def test_silent_server(self) -> None:
        """A server that hangs costs each page its deadline, becomes a problem, and is used again later."""
        server = own_mongo(self)
        archive = await self.started(server.url, timeout_seconds=60)
        await archive.insert([body(1, to="bob")])
        server.pause()
        hasty = self.patch(archive, "_timeout_seconds", 1.0)
        with self.assertRaises(Unavailable):
            await archive.history(HistoryQuery("alice", None))
        await until(lambda: archive.problem() is not None, "it is noticed")
        hasty.restore()
        server.resume()
        await until(lambda: archive.problem() is None, "it is back")
        self.assertEqual(len((await archive.history(HistoryQuery("alice", None))).messages), 1)
