"""Wire frames in and out (docs/protocol.md): JSON to typed objects and back. No I/O, no state.

`decode` returns one of the client frames below, or raises Refused. The encoders return the payload of
one text frame as bytes; its first key is always `type`, or `seq`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from imd.protocol.errors import BAD_FRAME, INVALID_MESSAGE, UNKNOWN_TYPE, Refused
from imd.protocol.message import MAX_CLIENT_MSG_ID_CHARS, check_id

# ---- frames from clients


class Cursor(msgspec.Struct):
    """A device's place in its inbox: the last number that it has, and that number's epoch."""

    epoch: str
    seq: int


class ConnectFrame(msgspec.Struct, rename="camel"):
    """The connect signal, the first frame of every connection."""

    is_connect: bool
    user_id: str | None = None
    login_type: str | None = None
    is_customer_service: bool | None = None
    is_visitor: bool | None = None
    token: str | None = None
    visitor_token: str | None = None
    device: str | None = None
    attempt: int | None = None
    ack: bool | None = None
    cursor: Cursor | None = None
    ephemeral: bool | None = None
    v: int | None = None


class MessageFrame(msgspec.Struct, rename="camel"):
    """A chat message. A connect signal is decoded as one first; `is_connect` tells it apart."""

    type: str | None = None
    client_msg_id: str | None = None
    user_id: str | None = None
    to: str | None = None
    group: list[str] | None = None
    msg: str | None = None
    content_type: str | None = None
    is_connect: bool | None = None


class AckFrame(msgspec.Struct):
    """Everything up to `seq` has arrived. `epoch` is the number's; None if the client did not say."""

    seq: int
    epoch: str | None = None


class HistoryFrame(msgspec.Struct, rename={"with_": "with"}):
    """A request for a page of the archive: exactly one of `with_`, `group` and `all` is given."""

    ref: str | None = None
    with_: str | None = None
    group: list[str] | None = None
    all: bool | None = None
    before: str | None = None
    limit: int = 50


class PingFrame(msgspec.Struct):
    """A question for the server's time, which also shows that the server is there."""


class TokenFrame(msgspec.Struct):
    """A newer token for the connection."""

    token: str


ClientFrame = ConnectFrame | MessageFrame | AckFrame | HistoryFrame | PingFrame | TokenFrame


class _TypeOnly(msgspec.Struct):
    type: str | None = None
    client_msg_id: Any = msgspec.field(default=None, name="clientMsgId")


_decode_message = msgspec.json.Decoder(MessageFrame).decode
_decode_type = msgspec.json.Decoder(_TypeOnly).decode
_decode_connect = msgspec.json.Decoder(ConnectFrame).decode
_DECODERS = {
    "ack": msgspec.json.Decoder(AckFrame).decode,
    "history": msgspec.json.Decoder(HistoryFrame).decode,
    "ping": msgspec.json.Decoder(PingFrame).decode,
    "token": msgspec.json.Decoder(TokenFrame).decode,
}


class BadFrame(Refused):
    """A frame that could not be decoded. `client_msg_id` is there if at least that could be read."""

    def __init__(self, code: str, reason: str, client_msg_id: str | None = None) -> None:
        super().__init__(code, reason)
        self.client_msg_id = client_msg_id


# msgspec raises these for bytes that are no JSON, no UTF-8, or nested too deeply.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(payload: bytes) -> ClientFrame:
    """Return the frame that `payload` holds.

    Raises BadFrame with one of these codes. `bad_frame`: it is not JSON, is no object, or has a field of the
    wrong type. `unknown_type`: the protocol has no such type. `invalid_message`: the clientMsgId has a length
    that is not allowed.
    """
    try:
        # msgspec does not check the UTF-8 of fields that it skips.
        if not payload.isascii():
            payload.decode()
        frame = _decode_message(payload)
    except msgspec.ValidationError as error:
        return _decode_typed(payload, error)
    except _UNREADABLE as error:
        raise BadFrame(BAD_FRAME, f"not JSON: {error}") from None
    if frame.type is not None:
        return _decode_typed(payload, None)
    if frame.is_connect:
        return _decode_as(_decode_connect, payload, None)
    client_msg_id = frame.client_msg_id
    if client_msg_id is not None and not 1 <= len(client_msg_id) <= MAX_CLIENT_MSG_ID_CHARS:
        raise BadFrame(
            INVALID_MESSAGE,
            f"clientMsgId: 1 to {MAX_CLIENT_MSG_ID_CHARS} characters are expected",
            _shown(client_msg_id),
        )
    return frame


def _decode_typed(payload: bytes, message_error: msgspec.ValidationError | None) -> ClientFrame:
    """Decode a frame that has a `type`, or that is no message for the reason in `message_error`."""
    try:
        head = _decode_type(payload)
    except _UNREADABLE as error:
        raise BadFrame(BAD_FRAME, str(error)) from None
    client_msg_id = _shown(head.client_msg_id) if isinstance(head.client_msg_id, str) else None
    if head.type is None:
        raise BadFrame(BAD_FRAME, str(message_error), client_msg_id)
    decoder = _DECODERS.get(head.type)
    if decoder is None:
        raise BadFrame(UNKNOWN_TYPE, f"no frame has the type {head.type[:40]!r}", client_msg_id)
    return _decode_as(decoder, payload, client_msg_id)


def _shown(client_msg_id: str) -> str | None:
    """The part of a clientMsgId that an error repeats."""
    return client_msg_id[:MAX_CLIENT_MSG_ID_CHARS] or None


def _decode_as(decoder: Any, payload: bytes, client_msg_id: str | None) -> ClientFrame:
    try:
        return decoder(payload)
    except _UNREADABLE as error:
        raise BadFrame(BAD_FRAME, str(error), client_msg_id) from None


def check_history(frame: HistoryFrame, group_members: int) -> None:
    """Raise Refused (`invalid_message`) unless the request names one conversation, within the limits."""
    wanted = [frame.with_ is not None, frame.group is not None, bool(frame.all)]
    if sum(wanted) != 1:
        raise Refused(INVALID_MESSAGE, "exactly one of with, group and all is expected")
    if not 1 <= frame.limit <= 200:
        raise Refused(INVALID_MESSAGE, "limit: 1 to 200 is expected")
    if frame.with_ is not None:
        check_id("with", frame.with_)
    if frame.group is not None:
        if not 1 <= len(frame.group) <= group_members:
            raise Refused(INVALID_MESSAGE, f"group: 1 to {group_members} members are expected")
        for member in frame.group:
            check_id("group", member)


# ---- frames to clients


class Limits(msgspec.Struct, rename="camel"):
    message_bytes: int
    group_members: int
    ack_window: int
    messages_per_second: int


class Connected(msgspec.Struct, tag="connected", tag_field="type", rename="camel", omit_defaults=True):
    v: int
    user_id: str
    from_user_type: str
    device: str
    channel: str
    epoch: str
    seq: int
    recovered: bool
    server_time: int
    limits: Limits
    ping_seconds: float
    visitor_token: str | None = None
    exp: int | None = None


class Reset(msgspec.Struct, tag="reset", tag_field="type"):
    epoch: str
    seq: int
    recovered: bool = False


class ErrorFrame(msgspec.Struct, tag="error", tag_field="type", rename="camel"):
    code: str
    reason: str
    temporary: bool
    client_msg_id: str | msgspec.UnsetType = msgspec.UNSET
    ref: str | msgspec.UnsetType = msgspec.UNSET
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET


class Leaving(msgspec.Struct, tag="leaving", tag_field="type", rename="camel"):
    reconnect_ms: int


class Pong(msgspec.Struct, tag="pong", tag_field="type", rename="camel"):
    server_time: int


class TokenRenewed(msgspec.Struct, tag="token", tag_field="type"):
    exp: int


class HistoryPage(msgspec.Struct, tag="history", tag_field="type"):
    messages: list[msgspec.Raw]
    more: bool
    ref: str | msgspec.UnsetType = msgspec.UNSET


encode = msgspec.json.Encoder().encode


def accepted(client_msg_id: str | None, message_id: str, send_time: int) -> bytes:
    """The answer to an accepted message."""
    if client_msg_id is None:
        return b'{"type":"accepted","id":"%b","sendTime":%d}' % (message_id.encode(), send_time)
    return b'{"type":"accepted","clientMsgId":%b,"id":"%b","sendTime":%d}' % (
        encode(client_msg_id),
        message_id.encode(),
        send_time,
    )


def error(refusal: Refused, client_msg_id: str | None = None, ref: str | None = None) -> bytes:
    """The answer to a refused frame."""
    frame = ErrorFrame(code=refusal.code, reason=refusal.reason, temporary=refusal.temporary)
    if client_msg_id is not None:
        frame.client_msg_id = client_msg_id
    if ref is not None:
        frame.ref = ref
    if refusal.retry_after_ms is not None:
        frame.retry_after_ms = refusal.retry_after_ms
    return encode(frame)


def delivered(seq: int, body: bytes) -> bytes:
    """A message's JSON (an object, not empty) with its number in the recipient's inbox as the first key."""
    return b'{"seq":%d,%b' % (seq, body[1:])


def numbered(seq: int) -> bytes:
    """The beginning of `delivered`: it replaces the first byte of a message's JSON."""
    return b'{"seq":%d,' % seq
