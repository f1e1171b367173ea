"""Frames whose answer takes a while: what waits for them, and for how long."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from imd.chat.batch import Answer, Entry
from imd.chat.slow import SLOW_SECONDS, answer_slowly
from imd.protocol import frames
from imd.protocol.errors import NOT_FOUND, Refused, Unavailable
from tests.unit.chat.support import Client, ConnectionTestCase


class SlowFrameTests(ConnectionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.alice = self.connected("alice")

    def slow(self, client_msg_id: str, client: Client | None = None) -> Deferred[None]:
        """A slow frame that changes nothing; it is through when the result fires."""
        peer = (client or self.alice).connection
        done: Deferred[None] = Deferred()

        async def work() -> Entry:
            await done
            return Answer(peer, client_msg_id, frames.unchanged(client_msg_id))

        answer_slowly(peer, self.services.call_later, client_msg_id, work())
        return done

    def test_later_frames_wait(self) -> None:
        """Earlier messages are answered; later frames of any kind wait, and the socket is not read."""
        self.alice.send(clientMsgId="1", to="bob", msg="hi")
        done = self.slow("2")
        self.settle()
        self.assertEqual(self.alice.brief(), [("accepted", "1", None)])
        self.assertTrue(self.alice.wire.reading)
        self.alice.send(clientMsgId="3", to="bob", msg="hi")
        self.alice.send(type="ping")
        self.alice.send(clientMsgId="4", to="bob")
        self.settle()
        self.assertEqual(self.alice.take(), [])
        self.assertFalse(self.alice.wire.reading)
        self.assertEqual(len(self.inbox.of("bob").messages), 1)
        done.callback(None)
        self.settle()
        answers = self.alice.take()
        self.assertEqual(answers[0]["type"], "pong")
        self.assertEqual(answers[1], {"type": "accepted", "clientMsgId": "2", "changed": False})
        self.assertEqual([answer["clientMsgId"] for answer in answers[2:]], ["3", "4"])
        self.assertTrue(self.alice.wire.reading)
        self.assertEqual(self.timers(), [])

    def test_others_do_not_wait(self) -> None:
        """It holds up its own connection, nothing else."""
        done = self.slow("1")
        bob = self.connected("bob")
        bob.send(clientMsgId="1", to="alice", msg="hi")
        self.settle()
        self.assertEqual(bob.brief(), [("accepted", "1", None)])
        self.assertEqual(self.alice.brief(), [("message", "1", None)])
        done.callback(None)
        self.settle()

    def test_one_after_the_other(self) -> None:
        """A slow frame among those that wait holds up the ones behind it."""
        first = self.slow("1")
        self.alice.send(clientMsgId="2", to="bob", msg="hi")
        self.alice.send(type="ping")
        second: list[Deferred[None]] = []
        handlers = self.alice.connection._HANDLERS
        slow_ping = ("ping", lambda peer, frame: second.append(self.slow("3")))
        self.patch(type(self.alice.connection), "_HANDLERS", {**handlers, frames.PingFrame: slow_ping})
        self.alice.send(clientMsgId="4", to="bob", msg="hi")
        first.callback(None)
        self.settle()
        self.assertEqual([answer["clientMsgId"] for answer in self.alice.take()], ["1", "2"])
        self.assertFalse(self.alice.wire.reading)
        second[0].callback(None)
        self.settle()
        self.assertEqual([answer["clientMsgId"] for answer in self.alice.take()], ["3", "4"])
        self.assertTrue(self.alice.wire.reading)

    def test_deadline(self) -> None:
        """After two seconds it is unavailable, and later frames go on; a late answer is nobody's."""
        done = self.slow("1")
        self.alice.send(clientMsgId="2", to="bob", msg="hi")
        self.clock.advance(SLOW_SECONDS - 0.1)
        self.settle()
        self.assertEqual(self.alice.take(), [])
        self.clock.advance(0.2)
        self.settle()
        error, accepted = self.alice.take()
        self.assertEqual(
            (error["code"], error["clientMsgId"], error["retryAfterMs"]), ("unavailable", "1", 1000)
        )
        self.assertEqual((accepted["type"], accepted["clientMsgId"]), ("accepted", "2"))
        done.callback(None)
        self.settle()
        self.assertEqual(self.alice.take(), [])

    def test_refused(self) -> None:
        """A refusal, a store that is down, and a mistake are told in their turn."""
        for error, code in (
            (Refused(NOT_FOUND, "no such message"), "not_found"),
            (Unavailable("mongodb: down"), "unavailable"),
            (KeyError("a mistake"), "unavailable"),
        ):
            self.slow("1").errback(Failure(error))
            self.settle()
            self.assert_error(self.alice, code, "1")
            self.assertTrue(self.alice.wire.reading)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_client_goes(self) -> None:
        """A client that goes meanwhile gets nothing, and what waited is forgotten."""
        done = self.slow("1")
        self.alice.send(clientMsgId="2", to="bob", msg="hi")
        self.alice.connection.lost(clean=True)
        done.callback(None)
        self.settle()
        self.assertEqual(self.alice.take(), [])
        self.assertEqual(len(self.inbox.of("bob").messages), 0)

    def test_leaving(self) -> None:
        """A node that leaves answers the slow frame before it closes."""
        done = self.slow("1")
        self.alice.connection.leaving(100, "the node is leaving")
        self.settle()
        self.assertEqual((self.alice.brief(), self.alice.closed), ([("leaving", None, None)], None))
        done.callback(None)
        self.settle()
        self.assertEqual((self.alice.brief(), self.alice.closed), ([("accepted", "1", None)], 4200))


class LevelTests(ConnectionTestCase):
    def test_features(self) -> None:
        """A client gets the known ones of the features that it asks for; without any it is told of none."""
        for asked, got in (
            (["sync", "teleport", "events", "sync"], ["events", "sync"]),
            (["teleport"], []),
            ([], None),
            (None, None),
        ):
            client = Client(self.services)
            client.connect("alice", features=asked)
            self.settle()
            [connected] = client.take()
            self.assertEqual(connected.get("features"), got)
            request = [argument for name, argument in self.inbox.asked if name == "connect"][-1]
            self.assertEqual(request.sync, "sync" in (got or ()))
            client.connection.lost(clean=True)

    def test_features_of_a_wrong_type(self) -> None:
        """The connection waits for a better connect signal."""
        client = Client(self.services)
        client.connect("alice", features="sync")
        self.settle()
        self.assert_error(client, "bad_frame")
        client.connect("alice")
        self.settle()
        self.assertEqual(client.take()[0]["type"], "connected")

    def test_level_1(self) -> None:
        """In a cluster of the first level later fields are ignored, and later frames unknown."""
        self.level = 1
        client = Client(self.services)
        client.connect("alice", features=5)
        self.settle()
        [connected] = client.take()
        self.assertNotIn("features", connected)
        self.assertEqual(
            set(connected["limits"]), {"messageBytes", "groupMembers", "ackWindow", "messagesPerSecond"}
        )
        client.send(clientMsgId="1", to="bob", msg="hi", replyTo=5, mentions="x", data=[], room="r-1")
        for kind in ("edit", "recall", "react", "room", "rooms", "members", "messages", "changes"):
            client.send(type=kind, clientMsgId=kind, ref="r")
        client.send(type="history", ref="h", with_="bob", room=5, after=1)
        self.settle()
        answers = client.take()
        errors = [frame for frame in answers if frame["type"] == "error"]
        self.assertEqual({frame["code"] for frame in errors}, {"unknown_type"})
        self.assertEqual(len(errors), 8)
        self.assertNotIn("h", [frame.get("ref") for frame in errors])
        self.assertEqual([frame["type"] for frame in answers if frame["type"] != "error"], ["accepted"])
        body = self.inbox.of("bob").messages[1]
        self.assertNotIn(b"replyTo", body)
        self.assertIn(b'"to":"bob","msg":"hi","sendTime"', body)
