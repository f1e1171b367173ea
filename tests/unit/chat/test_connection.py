"""One client's frames, from the connect signal to the end; no socket, and time stands still by itself."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jwt
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.chat.accept import Acceptor
from imd.chat.connection import Connection
from imd.chat.history import Historian
from imd.chat.router import Router
from imd.chat.services import Services
from imd.chat.session import Session
from imd.config.settings import Auth, Limits, Settings
from imd.contracts.archive import ArchiveRecord, History
from imd.contracts.inbox import Leave
from imd.entry.auth import Authenticator
from imd.entry.gate import Gate
from imd.entry.replacing import Replacing
from imd.protocol.errors import Unavailable
from imd.protocol.ids import MessageIds, ServerClock
from tests.support.doubles import ArchiveDouble, InboxDouble, QueueDouble, WireDouble

START = 1_764_000_000
SECRET = "a secret of more than 32 bytes, for tests"


class Client:
    """A connection and its wire."""

    def __init__(self, services: Services, bearer: str | None = None) -> None:
        self.wire = WireDouble()
        self.connection = Connection(services, self.wire, self.wire, bearer)

    def send(self, **frame: Any) -> None:
        """Send a frame; the name `with_` stands for `with`."""
        fields = {name.rstrip("_"): value for name, value in frame.items()}
        self.connection.frame_received(json.dumps(fields).encode())

    def connect(self, user: str = "alice", **fields: Any) -> None:
        self.send(isConnect=True, userId=user, **{"loginType": "user", "ack": True, **fields})

    @property
    def closed(self) -> int | None:
        return self.wire.closed[0] if self.wire.closed is not None else None

    def take(self) -> list[dict[str, Any]]:
        """The frames that came since the last time."""
        came = self.wire.frames
        self.wire.payloads.clear()
        return came

    def brief(self) -> list[tuple[Any, ...]]:
        """The same in short: kind, clientMsgId or number, code of an error."""
        return [
            (frame.get("type", "message"), frame.get("clientMsgId", frame.get("seq")), frame.get("code"))
            for frame in self.take()
        ]


class ConnectionTestCase(unittest.TestCase):
    limits = Limits()
    auth = Auth()

    def setUp(self) -> None:
        self.clock = Clock()
        self.inbox = InboxDouble()
        self.queue = QueueDouble()
        self.archive = ArchiveDouble()
        self.sessions: dict[str, Session] = {}
        self.soon: list[Callable[[], None]] = []
        self.leaves: list[Leave] = []
        self.desk_changes = 0
        self.handed_over: list[ArchiveRecord] = []
        clock = ServerClock(self.unix_seconds, self.clock.seconds)
        router = Router(self.sessions, None, self.clock.seconds, self.clock.callLater)
        self.services = Services(
            settings=Settings(limits=self.limits, auth=self.auth),
            clock=clock,
            ids=MessageIds(clock),
            inbox=self.inbox,
            acceptor=Acceptor(
                self.inbox, self.queue, router.deliver, clock, self.soon.append, self.handed_over.extend
            ),
            router=router,
            historian=Historian(self.archive, self.inbox),
            authenticator=Authenticator(self.auth, self.unix_seconds),
            gate=Gate(self.clock.seconds, self.clock.callLater),
            replacing=Replacing(self.clock.seconds),
            sessions=self.sessions,
            call_later=self.clock.callLater,
            unix_seconds=self.unix_seconds,
            leave=self.leave,
            desk_changed=self.desk_changed,
        )

    set_by = 0.0
    """seconds by which somebody has set the wall clock"""

    def unix_seconds(self) -> float:
        return START + self.clock.seconds() + self.set_by

    def leave(self, leave: Leave) -> None:
        self.leaves.append(leave)
        self.inbox.leave(leave).addErrback(lambda failure: failure.trap(Unavailable))

    def desk_changed(self) -> None:
        self.desk_changes += 1

    def settle(self) -> None:
        """Everything that was asked is done and answered."""
        for _ in range(100):
            soon, self.soon[:] = list(self.soon), []
            for call in soon:
                call()
            self.inbox.settle()
            waiting = [confirmed for _, confirmed in self.queue.published if not confirmed.called]
            for confirmed in waiting:
                confirmed.callback(None)
            if not waiting and not self.soon:
                return
        raise AssertionError("it never comes to rest")

    def connected(self, user: str = "alice", **fields: Any) -> Client:
        """A client that is connected, and has read its first frames."""
        client = Client(self.services)
        client.connect(user, **fields)
        self.inbox.settle()
        self.assertEqual(client.take()[0]["type"], "connected")
        return client

    def assert_error(self, client: Client, code: str, client_msg_id: str | None = None) -> None:
        """The client has got this error, and nothing else."""
        self.assertEqual(client.brief(), [("error", client_msg_id, code)])


class ConnectTests(ConnectionTestCase):
    def test_connected(self) -> None:
        """The connect signal registers the channel under the user's name; the answer says all there is."""
        client = Client(self.services)
        client.connect(device="phone")
        self.assertEqual((client.wire.payloads, client.wire.reading), ([], True))
        self.inbox.settle()
        self.assertTrue(client.wire.payloads[0].startswith(b'{"type":"connected",'))
        [frame] = client.take()
        channel = self.inbox.of("alice").channels["phone"][0]
        self.assertEqual(list(self.sessions), [channel])
        self.assertEqual(
            frame,
            {
                "type": "connected", "v": 1, "userId": "alice", "fromUserType": "USER_TYPE",
                "device": "phone", "channel": channel, "epoch": "e1", "seq": 0, "recovered": True,
                "serverTime": START * 1000, "pingSeconds": 25,
                "limits": {"messageBytes": 65536, "groupMembers": 500, "ackWindow": 256,
                           "messagesPerSecond": 50},
            },
        )  # fmt: skip
        self.assertTrue(client.wire.reading)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_types_of_users(self) -> None:
        """Each type by the seed's rule; an agent's coming is told to the desk."""
        for fields, kind in (
            ({"loginType": "USER_TYPE"}, "USER_TYPE"),
            ({"loginType": "customer"}, "CUSTOMER_TYPE"),
            ({"loginType": "Customer_Type", "isCustomerService": True}, "CUSTOMER_TYPE"),
            ({"loginType": "user", "isCustomerService": True}, "CUSTOMER_SERVICE"),
        ):
            client = Client(self.services)
            client.connect(**fields)
            self.inbox.settle()
            self.assertEqual(client.take()[0]["fromUserType"], kind)
        self.assertEqual(self.desk_changes, 1)

    def test_cursor(self) -> None:
        """What is in the inbox after the cursor follows at once; what cannot be continued is told."""
        for _ in range(5):
            self.inbox.place("alice")
        client = Client(self.services)
        client.connect(cursor={"epoch": "e1", "seq": 3})
        self.inbox.settle()
        frames = client.take()
        self.assertEqual((frames[0]["seq"], frames[0]["recovered"]), (3, True))
        self.assertEqual([frame["seq"] for frame in frames[1:]], [4, 5])
        for cursor in ({"epoch": "e0", "seq": 3}, {"epoch": "e1", "seq": 6}, {"epoch": "e1", "seq": -1},
                       {"epoch": "e1", "seq": 10**30}):  # fmt: skip
            client = Client(self.services)
            client.connect(cursor=cursor)
            self.inbox.settle()
            self.assertFalse(client.take()[0]["recovered"], cursor)

    def test_before_connect(self) -> None:
        """Whatever comes before the connect signal is forbidden, and the client may still connect."""
        client = Client(self.services)
        client.send(to="bob", msg="hi", clientMsgId="c-1")
        self.assert_error(client, "forbidden", "c-1")
        client.send(to="bob", msg="hi")
        client.send(type="ping")
        client.send(type="ack", seq=0)
        self.assertEqual(client.brief(), [("error", None, "forbidden")] * 3)
        client.connect()
        self.inbox.settle()
        self.assertEqual(client.take()[0]["type"], "connected")

    def test_twice(self) -> None:
        """A second connect signal is a bad frame; the connection stays as it is."""
        client = self.connected()
        client.connect("bob")
        self.assert_error(client, "bad_frame")
        client.send(type="ping")
        self.assertEqual(client.take()[0]["type"], "pong")
        self.assertEqual(len(self.sessions), 1)

    def test_not_in_time(self) -> None:
        """Without a connect signal in time it is closed with 4002, be there other frames or not."""
        client = Client(self.services)
        client.send(type="ping")
        self.clock.advance(9.9)
        self.assertIsNone(client.closed)
        self.clock.advance(0.2)
        self.assertEqual(client.closed, 4002)

    def test_refused(self) -> None:
        """A connect signal that fails the rules is answered, and another one may follow."""
        for fields in ({"userId": ""}, {"userId": "x" * 129}, {"userId": "a\n"}, {"userId": None},
                       {"device": ""}, {"device": "\x00"}, {"loginType": None}, {"loginType": "admin"},
                       {"attempt": 2**60}):  # fmt: skip
            client = Client(self.services)
            client.send(**{"isConnect": True, "userId": "alice", "loginType": "user", **fields})
            self.assert_error(client, "invalid_message")
            client.connect()
            self.inbox.settle()
            self.assertEqual(client.take()[0]["type"], "connected", fields)

    def test_frames_that_come_too_soon(self) -> None:
        """Frames right behind the connect signal wait for it, and are answered in their order."""
        client = Client(self.services)
        client.connect()
        client.send(type="ping")
        client.send(to="bob", msg="hi", clientMsgId="c-1")
        client.send(type="nonsense")
        self.assertEqual((client.take(), client.wire.reading), ([], False))
        self.settle()
        self.assertTrue(client.wire.reading)
        kinds = [kind for kind, _, _ in client.brief()]
        self.assertEqual(kinds, ["connected", "pong", "accepted", "error"])

    def test_inbox_down(self) -> None:
        """A connect that cannot be served is unavailable, and may come back (4100)."""
        client = Client(self.services)
        client.connect()
        self.inbox.refuse()
        [frame] = client.take()
        self.assertEqual((frame["code"], frame["temporary"]), ("unavailable", True))
        self.assertEqual((client.closed, self.sessions), (4100, {}))
        self.assertEqual(len(self.leaves), 1, "it may have been registered all the same")
        client.connection.lost(clean=True)
        self.assertEqual(len(self.leaves), 1)

    def test_too_many(self) -> None:
        """A user with too many channels is told so, and may come back (4100)."""
        self.inbox.channels_per_user = 1
        self.connected(device="phone")
        client = Client(self.services)
        client.connect(device="laptop")
        self.inbox.settle()
        self.assert_error(client, "rate_limited")
        self.assertEqual((client.closed, len(self.sessions)), (4100, 1))

    def test_replaces(self) -> None:
        """A new channel of a device closes the old one with 4003; other devices stay."""
        other, old = self.connected(device="laptop"), self.connected(device="phone")
        self.connected(device="phone")
        self.assertEqual((old.closed, other.closed), (4003, None))
        old.connection.lost(clean=True)
        self.inbox.settle()
        self.assertEqual(len(self.inbox.of("alice").channels), 2)

    def test_older_attempt(self) -> None:
        """An older attempt never replaces a newer channel."""
        newer = self.connected(attempt=2)
        client = Client(self.services)
        client.connect(attempt=1)
        self.inbox.settle()
        self.assertEqual((client.closed, newer.closed, len(self.sessions)), (4003, None, 1))

    def test_gone_meanwhile(self) -> None:
        """A client that goes while it is being registered leaves nothing behind."""
        client = Client(self.services)
        client.connect()
        client.connection.lost(clean=False)
        self.inbox.settle()
        self.assertEqual((self.sessions, self.inbox.of("alice").channels, client.take()), ({}, {}, []))

    def test_closed_meanwhile(self) -> None:
        """So does one whose registration takes longer than it may."""
        client = Client(self.services)
        client.connect()
        self.clock.advance(11)
        self.assertEqual(client.closed, 4100, "it did what it had to")
        self.inbox.settle()
        client.connection.lost(clean=True)
        self.inbox.settle()
        self.assertEqual((self.sessions, self.inbox.of("alice").channels), ({}, {}))

    def test_hint_meanwhile(self) -> None:
        """A message accepted while the channel is being registered is not missed."""
        client = Client(self.services)
        client.connect()
        self.inbox.perform()
        self.services.router.deliver([self.inbox.place("alice")])
        self.inbox.settle()
        self.assertEqual([kind for kind, _, _ in client.brief()], ["connected", "message"])


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
        client.send(clientMsgId="7", type="typing")
        client.send(clientMsgId="8", to="bob", msg="hi")
        self.assertEqual(client.take(), [])
        self.settle()
        codes = [None, "invalid_message", "forbidden", "bad_frame", None, "too_large", "unknown_type", None]
        expected = [
            ("error" if code else "accepted", str(number), code) for number, code in enumerate(codes, 1)
        ]
        self.assertEqual(client.brief(), expected)

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
                client.connection.leaving(100)
            self.queue.confirm(before)
            self.assertFalse(client.wire.reading)
            self.queue.confirm(before + 1)
            self.assertIs(client.wire.reading, not leaving)


class RateTests(ConnectionTestCase):
    limits = Limits(messages_per_second=10, burst=3, group_members=100)

    def test_rate_limited(self) -> None:
        """Messages past the burst are refused in their turn, and told when to come again."""
        client = self.connected()
        for number in range(5):
            client.send(clientMsgId=str(number), to="bob", msg="hi")
        self.settle()
        frames = client.take()
        codes = [frame.get("code", frame["type"]) for frame in frames]
        self.assertEqual(codes, ["accepted"] * 3 + ["rate_limited"] * 2)
        self.assertEqual((frames[3]["temporary"], frames[3]["retryAfterMs"]), (True, 100))
        self.clock.advance(frames[3]["retryAfterMs"] / 1000)
        client.send(clientMsgId="again", to="bob", msg="hi")
        self.settle()
        self.assertEqual(client.brief(), [("accepted", "again", None)])

    def test_lists_cost_more(self) -> None:
        """A list counts a tenth for each recipient."""
        client = self.connected()
        client.send(clientMsgId="1", group=[f"u{n}" for n in range(30)], msg="hi")
        client.send(clientMsgId="2", to="bob", msg="hi")
        self.settle()
        self.assertEqual(client.brief(), [("accepted", "1", None), ("error", "2", "rate_limited")])

    def test_never(self) -> None:
        """What can never be accepted is told so; its size costs nothing."""
        client = self.connected()
        lists = [[f"u{n}" for n in range(5000)], [*(f"u{n}" for n in range(99)), ""]]
        client.send(clientMsgId="1", group=lists[0], msg="hi")
        client.send(clientMsgId="2", group=lists[1], msg="hi")
        client.send(clientMsgId="3", to="bob", msg="hi")
        self.settle()
        self.assertEqual(
            client.brief(),
            [("error", "1", "too_large"), ("error", "2", "invalid_message"), ("accepted", "3", None)],
        )

    def test_list_of_all_members(self) -> None:
        """The longest list that is allowed passes with a full bucket; what follows hardly waits."""
        client = self.connected()
        client.send(clientMsgId="1", group=[f"u{n}" for n in range(100)], msg="hi")
        self.settle()
        client.take()
        self.clock.advance(0.11)
        client.send(clientMsgId="2", to="bob", msg="hi")
        self.settle()
        self.assertEqual(client.brief(), [("accepted", "2", None)])


class BadFrameTests(ConnectionTestCase):
    def test_again_and_again(self) -> None:
        """32 bad frames in a row, and it is closed with 4000."""
        client = self.connected()
        for _ in range(31):
            client.connection.frame_received(b"nonsense")
        self.assertIsNone(client.closed)
        client.connection.binary_received()
        self.assertEqual(client.closed, 4000)
        self.assertEqual(client.brief(), [("error", None, "bad_frame")] * 32)
        client.connection.frame_received(b"nonsense")
        client.connection.binary_received()
        self.assertEqual(client.take(), [])

    def test_before_connect(self) -> None:
        """The same before the connect signal."""
        client = Client(self.services)
        for _ in range(32):
            client.connection.frame_received(b"[]")
        self.assertEqual(client.closed, 4000)

    def test_now_and_then(self) -> None:
        """A frame that can be read begins the count anew; an unknown type does not count."""
        client = self.connected()
        for _ in range(5):
            for _ in range(31):
                client.connection.frame_received(b"nonsense")
            client.send(type="ping")
        for _ in range(100):
            client.send(type="typing")
        self.assertIsNone(client.closed)


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
        """What comes between a client's close frame and the end of its connection was not sent to it."""
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
        """A node that leaves says so, reads nothing more, and still answers."""
        client = self.connected()
        client.send(clientMsgId="1", to="bob", msg="hi")
        client.connection.leaving(700)
        self.assertEqual(client.take(), [{"type": "leaving", "reconnectMs": 700}])
        self.assertFalse(client.wire.reading)
        self.settle()
        self.assertEqual(client.brief(), [("accepted", "1", None)])
        client.connection.close(4200, "the node is leaving")
        client.connection.close(4200, "again")
        self.assertEqual(client.closed, 4200)

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
        self.assertEqual((self.sessions, self.clock.getDelayedCalls()), ({}, []))


class HistoryTests(ConnectionTestCase):
    def test_large_messages(self) -> None:
        """A page has so many bytes at most: its newest messages; one that has more comes alone."""
        client = self.connected()
        for sizes, expected in (([700_000, 500_000, 500_000], 2), ([10, 2_000_000], 1), ([10, 10], 2)):
            client.send(type="history", with_="bob")
            bodies = [b'{"id":"%d","msg":"%b"}' % (n, b"x" * size) for n, size in enumerate(sizes)]
            self.archive.asked[-1][1].callback(History(bodies, more=False))
            [page] = client.take()
            ids = [message["id"] for message in page["messages"]]
            self.assertEqual(ids, [str(n) for n in range(len(sizes))][-expected:])
            self.assertEqual(page["more"], expected < len(sizes))

    def test_page(self) -> None:
        """A page of one's own conversation, with the request's `ref`."""
        client = self.connected()
        client.send(type="history", ref="h1", with_="bob", before="1f", limit=2)
        [(query, page)] = self.archive.asked
        self.assertEqual((query.viewer, query.before, query.limit), ("alice", "1f", 2))
        page.callback(History([b'{"id":"1"}', b'{"id":"2"}'], more=True))
        expected = {"type": "history", "ref": "h1", "messages": [{"id": "1"}, {"id": "2"}], "more": True}
        self.assertEqual(client.take(), [expected])

    def test_scope(self) -> None:
        """Which conversation is asked for: of two, of a list in any order, of all; always one's own."""
        client = self.connected()
        wanted: list[dict[str, Any]] = [
            {"with_": "bob"}, {"group": ["bob"]}, {"group": ["bob", "carol"]},
            {"group": ["carol", "alice", "bob", "bob"]}, {"all": True},
        ]  # fmt: skip
        for fields in wanted:
            client.send(type="history", **fields)
            self.archive.asked[-1][1].callback(History())
        ids = [query.conversation for query, _ in self.archive.asked]
        self.assertEqual(ids[0], ids[1])
        self.assertEqual(ids[2], ids[3])
        self.assertEqual((len(set(ids)), ids[4]), (3, None))

    def test_refused(self) -> None:
        """A request that asks for nothing, or for too much, is refused with its `ref`."""
        client = self.connected()
        client.send(type="history", ref="h1")
        [frame] = client.take()
        self.assertEqual((frame["code"], frame["ref"]), ("invalid_message", "h1"))

    def test_before_nothing(self) -> None:
        """An empty `before`, and one that is null, is none."""
        client = self.connected()
        for before in ("", None):
            client.send(type="history", all=True, before=before)
        self.assertEqual([query.before for query, _ in self.archive.asked], [None, None])

    def test_down(self) -> None:
        """While the archive is down history is unavailable."""
        client = self.connected()
        client.send(type="history", ref="h1", all=True)
        self.archive.asked[0][1].errback(Unavailable("mongodb is down"))
        [frame] = client.take()
        self.assertEqual((frame["code"], frame["ref"], frame["temporary"]), ("unavailable", "h1", True))

    def test_too_many_at_once(self) -> None:
        """A few requests may be under way; more are refused until one is answered."""
        client = self.connected()
        for _ in range(5):
            client.send(type="history", all=True)
        self.assert_error(client, "rate_limited")
        self.assertEqual(len(self.archive.asked), 4)
        self.archive.asked[0][1].callback(History())
        client.take()
        client.send(type="history", all=True)
        self.assertEqual(len(self.archive.asked), 5)

    def test_gone(self) -> None:
        """An answer to a client that has gone goes nowhere, nor does a failure."""
        client = self.connected()
        for _ in range(2):
            client.send(type="history", all=True)
        client.connection.lost(clean=True)
        self.archive.asked[0][1].callback(History())
        self.archive.asked[1][1].errback(Unavailable("mongodb is down"))
        self.assertEqual(client.take(), [])


class VisitorTests(ConnectionTestCase):
    def visitor(self, **fields: Any) -> tuple[Client, list[dict[str, Any]]]:
        client = Client(self.services)
        client.send(isConnect=True, isVisitor=True, **fields)
        self.inbox.settle()
        return client, client.take()

    def test_named_by_the_server(self) -> None:
        """A visitor is given a name and a token; with the token it is the same visitor again."""
        _, [frame] = self.visitor()
        self.assertTrue(frame["userId"].startswith("visitor-"))
        self.assertEqual(frame["fromUserType"], "VISITOR_TYPE")
        for name in ("visitorToken", "token"):
            _, [again] = self.visitor(**{name: frame["visitorToken"]})
            self.assertEqual(again["userId"], frame["userId"])
        _, [another] = self.visitor()
        self.assertNotEqual(another["userId"], frame["userId"])

    def test_wrong_token(self) -> None:
        """A token that is none, or that nobody knows (any more), is unauthorized (4001)."""
        _, [frame] = self.visitor()
        token = frame["visitorToken"]
        self.inbox.visitors.clear()
        for wrong in (token, "nonsense", token[:-1]):
            client, _ = self.visitor(visitorToken=wrong)
            self.assertEqual((client.closed, len(self.sessions)), (4001, 1))

    def test_name_is_theirs_alone(self) -> None:
        """Nobody else can have a visitor's name."""
        client = Client(self.services)
        client.connect("visitor-1")
        self.assertEqual(client.take()[0]["code"], "forbidden")
        self.assertEqual(self.sessions, {})

    def test_inbox_down(self) -> None:
        """A visitor that cannot be remembered is not let in."""
        client = Client(self.services)
        client.send(isConnect=True, isVisitor=True)
        self.inbox.refuse()
        self.assert_error(client, "unavailable")
        self.assertEqual(client.closed, 4100)

    def test_message(self) -> None:
        """A visitor writes to the desk without a `to`, and never to a list."""
        client, _ = self.visitor()
        client.send(clientMsgId="1", msg="is anyone there?")
        client.send(clientMsgId="2", msg="hi", group=["alice"])
        self.settle()
        self.assertEqual(client.brief(), [("accepted", "1", None), ("error", "2", "forbidden")])


class NoVisitorTests(ConnectionTestCase):
    auth = replace(Auth(), visitors=False)

    def test_not_admitted(self) -> None:
        """Where visitors are not admitted they are unauthorized."""
        client = Client(self.services)
        client.send(isConnect=True, isVisitor=True)
        self.assertEqual(client.closed, 4001)


class TokenTests(ConnectionTestCase):
    auth = Auth(mode="jwt", secret=SECRET, leeway_seconds=5.0)

    def token(self, seconds: float, **claims: Any) -> str:
        """A token that expires so many seconds from now."""
        exp = self.unix_seconds() + seconds
        claims = {"sub": "alice", "loginType": "USER_TYPE", "exp": exp, **claims}
        return jwt.encode(claims, SECRET, algorithm="HS256")

    def with_token(self, seconds: float, **claims: Any) -> Client:
        client = Client(self.services)
        client.send(isConnect=True, token=self.token(seconds, **claims))
        self.inbox.settle()
        return client

    def test_roles_of_the_token(self) -> None:
        """User and roles are the token's, whatever the frame says."""
        client = Client(self.services)
        client.send(isConnect=True, token=self.token(60), loginType="user", isCustomerService=True)
        self.inbox.settle()
        [frame] = client.take()
        self.assertEqual((frame["userId"], frame["fromUserType"]), ("alice", "USER_TYPE"))
        self.assertEqual(frame["exp"], (START + 60) * 1000)

    def test_authorization_header(self) -> None:
        """The header's token serves too."""
        client = Client(self.services, bearer=self.token(60))
        client.send(isConnect=True)
        self.inbox.settle()
        self.assertEqual(client.take()[0]["userId"], "alice")

    def test_unauthorized(self) -> None:
        """Without a good token it is closed with 4001: missing, bad, expired, another's."""
        for fields in ({}, {"token": "nonsense"}, {"token": self.token(-6)}, {"token": self.token(60) + "x"},
                       {"token": self.token(60), "userId": "bob"}):  # fmt: skip
            client = Client(self.services)
            client.send(isConnect=True, loginType="user", **fields)
            self.inbox.settle()
            self.assertEqual(client.closed, 4001, fields)
        self.assertEqual((self.sessions, self.inbox.asked), ({}, []))

    def test_expires(self) -> None:
        """At `exp` plus the leeway it is closed with 4001; until then a token that is over lets one in."""
        for seconds in (60, -3):
            client = self.with_token(seconds)
            self.assertEqual(client.take()[0]["exp"], (self.unix_seconds() + seconds) * 1000)
            self.clock.advance(seconds + 4.9)
            self.assertIsNone(client.closed)
            self.clock.advance(0.2)
            self.assertEqual(client.closed, 4001)

    def test_clock_that_is_set(self) -> None:
        """It is the wall clock that says when `exp` is, whatever it is set to meanwhile."""
        client = self.with_token(100)
        self.set_by = -1000.0
        self.clock.advance(200)
        self.assertIsNone(client.closed)
        self.clock.pump([300] * 4)
        self.assertEqual(client.closed, 4001)
        client = self.with_token(4000)
        self.set_by = 10_000.0
        self.clock.advance(300)
        self.assertEqual(client.closed, 4001)

    def test_renewed(self) -> None:
        """A newer token before that keeps it open until its own `exp`."""
        client = self.with_token(60)
        client.take()
        self.clock.advance(50)
        client.send(type="token", token=self.token(60))
        self.assertEqual(client.take(), [{"type": "token", "exp": (START + 110) * 1000}])
        self.clock.advance(64)
        self.assertIsNone(client.closed)
        self.clock.advance(2)
        self.assertEqual(client.closed, 4001)

    def test_not_renewed(self) -> None:
        """A token that is bad, expired, another's or with other roles is refused, and the old one stands."""
        client = self.with_token(60)
        client.take()
        for token in (
            "nonsense",
            self.token(-6),
            self.token(90, sub="bob"),
            self.token(90, loginType="customer"),
            self.token(90, isCustomerService=True),
        ):
            client.send(type="token", token=token)
            self.assert_error(client, "forbidden")
        self.clock.advance(66)
        self.assertEqual(client.closed, 4001)

    def test_no_timer_left(self) -> None:
        """What is gone, or closed, does not expire any more."""
        self.with_token(60).connection.lost(clean=True)
        self.with_token(60).connection.close(4200, "")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class NoTokenTests(ConnectionTestCase):
    def test_open_mode(self) -> None:
        """In open mode there are no tokens to renew."""
        client = self.connected()
        client.send(type="token", token="t")
        self.assert_error(client, "invalid_message")
