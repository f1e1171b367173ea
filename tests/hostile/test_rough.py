"""Clients that are slow or silent, do not end, or do not read: the node ends them, and holds little."""

from __future__ import annotations

import contextlib
import socket
import time

from tests.hostile.raw import (
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawClient,
    close_frame,
    frame,
    handshake,
    header,
)
from tests.hostile.support import HostileCase, resident_bytes

MIB = 1 << 20
# The bound of a node's growth by one connection. It is measured from outside, so it has room for the rest.
ALLOWED_BYTES = 24 * MIB


class DeadlineTests(HostileCase):
    """A node with short deadlines: connect 3 s, ping 1 s, pong 4 s; a close frame's answer 3 s."""

    kind = "hasty"

    def test_nobody_stays_for_ever(self) -> None:
        """The node ends each of them, and sends a close code where it can. All run at once."""
        with contextlib.ExitStack() as stack:

            def client(login: bool = False, receive_buffer: int | None = None) -> RawClient:
                found = stack.enter_context(RawClient(self.node.port, receive_buffer))
                return found.login() if login else found

            begin = time.monotonic()
            nothing, half_a_request, dripping, no_connect = client(), client(), client(), client()
            half_a_request.send(handshake()[:-2])
            no_connect.open()
            pinging_stranger = client()
            pinging_stranger.open()
            half_a_connect = client()
            half_a_connect.open()
            half_a_connect.send(frame(TEXT, b'{"isConnect":', fin=False))
            silent, half_closed, deaf_to_close, bad = client(True), client(True), client(True), client(True)
            half_closed.socket.shutdown(socket.SHUT_WR)
            bad.send(header(PING, 2**40) + b"mask")
            deaf_to_close.send(frame(CLOSE, b"x"))
            not_reading = client(True, receive_buffer=4096)
            not_reading.socket.settimeout(0.5)
            with contextlib.suppress(OSError):
                for _ in range(200):
                    not_reading.socket.sendall(frame(TEXT, b'{"type":"ping"}') * 1000)
            with contextlib.suppress(OSError):
                not_reading.socket.sendall(close_frame())

            request = handshake() + b"x"
            waiting = [dripping, half_a_connect, pinging_stranger, bad]
            place = 0
            while waiting and time.monotonic() < begin + 180:
                place += 1
                # A byte of an endless header, an empty fragment or a ping gives no more time.
                dripping.send(request[place % 100 : place % 100 + 1].replace(b"\r", b"x"))
                half_a_connect.send(frame(CONTINUATION, fin=False))
                pinging_stranger.send(frame(PING))
                bad.send(b"x" * 100)
                for one in list(waiting):
                    if self.ended(one):
                        waiting.remove(one)
            self.assertEqual(waiting, [])
            self.assertEqual(nothing.rest(), [])
            self.assertEqual(half_a_request.rest(), [])
            self.assertEqual(no_connect.rest()[-1].brief, 4002)
            self.assertEqual(silent.rest()[-1].brief, 4101)
            half_closed.rest()
            self.assertEqual(deaf_to_close.rest()[-1].brief, 1002)
            self.assertEqual(self.said[pinging_stranger][-1].brief, 4002)
            self.assertEqual(self.said[half_a_connect][-1].brief, 4002)
            self.assertEqual(self.said[bad][-1].brief, 1002)
            # The client that does not read cannot tell, but the node can.
            end = time.monotonic() + 180
            while self.node.metric("imd_connections") > 0:
                self.assertLess(time.monotonic(), end, "somebody is still there")
                time.sleep(0.05)

    def setUp(self) -> None:
        super().setUp()
        self.said: dict[RawClient, list[Frame]] = {}

    def ended(self, client: RawClient) -> bool:
        """Read for a moment. Returns True if the node has ended the connection."""
        said = self.said.setdefault(client, [])
        client.socket.settimeout(0.02)
        try:
            while (came := client.next()) is not None:
                if came.opcode != PONG:
                    said.append(came)
        except TimeoutError:
            return False
        return True


class MemoryTests(HostileCase):
    """Megabytes of input are not kept in memory."""

    def assert_little(self, before: int) -> None:
        grown = resident_bytes(self.node) - before
        self.assertLess(grown, ALLOWED_BYTES, f"{grown / MIB:.0f} MiB more")

    def pour(self, client: RawClient, data: bytes, times: int) -> int:
        """Send data `times` times, or until the node takes no more. Returns how many times."""
        client.socket.settimeout(1)
        sent = 0
        with contextlib.suppress(OSError):
            for _ in range(times):
                client.socket.sendall(data)
                sent += 1
        client.socket.settimeout(60)
        return sent

    def test_behind_a_header_that_is_wrong(self) -> None:
        """48 MiB behind the header of a ping of 2**40 bytes, and behind that of a text of 2**62."""
        before = resident_bytes(self.node)
        for start in (header(PING, 2**40), header(TEXT, 2**62)):
            client = self.login()
            client.send(start + b"mask")
            self.pour(client, bytes(MIB), 48)
            self.assert_little(before)

    def test_pings_without_reading(self) -> None:
        """Pings of a client that reads no pong are not answered once its socket is full."""
        before = resident_bytes(self.node)
        client = self.login(receive_buffer=4096)
        sent = self.pour(client, frame(PING, b"x" * 125) * 1000, 20)
        self.chat()
        self.assert_little(before)
        client.send(frame(TEXT, b'{"type":"ping"}'), close_frame())
        pongs = sum(came.opcode == PONG for came in client.rest())
        self.assertLessEqual(pongs, (sent + 1) * 1000)

    def test_asking_without_reading(self) -> None:
        """A client that does not read its answers is not read from, long before they fill the memory."""
        before = resident_bytes(self.node)
        client = self.login(receive_buffer=4096)
        ask = b"".join(
            frame(TEXT, b'{"type":"history","all":true,"ref":"%b"}' % (b"x" * 3000)) for _ in range(10)
        )
        sent = self.pour(client, ask, 1500)
        self.assertLess(sent, 1500)
        self.chat()
        self.assert_little(before)

    def test_endless_message(self) -> None:
        """Endless fragments, with empty ones among them, end with 1009, as one frame of that size does."""
        before = resident_bytes(self.node)
        client = self.login()
        client.send(frame(TEXT, b"x", fin=False))
        # All of it, however long a busy node lets it wait. The node ends the connection before the end.
        more = frame(CONTINUATION, b"x" * 8192, fin=False) + frame(CONTINUATION, fin=False) * 100
        client.send(*[more] * 20)
        self.assertEqual(client.to_the_end()[-1].brief, 1009)
        self.assert_little(before)
