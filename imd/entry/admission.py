"""The door that reads the connect signal: which user and device connect, and in which role."""

from __future__ import annotations

from dataclasses import dataclass

from imd.config.settings import Auth
from imd.contracts.inbox import ConnectRequest, Inbox
from imd.entry.auth import Authenticator, Identity, read_visitor_token
from imd.entry.newcomers import Newcomers
from imd.protocol import frames
from imd.protocol.author import Author
from imd.protocol.errors import CLOSE_UNAUTHORIZED, FORBIDDEN, INVALID_MESSAGE, Closing, Refused
from imd.protocol.ids import new_channel_id
from imd.protocol.message import FromUserType, check_id, from_user_type, is_visitor_id

MAX_NUMBER = 2**53
STAFF = frozenset({FromUserType.USER_TYPE, FromUserType.CUSTOMER_SERVICE})


@dataclass(frozen=True, slots=True)
class Admission:
    """A client that may come in. Attributes from `visitor_token` on are a visitor's."""

    identity: Identity
    author: Author
    visitor_token: str | None = None
    token_hash: str = ""
    known_visitor: bool = False
    """the visitor sent a token; the inbox must know its hash"""
    address: str = ""
    """of a new visitor, if it was counted"""


class Door:
    """Decides on connect signals."""

    def __init__(self, auth: Auth, authenticator: Authenticator, newcomers: Newcomers) -> None:
        self._auth = auth
        self._authenticator = authenticator
        self._newcomers = newcomers

    def admit(self, frame: frames.ConnectFrame, bearer: str | None, address: str) -> Admission:
        """Decide on a connect signal. `bearer` is the token of the handshake's Authorization header.

        `address` is the one that new visitors are counted by; empty: they are not counted. Raises Refused if
        the frame is wrong, Closing (4001) if the token is, Closing (4100) for a new visitor too many.
        """
        device = "default" if frame.device is None else frame.device
        check_id("device", device)
        if frame.attempt is not None and abs(frame.attempt) > MAX_NUMBER:
            raise Refused(INVALID_MESSAGE, "attempt: a smaller number is expected")
        claimed = from_user_type(frame.login_type, frame.is_visitor, frame.is_customer_service)
        if claimed is FromUserType.VISITOR_TYPE and not _has_jwt(frame, bearer, self._auth):
            return self._admit_visitor(frame, bearer, device, address)
        identity = _identify(frame, bearer, self._authenticator)
        kind = from_user_type(identity.login_type, False, identity.is_customer_service)
        if kind is None:
            raise Refused(INVALID_MESSAGE, "loginType: USER_TYPE or CUSTOMER_TYPE is expected, or isVisitor")
        return Admission(identity, Author(identity.user_id, device, kind))

    def _admit_visitor(
        self, frame: frames.ConnectFrame, bearer: str | None, device: str, address: str
    ) -> Admission:
        """Admit the visitor that the token names, or a new one with a new name and token."""
        if not self._auth.visitors:
            raise Closing(CLOSE_UNAUTHORIZED, "visitors are not admitted")
        token = frame.visitor_token or frame.token
        if not token and bearer and is_visitor_id(bearer):
            token = bearer
        known = bool(token)
        if not token:
            user_id, token, token_hash = self._newcomers.welcome(address)
        else:
            user_id, token_hash = read_visitor_token(token)
        identity = Identity(user_id, None, False, None)
        author = Author(user_id, device, FromUserType.VISITOR_TYPE)
        return Admission(identity, author, token, token_hash, known, "" if known else address)

    def unavailable(self, admission: Admission) -> None:
        """The node could not serve this client: it does not count as a new visitor of its address."""
        self._newcomers.give_back(admission.address)


def _has_jwt(frame: frames.ConnectFrame, bearer: str | None, auth: Auth) -> bool:
    """True if the client sent a token that is not a visitor's, in a mode that reads such tokens."""
    token = frame.token or bearer
    return bool(auth.mode == "jwt" and not frame.visitor_token and token and not is_visitor_id(token))


def _identify(frame: frames.ConnectFrame, bearer: str | None, authenticator: Authenticator) -> Identity:
    try:
        return authenticator.identify(frame, bearer)
    except Refused as refused:
        if refused.code != FORBIDDEN:
            raise
        raise Closing(CLOSE_UNAUTHORIZED, refused.reason, refused) from None


async def check_visitor(admission: Admission, inbox: Inbox) -> None:
    """Store a new visitor's token, or look an old one up. Raises Closing (4001) or Unavailable."""
    if admission.visitor_token is None:
        return
    visitor = admission.author.user
    if not admission.known_visitor:
        await inbox.remember_visitor(visitor, admission.token_hash)
    elif not await inbox.knows_visitor(visitor, admission.token_hash):
        raise Closing(CLOSE_UNAUTHORIZED, "the visitor's token is not known, or has expired")


def connect_request(frame: frames.ConnectFrame, author: Author) -> ConnectRequest:
    """The request for the inbox, with a new channel id."""
    request = ConnectRequest(author.user, author.device, new_channel_id(), attempt=frame.attempt)
    if frame.cursor is not None:
        request.epoch = frame.cursor.epoch
        request.seq = min(max(frame.cursor.seq, -1), MAX_NUMBER)
    request.ephemeral = bool(frame.ephemeral)
    request.answers_visitors = author.type is FromUserType.CUSTOMER_SERVICE
    return request


def flags_of(frame: frames.ConnectFrame, author: Author, *, has_state: bool) -> str:
    """The letters of `ConnectRequest.flags`."""
    hidden = frame.presence is False
    return ("s" if has_state else "") + ("h" if hidden else "") + ("t" if author.type in STAFF else "")
