"""Decoders of outside bytes or text return a value, or raise the one exception that they document."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import bson
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.config import settings as configuration
from imd.config.value_types import endpoint, is_loopback
from imd.entry.auth import Authenticator, Identity, bearer_token, read_visitor_token
from imd.entry.handshake import Denied, check_request
from imd.protocol import frames
from imd.protocol.errors import CLOSE_UNAUTHORIZED, Closing, ConfigurationError, Refused
from imd.protocol.message import IMessage, encode_message
from imd.store.archiver.batches import read_batch
from imd.store.mongo import document as archive_document
from imd.store.mongo.event_document import to_event
from imd.store.rabbit import bus_messages as rabbit_bus

fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NOW_MS = 1_767_225_600_000

numbers = st.integers() | st.integers(1, 400).map(lambda digits: 10**digits) | st.floats(allow_nan=False)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=12)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


def damaged(data: bytes, place: int, damage: bytes) -> bytes:
    """Bytes with a few of them changed."""
    place %= len(data) + 1
    return data[:place] + damage + data[place + len(damage) % 2 :]


class FrameTests(unittest.SynchronousTestCase):
    """imd.protocol.frames.decode; tests.unit.protocol.test_frames has more."""

    WRONG = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80")

    def test_not_utf8_anywhere(self) -> None:
        """Bytes that are not UTF-8 are found in unknown fields, too, and inside of their values."""
        for text in self.WRONG:
            for payload in (
                b'{"msg":"%b"}',
                b'{"to":"bob","msg":"x","other":"%b"}',
                b'{"%b":1,"to":"bob","msg":"x"}',
                b'{"other":[{"deep":["%b"]}],"to":"bob","msg":"x"}',
                b'{"type":"ping","x":"%b"}',
                b'{"type":"ping","x":{"%b":1}}',
                b'{"type":"ack","seq":1,"x":"%b"}',
                b'{"type":"history","all":true,"x":"%b"}',
                b'{"type":"token","token":"t","x":"%b"}',
                b'{"type":"nobody knows","x":"%b"}',
                b'{"isConnect":true,"x":"%b"}',
                b'{"isConnect":true,"cursor":{"epoch":"e","seq":1,"x":"%b"}}',
                b"%b",
                b'{"type":"ping"} %b',
            ):
                bad = self.assertRaises(frames.BadFrame, frames.decode, payload % text)
                self.assertEqual(bad.code, "bad_frame")

    @fuzz
    @given(st.binary(max_size=30))
    def test_what_is_decoded_is_utf8(self, data: bytes) -> None:
        """Bytes that are not UTF-8 are never decoded as a frame."""
        payload = b'{"type":"ping","x":"' + data + b'"}'
        try:
            frames.decode(payload)
        except frames.BadFrame:
            return
        payload.decode()

    @example("x" * 10_000)
    @fuzz
    @given(st.text())
    def test_long_client_msg_ids(self, client_msg_id: str) -> None:
        """An error repeats at most 64 characters of a clientMsgId."""
        for more in ({"type": "nobody knows"}, {"type": "ack"}, {"msg": 5}, {"isConnect": True, "userId": 5}):
            payload = json.dumps({"clientMsgId": client_msg_id, **more}).encode()
            bad = self.assertRaises(frames.BadFrame, frames.decode, payload)
            self.assertLessEqual(len(bad.client_msg_id or ""), 64)

    def test_keys_twice(self) -> None:
        """The last of equal keys counts, also for the type of the frame."""
        frame = frames.decode(b'{"to":"bob","to":"eve","msg":"x","clientMsgId":"a","clientMsgId":"b"}')
        self.assertEqual(frame, frames.MessageFrame(to="eve", msg="x", client_msg_id="b"))
        self.assertEqual(frames.decode(b'{"type":"ack","type":"ping","seq":1}'), frames.PingFrame())


class BusTests(unittest.SynchronousTestCase):
    """Deliveries of the message bus: any client of the broker can publish anything there."""

    MESSAGES = (
        rabbit_bus.Hints("n.1", [(b'{"id":"1"}', [("c", "e", 1)]), (None, [("d", "e", 2), ("f", "e", 3)])]),
        rabbit_bus.Search("n.1", [(None, [("c", "e", 1)])]),
        rabbit_bus.Found("n.1", ["c", "d"]),
        rabbit_bus.Replaced("n.1", ["c"]),
        rabbit_bus.Signals("n.1", [("typing", b'{"type":"typing"}', ["c"])]),
        rabbit_bus.Looks("n.1", ["alice"]),
    )

    def check(self, body: bytes) -> None:
        try:
            message = rabbit_bus.decode(body)
        except rabbit_bus.Malformed as error:
            str(error).encode()
            return
        self.assertIsInstance(message, rabbit_bus.BusMessage)
        if isinstance(message, rabbit_bus.Hints | rabbit_bus.Search):
            hints = rabbit_bus.ungroup_hints(message.groups)
            self.assertTrue(all(hint.seq >= 0 for hint in hints))
            for hint in hints:
                hint.channel.encode()
                hint.epoch.encode()

    @fuzz
    @given(st.binary())
    def test_bytes(self, body: bytes) -> None:
        self.check(body)

    @fuzz
    @given(values, st.sampled_from(["hints", "search", "found", "replaced", "other"]))
    def test_values(self, value: Any, kind: str) -> None:
        """Any MessagePack value, also under a known kind."""
        for whole in (value, [kind, value], [kind, "n.1", value], [kind, "n.1", [value]]):
            try:
                body = msgspec.msgpack.encode(whole)
            except OverflowError:
                return
            self.check(body)

    @fuzz
    @given(st.sampled_from(MESSAGES), st.integers(0, 200), st.binary(max_size=3))
    def test_damaged_messages(self, message: rabbit_bus.BusMessage, place: int, damage: bytes) -> None:
        self.check(damaged(rabbit_bus.encode(message), place, damage))

    def test_extremes(self) -> None:
        """Depth without end, lengths that no bytes follow, strings that are not UTF-8."""
        for body in (b"\x91" * 100_000, b"\x81" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
                     b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xffx", b"\x93\xa5found\xa1\xff\x90",
                     b"\x93\xa5found\xa1x\x91\xa3\xed\xa0\x80", b"\xc1", b"\xc7\xff\x01"):  # fmt: skip
            self.assertRaises(rabbit_bus.Malformed, rabbit_bus.decode, body)


class ArchiveTests(unittest.SynchronousTestCase):
    """Deliveries of the archive queue."""

    GOOD = encode_message(
        IMessage("1f", "c-1", "alice", "USER_TYPE", to="bob", msg="žluť 🎉", content_type="t", send_time=5)
    )

    def check(self, body: bytes) -> None:
        try:
            record = archive_document.read_archived(body)
            if record.kind:
                placed, event = to_event(body, record, NOW_MS)
                for one in filter(None, (placed, event)):
                    self.assertEqual(bson.encode(bson.decode(one.encoded)), one.encoded)
                return
            document = archive_document.to_document(record, NOW_MS)
        except (archive_document.Unfit, *archive_document.UNREADABLE) as error:
            str(error).encode()
        else:
            read = bson.decode(document.encoded)
            self.assertEqual(bson.encode(read), document.encoded)
            message = msgspec.json.decode(body, type=archive_document.ArchivedMessage)
            self.assertEqual((read["_id"], read["msg"]), (message.id, message.msg))

    @fuzz
    @given(st.binary())
    def test_bytes(self, body: bytes) -> None:
        """Any body is read as messages or set apart, without an exception."""
        self.check(body)
        arrived = read_batch(1, body, None)
        self.assertTrue(arrived.unfit is not None or arrived.bodies is not None)

    @fuzz
    @given(st.integers(0, 300), st.binary(max_size=4))
    def test_damaged_messages(self, place: int, damage: bytes) -> None:
        self.check(damaged(self.GOOD, place, damage))
        for body in read_batch(1, damaged(b"[" + self.GOOD + b"]", place, damage), None).bodies:
            self.check(bytes(body))

    @fuzz
    @given(st.dictionaries(
        st.sampled_from(["id", "userId", "fromUserType", "to", "group", "msg", "sendTime", "agent"]),
        values,
    ))  # fmt: skip
    def test_any_fields(self, fields: dict[str, Any]) -> None:
        """Known fields may have any values, such as times beyond all calendars, or text with NUL."""
        whole = {"id": "1f", "userId": "alice", "fromUserType": "USER_TYPE", "msg": "x", **fields}
        try:
            body = json.dumps(whole).encode()
        except ValueError:
            return
        self.check(body)

    @fuzz
    @given(st.dictionaries(
        st.sampled_from(["id", "of", "userId", "fromUserType", "to", "group", "room", "msg", "sendTime",
                         "data", "version", "reaction", "on", "mentions", "agent", "ofVersion", "isVisitor"]),
        values,
    ), st.sampled_from(["message", "edit", "recall", "react", "room", "poll"]))  # fmt: skip
    def test_any_event(self, fields: dict[str, Any], kind: str) -> None:
        """The same for events."""
        whole = {"kind": kind, "id": "1f", "userId": "alice", "fromUserType": "USER_TYPE", **fields}
        try:
            body = json.dumps(whole).encode()
        except ValueError:
            return
        self.check(body)

    def test_extremes(self) -> None:
        for body in (b"[" * 100_000, b'{"id":' + b"[" * 100_000, b'{"id":"\xff"}'):
            self.assertRaises(archive_document.UNREADABLE, archive_document.read_archived, body)
        for time in (2**63 - 1, -(2**63), 253_402_300_800_000, -62_135_596_800_001):
            message = IMessage("1f", user_id="a", from_user_type="USER_TYPE", to="b", msg="x", send_time=time)
            self.check(encode_message(message))
        for text in ("\0", "a\0b", "$where", "a.b", "\ufeff"):
            for field in ("id", "user_id", "to", "msg", "client_msg_id"):
                message = msgspec.structs.replace(
                    IMessage("1f", user_id="a", from_user_type="USER_TYPE", to="b", msg="x"), **{field: text}
                )
                self.check(encode_message(message))


class ConfigurationTests(unittest.SynchronousTestCase):
    """A bad configuration file gives an error that names the file and shows no secret."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = str(Path(folder.name, "node.ini"))

    def check(self, content: bytes) -> None:
        Path(self.path).write_bytes(content)
        try:
            configuration.load(self.path)
        except ConfigurationError as error:
            self.assertTrue(str(error).startswith(self.path))
            self.assertLess(len(str(error)), 2000)

    lines = st.one_of(
        st.sampled_from([f"[{section}]" for section in configuration._KEYS]),
        st.builds(
            lambda key, value: f"{key} = {value}",
            st.sampled_from(sorted({key for keys in configuration._KEYS.values() for key in keys})),
            st.text(max_size=20)
            | st.sampled_from(
                ["tcp:1", "tcp:99999999999", "unix:/x\0y", "tcp6:1:interface=\\:\\:1", "ssl:1", "env:",
                 "file:", "file:/", "file:\0", "env:a=b", "1e400", "-1", "\uff19",
                 "redis://[", "amqp://a:b@c:99999", "mongodb://,",
                 "redis://h/\ud7ff", "systemd:domain=INET:index=9", "haproxy:tcp:1", "1" * 5000]
            ),
        ),
        st.text(max_size=20),
    )  # fmt: skip

    @fuzz
    @given(st.lists(lines, max_size=6))
    def test_lines(self, lines: list[str]) -> None:
        """Known sections and keys with any values."""
        self.check("\n".join(lines).encode("utf-8", "surrogatepass"))

    @fuzz
    @given(st.binary())
    def test_bytes(self, content: bytes) -> None:
        self.check(content)
        self.check(b"[auth]\nsecret = " + content)

    @fuzz
    @given(
        st.text()
        | st.builds("{}:{}".format, st.sampled_from(["tcp", "tcp6", "unix", "ssl", "tls"]), st.text())
    )
    def test_endpoints(self, text: str) -> None:
        """Any endpoint string can be made or raises ValueError. Only local ones count as local."""
        try:
            listen = endpoint().parse(text)
        except ValueError:
            return
        if is_loopback(listen) and not listen.startswith("unix:"):
            self.assertRegex(listen, r"interface=(localhost|127\.|\\?:)")


class CredentialTests(unittest.SynchronousTestCase):
    """A signed and valid token gives an identity; any other raises Closing (4001)."""

    SECRET = "a secret of more than 32 bytes, for tests"
    NOW = 1_764_000_000

    def setUp(self) -> None:
        self.authenticator = Authenticator(
            configuration.Auth(mode="jwt", secret=self.SECRET), lambda: self.NOW
        )

    def identity(self, token: str) -> Identity | None:
        """The user id of a token; None if the token is refused."""
        try:
            return self.authenticator.identify(frames.ConnectFrame(True, token=token), None)
        except Closing as closing:
            self.assertEqual(closing.code, CLOSE_UNAUTHORIZED)
        except Refused as refused:
            # The id may not be a user's.
            self.assertEqual(refused.code, "forbidden")
        return None

    def signed(self, head: bytes, claims: bytes) -> str:
        """A token with this head and payload, and a valid signature."""
        body = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, claims))
        signature = hmac.digest(self.SECRET.encode(), body, hashlib.sha256)
        return (body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()

    @fuzz
    @given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_=-]{0,20}\.[A-Za-z0-9_-]{0,50}"))
    def test_any_text(self, token: str) -> None:
        self.assertIsNone(self.identity(token))

    @fuzz
    @given(st.integers(0, 300), st.binary(max_size=3))
    def test_damaged_tokens(self, place: int, damage: bytes) -> None:
        """A changed token never gives another identity."""
        good = jwt.encode({"sub": "alice", "exp": self.NOW + 5}, self.SECRET, "HS256")
        found = self.identity(damaged(good.encode(), place, damage).decode("latin-1"))
        self.assertIn(found, (None, Identity("alice", None, False, self.NOW + 5)))

    @fuzz
    @given(
        values | st.dictionaries(st.sampled_from(["alg", "typ", "crit", "b64", "kid", "jwk", "cty"]), values)
    )
    def test_any_header(self, head: Any) -> None:
        """Valid signatures with any header."""
        claims = json.dumps({"sub": "alice", "exp": self.NOW + 5}).encode()
        self.identity(self.signed(json.dumps(head).encode(), claims))
        self.identity(self.signed(json.dumps({"alg": "HS256", "b64": head, "crit": head}).encode(), claims))

    @fuzz
    @given(values | st.dictionaries(
        st.sampled_from(["sub", "exp", "nbf", "iss", "aud", "loginType", "isCustomerService"]), values
    ))  # fmt: skip
    def test_any_claims(self, claims: Any) -> None:
        """Valid signatures with any claims: a mistake of the issuer must not raise in the node."""
        for whole in (
            claims,
            {"sub": "alice", "exp": self.NOW + 5} | claims if isinstance(claims, dict) else claims,
        ):
            found = self.identity(self.signed(b'{"alg":"HS256"}', json.dumps(whole).encode()))
            if found is not None:
                self.assertIsInstance(found.user_id, str)
                assert found.exp is not None
                self.assertGreater(found.exp, self.NOW - configuration.Auth().leeway_seconds)

    def test_extremes(self) -> None:
        """Depth and numbers without end, bytes that are no text, ids that nobody may have."""
        for claims in (b"[" * 5000, b'{"sub":"alice","exp":' + b"9" * 5000 + b"}",
                       b'{"sub":"\xff","exp":9e9}',
                       b'{"sub":"alice","exp":1e999}', b'{"sub":"alice","exp":NaN}', b"", b"null",
                       b'{"sub":"\\ud800","exp":9e9}', b'{"sub":"a\\u0000","exp":9e9}',
                       b'{"sub":"visitor-0123456789abcdef0123","exp":9e9}'):  # fmt: skip
            self.assertIsNone(self.identity(self.signed(b'{"alg":"HS256"}', claims)), claims[:50])
            self.assertIsNone(self.identity(self.signed(claims, claims)))
        self.assertIsNone(self.identity("x" * 100_000))
        self.assertIsNone(self.identity("." * 8000))

    def test_a_public_key_is_no_secret(self) -> None:
        """A token signed by HS256, with the public key's text as the secret, is refused."""
        private = Ed25519PrivateKey.generate()
        pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        auth = configuration.Auth(mode="jwt", public_key=pem.decode())
        self.authenticator = Authenticator(auth, lambda: self.NOW)
        claims = {"sub": "alice", "exp": self.NOW + 5}
        self.SECRET = pem.decode()
        self.assertIsNone(self.identity(self.signed(b'{"alg":"HS256"}', json.dumps(claims).encode())))
        self.assertIsNone(self.identity(self.signed(b'{"alg":"EdDSA"}', json.dumps(claims).encode())))
        self.assertIsNotNone(self.identity(jwt.encode(claims, private, "EdDSA")))

    @example("visitor-" + "0" * 20 + "." + "x" * 43 + "\n")
    @example("visitor-" + "\u0660" * 20 + "." + "x" * 43)
    @fuzz
    @given(st.text() | st.from_regex(r"visitor-[0-9a-f]{19,21}\.[A-Za-z0-9_-]{42,44}"))
    def test_visitors_tokens(self, token: str) -> None:
        """Any token of a visitor gives an id and a hash in ASCII, or raises Closing."""
        try:
            visitor, token_hash = read_visitor_token(token)
        except Closing as closing:
            self.assertEqual(closing.code, CLOSE_UNAUTHORIZED)
        else:
            self.assertRegex(visitor, r"\Avisitor-[0-9a-f]{20}\Z")
            self.assertRegex(token_hash, r"\A[0-9a-f]{64}\Z")
            self.assertTrue(token.startswith(visitor))
            self.assertTrue(token.isascii())

    @fuzz
    @given(st.text())
    def test_headers(self, text: str) -> None:
        """Any Authorization, Host and Origin headers."""
        bearer_token(text)
        for origins in ((), ("*",), ("https://*.example.com", text)):
            for open_mode in (True, False):
                try:
                    check_request("/ws", {"host": text, "origin": text}, os.devnull, open_mode, origins)
                except Denied as denied:
                    self.assertEqual(denied.status, 403)
