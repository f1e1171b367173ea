"""From a message frame to a message: the rules that a frame has to pass."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial import unittest

from imd.chat.compose import check, compose
from imd.config.settings import Limits
from imd.contracts.inbox import Submission
from imd.protocol.author import Author
from imd.protocol.errors import BAD_FRAME, FORBIDDEN, INVALID_MESSAGE, TOO_LARGE, Refused
from imd.protocol.frames import MessageFrame
from imd.protocol.ids import MessageIds, ServerClock
from imd.protocol.message import FromUserType, decode_message

ALICE = Author("alice", "phone", FromUserType.USER_TYPE)
VISITOR = Author("visitor-1", "default", FromUserType.VISITOR_TYPE)


class ComposeTests(unittest.TestCase):
    def setUp(self) -> None:
        self.ids = MessageIds(ServerClock(lambda: 1_764_000_000.0, lambda: 0.0))

    def compose(self, author: Author = ALICE, **fields: Any) -> Submission:
        frame = MessageFrame(**fields)
        check(frame, author, Limits(message_bytes=10, group_members=3))
        return compose(frame, author, self.ids)

    def assert_refused(self, code: str, author: Author = ALICE, **fields: Any) -> None:
        refused = self.assertRaises(Refused, self.compose, author, **fields)
        self.assertEqual((refused.code, refused.temporary), (code, False), fields)

    def test_to_one(self) -> None:
        """A message has its sender, the server's id and time, and what was written."""
        submission = self.compose(to="bob", msg="hi", client_msg_id="c-1", content_type="text/plain")
        self.assertEqual((submission.sender, submission.device), ("alice", "phone"))
        self.assertEqual((submission.client_msg_id, list(submission.recipients)), ("c-1", ["bob"]))
        self.assertEqual(submission.send_time, 1_764_000_000_000)
        message = decode_message(submission.body)
        self.assertEqual((message.id, message.send_time), (submission.message_id, submission.send_time))
        self.assertEqual((message.user_id, message.from_user_type), ("alice", "USER_TYPE"))
        self.assertEqual((message.to, message.group, message.msg), ("bob", None, "hi"))
        self.assertEqual((message.client_msg_id, message.content_type), ("c-1", "text/plain"))
        self.assertTrue(message.is_msg_ok())

    def test_to_a_list(self) -> None:
        """A list is a set, and the message keeps it."""
        submission = self.compose(group=["bob", "carol", "bob"], msg="hi", to="")
        self.assertEqual(list(submission.recipients), ["bob", "carol"])
        message = decode_message(submission.body)
        self.assertTrue(message.is_group_chat())

    def test_to_wins(self) -> None:
        """`to` wins over `group`."""
        submission = self.compose(group=["carol"], to="bob", msg="hi")
        self.assertEqual(list(submission.recipients), ["bob"])
        self.assertIsNone(decode_message(submission.body).group)

    def test_from_a_visitor(self) -> None:
        """A visitor's message goes to the desk, which learns whom it names."""
        for to, named in ((None, ""), ("", ""), ("agent", "agent")):
            submission = self.compose(VISITOR, msg="hi", to=to)
            self.assertEqual((list(submission.recipients), submission.visitor_to), ([], named))
            message = decode_message(submission.body)
            self.assertTrue(message.is_visitor)
            self.assertEqual(message.from_user_type, "VISITOR_TYPE")
        self.assert_refused(FORBIDDEN, VISITOR, msg="hi", group=["bob"])

    def test_one_own_user_id(self) -> None:
        """userId is the connection's; naming oneself is fine, anybody else is forbidden."""
        self.compose(to="bob", msg="hi", user_id="alice")
        self.compose(to="bob", msg="hi", user_id="")
        for other in ("bob", "Alice"):
            self.assert_refused(FORBIDDEN, to="bob", msg="hi", user_id=other)

    def test_the_seeds_rules(self) -> None:
        """A message without text or without a recipient is refused."""
        for fields in ({}, {"msg": "hi"}, {"to": "bob"}, {"to": "bob", "msg": ""}, {"msg": "hi", "to": ""},
                       {"msg": "hi", "group": []}, {"msg": "hi", "group": [], "to": ""}):  # fmt: skip
            self.assert_refused(INVALID_MESSAGE, **fields)
        self.assert_refused(INVALID_MESSAGE, VISITOR, to="agent")

    def test_form_comes_first(self) -> None:
        """A frame that is wrong in form is not forbidden yet."""
        other: dict[str, Any] = {"to": "bob", "msg": "hi", "user_id": "bob"}
        long = msgspec.Raw(b'{"a":"' + b"x" * 4096 + b'"}')
        for code, author, fields in (
            (FORBIDDEN, ALICE, other),
            (INVALID_MESSAGE, ALICE, {**other, "msg": ""}),
            (TOO_LARGE, ALICE, {**other, "msg": "x" * 11}),
            (INVALID_MESSAGE, ALICE, {**other, "content_type": "x" * 129}),
            (BAD_FRAME, ALICE, {**other, "data": msgspec.Raw(b"[]")}),
            (TOO_LARGE, ALICE, {"to": "bob", "msg": "hi", "mentions": ["@all"], "data": long}),
            (FORBIDDEN, VISITOR, {"msg": "hi", "room": "r-1"}),
            (INVALID_MESSAGE, VISITOR, {"msg": "", "room": "r-1"}),
            (TOO_LARGE, VISITOR, {"msg": "x" * 11, "group": ["bob"]}),
            (INVALID_MESSAGE, VISITOR, {"msg": "hi", "group": ["bob"], "reply_to": "c-1"}),
            (INVALID_MESSAGE, VISITOR, {"msg": "hi", "group": ["bob"], "room": "r-1"}),
        ):
            self.assert_refused(code, author, **fields)

    def test_ids(self) -> None:
        """Recipients must be ids that a user can have."""
        for bad in ("x" * 129, "a\nb", "\x00"):
            self.assert_refused(INVALID_MESSAGE, to=bad, msg="hi")
            self.assert_refused(INVALID_MESSAGE, group=["bob", bad], msg="hi")
        self.assert_refused(INVALID_MESSAGE, group=["bob", ""], msg="hi")

    def test_too_large(self) -> None:
        """A text is measured in UTF-8, a list by its members; at the limit it passes."""
        self.compose(to="bob", msg="x" * 10)
        self.compose(to="bob", msg="é" * 5)
        self.compose(group=["a", "b", "c"], msg="hi")
        self.assert_refused(TOO_LARGE, to="bob", msg="x" * 11)
        self.assert_refused(TOO_LARGE, to="bob", msg="é" * 6)
        self.assert_refused(TOO_LARGE, group=["a", "b", "c", "d"], msg="hi")
        self.assert_refused(INVALID_MESSAGE, to="bob", msg="hi", content_type="x" * 129)

    def test_content(self) -> None:
        """The content tells a resend from another message; without a clientMsgId nobody asks."""
        first = self.compose(to="bob", msg="hi", client_msg_id="c-1")
        again = self.compose(to="bob", msg="hi", client_msg_id="c-1")
        other = self.compose(to="bob", msg="ho", client_msg_id="c-1")
        self.assertEqual(first.checksum, again.checksum)
        self.assertNotEqual(first.checksum, other.checksum)
        self.assertLess(first.message_id, again.message_id)

    def test_refused_takes_no_id(self) -> None:
        """Ids are made in the order of the messages that pass."""
        first = self.compose(to="bob", msg="hi")
        self.assert_refused(INVALID_MESSAGE, to="bob")
        second = self.compose(to="bob", msg="hi")
        self.assertEqual(int(second.message_id[12:18], 16) - int(first.message_id[12:18], 16), 1)

    def test_more(self) -> None:
        """Fields that few messages have are passed on as written, and count for a resend."""
        fields = {"to": "bob", "msg": "hi", "client_msg_id": "c-1"}
        more = {"reply_to": "0" * 28, "mentions": ["bob", "bob"], "data": msgspec.Raw(b'{ "a": 1.0 }')}
        submission = self.compose(**fields, **more)
        self.assertIn(b'"data":{ "a": 1.0 },', submission.body)
        message = decode_message(submission.body)
        self.assertEqual((message.reply_to, message.mentions), ("0" * 28, ["bob", "bob"]))
        plain = self.compose(**fields)
        for name, value in more.items():
            self.assertNotEqual(self.compose(**fields, **{name: value}).checksum, plain.checksum)

    def test_nothing_more(self) -> None:
        """Null and empty count as left out."""
        plain = self.compose(to="bob", msg="hi", client_msg_id="c-1")
        empty = self.compose(
            to="bob",
            msg="hi",
            client_msg_id="c-1",
            content_type="",
            reply_to="",
            mentions=[],
            data=msgspec.Raw(b"null"),
        )
        self.assertEqual(empty.checksum, plain.checksum)
        self.assertEqual(set(msgspec.json.decode(empty.body)), set(msgspec.json.decode(plain.body)))

    def test_more_that_is_wrong(self) -> None:
        """Form and limits; everybody can be mentioned in rooms only."""
        for code, fields in (
            (INVALID_MESSAGE, {"reply_to": "c-1"}),
            (INVALID_MESSAGE, {"reply_to": "A" * 28}),
            (INVALID_MESSAGE, {"mentions": ["bob", "@all"]}),
            (INVALID_MESSAGE, {"mentions": ["bob", ""]}),
            (TOO_LARGE, {"mentions": [f"u{n}" for n in range(51)]}),
            (FORBIDDEN, {"mentions": ["@all"]}),
            (BAD_FRAME, {"data": msgspec.Raw(b"[]")}),
            (TOO_LARGE, {"data": msgspec.Raw(b'{"a":"' + b"x" * 4096 + b'"}')}),
        ):
            self.assert_refused(code, to="bob", msg="hi", **fields)
        self.compose(to="bob", msg="hi", mentions=[f"u{n}" for n in range(50)])
