"""Draining and back: the order, the times, and wishes that come again or change."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.config.settings import Node, Settings
from imd.node.draining import AGAIN_SECONDS, Draining
from imd.node.goodbye import LOOK_SECONDS, MAX_SPREAD_MS, SPREAD_MS_PER_CLIENT, say_goodbye
from imd.protocol.errors import CLOSE_LEAVING, ConfigurationError

DRAIN_SECONDS, STOP_SECONDS = 3.0, 8.0
DRAINED = ["draining", "unguarded", "closed"]


class Client:
    """An open WebSocket; it goes when it is told, unless it `stays`."""

    def __init__(self, case: DrainingTests, stays: bool = False, has_handler: bool = True) -> None:
        self.handler = self if has_handler else None
        self.transport = self
        self.waits: list[int] = []
        self.aborted = False
        self.code: int | None = None
        self._case = case
        self._stays = stays

    def leaving(self, reconnect_ms: int, why: str) -> None:
        self._case.steps.append("told")
        self.waits.append(reconnect_ms)
        if not self._stays:
            self._case.clients.discard(self)

    def close(self, code: int, reason: str) -> None:
        self.code = code
        self._case.clients.discard(self)

    def abortConnection(self) -> None:
        self.aborted = True
        self._case.clients.discard(self)


class DrainingTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.steps: list[str] = []
        self.clients: set[Any] = set()
        self.closes: Any = lambda: succeed(None)
        self.problem: Exception | None = None
        self.ports: Any = SimpleNamespace(websocket=self.port())
        membership: Any = SimpleNamespace(drains=self.drains)
        gate: Any = SimpleNamespace(unguard=lambda: self.steps.append("unguarded"))
        self.draining = self.make(DRAIN_SECONDS, membership, gate)

    def make(self, seconds: float, membership: Any, gate: Any) -> Draining:
        settings = Settings(node=Node(drain_seconds=seconds, stop_seconds=STOP_SECONDS))
        return Draining(self.clock, settings, membership, gate, self.ports, self.listen, lambda: self.clients)

    def port(self) -> Any:
        return SimpleNamespace(stopListening=self.stop_listening)

    def drains(self, draining: bool) -> None:
        """Said again at the end, which is no step of its own."""
        step = "draining" if draining else "serving"
        if self.states[-1:] != [step]:
            self.steps.append(step)

    @property
    def states(self) -> list[str]:
        return [step for step in self.steps if step in ("draining", "serving")]

    def stop_listening(self) -> Deferred[None]:
        self.steps.append("closed")
        closed: Deferred[None] = self.closes()
        return closed

    async def listen(self) -> None:
        if self.problem is not None:
            raise self.problem
        self.steps.append("listening")
        self.ports.websocket = self.port()

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.25] * int(seconds / 0.25))

    def drained(self) -> None:
        """Drain the node, and forget the steps."""
        self.draining.begin()
        self.draining.want(True)
        self.advance(DRAIN_SECONDS)
        self.steps.clear()

    def test_order(self) -> None:
        """Others are told, then newcomers are still served, then the port closes, then clients are told."""
        self.clients = {Client(self), Client(self)}
        self.draining.begin()
        self.assertEqual(self.steps, [])
        for _ in range(2):
            self.draining.want(True)
        self.advance(DRAIN_SECONDS - 0.25)
        self.assertEqual(self.steps, ["draining"])
        self.advance(0.25)
        self.assertEqual(self.steps, [*DRAINED, "told", "told"])
        self.assertIsNone(self.ports.websocket)
        self.draining.want(True)
        self.advance(60)
        self.assertEqual(self.steps, [*DRAINED, "told", "told"])

    def test_late_clients(self) -> None:
        """A handshake that was under way ends in a client that is told, too; one that stays is dropped."""
        self.drained()
        late, opening = Client(self, stays=True), Client(self, has_handler=False)
        self.clients |= {late, opening}
        self.advance(LOOK_SECONDS)
        self.assertEqual((len(late.waits), late.aborted, opening.code), (1, False, CLOSE_LEAVING))
        self.advance(STOP_SECONDS)
        self.assertEqual((len(late.waits), late.aborted), (1, True))

    def test_undo(self) -> None:
        """The node listens first, and is announced then. Clients that come are left alone."""
        self.drained()
        for _ in range(2):
            self.draining.want(False)
        self.assertEqual(self.steps, ["listening", "serving"])
        self.clients.add(Client(self))
        self.advance(60)
        self.assertEqual(self.steps, ["listening", "serving"])
        self.draining.want(True)
        self.advance(DRAIN_SECONDS)
        self.assertEqual(self.steps, ["listening", "serving", *DRAINED, "told"])

    def test_undo_in_between(self) -> None:
        """The port has not been closed, and nobody was told."""
        self.clients.add(Client(self))
        self.draining.begin()
        self.draining.want(True)
        self.advance(DRAIN_SECONDS / 2)
        self.draining.want(False)
        self.advance(60)
        self.assertEqual(self.steps, ["draining", "serving"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_undo_while_the_port_closes(self) -> None:
        """It is opened again after it is closed: before that its address is in use."""
        closed: Deferred[None] = Deferred()
        self.closes = lambda: closed
        self.drained()
        self.draining.want(False)
        self.assertEqual(self.steps, [])
        closed.callback(None)
        self.assertEqual(self.steps, ["listening", "serving"])

    def test_a_port_that_cannot_be_opened(self) -> None:
        """The node goes on draining, and tries again until it can."""
        self.drained()
        self.problem = ConfigurationError("listen = tcp:9000: in use")
        self.draining.want(False)
        self.advance(AGAIN_SECONDS)
        self.assertEqual(self.steps, [])
        self.problem = None
        self.advance(AGAIN_SECONDS)
        self.assertEqual(self.steps, ["listening", "serving"])

    def test_a_wish_before_the_start(self) -> None:
        """It is followed when the node has started; one that was taken back is not."""
        self.draining.want(True)
        self.assertEqual(self.steps, [])
        self.draining.want(False)
        self.draining.begin()
        self.assertEqual(self.steps, [])
        self.draining.want(True)
        self.assertEqual(self.steps, ["draining"])

    def test_stop(self) -> None:
        """It is the same order, and nothing is undone. The stop itself tells the clients."""
        self.clients.add(Client(self))
        self.draining.begin()
        ended = self.draining.end()
        self.draining.want(False)
        self.advance(DRAIN_SECONDS - 0.25)
        self.assertNoResult(ended)
        self.advance(0.25)
        self.successResultOf(ended)
        self.draining.want(False)
        self.assertEqual(self.steps, DRAINED)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_while_draining(self) -> None:
        """The time that has passed counts; a node that is drained ends at once."""
        self.draining.begin()
        self.draining.want(True)
        self.advance(DRAIN_SECONDS - 1)
        ended = self.draining.end()
        self.advance(1)
        self.successResultOf(ended)
        self.successResultOf(self.draining.end())
        self.assertEqual(self.steps, DRAINED)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_before_the_start(self) -> None:
        """There is no port, and nothing to wait for."""
        self.ports.websocket = None
        self.successResultOf(self.draining.end())
        self.assertEqual(self.steps, ["draining"])

    def test_spread(self) -> None:
        """Clients come back over a time that grows with their number, up to a bound."""
        for count in (500, 5000):
            clients = [Client(self) for _ in range(count)]
            say_goodbye(clients)
            waits = [client.waits[0] for client in clients]
            bound = min(MAX_SPREAD_MS, SPREAD_MS_PER_CLIENT * count)
            self.assertLessEqual(max(waits), bound)
            self.assertGreater(max(waits) - min(waits), bound / 2)
