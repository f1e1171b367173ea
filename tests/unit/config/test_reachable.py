"""How others reach a node: its name, its addresses."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.config.reachable import Address, Listening, check_name, listening, parse_address

FEW = settings(max_examples=100, deadline=None)


class NameTests(unittest.TestCase):
    def test_names(self) -> None:
        for name in ("n1", "east_1.example:9000-a", "x" * 100):
            self.assertEqual(check_name(name), name)
        for name in ("", "a b", "a@b", "a%20", "ü", "a\n", "x" * 101):
            self.assertRaisesRegex(ValueError, "letters, digits", check_name, name)


class AddressTests(unittest.TestCase):
    def test_addresses(self) -> None:
        self.assertEqual(parse_address("imd-1.example:9000"), Address("imd-1.example", 9000))
        self.assertEqual(parse_address("[2001:db8::1]:80"), Address("2001:db8::1", 80))
        for text in ("10.0.0.7:1", "host:65535", "[2001:db8::1]:80"):
            self.assertEqual(str(parse_address(text)), text)

    def test_bad(self) -> None:
        for text in ("", "host", "host:", "host:0", "host:65536", ":80", "::1:80", "a b:1", "a:1\n", "-a:1"):
            self.assertRaisesRegex(ValueError, "HOST:PORT", parse_address, text)

    def test_any_address(self) -> None:
        """An address that stands for any is nobody's."""
        for text in ("0.0.0.0:80", "[::]:80", "[0:0::0]:80"):
            self.assertRaisesRegex(ValueError, "any address", parse_address, text)

    @FEW
    @given(st.text(max_size=30))
    def test_any_text(self, text: str) -> None:
        try:
            address = parse_address(text)
        except ValueError:
            return
        self.assertEqual(parse_address(str(address)), address)


class ListeningTests(unittest.TestCase):
    def test_from_listen(self) -> None:
        for listen, host, port, tls, proxy in (
            ("tcp:9000:interface=10.0.0.7", "10.0.0.7", 9000, False, False),
            ("tcp:interface=10.0.0.7:port=9000", "10.0.0.7", 9000, False, False),
            (r"tcp6:9000:interface=2001\:db8\:\:1", "2001:db8::1", 9000, False, False),
            ("ssl:9443:interface=10.0.0.7:privateKey=/k.pem:certKey=/c.pem", "10.0.0.7", 9443, True, False),
            ("haproxy:tcp:9000:interface=10.0.0.7:backlog=100", "10.0.0.7", 9000, False, True),
        ):
            self.assertEqual(listening(listen), Listening(Address(host, port), tls, proxy), listen)

    def test_advertised(self) -> None:
        """The address is as advertised; TLS and PROXY are the listener's."""
        found = listening("ssl:9443:privateKey=/k.pem", "node1.example:443")
        self.assertEqual(found, Listening(Address("node1.example", 443), True, False))
        found = listening("haproxy:tcp:9000", "node1.example:9000")
        self.assertEqual(found, Listening(Address("node1.example", 9000), False, True))
        self.assertRaises(ValueError, listening, "tcp:9000", "0.0.0.0:9000")

    def test_unspecified(self) -> None:
        """A node that others could not reach by what it says is refused."""
        for listen, why in (
            ("tcp:9000", "every interface"),
            ("tcp:9000:interface=0.0.0.0", "any address"),
            (r"tcp6:9000:interface=\:\:", "any address"),
            ("tcp:0:interface=127.0.0.1", "HOST:PORT"),
            ("unix:/run/imd.sock", "no TCP port"),
            ("haproxy:ssl:9443:interface=127.0.0.1:privateKey=/k.pem", "does not work with HAProxy"),
        ):
            self.assertRaisesRegex(ValueError, why, listening, listen)
