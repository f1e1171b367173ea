"""Rows, tables and waiting, for the gateway's tests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from imd.gateway.nodes import Row
from tests.support.servers import free_port
from tests.support.servers.process import pauses
from tests.tools.drill.proxy import Proxy


def row(name: str = "n1", port: int = 9000, http_port: int = 8080, **others: object) -> Row:
    """A row of a node on loopback."""
    fields = {
        "name": name,
        "bus": f"{name}.1",
        "websocket": f"127.0.0.1:{port}",
        "tls": False,
        "proxy": False,
        "http": f"127.0.0.1:{http_port}",
        "version": "1.2.3",
        "started": 1_700_000_000_000,
        "connections": 3,
        "draining": False,
    }
    return Row(**{**fields, **others})  # type: ignore[arg-type]


def until(condition: Callable[[], object], what: str, seconds: float = 180.0) -> None:
    """Block until `condition` is true; fails the test when it still is not after `seconds`."""
    end, pause = time.monotonic() + seconds, pauses()
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(next(pause))


class ProxyThread:
    """A Proxy between nodes and one backend, for tests that block: it has an event loop of its own."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._proxy = Proxy(self.port, target)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.start(), self._loop).result(60)

    def cut(self) -> None:
        self._call(self._proxy.cut)

    def swallow(self) -> None:
        self._call(self._proxy.swallow)

    def mend(self) -> None:
        self._call(self._proxy.mend)

    def end(self) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def _call(self, function: Callable[[], None]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (function(), done.set()))
        assert done.wait(60)
