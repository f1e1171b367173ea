"""The private servers: they answer, survive what tests do to them, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pymongo
from twisted.trial import unittest

from tests.support.nodes import NodeServer
from tests.support.paths import ROOT
from tests.support.servers import HOST, RedisServer, ServerError, free_port, shared, wait_until


def is_gone(pid: int) -> bool:
    """True if the process has ended, whether or not anybody has asked how."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def ask_redis(port: int, *words: str) -> str:
    """One command and the first line of the answer."""
    with socket.create_connection((HOST, port), timeout=60) as connection:
        connection.sendall(f"{' '.join(words)}\r\n".encode())
        return connection.recv(4096).decode().splitlines()[0]


def kill_parent(case: unittest.TestCase, code: str, folder: Path) -> int:
    """Run Python's `code` until it prints a process id, and kill it. Returns that id."""
    parent = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
    case.addCleanup(parent.wait)
    case.addCleanup(parent.kill)
    assert parent.stdout is not None
    case.addCleanup(parent.stdout.close)
    pid = int(parent.stdout.readline())
    case.assertFalse(is_gone(pid))
    parent.kill()
    return pid


class RedisServerTests(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="imd servers "))
        self.addCleanup(shutil.rmtree, self.folder)

    def server(self, *options: str) -> RedisServer:
        server = RedisServer(self.folder, appendfsync="always", options=options)
        self.addCleanup(server.kill)
        return server

    def test_data_outlives_kill(self) -> None:
        """After SIGKILL it comes back on the same port with what was written."""
        server = self.server()
        server.start()
        port, pid = server.port, server.pid
        self.assertEqual(ask_redis(port, "SET", "a", "1"), "+OK")
        server.kill()
        self.assertTrue(is_gone(pid))
        self.assertFalse(server.answers())
        server.start()
        self.assertEqual(server.port, port)
        self.assertEqual(ask_redis(port, "STRLEN", "a"), ":1")
        server.restart()
        self.assertEqual(ask_redis(port, "STRLEN", "a"), ":1")

    def test_pause(self) -> None:
        """A paused server accepts connections and answers nothing until it is resumed; it can be ended."""
        server = self.server()
        server.start()
        server.pause()
        self.assertFalse(server.answers())
        server.resume()
        wait_until(server.answers, 180, "resumed")
        server.pause()
        server.stop()
        self.assertFalse(server.running)

    def test_failure_says_why(self) -> None:
        """A server that cannot start is reported with the end of its log, and not left running."""
        server = self.server("--no-such-option", "1")
        error = self.assertRaises(ServerError, server.start)
        self.assertIn("no-such-option", str(error))
        self.assertFalse(server.running)

    def test_dies_with_its_parent(self) -> None:
        """A test process that is killed leaves no server behind."""
        code = (
            "import sys, time; from tests.support.servers import RedisServer\n"
            "server = RedisServer(sys.argv[1]); server.start(); print(server.pid, flush=True); time.sleep(60)"
        )
        pid = kill_parent(self, code, self.folder)
        wait_until(lambda: is_gone(pid), 180, "the server's end")


class ForkedNodeTests(unittest.TestCase):
    """A node that a template forks is a process as `twistd` makes one."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="imd nodes "))
        self.addCleanup(shutil.rmtree, self.folder)

    def node(self, name: str) -> NodeServer:
        node = NodeServer(self.folder / name, {})
        self.addCleanup(node.kill)
        node.start()
        return node

    def test_process(self) -> None:
        """It leads a group of its own, in its own folder; how it ends is told."""
        one, two = self.node("one"), self.node("two")
        self.assertEqual(os.getpgid(one.pid), one.pid)
        self.assertEqual(Path(f"/proc/{one.pid}/cwd").resolve(), one.folder.resolve())
        self.assertEqual(set(os.listdir(f"/proc/{one.pid}/fd")) & {"0", "1", "2"}, {"0", "1", "2"})
        for node, ended in ((one, signal.SIGTERM), (two, signal.SIGKILL)):
            process = node.process
            assert process is not None
            self.assertIsNone(process.poll())
            self.assertRaises(subprocess.TimeoutExpired, process.wait, 0.01)
            process.send_signal(ended)
            self.assertEqual(process.wait(180), -ended)
            self.assertEqual((process.poll(), process.returncode), (-ended, -ended))
            self.assertFalse(node.running)
        self.assertIn("Server Shut Down", one.log.read_text())
        self.assertNotIn("Server Shut Down", two.log.read_text())

    def test_failure_says_why(self) -> None:
        """A node that ends while it starts is reported with its log."""
        node = NodeServer(self.folder, {"node": {"no_such_key": 1}})
        error = self.assertRaises(ServerError, node.start)
        self.assertIn("no_such_key", str(error))

    def test_dies_with_its_parent(self) -> None:
        """A test process that is killed leaves no node behind."""
        code = (
            "import sys, time; from pathlib import Path; from tests.support.nodes import NodeServer\n"
            "node = NodeServer(Path(sys.argv[1]), {}); node.start()\n"
            "print(node.pid, flush=True); time.sleep(60)"
        )
        pid = kill_parent(self, code, self.folder)
        wait_until(lambda: is_gone(pid), 180, "the node's end")


class PortTests(unittest.TestCase):
    def test_never_twice(self) -> None:
        """Ports differ, and are none that the system gives to clients."""
        ports = [free_port() for _ in range(50)]
        self.assertEqual(len(set(ports)), 50)
        ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        self.assertLess(max(ports), ephemeral)


class SharedServersTests(unittest.TestCase):
    def test_one_process_each(self) -> None:
        """The servers are the same for all who ask; each caller gets a database that nobody has had."""
        self.assertIs(shared(), shared())
        self.assertEqual(shared().redis.pid, shared().redis.pid)
        urls = {shared().redis_url() for _ in range(5)}
        self.assertEqual(len(urls), 5)

    def test_mongo(self) -> None:
        """MongoDB takes a document, and the next database does not have it."""
        client: pymongo.MongoClient = pymongo.MongoClient(shared().mongo_url())
        self.addCleanup(client.close)
        client.get_default_database()["things"].insert_one({"_id": 1})
        other: pymongo.MongoClient = pymongo.MongoClient(shared().mongo_url())
        self.addCleanup(other.close)
        self.assertEqual(client.get_default_database()["things"].count_documents({}), 1)
        self.assertEqual(other.get_default_database()["things"].count_documents({}), 0)

    def test_rabbit(self) -> None:
        """Each virtual host is new, and open to the user of the URL. It goes with the group of tests."""
        urls = [shared().amqp_url(), shared().amqp_url()]
        self.assertNotEqual(*urls)
        for url in urls:
            vhost = url.rpartition("/")[2]
            permissions = shared().rabbit.rabbitctl("list_permissions", "-p", vhost)
            self.assertIn("guest", permissions)
        shared()._delete_vhosts()
        self.assertEqual(shared().rabbit.rabbitctl("list_vhosts", "name").split()[1:], ["/"])


class ServicesScriptTests(unittest.TestCase):
    def test_from_start_to_end(self) -> None:
        """It says where the servers are once they answer, and SIGTERM ends all of them."""
        folder = Path(tempfile.mkdtemp(prefix="imd services "))
        self.addCleanup(shutil.rmtree, folder, True)
        log = folder / "services.log"
        command = [sys.executable, str(ROOT / "scripts" / "lib" / "services.py"), str(folder / "data")]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd="/", stdout=output, stderr=subprocess.STDOUT)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait_until(
            lambda: "ready" in log.read_text() or process.poll() is not None, 300, "scripts/services"
        )
        printed = log.read_text()
        self.assertIsNone(process.poll(), printed)
        for section, scheme in (("redis", "redis"), ("rabbitmq", "amqp"), ("mongodb", "mongodb")):
            self.assertRegex(printed, rf"\[{section}\]\nurl = {scheme}://")
        second = subprocess.run(command, capture_output=True, text=True, timeout=180)
        self.assertEqual((second.returncode, "in use" in second.stderr), (1, True), second.stderr)
        children = self.children_of(process.pid)
        self.assertGreaterEqual(len(children), 4)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(180), 0)
        self.assertEqual([pid for pid in children if not is_gone(pid)], [])

    def children_of(self, pid: int) -> list[int]:
        of_threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        return [int(word) for text in of_threads for word in text.split()]
