"""The bus between nodes: its wire format, and two nodes on a real RabbitMQ."""

from __future__ import annotations

import socket
from typing import Any

import pika
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.trial import unittest

from imd.contracts.bus import Hint, Signal
from imd.protocol.errors import ConfigurationError
from imd.store.rabbit import bus as rabbit_bus
from imd.store.rabbit import connection as rabbit_connection
from imd.store.rabbit import link as rabbit_link
from imd.store.rabbit.bus import RabbitBus
from imd.store.rabbit.bus_messages import (
    MESSAGE_BYTES,
    BusMessage,
    Hints,
    Malformed,
    decode,
    encode,
    group_hints,
    split_hints,
    split_signals,
    ungroup_hints,
)
from imd.store.rabbit.connection import RabbitConnection
from tests.support.rabbit import Broker, breakable, pause, until
from tests.support.servers import free_port, shared

HINTS = st.lists(
    st.builds(
        Hint,
        channel=st.text(max_size=20),
        epoch=st.text(max_size=8),
        seq=st.integers(0, 2**53),
        body=st.none() | st.binary(max_size=30),
    ),
    max_size=20,
)


class WireTests(unittest.TestCase):
    @given(st.binary(max_size=200))
    @settings(deadline=None)
    def test_any_bytes(self, body: bytes) -> None:
        """Any bytes are a message or raise Malformed, and no other exception."""
        try:
            self.assertIsInstance(decode(body), BusMessage)
        except Malformed:
            pass

    def test_deeply_nested(self) -> None:
        """Deep nesting is malformed."""
        with self.assertRaises(Malformed):
            decode(b"\x93\xa5hints\xa1a" + b"\x91" * 100_000)

    def test_negative_seq(self) -> None:
        """No inbox has a number below zero."""
        with self.assertRaises(Malformed):
            decode(encode(Hints("a.1", [(None, [("c", "e", -1)])])))

    @given(HINTS)
    @settings(deadline=None)
    def test_round_trip(self, hints: list[Hint]) -> None:
        """Decoded hints equal the encoded ones, in their order."""
        message = decode(encode(Hints("a.1", group_hints(hints))))
        assert isinstance(message, Hints)
        self.assertEqual(ungroup_hints(message.groups), hints)

    def test_body_once(self) -> None:
        """A group message's body is carried once for all its recipients."""
        body = b"x" * 1000
        hints = [Hint(f"c{n}", "e", n, body) for n in range(100)]
        self.assertLess(len(encode(Hints("a.1", group_hints(hints)))), 3000)

    @given(st.lists(st.integers(0, MESSAGE_BYTES + 10), max_size=30), st.booleans())
    @settings(deadline=None, max_examples=50)
    def test_split(self, sizes: list[int], shared_body: bool) -> None:
        """A list is divided only when it is large, and never loses or moves a hint."""
        body = b"x" * 1000
        hints = [Hint("c" * 20, "e", n, body if shared_body else b"x" * size) for n, size in enumerate(sizes)]
        parts = list(split_hints(hints))
        self.assertEqual([hint for part in parts for hint in part], hints)
        for part in parts:
            size = len(encode(Hints("a.1", group_hints(part))))
            self.assertTrue(len(part) == 1 or size <= MESSAGE_BYTES + 100, size)
        if sum(sizes) + 100 * len(sizes) < MESSAGE_BYTES:
            self.assertLessEqual(len(parts), 1)


class Ear:
    """Keeps what a bus hears, in order."""

    def __init__(self, bus: RabbitBus) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.back = 0
        bus.listen(
            lambda sender, hints: self.heard.append(("hints", sender, hints)),
            lambda sender, hints: self.heard.append(("search", sender, hints)),
            lambda sender, channels: self.heard.append(("found", sender, channels)),
            lambda channels: self.heard.append(("replaced", channels)),
            self.count_back,
            lambda channels: self.heard.append(("returned", channels)),
        )

    def count_back(self) -> None:
        self.back += 1


def make_bus(test: unittest.TestCase, url: str, name: str, boot: str = "b1") -> tuple[RabbitBus, Ear]:
    bus = RabbitBus(
        reactor,
        RabbitConnection(reactor, url, "publish"),
        RabbitConnection(reactor, url, "consume"),
        name,
        boot,
    )
    test.addCleanup(bus.stop)
    return bus, Ear(bus)


def published(kind: str) -> float:
    return rabbit_bus.PUBLISHED.labels(kind)._value.get()


def dropped(reason: str) -> float:
    return rabbit_bus.DROPPED.labels(reason)._value.get()


class BusTests(unittest.TestCase):
    timeout = 300

    async def two(self) -> tuple[RabbitBus, Ear, RabbitBus, Ear]:
        self.url = shared().amqp_url()
        one, ear_one = make_bus(self, self.url, "one")
        two, ear_two = make_bus(self, self.url, "two")
        await one.start()
        await two.start()
        return one, ear_one, two, ear_two

    async def test_all_kinds(self) -> None:
        """Hints go to one node, a search to all others, the answer to the asker; each in one message."""
        one, ear_one, two, ear_two = await self.two()
        before = {kind: published(kind) for kind in ("hints", "search", "found", "replaced")}
        hints = [
            Hint("c1", "e", 7, b'{"msg":"hi"}'),
            Hint("c2", "e", 9, b'{"msg":"hi"}'),
            Hint("c3", "f", 1, None),
        ]
        one.search(hints)
        one.send_hints(two.address, hints)
        one.send_replaced(["c9"])
        await until(lambda: len(ear_two.heard) >= 3, "node two hears")
        self.assertEqual(
            ear_two.heard, [("search", "one.b1", hints), ("hints", "one.b1", hints), ("replaced", ["c9"])]
        )
        two.send_found("one.b1", ["c1"])
        await until(lambda: ear_one.heard, "the answer")
        self.assertEqual(ear_one.heard, [("found", "two.b1", ["c1"])], "and nothing of its own")
        self.assertEqual(
            {kind: published(kind) - count for kind, count in before.items()}, dict.fromkeys(before, 1)
        )
        self.assertIsNone(one.problem())

    async def test_ask(self) -> None:
        """One node is asked, as by a search; a question to a node that is gone comes back."""
        one, ear_one, two, ear_two = await self.two()
        before = published("ask")
        hints = [Hint("c1", "e", 7, b"{}"), Hint("c2", "e", 9, b"{}"), Hint("c3", "f", 1, None)]
        one.ask(two.address, hints)
        await until(lambda: ear_two.heard, "node two hears")
        self.assertEqual(ear_two.heard, [("search", "one.b1", hints)])
        one.ask("two.b0", hints)
        await until(lambda: ear_one.heard, "the return")
        self.assertEqual(ear_one.heard, [("returned", ["c1", "c2", "c3"])])
        self.assertEqual(published("ask") - before, 2)
        one.listen(*([lambda *_: None] * 5), lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
        one.ask("two.b0", hints)
        await until(lambda: self.flushLoggedErrors(ZeroDivisionError), "the listener's failure is logged")
        one.send_hints(two.address, hints)
        await until(lambda: len(ear_two.heard) > 1, "the connection is still there")

    async def test_health(self) -> None:
        """A question goes to the nodes that are named, the answer to the one that asked."""
        one, _, two, _ = await self.two()
        heard: list[tuple[str, str, str]] = []
        for name, bus in (("one", one), ("two", two)):
            bus.listen_health(
                lambda sender, name=name: heard.append((name, "asking", sender)),
                lambda sender, name=name: heard.append((name, "well", sender)),
            )
        one.ask_who_is_well([two.address])
        await until(lambda: heard, "the question")
        two.say_well("one.b1")
        await until(lambda: len(heard) > 1, "the answer")
        self.assertEqual(heard, [("two", "asking", "one.b1"), ("one", "well", "two.b1")])

    async def test_signals(self) -> None:
        """Signals and looks go to one node, by a queue of their own: none of them pushes out a hint."""
        one, ear_one, two, ear_two = await self.two()
        heard: list[Any] = []
        two.listen_signals(heard.append, lambda users: heard.append(users))
        signals = [Signal("typing", b"{}", ["c1", "c2"]), Signal("state", b"\x00", ["c3"])]
        one.send_signals(two.address, signals)
        one.send_looks(two.address, ["alice", "bob"])
        await until(lambda: len(heard) >= 2, "node two hears")
        self.assertEqual(heard, [signals, ["alice", "bob"]])
        self.assertEqual((ear_one.heard, ear_two.heard, one.has_room()), ([], [], True))
        one.send_signals("gone.b1", signals)
        one.send_hints(two.address, [Hint("c", "e", 1, None)])
        await until(lambda: ear_two.heard, "a hint")

    @given(st.lists(st.tuples(st.integers(0, MESSAGE_BYTES), st.integers(1, 5000)), max_size=8))
    @settings(deadline=None, max_examples=30)
    def test_split_signals(self, sizes: list[tuple[int, int]]) -> None:
        """Many signals are several messages, in their order, and each message is of a bounded size."""
        signals = [Signal("state", b"x" * size, ["c"] * count) for size, count in sizes]
        parts = list(split_signals(signals))
        self.assertEqual([signal for part in parts for signal in part], signals)
        for part in parts:
            size = sum(len(signal.payload) + 140 * len(signal.channels) for signal in part)
            self.assertTrue(len(part) == 1 or size <= MESSAGE_BYTES, size)

    async def test_names(self) -> None:
        """The node's queue has its address in its name and is the node's alone."""
        one, _, _, _ = await self.two()
        broker = Broker(self.url)
        self.addCleanup(broker.close)
        with self.assertRaises(pika.exceptions.ChannelClosedByBroker) as refused:
            broker.length(f"imd.node.{one.address}")
        self.assertEqual(refused.exception.reply_code, 405, "locked: exclusive to another connection")

    async def test_nothing_is_nothing(self) -> None:
        """Empty lists are not published."""
        one, _, _, _ = await self.two()
        before = published("hints") + published("search")
        one.send_hints("two.b1", [])
        one.search([])
        one.send_found("two.b1", [])
        one.send_replaced([])
        self.assertEqual(published("hints") + published("search"), before)

    async def test_malformed(self) -> None:
        """Malformed bytes are counted and ignored; a listener that raises does not end the connection."""
        one, _, two, ear_two = await self.two()
        broker = Broker(self.url)
        self.addCleanup(broker.close)
        before = dropped("malformed")
        for body in (b"", b"{}", b"\xc1", encode(["hints", "x", [[1, 2]]])):
            broker.channel.basic_publish("imd.node", two.address, body)
        broker.channel.basic_publish("imd.all", "", encode(["unheard-of", "x", []]))
        await until(lambda: dropped("malformed") >= before + 5, "all are counted")
        two.listen(lambda *_: 1 / 0, *([lambda *_: None] * 5))  # type: ignore[arg-type,return-value]
        one.send_hints(two.address, [Hint("c", "e", 1, None)])
        await until(lambda: self.flushLoggedErrors(ZeroDivisionError), "the listener's failure is logged")
        ear_two = Ear(two)
        one.send_hints(two.address, [Hint("c", "e", 2, None)])
        await until(lambda: ear_two.heard, "the next hint is heard")

    async def test_queue_deleted(self) -> None:
        """A consumer that the broker cancels is made anew."""
        one, _, two, ear_two = await self.two()
        link = two._consumer._link
        assert link is not None
        channel = await link.channel()
        # The answer may be lost with the connection, which the node drops when its consumer is cancelled.
        channel.queue_delete(f"imd.node.{two.address}").addErrback(lambda _: None)
        # The node may be back before one looks whether it is away.
        await until(lambda: two._consumer._link not in (None, link), "it is back")
        self.assertIsNone(two.problem())
        one.search([Hint("c", "e", 1, None)])
        await until(lambda: ear_two.heard, "it hears")

    async def test_locked_queue(self) -> None:
        """A queue that is still locked by a dead connection does not keep the node from hearing."""
        url = shared().amqp_url()
        dead = Broker(url)
        self.addCleanup(dead.close)
        dead.channel.queue_declare("imd.node.one.b1", exclusive=True)
        one, ear_one = make_bus(self, url, "one")
        two, _ = make_bus(self, url, "two")
        await one.start()
        await two.start()
        two.send_hints(one.address, [Hint("c", "e", 1, None)])
        await until(lambda: ear_one.heard, "it hears")

    async def test_broker_killed(self) -> None:
        """While the broker is gone hints are dropped and counted; when it is back both nodes hear again."""
        server = breakable()
        one, ear_one = make_bus(self, server.url, "one")
        two, ear_two = make_bus(self, server.url, "two")
        await one.start()
        await two.start()
        server.kill()
        # Each has two connections, which learn it one after the other.
        connections = [part for bus in (one, two) for part in (bus._publisher, bus._consumer)]
        await until(lambda: all(part.problem() for part in connections), "it is noticed")
        before = dropped("down")
        one.search([Hint("c", "e", 1, None)] * 3)
        self.assertEqual(dropped("down") - before, 3)
        backs = (ear_one.back, ear_two.back)
        server.start()
        await until(lambda: not one.problem() and not two.problem(), "they are back")
        # Each node calls back for itself; the first one back also hears the other.
        await until(lambda: ear_one.back + ear_two.back >= sum(backs) + 3, "they tell that they hear again")
        one.send_hints(two.address, [Hint("c", "e", 2, None)])
        two.search([Hint("d", "e", 3, None)])
        await until(lambda: ear_one.heard and ear_two.heard, "they hear")
        self.assertEqual(ear_one.heard, [("search", "two.b1", [Hint("d", "e", 3, None)])])
        self.assertEqual(ear_two.heard, [("hints", "one.b1", [Hint("c", "e", 2, None)])])

    async def test_broker_reads_too_slowly(self) -> None:
        """Unsent bytes to a hanging broker are bounded: hints are dropped, counted, and a problem."""
        self.patch(rabbit_connection, "CONGESTED_BYTES", 1 << 20)
        server = breakable()
        one, _ = make_bus(self, server.url, "one")
        two, ear_two = make_bus(self, server.url, "two")
        await one.start()
        await two.start()
        server.pause()
        self.addCleanup(server.resume)
        before = dropped("congested")
        self.patch(rabbit_connection, "FILLING_BYTES", 1 << 18)
        self.assertTrue(one.has_room() and one.has_room_for_typing())
        full_at: list[float] = []
        behind_at: list[bool] = []
        for number in range(200):
            one.send_hints(two.address, [Hint("c", "e", number, b"x" * 100_000)])
            # The transport pauses its producer between turns.
            await pause(0)
            if not one.has_room_for_typing():
                behind_at.append(one.has_room())
            if not one.has_room():
                full_at.append(dropped("congested"))
        self.assertTrue(behind_at[0], "no room for typing, long before there is none for signals")
        self.assertEqual(full_at[0], before, "no room for signals, long before hints are dropped")
        self.assertGreater(dropped("congested"), before)
        self.assertIn("too slowly", one.problem() or "")
        server.resume()
        await until(lambda: one.problem() is None, "it is well again")
        one.send_hints(two.address, [Hint("c", "e", 1000, None)])
        await until(lambda: ear_two.heard and ear_two.heard[-1][2][-1].seq == 1000, "the last one is heard")
        heard = [hint.seq for _, _, hints in ear_two.heard for hint in hints]
        self.assertEqual(heard, sorted(heard), "in order")


class ConnectionTests(unittest.TestCase):
    timeout = 300

    async def test_wrong_password(self) -> None:
        """The reason has the broker's words, and no password."""
        url = shared().amqp_url("/").replace("guest:guest", "guest:s3cret")
        connection = RabbitConnection(reactor, url, "test")
        self.addCleanup(connection.stop)
        connection.start()
        await until(lambda: "ACCESS_REFUSED" in (connection.problem() or ""), "it says why")
        self.assertNotIn("s3cret", connection.problem() or "")

    async def test_nobody_there(self) -> None:
        """Refused connections are tried again until stopped."""
        connection = RabbitConnection(reactor, f"amqp://127.0.0.1:{free_port()}/", "test")
        connection.start()
        await until(lambda: connection._failures >= 2, "it tries again")
        self.assertIn("refused", connection.problem() or "")
        await connection.stop()

    async def test_silence(self) -> None:
        """A peer that accepts and stays silent is dropped after the deadline."""
        self.patch(rabbit_link, "RPC_SECONDS", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection = RabbitConnection(reactor, f"amqp://127.0.0.1:{listener.getsockname()[1]}/", "test")
            self.addCleanup(connection.stop)
            connection.start()
            await until(lambda: connection._failures >= 2, "it gives up and tries again")
            self.assertIn("handshake: no answer", connection.problem() or "")

    async def test_stop_during_handshake(self) -> None:
        """Stopping does not wait for a peer that says nothing."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection = RabbitConnection(reactor, f"amqp://127.0.0.1:{listener.getsockname()[1]}/", "test")
            connection.start()
            await until(lambda: connection._attempt is not None, "connected")
            await connection.stop()

    async def test_setup_fails(self) -> None:
        """A setup that fails drops the connection; the next one is usable once it is set up."""
        connection = RabbitConnection(reactor, shared().amqp_url("/"), "test")
        self.addCleanup(connection.stop)
        seen: list[str] = []

        async def setup(link: rabbit_link.Link) -> None:
            seen.append("setup")
            if len(seen) < 3:
                raise ValueError("not yet")

        connection.add_user(setup, lambda: seen.append("lost"))
        await connection.start()
        self.assertEqual(seen, ["setup", "lost", "setup"])
        self.assertIsNone(connection.problem())

    async def test_channel_closes(self) -> None:
        """If the broker closes a channel, its connection is dropped, and all is set up anew."""
        connection = RabbitConnection(reactor, shared().amqp_url("/"), "test")
        self.addCleanup(connection.stop)
        channels: list[Any] = []

        async def setup(link: rabbit_link.Link) -> None:
            channels.append(await link.channel())

        connection.add_user(setup, lambda: None)
        await connection.start()
        channels[0].queue_declare("no such queue", passive=True).addErrback(lambda _: None)
        await until(lambda: len(channels) == 2 and not connection.problem(), "a new one")

    async def test_shared(self) -> None:
        """The connection ends when the last of its users has stopped."""
        connection = RabbitConnection(reactor, shared().amqp_url("/"), "test")
        await connection.start()
        await connection.start()
        await connection.stop()
        self.assertIsNone(connection.problem())
        await connection.stop()
        self.assertIn("stopped", connection.problem() or "")

    def test_bad_url(self) -> None:
        """A url that cannot be used is a ConfigurationError, and its password stays in it."""
        for url in ("amqp://u:s3cret@host:port/", "amqp://u:s3cret@h/?heartbeat=x", "http://u:s3cret@h/"):
            with self.assertRaises(ConfigurationError) as error:
                RabbitConnection(reactor, url, "test")
            self.assertNotIn("s3cret", str(error.exception))
