"""The seed's message object, rule by rule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.protocol.errors import Refused
from imd.protocol.message import (
    FromUserType,
    IMessage,
    LoginType,
    check_id,
    conversation_id,
    conversation_members,
    decode_message,
    encode_message,
    from_user_type,
    is_usable_id,
)


class LoginTypeTests(unittest.TestCase):
    def test_is_exists(self) -> None:
        """`LoginType.isExists`: the two names and their aliases in any case, and nothing else."""
        for text in ("USER_TYPE", "user_type", "User_Type", "user", "USER"):
            self.assertIs(LoginType.is_exists(text), LoginType.USER_TYPE)
        for text in ("CUSTOMER_TYPE", "customer_type", "customer"):
            self.assertIs(LoginType.is_exists(text), LoginType.CUSTOMER_TYPE)
        for nobody in (None, "", "admin", "user ", "VISITOR_TYPE", "usertype"):
            self.assertIsNone(LoginType.is_exists(nobody))


class FromUserTypeTests(unittest.TestCase):
    def test_get_from_user_type(self) -> None:
        """`getFromUserType` for each login type, visitor or not, customer service or not."""
        visitor, service = FromUserType.VISITOR_TYPE, FromUserType.CUSTOMER_SERVICE
        user, customer = FromUserType.USER_TYPE, FromUserType.CUSTOMER_TYPE
        for is_visitor in (None, False, True):
            for is_service in (None, False, True):
                flags = (is_visitor, is_service)
                for nobody in (None, "", "somebody"):
                    self.assertIs(from_user_type(nobody, *flags), visitor if is_visitor else None)
                self.assertIs(from_user_type("USER_TYPE", *flags), service if is_service else user)
                self.assertIs(from_user_type("CUSTOMER_TYPE", *flags), customer)

    def test_of_a_message(self) -> None:
        """A message carries the type of its sender."""
        message = IMessage(from_user_type="CUSTOMER_SERVICE")
        self.assertIs(message.get_from_user_type(), FromUserType.CUSTOMER_SERVICE)

    def test_names(self) -> None:
        """The seed's four types, by the seed's names."""
        names = {"VISITOR_TYPE", "CUSTOMER_SERVICE", "USER_TYPE", "CUSTOMER_TYPE"}
        self.assertEqual({kind.value for kind in FromUserType}, names)


class IMessageTests(unittest.TestCase):
    def test_is_msg_ok(self) -> None:
        """`isMsgOK`: userId and msg not empty, and to not empty, group not empty, or from a visitor."""
        for user_id in ("", "alice"):
            for msg in ("", "hi"):
                for to in ("", "bob"):
                    for group in (None, [], ["bob"]):
                        for is_visitor in (False, True):
                            message = IMessage(
                                user_id=user_id, msg=msg, to=to, group=group, is_visitor=is_visitor
                            )
                            expected = bool(user_id) and bool(msg) and (bool(to) or bool(group) or is_visitor)
                            self.assertIs(message.is_msg_ok(), expected, message)

    def test_is_group_chat(self) -> None:
        """`isGroupChat`: a list, no `to`, and not from a visitor."""
        self.assertTrue(IMessage(group=["bob"]).is_group_chat())
        self.assertFalse(IMessage().is_group_chat())
        self.assertFalse(IMessage(group=[]).is_group_chat())
        self.assertFalse(IMessage(group=["bob"], to="carol").is_group_chat())
        self.assertFalse(IMessage(group=["bob"], is_visitor=True).is_group_chat())

    def test_set_now_as_send_time(self) -> None:
        """`setNowAsSendTime`: milliseconds, by the caller's clock."""
        message = IMessage()
        message.set_now_as_send_time(1764000000123)
        self.assertEqual(message.send_time, 1764000000123)

    def test_recipients(self) -> None:
        """`to` goes before `group`; a list counts each user once, in order; a visitor writes to the desk."""
        self.assertEqual(IMessage(to="bob", group=["carol"]).recipients(), ["bob"])
        self.assertEqual(IMessage(group=["carol", "bob", "carol"]).recipients(), ["carol", "bob"])
        self.assertEqual(IMessage(to="agent", is_visitor=True).recipients(), [])
        self.assertEqual(IMessage().recipients(), [])

    def test_json(self) -> None:
        """The JSON in inboxes and the archive: the seed's names, no empty fields, the id first."""
        message = IMessage(
            id="1", user_id="alice", from_user_type="USER_TYPE", to="bob", msg="hé", send_time=5
        )
        expected = (
            '{"id":"1","userId":"alice","fromUserType":"USER_TYPE","to":"bob","msg":"hé","sendTime":5}'
        )
        self.assertEqual(encode_message(message), expected.encode())

    @given(
        st.builds(
            IMessage,
            id=st.text(max_size=5),
            client_msg_id=st.none() | st.text(max_size=5),
            user_id=st.text(max_size=5),
            to=st.text(max_size=5),
            group=st.none() | st.lists(st.text(max_size=5), max_size=3),
            msg=st.text(),
            send_time=st.integers(0, 2**53),
            is_visitor=st.booleans(),
        )
    )
    def test_there_and_back(self, message: IMessage) -> None:
        """An encoded message is decoded as an equal one."""
        body = encode_message(message)
        self.assertEqual(decode_message(body), message)


class ContentTests(unittest.TestCase):
    def test_resend(self) -> None:
        """A resend has the same checksum, whatever the server added. The order of a list does not count."""
        first = IMessage(id="1", user_id="alice", group=["a", "b", "b"], msg="x", send_time=1)
        again = IMessage(id="2", user_id="alice", group=["b", "a"], msg="x", send_time=2)
        self.assertEqual(first.checksum(), again.checksum())

    def test_something_else(self) -> None:
        """Another recipient, text or content type has another checksum; so has a list of one."""
        messages = [
            IMessage(to="a", msg="x"),
            IMessage(to="b", msg="x"),
            IMessage(to="a", msg="y"),
            IMessage(group=["a"], msg="x"),
            IMessage(group=["a", "b"], msg="x"),
            IMessage(to="a", msg="x", content_type="text/html"),
            IMessage(msg="x"),
            IMessage(to='a"', msg="x"),
            IMessage(to="a", msg='","x'),
        ]
        self.assertEqual(len({message.checksum() for message in messages}), len(messages))


class IdTests(unittest.TestCase):
    def test_usable(self) -> None:
        """1 to 128 characters, without control characters and lone surrogates."""
        for good in ("a", "Zoë", "小明", "a b", "x" * 128, "😀" * 128, "../..", "a:b{c}"):
            self.assertTrue(is_usable_id(good), good)
            check_id("userId", good)
        for bad in ("", "x" * 129, "a\n", "\x00", "a\x7f", "\x85", "a\ud800b", "\udfff", "\n"):
            self.assertFalse(is_usable_id(bad), repr(bad))
            refused = self.assertRaises(Refused, check_id, "userId", bad)
            self.assertEqual(refused.code, "invalid_message")


class ConversationTests(unittest.TestCase):
    def test_both_directions(self) -> None:
        """Two users have one conversation in both directions; a user's own is another."""
        there = conversation_members(IMessage(user_id="alice", to="bob"))
        back = conversation_members(IMessage(user_id="bob", to="alice"))
        self.assertEqual((there, back), (["alice", "bob"], ["alice", "bob"]))
        self.assertEqual(conversation_members(IMessage(user_id="alice", to="alice")), ["alice"])

    def test_group(self) -> None:
        """A list and its sender are one conversation, in any order, for each sender of them."""
        first = conversation_members(IMessage(user_id="alice", group=["bob", "carol", "bob"]))
        second = conversation_members(IMessage(user_id="carol", group=["alice", "bob", "carol"]))
        self.assertEqual((first, second), (["alice", "bob", "carol"], ["alice", "bob", "carol"]))

    def test_visitor(self) -> None:
        """A visitor's conversation is the same with any agent."""
        asked = conversation_members(IMessage(user_id="visitor-1", is_visitor=True))
        named = conversation_members(IMessage(user_id="visitor-1", to="agent", is_visitor=True))
        answered = conversation_members(IMessage(user_id="agent", to="visitor-1"))
        self.assertEqual([asked, named, answered], [["visitor-1"]] * 3)

    def test_ids_do_not_collide(self) -> None:
        """No two conversations share an id, whatever characters the user ids have."""
        members = [["a", "b"], ["a,b"], ['a","b'], ["a", "b", ""], ["ab"], ['a"', "b"], ["a", '"b']]
        self.assertEqual(len({conversation_id(ids) for ids in members}), len(members))
