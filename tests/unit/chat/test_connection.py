"""One client's frames, from the connect signal to the end."""

from __future__ import annotations

import gc

from imd.chat.session import Session
from imd.config.settings import Limits
from tests.unit.chat.support import START, Client, ConnectionTestCase


class MessageTests(ConnectionTestCase):
    def test_to_another_device(self) -> None:
        """A message is delivered with its number, then answered."""
        alice, bob = self.connected("alice"), self.connected("bob")
        alice.send(clientMsgId="c-1", to="bob", msg="hi")
        self.settle()
        [accepted], [message] = alice.take(), bob.take()
        self.assertEqual(accepted["clientMsgId"], "c-1")
        self.assertEqual(
            message,
            {
                "seq": 1, "id": accepted["id"], "clientMsgId": "c-1", "userId": "alice",
                "fromUserType": "USER_TYPE", "to": "bob", "msg": "hi", "sendTime": accepted["sendTime"],
            },
        )  # fmt: skip
        bob.send(type="ack", seq=1)
        self.settle()
        held = self.inbox.of("bob")
        self.assertEqual(held.cursors["default"], (held.epoch, 1))

    def test_order_of_answers(self) -> None:
        """Answers come in the order of the messages, errors among them, whatever kind they are."""
        client = self.connected()
        client.send(clientMsgId="1", to="bob", msg="hi")
        client.send(clientMsgId="2", to="bob")
        client.send(clientMsgId="3", to="bob", msg="hi", userId="mallory")
        client.send(clientMsgId="4", to="bob", msg=5)
        client.send(clientMsgId="5", group=["bob"], msg="hi")
        client.send(clientMsgId="6", to="bob", msg="x" * 70_000)
        client.send(clientMsgId="7", type="gossip")
        client.send(clientMsgId="8", to="bob", msg="hi")
        self.assertEqual(client.take(), [])
        self.settle()
        codes = [None, "invalid_message", "forbidden", "bad_frame", None, "too_large", "unknown_type", None]
        expected = [
            ("error" if code else "accepted", str(number), code) for number, code in enumerate(codes, 1)
        ]
        self.assertEqual(client.brief(), expected)

    def test_order_with_a_ref(self) -> None:
        """So does one of a frame that has a ref as well; a question's error need not wait."""
        client = self.connected()
        client.send(clientMsgId="1", to="bob", msg="hi")
        client.send(clientMsgId="2", ref="r-2", to="bob", msg=5)
        client.send(ref="r-3", type="gossip")
        [error] = client.take()
        self.assertEqual((error["code"], error["ref"]), ("unknown_type", "r-3"))
        self.settle()
        accepted, error = client.take()
        self.assertEqual((accepted["type"], accepted["clientMsgId"]), ("accepted", "1"))
        self.assertEqual((error["code"], error["clientMsgId"], error["ref"]), ("bad_frame", "2", "r-2"))

    def test_before_the_connect_signal(self) -> None:
        """The error names the frame."""
        client = Client(self.services)
        for frame in ({"type": "history", "ref": "r-1"}, {"type": "recall", "clientMsgId": "c-1"}):
            client.send(**frame)
            [error] = client.take()
            names = {name: value for name, value in frame.items() if name != "type"}
            self.assertEqual(error["code"], "forbidden")
            self.assertEqual({name: error[name] for name in ("clientMsgId", "ref") if name in error}, names)

    def test_refused_at_once(self) -> None:
        """With nothing waiting an error is told at once."""
        client = self.connected()
        client.send(clientMsgId="1", to="bob")
        self.assert_error(client, "invalid_message", "1")
        self.assertEqual(self.soon, [])

    def test_backend_down(self) -> None:
        """While a backend is down a message is unavailable, and the connection stays."""
        client = self.connected()
        self.queue.down = "not connected"
        client.send(clientMsgId="1", to="bob", msg="hi")
        self.settle()
        self.assert_error(client, "unavailable", "1")
        self.queue.down = None
        client.send(clientMsgId="1", to="bob", msg="hi")
        self.settle()
        self.assertEqual(client.brief(), [("accepted", "1", None)])

    def test_closed_before_the_answer(self) -> None:
        """Answers to a client that has gone go nowhere."""
        for closed_by_node in (False, True):
            client = self.connected()
            client.send(clientMsgId="1", to="bob", msg="hi")
            client.send(clientMsgId="2", to="bob")
            if closed_by_node:
                client.connection.close(4200, "the node is leaving")
            else:
                client.connection.lost(clean=False)
            self.settle()
            self.assertEqual(client.take(), [])

    def test_reading_stops(self) -> None:
        """A client with too many unanswered messages is not read from until its answers have caught up."""
        client = self.connected()
        sent = 0
        while client.wire.reading and sent < 5000:
            client.send(to="bob", msg="hi")
            sent += 1
        self.assertEqual(sent, 512)
        self.settle()
        self.assertTrue(client.wire.reading)
        self.assertEqual(len(client.take()), sent)


class UnlimitedMessageTests(ConnectionTestCase):
    limits = Limits(messages_per_second=0)

    def test_reading_stops_at_half(self) -> None:
        """It is read from again when half has been answered; not if the node is leaving."""
        for leaving in (False, True):
            client = self.connected()
            before = len(self.queue.published)
            for count in (200, 312):
                for _ in range(count):
                    client.send(to="bob", msg="hi")
                self.soon.pop()()
                self.inbox.settle()
            if leaving:
                client.connection.leaving(100, "away")
            self.queue.confirm(before)
            self.assertFalse(client.wire.reading)
            self.queue.confirm(before + 1)
            self.assertIs(client.wire.reading, not leaving)


class AckTests(ConnectionTestCase):
    def test_never_sent(self) -> None:
        """Acknowledging what was never sent is an invalid message, and the connection stays."""
        client = self.connected()
        for seq in (1, -1, 10**30):
            client.send(type="ack", seq=seq)
            self.assert_error(client, "invalid_message")
        client.send(type="ack", seq=0)
        self.assertEqual((client.take(), client.closed), ([], None))

    def test_window(self) -> None:
        """No more than a window is in flight; the rest follows as it is acknowledged."""
        for _ in range(300):
            self.inbox.place("alice")
        client = Client(self.services)
        client.connect()
        self.inbox.settle()
        self.assertEqual(client.take()[-1]["seq"], 256)
        client.send(type="ack", seq=128)
        self.inbox.settle()
        self.assertEqual(client.take()[-1]["seq"], 300)

    def test_slow_socket(self) -> None:
        """While its socket is full it is not written to; then what it missed follows."""
        client = self.connected()
        client.wire.writable = False
        for _ in range(3):
            self.services.router.deliver([self.inbox.place("alice")])
        self.assertEqual(client.take(), [])
        client.wire.writable = True
        client.connection.writable_again()
        self.inbox.settle()
        self.assertEqual([frame["seq"] for frame in client.take()], [1, 2, 3])

    def test_seed_client(self) -> None:
        """For a client without acknowledgements its pong is one."""
        client = self.connected(ack=None)
        self.services.router.deliver([self.inbox.place("alice")])
        session = client.connection.session
        assert session is not None
        client.connection.ponged(session.ping_mark())
        self.inbox.settle()
        self.assertEqual(self.inbox.of("alice").cursors["default"], ("e1", 1))

    def test_nothing_is_left_for_the_garbage_collector(self) -> None:
        """A connection and its session hold each other only while they are needed."""
        client = Client(self.services)
        client.connect()
        self.settle()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        sessions = [thing for thing in gc.get_objects() if type(thing) is Session]
        self.assertIn(client.connection.session, sessions)
        before = len(sessions)
        sessions.clear()
        client.connection.lost(clean=False)
        self.settle()
        del client
        self.assertEqual(sum(type(thing) is Session for thing in gc.get_objects()), before - 1)

    def test_seed_client_gone(self) -> None:
        """A clean close is one as well; any other end is not."""
        for clean in (False, True):
            client = self.connected(ack=None)
            self.services.router.deliver([self.inbox.place("alice")])
            client.connection.lost(clean)
        self.assertEqual([leave.seq for leave in self.leaves], [0, 2])

    def test_seed_client_going(self) -> None:
        """Messages between a client's close frame and the end of its connection were not sent to it."""
        client = self.connected(ack=None)
        self.services.router.deliver([self.inbox.place("alice")])
        client.connection.peer_leaves()
        self.services.router.deliver([self.inbox.place("alice")])
        self.inbox.settle()
        client.connection.lost(clean=True)
        self.assertEqual([leave.seq for leave in self.leaves], [1])

    def test_seed_client_going_while_it_connects(self) -> None:
        """A client that closes before it is connected has got nothing of what waits for it."""
        self.inbox.place("alice")
        client = Client(self.services)
        client.connect("alice", ack=None)
        client.connection.peer_leaves()
        self.inbox.settle()
        client.connection.lost(clean=True)
        self.inbox.settle()
        self.assertEqual([leave.seq for leave in self.leaves], [0])


class ControlTests(ConnectionTestCase):
    def test_ping(self) -> None:
        """A ping is answered with the server's time."""
        client = self.connected()
        self.clock.advance(1.5)
        client.send(type="ping")
        self.assertEqual(client.take(), [{"type": "pong", "serverTime": START * 1000 + 1500}])

    def test_leaving(self) -> None:
        """A client that is to go is told so once, is read from no more, and closed after its answers."""
        client = self.connected()
        client.send(clientMsgId="1", to="bob", msg="hi")
        client.connection.leaving(700, "away")
        client.connection.leaving(900, "far away")
        self.assertEqual(client.take(), [{"type": "leaving", "reconnectMs": 700}])
        self.assertFalse(client.wire.reading)
        self.assertIsNone(client.closed)
        self.settle()
        self.assertEqual(client.brief(), [("accepted", "1", None)])
        self.assertEqual(client.wire.closed, (4200, "away"))
        client.connection.close(4200, "again")

    def test_leaving_with_nothing_under_way(self) -> None:
        """It is closed at once, whatever others wait for."""
        other, client = self.connected(), self.connected("bob")
        other.send(clientMsgId="1", to="bob", msg="hi")
        for one in (client, other):
            one.connection.leaving(0, "away")
        self.assertEqual((client.closed, other.closed), (4200, None))
        self.settle()
        self.assertEqual(other.closed, 4200)

    def test_gone(self) -> None:
        """When the connection has gone the inbox is told, once, what the device has."""
        client = self.connected(device="phone", ephemeral=True)
        self.services.router.deliver([self.inbox.place("alice"), self.inbox.place("alice")])
        client.send(type="ack", seq=1)
        self.inbox.settle()
        client.connection.lost(clean=True)
        [leave] = self.leaves
        self.assertEqual((leave.user, leave.device, leave.epoch, leave.seq), ("alice", "phone", "e1", 1))
        self.assertTrue(leave.ephemeral)
        self.assertEqual((self.sessions, self.timers()), ({}, []))
