"""The ids of what a device sends go on from those of what it was given."""

from __future__ import annotations

from twisted.trial import unittest

from imd.chat.reply_order import id_of
from imd.chat.session import BEGINNING_BYTES
from imd.protocol.events import Edit, React, Recall, RoomEvent, RoomMessage
from imd.protocol.ids import is_message_id
from imd.protocol.message import IMessage, encode_message


class IdOfTests(unittest.TestCase):
    def test_each_kind(self) -> None:
        """Messages and all events; one that quotes another id in its text is known by its own."""
        message_id = "0123456789abcdef0123456789ab"
        for kind in (IMessage, RoomMessage, Edit, React, Recall, RoomEvent):
            body = kind(id=message_id)
            if hasattr(body, "msg"):
                body.msg = f'"id":"{"f" * 28}"'
            self.assertEqual(id_of(encode_message(body)[:BEGINNING_BYTES]), message_id)

    def test_no_id(self) -> None:
        """Bytes without an id, of whatever kind, give none."""
        no_text = b'{"id":"%b"}' % (b"\xff" * 28)
        for body in (b"", b"{}", "ü".encode() * 20, b'{"id":""}', b'{"id":"f', no_text):
            self.assertFalse(is_message_id(id_of(body)))
