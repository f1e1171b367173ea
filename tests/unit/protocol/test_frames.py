"""Wire frames in and out: any bytes are decoded as a frame, or raise BadFrame."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.protocol import frames
from imd.protocol.errors import (
    BAD_FRAME,
    ERROR_CODES,
    INVALID_MESSAGE,
    RATE_LIMITED,
    TOO_LARGE,
    UNKNOWN_TYPE,
    Refused,
)
from imd.protocol.frames import BadFrame, MessageFrame
from imd.protocol.message import IMessage, encode_message
from imd.protocol.questions import check_history

NAMES = [
    *("type", "clientMsgId", "userId", "to", "group", "msg", "contentType", "isConnect", "seq", "ref"),
    *("with", "all", "before", "limit", "token", "visitorToken", "loginType", "isCustomerService"),
    *("isVisitor", "device", "attempt", "ack", "cursor", "epoch", "ephemeral", "v", "other"),
]
TYPES: list[Any] = ["ack", "history", "ping", "token", "connect", "Ack", "", None, 5, True, [], {}]

huge = st.integers(1, 5000).map(lambda digits: 10**digits)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | huge
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
values = st.recursive(
    scalars | st.sampled_from(TYPES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=10,
)
pairs = st.lists(
    st.tuples(st.sampled_from(NAMES), values)
    | st.tuples(st.just("type"), st.sampled_from(TYPES))
    | st.tuples(st.just("isConnect"), st.just(True)),
    max_size=8,
)


def dump(value: Any) -> str:
    """JSON of any value; integers of any length."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 10_000:
        return "1" + "0" * (len(hex(value)) * 6 // 5)
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{dump(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)


def join(items: list[tuple[str, Any]]) -> bytes:
    """The JSON of an object. Keys may be repeated."""
    return ("{" + ",".join(f"{json.dumps(name)}:{dump(value)}" for name, value in items) + "}").encode()


# JSON objects that look like frames, some of them damaged.
objects = pairs.map(join)
damaged = st.tuples(objects, st.integers(0, 200), st.binary(max_size=3)).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
)


def strings_of(value: Any) -> list[str]:
    """All strings of a decoded frame."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for inner in pair for text in strings_of(inner)]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in strings_of(inner)]
    return strings_of(msgspec.structs.asdict(value)) if isinstance(value, msgspec.Struct) else []


class AnyBytesTests(unittest.TestCase):
    def check(self, payload: bytes) -> None:
        """Check that this gives a frame whose strings can be encoded, or a BadFrame that can be answered."""
        try:
            frame = frames.decode(payload)
        except BadFrame as bad:
            self.assertIn(bad.code, (BAD_FRAME, UNKNOWN_TYPE, INVALID_MESSAGE))
            answer = json.loads(frames.error(bad, bad.client_msg_id, bad.ref))
            self.assertEqual((answer["type"], answer["temporary"]), ("error", False))
        else:
            self.assertIsInstance(frame, frames.ClientFrame)
            for text in strings_of(frame):
                text.encode()
            if type(frame) is frames.HistoryFrame:
                try:
                    check_history(frame, 5, is_visitor=False, level=2)
                except Refused as refused:
                    frames.error(refused, ref=frame.ref)

    @given(st.binary())
    def test_bytes(self, payload: bytes) -> None:
        """Any bytes."""
        self.check(payload)

    @settings(max_examples=300)
    @given(objects)
    @example(b'{"type":"ack","type":null,"msg":"x"}')
    @example(b'{"type":null,"to":5}')
    @example(b'{"isConnect":true,"type":"ack"}')
    def test_objects(self, payload: bytes) -> None:
        """Objects with the protocol's keys, some of them repeated, and any values."""
        self.check(payload)

    @settings(max_examples=300)
    @given(damaged)
    def test_damaged_objects(self, payload: bytes) -> None:
        """Frames with a few bytes changed."""
        self.check(payload)

    @given(values)
    def test_values(self, value: Any) -> None:
        """JSON that may not be an object."""
        self.check(dump(value).encode())

    def test_deep_nesting(self) -> None:
        """Endless nesting is a bad frame, wherever it is."""
        for head in (b"", b'{"msg":', b'{"other":', b'{"type":"ack","seq":', b'{"type":"x","clientMsgId":',
                     b'{"isConnect":true,"cursor":', b'{"group":['):  # fmt: skip
            for opening in (b"[", b'{"a":'):
                self.check(head + opening * 100_000)
                bad = self.assertRaises(BadFrame, frames.decode, head + opening * 100_000)
                self.assertEqual(bad.code, BAD_FRAME)

    def test_huge_numbers(self) -> None:
        """A number of any length is a wrong type at worst."""
        for digits in (20, 400, 4299, 4300, 4301, 100_000):
            number = b"9" * digits
            for head in (b'{"type":"ack","seq":', b'{"msg":', b'{"other":', b'{"type":"x","clientMsgId":',
                         b'{"isConnect":true,"attempt":',
                         b'{"isConnect":true,"cursor":{"epoch":"e","seq":'):  # fmt: skip
                end = b"}}" if b"cursor" in head else b"}"
                self.check(head + number + end)
                self.check(head + b"-" + number + b".5e" + number + end)

    def test_lone_surrogates(self) -> None:
        """A lone surrogate is refused, escaped or as bytes; a pair is accepted."""
        for text in (b"\\ud800", b"\\udfff", b"\\ud800\\ud800", b"\\udc00\\ud800", b"\\ud800x",
                     b"\xed\xa0\x80"):  # fmt: skip
            for name in (b"msg", b"to", b"clientMsgId", b"userId"):
                payload = b'{"' + name + b'":"' + text + b'"}'
                bad = self.assertRaises(BadFrame, frames.decode, payload)
                self.assertEqual(bad.code, BAD_FRAME)
        frame = frames.decode(b'{"msg":"\\ud83d\\ude00"}')
        self.assertEqual(frame, MessageFrame(msg="😀"))


class DecodeTests(unittest.TestCase):
    def assert_bad(
        self, code: str, payload: bytes, client_msg_id: str | None = None, ref: str | None = None
    ) -> None:
        bad = self.assertRaises(BadFrame, frames.decode, payload)
        self.assertEqual((bad.code, bad.client_msg_id, bad.ref), (code, client_msg_id, ref), payload[:200])

    def test_each_kind(self) -> None:
        """Each frame of the protocol is recognised."""
        self.assertEqual(frames.decode(b'{"to":"bob","msg":"hi"}'), MessageFrame(to="bob", msg="hi"))
        self.assertEqual(
            frames.decode(b'{"isConnect":true,"userId":"a","cursor":{"epoch":"e","seq":1}}'),
            frames.ConnectFrame(True, user_id="a", cursor=frames.Cursor("e", 1)),
        )
        self.assertEqual(frames.decode(b'{"type":"ack","seq":18}'), frames.AckFrame(18))
        self.assertEqual(
            frames.decode(b'{"type":"history","with":"bob","all":false}'),
            frames.HistoryFrame(with_="bob", all=False),
        )
        self.assertEqual(frames.decode(b'{"type":"ping"}'), frames.PingFrame())
        self.assertEqual(frames.decode(b'{"type":"token","token":"t"}'), frames.TokenFrame("t"))

    def test_null_and_unknown_fields(self) -> None:
        """null is as if left out; unknown fields are ignored; a frame with isConnect false is a message."""
        payload = b'{"type":null,"isConnect":false,"clientMsgId":null,"msg":"x","to":"b","x":{"y":[1]}}'
        frame = frames.decode(payload)
        self.assertEqual(frame, MessageFrame(to="b", msg="x", is_connect=False))
        for name, limit in (("history", 50), ("changes", 200), ("rooms", 50), ("members", 200),
                            ("conversations", 30)):  # fmt: skip
            for decode in (frames.decode, frames.decode_at_level_1)[: 2 if name == "history" else 1]:
                asked: Any = decode(b'{"type":"%b","ref":"q","before":null,"limit":null}' % name.encode())
                self.assertEqual((asked.ref, asked.limit), ("q", limit))
        self.assert_bad(BAD_FRAME, b'{"type":"history","with":5,"limit":null}')
        self.assert_bad(BAD_FRAME, b'{"type":"ack","seq":null}')

    def test_not_an_object(self) -> None:
        """A payload that is not JSON, or JSON but no object, is a bad frame."""
        for payload in (b"", b" ", b"nonsense", b"[]", b'"x"', b"5", b"null", b"true", b"{",
                        b'{"msg":"x"', b'{"msg":"x"}}', b"{'msg':1}", b"\xff\xfe", b"\xef\xbb\xbf{}",
                        b'{"msg":NaN}'):  # fmt: skip
            self.assert_bad(BAD_FRAME, payload)

    def test_wrong_types(self) -> None:
        """A field of the wrong type makes a bad frame, which has the clientMsgId if that can be read."""
        for field in (b'"msg":5', b'"to":["b"]', b'"group":"b"', b'"group":[1]', b'"userId":{}',
                      b'"contentType":1', b'"isConnect":"yes"', b'"isConnect":1'):  # fmt: skip
            self.assert_bad(BAD_FRAME, b'{"clientMsgId":"c-1",' + field + b"}", "c-1")
        self.assert_bad(BAD_FRAME, b'{"clientMsgId":7,"msg":"x"}')
        self.assert_bad(BAD_FRAME, b'{"type":5}')
        for payload in (b'{"type":"ack"}', b'{"type":"ack","seq":"1"}', b'{"type":"ack","seq":1.5}',
                        b'{"type":"ack","seq":true}', b'{"type":"token"}',
                        b'{"type":"history","limit":"1"}', b'{"isConnect":true,"cursor":{"epoch":"e"}}',
                        b'{"isConnect":true,"userId":1}'):  # fmt: skip
            self.assert_bad(BAD_FRAME, payload)

    def test_unknown_type(self) -> None:
        """An unknown type is told apart from a bad frame, whatever else is in the frame."""
        self.assert_bad(UNKNOWN_TYPE, b'{"type":"gossip","msg":5}')
        self.assert_bad(UNKNOWN_TYPE, b'{"type":"","clientMsgId":"c-1"}', "c-1")
        self.assert_bad(UNKNOWN_TYPE, b'{"type":"connected"}')

    def test_client_msg_id(self) -> None:
        """At most 64 characters, and not empty."""
        good = "é" * 64
        frame = frames.decode(json.dumps({"clientMsgId": good}).encode())
        self.assertEqual(frame, MessageFrame(client_msg_id=good))
        self.assert_bad(INVALID_MESSAGE, b'{"clientMsgId":"%b"}' % (b"x" * 65), "x" * 64)
        self.assert_bad(
            INVALID_MESSAGE, b'{"type":"recall","ref":"q","clientMsgId":"%b"}' % (b"x" * 65), "x" * 64, "q"
        )

    def test_empty_client_msg_id(self) -> None:
        """An error is safer than a message that can be sent twice."""
        self.assert_bad(INVALID_MESSAGE, b'{"clientMsgId":"","msg":"x"}')
        self.assert_bad(INVALID_MESSAGE, b'{"type":"recall","clientMsgId":"","ref":"q"}', None, "q")

    def test_lone_surrogates_leave_names(self) -> None:
        """The clientMsgId and the ref are read if a lone surrogate is elsewhere."""
        lone = b'"data":{"x":["\\ud800"]}'
        long = b"\\ud83d\\ude00" * 65
        for payload, client_msg_id, ref in (
            (b'{"clientMsgId":"c-1","to":"bob","msg":"hi",%b}' % lone, "c-1", None),
            (b'{%b,"clientMsgId":"c-1","ref":"q"}' % lone, "c-1", "q"),
            (b'{"type":"edit","clientMsgId":"c-1","msg":5,%b}' % lone, "c-1", None),
            (b'{"type":"nobody knows","ref":"q",%b}' % lone, None, "q"),
            (b'{"clientMsgId":"c-1","msg":"\\udfff"}', "c-1", None),
            (b'{"clientMsgId":"c-1","clientMsgId":"c-2",%b}' % lone, "c-2", None),
            (b'{"clientMsgId":"\\ud800","ref":"q"}', None, "q"),
            (b'{"clientMsgId":5,"ref":["q"],%b}' % lone, None, None),
            (b'{"clientMsgId":"","ref":"q",%b}' % lone, None, "q"),
            (b'{"clientMsgId":"%b",%b}' % (long, lone), "😀" * 64, None),
            (b'{"other":{"clientMsgId":"c-1"},%b}' % lone, None, None),
            (b'[{"clientMsgId":"c-1"},"\\ud800"]', None, None),
        ):
            self.assert_bad(BAD_FRAME, payload, client_msg_id, ref)

    def test_deep_data(self) -> None:
        """Data is too large at any depth; anything else that is too deep is a bad frame, with its names."""
        for levels in (1_200, 3_000):
            lists, objects = b"[" * levels + b"]" * levels, b'{"a":' * levels + b"1" + b"}" * levels
            for data in (b'{"a":%b,"b":"]"}' % lists, objects):
                for kind in (b"", b'"type":"edit",', b'"type":"signal",'):
                    payload = b'{"data":%b,%b"clientMsgId":"c-1","ref":"q"}' % (data, kind)
                    self.assert_bad(TOO_LARGE, payload, "c-1", "q")
            for payload in (
                b'{"clientMsgId":"c-1","data":%b,"ref":"q"}' % lists,
                b'{"clientMsgId":"c-1","data":{"a":[[]]},"other":%b,"ref":"q"}' % lists,
                b'{"type":"history","clientMsgId":"c-1","data":{"a":%b},"ref":"q"}' % lists,
            ):
                self.assert_bad(BAD_FRAME, payload, "c-1", "q")
            self.assert_bad(BAD_FRAME, b'{"clientMsgId":"c-1","data":%b' % objects)
            self.assert_bad(BAD_FRAME, b'{"clientMsgId":"c-1","data":%b' % objects[:-1])


class EncodeTests(unittest.TestCase):
    def test_type_first(self) -> None:
        """In each frame with a type, the type is the first key."""
        limits = frames.Limits(65536, 500, 256, 50)
        payloads = {
            "connected": frames.encode(
                frames.Connected(1, "a", "USER_TYPE", "d", "c", "e", 0, True, 5, limits, 25)
            ),
            "reset": frames.encode(frames.Reset("e", 1)),
            "error": frames.error(Refused(BAD_FRAME, "no")),
            "leaving": frames.encode(frames.Leaving(10)),
            "pong": frames.encode(frames.Pong(5)),
            "token": frames.encode(frames.TokenRenewed(5)),
            "history": frames.encode(frames.HistoryPage([], False)),
            "messages": frames.encode(frames.MessagesAnswer([])),
            "changes": frames.encode(frames.ChangesAnswer([], False, "0" * 28)),
            "accepted": frames.accepted(None, "1f", 5),
        }
        for name, payload in payloads.items():
            self.assertTrue(payload.startswith(b'{"type":"%b",' % name.encode()), payload)
            self.assertEqual(json.loads(payload)["type"], name)

    def test_connected(self) -> None:
        """`connected` has the protocol's names, and leaves out what does not apply."""
        limits = frames.Limits(65536, 500, 256, 50)
        connected = frames.Connected(1, "a", "USER_TYPE", "d", "c", "e", 0, False, 5, limits, 25)
        self.assertEqual(
            json.loads(frames.encode(connected)),
            {
                "type": "connected", "v": 1, "userId": "a", "fromUserType": "USER_TYPE", "device": "d",
                "channel": "c", "epoch": "e", "seq": 0, "recovered": False, "serverTime": 5,
                "limits": {"messageBytes": 65536, "groupMembers": 500, "ackWindow": 256,
                           "messagesPerSecond": 50},
                "pingSeconds": 25,
            },
        )  # fmt: skip

    @given(st.none() | st.text(max_size=64), st.integers(0, 2**53))
    def test_accepted(self, client_msg_id: str | None, send_time: int) -> None:
        """`accepted` is formatted by hand for speed, and is JSON with any clientMsgId."""
        expected = {"type": "accepted", "id": "1f", "sendTime": send_time}
        if client_msg_id is not None:
            expected["clientMsgId"] = client_msg_id
        self.assertEqual(json.loads(frames.accepted(client_msg_id, "1f", send_time)), expected)

    @given(
        st.sampled_from(ERROR_CODES), st.text(), st.none() | st.text(), st.none() | st.text(),
        st.none() | st.integers(0, 10_000),
    )  # fmt: skip
    def test_error(
        self, code: str, reason: str, client_msg_id: str | None, ref: str | None, retry: int | None
    ) -> None:
        """An error says which frame it answers, why, and whether trying again helps."""
        payload = frames.error(Refused(code, reason, retry_after_ms=retry), client_msg_id, ref)
        expected: dict[str, Any] = {"type": "error", "code": code, "reason": reason}
        expected["temporary"] = code in ("unavailable", RATE_LIMITED)
        for name, value in (("clientMsgId", client_msg_id), ("ref", ref), ("retryAfterMs", retry)):
            if value is not None:
                expected[name] = value
        self.assertEqual(json.loads(payload), expected)

    @given(st.integers(1, 2**53), st.text(min_size=1), st.text(max_size=5))
    def test_delivered(self, seq: int, msg: str, to: str) -> None:
        """A delivered message has its number as its first key."""
        body = encode_message(IMessage(id="1", user_id="a", to=to, msg=msg))
        payload = frames.delivered(seq, body)
        self.assertTrue(payload.startswith(b'{"seq":%d,' % seq))
        self.assertEqual(json.loads(payload), {"seq": seq, **json.loads(body)})

    def test_history_page(self) -> None:
        """Messages are sent as stored; `ref` is sent only if the request had one."""
        page = frames.HistoryPage([msgspec.Raw(b'{"id":"1"}')], True, ref="h")
        expected = {"type": "history", "messages": [{"id": "1"}], "more": True, "ref": "h"}
        self.assertEqual(json.loads(frames.encode(page)), expected)
        self.assertNotIn(b"ref", frames.encode(frames.HistoryPage([], False)))
