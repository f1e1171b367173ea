"""Thousands of light clients in one process: they log in, come back with full jitter, check the order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

FIRST_BACKOFF, MAX_BACKOFF = 1.0, 30.0
HANDSHAKE_SECONDS = 30.0
ACK_EVERY = 64


class Crowd:
    """State that its clients share: where they go, and what happened to all of them."""

    def __init__(self, urls: Callable[[], Sequence[str]], at_once: int = 1000) -> None:
        self.urls = urls
        """where one may log in now"""
        self.seen: Counter[str] = Counter()
        """closes by code, errors, failed attempts"""
        self.doors = asyncio.Semaphore(at_once)
        """so many sockets connect at a time: this process has one core as well"""
        self.online = 0
        self.wrong: list[str] = []
        """broken promises: a hole, a repeat"""
        self.changed = asyncio.Event()

    def came(self, by: int) -> None:
        self.online += by
        self.changed.set()

    async def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                there = f"{self.online} are there, {dict(self.seen)}"
                raise TimeoutError(f"{what}: not within {seconds:g} s ({there})")
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), min(left, 1.0))


class Client(WSListener):  # type: ignore[misc]
    """A device. It comes back until it is told to stop."""

    def __init__(self, crowd: Crowd, user: str, *, acks: bool = True, announces: bool = True) -> None:
        self.crowd = crowd
        self.user = user
        self.acks = acks
        """whether it really acknowledges"""
        self.announces = announces
        """whether it says that it will: has a window"""
        self.url = ""
        self.epoch: str | None = None
        self.seq = 0
        self.acked = 0
        self.received = 0
        self.transport: WSTransport | None = None
        self.is_in = False
        self.on_message: Callable[[bytes], None] | None = None
        self.on_accepted: Callable[[], None] | None = None
        self._close_code = 0
        self._pause = 0.0
        self._gone: asyncio.Event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._live())

    async def stop(self) -> None:
        """Go, for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self.transport is not None:
            self.transport.disconnect(graceful=False)

    def drop(self) -> None:
        """Lose the connection."""
        if self.transport is not None:
            self.transport.disconnect(graceful=False)

    def send(self, frame: dict[str, Any]) -> None:
        assert self.transport is not None
        self.transport.send(WSMsgType.TEXT, json.dumps(frame, separators=(",", ":")).encode())

    def acknowledge(self) -> None:
        if self.transport is not None and self.seq > self.acked:
            self.acked = self.seq
            self.send({"type": "ack", "seq": self.seq})

    def pause_reading(self) -> None:
        """Leave in the socket whatever comes."""
        assert self.transport is not None
        self.transport.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None:
            self.transport.underlying_transport.resume_reading()

    async def _live(self) -> None:
        failures = 0
        while True:
            self._gone.clear()
            self._close_code, self._pause = 0, -1.0
            self.url = random.choice(self.crowd.urls())
            was_in = False
            try:
                async with self.crowd.doors:
                    await ws_connect(lambda: self, self.url, websocket_handshake_timeout=HANDSHAKE_SECONDS)
                await self._gone.wait()
                was_in = self.is_in
            except (OSError, WSError, TimeoutError) as error:
                self.crowd.seen[f"no connection ({type(error).__name__})"] += 1
            if self.is_in:
                self.is_in = False
                self.crowd.came(-1)
            if self._close_code:
                self.crowd.seen[f"close {self._close_code}"] += 1
            if self._pause >= 0:
                # Told when to come back by a node that leaves.
                await asyncio.sleep(self._pause)
                failures = 0
                continue
            failures = 1 if was_in else failures + 1
            await asyncio.sleep(random.uniform(0, min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** (failures - 1))))

    # from picows

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        frame: dict[str, Any] = {
            "isConnect": True,
            "v": 1,
            "userId": self.user,
            "loginType": "USER_TYPE",
            "attempt": time.time_ns() // 1000000,
            "ack": self.announces,
        }
        if self.epoch is not None:
            frame["cursor"] = {"epoch": self.epoch, "seq": self.seq}
        self.send(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.transport = None
        self._gone.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            payload = frame.get_payload_as_bytes()
            if payload.startswith(b'{"seq":'):
                self._message(payload)
            else:
                self._other(json.loads(payload))
        elif frame.msg_type == WSMsgType.CLOSE:
            self._close_code = int(frame.get_close_code())
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def _message(self, payload: bytes) -> None:
        seq = int(payload[7 : payload.index(b",", 7)])
        if seq != self.seq + 1:
            self.crowd.wrong.append(f"{self.user}: {seq} came after {self.seq}")
        self.seq = seq
        self.received += 1
        if self.on_message is not None:
            self.on_message(payload)
        if self.acks and self.seq - self.acked >= ACK_EVERY:
            self.acknowledge()

    def _other(self, frame: dict[str, Any]) -> None:
        kind = frame["type"]
        if kind == "accepted":
            if self.on_accepted is not None:
                self.on_accepted()
        elif kind == "connected":
            if self.epoch is not None and not frame["recovered"]:
                self.crowd.wrong.append(f"{self.user}: not recovered")
            self.epoch, self.seq = frame["epoch"], frame["seq"]
            self.acked = self.seq
            self.is_in = True
            self.crowd.came(1)
        elif kind == "leaving":
            self._pause = frame["reconnectMs"] / 1000
        elif kind == "error":
            self.crowd.seen[f"error {frame['code']}"] += 1
            if self.on_accepted is not None and "clientMsgId" in frame:
                self.on_accepted()
        elif kind == "reset":
            self.crowd.wrong.append(f"{self.user}: reset")
            self.epoch, self.seq = frame["epoch"], frame["seq"]
