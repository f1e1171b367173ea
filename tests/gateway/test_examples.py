"""The examples in etc/, in the real programs: HAProxy for Redis, nginx at a site's root and under a path."""

from __future__ import annotations

import http.client
import shutil
import signal
import ssl
import subprocess
from configparser import RawConfigParser
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.command.redis_client import RedisClient, RedisError
from tests.gateway.haproxy import folder
from tests.gateway.support import until
from tests.gateway.test_websocket import SECRET, token
from tests.support.certificate import tls_endpoint
from tests.support.nodes import NodeServer
from tests.support.servers import HOST, RedisServer, Server, free_port, tail
from tests.support.servers.process import program as find_program
from tests.support.ws_client import WsClient

ETC = Path(__file__).resolve().parents[2] / "etc"


class RedisProxy(Server):
    """HAProxy on etc/haproxy/redis.cfg, in front of two Redis servers."""

    name = "haproxy"

    def __init__(self, folder: Path, one: RedisServer, two: RedisServer) -> None:
        super().__init__(folder)
        self._text = (ETC / "haproxy" / "redis.cfg").read_text()
        for written, real in (
            ("10.0.0.1:6379", one.port),
            ("10.0.0.2:6379", two.port),
            (f"{HOST}:6380", self.port),
        ):
            assert self._text.count(f" {written}") >= 1, written
            self._text = self._text.replace(written, f"{HOST}:{real}")

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def _prepare(self) -> None:
        (self.folder / "redis.cfg").write_text(self._text)

    def _command(self) -> list[str | Path]:
        return [find_program("haproxy", "Debian package haproxy"), "-db", "-f", self.folder / "redis.cfg"]

    def _question(self) -> bytes:
        return b"PING\r\n"

    def _is_answer(self, data: bytes) -> bool:
        return data.startswith(b"+PONG")


class RedisFailoverTests(unittest.TestCase):
    def setUp(self) -> None:
        path = folder()
        self.addCleanup(shutil.rmtree, path)
        self.servers = [RedisServer(path / name, appendonly=False) for name in ("one", "two")]
        for server in self.servers:
            self.addCleanup(server.kill)
            server.start()
        self.one, self.two = self.servers
        self.ask(self.two, "REPLICAOF", HOST, self.one.port)
        self.proxy = RedisProxy(path / "proxy", self.one, self.two)
        self.addCleanup(self.proxy.kill)
        self.proxy.start()

    def ask(self, server: RedisServer | RedisProxy, *words: str | int) -> object:
        with RedisClient(server.url, 60) as client:
            return client(*words)

    def reaches(self, server: RedisServer) -> bool:
        """Whether the proxy leads to this server."""
        try:
            with RedisClient(self.proxy.url, 5) as client:
                return client.info()["tcp_port"] == str(server.port)
        except (OSError, RedisError):
            return False

    def replicated(self, key: str) -> bool:
        try:
            return self.ask(self.two, "GET", key) == b"1"
        except RedisError:
            # A replica that loads what its primary has sent answers nothing else.
            return False

    def test_primary_dies(self) -> None:
        """Nobody is served by a replica; once it is promoted, it is the one."""
        until(lambda: self.reaches(self.one), "the primary is reached")
        self.ask(self.proxy, "SET", "a", "1")
        until(lambda: self.replicated("a"), "the replica has it")
        self.one.kill()
        until(lambda: not self.proxy.answers(), "nobody is reached")
        self.ask(self.two, "REPLICAOF", "NO", "ONE")
        until(lambda: self.reaches(self.two), "the new primary is reached")
        self.assertEqual(self.ask(self.proxy, "GET", "a"), b"1")

    def test_roles_change(self) -> None:
        """Connections to a server that is no primary any more are ended; the next go to the other."""
        until(lambda: self.reaches(self.one), "the primary is reached")
        kept = RedisClient(self.proxy.url, 20)
        self.addCleanup(kept.__exit__)
        self.ask(self.two, "REPLICAOF", "NO", "ONE")
        self.ask(self.one, "REPLICAOF", HOST, self.two.port)

        def ended() -> bool:
            try:
                kept("PING")
            except OSError:
                return True
            return False

        until(ended, "the end of the old connection")
        until(lambda: self.reaches(self.two), "the new primary is reached")


class Nginx(Server):
    """nginx on the examples, both on one site; `upstreams` are ports of nodes: WebSocket and http."""

    name = "nginx"

    def __init__(self, folder: Path, websockets: tuple[int, int], pages: tuple[int, int]) -> None:
        super().__init__(folder)
        text = (ETC / "nginx" / "imd.conf").read_text()
        subpath = (ETC / "nginx" / "imd-subpath.conf").read_text()
        for written, real in (
            (f"{HOST}:9000", f"{HOST}:{websockets[0]}"),
            (f"{HOST}:9001", f"{HOST}:{websockets[1]}"),
            (f"{HOST}:8080", f"{HOST}:{pages[0]}"),
            (f"{HOST}:8081", f"{HOST}:{pages[1]}"),
            ("listen 443 ssl", f"listen {HOST}:{self.port} ssl"),
            ("/etc/imd/site.pem", f"{folder}/cert.pem"),
            ("/etc/imd/site.key", f"{folder}/key.pem"),
        ):
            assert text.count(written) == 1, written
            text = text.replace(written, real)
        head, end, rest = text.rpartition("}")
        self._site = f"{head}\n{subpath}\n{end}{rest}"

    def _prepare(self) -> None:
        tls_endpoint(self.folder, 0)
        (self.folder / "site.conf").write_text(self._site)
        temporary = "".join(
            f"{kind}_temp_path {self.folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"daemon off; user root; worker_processes 1; pid {self.folder}/nginx.pid;\n"
            f"error_log stderr notice; events {{ worker_connections 200; }}\n"
            f"http {{ access_log {self.folder}/access.log; {temporary} include {self.folder}/site.conf; }}\n"
        )

    def _command(self) -> list[str | Path]:
        program = find_program("nginx", "Debian package nginx-light")
        return [program, "-p", self.folder, "-c", self.folder / "nginx.conf"]

    def reload(self) -> None:
        """Returns when the old worker is on its way out."""
        assert self.process is not None
        before = self.log.read_text().count("gracefully shutting down")
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.log.read_text().count("gracefully shutting down") > before, tail(self.log))

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            HOST, self.port, timeout=60, context=ssl._create_unverified_context()
        )
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            return self.get("/metrics")[0] == 404
        except OSError:
            return False


class NginxTests(unittest.TestCase):
    timeout = 300

    def start(self) -> Nginx:
        """A node, a second one that does not run, and nginx in front of them. Blocking."""
        path = folder()
        self.addCleanup(shutil.rmtree, path)
        node = NodeServer(
            path / "node",
            {
                "auth": {"mode": "jwt", "secret": SECRET},
                "http": {"websocket_url": "/im/ws"},
                "websocket": {"listen": ""},
            },
        )
        node.ini["websocket"] = {"listen": f"tcp:{node.port}:interface={HOST}"}
        self.addCleanup(node.kill)
        node.start()
        self.node = node
        nginx = Nginx(path / "nginx", (free_port(), node.port), (free_port(), node.http_port))
        self.addCleanup(nginx.kill)
        nginx.start()
        return nginx

    async def login(self, nginx: Nginx, where: str, user: str) -> WsClient:
        client = await WsClient.login(f"wss://{HOST}:{nginx.port}{where}?user={user}", token=token(user))
        self.addCleanup(client.protocol.transport.abortConnection)
        return client

    async def test_site(self) -> None:
        """wss at the root and under a path; a dead node is passed over; connections outlive a reload."""
        nginx = await deferToThread(self.start)
        alice = await self.login(nginx, "/ws", "alice")
        bob = await self.login(nginx, "/im/ws", "bob")
        await alice.say("bob", "one")
        self.assertEqual((await bob.take("message"))["msg"], "one")
        await deferToThread(nginx.reload)
        await bob.say("alice", "two")
        self.assertEqual((await alice.take("message"))["msg"], "two")
        await self.login(nginx, "/ws", "carol")
        # The access log names nobody.
        self.assertNotIn("user=", (nginx.folder / "access.log").read_text())

    async def test_pages(self) -> None:
        """Pages and widget are there, also under the path; what is the operator's is not."""
        nginx = await deferToThread(self.start)

        def look() -> None:
            for prefix in ("", "/im"):
                for page in ("/", "/agent", "/widget.js", "/imd.js", "/client.json"):
                    status, body = nginx.get(prefix + page)
                    self.assertEqual((status, bool(body)), (200, True), prefix + page)
                self.assertIn(b'"ws":"/im/ws"', nginx.get(f"{prefix}/client.json")[1])
                for hidden in ("metrics", "healthz", "readyz", "serving"):
                    self.assertEqual(nginx.get(f"{prefix}/{hidden}")[0], 404)
            self.assertEqual(nginx.get("/im")[0], 301)

        await deferToThread(look)


class UnitTests(unittest.TestCase):
    def read(self, name: str) -> RawConfigParser:
        unit = RawConfigParser(comment_prefixes=("#",), delimiters=("=",), strict=False)
        unit.optionxform = str  # type: ignore[method-assign,assignment]
        unit.read_string((ETC / "systemd" / name).read_text())
        return unit

    def test_one_folder(self) -> None:
        """HAProxy and its sync share a folder and a user: the runtime socket is the user's alone."""
        sync, proxy = self.read("imd-gateway-sync.service"), self.read("imd-haproxy.service")
        self.assertTrue(sync["Service"]["ExecStart"].endswith("--out /var/lib/imd-gateway"))
        self.assertTrue(proxy["Service"]["ExecStart"].endswith("-f /var/lib/imd-gateway/haproxy.cfg"))
        for key in ("User", "StateDirectory"):
            self.assertEqual(sync["Service"][key], proxy["Service"][key])

    def test_systemd_accepts_them(self) -> None:
        """Where systemd-analyze is installed, it finds nothing to say."""
        analyze, true = shutil.which("systemd-analyze"), shutil.which("true")
        path = folder()
        self.addCleanup(shutil.rmtree, path)
        for name in ("imd-gateway-sync.service", "imd-haproxy.service"):
            self.assertEqual(self.read(name).sections(), ["Unit", "Service", "Install"])
            if analyze is None:
                continue
            text = (ETC / "systemd" / name).read_text().replace("/opt/imd/bin/imd ", f"{true} ")
            (path / name).write_text(text)
            done = subprocess.run(
                [analyze, "verify", "--man=no", str(path / name)], capture_output=True, text=True, timeout=60
            )
            said = [line for line in done.stderr.splitlines() if name in line]
            self.assertEqual((done.returncode, said), (0, []), done.stderr)
