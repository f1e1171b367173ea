from __future__ import annotations

from twisted.trial import unittest

from imd.entry.handshake import Denied, check_request, matches

PROXY_HEADERS = (
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-anything",
    "x-real-ip",
    "via",
)


class HandshakeCase(unittest.TestCase):
    open_mode = False
    peer: str | None = "127.0.0.1"

    def check(self, headers: dict[str, str], *origins: str, path: str = "/ws") -> None:
        check_request(path, headers, self.peer, self.open_mode, origins)

    def denied(self, headers: dict[str, str], *origins: str, path: str = "/ws", status: int = 403) -> None:
        denial = self.assertRaises(Denied, check_request, path, headers, self.peer, self.open_mode, origins)
        self.assertEqual(denial.status, status)
        self.assertTrue(denial.reason)


class PathTests(HandshakeCase):
    def test_only_ws(self) -> None:
        """Only the protocol's path is accepted."""
        self.check({"host": "h"}, path="/ws")
        for path in ("/", "", "/ws/", "/WS", "/ws/x", "//ws", "/ws?x=1", "ws"):
            self.denied({"host": "h"}, path=path, status=404)


class OpenModeTests(HandshakeCase):
    open_mode = True

    def test_peers(self) -> None:
        """The address must be local; a Unix socket has none."""
        for self.peer in (None, "127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"):
            self.check({"host": "localhost"})
        for self.peer in (
            "192.0.2.1",
            "::",
            "0.0.0.0",
            "2001:db8::1",
            "::ffff:192.0.2.1",
            "",
            "localhost",
            "x",
        ):
            self.denied({"host": "localhost"})

    def test_host_names(self) -> None:
        """Names of this machine are accepted on any port and in any case."""
        for host in (
            "localhost",
            "localhost:9000",
            "LocalHost:1",
            "chat.localhost",
            "a.b.LOCALHOST:9000",
            "127.0.0.1",
            "127.1.2.3:80",
            "[::1]",
            "[::1]:9000",
            "[0:0:0:0:0:0:0:1]:9000",
        ):
            self.check({"host": host})

    def test_other_host_names(self) -> None:
        """Foreign names that point here (DNS rebinding), look-alikes and malformed hosts are denied."""
        for host in (
            "",
            "example.com",
            "example.com:9000",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "notlocalhost",
            "localhost.",
            ".localhost",
            "localhost@example.com",
            "example.com@localhost",
            "localhost, example.com",
            "localhost:9000:9000",
            "localhost:",
            "localhost:0",
            "localhost:99999",
            "localhost\n",
            " localhost",
            "localhost/",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0.0.0.0",
            "10.0.0.1",
            "[::]",
            "[::1",
            "::1",
            "[::1]x",
            "[:::1]",
            "[127.0.0.1]",
            "[2001:db8::1]:9000",
            "ⓛocalhost",
            "localhost:٩",
            "a" * 10_000,
        ):
            self.denied({"host": host})
        self.denied({})

    def test_proxies(self) -> None:
        """A request through a proxy is denied."""
        for name in PROXY_HEADERS:
            self.denied({"host": "localhost", name: "127.0.0.1"})
            self.denied({"host": "localhost", name: ""})

    def test_other_headers(self) -> None:
        """Ordinary headers do not matter."""
        self.check({"host": "localhost", "user-agent": "x", "x-requested-with": "y", "upgrade": "websocket"})

    def test_pages(self) -> None:
        """A page from this machine may connect; one from anywhere else may not."""
        self.check({"host": "localhost:9000", "origin": "http://localhost:8080"})
        self.denied({"host": "localhost:9000", "origin": "https://example.com"})
        self.denied({"host": "localhost:9000", "origin": "null"})


class JwtModeTests(HandshakeCase):
    peer = "192.0.2.1"

    def test_anybody_may_ask(self) -> None:
        """In jwt mode the address, the name and proxies do not matter."""
        for headers in ({"host": "chat.example.com"}, {"host": "garbage here"}, {}):
            self.check(headers)
        for name in PROXY_HEADERS:
            self.check({"host": "chat.example.com", name: "x"})


class SameHostTests(HandshakeCase):
    def test_no_origin(self) -> None:
        """A request without an origin is not from a browser, and is accepted."""
        self.check({"host": "chat.example.com"})

    def test_same_host(self) -> None:
        """An origin with the Host header's host is accepted, on any port, by http or https."""
        for host, origin in (
            ("chat.example.com", "https://chat.example.com"),
            ("chat.example.com:9000", "http://chat.example.com"),
            ("chat.example.com", "http://chat.example.com:8080"),
            ("Chat.Example.COM:1", "HTTPS://CHAT.example.com:2"),
            ("[2001:db8::1]:9000", "http://[2001:DB8:0::1]:8080"),
            ("192.0.2.1:9000", "http://192.0.2.1"),
            ("my_host", "http://my_host"),
        ):
            self.check({"host": host, "origin": origin})

    def test_secure(self) -> None:
        """Where a trusted proxy says that the client speaks TLS, a page without it is another site."""
        for secure, scheme, welcome in (
            (True, "https", True),
            (True, "http", False),
            (False, "http", True),
            (False, "https", True),
            (None, "http", True),
        ):
            headers = {"host": "chat.example.com", "origin": f"{scheme}://chat.example.com"}
            if welcome:
                check_request("/ws", headers, "192.0.2.1", False, (), secure)
            else:
                self.assertRaises(Denied, check_request, "/ws", headers, "192.0.2.1", False, (), secure)
            # Patterns name the scheme themselves.
            check_request("/ws", headers, "192.0.2.1", False, ("*://chat.example.com",), secure)

    def test_other_hosts(self) -> None:
        """Other hosts, other schemes, null and malformed origins are denied."""
        for origin in (
            "null",
            "",
            "https://example.com",
            "https://evil.com",
            "https://chat.example.com.evil.com",
            "https://evilchat.example.com",
            "https://evil.com/chat.example.com",
            "https://evil.com#chat.example.com",
            "https://evil.com?chat.example.com",
            "https://evil.com\\chat.example.com",
            "https://chat.example.com@evil.com",
            "https://evil.com@chat.example.com",
            "https://u:p@chat.example.com",
            "https://chat.example.com/",
            "https://chat.example.com/x",
            "https://chat.example.com.",
            "https://chat.example.com:",
            "https://chat.example.com:0",
            "https://chat.example.com:65536",
            "https://chat.example.com:443:443",
            "https://chat.example.com, https://evil.com",
            "https://evil.com https://chat.example.com",
            "https://chat.example.com\n",
            "https://chat.example.com\r\nx: y",
            " https://chat.example.com",
            "https:chat.example.com",
            "https:/chat.example.com",
            "//chat.example.com",
            "chat.example.com",
            "ftp://chat.example.com",
            "file://chat.example.com",
            "chrome-extension://chat.example.com",
            "javascript://chat.example.com",
            "https://[chat.example.com]",
            "https://ⓒhat.example.com",
            "https://chat%2eexample.com",
            "https://*",
        ):
            self.denied({"host": "chat.example.com", "origin": origin})

    def test_without_a_usable_host(self) -> None:
        """Without a usable host, no origin has the same host."""
        for headers in ({}, {"host": ""}, {"host": "a b"}, {"host": "[x]"}):
            self.denied({**headers, "origin": "https://chat.example.com"})
        self.denied({"origin": "https://[x]"})


class PatternTests(HandshakeCase):
    def test_stars(self) -> None:
        """Each pattern accepts its origins with any Host header."""
        for pattern, origins in (
            (
                "https://*.example.com",
                ["https://a.example.com", "https://a.b.example.com", "HTTPS://A.Example.Com"],
            ),
            ("HTTPS://*.Example.com", ["https://a.example.com"]),
            ("http://localhost:*", ["http://localhost:3000", "http://localhost:80", "http://localhost"]),
            ("https://example.com", ["https://example.com", "https://example.com:443"]),
            ("https://example.com:443", ["https://example.com", "https://example.com:443"]),
            ("https://app?.example.com", ["https://app1.example.com"]),
            ("http://[::1]:*", ["http://[::1]:9000", "http://[0::1]:9000"]),
            ("chrome-extension://abcdef", ["chrome-extension://abcdef"]),
            ("*", ["https://anything.example", "http://[::1]:3", "app://x", "null"]),
            ("null", ["null"]),
        ):
            for origin in origins:
                self.check({"host": "chat.example.org", "origin": origin}, "https://other.example", pattern)

    def test_stars_stay_within_the_host(self) -> None:
        """A star never matches a path, a user, a fragment or another host."""
        for pattern, origins in (
            (
                "https://*.example.com",
                [
                    "https://example.com",
                    "http://a.example.com",
                    "https://a.example.com:8443",
                    "https://a.example.com.evil.com",
                    "https://evilexample.com",
                    "https://evil.com/.example.com",
                    "https://evil.com#.example.com",
                    "https://evil.com?.example.com",
                    "https://evil.com\\.example.com",
                    "https://evil.com:443.example.com",
                    "https://evil.com:443/.example.com",
                    "https://evil.com@a.example.com",
                    "https://a.example.com@evil.com",
                    "https://evil.com\n.example.com",
                    "https://evil.com .example.com",
                    "https://evil.com\0.example.com",
                    "https://evil.com%2f.example.com",
                    "https://evil.com,https://a.example.com",
                    "https://.example.com",
                ],
            ),
            (
                "http://localhost:*",
                ["http://localhost:3000/", "http://localhost.evil.com", "http://localhost:x@evil"],
            ),
            ("https://example.com", ["https://example.com:444", "https://exampleXcom", "null", ""]),
            ("https://[ab].example.com", ["https://a.example.com"]),
            ("https://*", ["null", "http://example.com"]),
            ("*", ["garbage", "https://", "://x", "https://a/b", "https://a\n", ""]),
        ):
            for origin in origins:
                self.denied({"host": "chat.example.org", "origin": origin}, pattern)

    def test_same_host_is_not_enough(self) -> None:
        """If there are patterns, only they decide."""
        self.denied({"host": "example.com", "origin": "https://example.com"}, "https://other.example")

    def test_long_origins(self) -> None:
        """An origin longer than any name is denied unread."""
        self.denied({"host": "h", "origin": "https://" + "a" * 100_000}, "*a*a*a*a*a*b")

    def test_matches_is_about_the_whole(self) -> None:
        """A pattern that matches a part of the origin only does not accept it."""
        self.assertTrue(matches("https://a.b", "https://a.b"))
        self.assertFalse(matches("https://a.b", "a.b"))
        self.assertFalse(matches("https://a.b.c", "https://a.b"))
