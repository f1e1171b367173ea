"""PROXY headers, whole and in pieces, good and bad."""

from __future__ import annotations

import ipaddress
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.entry.proxy_header import MAX_BYTES, Header, parse

FEW = settings(max_examples=200, deadline=None)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def binary(command: int, kind: int, rest: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(rest)) + rest


def addresses(source: str, destination: str, port: int) -> bytes:
    pair = [ipaddress.ip_address(text).packed for text in (source, destination)]
    return b"".join(pair) + struct.pack("!HH", port, 9000)


GOOD = {
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 9000\r\n": ("192.0.2.7", 1234),
    b"PROXY TCP6 2001:DB8::7 2001:db8::1 1 9000\r\n": ("2001:db8::7", 1),
    b"PROXY UNKNOWN\r\n": (None, 0),
    b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n": (None, 0),
    binary(0x21, 0x11, addresses("192.0.2.7", "192.0.2.1", 1234)): ("192.0.2.7", 1234),
    binary(0x21, 0x21, addresses("2001:db8::7", "2001:db8::1", 7)): ("2001:db8::7", 7),
    binary(0x21, 0x11, addresses("192.0.2.7", "192.0.2.1", 1) + b"\x03\0\x04abcd"): ("192.0.2.7", 1),
    binary(0x20, 0x11, addresses("192.0.2.7", "192.0.2.1", 1)): (None, 0),
    binary(0x20, 0, b""): (None, 0),
    binary(0x21, 0x31, b"x" * 216): (None, 0),
}
BAD = (
    b"GET /ws HTTP/1.1\r\n",
    b"PROXY TCP4 nonsense 192.0.2.1 1234 9000\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 1 9000\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 x 9000\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1 65536\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1234\r\n",
    b"PROXY TCP5 192.0.2.7 192.0.2.1 1 1\r\n",
    b"PROXY \xff\xff\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4 " + b"1" * 200,
    b"PROXZ",
    b"\r\n\r\n\0\r\nQUIX",
    binary(0x11, 0x11, addresses("192.0.2.7", "192.0.2.1", 1)),
    binary(0x22, 0x11, addresses("192.0.2.7", "192.0.2.1", 1)),
    binary(0x21, 0x11, b"x" * 11),
    binary(0x21, 0x21, addresses("192.0.2.7", "192.0.2.1", 1)),
    binary(0x21, 0x11, b"x" * MAX_BYTES),
)


class HeaderTests(unittest.TestCase):
    def test_good(self) -> None:
        """With what follows it, and from any first piece of it on."""
        for data, (source, port) in GOOD.items():
            for rest in (b"", b"GET /ws HTTP/1.1\r\n\r\n"):
                self.assertEqual(parse(data + rest), Header(source, port, len(data)), data)
            for size in range(len(data)):
                self.assertIsNone(parse(data[:size]), data[:size])

    def test_bad(self) -> None:
        for data in BAD:
            self.assertRaises(ValueError, parse, data)

    @FEW
    @given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"!"]), st.binary())
    def test_any_bytes(self, start: bytes, rest: bytes) -> None:
        """A header, none yet, or ValueError; a source is an address."""
        try:
            header = parse(start + rest)
        except ValueError:
            return
        if header is not None and header.source is not None:
            ipaddress.ip_address(header.source)
