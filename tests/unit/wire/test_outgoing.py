"""Outgoing frames on real sockets: every byte arrives, in order, and at once if the socket takes it."""

from __future__ import annotations

import random
import socket
import struct
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import StringTransport
from twisted.trial import unittest

from imd.wire.outgoing import Outgoing, write_now
from tests.support.certificate import tls_endpoint
from tests.support.rabbit import until

loop: Any = reactor


def now(transport: Any, data: bytes) -> None:
    write_now(transport, [data], len(data))


class OutgoingTests(unittest.TestCase):
    timeout = 300

    async def connected(self) -> tuple[Any, socket.socket]:
        """A Twisted transport, and the blocking socket at its other end."""
        made: Deferred[Any] = Deferred()
        self.lost: list[Any] = []
        test = self

        class Server(Protocol):
            def connectionMade(self) -> None:
                made.callback(self.transport)

            def connectionLost(self, reason: Any = None) -> None:
                test.lost.append(reason)

        port = loop.listenTCP(0, Factory.forProtocol(Server), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        client = socket.create_connection(("127.0.0.1", port.getHost().port))
        self.addCleanup(client.close)
        return await made, client

    async def all_of(self, client: socket.socket, size: int) -> bytes:
        """Read up to that many bytes at the other end, while the reactor runs."""
        client.setblocking(False)
        read = bytearray()

        def enough() -> bool:
            try:
                while len(read) < size:
                    read.extend(client.recv(1 << 20))
            except BlockingIOError:
                pass
            return len(read) >= size

        await until(enough, "all is there")
        return bytes(read)

    async def test_at_once(self) -> None:
        """A frame arrives before the reactor comes round."""
        transport, client = await self.connected()
        now(transport, b"now")
        client.settimeout(60)
        self.assertEqual(client.recv(10), b"now")

    async def test_behind_what_waits(self) -> None:
        """An earlier write that waits in the transport is not overtaken."""
        transport, client = await self.connected()
        transport.write(b"one,")
        now(transport, b"two,")
        transport.write(b"three,")
        now(transport, b"four")
        self.assertEqual(await self.all_of(client, 18), b"one,two,three,four")

    async def test_socket_that_takes_part(self) -> None:
        """Bytes that a full socket does not take follow later; the producer is paused meanwhile."""
        transport, client = await self.connected()
        paused: list[bool] = []

        class Producer:
            def pauseProducing(self) -> None:
                paused.append(True)

            def resumeProducing(self) -> None:
                paused.append(False)

            def stopProducing(self) -> None: ...

        transport.registerProducer(Producer(), True)
        chance = random.Random(1)
        whole = b"".join(chance.randbytes(chance.randrange(1, 300_000)) for _ in range(100))
        position = 0
        while position < len(whole):
            size = chance.randrange(1, 300_000)
            piece = whole[position : position + size]
            cuts = sorted(chance.randrange(size + 1) for _ in range(chance.choice((0, 3, 600))))
            pieces = [piece[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
            write_now(transport, pieces, len(piece))
            position += size
        self.assertTrue(paused and all(paused))
        self.assertEqual(await self.all_of(client, len(whole)), whole)
        await until(lambda: not paused[-1], "the producer goes on")
        now(transport, b"more")
        self.assertEqual(await self.all_of(client, 4), b"more")

    async def test_peer_that_is_gone(self) -> None:
        """A write to a lost connection ends its transport."""
        transport, client = await self.connected()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        for _ in range(3):
            now(transport, b"x" * 100_000)
        await until(lambda: bool(self.lost), "the loss is noticed")
        now(transport, b"too late")

    async def test_closing(self) -> None:
        """A connection that is being closed sends its waiting bytes in order, and then ends."""
        transport, client = await self.connected()
        transport.write(b"before")
        transport.loseConnection()
        now(transport, b", after")
        self.assertEqual(await self.all_of(client, 13), b"before, after")
        await until(lambda: bool(self.lost), "it is closed")

    def test_frames_of_a_turn(self) -> None:
        """The frames of a turn go out in one write, in order; none after the close."""
        transport = StringTransport()
        soon: list[Outgoing] = []
        outgoing = Outgoing(transport, soon.append, lambda size: None)
        sizes = [0, 1, 125, 126, 1023, 1024, 65_535, 65_536, 5]
        for number, size in enumerate(sizes):
            whole = bytes([number + 65]) * size
            if number % 2:
                outgoing.send(whole[:1], memoryview(whole)[1:])
            else:
                outgoing.send(whole)
        outgoing.close()
        outgoing.send(b"too late")
        self.assertLessEqual(len(soon), 3, "a turn's, and one for each that was too much to gather")
        outgoing.flush()
        wanted = b"".join(
            b"\x81" + self.length(size) + bytes([number + 65]) * size for number, size in enumerate(sizes)
        )
        self.assertEqual(transport.value(), wanted)

    def length(self, size: int) -> bytes:
        """As RFC 6455, 5.2 has it."""
        if size < 126:
            return struct.pack("!B", size)
        return struct.pack("!BH", 126, size) if size < 65536 else struct.pack("!BQ", 127, size)

    def test_stuck(self) -> None:
        """The owner is called with the size of each write while the socket takes nothing."""
        stuck: list[int] = []
        outgoing = Outgoing(StringTransport(), lambda outgoing: None, stuck.append)
        outgoing.send(b"taken")
        outgoing.flush()
        outgoing.writable = False
        outgoing.send(b"not taken")
        outgoing.flush()
        outgoing.flush()
        self.assertEqual(stuck, [11])

    def test_forgotten(self) -> None:
        """Frames that were not written when the connection ended are dropped."""
        transport = StringTransport()
        outgoing = Outgoing(transport, lambda outgoing: None, lambda size: None)
        outgoing.send(b"x")
        outgoing.forget()
        outgoing.send(b"y")
        outgoing.flush()
        self.assertEqual(transport.value(), b"")

    async def test_tls(self) -> None:
        """A TLS wrapper is not bypassed: every byte is encrypted."""
        answered: Deferred[bytes] = Deferred()

        class Server(Protocol):
            def dataReceived(self, data: bytes) -> None:
                for piece in (b"one,", b"two,", b"x" * 100_000):
                    now(self.transport, piece)

        class Client(Protocol):
            read = b""

            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(b"go")

            def dataReceived(self, data: bytes) -> None:
                self.read += data
                if len(self.read) == 100_008:
                    answered.callback(self.read)

        listen = tls_endpoint(Path(self.mktemp()), 0)
        port = await serverFromString(reactor, listen).listen(Factory.forProtocol(Server))
        self.addCleanup(port.stopListening)
        connect = TCP4ClientEndpoint(loop, "127.0.0.1", port.getHost().port)
        client: Any = await wrapClientTLS(CertificateOptions(), connect).connect(Factory.forProtocol(Client))
        self.addCleanup(client.transport.abortConnection)
        answered.addTimeout(180, loop)
        self.assertEqual(await answered, b"one,two," + b"x" * 100_000)

    def test_other_transports(self) -> None:
        """Any other transport gets ordinary writes."""
        transport = StringTransport()
        now(transport, b"text")
        self.assertEqual(transport.value(), b"text")
