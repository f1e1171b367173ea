"""SIGHUP and TLS of real nodes: what certbot, logrotate and systemd do to them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sysconfig
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from twisted.trial import unittest

from tests.hostile.raw import TEXT, RawClient, frame, handshake
from tests.support.certificate import chain_endpoint, tls_endpoint, write_chain
from tests.support.nodes import Ini, NodeServer
from tests.support.paths import ROOT
from tests.support.servers import HOST, free_port, spawn

SECRET = "a secret that only this test knows of"
JWT: Ini = {"auth": {"mode": "jwt", "secret": SECRET}}
SECONDS = 180


class LoggingNode(NodeServer):
    """twistd writes the log, to a file of its own."""

    @property
    def written(self) -> Path:
        return self.folder / "twistd.log"

    def _command(self) -> list[str | Path]:
        twistd, *rest = super()._command()
        return [twistd, f"--logfile={self.written}", *rest]


class NodeCase(unittest.SynchronousTestCase):
    def start(self, ini: Ini, kind: type[NodeServer] = NodeServer, port: int | None = None) -> Any:
        node = kind(Path(self.mktemp()).absolute(), ini, port)
        self.addCleanup(node.kill)
        node.start()
        return node

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + SECONDS
        while not condition():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.05)

    def hang_up(self, node: NodeServer) -> None:
        os.kill(node.pid, signal.SIGHUP)


class HangupTests(NodeCase):
    """SIGHUP never ends a node."""

    def test_log_file(self) -> None:
        """A log that was moved away goes on under its name; connections stay."""
        node = self.start({}, LoggingNode)
        with RawClient(node.port).login() as client:
            for turn in range(3):
                moved = node.written.with_name(f"twistd.log.{turn + 1}")
                node.written.rename(moved)
                self.hang_up(node)
                self.wait_for(
                    lambda: node.written.exists() and "open anew" in node.written.read_text(), "a new log"
                )
            client.say({"type": "ping"})
            self.assertEqual(client.next_text()["type"], "pong")
        # A folder that is gone: the old file stays.
        node.written.rename(moved.with_name("last.log"))
        node.written.mkdir()
        self.hang_up(node)
        last = moved.with_name("last.log")
        self.wait_for(lambda: "cannot be opened anew" in last.read_text(), "an error in the old log")
        self.assertTrue(node.answers())
        node.written.rmdir()

    def test_while_it_starts(self) -> None:
        """As the units start it, a node is there from the first moment on: no signal comes too early."""
        node = NodeServer(Path(self.mktemp()).absolute(), {})
        node.folder.mkdir(parents=True)
        node._prepare()
        unit = ROOT / "etc" / "systemd" / "imd.service"
        found = re.search(r"ExecStart=(/usr/bin/env \S+) /opt/imd/bin/twistd ", unit.read_text())
        assert found is not None
        process = spawn([*found[1].split(), *node._command()], node.log, cwd=node.folder)
        self.addCleanup(process.wait, SECONDS)
        self.addCleanup(process.kill)
        # Not before `env` has run: until then it is this test's own process.
        comm = Path(f"/proc/{process.pid}/comm")
        self.wait_for(lambda: comm.read_text().strip() in ("twistd", "python", "python3"), "twistd")
        end = time.monotonic() + SECONDS
        while not node.answers():
            self.assertLess(time.monotonic(), end, "not ready")
            self.assertIsNone(process.poll(), "ended by a signal")
            process.send_signal(signal.SIGHUP)
            time.sleep(0.02)

    def test_standard_output(self) -> None:
        """As under systemd: nothing to reopen, and nothing happens, however often; also while it stops."""
        node = self.start({})
        for _ in range(50):
            self.hang_up(node)
        self.assertTrue(node.answers())
        os.kill(node.pid, signal.SIGTERM)
        self.hang_up(node)
        self.assertIsNotNone(node.process)
        self.assertEqual(node.process.wait(SECONDS), -signal.SIGTERM)
        self.assertIn("Server Shut Down", node.log.read_text())


class CertificateTests(NodeCase):
    """A node with `fullchain.pem`, and a client that knows the root only."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        write_chain(self.folder)
        self.port = free_port()
        listen = chain_endpoint(self.folder, self.port)
        # A client that shook hands stays a stranger until the certificates have been renewed.
        self.node = self.start(
            {**JWT, "websocket": {"listen": listen, "connect_seconds": 600}}, port=self.port
        )

    def shake_hands(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.folder / "root.pem"))
        plain = socket.create_connection((HOST, self.port), timeout=60)
        self.addCleanup(plain.close)
        secure = context.wrap_socket(plain, server_hostname="localhost")
        self.addCleanup(secure.close)
        return secure

    def serial(self, secure: ssl.SSLSocket) -> int:
        shown = secure.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number

    def on_disk(self) -> int:
        return x509.load_pem_x509_certificate((self.folder / "leaf.pem").read_bytes()).serial_number

    def test_chain_and_renewal(self) -> None:
        """The chain is trusted by its root; a renewed one is shown after SIGHUP; what is open stays open."""
        before = self.shake_hands()
        self.assertEqual(self.serial(before), self.on_disk())
        before.sendall(handshake(host="localhost"))
        self.assertTrue(before.recv(4096).startswith(b"HTTP/1.1 101 "))
        write_chain(self.folder)
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.shake_hands()
        self.hang_up(self.node)
        self.wait_for(lambda: "certificates reloaded" in self.node.log.read_text(), "certificates reloaded")
        self.assertEqual(self.serial(self.shake_hands()), self.on_disk())
        before.sendall(frame(TEXT, b'{"type":"ping"}'))
        answer = b""
        while b"forbidden" not in answer:
            # A WebSocket ping may come first.
            part = before.recv(4096)
            self.assertTrue(part, answer)
            answer += part
        # A key that does not fit is not taken.
        shown = self.on_disk()
        key = (self.folder / "key.pem").read_bytes()
        root = (self.folder / "root.pem").read_bytes()
        write_chain(self.folder)
        (self.folder / "key.pem").write_bytes(key)
        (self.folder / "root.pem").write_bytes(root)
        self.hang_up(self.node)
        self.wait_for(lambda: "not reloaded" in self.node.log.read_text(), "an error in the log")
        self.assertEqual(self.serial(self.shake_hands()), shown)

    def test_renewed_wrongly(self) -> None:
        """Nothing replaces a good certificate that clients would refuse, or that needs a passphrase."""
        shown = self.serial(self.shake_hands())
        made = self.folder / "made"
        for days, why in ((-30, "has expired on"), (5, "is not valid before")):
            tls_endpoint(made, self.port, timedelta(days=days))
            (self.folder / "fullchain.pem").write_bytes((made / "cert.pem").read_bytes())
            (self.folder / "key.pem").write_bytes((made / "key.pem").read_bytes())
            self.hang_up(self.node)
            self.wait_for(lambda why=why: why in self.node.log.read_text(), why)
            self.assertEqual(self.serial(self.shake_hands()), shown)
        key = serialization.load_pem_private_key((self.folder / "key.pem").read_bytes(), None)
        locked = serialization.BestAvailableEncryption(b"a passphrase")
        form = serialization.PrivateFormat.PKCS8
        (self.folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
        before = self.node.log.read_text().count("not reloaded")
        self.hang_up(self.node)
        self.wait_for(lambda: self.node.log.read_text().count("not reloaded") > before, "an error in the log")
        self.assertEqual(self.serial(self.shake_hands()), shown)
        self.assertNotIn("pass phrase", self.node.log.read_text())
        self.assertTrue(self.node.answers())


class ProxyTests(NodeCase):
    def test_header_of_a_proxy(self) -> None:
        """Behind HAProxy's header a client chats as any other; without it, it is not heard."""
        port = free_port()
        listen = {"listen": f"haproxy:tcp:{port}:interface={HOST}", "trusted_proxies": HOST}
        node = self.start({**JWT, "websocket": listen}, port=port)
        token = jwt.encode(
            {"sub": "alice", "exp": time.time() + 600, "loginType": "USER_TYPE"}, SECRET, "HS256"
        )
        with RawClient(port) as client:
            client.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 1234 %d\r\n" % port)
            client.login(userId="alice", token=token)
            client.say({"to": "alice", "msg": "hi"})
            self.assertEqual(
                {client.next_text()["type"], client.next_text()["type"]}, {"accepted", "message"}
            )
        with RawClient(port) as client:
            self.assertEqual(client.open(), b"")
        self.assertTrue(node.answers())


class SocketActivationTests(NodeCase):
    """systemd opens the port, and hands it over to the node, not to what runs before it."""

    def prepare(self) -> tuple[NodeServer, Path]:
        node = NodeServer(
            Path(self.mktemp()).absolute(), {**JWT, "websocket": {"listen": "systemd:domain=INET:index=0"}}
        )
        node.folder.mkdir(parents=True)
        node._prepare()
        return node, node.folder / "node.ini"

    def test_check_before_the_start(self) -> None:
        """`imd check` passes without the socket; a node that is not given one says so, and ends with 1."""
        node, config = self.prepare()
        imd = Path(sysconfig.get_path("scripts"), "imd")
        done = subprocess.run(
            [imd, "check", "--quiet", config], capture_output=True, text=True, timeout=SECONDS
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        done = subprocess.run(node._command(), capture_output=True, text=True, timeout=SECONDS)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("systemd has not handed over a socket", done.stdout)

    def test_inherited_socket(self) -> None:
        """With the socket as descriptor 3 clients get in."""
        node, _ = self.prepare()
        with socket.create_server((HOST, 0)) as listening:
            descriptor = listening.fileno()
            given = "LISTEN_FDS=1 LISTEN_FDNAMES=imd.socket LISTEN_PID=$$"
            script = f'exec 3<&{descriptor}; export {given}; exec "$@"'
            with node.log.open("wb") as log:
                process = subprocess.Popen(
                    ["bash", "-c", script, "bash", *map(str, node._command())],
                    pass_fds=(descriptor,), stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip
            self.addCleanup(process.wait, SECONDS)
            self.addCleanup(process.kill)
            self.wait_for(lambda: process.poll() is not None or node.answers(), "ready")
            with RawClient(listening.getsockname()[1]) as client:
                self.assertTrue(client.open().startswith(b"HTTP/1.1 101 "), node.log.read_text())
                client.say({"type": "ping"})
                self.assertEqual(json.loads(client.until(TEXT)[-1].payload)["code"], "forbidden")
