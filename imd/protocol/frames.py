"""Wire frames in and out (docs/protocol.md): JSON to typed objects and back. No I/O, no state.

`decode` returns one of the client frames below, or raises Refused. The encoders return the payload of
one text frame as bytes; its first key is always `type`, or `seq`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec

from imd.protocol.data import MAX_DATA_DEPTH, without_depths
from imd.protocol.errors import BAD_FRAME, INVALID_MESSAGE, TOO_LARGE, UNKNOWN_TYPE, Refused
from imd.protocol.message import MAX_CLIENT_MSG_ID_CHARS, NO_DATA
from imd.protocol.requests import (
    ChangesFrame,
    EditFrame,
    FirstHistoryFrame,
    HistoryFrame,
    MembersFrame,
    MessagesFrame,
    ReactFrame,
    RecallFrame,
    RoomFrame,
    RoomsFrame,
)
from imd.protocol.state_frames import STATE_FRAMES

# ---- frames from clients


class Cursor(msgspec.Struct):
    """A device's place in its inbox: the last number that it has, and that number's epoch."""

    epoch: str
    seq: int


class FirstConnectFrame(msgspec.Struct, rename="camel"):
    """The connect signal as level 1 knows it."""

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


class ConnectFrame(FirstConnectFrame, rename="camel"):
    """The connect signal, the first frame of every connection."""

    features: list[str] | None = None
    state: Annotated[int, msgspec.Meta(ge=0)] | None = None
    presence: bool | None = None


class FirstMessageFrame(msgspec.Struct, rename="camel", gc=False):
    """A chat message as level 1 knows it. A connect signal is decoded as one first: see `is_connect`."""

    type: str | None = None
    client_msg_id: str | None = None
    user_id: str | None = None
    to: str | None = None
    group: list[str] | None = None
    msg: str | None = None
    content_type: str | None = None
    is_connect: bool | None = None


class MessageFrame(FirstMessageFrame, rename="camel", gc=False):
    """A chat message."""

    room: str | None = None
    reply_to: str | None = None
    mentions: list[str] | None = None
    data: msgspec.Raw = NO_DATA


class AckFrame(msgspec.Struct):
    """Everything up to `seq` has arrived. `epoch` is the number's; None if the client did not say."""

    seq: int
    epoch: str | None = None


class PingFrame(msgspec.Struct):
    """A question for the server's time, which also shows that the server is there."""


class TokenFrame(msgspec.Struct):
    """A newer token for the connection."""

    token: str


ClientFrame = (
    ConnectFrame
    | MessageFrame
    | AckFrame
    | HistoryFrame
    | MessagesFrame
    | ChangesFrame
    | EditFrame
    | RecallFrame
    | ReactFrame
    | RoomFrame
    | RoomsFrame
    | MembersFrame
    | PingFrame
    | TokenFrame
)


class _TypeOnly(msgspec.Struct):
    type: str | None = None
    client_msg_id: Any = msgspec.field(default=None, name="clientMsgId")
    ref: Any = None


_decode_type = msgspec.json.Decoder(_TypeOnly).decode
_FIRST_TYPES: Mapping[str, type] = {
    "ack": AckFrame,
    "history": FirstHistoryFrame,
    "ping": PingFrame,
    "token": TokenFrame,
}
_TYPES: Mapping[str, type] = {
    "ack": AckFrame,
    "history": HistoryFrame,
    "ping": PingFrame,
    "token": TokenFrame,
    "edit": EditFrame,
    "recall": RecallFrame,
    "react": ReactFrame,
    "room": RoomFrame,
    "rooms": RoomsFrame,
    "members": MembersFrame,
    "messages": MessagesFrame,
    "changes": ChangesFrame,
    **STATE_FRAMES,
}


class BadFrame(Refused):
    """A frame that could not be decoded. `client_msg_id` and `ref` are there if they could be read."""

    def __init__(
        self, code: str, reason: str, client_msg_id: str | None = None, ref: str | None = None
    ) -> None:
        super().__init__(code, reason)
        self.client_msg_id = client_msg_id
        self.ref = ref


# msgspec raises these for bytes that are no JSON, no UTF-8, or nested too deeply.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


Decode = Callable[[bytes], Any]


class Reader:
    """Decodes clients' frames. `types`: the frames that have a `type`."""

    def __init__(self, message: type, connect: type, types: Mapping[str, type]) -> None:
        self._decode_message: Decode = msgspec.json.Decoder(message).decode
        self._decode_connect: Decode = msgspec.json.Decoder(connect).decode
        self._decoders: dict[str, Decode] = {
            name: msgspec.json.Decoder(frame).decode for name, frame in types.items()
        }
        self._with_data = {
            name
            for name, frame in ((None, message), *types.items())
            if any(field.name == "data" for field in msgspec.structs.fields(frame))
        }
        """types, of which None is a message's"""

    def decode(self, payload: bytes) -> ClientFrame:
        """Return the frame that `payload` holds.

        Raises BadFrame with one of these codes. `bad_frame`: it is not JSON, is no object, or has a field of
        the wrong type. `unknown_type`: the protocol has no such type. `invalid_message`: the clientMsgId has
        a length that is not allowed. `too_large`: its `data` is so deep that it cannot be read.
        """
        try:
            # msgspec does not check the UTF-8 of fields that it skips.
            if not payload.isascii():
                payload.decode()
            frame: MessageFrame = self._decode_message(payload)
        except msgspec.ValidationError as error:
            return self._decode_typed(payload, error)
        except _UNREADABLE as error:
            raise self._unreadable(payload, error) from None
        if frame.type is not None:
            return self._decode_typed(payload, None)
        if frame.is_connect:
            return _decode_as(self._decode_connect, payload)
        client_msg_id = frame.client_msg_id
        if client_msg_id is not None and not 1 <= len(client_msg_id) <= MAX_CLIENT_MSG_ID_CHARS:
            raise _bad_client_msg_id(client_msg_id)
        return frame

    def _decode_typed(self, payload: bytes, message_error: msgspec.ValidationError | None) -> ClientFrame:
        """Decode a frame that has a `type`, or that is no message for the reason in `message_error`."""
        try:
            head = _decode_type(payload)
        except _UNREADABLE as error:
            raise self._unreadable(payload, error) from None
        client_msg_id, ref = _text(head.client_msg_id), _text(head.ref)
        shown = _shown(client_msg_id)
        if head.type is None:
            raise BadFrame(BAD_FRAME, str(message_error), shown, ref)
        decoder = self._decoders.get(head.type)
        if decoder is None:
            raise BadFrame(UNKNOWN_TYPE, f"no frame has the type {head.type[:40]!r}", shown, ref)
        frame = _decode_as(decoder, payload, shown, ref)
        if client_msg_id is not None and client_msg_id != shown and hasattr(frame, "client_msg_id"):
            raise _bad_client_msg_id(client_msg_id, ref)
        return frame

    def _unreadable(self, payload: bytes, error: Exception) -> BadFrame:
        """The error for a frame that msgspec cannot read. It names the frame if there is another way."""
        frame = _read_leniently(payload)
        client_msg_id, ref, kind = (_text(frame.get(name)) for name in ("clientMsgId", "ref", "type"))
        shown = _shown(client_msg_id)
        data = frame.get("data")
        if isinstance(error, RecursionError) and isinstance(data, dict) and data and kind in self._with_data:
            return BadFrame(TOO_LARGE, f"data: at most {MAX_DATA_DEPTH} levels", shown, ref)
        return BadFrame(BAD_FRAME, f"not JSON, or a lone surrogate: {error}", shown, ref)


def _read_leniently(payload: bytes) -> dict[str, Any]:
    """The members of a frame that may be too deep, or have lone surrogates, as `without_depths` leaves them.
    There are none if it is no JSON all the same.
    """
    try:
        frame = json.loads(without_depths(payload.decode()))
    except (ValueError, RecursionError):
        return {}
    return frame if isinstance(frame, dict) else {}


def _text(value: Any) -> str | None:
    """A string that an answer can repeat."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def _bad_client_msg_id(client_msg_id: str, ref: str | None = None) -> BadFrame:
    why = f"clientMsgId: 1 to {MAX_CLIENT_MSG_ID_CHARS} characters are expected"
    return BadFrame(INVALID_MESSAGE, why, _shown(client_msg_id), ref)


def _shown(client_msg_id: str | None) -> str | None:
    """The part of a clientMsgId that an error repeats."""
    return (client_msg_id or "")[:MAX_CLIENT_MSG_ID_CHARS] or None


def _decode_as(
    decoder: Decode, payload: bytes, client_msg_id: str | None = None, ref: str | None = None
) -> ClientFrame:
    try:
        try:
            return decoder(payload)
        except msgspec.ValidationError:
            if b"null" not in payload:
                raise
            return decoder(_without_nulls(payload))
    except _UNREADABLE as error:
        raise BadFrame(BAD_FRAME, str(error), client_msg_id, ref) from None


def _without_nulls(payload: bytes) -> bytes:
    """The frame without its members that are null, as these count as left out."""
    members = _decode_members(payload)
    return encode({name: value for name, value in members.items() if bytes(value) != b"null"})


class FirstReader(Reader):
    """Decodes clients' frames in a cluster of level 1, which takes no notice of later fields and frames."""

    _LATER: Mapping[type, type] = {
        FirstMessageFrame: MessageFrame,
        FirstConnectFrame: ConnectFrame,
        FirstHistoryFrame: HistoryFrame,
    }

    def decode(self, payload: bytes) -> ClientFrame:
        """As Reader.decode."""
        frame = super().decode(payload)
        later = self._LATER.get(type(frame))
        return later(*msgspec.structs.astuple(frame)) if later is not None else frame


decode = Reader(MessageFrame, ConnectFrame, _TYPES).decode
decode_at_level_1 = FirstReader(FirstMessageFrame, FirstConnectFrame, _FIRST_TYPES).decode


# ---- frames to clients


class Limits(msgspec.Struct, rename="camel"):
    message_bytes: int
    group_members: int
    ack_window: int
    messages_per_second: int
    data_bytes: int | msgspec.UnsetType = msgspec.UNSET
    room_members: int | msgspec.UnsetType = msgspec.UNSET
    edit_seconds: int | msgspec.UnsetType = msgspec.UNSET
    recall_seconds: int | msgspec.UnsetType = msgspec.UNSET


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
    features: list[str] | None = None


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


class HistoryPage(msgspec.Struct, tag="history", tag_field="type", rename="camel"):
    messages: list[msgspec.Raw]
    more: bool
    ref: str | msgspec.UnsetType = msgspec.UNSET
    more_after: bool | msgspec.UnsetType = msgspec.UNSET
    rooms: bool | msgspec.UnsetType = msgspec.UNSET


class MessagesAnswer(msgspec.Struct, tag="messages", tag_field="type"):
    messages: list[msgspec.Raw]
    ref: str | msgspec.UnsetType = msgspec.UNSET


class ChangesAnswer(msgspec.Struct, tag="changes", tag_field="type"):
    events: list[msgspec.Raw]
    more: bool
    complete: str
    ref: str | msgspec.UnsetType = msgspec.UNSET
    rooms: bool | msgspec.UnsetType = msgspec.UNSET


encode = msgspec.json.Encoder().encode


def given(text: str | None) -> str | msgspec.UnsetType:
    """A field that an answer has only if its question had it."""
    return msgspec.UNSET if text is None else text


def accepted(client_msg_id: str | None, message_id: str, send_time: int) -> bytes:
    """The answer to an accepted message."""
    if client_msg_id is None:
        return b'{"type":"accepted","id":"%b","sendTime":%d}' % (message_id.encode(), send_time)
    return b'{"type":"accepted","clientMsgId":%b,"id":"%b","sendTime":%d}' % (
        encode(client_msg_id),
        message_id.encode(),
        send_time,
    )


def accepted_in_room(client_msg_id: str, event_id: str, send_time: int, room: str, version: int) -> bytes:
    """The answer to an accepted change of a room."""
    return b'%b,"room":%b,"version":%d}' % (
        accepted(client_msg_id, event_id, send_time)[:-1],
        encode(room),
        version,
    )


def unchanged(client_msg_id: str) -> bytes:
    """The answer to a frame that changes nothing."""
    return b'{"type":"accepted","clientMsgId":%b,"changed":false}' % encode(client_msg_id)


def error(refusal: Refused, client_msg_id: str | None = None, ref: str | None = None) -> bytes:
    """The answer to a refused frame."""
    frame = ErrorFrame(code=refusal.code, reason=refusal.reason, temporary=refusal.temporary)
    frame.client_msg_id = given(client_msg_id)
    frame.ref = given(ref)
    if refusal.retry_after_ms is not None:
        frame.retry_after_ms = refusal.retry_after_ms
    return encode(frame)


def delivered(seq: int, body: bytes) -> bytes:
    """A message's JSON (an object, not empty) with its number in the recipient's inbox as the first key."""
    return b'{"seq":%d,%b' % (seq, body[1:])


def numbered(seq: int) -> bytes:
    """The beginning of `delivered`: it replaces the first byte of a message's JSON."""
    return b'{"seq":%d,' % seq
