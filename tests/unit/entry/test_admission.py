"""Admission: the user, device and role that a connect signal gets."""

from __future__ import annotations

from typing import Any

import jwt
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imd.config.settings import Auth
from imd.entry.admission import MAX_NUMBER, Admission, Door, check_visitor, connect_request
from imd.entry.auth import Authenticator
from imd.entry.newcomers import Newcomers
from imd.protocol.author import Author
from imd.protocol.errors import (
    CLOSE_OVERLOADED,
    CLOSE_UNAUTHORIZED,
    INVALID_MESSAGE,
    RATE_LIMITED,
    Closing,
    Refused,
)
from imd.protocol.frames import ConnectFrame, Cursor
from imd.protocol.message import FromUserType
from tests.support.doubles import InboxDouble


def door(auth: Auth | None = None, per_hour: int = 0) -> Door:
    auth = auth or Auth()
    newcomers = Newcomers(per_hour, lambda: 0.0, lambda draw: draw())
    return Door(auth, Authenticator(auth, lambda: 0.0), newcomers)


def admitted(auth: Auth | None = None, bearer: str | None = None, **fields: Any) -> Admission:
    return door(auth).admit(ConnectFrame(is_connect=True, **fields), bearer, "192.0.2.7")


class AdmitTests(SynchronousTestCase):
    def test_roles(self) -> None:
        """In open mode the frame says which role a user has."""
        for fields, role in (
            ({"login_type": "USER_TYPE"}, FromUserType.USER_TYPE),
            ({"login_type": "customer"}, FromUserType.CUSTOMER_TYPE),
            ({"login_type": "USER_TYPE", "is_customer_service": True}, FromUserType.CUSTOMER_SERVICE),
        ):
            author = admitted(user_id="alice", **fields).author
            self.assertEqual((author.user, author.device, author.type), ("alice", "default", role))

    def test_refused(self) -> None:
        """A frame without a role, or with a bad device or attempt, is refused."""
        for fields in ({}, {"login_type": "nobody"}, {"login_type": "USER_TYPE", "device": ""},
                       {"login_type": "USER_TYPE", "attempt": 1 << 60}):  # fmt: skip
            refused = self.assertRaises(Refused, admitted, user_id="alice", **fields)
            self.assertEqual(refused.code, INVALID_MESSAGE, fields)

    def test_empty(self) -> None:
        """An empty token of a visitor counts as left out."""
        for tokens in ({"visitor_token": ""}, {"token": ""}, {"visitor_token": "", "token": ""}):
            new = admitted(is_visitor=True, **tokens)
            self.assertEqual((new.known_visitor, bool(new.visitor_token)), (False, True), tokens)
        again = admitted(is_visitor=True, visitor_token="", token=new.visitor_token)
        self.assertEqual((again.author.user, again.known_visitor), (new.author.user, True))
        auth = Auth(mode="jwt", secret="a secret of more than 32 bytes, for tests")
        claims = {"sub": "alice", "loginType": "USER_TYPE", "exp": 60}
        token = jwt.encode(claims, auth.secret, algorithm="HS256")
        user = admitted(auth, is_visitor=True, visitor_token="", token=token)
        self.assertEqual(user.author.user, "alice")

    def test_new_visitor(self) -> None:
        """A new visitor gets a name and a token, which admits it again."""
        first = admitted(is_visitor=True)
        self.assertEqual((first.author.type, first.known_visitor), (FromUserType.VISITOR_TYPE, False))
        again = admitted(is_visitor=True, visitor_token=first.visitor_token)
        self.assertEqual((again.author.user, again.known_visitor), (first.author.user, True))
        self.assertEqual(again.token_hash, first.token_hash)

    def test_new_visitors_are_counted(self) -> None:
        """Only new visitors count for their address; one that the node could not serve is given back."""
        entry = door(per_hour=1)

        def come(**fields: Any) -> Admission:
            return entry.admit(ConnectFrame(is_connect=True, is_visitor=True, **fields), None, "192.0.2.7")

        first = come()
        closing = self.assertRaises(Closing, come)
        assert closing.refused is not None
        self.assertEqual((closing.code, closing.refused.code), (CLOSE_OVERLOADED, RATE_LIMITED))
        again = come(visitor_token=first.visitor_token)
        entry.unavailable(again)
        self.assertRaises(Closing, come)
        entry.unavailable(first)
        come()

    def test_no_visitors(self) -> None:
        """A node may admit no visitors."""
        closing = self.assertRaises(Closing, admitted, Auth(visitors=False), is_visitor=True)
        self.assertEqual(closing.code, CLOSE_UNAUTHORIZED)


class VisitorTests(SynchronousTestCase):
    def check(self, inbox: InboxDouble, admission: Admission) -> Any:
        done = Deferred.fromCoroutine(check_visitor(admission, inbox))
        inbox.settle()
        return done

    def test_tokens_in_the_inbox(self) -> None:
        """A new token is stored; an old one has to be there."""
        inbox = InboxDouble()
        new = admitted(is_visitor=True)
        old = admitted(is_visitor=True, visitor_token=new.visitor_token)
        closing = self.failureResultOf(self.check(inbox, old), Closing).value
        self.assertEqual(closing.code, CLOSE_UNAUTHORIZED)
        self.successResultOf(self.check(inbox, new))
        self.successResultOf(self.check(inbox, old))


class RequestTests(SynchronousTestCase):
    def test_cursor(self) -> None:
        """A cursor's number is kept within the numbers that a store can hold."""
        author = Author("alice", "phone", FromUserType.CUSTOMER_SERVICE)
        for seq, kept in ((7, 7), (-5, -1), (1 << 70, MAX_NUMBER)):
            request = connect_request(ConnectFrame(is_connect=True, cursor=Cursor("e", seq)), author)
            self.assertEqual((request.epoch, request.seq), ("e", kept))
        self.assertTrue(request.answers_visitors)
        self.assertIsNone(connect_request(ConnectFrame(is_connect=True), author).epoch)
