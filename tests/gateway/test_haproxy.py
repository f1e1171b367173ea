"""haproxy.cfg and its maps in a real HAProxy: who gets where, and with which headers."""

from __future__ import annotations

import shutil
from functools import partial
from urllib.parse import quote

from twisted.trial import unittest

from imd.gateway.haproxy import Folder, Server, replace_servers, wanted
from imd.gateway.slots import Slots, hint_of
from imd.protocol.errors import ConfigurationError
from tests.gateway.haproxy import FakeNode, Haproxy, check, folder
from tests.gateway.support import until
from tests.support.certificate import tls_endpoint
from tests.support.servers import HOST, free_port

USERS = [
    *("alice", "bob", "a b&c=d", "x+y", "100%", "q?r", "semi;colon", "sl/ash#hash", "!'()*~"),
    *("小明", "客服一号", "王芳 2", "Ярослав", "мария", "Олег+1", "😀", "e\u0301", "'; DROP", "\u00a0x"),
]


def url(user: str, safe: str = "") -> str:
    return f"/ws?user={quote(user, safe=safe)}"


class ConfigurationTests(unittest.TestCase):
    def setUp(self) -> None:
        self.path = folder()
        self.addCleanup(shutil.rmtree, self.path)

    def test_haproxy_accepts_it(self) -> None:
        """Without nodes, with one, with many of all kinds, with a certificate, on all kinds of addresses."""
        tls_endpoint(self.path, 0)
        pem = self.path / "both.pem"
        pem.write_text((self.path / "cert.pem").read_text() + (self.path / "key.pem").read_text())
        servers = [
            Server("east:1", "10.0.0.1", 9000, "10.0.0.1", 8080),
            Server("v6", "2001:db8::1", 9000, "2001:db8::1", 8080),
            Server("tls_1.x-y", "10.0.0.3", 9000, "10.0.0.4", 8080, tls=True, draining=True),
            Server("proxied", "10.0.0.5", 9000, "10.0.0.5", 8080, proxy=True),
        ]
        for count in (0, 1, 4):
            for bind, cert in (
                (f"{HOST}:8443", str(pem)),
                ("*:8443", None),
                ("[::1]:8443", None),
                (":8443", None),
            ):
                here = servers[:count]
                Folder(str(self.path)).create(bind, cert, wanted(here, [one.name for one in here]))
                code, said = check(self.path / "haproxy.cfg")
                self.assertEqual((code, "WARNING" in said), (0, False), said)

    def test_what_cannot_be(self) -> None:
        for path in (f"{self.path}/a b", f'{self.path}/"', "/tmp/" + "x" * 90, "relative,comma"):
            self.assertRaisesRegex(ConfigurationError, "--out", Folder, path)
        nothing = wanted([], [])
        for bind in ("", "host", "host:0", "host:99999", "a b:80", "x:80 accept-proxy", "h:80\n"):
            with self.assertRaisesRegex(ConfigurationError, "--bind"):
                Folder(str(self.path)).create(bind, None, nothing)
        with self.assertRaisesRegex(ConfigurationError, "no such file"):
            Folder(str(self.path)).create(":80", "nowhere.pem", nothing)
        self.assertEqual(list(self.path.iterdir()), [])

    def test_longest_path(self) -> None:
        """HAProxy takes the longest path that is allowed here."""
        path = self.path / ("x" * (97 - len("/haproxy.sock") - len(str(self.path)) - 1))
        Folder(str(path)).create(f"{HOST}:{free_port()}", None, wanted([], []))
        proxy = Haproxy(path, 0)
        proxy.port = int((path / "haproxy.cfg").read_text().split(f"bind {HOST}:")[1].split()[0])
        self.addCleanup(proxy.kill)
        proxy.start()

    def test_edited_file(self) -> None:
        """Text outside the marks is the operator's; without marks nothing is written."""
        one = Folder(str(self.path))
        one.create(":80", None, wanted([], []))
        edited = one.configuration.read_text().replace("retries 3", "retries 5")
        one.configuration.write_text(edited)
        server = Server("n1", "10.0.0.1", 9000, "10.0.0.1", 8080)
        self.assertEqual(one.update(wanted([server], ["n1"])), ["first.map", "haproxy.cfg"])
        text = one.configuration.read_text()
        self.assertIn("retries 5", text)
        self.assertIn("server n1 10.0.0.1:9000 ", text)
        self.assertEqual(one.update(wanted([server], ["n1"])), [])
        one.configuration.write_text("global\n")
        with self.assertRaisesRegex(ConfigurationError, "marks are gone"):
            one.update(wanted([server], ["n1"]))
        self.assertIsNone(replace_servers("", []))
        names = sorted(path.name for path in self.path.iterdir())
        self.assertEqual(names, ["first.map", "haproxy.cfg", "second.map"])


class TrafficTests(unittest.TestCase):
    """Three fake nodes behind one HAProxy."""

    def setUp(self) -> None:
        path = folder()
        self.addCleanup(shutil.rmtree, path)
        self.nodes = {name: FakeNode(name) for name in ("n1", "n2", "n3")}
        for node in self.nodes.values():
            node.start()
            self.addCleanup(node.stop)
        self.proxy = Haproxy(path)
        self.addCleanup(self.proxy.kill)
        self.folder = Folder(str(path))

    def start(self, names: list[str] | None = None, **others: object) -> None:
        servers = [node.server(**others) for node in self.nodes.values()]
        want = wanted(servers, list(self.nodes) if names is None else names)
        self.folder.create(f"{HOST}:{self.proxy.port}", None, want)
        self.proxy.start()

    def test_same_homes(self) -> None:
        """HAProxy and a node agree on everybody's home, in any script, however their URL is encoded."""
        self.start()
        slots = Slots(self.nodes)
        for user in USERS:
            for safe in ("", "!'()*~", "/+:@,$-._"):
                path = url(user, safe)
                self.assertEqual(hint_of(path.partition("?")[2]), user)
                self.proxy.leads_home(path, slots.home(user) or "")

    def test_odd_queries(self) -> None:
        """Both read the same id out of any query: the first `user`, up to what divides parameters."""
        self.start()
        slots = Slots(self.nodes)
        for number in range(20):
            # Many ids, so that a wrong reading has a wrong home somewhere.
            u = f"u{number}"
            for query in (
                f"a=1&user={u}&user=alice",
                f"user={u};y",
                f"user={u}?y",
                f"a;user={u}",
                f"a?user={u}",
                f"user={u}+b",
                f"users=1&user={u}",
            ):
                hint = hint_of(query)
                assert hint is not None
                self.proxy.leads_home(f"/ws?{query}", slots.home(hint) or "")

    def test_hints_of_no_use(self) -> None:
        """No hint, or one that cannot be read: some node; the same hint always gets the same one."""
        self.start()
        for path in ("/ws", "/ws?user=", "/ws?user=%zz", "/ws?user=%", "/ws?user=%ff%fe"):
            self.assertIn(self.proxy.get(path), self.nodes, path)
        # On a busy machine a check may fail, and that server gets nobody until the next ones pass.
        until(lambda: {self.proxy.get("/ws") for _ in range(6)} == set(self.nodes), "all servers in turn")
        until(lambda: len({self.proxy.get("/ws?user=%ff%fe") for _ in range(6)}) == 1, "one server")

    def test_second_choice(self) -> None:
        """Users of a node that is gone get to their second choice, and to their home when it is back."""
        self.start()
        slots = Slots(self.nodes)
        after = Slots(["n1", "n3"])
        self.nodes["n2"].stop()
        until(lambda: self.proxy.states()["n2"] == "down", "HAProxy sees that n2 is down")
        for user in USERS:
            self.proxy.leads_home(url(user), after.home(user) or "")
        self.nodes["n2"].start()
        until(lambda: self.proxy.states()["n2"] == "up", "HAProxy sees that n2 is up")
        for user in USERS:
            self.proxy.leads_home(url(user), slots.home(user) or "")

    def test_not_serving(self) -> None:
        """A node whose /serving says 503 gets nobody, though it would answer."""
        self.start()
        self.nodes["n2"].status = 503
        until(lambda: self.proxy.states()["n2"] == "down", "HAProxy sees that n2 does not serve")
        self.assertNotIn("n2", {self.proxy.get(url(user)) for user in USERS})

    def test_killed(self) -> None:
        """No request of a dead node's users fails; all but the first few get to their second choice."""
        self.start()
        until(lambda: set(self.proxy.states().values()) == {"up"}, "all are up")
        slots, after = Slots(self.nodes), Slots(["n1", "n3"])
        users = [user for user in map(str, range(200)) if slots.home(user) == "n2"]
        self.nodes["n2"].stop()
        got = [(user, self.proxy.get(url(user))) for user in users]
        self.assertLessEqual({name for _, name in got}, {"n1", "n3"})
        misplaced = [user for user, name in got if name != after.home(user)]
        self.assertLessEqual(len(misplaced), 6, f"of {len(users)}")

    def test_unknown_server(self) -> None:
        """A map that names a server which HAProxy does not know: still one server for a user."""
        self.start()
        self.folder.first.write_text("".join(f"{slot} nobody\n" for slot in range(1024)))
        self.proxy.reload()

        def has_one_server(user: str) -> bool:
            return len({self.proxy.get(url(user)) for _ in range(4)}) == 1

        # On a busy machine a check may fail, and the users of that server are elsewhere until the next one.
        for user in USERS:
            until(partial(has_one_server, user), f"one server for {user}")
        self.assertGreater(len({self.proxy.get(url(user)) for user in USERS}), 1)

    def test_headers(self) -> None:
        """The client's address stands last in X-Forwarded-For; the scheme is HAProxy's word."""
        self.start()
        lie = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}
        got = self.nodes[self.proxy.get("/ws", lie)].headers[-1]
        told = [value for name, value in got if name.lower() == "x-forwarded-for"]
        self.assertEqual(", ".join(told).split(", ")[-1], HOST)
        self.assertEqual([value for name, value in got if name.lower() == "x-forwarded-proto"], ["http"])

    def test_open_files(self) -> None:
        """maxconn follows from the open files that HAProxy may have."""
        self.start()
        info = self.proxy.runtime.info()
        self.assertLess(2 * int(info["Maxconn"]), int(info["Ulimit-n"]))
        self.assertGreater(3 * int(info["Maxconn"]), int(info["Ulimit-n"]))

    def test_two_haproxies(self) -> None:
        """Two of them send a user to the same node, also where their maps do not help."""
        self.start([])
        path = folder()
        self.addCleanup(shutil.rmtree, path)
        other = Haproxy(path)
        self.addCleanup(other.kill)
        servers = [node.server() for node in reversed(self.nodes.values())]
        Folder(str(path)).create(f"{HOST}:{other.port}", None, wanted(servers, []))
        other.start()

        def agree(path: str) -> bool:
            return self.proxy.get(path) == other.get(path)

        for user in USERS:
            until(partial(agree, url(user)), f"one server for {user}")
