"""Clients that are cheaper than the servers they load: picows, frames built by hand, one write per turn.

They check all they get: each message once and in order, each `accepted` once and in order, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

CONNECT_SECONDS = 30
ACK_EVERY = 32
_TEXT = WSMsgType.TEXT


class Wrong(Exception):
    """A server did not keep the protocol, or not in time: the run is worth nothing."""


class Watch:
    """One run's clock and conscience: its waits end with Wrong as soon as any client has complained."""

    def __init__(self) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, what: str) -> None:
        if not self.failed.done():
            self.failed.set_exception(Wrong(what))

    async def sleep(self, seconds: float) -> None:
        """Let the run go on for that long. Raises Wrong."""
        await asyncio.wait({self.failed}, timeout=seconds)
        if self.failed.done():
            self.failed.result()

    async def until(self, condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
        """Raises Wrong when the condition does not come true in time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Wrong(f"not within {seconds:g} s: {what()}")
            await self.sleep(0.01)


def masked_frame(payload: bytes) -> bytes:
    """A client's text frame."""
    size = len(payload)
    mask = random.randbytes(4)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    elif size < 65536:
        head = b"\x81\xfe" + size.to_bytes(2, "big")
    else:
        head = b"\x81\xff" + size.to_bytes(8, "big")
    return head + mask + _xor(payload, int.from_bytes(mask * (size // 4 + 1), "little"))


def _xor(payload: bytes, mask: int) -> bytes:
    size = len(payload)
    return (int.from_bytes(payload, "little") ^ (mask & ((1 << 8 * size) - 1))).to_bytes(size, "little")


class Client(WSListener):
    """A channel: connects as `user`; what comes after `connected` goes to `arrived`."""

    read_bytes = 16_384

    def __init__(self, watch: Watch, user: str, acks: bool = True, **fields: Any) -> None:
        self.watch = watch
        self.user = user
        self.acks = acks
        self.connected: dict[str, Any] = {}
        self._signal = {"isConnect": True, "userId": user, "loginType": "USER_TYPE", "ack": acks, **fields}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing = False

    async def open(self, url: str) -> None:
        """Raises Wrong when the server does not answer `connected` in time."""
        try:
            self.transport, _ = await ws_connect(
                lambda: self,
                url,
                websocket_handshake_timeout=CONNECT_SECONDS,
                logger_name="bench",
                read_buffer_init_size=self.read_bytes,
                # Answered by itself, a ping would hide that the frame before it was the last of a read.
                enable_auto_pong=False,
            )
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._ready
        except (TimeoutError, OSError) as error:
            raise Wrong(f"{self.user} could not connect: {error!r}") from None

    def close(self) -> None:
        self._closing = True
        self.transport.disconnect()

    def write(self, data: bytes) -> None:
        """Frames that are masked already, in one go."""
        self._write(data)

    def send(self, frame: dict[str, Any]) -> None:
        self._write(masked_frame(json.dumps(frame, separators=(",", ":")).encode()))

    # from picows

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self._write = transport.underlying_transport.write
        self.send(self._signal)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == _TEXT:
            payload = frame.get_payload_as_bytes()
            if self.connected:
                self.arrived(payload)
            else:
                self._answered(payload)
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE and not self._closing:
            self.watch.fail(f"{self.user} was closed with {frame.get_close_code()}")
        if frame.last_in_buffer:
            self.turn_ended()

    def _answered(self, payload: bytes) -> None:
        answer = json.loads(payload)
        if answer.get("type") != "connected":
            self.watch.fail(f"{self.user} got this for its connect signal: {answer}")
            return
        self.connected = answer
        self._ready.set_result(None)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self._closing:
            self.watch.fail(f"{self.user} was disconnected")
            if not self._ready.done():
                self._ready.set_exception(Wrong(f"{self.user} was disconnected"))
                self._ready.exception()

    # from the server

    def arrived(self, payload: bytes) -> None:
        self.watch.fail(f"{self.user} did not expect {payload[:200]!r}")

    def turn_ended(self) -> None:
        """Everything that came with one read has been looked at."""


class Recipient(Client):
    """Gets the numbered messages of one sender, in order, and acknowledges them."""

    def __init__(self, watch: Watch, user: str, mark: bytes, acks: bool = True, **fields: Any) -> None:
        """`mark` % n has to be in the n-th message."""
        super().__init__(watch, user, acks, **fields)
        self.count = 0
        self.latencies: list[float] | None = None
        self.sent_at: dict[int, float] = {}
        self._mark = mark
        self._acked = 0

    def arrived(self, payload: bytes) -> None:
        count = self.count
        number = count + 1 + self.connected["seq"]
        if not payload.startswith(b'{"seq":%d,' % number) or self._mark % count not in payload:
            self.watch.fail(f"{self.user} expected {self._mark % count!r} as {number}: {payload[:300]!r}")
            return
        self.count = count + 1
        if self.latencies is not None:
            self.latencies.append(time.perf_counter() - self.sent_at[count])

    def turn_ended(self) -> None:
        if self.count - self._acked >= ACK_EVERY:
            self.acknowledge()

    def acknowledge(self) -> None:
        if self.acks and self.count > self._acked:
            self._acked = self.count
            self.write(masked_frame(b'{"type":"ack","seq":%d}' % (self.count + self.connected["seq"])))


class Sender(Client):
    """Sends numbered messages to one recipient: up to `window` of them unanswered, or when it is told to."""

    def __init__(
        self,
        watch: Watch,
        user: str,
        to: str | list[str] | dict[str, str],
        mark: bytes,
        window: int = 0,
        msg_bytes: int = 60,
        **fields: Any,
    ) -> None:
        """`to`: a user, a list of users, or the fields that name a room.

        `mark` must hold one %012d: what becomes of it is the clientMsgId. `msg_bytes`: of the text.
        """
        super().__init__(watch, user, **fields)
        self.window = window
        self.sent = 0
        self.count = 0
        self.running = False
        self.latencies: list[float] | None = None
        self.sent_at: dict[int, float] = {}
        self._mark = mark
        target = to if isinstance(to, dict) else {"to": to} if isinstance(to, str) else {"group": to}
        rest = json.dumps({**target, "msg": "x" * msg_bytes}, separators=(",", ":"))
        self._payload = b'{"clientMsgId":"' + mark + b'",' + rest[1:].encode()
        size = len(self._payload % 0)
        plain = masked_frame(self._payload % 0)
        mask = plain[-size - 4 : -size]
        # All frames of this client have one size and one mask.
        self._head = plain[:-size]
        self._mask = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
        self._size = size
        self.frame_bytes = len(plain)

    def start(self) -> None:
        """Keep the window full from now on."""
        self.running = True
        self.send_numbered(self.window)

    def stop(self) -> None:
        self.running = False

    def send_numbered(self, count: int) -> None:
        """The next messages, in one write."""
        first = self.sent
        self.sent = first + count
        if self.latencies is not None:
            now = time.perf_counter()
            for number in range(first, self.sent):
                self.sent_at[number] = now
        head, mask, size, payload = self._head, self._mask, self._size, self._payload
        self.write(
            b"".join(
                [
                    head + (int.from_bytes(payload % number, "little") ^ mask).to_bytes(size, "little")
                    for number in range(first, self.sent)
                ]
            )
        )

    def arrived(self, payload: bytes) -> None:
        count = self.count
        if not payload.startswith(b'{"type":"accepted"') or self._mark % count not in payload:
            self.watch.fail(f"{self.user} expected {self._mark % count!r} accepted: {payload[:300]!r}")
            return
        self.count = count + 1
        if self.latencies is not None:
            self.latencies.append(time.perf_counter() - self.sent_at[count])

    def turn_ended(self) -> None:
        if self.running:
            room = self.window - self.sent + self.count
            if room > 0:
                self.send_numbered(room)


class Pair:
    """A sender and its recipient, under names that nobody else has."""

    def __init__(self, watch: Watch, name: str, window: int = 0, acks: bool = True) -> None:
        mark = name.encode() + b"-%012d"
        self.recipient = Recipient(watch, f"{name}-bob", mark, acks)
        self.sender = Sender(watch, f"{name}-amy", f"{name}-bob", mark, window)

    async def open(self, sender_url: str, recipient_url: str) -> None:
        await self.recipient.open(recipient_url)
        await self.sender.open(sender_url)

    def time_messages(self) -> None:
        """Measure from now on how long each message takes to the recipient, and to its answer."""
        self.sender.latencies, self.recipient.latencies = [], []
        self.recipient.sent_at = self.sender.sent_at

    @property
    def complete(self) -> bool:
        """Everything sent has been delivered and accepted."""
        return self.sender.count == self.sender.sent == self.recipient.count

    @property
    def both(self) -> int:
        """Messages delivered and accepted."""
        return min(self.sender.count, self.recipient.count)

    def close(self) -> None:
        self.recipient.acknowledge()
        self.sender.close()
        self.recipient.close()


class Member(Recipient):
    """One of a list, which every frame names in full: several of them are in one read all the same."""

    read_bytes = 98_304


class Group:
    """A sender that writes to a list of recipients."""

    def __init__(self, watch: Watch, name: str, members: int, window: int) -> None:
        mark = name.encode() + b"-%012d"
        names = [f"{name}-m{number:04d}" for number in range(members)]
        self.recipients = [Member(watch, member, mark) for member in names]
        self.sender = Sender(watch, f"{name}-amy", names, mark, window)

    async def open(self, url: str) -> None:
        for first in range(0, len(self.recipients), 25):
            await asyncio.gather(*[one.open(url) for one in self.recipients[first : first + 25]])
        await self.sender.open(url)

    @property
    def delivered(self) -> int:
        return sum(one.count for one in self.recipients)

    @property
    def complete(self) -> bool:
        sent = self.sender.sent
        return self.sender.count == sent and all(one.count == sent for one in self.recipients)

    def close(self) -> None:
        for one in [*self.recipients, self.sender]:
            one.close()


class Idle(Client):
    """Connects and keeps still. `signal`: whether it says who it is, or is a bare WebSocket."""

    read_bytes = 1024

    def __init__(self, watch: Watch, user: str, signal: bool) -> None:
        super().__init__(watch, user)
        self._bare = not signal

    def on_ws_connected(self, transport: WSTransport) -> None:
        if self._bare:
            self.transport = transport
            self._ready.set_result(None)
        else:
            super().on_ws_connected(transport)
