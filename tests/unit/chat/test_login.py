"""The login: the ways it succeeds and fails, and where its device starts."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from imd.config.settings import Auth
from tests.unit.chat.support import START, Client, ConnectionTestCase, TokenTestCase


class LoginTests(ConnectionTestCase):
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
                           "messagesPerSecond": 50, "dataBytes": 4096, "roomMembers": 1000,
                           "editSeconds": 86400, "recallSeconds": 86400},
            },
        )  # fmt: skip
        self.assertTrue(client.wire.reading)
        self.assertEqual(self.timers(), [])

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
        """Messages after the cursor follow at once; a cursor that cannot be continued is told."""
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
        """Any frame before the connect signal is forbidden, and the client may still connect."""
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

    def test_too_many(self) -> None:
        """Past the hour's new visitors of an address: `rate_limited`, when to come again, and 4100."""
        per_hour = self.limits.visitors_per_address

        def come(address: str, **fields: Any) -> Client:
            client = Client(self.services)
            client.wire.visitors_from = address
            client.send(isConnect=True, isVisitor=True, **fields)
            return client

        tokens = []
        for _ in range(per_hour):
            client = come("192.0.2.7")
            self.inbox.settle()
            tokens.append(client.take()[0]["visitorToken"])
        client = come("192.0.2.7")
        [frame] = client.take()
        self.assertEqual((frame["code"], frame["retryAfterMs"]), ("rate_limited", 3_600_000 // per_hour))
        self.assertEqual((client.closed, self.inbox.calls), (4100, deque()))
        others = (come("192.0.2.8"), come(""), come("192.0.2.7", visitorToken=tokens[0]))
        self.inbox.settle()
        self.assertEqual([other.take()[0]["type"] for other in others], ["connected"] * 3)
        self.clock.advance(3600 / per_hour)
        for expected in ("unavailable", "unavailable"):
            client = come("192.0.2.7")
            self.inbox.refuse()
            self.assertEqual(client.take()[0]["code"], expected, "a node that is down counts nobody")

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


class TokenLoginTests(TokenTestCase):
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
