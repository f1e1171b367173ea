"""`imd doctor`, on real servers that are as they should not be."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.command import look_mongo, look_rabbit, look_redis, look_tls
from imd.command.findings import Finding, Level
from imd.command.judge import clock, expiry
from imd.command.look import all_within
from imd.command.rabbit_client import connect, server_version
from imd.command.redis_client import RedisClient
from imd.config.settings import Mongodb, Rabbitmq, Redis, Settings, Websocket
from tests.command import here, imd, write_ini
from tests.support.certificate import tls_endpoint
from tests.support.nodes import NodeServer
from tests.support.rabbit import Broker
from tests.support.servers import RedisServer, free_port, shared, wait_until

SECRET = "a secret that only this test knows of"
SECONDS = 20.0


def rewrite_from_1gb(url: str) -> None:
    """Set the size from which Redis rewrites its file as the guide has it."""
    with RedisClient(url, SECONDS) as client:
        client("CONFIG", "SET", "auto-aof-rewrite-min-size", "1gb")


class LookTests(unittest.TestCase):
    def setUp(self) -> None:
        # A busy machine is no finding here.
        self.patch(look_redis, "SLOW_SECONDS", 60.0)

    def worst(self, findings: Any, level: Level) -> str:
        """The text of all findings of this level."""
        return "\n".join(finding.what for finding in findings if finding.level is level)

    def test_deadline(self) -> None:
        """A look that hangs or breaks is a problem; the others are not held up."""

        given_up = threading.Event()
        self.addCleanup(given_up.set)

        def hangs() -> Any:
            yield Finding(Level.OK, "slow", "so far")
            given_up.wait()

        def breaks() -> Any:
            raise RuntimeError("oh")
            yield

        found = all_within(2, {"slow": hangs, "bad": breaks})
        self.assertEqual([finding.part for finding in found], ["slow", "slow", "bad"])
        self.assertEqual(found[1].level, Level.PROBLEM)

    def test_clock_and_expiry(self) -> None:
        now = time.time()
        self.assertIs(clock("x", now + 0.2, now, now).level, Level.OK)
        self.assertIn("ahead", clock("x", now + 40, now, now).what)
        self.assertIs(clock("x", now + 1.5, now, now + 2).level, Level.OK)
        for days, level in ((-1, Level.PROBLEM), (5, Level.WARNING), (300, Level.OK)):
            self.assertIs(expiry("x", "it", now + days * 86400).level, level)

    def test_redis(self) -> None:
        """Without persistence, evicting, and lossless only in name; then as it should be."""
        server = RedisServer(
            Path.cwd() / self.mktemp(), appendonly=False, options=["--maxmemory-policy", "allkeys-lru"]
        )
        self.addCleanup(server.kill)
        server.start()
        found = list(look_redis.look(Redis(url=server.url), SECONDS))
        self.assertIn("appendonly is no", self.worst(found, Level.WARNING))
        self.assertIn("allkeys-lru", self.worst(found, Level.PROBLEM))
        found = list(look_redis.look(Redis(url=server.url, lossless=True), SECONDS))
        self.assertIn("lossless = yes says that they do", self.worst(found, Level.PROBLEM))
        good = shared().redis_url()
        rewrite_from_1gb(good)
        found = list(look_redis.look(Redis(url=good), SECONDS))
        self.assertEqual([f.what for f in found if f.level in (Level.WARNING, Level.PROBLEM)], [])
        self.assertIn("what expires is freed while everybody waits", self.worst(found, Level.NOTE))
        found = list(look_redis.look(Redis(url=good, lossless=True), SECONDS))
        self.assertIn("appendfsync is everysec", self.worst(found, Level.PROBLEM))
        found = list(look_redis.look(Redis(url=f"redis://127.0.0.1:{free_port()}"), SECONDS))
        self.assertIn("cannot be used", self.worst(found, Level.PROBLEM))

    def test_redis_with_company(self) -> None:
        """A part of a cluster; a replica that follows one of which nothing may be lost."""
        folder = Path.cwd() / self.mktemp()
        cluster = RedisServer(folder / "cluster", databases=1, options=["--cluster-enabled", "yes"])
        primary = RedisServer(folder / "primary", appendfsync="always")
        replica = RedisServer(
            folder / "replica",
            options=["--replicaof", f"127.0.0.1 {primary.port}", "--repl-diskless-sync-delay", "0"],
        )
        for server in (cluster, primary, replica):
            self.addCleanup(server.kill)
            server.start()
        found = list(look_redis.look(Redis(url=cluster.url), SECONDS))
        self.assertIn("Redis Cluster", self.worst(found, Level.PROBLEM))
        with RedisClient(primary.url, SECONDS) as client:
            client("ACL", "SETUSER", "imd", "on", ">pw", "~*", "+@all", "-config")
            wait_until(lambda: client.info()["connected_slaves"] == "1", 180, "no replica")
        found = list(look_redis.look(Redis(url=primary.url, lossless=True), SECONDS))
        self.assertIn("1 replicas follow", self.worst(found, Level.WARNING))
        found = list(look_redis.look(Redis(url=primary.url.replace("//", "//imd:pw@")), SECONDS))
        self.assertIn("repl-backlog-ttl may not be asked for", self.worst(found, Level.NOTE))
        found = list(look_redis.look(Redis(url=primary.url), SECONDS))
        self.assertIn("auto-aof-rewrite-min-size is 64 MiB", self.worst(found, Level.WARNING))
        rewrite_from_1gb(primary.url)
        found = list(look_redis.look(Redis(url=primary.url), SECONDS))
        self.assertEqual([f.what for f in found if f.level in (Level.WARNING, Level.PROBLEM)], [])

    def test_rabbitmq(self) -> None:
        """Gone; empty; a queue of another kind that nobody empties; dead letters."""
        gone = Settings(rabbitmq=Rabbitmq(url=f"amqp://guest:guest@127.0.0.1:{free_port()}/"))
        self.assertIn("refused", self.worst(look_rabbit.look(gone, SECONDS), Level.PROBLEM))
        settings = Settings(rabbitmq=Rabbitmq(url=shared().amqp_url()))
        self.assertIn("not there yet", self.worst(look_rabbit.look(settings, SECONDS), Level.NOTE))
        broker = Broker(settings.rabbitmq.url)
        self.addCleanup(broker.close)
        broker.channel.confirm_delivery()
        broker.channel.queue_declare("imd.archive", durable=True)
        broker.channel.queue_declare("imd.archive.dead", durable=True, arguments={"x-queue-type": "quorum"})
        broker.put("imd.archive", b"[]")
        broker.put("imd.archive.dead", b"{}")
        said = self.worst(look_rabbit.look(settings, SECONDS), Level.WARNING)
        self.assertIn("imd.archive is not as nodes would make it", said)
        self.assertIn("nobody takes them", said)
        self.assertIn("1 messages lie in imd.archive.dead", said)
        wrong = Settings(rabbitmq=Rabbitmq(url=settings.rabbitmq.url.replace("guest:guest", "guest:wrong")))
        self.assertIn("cannot be used", self.worst(look_rabbit.look(wrong, SECONDS), Level.PROBLEM))

    def test_server_version(self) -> None:
        """The private part of pika that knows the broker's version is there."""
        connection = connect(shared().amqp_url(), SECONDS)
        self.addCleanup(connection.close)
        self.assertTrue(hasattr(connection, "_impl"), "BlockingConnection._impl is gone")
        self.assertTrue(hasattr(connection._impl, "server_properties"), "server_properties is gone")
        self.assertRegex(server_version(connection), r"\A\d+\.\d+")

    def test_older_queue(self) -> None:
        """A queue of an older version will do, which is said."""
        settings = Settings(rabbitmq=Rabbitmq(url=shared().amqp_url()))
        broker = Broker(settings.rabbitmq.url)
        self.addCleanup(broker.close)
        arguments = {
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
            "x-max-length-bytes": settings.archive.queue_bytes,
        }
        broker.channel.queue_declare("imd.archive", durable=True, arguments=arguments)
        said = self.worst(look_rabbit.look(settings, SECONDS), Level.WARNING)
        self.assertIn("imd.archive.dead is gone", said)
        broker.channel.queue_declare("imd.archive.dead", durable=True, arguments={"x-queue-type": "quorum"})
        found = list(look_rabbit.look(settings, SECONDS))
        self.assertIn("no dead-letter arguments", self.worst(found, Level.NOTE))
        self.assertEqual([f.what for f in found if f.level in (Level.WARNING, Level.PROBLEM)], [])

    def test_policies(self) -> None:
        """A policy that takes messages out of one of imd's queues is a problem; one that does not is none."""
        queues: dict[str, dict[str, object]] = {}

        class Api(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                answer: object = list(queues.values())
                if path == "/api/nodes":
                    answer = [{"name": "r1", "running": True}]
                elif path.endswith("/imd.archive"):
                    answer = queues["imd.archive"]
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Not to the terminal."""

        server = HTTPServer(("127.0.0.1", 0), Api)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        settings = Settings(rabbitmq=Rabbitmq(url=shared().amqp_url()))
        for archive, dead, expected in (
            ({"message-ttl": 1000}, {}, ["imd.archive: message-ttl = 1000"]),
            (
                {"max-length": 10, "overflow": "drop-head"},
                {"max-length": 10},
                ["imd.archive: max-length = 10", "imd.archive.dead: max-length = 10"],
            ),
            ({"max-length": 10, "overflow": "reject-publish"}, {"queue-master-locator": "x"}, []),
            ({"max-length-bytes": 10}, [], []),
            ([], {"expires": 7, "delivery-limit": 3}, ["imd.archive.dead: delivery-limit = 3, expires = 7"]),
        ):
            for name, said in (("imd.archive", archive), ("imd.archive.dead", dead)):
                queues[name] = {"name": name, "policy": "tidy", "effective_policy_definition": said}
            found = look_rabbit.look(settings, SECONDS, f"http://guest:guest@127.0.0.1:{server.server_port}")
            problems = [f.what for f in found if f.level is Level.PROBLEM]
            self.assertEqual(problems, [f"the policy tidy takes messages out of {one}" for one in expected])

    def test_mongodb(self) -> None:
        """By itself, with a weak write concern and without indexes; and gone."""
        url = shared().mongo_url()
        said = self.worst(look_mongo.look(Mongodb(url=f"{url}?w=1"), SECONDS), Level.WARNING)
        self.assertIn("one server by itself", said)
        self.assertIn("w=1", said)
        gone = Mongodb(url=f"mongodb://127.0.0.1:{free_port()}/imd")
        self.assertIn("cannot be used", self.worst(look_mongo.look(gone, 0.5), Level.PROBLEM))

    def test_certificate_of_the_node(self) -> None:
        """One that has expired is a problem."""
        listen = tls_endpoint(Path(self.mktemp()), 9000, timedelta(days=-9))
        found = look_tls.certificates(Settings(websocket=Websocket(listen=listen)))
        self.assertIn("expired", self.worst(found, Level.PROBLEM))


class DoctorTests(unittest.TestCase):
    timeout = 600

    async def test_running_cluster(self) -> None:
        """All is looked at; a message goes through the running node, and into the archive."""
        servers = await deferToThread(
            lambda: {
                "redis": {"url": shared().redis_url()},
                "rabbitmq": {"url": shared().amqp_url()},
                "mongodb": {"url": shared().mongo_url()},
            }
        )
        rewrite_from_1gb(servers["redis"]["url"])
        ini: dict[str, Any] = {"node": {"backend": "cluster"}, "limits": {"connections": 100}, **servers}
        node = NodeServer(Path.cwd() / self.mktemp(), {**ini, "auth": {"mode": "jwt", "secret": SECRET}})
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        # On a busy machine an answer of Redis may take long, and so may the archive: that is said, too.
        end = time.monotonic() + 180
        words, well = ("doctor", node.folder / "node.ini", "--seconds", SECONDS), False
        while not well and time.monotonic() < end:
            code, said, error = await deferToThread(imd, *words)
            well = "it was in the archive" in said and "1 warning, no problem" in said
        self.assertIn("accepted in", said, error)
        self.assertIn("it was in the archive", said)
        self.assertIn("imd.archive is a durable quorum queue", said)
        # A mongod by itself.
        self.assertEqual(code, 1, said)
        self.assertIn("1 warning, no problem", said)

    async def test_nothing_there(self) -> None:
        """Everything is said at once, soon, and the exit code is 2."""
        config = write_ini(
            Path(self.mktemp(), "imd.ini"),
            node={"backend": "cluster"},
            websocket={"listen": f"tcp:{free_port()}:interface=127.0.0.1"},
            http={"listen": f"tcp:{free_port()}:interface=127.0.0.1"},
            redis={"url": f"redis://127.0.0.1:{free_port()}"},
            rabbitmq={"url": f"amqp://127.0.0.1:{free_port()}"},
            mongodb={"url": f"mongodb://127.0.0.1:{free_port()}"},
        )
        # A look of which nothing was heard in five seconds would be a problem of its own.
        code, said = await deferToThread(here, "doctor", config, "--seconds", "2", "--json")
        found = json.loads(said)
        problems = {each["part"] for each in found["findings"] if each["level"] == "problem"}
        self.assertEqual((code, problems), (2, {"redis", "rabbitmq", "mongodb", "level"}), said)
        self.assertTrue([each for each in found["findings"] if "no message was sent" in each["what"]])
