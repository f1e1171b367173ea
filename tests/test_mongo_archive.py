"""The archive on a real MongoDB: what a message becomes, what is refused, and pages of history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import msgspec
import pymongo
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.trial import unittest

from imd.backends import archive_document
from imd.backends.archive_document import Unfit, to_bson, to_json
from imd.backends.mongo_archive import MongoArchive
from imd.errors import ConfigurationError, Unavailable
from imd.interfaces import HistoryQuery
from imd.message import IMessage, conversation_id, encode_message
from tests.rabbit import own_mongo, until
from tests.servers import free_port, shared

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
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


def document(plain: bytes) -> dict[str, Any]:
    codec = bson.CodecOptions(tz_aware=True)  # type: ignore[attr-defined]
    return bson.decode(to_bson(plain, NOW)[1], codec)  # type: ignore[no-any-return]


class DocumentTests(unittest.TestCase):
    def test_fields(self) -> None:
        """The seed's fields, and those by which history is found."""
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
        """A list is kept as it was sent; who takes part is a set."""
        found = document(body(5, group=["carol", "bob", "carol"], from_user_type="CUSTOMER_TYPE"))
        self.assertEqual(found["to"], "")
        self.assertEqual(found["group"], ["carol", "bob", "carol"])
        self.assertEqual(found["participants"], ["alice", "bob", "carol"])
        self.assertEqual(found["conversation"], conversation_id(["alice", "bob", "carol"]))
        self.assertEqual(found["loginType"], "CUSTOMER_TYPE")

    def test_visitor(self) -> None:
        """A visitor's message belongs to the visitor's conversation, and its agent takes part."""
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
        """Out of the archive comes, byte for byte, the JSON that went in."""
        self.assertEqual(to_json(document(encode_message(sent))), encode_message(sent))

    @given(st.binary(max_size=50))
    @settings(deadline=None)
    def test_any_bytes(self, plain: bytes) -> None:
        """What is no message is Unfit, never another exception."""
        with self.assertRaises(Unfit):
            to_bson(plain, NOW)

    def test_unfit(self) -> None:
        """What can be decoded but never be stored is Unfit, and the reason does not show it."""
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
                to_bson(plain, NOW)
            self.assertNotIn("secret", str(error.exception))


class MongoArchiveTests(unittest.TestCase):
    timeout = 60

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
        """A batch is written once however often it is given."""
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
        """NUL and anything else that a string may hold comes back as it was."""
        archive = await self.started()
        odd = body(1, to="bob", msg="\x00 \U0001f600 $ne . \x7f", client_msg_id="\x00")
        self.assertEqual((await archive.insert([odd])).refused, [])
        page = await archive.history(HistoryQuery("bob", None))
        self.assertEqual(page.messages, [odd])

    async def test_indexes(self) -> None:
        """The seed's index and those of history are made."""
        archive = await self.started()
        await until(lambda: archive._indexed, "the indexes")
        keys = {tuple(index["key"]) for index in self.collection.index_information().values()}
        self.assertLessEqual({"userId", "conversation", "participants"}, {key[0][0] for key in keys})
        self.assertIn((("conversation", 1), ("_id", 1)), keys)
        self.assertIn((("participants", 1), ("_id", 1)), keys)

    async def test_refused(self) -> None:
        """What MongoDB refuses is told apart from its neighbours, which are written."""
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
        """Pages of a conversation, of all one's conversations, and of what one took part in."""
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
        archive = await self.started(server.url, timeout_seconds=1)
        await archive.insert([body(1, to="bob")])
        server.pause()
        with self.assertRaises(Unavailable):
            await archive.history(HistoryQuery("alice", None))
        await until(lambda: archive.problem() is not None, "it is noticed")
        server.resume()
        await until(lambda: archive.problem() is None, "it is back")
        self.assertEqual(len((await archive.history(HistoryQuery("alice", None))).messages), 1)
