"""Nodes that die, servers that are away, inboxes that are lost, configurations that cannot work."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.protocol.clusters import Cluster
from tests.protocol.support import Rules, new_folder
from tests.support.group_end import group_cache
from tests.support.nodes import Ini, NodeServer
from tests.support.rabbit import breakable
from tests.support.servers import MongoServer, RabbitServer, RedisServer, ServerError, shared
from tests.support.ws_client import WsClient


@group_cache
def cluster() -> Cluster:
    """Hints lost on the bus are found within a second; a lease is as short as it may be."""
    return Cluster("t", {"inbox": {"reconcile_seconds": 1}})


@group_cache
def two_nodes() -> list[NodeServer]:
    return cluster().start(2)


class Stream:
    """A device that sends numbered messages and sends again what was not accepted."""

    def __init__(self, user: str, to: list[str]) -> None:
        self.user = user
        self.to = to
        self.sent = 0
        self.accepted: dict[int, str] = {}
        self.accepted_at: dict[str, float] = {}
        self.client: WsClient | None = None

    def send(self, count: int) -> None:
        for number in range(self.sent, self.sent + count):
            self._send(number)
        self.sent += count

    def send_missing(self) -> None:
        for number in range(self.sent):
            if number not in self.accepted:
                self._send(number)

    def _send(self, number: int) -> None:
        assert self.client is not None
        frame = {"clientMsgId": f"c-{number}", "group": self.to, "msg": f"{self.user} {number}"}
        self.client.send(frame)

    def note(self) -> None:
        """Take the answers that are here, and send refused messages again."""
        assert self.client is not None
        while self.client.frames:
            frame = self.client.frames.popleft()
            number = int(frame["clientMsgId"][2:]) if "clientMsgId" in frame else -1
            if frame["type"] == "accepted":
                self.accepted[number] = frame["id"]
                self.accepted_at.setdefault(frame["id"], time.monotonic())
            elif frame["type"] == "error" and frame["temporary"] and not self.client.closed:
                self._send(number)
            elif frame["type"] == "error":
                raise AssertionError(frame)


class TroubleTests(Rules, unittest.TestCase):
    """Each test may do harm to nodes of its own; the two shared ones stay well."""

    async def readyz(self, node: NodeServer, status: int) -> None:
        """Wait until /readyz answers so: it looks once a second."""

        async def answer() -> bool:
            return (await deferToThread(node.http, "readyz"))[0] == status

        await self.eventually(answer)

    def nodes(self, kind: str) -> list[NodeServer]:
        return two_nodes()

    def spare_node(self) -> NodeServer:
        return cluster().node()

    async def running(self, node: NodeServer) -> NodeServer:
        """Start a node that ends with the test."""
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        return node

    def broker(self) -> RabbitServer:
        """One that the test may kill; it runs again afterwards, for other tests."""
        broker = breakable()
        self.addCleanup(deferToThread, broker.start)
        return broker

    async def settle(self, stream: Stream) -> None:
        """All that the stream sent is accepted."""

        async def all_accepted() -> bool:
            stream.note()
            return len(stream.accepted) == stream.sent

        await self.eventually(all_accepted)

    async def test_node_killed(self) -> None:
        """kill -9 of a node: its clients go on elsewhere from their cursors; nothing lost, nothing twice."""
        doomed = await self.running(self.spare_node())
        urls = [doomed.url, *(node.url for node in two_nodes())]
        readers = [self.name("reader") for _ in range(3)]
        streams = [Stream(self.name("writer"), readers) for _ in range(3)]
        clients = [await self.login(user, url=urls[n], ack=True) for n, user in enumerate(readers)]
        for n, stream in enumerate(streams):
            stream.client = await self.login(stream.user, url=urls[n], device="phone")
            stream.send(60)
        epochs = [client.connected["epoch"] for client in clients]
        received = [await client.messages(20) for client in clients]
        await deferToThread(doomed.kill)
        await clients[0].wait_closed()
        await streams[0].client.wait_closed()
        streams[0].note()
        received[0] += [frame for frame in clients[0].frames if "seq" in frame]
        clients[0] = await self.login(
            readers[0], url=urls[1], ack=True, cursor={"epoch": epochs[0], "seq": received[0][-1]["seq"]}
        )
        self.assertIs(clients[0].connected["recovered"], True)
        streams[0].client = await self.login(streams[0].user, url=urls[2], device="phone")
        streams[0].send_missing()
        for stream in streams:
            stream.send(20)
            await self.settle(stream)
        ids = Counter(message_id for stream in streams for message_id in stream.accepted.values())
        self.assertEqual(set(ids.values()), {1})
        self.assertEqual(len(ids), 240)
        for n, client in enumerate(clients):
            received[n] += await client.messages(240 - len(received[n]))
            await client.quiet()
            self.assertEqual(list(client.frames), [])
            self.assert_seqs(received[n], 1)
            self.assertEqual(Counter(message["id"] for message in received[n]), ids)

        async def archived() -> bool:
            return {doc["_id"] for doc in cluster().archive()[0]} >= set(ids)

        await self.eventually(archived)

    async def test_lost_inboxes(self) -> None:
        """Redis loses everything: connected devices are told `reset` and go on, in a new epoch."""
        own = Cluster("flush", {"inbox": {"reconcile_seconds": 1}})
        node = await self.running(own.node())
        bob = await self.login(self.name("bob"), url=node.url, ack=True)
        sender = await self.login(self.name("alice"), url=node.url)
        to, epoch = bob.connected["userId"], bob.connected["epoch"]
        for number in range(3):
            await sender.say(to, str(number))
        await bob.messages(3)
        await bob.quiet()
        own.redis("FLUSHDB")
        reset = await bob.take("reset")
        self.assertNotEqual(reset["epoch"], epoch)
        self.assertIs(reset["recovered"], False)
        self.assertEqual(next(iter(reset)), "type")
        await sender.say(to, "after")
        message = await bob.take("message")
        self.assertEqual((message["msg"], message["seq"]), ("after", reset["seq"] + 1))
        await self.archived(bob, 4, all=True)
        back = await self.login(to, url=node.url, device="other", cursor={"epoch": epoch, "seq": 3})
        self.assertIs(back.connected["recovered"], False)
        self.assertEqual(back.connected["epoch"], reset["epoch"])

    async def test_redis_restarted(self) -> None:
        """Redis restarts (its run is another): a new epoch; what was sent meanwhile is not accepted."""
        redis = RedisServer(new_folder())
        self.addCleanup(deferToThread, redis.kill)
        await deferToThread(redis.start)
        node = await self.running(cluster().node({"redis": {"url": redis.url}}))
        user = self.name("bob")
        sender = await self.login(self.name("alice"), url=node.url)
        bob = await self.login(user, url=node.url, ack=True)
        for number in range(3):
            await sender.say(user, str(number))
        epoch = bob.connected["epoch"]
        bob.acks = False
        await bob.messages(3)
        await deferToThread(redis.stop)

        async def refused() -> bool:
            sender.send({"clientMsgId": "while-down", "to": user, "msg": "3"})
            answer = await sender.next()
            return answer["type"] == "error" and answer["code"] == "unavailable" and answer["temporary"]

        await self.eventually(refused)
        await self.readyz(node, 503)
        late = await self.open(node.url)
        late.send({"isConnect": True, "userId": self.name("late"), "loginType": "USER_TYPE"})
        error = await late.expect("error")
        self.assertEqual((error["code"], error["temporary"]), ("unavailable", True))
        self.assertEqual(await late.wait_closed(), 4100)
        await deferToThread(redis.start)

        async def accepted() -> Any:
            sender.send({"clientMsgId": "while-down", "to": user, "msg": "3"})
            answer = await sender.next()
            return answer if answer["type"] == "accepted" else None

        await self.eventually(accepted)
        reset = await bob.take("reset")
        self.assertNotEqual(reset["epoch"], epoch)
        seen = {}
        while "3" not in seen:
            message = await bob.take("message")
            seen[message["msg"]] = message["seq"]
        self.assertEqual(list(seen.values()), list(range(reset["seq"] + 1, reset["seq"] + 1 + len(seen))))
        await self.readyz(node, 200)

    async def test_redis_away_at_the_start(self) -> None:
        """/readyz says 503 and why while Redis is away; the node recovers when it comes."""
        redis = RedisServer(new_folder())
        node = cluster().node({"redis": {"url": redis.url}})
        self.addCleanup(deferToThread, redis.kill)
        self.addCleanup(deferToThread, node.kill)
        starting = deferToThread(node.start)

        async def not_ready() -> str | None:
            try:
                status, body = node.http("readyz")
            except OSError:
                return None
            return body if status == 503 else None

        body = await self.eventually(not_ready)
        self.assertIn("redis", json.dumps(json.loads(body)).lower())
        self.assertEqual(node.http("healthz")[0], 200)
        await deferToThread(redis.start)
        await starting
        await self.readyz(node, 200)
        user = self.name("bob")
        client = await self.login(user, url=node.url)
        await client.say(user, "hi")
        self.assertEqual((await client.take("message"))["msg"], "hi")

    async def test_bus_connections_lost(self) -> None:
        """Connections to RabbitMQ break: what is accepted arrives all the same, within about two seconds."""
        own = Cluster("bus", {"node": {"lease_seconds": 300}, "inbox": {"reconcile_seconds": 90}})
        near, far = own.node(), own.node()
        await self.running(near)
        await self.running(far)
        reader = self.name("reader")
        stream = Stream(self.name("writer"), [reader])
        client = await self.login(reader, url=far.url, ack=True)
        stream.client = await self.login(stream.user, url=near.url)
        stream.send(1)
        received: list[tuple[float, dict[str, Any]]] = [(0.0, await client.take("message"))]
        vhost = own.amqp_url.rsplit("/", 1)[1]
        breaking = deferToThread(
            shared().rabbit.rabbitctl, "close_all_connections", "--vhost", vhost, "the test does this"
        )

        async def step() -> bool:
            # On a busy machine rabbitmqctl may come last.
            if stream.sent < 100 or not breaking.called:
                stream.send(1)
            stream.note()
            while any("seq" in frame for frame in client.frames):
                message = await client.take("message")
                received.append((time.monotonic(), message))
            is_all = stream.sent >= 100 and len(stream.accepted) == stream.sent <= len(received)
            return is_all and breaking.called

        await self.eventually(step)
        await breaking
        messages = [message for _, message in received]
        self.assert_seqs(messages, 1)
        self.assertEqual(Counter(m["id"] for m in messages), Counter(stream.accepted.values()))
        for at, message in received[1:]:
            # On a busy machine it takes longer than two seconds; without the bus' word it would be ninety.
            self.assertLess(at - stream.accepted_at[message["id"]], 60.0, message)

        async def both_have_noticed() -> bool:
            return all(node.metric("imd_rabbitmq_failures_total") > 0 for node in (near, far))

        await self.eventually(both_have_noticed)

    async def test_broker_killed(self) -> None:
        """Without RabbitMQ: `unavailable`, at once after the first; resent when it is back, once each."""
        broker = self.broker()
        node = await self.running(cluster().node({"rabbitmq": {"url": broker.url}}))
        reader = self.name("reader")
        client = await self.login(reader, url=node.url, ack=True)
        stream = Stream(self.name("writer"), [reader])
        stream.client = await self.login(stream.user, url=node.url)
        stream.send(5)
        await self.settle(stream)
        await deferToThread(broker.kill)

        async def refused_at_once() -> bool:
            began = time.monotonic()
            stream.client.send({"clientMsgId": "down", "group": [reader], "msg": "down"})
            answer = await stream.client.next()
            self.assertEqual((answer["type"], answer["code"]), ("error", "unavailable"))
            return time.monotonic() - began < 0.5

        await self.eventually(refused_at_once)
        await self.readyz(node, 503)
        await client.quiet()
        await deferToThread(broker.start)
        stream.client.send({"clientMsgId": "down", "group": [reader], "msg": "down"})

        async def accepted() -> bool:
            answer = await stream.client.next()
            if answer["type"] == "accepted":
                return True
            stream.client.send({"clientMsgId": "down", "group": [reader], "msg": "down"})
            return False

        await self.eventually(accepted)
        stream.send(5)
        await self.settle(stream)
        messages = await client.messages(11)
        self.assert_seqs(messages, 1)
        self.assertEqual(len({message["id"] for message in messages}), 11)
        await client.quiet()
        self.assertEqual(list(client.frames), [])

    async def test_visitor_is_given_while_the_broker_is_away(self) -> None:
        """The agent gets what waited; when the broker is back the archive learns that it takes part in it."""
        broker = self.broker()
        node = await self.running(cluster().node({"rabbitmq": {"url": broker.url}}))
        visitor = await self.login(None, url=node.url, loginType=None, isVisitor=True)
        visitor.send({"msg": "is anyone there?"})
        asked = await visitor.take("accepted")
        await deferToThread(broker.kill)
        await self.readyz(node, 503)
        agent = await self.login(self.name("agent"), url=node.url, isCustomerService=True, ack=True)
        self.assertEqual((await agent.take("message"))["id"], asked["id"])
        self.assertEqual((await self.history(agent, all=True))["messages"], [])
        await deferToThread(broker.start)

        async def takes_part() -> bool:
            return bool((await self.history(agent, all=True))["messages"])

        await self.eventually(takes_part)

    async def test_mongodb_away(self) -> None:
        """Without MongoDB messages go on, history and marks are `unavailable`; later all is archived, once.

        A device connects without it, and gets its user's state when it is back.
        """
        mongo = MongoServer(new_folder())
        self.addCleanup(deferToThread, mongo.kill)
        own = Cluster("mongo", {"mongodb": {"url": mongo.url}})
        await deferToThread(mongo.start)
        node = await self.running(own.node())
        bob = await self.login(self.name("bob"), url=node.url, ack=True)
        sender = await self.login(self.name("alice"), url=node.url)
        to = bob.connected["userId"]
        await sender.say(to, "0")
        await self.archived(bob, 1, all=True)
        await bob.messages(1)
        mark = {"type": "read", "ref": "m", "with": sender.connected["userId"], "upTo": "0" * 28}

        async def marked() -> Any:
            # MongoDB has two seconds, which are few on a busy machine.
            bob.send(mark)
            answer = await bob.next()
            return answer if answer["type"] == "state" else None

        self.assertEqual((await self.eventually(marked))["version"], 1)
        await deferToThread(mongo.kill)
        for number in range(1, 10):
            await sender.say(to, str(number))
        texts = [message["msg"] for message in await bob.messages(9)]
        self.assertEqual(texts, [str(number) for number in range(1, 10)])
        bob.send({"type": "history", "ref": "h", "all": True})
        error = await bob.take("error")
        self.assertEqual((error["code"], error["ref"], error["temporary"]), ("unavailable", "h", True))
        # The address is in the log alone.
        self.assertEqual(error["reason"], "MongoDB is not available")
        self.assertRegex(node.log.read_text(), r"a question could not be answered: MongoDB: .*127\.0\.0\.1")
        self.assertEqual((await self.refusal(bob, {**mark, "ref": "n"}))["code"], "unavailable")
        tablet = await self.login(to, url=node.url, device="tablet", features=["state"], state=0)
        await deferToThread(mongo.start)
        self.assertEqual((await tablet.take("state"))["version"], 1)

        async def all_there() -> bool:
            bob.send({"type": "history", "all": True})
            answer = await bob.next()
            return answer["type"] == "history" and len(answer["messages"]) == 10

        await self.eventually(all_there)

    async def refuses(self, ini: Ini, *words: str) -> None:
        """twistd ends with an exit code that is not 0, and says these words."""
        node = NodeServer(new_folder(), ini)
        self.addCleanup(deferToThread, node.kill)
        try:
            await deferToThread(node.start)
        except ServerError as error:
            log = node.log.read_text()
            self.assertIn("ended with", str(error))
            self.assertNotIn("ended with 0", str(error))
            for word in words:
                self.assertIn(word, log)
            self.assertNotIn("Traceback", log)
        else:
            self.fail(f"{ini} started")

    async def test_bad_configurations(self) -> None:
        """A mistake stops the start; its section and key are named (all mistakes: test_settings)."""
        for ini, words in (
            ({"limits": {"mesage_bytes": 1}}, ("limits", "mesage_bytes", "node.ini")),
            ({"auth": {"mode": "jwt", "secret": "env:IMD_TEST_NOT_SET"}}, ("secret", "IMD_TEST_NOT_SET")),
        ):
            await self.refuses(ini, *words)

    async def test_open_mode_is_for_loopback(self) -> None:
        """auth.mode = open on another interface stops the start."""
        await self.refuses({"websocket": {"listen": "tcp:0"}}, "open")

    async def test_port_that_is_taken(self) -> None:
        """A port that somebody else has stops the start, too."""
        port = two_nodes()[0].port
        await self.refuses({"websocket": {"listen": f"tcp:{port}:interface=127.0.0.1"}}, str(port))
