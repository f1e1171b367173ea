from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, strategies
from hypothesis import settings as hypothesis_settings
from twisted.trial import unittest

from imd.config.settings import Settings, load, node_name
from imd.protocol.errors import ConfigurationError

SECRET = "0123456789abcdef0123456789abcdef"

# Keys and defaults as the protocol lists them.
PROTOCOL = {
    "node": {
        "name": "", "backend": "embedded", "data": "var", "lease_seconds": 90, "stop_seconds": 10,
        "drain_seconds": 0,
        "control": "",
    },
    "websocket": {
        "listen": "tcp:9000:interface=127.0.0.1",
        "origins": (),
        "connect_seconds": 10,
        "ping_seconds": 25,
        "pong_seconds": 10,
        "trusted_proxies": (),
    },
    "http": {"listen": "tcp:8080:interface=127.0.0.1", "pages": True, "websocket_url": ""},
    "auth": {
        "mode": "open",
        "secret": "",
        "public_key": "",
        "issuer": "",
        "audience": "",
        "leeway_seconds": 30,
        "visitors": True,
        "visitor_days": 30,
    },
    "limits": {
        "message_bytes": 65536,
        "group_members": 500,
        "messages_per_second": 50,
        "burst": 200,
        "ack_window": 256,
        "connections": 100000,
        "connections_per_user": 32,
        "connections_per_address": 0,
        "visitors_per_address": 120,
        "unfinished_bytes": 67108864,
        "devices": 16,
        "new_ids": 1000,
        "room_members": 1000,
    },
    "messages": {"edit_seconds": 86400, "recall_seconds": 86400},
    "rooms": {"customers_create": False},
    "presence": {"visible": "staff"},
    "inbox": {
        "keep_days": 30,
        "max_messages": 10000,
        "unopened_messages": 1000,
        "dedup_seconds": 3600,
        "reconcile_seconds": 15,
    },
    "redis": {"url": "redis://127.0.0.1:6379/0", "lossless": False, "timeout_seconds": 5},
    "rabbitmq": {"url": "amqp://guest:guest@127.0.0.1:5672/", "confirm_seconds": 5},
    "mongodb": {"url": "mongodb://127.0.0.1:27017/imd", "timeout_seconds": 10},
    "archive": {"consume": True, "queue_bytes": 1073741824, "batch": 2000},
    "desk": {"grace_seconds": 120},
    "cluster": {"routing": "search", "advertise": "", "advertise_http": ""},
}


class FileCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        self.path = self.folder / "node.ini"

    def load(self, text: str) -> Settings:
        self.path.write_text(text, encoding="utf-8")
        return load(str(self.path))

    def complaint(self, text: str) -> str:
        self.path.write_text(text, encoding="utf-8")
        return str(self.assertRaises(ConfigurationError, load, str(self.path)))


class ValuesTests(FileCase):
    def test_empty_file_has_the_protocols_defaults(self) -> None:
        """An empty file gives exactly the keys and defaults of the protocol."""
        self.assertEqual(dataclasses.asdict(self.load("")), PROTOCOL)
        self.assertEqual(self.load(""), Settings())

    def test_every_default_is_an_allowed_value(self) -> None:
        """A file that spells out all defaults means the same as an empty one."""
        lines = []
        for section, keys in PROTOCOL.items():
            lines.append(f"[{section}]")
            for key, value in keys.items():
                text = {bool: "yes" if value else "no", tuple: ""}.get(type(value), value)
                lines.append(f"{key} = {text}")
        self.assertEqual(self.load("\n".join(lines)), Settings())

    def test_values_of_each_kind(self) -> None:
        """Numbers, switches, lists and choices get their attributes' types."""
        found = self.load(
            "[node]\nbackend = cluster\nstop_seconds=2.5\n[websocket]\norigins = https://*.Example.com, *\n"
            "  http://localhost:*\n[auth]\nvisitors = off\n"
            "leeway_seconds = 0\n[limits]\nmessages_per_second = 0\n[redis]\nlossless: TRUE\n"
        )
        self.assertEqual(found.auth.leeway_seconds, 0)
        self.assertEqual((found.node.backend, found.node.stop_seconds), ("cluster", 2.5))
        self.assertEqual(found.websocket.origins, ("https://*.example.com", "*", "http://localhost:*"))
        self.assertIs(found.auth.visitors, False)
        self.assertEqual(found.limits.messages_per_second, 0)
        self.assertIs(found.redis.lossless, True)

    def test_comments(self) -> None:
        """A comment is a line with ; or #, or follows ; after white space; inside a value both are text."""
        found = self.load("# one\n; two\n  ; three\n[node] ; four\nname =   ; default\ndata = a;b#c ; five\n")
        self.assertEqual((found.node.name, found.node.data), ("", "a;b#c"))

    def test_no_interpolation(self) -> None:
        """Per cent and dollar signs have no special meaning."""
        self.assertEqual(self.load("[auth]\nissuer = 100%(x)s ${y} %%\n").auth.issuer, "100%(x)s ${y} %%")

    def test_byte_order_mark_and_dos_lines(self) -> None:
        """A byte order mark and DOS line ends are accepted."""
        self.assertEqual(self.load("\ufeff[node]\r\nname = a\r\n").node.name, "a")

    def test_urls(self) -> None:
        """Every usual form of a backend's URL is accepted unchanged."""
        for section, url in (
            ("redis", "rediss://:p%40ss@[::1]:6380/3"),
            ("redis", "redis://user:p@redis.internal"),
            ("rabbitmq", "amqps://a:b@mq/%2fchat?heartbeat=5"),
            ("rabbitmq", "amqp://mq"),
            ("mongodb", "mongodb://u:p@a:1,b:2,[::1]:3/chat?replicaSet=rs"),
            ("mongodb", "mongodb+srv://u:p@db.example.com/"),
        ):
            self.assertEqual(getattr(self.load(f"[{section}]\nurl = {url}\n"), section).url, url)

    def test_websocket_url(self) -> None:
        """A WebSocket URL, a path of the page's origin, or nothing."""
        for url in ("wss://chat.example.com/ws", "ws://h:9000", "/ws", "/chat/ws", ""):
            self.assertEqual(self.load(f"[http]\nwebsocket_url = {url}\n").http.websocket_url, url)
        for url in ("https://h/ws", "//h/ws", "h/ws", "wss://", "/w s", "/\\\\h"):
            self.assertIn("[http] websocket_url", self.complaint(f"[http]\nwebsocket_url = {url}\n"))

    def test_database(self) -> None:
        """The database is the URL's, or imd."""
        for url, database in (
            ("mongodb://h/chat?w=1", "chat"),
            ("mongodb://h", "imd"),
            ("mongodb://h/?replicaSet=rs", "imd"),
        ):
            self.assertEqual(self.load(f"[mongodb]\nurl = {url}\n").mongodb.database, database)

    def test_node_name(self) -> None:
        """The name that is given, or one with the process id."""
        self.assertEqual(node_name(self.load("[node]\nname = n1")), "n1")
        self.assertRegex(node_name(self.load("")), rf"^[A-Za-z0-9._@-]+-{os.getpid()}$")

    def test_repr_shows_no_secret(self) -> None:
        """No secret is in the text of settings, which may be logged."""
        found = self.load(
            f"[auth]\nmode = jwt\nsecret = {SECRET}\n[redis]\nurl = redis://:hunter2@h\n"
            "[rabbitmq]\nurl = amqp://u:hunter2@h\n[mongodb]\nurl = mongodb://u:hunter2@h\n"
        )
        for text in (repr(found), str(found), f"{found.auth}{found.redis}{found.rabbitmq}{found.mongodb}"):
            self.assertNotIn("hunter2", text)
            self.assertNotIn(SECRET, text)


class ReferenceTests(FileCase):
    def test_env(self) -> None:
        """env:NAME is the variable's value, for any kind of key. A reference in it is text."""
        self.patch(os, "environ", {**os.environ, "IMD_TEST_SECONDS": "7", "IMD_TEST_NAME": "env:OTHER ; x"})
        found = self.load("[node]\nstop_seconds = env:IMD_TEST_SECONDS\n[auth]\nissuer = env:IMD_TEST_NAME")
        self.assertEqual((found.node.stop_seconds, found.auth.issuer), (7.0, "env:OTHER ; x"))

    def test_file(self) -> None:
        """file:PATH is the file's text, stripped; PATH begins at the INI file's folder."""
        (self.folder / "secret").write_text(f"\n{SECRET}\n")
        found = self.load("[auth]\nmode = jwt\nsecret = file:secret\n")
        self.assertEqual(found.auth.secret, SECRET)
        absolute = (self.folder / "secret").absolute()
        self.assertEqual(self.load(f"[auth]\nmode = jwt\nsecret = file:{absolute}").auth.secret, SECRET)

    def test_missing(self) -> None:
        """A variable that is not set and a file that is not there stop the start."""
        self.assertIn(
            "node.ini:2: [auth] secret: found 'env:IMD_NOT_SET'",
            self.complaint("[auth]\nsecret=env:IMD_NOT_SET"),
        )
        self.assertIn("No such file", self.complaint("[auth]\nsecret=file:nowhere"))
        self.assertIn("null byte", self.complaint("[auth]\nsecret=file:a\0b"))

    def test_what_they_hold_is_not_shown(self) -> None:
        """An error about a referenced value names the reference, not the value."""
        (self.folder / "x").write_text("hunter2")
        text = self.complaint("[node]\nstop_seconds = file:x")
        self.assertIn("found 'file:x', expected a number of seconds", text)
        self.assertNotIn("hunter2", text)


class ComplaintTests(FileCase):
    def test_values(self) -> None:
        """An error names file, line, section and key, the value, and what was expected."""
        for section, line, expected in (
            ("node", "backend = cloud", "found 'cloud', expected embedded or cluster"),
            (
                "node",
                "backend = Cluster",
                "found 'Cluster', expected embedded or cluster (did you mean cluster?)",
            ),
            ("node", "name = two words", "found 'two words', expected 1 to 100 letters"),
            ("node", "stop_seconds = 0", "found '0', expected a number of seconds, above 0 and up to 86400"),
            ("node", "control = tcp:9:interface=127.0.0.1", "expected unix:PATH:mode=600, or nothing"),
            ("node", "control = unix:/tmp/x:mode=666", "its mode lets everybody in"),
            ("auth", "leeway_seconds = -1", "found '-1', expected a number of seconds, 0 to 86400"),
            ("node", "stop_seconds = inf", "found 'inf'"),
            ("node", "stop_seconds = -1", "found '-1'"),
            ("node", "stop_seconds =", "found nothing, expected a number"),
            ("node", "data =", "found nothing, expected a folder"),
            ("node", "lease_seconds = 0.5", "expected a number of seconds, 1 to 86400"),
            ("node", "lease_seconds = 1e2", "found '1e2'"),
            ("inbox", "keep_days = 0", "expected a number of days, above 0"),
            ("limits", "burst = 0", "found '0', expected a whole number, 1 to 1000000"),
            ("limits", "burst = 2.0", "found '2.0'"),
            ("limits", "burst = ٣", "expected a whole number"),
            ("limits", "connections_per_address = -1", "expected a whole number, 0 to"),
            ("auth", "visitors = perhaps", "found 'perhaps', expected yes or no"),
            ("websocket", "origins = example.com", "found 'example.com', expected origins such as"),
            ("websocket", "origins = https://example.com/", "expected origins such as"),
            ("websocket", "listen = 9000", "found '9000', expected a Twisted endpoint"),
            ("websocket", "listen = tcp:http", "expected a Twisted endpoint"),
            ("websocket", "listen = tcp:70000:interface=127.0.0.1", "the port is a number up to 65535"),
            ("websocket", "listen = tcp:-1:interface=127.0.0.1", "the port is a number up to 65535"),
            ("websocket", "listen = carrier-pigeon:1", "Unknown endpoint type"),
            ("websocket", "listen = tcp:9000\\", "expected a Twisted endpoint"),
        ):
            key = line.partition("=")[0].strip()
            text = self.complaint(f"\n[{section}]\n; a comment\n{line}\n")
            self.assertTrue(text.startswith(f"{self.path}:4: [{section}] {key}: found "), text)
            self.assertIn(expected, text)

    def test_urls(self) -> None:
        """Malformed URLs are refused, and never shown: there may be a password in any of them."""
        for section, url in (
            ("redis", "http://hunter2"),
            ("redis", "hunter2"),
            ("redis", "redis://:hunter2@h/1?db=2"),
            ("redis", "redis://:hunter2/x@h"),
            ("redis", "redis://:hunter2@h/db"),
            ("redis", "redis://:hunter2@h:0"),
            ("redis", "unix:///hunter2"),
            ("rabbitmq", "amqp://hunter2@"),
            ("rabbitmq", "amqp://u:hunter2@h:1/a/b"),
            ("rabbitmq", "amqp://u:hunter2@h:99999"),
            ("rabbitmq", "amqp://u:hunter2@[x"),
            ("mongodb", "mongodb://u:hunter2@a,,b/imd"),
            ("mongodb", "mongodb://u:hunter2@a/im.d"),
            ("mongodb", "mongodb://u:hunter2@a /imd"),
            ("mongodb", ""),
        ):
            text = self.complaint(f"[{section}]\nurl = {url}\n")
            self.assertIn(
                f"node.ini:2: [{section}] url: found a value that is not shown here, expected", text
            )
            self.assertNotIn("hunter2", text)

    def test_unknown(self) -> None:
        """An unknown section or key is named with its line, and with the likely right name."""
        self.assertIn("node.ini:1: [nod] is no section here (did you mean node?)", self.complaint("[nod]"))
        self.assertIn("[DEFAULT] is no section", self.complaint("[DEFAULT]"))
        text = self.complaint("[websocket]\n\nping_second = 3")
        self.assertIn("node.ini:3: [websocket] ping_second is no key here (did you mean ping_seconds?)", text)
        text = self.complaint("[node]\nmessage_bytes = 3")
        self.assertIn("(there is one in [limits])", text)

    def test_secrets_in_the_wrong_place(self) -> None:
        """No error repeats a mistyped key's value, or a line that makes no sense."""
        for text in (
            "[auth]\nsecert = hunter2",
            "[auth]\nsecret = abc\nHunter2+hunter2==\n",
            "[auth]\nsecret = abc\nhunter2\n",
            "[auth]\nsecret = abc\n  hunter2\n",
            "secret+hunter2 = hunter2",
            "[hunter2 secret]\n",
            "[auth]\nmode = jwt\nsecret = hunter2",
        ):
            self.assertNotIn("hunter2", self.complaint(text).lower().replace("node.ini", ""))

    def test_duplicates(self) -> None:
        """A section or key that is there twice is an error that names both lines."""
        self.assertIn(
            "node.ini:3: [node] name is there twice, first in line 2",
            self.complaint("[node]\nname=a\nNAME=b"),
        )
        self.assertIn(
            "node.ini:3: [node] is there twice, first in line 1", self.complaint("[node]\n[http]\n[node]")
        )

    def test_outside_any_section(self) -> None:
        """A key outside a section is an error."""
        self.assertIn("node.ini:2: name is outside any section", self.complaint("\nname = a\n[node]"))

    def test_syntax(self) -> None:
        """Lines that are no section, key or comment are errors."""
        self.assertIn("node.ini:2: [node] expected key = value", self.complaint("[node]\nname"))
        self.assertIn("node.ini:2: [node] expected key = value", self.complaint("[node]\n= 3"))
        self.assertIn("node.ini:1: expected [section]", self.complaint("[node"))
        self.assertIn("node.ini:1: expected [section]", self.complaint("[node] name = a"))

    def test_indented_key_is_not_swallowed(self) -> None:
        """An indented key is not taken as a part of the value before it."""
        self.assertIn("[node] data: found", self.complaint("[node]\ndata = var\n  name = a\n"))
        self.assertEqual(self.load("  [node]\n  data = x\n  name = a\n").node.name, "a")

    def test_unreadable_file(self) -> None:
        """A missing file, a folder, and a file that is no text are errors."""
        for path in (self.folder / "none.ini", self.folder, "a\0b"):
            self.assertIn("cannot be read", str(self.assertRaises(ConfigurationError, load, str(path))))
        self.path.write_bytes(b"[node]\nname = \xff\n")
        self.assertIn("not UTF-8", str(self.assertRaises(ConfigurationError, load, str(self.path))))
        self.path.write_bytes(b";" * (1 << 21))
        self.assertIn("more than", str(self.assertRaises(ConfigurationError, load, str(self.path))))


class CrossCheckTests(FileCase):
    def test_open_mode_is_for_loopback(self) -> None:
        """With mode = open no endpoint may be reachable from other machines."""
        for section in ("websocket", "http"):
            for listen in (
                "tcp:9000",
                "tcp:9000:interface=",
                "tcp:9000:interface=0.0.0.0",
                "tcp:9000:interface=192.0.2.1",
                "tcp:9000:192.0.2.1",
                "tcp:9000:interface=localhost.example.com",
                "tcp6:9000",
                r"tcp6:9000:interface=\:\:",
                r"tcp6:9000:interface=2001\:db8\:\:1",
            ):
                text = self.complaint(f"[{section}]\nlisten = {listen}\n")
                self.assertIn(f"node.ini:2: [{section}] listen: found ", text)
                self.assertIn("because with [auth] mode = open whoever reaches", text)
                found = self.load(f"[{section}]\nlisten = {listen}\n[auth]\nmode = jwt\nsecret = {SECRET}\n")
                self.assertEqual(getattr(found, section).listen, listen)

    def test_open_mode_takes_no_proxies(self) -> None:
        text = self.complaint("[websocket]\nlisten = haproxy:tcp:9000:interface=127.0.0.1\n")
        self.assertIn("because with [auth] mode = open whoever reaches", text)

    def test_loopback_endpoints(self) -> None:
        """All kinds of endpoints that only this machine can reach."""
        for listen in (
            "tcp:0:interface=127.0.0.1",
            "tcp:9000:interface=127.1.2.3",
            "tcp:9000:127.0.0.1",
            "tcp:9000:interface=localhost",
            r"tcp6:9000:interface=\:\:1",
            "unix:/run/imd.sock:mode=600",
        ):
            self.assertEqual(self.load(f"[websocket]\nlisten = {listen}\n").websocket.listen, listen)

    GATEWAY = {
        "node": "backend = cluster\nname = east",
        "websocket": "listen = tcp:9000:interface=127.0.0.1",
        "http": "listen = tcp:8080:interface=127.0.0.1",
        "cluster": "routing = gateway",
    }

    def load_gateway(self, **sections: str) -> Settings:
        return self.load(
            "".join(f"[{name}]\n{keys}\n" for name, keys in {**self.GATEWAY, **sections}.items())
        )

    def test_behind_a_gateway(self) -> None:
        """The gateway has to have a name to call the node by, and addresses that it reaches."""
        self.assertEqual(self.load_gateway().cluster.routing, "gateway")
        jwt = f"mode = jwt\nsecret = {SECRET}"
        anywhere = {"websocket": "listen = tcp:9000", "http": "listen = tcp:8080", "auth": jwt}
        advertised = "routing = gateway\nadvertise = 10.0.0.7:443\nadvertise_http = [2001:db8::1]:8080"
        settings = self.load_gateway(**anywhere, cluster=advertised)
        self.assertEqual(settings.cluster.advertise, "10.0.0.7:443")
        self.assertEqual(self.load_gateway(node="backend = cluster\nname = a:1.b_c-d").node.name, "a:1.b_c-d")
        for sections, complaint in (
            ({"node": "backend = embedded\nname = east"}, r"\[cluster\] routing: .* it is one node"),
            ({"node": "backend = cluster"}, r"\[node\] name: .* letters, digits and _ \. : -"),
            ({"node": "backend = cluster\nname = a@b"}, r":\d+: \[node\] name: found 'a@b'"),
            ({**anywhere}, r"\[websocket\] listen: .*\[cluster\] advertise = HOST:PORT .*every interface"),
            (
                {**anywhere, "cluster": "routing = gateway\nadvertise = h:1"},
                r"\[http\] listen: .*\[cluster\] advertise_http = HOST:PORT",
            ),
            ({"websocket": "listen = unix:/tmp/socket"}, r"\[websocket\] listen: .*no TCP port"),
            (
                {
                    "http": "listen = haproxy:tcp:8080:interface=127.0.0.1",
                    "websocket": "listen = tcp:9000:interface=127.0.0.1\ntrusted_proxies = 10.0.0.1",
                    "auth": jwt,
                },
                r"\[http\] listen: .*in clear",
            ),
        ):
            with self.assertRaisesRegex(ConfigurationError, complaint):
                self.load_gateway(**sections)

    def test_advertised_addresses(self) -> None:
        for bad in ("0.0.0.0:9000", "[::]:9000", "10.0.0.7", "host:0", "host:65536", "http://host:80"):
            with self.assertRaisesRegex(ConfigurationError, r":2: \[cluster\] advertise: .*HOST:PORT"):
                self.load(f"[cluster]\nadvertise = {bad}\n")

    def test_trusted_proxies(self) -> None:
        settings = self.load("[websocket]\ntrusted_proxies = 10.0.0.1, 2001:DB8::/32 unix\n")
        self.assertEqual(settings.websocket.trusted_proxies, ("10.0.0.1", "2001:db8::/32", "unix"))
        for bad in ("proxy.example", "10.0.0.1/8", "10.0.0.0/33", "*"):
            with self.assertRaisesRegex(ConfigurationError, r":2: \[websocket\] trusted_proxies: .*IP"):
                self.load(f"[websocket]\ntrusted_proxies = {bad}\n")

    def test_haproxy_needs_trust(self) -> None:
        """A listener that takes the PROXY protocol is no use while nobody is trusted."""
        jwt = f"[auth]\nmode = jwt\nsecret = {SECRET}\n"
        for section in ("websocket", "http"):
            listen = f"{jwt}[{section}]\nlisten = haproxy:tcp:9000\n"
            with self.assertRaisesRegex(ConfigurationError, rf":5: \[{section}\] listen: .*trusted_proxies"):
                self.load(listen)
            trusted = "trusted_proxies = unix\n"
            self.load(listen + (trusted if section == "websocket" else f"[websocket]\n{trusted}"))

    def test_drain_seconds(self) -> None:
        self.assertEqual(self.load("[node]\ndrain_seconds = 0\n").node.drain_seconds, 0)
        self.assertEqual(self.load("[node]\ndrain_seconds = 2.5\n").node.drain_seconds, 2.5)
        self.assertRaisesRegex(ConfigurationError, "0 to 86400", self.load, "[node]\ndrain_seconds = -1\n")

    def test_jwt_needs_one_key(self) -> None:
        """Mode jwt needs a secret or a public key, and not both."""
        self.assertIn(
            "node.ini:2: [auth] mode: found 'jwt', expected a secret", self.complaint("[auth]\nmode=jwt")
        )
        text = self.complaint(f"[auth]\nmode=jwt\nsecret={SECRET}\npublic_key=x.pem")
        self.assertIn("node.ini:4: [auth] public_key: found 'x.pem', expected either", text)
        self.assertNotIn(SECRET, text)

    def test_secret(self) -> None:
        """A secret has at least 32 bytes in UTF-8, and is no public key."""
        text = self.complaint(f"[auth]\nmode=jwt\nsecret={SECRET[:31]}")
        self.assertIn("[auth] secret: found a value that is not shown here, expected at least 32 bytes", text)
        self.assertIn("it has 31 bytes", text)
        self.assertNotIn(SECRET[:31], text)
        self.load(f"[auth]\nmode=jwt\nsecret={'é' * 16}")
        (self.folder / "key.pem").write_bytes(_pem(ed25519.Ed25519PrivateKey.generate().public_key()))
        self.complaint("[auth]\nmode=jwt\nsecret=file:key.pem")

    def test_public_keys(self) -> None:
        """RSA and Ed25519 keys pass, by path or as text. Others do not, and no private key is shown."""
        key = self.folder / "key.pem"
        weak, strong = (rsa.generate_private_key(65537, bits) for bits in (1024, 2048))
        for good in (strong.public_key(), ed25519.Ed25519PrivateKey.generate().public_key()):
            key.write_bytes(_pem(good))
            self.load(f"[auth]\nmode=jwt\npublic_key={key}")
            self.assertIn(
                "BEGIN PUBLIC KEY", self.load("[auth]\nmode=jwt\npublic_key=file:key.pem").auth.public_key
            )
        private = strong.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for bad, why in (
            (_pem(weak.public_key()), "1024 bits"),
            (_pem(ec.generate_private_key(ec.SECP256R1()).public_key()), "not supported"),
            (private, "no public key"),
            (b"hello", "no public key"),
            (b"\xff\xfe", "not UTF-8"),
        ):
            key.write_bytes(bad)
            self.assertIn(why, self.complaint(f"[auth]\nmode=jwt\npublic_key={key}"))
        self.assertIn("No such file", self.complaint("[auth]\nmode=jwt\npublic_key=nowhere.pem"))
        key.write_bytes(private)
        text = self.complaint(f"[auth]\nmode=jwt\nsecret={SECRET}\npublic_key=file:key.pem")
        self.assertNotIn(private.decode().split("\n")[1], text)


_LINES = strategies.one_of(
    strategies.text(max_size=60),
    strategies.sampled_from([f"[{section}]" for section in PROTOCOL]),
    strategies.builds(
        "{}{}{}".format,
        strategies.sampled_from([key for keys in PROTOCOL.values() for key in keys]),
        strategies.sampled_from(["=", " = ", ": "]),
        strategies.one_of(
            strategies.text(max_size=40),
            strategies.builds(
                "{}{}".format,
                strategies.sampled_from(
                    [
                        "env:",
                        "file:",
                        "tcp:",
                        "tcp6:",
                        "ssl:",
                        "unix:",
                        "haproxy:",
                        "redis://",
                        "amqp://[",
                        "mongodb://",
                    ]
                ),
                strategies.text(max_size=20),
            ),
        ),
    ),
)


class FuzzTests(FileCase):
    def _only_complaints(self, content: bytes) -> None:
        self.path.write_bytes(content)
        try:
            load(str(self.path))
        except ConfigurationError as error:
            self.assertTrue(re.match(rf"{re.escape(str(self.path))}(:\d+)?: ", str(error)), str(error))

    @hypothesis_settings(max_examples=300, deadline=None, database=None)
    @given(strategies.lists(_LINES, max_size=12))
    def test_any_lines(self, lines: list[str]) -> None:
        """Any lines give settings, or an error that begins with the file's name."""
        self._only_complaints("\n".join(lines).encode("utf-8", "surrogatepass"))

    @hypothesis_settings(max_examples=100, deadline=None, database=None)
    @given(strategies.binary(max_size=200))
    def test_any_bytes(self, content: bytes) -> None:
        """The same for any bytes."""
        self._only_complaints(content)

    @hypothesis_settings(max_examples=300, deadline=None, database=None)
    @given(
        strategies.sampled_from([(s, k) for s, keys in PROTOCOL.items() for k in keys]),
        strategies.text(max_size=50),
    )
    def test_any_value(self, name: tuple[str, str], value: str) -> None:
        """The same for any value of any key."""
        self._only_complaints(f"[{name[0]}]\n{name[1]} = {value}".encode("utf-8", "surrogatepass"))


def _pem(key: object) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
