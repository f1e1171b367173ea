"""Whose address a connection has, whatever its headers claim."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.entry.forwarded import Client, Trusted, client_by_header, client_of, parse_trusted

TRUSTED = parse_trusted(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "unix"])
FEW = settings(max_examples=100, deadline=None)


def address(peer: str | None, forwarded: str, trusted: Trusted = TRUSTED) -> str | None:
    return client_of(peer, {"x-forwarded-for": forwarded}, trusted).address


class ForwardedTests(unittest.TestCase):
    def test_trusted_peer(self) -> None:
        for forwarded, client in (
            ("198.51.100.1", "198.51.100.1"),
            ("6.6.6.6, 198.51.100.1", "198.51.100.1"),
            ("6.6.6.6,198.51.100.1,10.1.2.3 , 192.0.2.7", "198.51.100.1"),
            ("10.9.9.9", "10.9.9.9"),
            ("198.51.100.1:5555", "198.51.100.1"),
            ("[2001:db9::1]:443", "2001:db9::1"),
            ("2001:DB9:0::1", "2001:db9::1"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
        ):
            self.assertEqual(address("10.0.0.1", forwarded), client, forwarded)

    def test_nonsense(self) -> None:
        """An entry that is no address ends the search: the proxy that sent it counts."""
        for forwarded in ("", "unknown", "6.6.6.6, unknown", "a" * 10_000, "1.2.3.4.5", ","):
            self.assertEqual(address("10.0.0.1", forwarded), "10.0.0.1", forwarded)
        self.assertEqual(address("10.0.0.1", "evil, 10.0.0.2"), "10.0.0.2")

    def test_untrusted_peer(self) -> None:
        found = client_of(
            "203.0.113.5", {"x-forwarded-for": "10.0.0.1", "x-forwarded-proto": "https"}, TRUSTED
        )
        self.assertEqual(found, Client("203.0.113.5", None, True))
        self.assertEqual(client_of("203.0.113.5", {}, TRUSTED), Client("203.0.113.5", None, False))
        self.assertEqual(address("10.0.0.1", "6.6.6.6", Trusted()), "10.0.0.1")

    def test_unix(self) -> None:
        self.assertEqual(address(None, "198.51.100.1"), "198.51.100.1")
        self.assertEqual(address(None, "198.51.100.1", Trusted()), None)

    def test_mapped_peer(self) -> None:
        """A listener on :: sees IPv4 proxies as IPv6."""
        self.assertEqual(address("::ffff:10.0.0.1", "198.51.100.1"), "198.51.100.1")

    def test_scheme(self) -> None:
        for proto, secure in (
            ("https", True),
            ("http", False),
            ("http, HTTPS", True),
            ("gopher", None),
            ("", None),
        ):
            found = client_of("10.0.0.1", {"x-forwarded-proto": proto}, TRUSTED)
            self.assertIs(found.secure, secure, proto)

    def test_what_to_trust(self) -> None:
        for word in ("", "10.0.0.1/8", "proxy.example", "10.0.0.0/33", "*"):
            self.assertRaises(ValueError, parse_trusted, [word])

    @FEW
    @given(
        st.ip_addresses().filter(lambda ip: not TRUSTED.has(str(ip))),
        st.dictionaries(st.sampled_from(["x-forwarded-for", "forwarded", "via", "x"]), st.text(max_size=80)),
    )
    def test_strangers_are_themselves(
        self, peer: ipaddress.IPv4Address | ipaddress.IPv6Address, headers: dict[str, str]
    ) -> None:
        found = client_of(str(peer), headers, TRUSTED)
        self.assertEqual(found.address, str(getattr(peer, "ipv4_mapped", None) or peer))

    @FEW
    @given(st.text(max_size=60), st.ip_addresses().filter(lambda ip: not TRUSTED.has(str(ip))))
    def test_lies_stand_left(self, lies: str, real: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
        """Claims of a client stand left of the proxy's own word."""
        real_text = str(getattr(real, "ipv4_mapped", None) or real)
        if TRUSTED.has(real_text):
            return
        self.assertEqual(address("10.0.0.1", f"{lies}, {real}"), real_text)


class ProxyHeaderTests(unittest.TestCase):
    """Behind a trusted proxy that speaks the PROXY protocol."""

    def test_client(self) -> None:
        """Its client counts, whatever that one's own headers claim; nobody is warned of them."""
        lies = {"x-forwarded-for": "6.6.6.6", "x-real-ip": "6.6.6.6"}
        self.assertEqual(client_by_header("198.51.100.1", lies, TRUSTED), Client("198.51.100.1", None, False))
        self.assertEqual(client_by_header("2001:DB9::1", {}, TRUSTED).address, "2001:db9::1")

    def test_another_proxy(self) -> None:
        """A client that is a trusted proxy as well, or the proxy itself, names another by its headers."""
        for source in ("10.0.0.1", None):
            client = client_by_header(source, {"x-forwarded-for": "6.6.6.6, 198.51.100.1"}, TRUSTED)
            self.assertEqual(client, Client("198.51.100.1", None, False))

    def test_scheme(self) -> None:
        for source in ("198.51.100.1", "10.0.0.1"):
            self.assertTrue(client_by_header(source, {"x-forwarded-proto": "https"}, TRUSTED).secure)
