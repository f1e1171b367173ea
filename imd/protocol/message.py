"""The message, its rules, and the types of senders, as in the seed's `IMessage`."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from zlib import crc32

import msgspec

from imd.protocol.errors import INVALID_MESSAGE, Refused

VISITOR_PREFIX = "visitor-"
MAX_ID_CHARS = 128
MAX_CLIENT_MSG_ID_CHARS = 64

# 1 to 128 characters, no control characters, no lone surrogates.
_USABLE_ID = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_ID_CHARS}}}").fullmatch


class LoginType(enum.Enum):
    """The side of the desk that a user logs in on (the seed's `LoginType`)."""

    USER_TYPE = "USER_TYPE"
    CUSTOMER_TYPE = "CUSTOMER_TYPE"

    @classmethod
    def is_exists(cls, text: str | None) -> LoginType | None:
        """The login type that `text` names in any case, or by its alias; None for anything else."""
        return _LOGIN_TYPES.get(text.lower()) if text else None


_LOGIN_TYPES = {
    "user_type": LoginType.USER_TYPE,
    "user": LoginType.USER_TYPE,
    "customer_type": LoginType.CUSTOMER_TYPE,
    "customer": LoginType.CUSTOMER_TYPE,
}


class FromUserType(enum.Enum):
    """The type of a message's sender (the seed's `FromUserType`)."""

    VISITOR_TYPE = "VISITOR_TYPE"
    CUSTOMER_SERVICE = "CUSTOMER_SERVICE"
    USER_TYPE = "USER_TYPE"
    CUSTOMER_TYPE = "CUSTOMER_TYPE"


def from_user_type(
    login_type: str | None, is_visitor: bool | None, is_customer_service: bool | None
) -> FromUserType | None:
    """The seed's `getFromUserType`. None means that there is no such type."""
    exists = LoginType.is_exists(login_type)
    if exists is None:
        return FromUserType.VISITOR_TYPE if is_visitor else None
    if exists is LoginType.USER_TYPE:
        return FromUserType.CUSTOMER_SERVICE if is_customer_service else FromUserType.USER_TYPE
    return FromUserType.CUSTOMER_TYPE


NO_DATA = msgspec.Raw()


class IMessage(msgspec.Struct, omit_defaults=True, rename="camel", gc=False):
    """One chat message. Its JSON, in this order of fields, is what inboxes and the archive hold.

    `send_time` is in milliseconds since the epoch, by the servers' common clock.
    """

    id: str = ""
    client_msg_id: str | None = None
    user_id: str = ""
    from_user_type: str = ""
    to: str = ""
    group: list[str] | None = None
    msg: str = ""
    content_type: str | None = None
    reply_to: str | None = None
    mentions: list[str] | None = None
    data: msgspec.Raw = NO_DATA
    """a JSON object as it was written; NO_DATA if there is none"""
    send_time: int = 0
    is_visitor: bool = False

    def is_msg_ok(self) -> bool:
        """The seed's `isMsgOK`: there is a sender, a text and a recipient (for a visitor, the desk)."""
        return bool(self.user_id and self.msg and (self.to or self.group or self.is_visitor))

    def is_group_chat(self) -> bool:
        """The seed's `isGroupChat`: a list, no single recipient, and not from a visitor."""
        return bool(self.group) and not self.to and not self.is_visitor

    def set_now_as_send_time(self, now_ms: int) -> None:
        """The seed's `setNowAsSendTime`, with the time that the caller gives."""
        self.send_time = now_ms

    def get_from_user_type(self) -> FromUserType:
        """The seed's `getFromUserType`. The message carries it, as the role belongs to the connection."""
        return FromUserType(self.from_user_type)

    def recipients(self) -> list[str]:
        """Users whose inboxes get this, each once, in order. Empty for a visitor, who writes to the desk."""
        if self.is_visitor:
            return []
        if self.to:
            return [self.to]
        return list(dict.fromkeys(self.group or ()))

    def checksum(self) -> str:
        """A checksum of what the sender wrote: equal for a resend, different for another message.

        It finds mistakes of clients, not attacks: a sender can only collide with messages of its own. The
        order of a group list does not count.
        """
        target = self.to or sorted(set(self.group or ()))
        written = f"{target}\0{self.msg}\0{self.content_type}"
        if self.reply_to is not None or self.mentions is not None or self.data is not NO_DATA:
            written += more_written(self.reply_to, self.mentions, self.data)
        return f"{crc32(written.encode()):x}"


def more_written(reply_to: str | None, mentions: list[str] | None, data: msgspec.Raw) -> str:
    """The part of a checksum for these fields. The order of mentions does not count."""
    return f"\0{reply_to}\0{sorted(set(mentions or ()))}\0{bytes(data).decode()}"


encode_message = msgspec.json.Encoder().encode
decode_message = msgspec.json.Decoder(IMessage).decode


def is_usable_id(text: str) -> bool:
    """True for a user id or device that the protocol allows."""
    # The cache keeps no long text, as strangers choose it.
    return len(text) <= MAX_ID_CHARS and _is_usable(text)


@lru_cache(maxsize=10_000)
def _is_usable(text: str) -> bool:
    return _USABLE_ID(text) is not None


def check_id(name: str, text: str) -> None:
    """Raise Refused (`invalid_message`) for a user id or device that the protocol does not allow."""
    if not is_usable_id(text):
        raise Refused(
            INVALID_MESSAGE,
            f"{name}: 1 to {MAX_ID_CHARS} characters are expected, without control characters",
        )


_is_room_id = re.compile("r-[0-9a-f]{32}").fullmatch


def is_room_id(text: str) -> bool:
    """True for a text that may be the id of a room."""
    return _is_room_id(text) is not None


def is_visitor_id(user_id: str) -> bool:
    return user_id.startswith(VISITOR_PREFIX)


def conversation_members(message: IMessage) -> list[str]:
    """The sorted ids that name the conversation of `message`.

    A visitor's conversation is named by the visitor alone, as its agent may change.
    """
    if message.is_visitor:
        return [message.user_id]
    if message.to:
        return [message.to] if is_visitor_id(message.to) else sorted({message.user_id, message.to})
    members = sorted({message.user_id, *(message.group or ())})
    if len(members) == 2:
        # A list of one is the pair's conversation, and an agent's with a visitor is the visitor's.
        return [one for one in members if is_visitor_id(one)] or members
    return members


def visitor_of(members: Sequence[str]) -> str:
    """The visitor whose conversation these name; empty for another conversation."""
    return members[0] if len(members) == 1 and is_visitor_id(members[0]) else ""


def conversation_id(members: list[str]) -> str:
    """A hash of the sorted ids as JSON, which keeps ids apart whatever characters they have."""
    return blake2b(msgspec.json.encode(members), digest_size=16).hexdigest()
