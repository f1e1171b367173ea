"""The ordered stop: its steps, their deadlines, and a step that fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial import unittest

from imd.node.stop import LEAST_STEP_SECONDS, Stop

SECONDS = 8.0


class Recorder:
    """An object with any method; each call is noted as `name.method`, and answered with `answers[method]`."""

    def __init__(self, name: str, steps: list[str], **answers: Any) -> None:
        self._name, self._steps, self._answers = name, steps, answers

    def __getattr__(self, method: str) -> Any:
        def call(*_: object) -> Any:
            self._steps.append(f"{self._name}.{method}")
            answer = self._answers.get(method, lambda: None)
            return answer()

        return call


class Client:
    """A connection that has logged in, and stays until it is aborted."""

    def __init__(self, steps: list[str]) -> None:
        self.handler = Recorder("client", steps)
        self.transport = Recorder("transport", steps)


class StopTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.steps: list[str] = []
        self.stops: dict[str, Any] = dict.fromkeys(("inbox", "archive"), lambda: succeed(None))
        self.emptied: list[Deferred[None]] = []

    def stop(self, *clients: Any) -> Deferred[None]:
        """Begin a stop with a port, a backend of each kind in `stops`, and these clients."""
        done = dict.fromkeys(("drained", "finished", "end", "leave"), lambda: succeed(None))
        names = ["gate", "upkeep", "readiness", "handed_over", "router", "departures", "acceptor"]
        names += ["membership", "homecoming", "level", "room_sweep", "state_upkeep", "presence", "signals"]
        parts: Any = SimpleNamespace(**{name: Recorder(name, self.steps, **done) for name in names})
        parts.trace_switch = Recorder("trace", self.steps)
        named = {name: Recorder(name, self.steps, stop=stop) for name, stop in self.stops.items()}
        parts.backends = SimpleNamespace(named=lambda: named)
        ports: Any = SimpleNamespace(
            websocket=Recorder("websocket", self.steps), http=Recorder("http", self.steps), control=None
        )
        factory: Any = SimpleNamespace(
            open=set(clients), heartbeat=Recorder("heartbeat", self.steps), emptied=self.next_emptied
        )
        draining: Any = Recorder("draining", self.steps, **done)
        return Deferred.fromCoroutine(Stop(self.clock, SECONDS, parts, ports, draining).run(factory))

    def next_emptied(self) -> Deferred[None]:
        self.emptied.append(Deferred())
        return self.emptied[-1]

    def nobody_left(self) -> None:
        """All connections are gone, as often as the stop asks."""
        for emptied in self.emptied:
            emptied.callback(None)

    def test_order(self) -> None:
        """Clients are told and answered before they are closed; backends end after all that uses them."""
        stopped = self.stop(Client(self.steps))
        self.assertEqual(
            self.steps,
            [
                *("draining.end", "membership.leave"),
                *("client.leaving", "acceptor.drained", "client.close"),
            ],
        )
        self.emptied[0].callback(None)
        self.steps.clear()
        self.emptied[1].callback(None)
        self.assertEqual(self.successResultOf(stopped), None)
        places = [
            self.steps.index(step)
            for step in (
                "handed_over.drained",
                "departures.finished",
                "signals.stop",
                "archive.stop",
                "inbox.stop",
            )
        ]
        self.assertEqual(places, sorted(places))
        self.assertEqual(self.steps[-1], "http.stopListening")

    def test_a_client_that_stays(self) -> None:
        """It is dropped after half of the time."""
        stopped = self.stop(Client(self.steps))
        self.clock.advance(SECONDS / 2 - 0.1)
        self.assertNotIn("transport.abortConnection", self.steps)
        self.clock.advance(0.2)
        self.assertIn("transport.abortConnection", self.steps)
        self.emptied[1].callback(None)
        self.successResultOf(stopped)

    def test_a_backend_that_hangs(self) -> None:
        """It is given up when the time is over, and the next one is stopped all the same."""
        self.stops = {"inbox": lambda: succeed(None), "archive": Deferred, "bus": Deferred}
        stopped = self.stop()
        self.nobody_left()
        self.assertNoResult(stopped)
        self.assertNotIn("archive.stop", self.steps)
        self.clock.advance(SECONDS)
        self.assertIn("archive.stop", self.steps)
        self.assertNotIn("inbox.stop", self.steps)
        self.clock.advance(LEAST_STEP_SECONDS)
        self.assertIn("inbox.stop", self.steps)
        self.successResultOf(stopped)

    def test_a_backend_that_fails(self) -> None:
        """Its error is logged, and the stop goes on."""
        self.stops = {"inbox": lambda: succeed(None), "archive": lambda: fail(RuntimeError("no"))}
        stopped = self.stop()
        self.nobody_left()
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIn("inbox.stop", self.steps)
