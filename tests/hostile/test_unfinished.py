"""Many connections with unfinished input: its bound holds for all of them together."""

from __future__ import annotations

import contextlib
import json
import time

from twisted.trial import unittest

from imd.wire.unfinished import Unfinished
from tests.hostile.inprocess import InProcess
from tests.hostile.raw import CLOSE, CONTINUATION, TEXT, RawClient, frame, handshake, header, mask
from tests.hostile.support import HostileCase

OVERLOADED = 4100
MOST = 1 << 20
"""unfinished_bytes of the node of kind `tight`"""


class Holder:
    """A sender that records that it had to give way."""

    gone = False

    def give_way(self) -> None:
        self.gone = True


class UnfinishedTests(unittest.SynchronousTestCase):
    """The order in which connections give way, and the input that counts."""

    def test_the_oldest_gives_way(self) -> None:
        """The oldest stranger gives way first; when there is none, the oldest that has logged in."""
        unfinished = Unfinished(100)
        holders = [Holder() for _ in range(5)]
        for holder, known in zip(holders, (True, False, False, True, True), strict=True):
            unfinished.hold(holder, 20, known=known)
        gone = []
        for size in (30, 50, 80, 100):
            unfinished.hold(holders[4], size, known=True)
            gone.append([holder.gone for holder in holders].count(True))
            self.assertLessEqual(unfinished.total, 100)
        self.assertEqual(gone, [1, 2, 3, 4])
        self.assertFalse(holders[4].gone)

    def test_order(self) -> None:
        """The stranger whose input began first gives way first. A login makes it no stranger."""
        unfinished = Unfinished(100)
        first, second, third = Holder(), Holder(), Holder()
        unfinished.hold(first, 40, known=False)
        unfinished.hold(second, 40, known=False)
        unfinished.hold(first, 40, known=True)
        unfinished.hold(third, 40, known=True)
        self.assertEqual([one.gone for one in (first, second, third)], [False, True, False])
        unfinished.finished(first)
        unfinished.hold(first, 40, known=True)
        unfinished.hold(second, 40, known=True)
        self.assertEqual([one.gone for one in (first, third)], [False, True])
        unfinished.finished(first)
        unfinished.finished(second)
        self.assertEqual(unfinished.total, 0)

    def test_what_counts(self) -> None:
        """Bytes of a handshake, a frame, or a message in fragments count until it is whole."""
        connection = InProcess()
        total = lambda: connection.factory.unfinished.total  # noqa: E731
        request = handshake()
        connection.receive(request[:50])
        self.assertEqual(total(), 50)
        connection.receive(request[50:])
        self.assertEqual(total(), 0)
        whole = frame(TEXT, b"x" * 60_000)
        connection.receive(whole[:4])
        self.assertEqual(total(), 4)
        connection.receive(whole[4:30_008])
        self.assertEqual(total(), 30_000)
        connection.receive(whole[30_008:])
        self.assertEqual(total(), 0)
        connection.receive(frame(TEXT, b"x" * 1000, fin=False))
        rest = frame(CONTINUATION, b"y" * 1000)
        connection.receive(rest[:-500])
        self.assertEqual(total(), 1500)
        connection.receive(rest[-500:] + frame(TEXT, b"{}") * 3)
        self.assertEqual(total(), 0)
        self.assertEqual(len(connection.recorder.events), 5)
        connection.receive(header(TEXT, 200) + mask(b"x" * 100))
        self.assertEqual(total(), 100)
        connection.lose()
        self.assertEqual(total(), 0)

    def test_who_gives_way_lets_go(self) -> None:
        """A connection that gives way drops its input and ignores what follows; its close is clean."""
        connection = InProcess().open()
        connection.receive(frame(TEXT, b"x" * 60_000, fin=False) + header(CONTINUATION, 5000) + b"mask")
        connection.receive(b"x" * 2500)
        connection.protocol.give_way()
        self.assertEqual(connection.written()[2:4], OVERLOADED.to_bytes(2, "big"))
        connection.receive(b"\xff" * 2499)
        protocol = connection.protocol
        self.assertEqual(sum(map(len, protocol.message_data + protocol.frame_data)), 0)
        connection.receive(b"x" + frame(CLOSE, OVERLOADED.to_bytes(2, "big")))
        self.assertTrue(connection.transport.disconnecting)
        self.assertEqual(connection.recorder.events, [("peer_leaves",)])


class ManyTests(HostileCase):
    """A node with a bound of 1 MiB."""

    kind = "tight"

    def settled(self) -> None:
        end = time.monotonic() + 180
        while self.node.metric("imd_unfinished_bytes") > 0:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)

    def hold_on(self, stack: contextlib.ExitStack, login: bool) -> list[RawClient]:
        """Sixty connections, each with 50,000 bytes of a frame of 400,000."""
        clients = []
        for _ in range(60):
            client = stack.enter_context(RawClient(self.node.port))
            if login:
                client.login()
            else:
                client.open()
            client.send(header(TEXT, 400_000) + mask(b"x" * 50_000))
            clients.append(client)
        return clients

    def wait_for(self, count: float) -> None:
        end = time.monotonic() + 180
        while self.node.metric("imd_unfinished_closed_total") < count:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        self.assertLessEqual(self.node.metric("imd_unfinished_bytes"), MOST)

    def test_many_unfinished_frames(self) -> None:
        """The oldest are closed with 4100, logged in or not. Messages of others arrive meanwhile."""
        for login in (False, True):
            before = self.node.metric("imd_unfinished_closed_total")
            with contextlib.ExitStack() as stack:
                clients = self.hold_on(stack, login)
                self.wait_for(before + 60 - MOST // 50_000)
                for client in clients[:30]:
                    self.assertEqual(client.rest()[-1].brief, OVERLOADED)
                text = "😀" * 16_384
                with RawClient(self.node.port).login() as honest:
                    honest.send(frame(TEXT, json.dumps({"to": honest.user, "msg": text}).encode()))
                    found = [honest.next_text(), honest.next_text()]
                    self.assertIn(text, [came.get("msg") for came in found])
                self.chat()
            self.settled()

    def test_handshakes(self) -> None:
        """Unfinished requests count. A stranger gives way before a connection that has logged in."""
        before = self.node.metric("imd_unfinished_closed_total")
        honest = self.login()
        honest.send(header(TEXT, 100_000) + b"\0\0\0\0" + b'{"to":"%b","msg":"' % honest.user.encode())
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                client = stack.enter_context(RawClient(self.node.port))
                client.send(b"GET /ws HTTP/1.1\r\nX: " + b"x" * 15_000)
            self.wait_for(before + 20)
            honest.send(b"x" * (100_000 - 18 - len(honest.user)) + b'"}')
            self.assertEqual(honest.next_text()["code"], "too_large")
        self.settled()

    def test_fragments(self) -> None:
        """Messages in fragments count as frames do."""
        before = self.node.metric("imd_unfinished_closed_total")
        with contextlib.ExitStack() as stack:
            for _ in range(30):
                client = stack.enter_context(RawClient(self.node.port)).login()
                client.send(frame(TEXT, b"x" * 30_000, fin=False))
                client.send(frame(CONTINUATION, b"x" * 20_000, fin=False))
            self.wait_for(before + 30 - MOST // 50_000)
        self.settled()
