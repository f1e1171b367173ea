"""Draining on real nodes: by command and by SIGTERM, with clients that write meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jwt

from imd.client.asyncio import Client
from tests.command import here, write_ini
from tests.gateway.support import until
from tests.gateway.test_membership import MembershipCase
from tests.hostile.raw import CLOSE, RawClient, handshake
from tests.support.nodes import NodeServer

WRITERS, ROUNDS_AFTER = 5, 10
# As systemd does it: file 3 is a socket that listens, and the environment says so. Arguments: port, command.
HAND_OVER = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="imd")
os.execv(sys.argv[2], sys.argv[2:])
"""
SERVES, DRAINS = (200, 200, 200), (200, 503, 503)


def listens(port: int) -> bool:
    try:
        RawClient(port).socket.close()
    except OSError:
        return False
    return True


class DrainCase(MembershipCase):
    def drain(self, node: NodeServer, *options: str) -> str:
        """Run `imd drain`, which must succeed."""
        config = write_ini(Path(self.mktemp(), "imd.ini"), **self.cluster.ini)
        code, said = here("drain", config, node.name, "--seconds", "60", *options)
        self.assertEqual(code, 0, said)
        return said

    def assert_sent_away(self, client: RawClient, node: NodeServer) -> None:
        """The client is told, by then the port is closed, and 4200 follows."""
        self.assertEqual(client.next_text()["type"], "leaving")
        self.assertRaises(OSError, RawClient, node.port)
        last = client.to_the_end()[-1]
        self.assertEqual((last.opcode, last.brief), (CLOSE, 4200))


class CommandTests(DrainCase):
    def test_drain_and_undo(self) -> None:
        """The node is announced, then serves newcomers, then closes, then tells; and it comes back."""
        # The newcomer has so long to come, also on a machine that stands still meanwhile.
        other, one = self.start(), self.start({"node": {"drain_seconds": 8}})
        with RawClient(one.port).login() as client:
            self.assertEqual(self.drain(one), f"{one.name} is draining\n")
            self.assertEqual(self.states(one), DRAINS)
            self.assertEqual(self.reason(one), "draining")
            with RawClient(one.port).login() as newcomer:
                self.assert_sent_away(client, one)
                self.assert_sent_away(newcomer, one)
        until(lambda: self.rows()[one.name]["connections"] == 0, "it is empty")
        self.assertEqual(self.rows()[other.name]["slots"], 1024)
        self.assertEqual((one.metric("imd_draining"), one.metric("imd_ready")), (1, 0))
        self.assertEqual(json.loads(one.http("readyz")[1])["reasons"], {"listener": "draining"})
        # Said again, and forgotten by Redis, it stays as it is.
        self.drain(one)
        self.cluster.redis("FLUSHDB")
        until(lambda: one.name in self.rows(), "the row is back")
        self.assertTrue(self.rows()[one.name]["draining"])
        self.assertEqual(self.states(one), DRAINS)
        for _ in range(2):
            self.assertEqual(self.drain(one, "--undo"), f"{one.name} is serving\n")
        self.assertEqual(self.states(one), SERVES)
        self.assertEqual(one.metric("imd_draining"), 0)
        with RawClient(one.port).login() as client:
            client.say({"clientMsgId": "1", "to": "nobody", "msg": "hi"})
            self.assertEqual(client.next_text()["type"], "accepted")

    def test_restart(self) -> None:
        """The wish ends with the node's run: it stops while it is drained, and serves when it is back."""
        one = self.start()
        self.drain(one)
        until(lambda: not listens(one.port), "the port is closed")
        one.stop()
        one.start()
        self.assertEqual(self.states(one), SERVES)
        RawClient(one.port).login().socket.close()
        until(lambda: [row["draining"] for row in self.rows().values()] == [False], "it is announced")

    def test_socket_of_systemd(self) -> None:
        """A node takes a drain back on a socket that it has not opened itself. Newcomers wait meanwhile."""
        secret = "known to this test and its node alone"
        listen = {"websocket": {"listen": "systemd:domain=INET:name=imd"}}
        one = self.cluster.node({**listen, "auth": {"mode": "jwt", "secret": secret}})
        command = one._command
        handed_over = [sys.executable, "-c", HAND_OVER, str(one.port)]
        one._command = lambda: [*handed_over, *command()]  # type: ignore[method-assign]
        self.addCleanup(one.kill)
        one.start()
        for _ in range(2):
            client = RawClient(one.port)
            claims = {"sub": client.user, "loginType": "USER_TYPE", "exp": time.time() + 600}
            token = jwt.encode(claims, secret, "HS256")
            with client.login(token=token):
                self.drain(one)
                self.assertEqual(client.next_text()["type"], "leaving")
                self.assertEqual(client.to_the_end()[-1].brief, 4200)
            self.assertEqual(self.states(one), DRAINS)
            with RawClient(one.port) as newcomer:
                newcomer.send(handshake())
                self.assertEqual(self.drain(one, "--undo"), f"{one.name} is serving\n")
                self.assertTrue(newcomer.open(b"").startswith(b"HTTP/1.1 101 "))
            self.assertEqual(self.states(one), SERVES)

    def test_no_such_node(self) -> None:
        one = self.start()
        config = write_ini(Path(self.mktemp(), "imd.ini"), **self.cluster.ini)
        code, said = here("drain", config, "nowhere")
        self.assertEqual(code, 2)
        self.assertIn(f"nowhere: no such node runs; those that do: {one.name}", said)


class NothingLostTests(DrainCase):
    def write_while(self, leave: Callable[[NodeServer], object]) -> None:
        """Clients write through a node that leaves meanwhile: each message arrives once, in its order."""
        one, other = self.start({"node": {"drain_seconds": 1}}), self.start()
        got = asyncio.run(self.writing(one, other, leave))
        for number in range(WRITERS):
            mine = [text for text in got if text.startswith(f"{number} ")]
            self.assertEqual(mine, [f"{number} {count}" for count in range(len(mine))])
            self.assertGreater(len(mine), ROUNDS_AFTER)
        self.assertEqual(Counter(got)["the end"], WRITERS)

    async def writing(
        self, one: NodeServer, other: NodeServer, leave: Callable[[NodeServer], object]
    ) -> list[str]:
        places: Counter[str] = Counter()

        def place() -> str:
            """As a load balancer does: the first node that serves."""
            try:
                node = one if one.http("serving")[0] == 200 else other
            except OSError:
                node = other
            places[node.name] += 1
            return node.url

        got: list[str] = []
        sent = -1
        reader = Client(other.url, user_id="reader", device="reader")

        async def read() -> None:
            async for message in reader.messages():
                got.append(message.msg)
                if len(got) == sent:
                    return

        writers = [Client(place, user_id=f"writer-{number}") for number in range(WRITERS)]
        for client in (reader, *writers):
            client.start()
            await asyncio.wait_for(client.connected(), 60)
        # A connect that took too long is tried again.
        self.assertEqual(set(places), {one.name}, places)
        reading = asyncio.ensure_future(read())
        leaving = asyncio.get_running_loop().run_in_executor(None, leave, one)
        rounds = itertools.count()
        end = asyncio.get_running_loop().time() + 120
        # Some more after all have moved.
        after = 0
        while after < ROUNDS_AFTER:
            count = next(rounds)
            for number, writer in enumerate(writers):
                writer.send(f"{number} {count}", to="reader")
            await asyncio.sleep(0.03)
            after += places[other.name] >= WRITERS
            self.assertLess(asyncio.get_running_loop().time(), end, places)
        await leaving
        for writer in writers:
            writer.send("the end", to="reader")
        sent = WRITERS * (count + 2)
        await asyncio.wait_for(asyncio.gather(*(writer.drained() for writer in writers)), 180)
        await asyncio.wait_for(reading, 180)
        self.assertGreaterEqual(places[other.name], WRITERS)
        for client in (reader, *writers):
            await client.stop()
        return got

    def test_drain(self) -> None:
        self.write_while(self.drain)

    def test_sigterm(self) -> None:
        def stop(node: NodeServer) -> None:
            process = node.process
            assert process is not None
            os.kill(node.pid, signal.SIGTERM)
            self.assertEqual(process.wait(60), -signal.SIGTERM)

        self.write_while(stop)
