"""Telling clients to go to another node, without a storm there."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from imd.protocol.errors import CLOSE_LEAVING
from imd.wire.handler import Handler

# Clients come back spread over time: two milliseconds for each, five seconds at most.
SPREAD_MS_PER_CLIENT = 2
MAX_SPREAD_MS = 5000
LOOK_SECONDS = 0.5
REASON = "the node is leaving"


def say_goodbye(clients: Collection[Any]) -> None:
    """Tell each of these WebSockets to go. Each closes when its messages are answered."""
    tell_to_go([client.handler for client in clients if client.handler is not None], REASON)
    for client in clients:
        if client.handler is None:
            client.close(CLOSE_LEAVING, REASON)


def tell_to_go(handlers: Collection[Handler], why: str) -> None:
    """Tell these to come back elsewhere, spread over time. Each closes when its messages are answered."""
    spread = min(MAX_SPREAD_MS, SPREAD_MS_PER_CLIENT * len(handlers))
    for handler in handlers:
        handler.leaving(random.randint(0, spread), why)


def send_away(clock: Any, seconds: float, clients: Collection[Any], reason: str) -> None:
    """Tell these clients to connect anew, here or elsewhere; close one that is there after `seconds`."""
    told = list(clients)
    say_goodbye(told)

    def close() -> None:
        for client in told:
            if client in clients:
                (client.handler or client).close(CLOSE_LEAVING, reason)

    if told:
        clock.callLater(seconds, close)


class Goodbye:
    """Empties a node that goes on running, and keeps it empty."""

    log = Logger()

    def __init__(self, clock: Any, seconds: float, clients: Callable[[], Collection[Any]]) -> None:
        """`clock` is a reactor. A client that is still there after `seconds` is dropped."""
        self._clock = clock
        self._seconds = seconds
        self._clients = clients
        self._told: dict[Any, float] = {}
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        if not self._loop.running:
            self._loop.start(LOOK_SECONDS, now=True).addErrback(
                lambda failure: self.log.failure("clients are not told to go any more", failure)
            )

    def stop(self) -> None:
        """The clients that were told go all the same."""
        if self._loop.running:
            self._loop.stop()
        self._told.clear()

    def _look(self) -> None:
        """Handshakes that were under way when the port closed open their WebSockets later: look again."""
        now = self._clock.seconds()
        there = list(self._clients())
        self._told = {client: self._told.get(client, now) for client in there}
        say_goodbye([client for client in there if self._told[client] == now])
        for client, since in self._told.items():
            if now - since >= self._seconds:
                client.transport.abortConnection()
