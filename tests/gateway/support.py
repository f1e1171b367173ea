"""Rows, tables and waiting, for the gateway's tests."""

from __future__ import annotations

import time
from collections.abc import Callable

from imd.gateway.nodes import Row


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


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Block until `condition` is true; fails the test when it still is not after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)
