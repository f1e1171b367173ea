"""Events as inboxes and the archive keep them."""

from __future__ import annotations

import msgspec
from twisted.trial import unittest

from imd.protocol import events
from imd.protocol.events import Concerned, Edit, React, Recall, RoomEvent, RoomMessage
from imd.protocol.message import IMessage, decode_message, encode_message

DATA = msgspec.Raw(b'{ "n": 1.0 }')
ALL = (
    RoomMessage("1", "c", "alice", "USER_TYPE", "r-1", 7, "hi", mentions=["bob"], data=DATA, send_time=5),
    Edit("1", "0", "c", "alice", "USER_TYPE", "bob", msg="hello", data=DATA, send_time=5),
    Recall("1", "0", "c", "visitor-1", "VISITOR_TYPE", send_time=5, is_visitor=True),
    React("1", "0", "c", "alice", "USER_TYPE", group=["bob"], reaction="👍", on=False, send_time=5),
    RoomEvent("1", "r-1", 3, "add", "c", "alice", "USER_TYPE", [Concerned("bob", "admin")], 2, send_time=5),
)


class EventTests(unittest.TestCase):
    def test_there_and_back(self) -> None:
        """The JSON begins with the kind, holds what was said, and gives the same event."""
        for event in ALL:
            body = events.encode_event(event)
            kind = msgspec.json.decode(body)["kind"]
            self.assertTrue(body.startswith(b'{"kind":"%b",' % kind.encode()))
            self.assertTrue(events.is_event(body))
            self.assertEqual(events.encode_event(events.decode_event(body)), body)
        self.assertIn(b'"on":false', events.encode_event(ALL[3]))
        self.assertFalse(events.is_event(encode_message(IMessage(id="1", msg='{"kind":'))))

    def test_data_stays(self) -> None:
        """`data` is passed on byte for byte."""
        self.assertIn(b'"data":{ "n": 1.0 }', events.encode_event(ALL[0]))
        self.assertIn(b'"data":{ "n": 1.0 }', encode_message(IMessage(data=DATA)))

    def test_split_at_version(self) -> None:
        """Both parts with a version between them are the message under that version, whatever it says."""
        for msg in ("hi", '"roomVersion":1', '\\"roomVersion":1,'):
            message = RoomMessage("1", '"roomVersion":1', "alice", "USER_TYPE", "r-1", 0, msg, send_time=5)
            head, tail = events.split_at_version(message)
            message.room_version = 123
            self.assertEqual(b"%b%d%b" % (head, 123, tail), events.encode_event(message))

    def test_first_copy(self) -> None:
        """A resend in its first form has the first id, time and version, and is the same otherwise."""
        for event in ALL:
            body = events.encode_event(event)
            again = events.decode_event(events.first_copy(body, "0", 1, 9))
            self.assertEqual((again.id, again.send_time), ("0", 1))
            if isinstance(again, RoomMessage):
                self.assertEqual(again.room_version, 9)
                again.room_version = 7
            again.id, again.send_time = "1", 5
            self.assertEqual(events.encode_event(again), body)
        body = encode_message(IMessage(id="2", to="bob", msg="hi", data=DATA, send_time=5))
        message = decode_message(events.first_copy(body, "0", 1, 0))
        self.assertEqual((message.id, message.send_time, bytes(message.data)), ("0", 1, bytes(DATA)))

    def test_checksums(self) -> None:
        """Each thing that was written counts, the kind too; ids and times do not."""
        said = [
            RoomMessage(room="r-1", msg="hi"), RoomMessage(room="r-2", msg="hi"),
            RoomMessage(room="r-1", msg="ho"), RoomMessage(room="r-1", msg="hi", content_type="x"),
            RoomMessage(room="r-1", msg="hi", reply_to="0"), RoomMessage(room="r-1", msg="hi", data=DATA),
            Edit(of="0", msg="hi"), Edit(of="1", msg="hi"), Edit(of="0", msg="hi", mentions=["bob"]),
            Recall(of="0"), Recall(of="1"),
            React(of="0", reaction="👍", on=True), React(of="0", reaction="👍", on=False),
            React(of="0", reaction="👎", on=True),
            IMessage(to="bob", msg="hi"), IMessage(to="bob", msg="hi", reply_to="0"),
            IMessage(to="bob", msg="hi", mentions=["0"]), IMessage(to="bob", msg="hi", data=DATA),
        ]  # fmt: skip
        self.assertEqual(len({one.checksum() for one in said}), len(said))
        one = Edit(of="0", msg="hi", mentions=["a", "b"])
        self.assertEqual(one.checksum(), Edit(id="5", of="0", msg="hi", mentions=["b", "a"]).checksum())

    def test_checksum_of_a_plain_message(self) -> None:
        """It is the one that earlier releases remember."""
        self.assertEqual(IMessage(to="bob", msg="hi", content_type="t").checksum(), "21d27094")
