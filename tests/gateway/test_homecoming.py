"""Users come home: real nodes of both routings, HAProxy and sync, and the project's own clients."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from imd.client.asyncio import Client
from imd.client.events import Connected, Leaving
from tests.gateway.support import until
from tests.gateway.test_homes import JWT, HomeCase, ranked
from tests.gateway.test_membership import GATEWAY
from tests.support.servers import HOST, free_port

# A node that would move somebody once more does so within this time.
HOLD_SECONDS = 4.0


class Clients:
    """Clients on a thread of their own, as the tests block. `close` stops them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._all: list[Client] = []

    def start(self, place: Callable[[], str], token: str, **options: Any) -> Visits:
        return asyncio.run_coroutine_threadsafe(self._start(place, token, options), self._loop).result(60)

    async def _start(self, place: Callable[[], str], token: str, options: dict[str, Any]) -> Visits:
        client = Client(place, token=lambda: token, min_backoff=0.2, max_backoff=0.5, **options)
        self._all.append(client)
        visits = Visits(client)
        client.start()
        await client.connected()
        return visits

    def close(self) -> None:
        async def stop() -> None:
            await asyncio.gather(*(client.stop() for client in self._all))

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


class Visits:
    """How often a client has connected, and has been told to go."""

    def __init__(self, client: Client) -> None:
        self.connects = self.farewells = 0
        client.on(Connected, lambda _: self._count(connects=1))
        client.on(Leaving, lambda _: self._count(farewells=1))

    def _count(self, connects: int = 0, farewells: int = 0) -> None:
        self.connects += connects
        self.farewells += farewells

    @property
    def counts(self) -> tuple[int, int]:
        return self.connects, self.farewells


class HomecomingTests(HomeCase):
    def test_homecoming(self) -> None:
        """A killed node's users, both devices of each, are back when it is. Strays are moved once, and stay;
        clients without a hint, and those of a node that searches, are never moved."""
        here, searching, dying = nodes = [
            self.start({**JWT, **routing}) for routing in (GATEWAY, {}, GATEWAY)
        ]
        names = [node.name for node in nodes]
        proxy = self.gateway(nodes)
        clients = Clients()
        self.addCleanup(clients.close)
        # While this is the place, nobody gets anywhere: HAProxy spreads the first ones by hash.
        nowhere = f"ws://{HOST}:{free_port()}/ws"
        closed = threading.Event()
        numbers = itertools.count()

        def through_haproxy() -> str:
            return nowhere if closed.is_set() else f"ws://{HOST}:{proxy.port}/ws"

        def user(*places: str) -> str:
            """Somebody new whose homes are these, in this order."""
            names_drawn = (f"user {number}" for number in numbers)
            return next(name for name in names_drawn if ranked(name, names)[: len(places)] == list(places))

        def come(name: str, place: Callable[[], str] = through_haproxy, **options: Any) -> Visits:
            return clients.start(place, self.token(name), **options)

        couples = [
            [come(name, device=device) for device in ("phone", "desk")]
            for name in (user(dying.name, here.name) for _ in range(2))
        ]
        neighbour = come(user(here.name))
        of_the_searching = come(user(dying.name, searching.name))
        # Without the dying node the first of them would be at home: a slow restart moves nobody.
        strangers = user(dying.name, here.name), user(searching.name)
        astray = [come(stranger, lambda: here.url) for stranger in strangers]
        hintless = come(user(dying.name), lambda: here.url, hint=False)
        astray_at_the_searching = come(user(here.name), lambda: searching.url)
        self.assertEqual([node.metric("imd_connections") for node in nodes], [4, 1, 5])
        until(lambda: here.metric("imd_away_from_home") == 2, "it knows the homes of all")

        closed.set()
        dying.kill()
        until(lambda: proxy.states().get(dying.name) != "up", "HAProxy sees that it is gone")
        closed.clear()
        until(lambda: here.metric("imd_connections") == 8, "its users are at their second choice")
        until(lambda: searching.metric("imd_connections") == 2, "and one is at the node that searches")
        dying.start()

        until(lambda: dying.metric("imd_connections") == 4, "they are back")
        until(lambda: here.metric("imd_moved_total") == 6, "the strays were moved, too")
        until(lambda: here.metric("imd_connections") == 4, "and came back")
        end = time.monotonic() + HOLD_SECONDS
        while time.monotonic() < end:
            self.assertEqual([visits.counts for couple in couples for visits in couple], [(3, 1)] * 4)
            self.assertEqual([visits.counts for visits in astray], [(2, 1)] * 2)
            self.assertEqual(of_the_searching.counts, (2, 0))
            for unmoved in (neighbour, hintless, astray_at_the_searching):
                self.assertEqual(unmoved.counts, (1, 0))
            time.sleep(0.2)
        self.assertEqual([node.metric("imd_connections") for node in nodes], [4, 2, 4])
        self.assertEqual([node.metric("imd_away_from_home") for node in nodes], [2, 0, 0])
        self.assertEqual([node.metric("imd_moved_total") for node in nodes], [6, 0, 0])
