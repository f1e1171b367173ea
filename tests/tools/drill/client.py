"""One device of the drill: connects anywhere, leaves, comes back, sends again until it is answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tests.support.servers import HOST
from tests.tools.drill.asking import Questions
from tests.tools.drill.doings import do_something, extras_for
from tests.tools.drill.history import UNCHANGED, Answer, Connection, Message, Reset, Send, extras_of, got_of
from tests.tools.drill.marking import FEATURE, Marking
from tests.tools.drill.wire import Wire

if TYPE_CHECKING:
    from tests.tools.drill.world import World

CONNECT_SECONDS = 4.0
# A client that hears nothing for so long goes elsewhere, while there are faults.
SILENCE_SECONDS = 3.0
MAX_RESEND_SECONDS = 1.0
PATIENCE_SECONDS = 15.0
MAX_UNANSWERED = 64
ACK_EVERY = 16
TICK_SECONDS = 0.05
HEARD = 30
# The others are final: the frame is not sent again.
TEMPORARY = {"unavailable", "rate_limited"}
FEATURES = ("events", "sync", FEATURE)


class Device:
    """`kind`: own (acknowledges, keeps its cursor), server (acknowledges, trusts the server's cursor) or
    seed (neither). `pinned` is the number of the only node that it uses; it never leaves by itself."""

    def __init__(
        self,
        world: World,
        name: str,
        user: str,
        kind: str,
        *,
        role: str = "user",
        rate: float = 0.0,
        pinned: int | None = None,
        features: Sequence[str] = (),
    ) -> None:
        self.world = world
        self.name = name
        self.user = user
        self.kind = kind
        self.role = role
        self.rate = rate
        self.pinned = pinned
        self.features = features
        self.heard: deque[str] = deque(maxlen=HEARD)
        """ids of others' messages that came lately"""
        self.rng = random.Random(f"{world.seed}/{name}")
        self.epoch = ""
        self.seq = 0
        self.seen: set[str] = set()
        self.wire: Wire | None = None
        self.connection: Connection | None = None
        self._token: str | None = None
        self._attempt = 0
        self.number = 0
        self._unanswered: dict[str, tuple[Message, dict[str, Any]]] = {}
        self._again: deque[tuple[float, str]] = deque()
        self._connected: asyncio.Future[None] | None = None
        self._heard_at = 0.0
        self._acked = 0
        self._ended: asyncio.Event = asyncio.Event()
        self._questions = Questions()
        self.marking = Marking(self)

    @property
    def live(self) -> bool:
        return self.connection is not None and bool(self.connection.epoch) and not self._ended.is_set()

    @property
    def unanswered(self) -> int:
        return len(self._unanswered)

    @property
    def unanswered_messages(self) -> list[Message]:
        return [message for message, _ in self._unanswered.values()]

    @property
    def unanswered_events(self) -> int:
        slow = ("edit", "recall", "react", "room")
        return sum(message.kind in slow for message, _ in self._unanswered.values())

    # its life

    async def run(self) -> None:
        """Live until the world closes."""
        while self.world.phase != "closing":
            try:
                await self._one_connection()
            except (OSError, TimeoutError):
                await asyncio.sleep(self.rng.uniform(0.05, 0.15))
                continue
            if self.pinned is not None or self.world.phase != "load":
                await asyncio.sleep(0.05)
            else:
                await asyncio.sleep(self.rng.choice((0.02, 0.1, 0.5, 1.5)))

    async def _one_connection(self) -> None:
        way = self.world.pick_way(self)
        self._ended.clear()
        self._connected = asyncio.get_running_loop().create_future()
        frame = self._connect_frame(way.name)
        # A hasty client does not wait for the handshake: a node that hangs finds the connect frame later.
        hasty = self.rng.random() < 0.3
        seconds = self._patience(CONNECT_SECONDS)
        try:
            self.wire = await Wire.open(
                HOST, way.port, self._frame, self._closed, seconds, frame if hasty else None, way.path
            )
            if not hasty:
                self.wire.send(frame)
            async with asyncio.timeout(seconds):
                await self._connected
            for key in list(self._unanswered):
                self._write(key)
            self._again.clear()
            self.marking.connected()
            await self._stay()
        finally:
            if self.wire is not None:
                self.wire.abort()
                await self.wire.gone
            if self.connection is not None:
                self.connection.closed_at = time.monotonic()
                self.connection.close_code = self.wire.close_code if self.wire is not None else None
            self.connection = self.wire = None

    def _patience(self, seconds: float) -> float:
        return seconds if self.world.phase == "load" else PATIENCE_SECONDS

    def _connect_frame(self, node: str) -> dict[str, Any]:
        """The next connect frame; from here on its connection stands in the history."""
        self._attempt += 1
        frame: dict[str, Any] = {"isConnect": True, "attempt": self._attempt}
        asked = None
        if self.role == "visitor":
            frame |= {"isVisitor": True, "visitorToken": self._token}
        else:
            frame |= {"userId": self.user, "device": self.name, "loginType": "USER_TYPE"}
            frame["isCustomerService"] = self.role == "agent"
            frame["token"] = self.world.ways.token(self.user, self.role == "agent")
        if self.features:
            frame["features"] = self.features
        if self.kind != "seed":
            frame["ack"] = True
        if self.kind == "own" and self.epoch:
            asked = (self.epoch, self.seq)
            frame["cursor"] = {"epoch": self.epoch, "seq": self.seq}
        self.connection = Connection(
            self.user, self.name, node, self._attempt, self.kind != "seed", asked, time.monotonic()
        )
        self.marking.name_version(self.connection, frame)
        self.world.history.connections.append(self.connection)
        return {key: value for key, value in frame.items() if value is not None}

    async def _stay(self) -> None:
        """Send and receive until it is time to leave, or the connection is gone or silent."""
        rng, now = self.rng, time.monotonic()
        leave_at = now + rng.uniform(1.0, 8.0) if self.pinned is None else float("inf")
        next_send = now + (rng.expovariate(self.rate) if self.rate else float("inf"))
        self._heard_at, asked_at = now, now
        while not self._ended.is_set():
            now = time.monotonic()
            if now - self._heard_at > self._patience(SILENCE_SECONDS):
                return
            if now - asked_at > 1.0:
                asked_at = now
                self.wire.send({"type": "ping"})  # type: ignore[union-attr]
            self._acknowledge()
            while self._again and self._again[0][0] <= now:
                self._write(self._again.popleft()[1])
            self.marking.tick(now, self.world.phase == "load")
            if self.world.phase == "load":
                if now >= leave_at:
                    await self._leave()
                    return
                while now >= next_send:
                    next_send += rng.expovariate(self.rate)
                    for _ in range(rng.randint(5, 12) if rng.random() < 0.05 else 1):
                        if len(self._unanswered) < MAX_UNANSWERED:
                            do_something(self)
            elif self.world.phase == "closing":
                await self._leave_well()
                return
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self._ended.wait()
            except TimeoutError:
                pass

    async def _leave(self) -> None:
        how = self.rng.random()
        if how < 0.4:
            await self._leave_well()
        elif how < 0.7:
            # Its network goes first: what the node writes is read by nobody.
            self.wire.deafen()  # type: ignore[union-attr]
            await asyncio.sleep(self.rng.uniform(0.05, 0.6))

    async def _leave_well(self) -> None:
        assert self.wire is not None
        if self.rng.random() < 0.7:
            self._acknowledge()
        self.wire.close()
        try:
            # To its node a seed client's close frame says that it has read everything: it has to do so.
            async with asyncio.timeout(2.0 if self.kind != "seed" else PATIENCE_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            pass

    def deafen(self) -> Wire | None:
        """Read nothing more on this connection; gives it.

        None if there is none, or it is being closed: a close frame says that its client reads to the end.
        """
        wire = self.wire
        if wire is None or wire.closing or self.pinned is not None:
            return None
        wire.deafen()
        return wire

    def reconnect(self) -> None:
        """Drop the connection, and come back on a new channel."""
        if self.wire is not None:
            self.wire.abort()

    # sending

    def say(self, to: list[str] | None, group: bool = False) -> str:
        """Send a message: to these, or (None) to the desk. Gives its key."""
        key = self._next_key()
        recipients = frozenset(to) if to is not None else self.world.agents
        message = Message(key, self.user, self.name, recipients, desk=to is None)
        frame: dict[str, Any] = {"clientMsgId": key, "msg": message.text, **extras_for(self, True)}
        message.extras = extras_of(frame)
        if group:
            frame["group"] = to
        elif to is not None:
            frame["to"] = to[0]
        return self._send(message, frame)

    def do(self, kind: str, **fields: Any) -> str:
        """Send a message to a room, or a change of this kind. Gives its key."""
        key = self._next_key()
        message = Message(key, self.user, self.name, kind=kind)
        frame = {"clientMsgId": key, **fields}
        if kind != "message":
            frame["type"] = kind
        if message.text:
            frame |= {"msg": message.text, **extras_for(self, kind == "message")}
            message.extras = extras_of(frame)
        message.frame = frame
        return self._send(message, frame)

    def give_up(self, key: str) -> None:
        """Send it no more, whatever became of it."""
        entry = self._unanswered.pop(key, None)
        if entry is not None:
            entry[0].given_up = True

    def _next_key(self) -> str:
        self.number += 1
        return f"{self.name}-{self.number - 1}"

    def _send(self, message: Message, frame: dict[str, Any]) -> str:
        self.world.history.messages[message.key] = message
        self._unanswered[message.key] = (message, frame)
        if self.live:
            self._write(message.key)
        return message.key

    def _write(self, key: str) -> None:
        entry = self._unanswered.get(key)
        if entry is not None and self.wire is not None and self.connection is not None:
            self.connection.events.append(Send(time.monotonic(), key))
            self.wire.send(entry[1])

    def _acknowledge(self) -> None:
        if self.kind != "seed" and self.seq > self._acked and self.live and self.wire is not None:
            self._acked = self.seq
            frame: dict[str, Any] = {"type": "ack", "seq": self.seq}
            if self.kind == "own":
                frame["epoch"] = self.epoch
            self.wire.send(frame)

    # receiving

    def _frame(self, frame: dict[str, Any]) -> None:
        connection = self.connection
        self._heard_at = now = time.monotonic()
        if connection is None:
            return
        kind = frame.get("type")
        if kind is None:
            self._got(connection, now, frame)
        elif kind == "accepted":
            self._accepted(connection, now, frame)
        elif kind == "error":
            self._error(connection, now, frame)
        elif kind == "connected":
            self._log_in_done(connection, now, frame)
        elif kind == "reset":
            connection.events.append(Reset(now, frame["epoch"], frame["seq"]))
            self.epoch, self.seq = frame["epoch"], frame["seq"]
            self._acked = self.seq
        elif kind == "state":
            self.marking.got(connection, now, frame)
        else:
            self._questions.answered(frame)

    def _accepted(self, connection: Connection, now: float, frame: dict[str, Any]) -> None:
        key = frame["clientMsgId"]
        message, _ = self._unanswered.pop(key, (None, None))
        if "id" in frame:
            room, version = frame.get("room", ""), frame.get("version", 0)
            answer = Answer(now, key, frame["id"], frame["sendTime"], "", room, version)
        else:
            answer = Answer(now, key, code=UNCHANGED)
        connection.events.append(answer)
        if message is not None and answer.message_id:
            self.world.accepted(message, answer)

    def _got(self, connection: Connection, now: float, frame: dict[str, Any]) -> None:
        key = frame.get("clientMsgId", "")
        connection.events.append(got_of(now, frame))
        self.seq = frame["seq"]
        if frame["userId"] != self.user and frame.get("kind", "message") == "message":
            self.heard.append(frame["id"])
            self.marking.heard(frame)
        if key not in self.seen:
            self.seen.add(key)
            self.world.arrived(self, key, now)
        if self.seq - self._acked >= ACK_EVERY:
            self._acknowledge()

    def _error(self, connection: Connection, now: float, frame: dict[str, Any]) -> None:
        key = frame.get("clientMsgId")
        if "ref" in frame:
            if not self.marking.refused(now, frame):
                self._questions.answered(frame)
        elif key is not None:
            connection.events.append(Answer(now, key, code=frame["code"]))
            message, _ = self._unanswered.get(key, (None, None))
            if message is not None and message.kind and frame["code"] not in TEMPORARY:
                del self._unanswered[key]
                self.world.refused(message)
                return
            # As the node asks, and not all at once.
            delay = min(MAX_RESEND_SECONDS, frame.get("retryAfterMs", 200) / 1000)
            self._again.append((now + delay * self.rng.uniform(0.5, 1), key))

    def _log_in_done(self, connection: Connection, now: float, frame: dict[str, Any]) -> None:
        if self.role == "visitor":
            self._token = frame["visitorToken"]
            if self.user != frame["userId"]:
                self.world.visitor_named(self, frame["userId"])
                self.user = connection.user = frame["userId"]
        connection.epoch, connection.seq = frame["epoch"], frame["seq"]
        connection.recovered, connection.connected_at = frame["recovered"], now
        self.epoch, self.seq = frame["epoch"], frame["seq"]
        self._acked = self.seq
        assert self._connected is not None
        if not self._connected.done():
            self._connected.set_result(None)

    def _closed(self) -> None:
        self._ended.set()
        if self.wire is not None and self.wire.close_code == 4001:
            # Redis has forgotten the visitor: it comes back as another one.
            self._token = None
            self._unanswered.clear()
            self.epoch = ""
        if self._connected is not None and not self._connected.done():
            self._connected.set_exception(ConnectionError("closed before it was connected"))
            self._connected.exception()
        self._questions.closed()

    async def ask(self, frame: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question. Raises ConnectionError, also for an error, and TimeoutError."""
        if not self.live or self.wire is None:
            raise ConnectionError("not connected")
        return await self._questions.ask(frame, self.wire.send)
