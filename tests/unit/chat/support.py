"""A connection with doubles for its WebSocket and the backends; only a test moves the clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jwt
from twisted.internet.task import Clock, LoopingCall
from twisted.trial import unittest

from imd.chat.accept import Acceptor
from imd.chat.asks import Asks
from imd.chat.changes import Changes
from imd.chat.connection import Connection
from imd.chat.history import Historian
from imd.chat.live import Live
from imd.chat.presence import Presence
from imd.chat.readers import Readers
from imd.chat.room_changes import RoomChanges
from imd.chat.router import Router
from imd.chat.services import Services
from imd.chat.session import Session
from imd.chat.sightings import Sightings
from imd.chat.signals import SIGNAL, TYPING, Signals
from imd.chat.state_feed import Feeds
from imd.chat.talks import TalkList
from imd.chat.targets import Targets
from imd.chat.typing import TypingPace
from imd.config.settings import Auth, Limits, Messages, Settings
from imd.contracts.archive import ArchiveRecord
from imd.contracts.inbox import Leave
from imd.entry.admission import Door
from imd.entry.auth import Authenticator
from imd.entry.gate import Gate
from imd.entry.newcomers import Newcomers
from imd.entry.replacing import Replacing
from imd.protocol.errors import Unavailable
from imd.protocol.ids import MessageIds, ServerClock
from tests.support.doubles import (
    AimsDouble,
    ArchiveDouble,
    BlocksDouble,
    InboxDouble,
    QueueDouble,
    RoomsDouble,
    StatesDouble,
    WireDouble,
)

START = 1_764_000_000
SECRET = "a secret of more than 32 bytes, for tests"


class Client:
    """A connection and its wire."""

    def __init__(self, services: Services, bearer: str | None = None) -> None:
        self.wire = WireDouble()
        self.connection = Connection(services, self.wire, self.wire, bearer)

    def send(self, **frame: Any) -> None:
        """Send a frame; the name `with_` stands for `with`."""
        fields = {name.rstrip("_"): value for name, value in frame.items()}
        self.connection.frame_received(json.dumps(fields).encode())

    def connect(self, user: str = "alice", **fields: Any) -> None:
        self.send(isConnect=True, userId=user, **{"loginType": "user", "ack": True, **fields})

    @property
    def closed(self) -> int | None:
        return self.wire.closed[0] if self.wire.closed is not None else None

    def take(self) -> list[dict[str, Any]]:
        """The frames that came since the last time."""
        came = self.wire.frames
        self.wire.payloads.clear()
        return came

    def brief(self) -> list[tuple[Any, ...]]:
        """The same in short: kind, clientMsgId or number, code of an error."""
        return [
            (frame.get("type", "message"), frame.get("clientMsgId", frame.get("seq")), frame.get("code"))
            for frame in self.take()
        ]


class ConnectionTestCase(unittest.TestCase):
    limits = Limits()
    auth = Auth()

    def setUp(self) -> None:
        self.clock = Clock()
        self.inbox = InboxDouble()
        self.queue = QueueDouble()
        self.archive = ArchiveDouble()
        self.rooms = RoomsDouble()
        self.aims = AimsDouble()
        typing = TypingPace(self.clock.seconds)
        self.states = StatesDouble()
        feeds = Feeds(self.states, self.clock.callLater)
        self.states.listen(feeds.changed)
        self.live = Live(feeds.opened)
        self.live.when_ended(typing.ended, feeds.ended)
        self.blocks = BlocksDouble()
        self.sessions: dict[str, Session] = {}
        self.soon: list[Callable[[], None]] = []
        self.leaves: list[Leave] = []
        self.desk_changes = 0
        self.handed_over: list[ArchiveRecord] = []
        clock = ServerClock(self.unix_seconds, self.clock.seconds)
        ids = MessageIds(clock)
        router = Router(self.sessions, None, self.clock.seconds, self.clock.callLater)
        authenticator = Authenticator(self.auth, self.unix_seconds)
        newcomers = Newcomers(self.limits.visitors_per_address, self.clock.seconds, lambda draw: draw())
        readers = Readers(self.inbox, self.rooms, self.states)
        historian = Historian(self.archive, readers, self.archive.complete)
        self.services = Services(
            settings=Settings(limits=self.limits, auth=self.auth),
            clock=clock,
            ids=ids,
            inbox=self.inbox,
            acceptor=Acceptor(
                self.inbox, self.queue, router.deliver, clock, self.soon.append, self.handed_over.extend
            ),
            router=router,
            historian=historian,
            changes=Changes(
                self.inbox,
                self.queue,
                self.archive,
                self.rooms,
                Targets(self.archive, self.soon.append),
                historian,
                clock,
                ids,
                self.messages,
            ),
            authenticator=authenticator,
            door=Door(self.auth, authenticator, newcomers),
            gate=Gate(self.clock.seconds, self.clock.callLater),
            replacing=Replacing(self.clock.seconds),
            sessions=self.sessions,
            call_later=self.clock.callLater,
            unix_seconds=self.unix_seconds,
            leave=self.leave,
            desk_changed=self.desk_changed,
            rooms=self.rooms,
            room_changes=RoomChanges(self.rooms, self.inbox, self.queue, ids.next),
            level=lambda: self.level,
            live=self.live,
            blocks=self.blocks,
            asks=Asks(self.clock.callLater),
            aims=self.aims,
            signals=self.make_signals(router),
            typing=typing,
            states=self.states,
            feeds=feeds,
            presence=self.make_presence(),
            talks=TalkList(self.archive.talks, self.rooms, self.states),
        )

    def make_signals(self, router: Router) -> Signals:
        signals = Signals(router, None, self.clock.callLater)
        for kind in (TYPING, SIGNAL):
            signals.take(kind, self.live.send_all)
        return signals

    def make_presence(self) -> Presence:
        self.sightings = Sightings(self.clock, self.aims, lambda: self.bus_problem, "")
        presence = Presence(self.clock, self.sightings, self.aims, self.live.send, self.visible)
        self.live.when_ended(presence.ended)
        return presence

    bus_problem: str | None = None
    visible = "staff"
    messages = Messages()
    level = 2

    set_by = 0.0
    """seconds by which somebody has set the wall clock"""

    def unix_seconds(self) -> float:
        return START + self.clock.seconds() + self.set_by

    def leave(self, leave: Leave) -> None:
        self.leaves.append(leave)
        self.inbox.leave(leave).addErrback(lambda failure: failure.trap(Unavailable))

    def desk_changed(self) -> None:
        self.desk_changes += 1

    def timers(self) -> list[Any]:
        """The calls that are to come, but for the ticks of the node."""
        return [call for call in self.clock.getDelayedCalls() if not isinstance(call.func, LoopingCall)]

    def settle(self) -> None:
        """Everything that was asked is done and answered."""
        for _ in range(100):
            soon, self.soon[:] = list(self.soon), []
            for call in soon:
                call()
            self.inbox.settle()
            waiting = [confirmed for _, confirmed in self.queue.published if not confirmed.called]
            for confirmed in waiting:
                confirmed.callback(None)
            if not waiting and not self.soon:
                return
        raise AssertionError("it never comes to rest")

    def connected(self, user: str = "alice", **fields: Any) -> Client:
        """A client that is connected, and has read its first frames."""
        client = Client(self.services)
        client.connect(user, **fields)
        self.inbox.settle()
        self.assertEqual(client.take()[0]["type"], "connected")
        return client

    def assert_error(self, client: Client, code: str, client_msg_id: str | None = None) -> None:
        """The client has got this error, and nothing else."""
        self.assertEqual(client.brief(), [("error", client_msg_id, code)])


class TokenTestCase(ConnectionTestCase):
    auth = Auth(mode="jwt", secret=SECRET, leeway_seconds=5.0)

    def token(self, seconds: float, **claims: Any) -> str:
        """A token that expires so many seconds from now."""
        exp = self.unix_seconds() + seconds
        claims = {"sub": "alice", "loginType": "USER_TYPE", "exp": exp, **claims}
        return jwt.encode(claims, SECRET, algorithm="HS256")

    def with_token(self, seconds: float, **claims: Any) -> Client:
        client = Client(self.services)
        client.send(isConnect=True, token=self.token(seconds, **claims))
        self.inbox.settle()
        return client
