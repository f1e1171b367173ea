"""Opening requests with any content."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from tests.hostile.inprocess import InProcess
from tests.hostile.raw import TEXT, frame, handshake

_DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"
_lines = st.sampled_from(
    [
        *("Host: a", "Host: [::1", "Host: a:b", "Host: a:99999999999999999999", "X", ": x", "Upgrade: h2c"),
        *("Origin: http://[", "Origin: null", "Origin: file://x", "Origin: http://a:b", "Content-Length: 5"),
        *("Sec-WebSocket-Version: x", "Sec-WebSocket-Key: x", "Sec-WebSocket-Protocol: a, a"),
        *(_DEFLATE, f'{_DEFLATE}; client_max_window_bits=99; x="', "Sec-WebSocket-Extensions: =;;,,="),
        *("Authorization: Bearer", "Transfer-Encoding: chunked"),
    ]
)
_paths = st.text(st.characters(max_codepoint=255), max_size=20)
lines = _lines | st.text(st.characters(max_codepoint=255), max_size=30)


class HandshakeTests(unittest.SynchronousTestCase):
    """Any opening request gets an HTTP answer, or waits for its end; none raises."""

    def check(self, request: bytes) -> None:
        connection = InProcess()
        connection.receive(request)
        written = connection.written()
        if written:
            self.assertRegex(written, rb"\AHTTP/1\.1 [1-5][0-9][0-9] ")
            self.assertEqual(written.count(b"\r\n\r\n"), 1, written)
        elif b"\r\n\r\n" in request:
            self.fail(f"no answer to {request!r}")
        connection.clock.advance(60)
        connection.lose()
        self.assertEqual(connection.clock.getDelayedCalls(), [])

    @settings(max_examples=80, deadline=None)
    @given(st.lists(lines, max_size=4), _paths, st.booleans())
    def test_any_headers(self, extra: list[str], path: str, whole: bool) -> None:
        """Any headers beside the proper ones, or in their place."""
        if whole:
            self.check(handshake(*extra, path=f"/ws{path}"))
        else:
            self.check("\r\n".join([f"GET {path} HTTP/1.1", *extra, "", ""]).encode("latin-1"))

    @settings(max_examples=80, deadline=None)
    @given(st.integers(0, 300), st.binary(max_size=4))
    def test_damaged_requests(self, place: int, damage: bytes) -> None:
        """A proper request with a few bytes changed."""
        request = handshake("Origin: http://127.0.0.1:9000")
        self.check(request[:place] + damage + request[place + 1 :])

    def test_no_compression(self) -> None:
        """Compression is never agreed on."""
        connection = InProcess()
        connection.receive(handshake("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
        answer = connection.written()
        self.assertTrue(answer.startswith(b"HTTP/1.1 101 "))
        self.assertNotIn(b"extensions", answer.lower())
        connection.receive(frame(TEXT, b"\xabV*\xa9,HU\xb2R*\xc8\xccKW\xaa\x05\x00", rsv=4))
        self.assertEqual(connection.written()[2:4], (1002).to_bytes(2, "big"))
