"""Shared by the rules: nodes of several kinds, clients that are closed when the test is over, waiting."""

from __future__ import annotations

import atexit
import itertools
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.defer import TimeoutError
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.support.group_end import at_group_end
from tests.support.nodes import Ini, NodeServer
from tests.support.servers.process import pauses
from tests.support.ws_client import WAIT_SECONDS, WsClient

if TYPE_CHECKING:
    Base = unittest.TestCase
else:
    Base = object

JWT_SECRET = "a secret of the tests, 32 bytes or more"
LEEWAY_SECONDS = 5
"""of the node whose tokens are read: [auth] leeway_seconds"""

KINDS: dict[str, Ini] = {
    "plain": {},
    "small": {
        # No less: on a busy machine a client that is well may need seconds.
        "websocket": {"connect_seconds": 4, "ping_seconds": 1, "pong_seconds": 4},
        "limits": {
            "message_bytes": 256,
            "group_members": 5,
            "ack_window": 8,
            "devices": 3,
            "connections_per_user": 5,
            "messages_per_second": 0,
        },
        "inbox": {"max_messages": 20},
        "messages": {"edit_seconds": 2, "recall_seconds": 2},
    },
    "rate": {
        "limits": {"messages_per_second": 2, "burst": 5},
        "auth": {"visitors": "no"},
        "inbox": {"dedup_seconds": 2},
    },
    "flow": {
        "limits": {"messages_per_second": 0, "ack_window": 100},
        # A reader that stands still answers no pings, for as long as the messages to it take.
        "websocket": {"ping_seconds": 3600, "pong_seconds": 3600},
    },
    "jwt": {"auth": {"mode": "jwt", "secret": JWT_SECRET, "leeway_seconds": LEEWAY_SECONDS}},
    # A long grace period: visitors of a test that has ended are not given to the agents of later tests.
    "desk": {"desk": {"grace_seconds": 3600}},
    "grace": {
        "desk": {"grace_seconds": 1},
        "inbox": {"reconcile_seconds": 1, "unopened_messages": 3},
        "limits": {"new_ids": 2},
        "messages": {"edit_seconds": 0, "recall_seconds": -1},
    },
}


def new_folder() -> Path:
    """A folder that goes when this process does."""
    folder = Path(tempfile.mkdtemp(prefix="imd-nodes-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def started(node: NodeServer) -> NodeServer:
    """Start a node that is to live as long as the group of tests."""
    at_group_end(node.kill)
    node.start()
    return node


async def pause(seconds: float) -> None:
    await deferLater(reactor, seconds)


def record_raw(client: WsClient) -> list[bytes]:
    """The payloads that come from now on, byte for byte."""
    raw: list[bytes] = []
    on_message = client.protocol.onMessage

    def record(payload: bytes, is_binary: bool) -> None:
        raw.append(payload)
        on_message(payload, is_binary)

    client.protocol.onMessage = record
    return raw


def record_pings(client: WsClient) -> list[bytes]:
    """The payloads of the node's pings from now on."""
    pings: list[bytes] = []
    on_ping = client.protocol.onPing

    def record(payload: bytes) -> None:
        pings.append(payload)
        on_ping(payload)

    client.protocol.onPing = record
    return pings


class Rules(Base):
    """The ground of all rule classes; a subclass says which nodes there are."""

    timeout = 300
    _turns = itertools.count()
    _names = itertools.count(1)

    def nodes(self, kind: str) -> list[NodeServer]:
        """The running nodes of a kind (a key of KINDS), one or more that make one system."""
        raise NotImplementedError

    def spare_node(self) -> NodeServer:
        """One more node of the kind `plain`, not started; whoever starts it ends it."""
        raise NotImplementedError

    def url(self, kind: str = "plain") -> str:
        """The nodes of a kind in turn."""
        nodes = self.nodes(kind)
        return nodes[next(self._turns) % len(nodes)].url

    def name(self, stem: str) -> str:
        """A user id that nobody has had."""
        return f"{stem}-{next(self._names)}-{secrets.token_hex(3)}"

    async def open(self, url: str | None = None, **options: Any) -> WsClient:
        """An open WebSocket, closed when the test is over."""
        client = await WsClient.open(url or self.url(), **options)
        self.addCleanup(self.end, client)
        return client

    async def login(
        self, user: str | None = None, kind: str = "plain", url: str | None = None, **fields: Any
    ) -> WsClient:
        """A connected client, closed when the test is over. Fields that are None are left out."""
        client = await self.open(url or self.url(kind))
        frame = {"isConnect": True, "loginType": "USER_TYPE", "userId": user, **fields}
        client.send({key: value for key, value in frame.items() if value is not None})
        client.connected = await client.expect("connected")
        client.acks = bool(fields.get("ack"))
        return client

    async def visitor(self, kind: str = "desk", **fields: Any) -> WsClient:
        return await self.login(None, kind, loginType=None, isVisitor=True, **fields)

    async def agent(self, name: str, kind: str = "desk", **fields: Any) -> WsClient:
        # Cleanups run backwards: this one behind the client's end.
        self.addCleanup(self.nobody_online, kind)
        return await self.login(name, kind, isCustomerService=True, **fields)

    async def nobody_online(self, kind: str) -> None:
        """The next test's visitors find no agent of this one: a node that answers has told its stores of
        clients whose end was seen."""
        for node in self.nodes(kind):
            await deferToThread(node.http, "healthz")

    async def end(self, client: WsClient) -> None:
        if not client.closed:
            client.protocol.sendClose(1000)
            try:
                await client.wait_closed(5)
            except TimeoutError:
                client.abort()
                await client.wait_closed()
        # Autobahn forgets this timer when the other side closes at the same moment.
        timer = client.protocol.closeHandshakeTimeoutCall
        if timer is not None:
            timer.cancel()

    async def dropped(self, client: WsClient) -> None:
        """Drop the connection without a word, and see it gone."""
        client.abort()
        await client.wait_closed()

    async def eventually(self, probe: Callable[[], Awaitable[Any]], seconds: float = WAIT_SECONDS) -> Any:
        """Return `probe`'s first true value. Fails after `seconds`."""
        end, turns = reactor.seconds() + seconds, pauses()
        while True:
            result = await probe()
            if result:
                return result
            if reactor.seconds() > end:
                self.fail(f"not within {seconds:g} s; the last answer was {result!r}")
            await pause(next(turns))

    async def refusal(self, client: WsClient, frame: Any) -> dict[str, Any]:
        """Send a frame; the error that answers it."""
        client.send(frame)
        return await client.expect("error")

    async def history(self, client: WsClient, **query: Any) -> dict[str, Any]:
        client.send({"type": "history", **query})
        return await client.take("history")

    async def archived(self, client: WsClient, count: int, **query: Any) -> list[dict[str, Any]]:
        """The messages of a history page once there are `count` of them in the archive."""

        async def page() -> list[dict[str, Any]] | None:
            messages = (await self.history(client, **query))["messages"]
            return messages if len(messages) >= count else None

        found: list[dict[str, Any]] = await self.eventually(page)
        self.assertEqual(len(found), count)
        return found

    def assert_seqs(self, messages: list[dict[str, Any]], first: int) -> None:
        """Numbers that rise by exactly 1 from `first` on."""
        expected = list(range(first, first + len(messages)))
        self.assertEqual([message["seq"] for message in messages], expected)
