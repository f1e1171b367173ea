"""The undocumented parts of Twisted that connections and timers depend on.

There are three. A node writes to a socket at once if no earlier write waits in the transport, which saves
most of a write's cost. It bounds how many connections a listener accepts in one turn of the reactor. It runs
timers on the monotonic clock, as Twisted's follow the wall clock, which may be set.

A new version of Twisted may lose any of these parts: tests/unit/wire/test_twisted_internals.py names the ones
that are gone.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from twisted.internet.tcp import Connection

from imd.wire.proxied import Proxied


def use_monotonic_clock(reactor: Any) -> None:
    """Have timers follow the monotonic clock: a step of the wall clock would freeze or fire all of them."""
    reactor.seconds = time.monotonic


def unwrapped(transport: Any) -> Any:
    """The transport below a `haproxy:` endpoint's wrapper, which does not change what is written."""
    while isinstance(transport, Proxied):
        transport = transport.transport
    return transport


def socket_of(transport: Any) -> socket.socket | None:
    """The socket below all wrappers; None if there is none, as under a transport in memory."""
    while not hasattr(transport, "socket") and hasattr(transport, "transport"):
        transport = transport.transport
    return getattr(transport, "socket", None)


def has_empty_buffers(transport: Any) -> bool:
    """True for an open TCP connection without TLS, with no write waiting, and not about to be closed."""
    # A wrapper such as TLS passes on the attributes of the connection below it, but not its class.
    return isinstance(transport, Connection) and bool(
        getattr(transport, "_tempDataLen", None) == 0
        and not transport.dataBuffer
        and transport.connected
        and not transport.disconnecting
        and not transport.TLS
    )


class Listener:
    """A listening port as the gate sees it."""

    def __init__(self, port: Any) -> None:
        self._port = port

    def shut(self) -> None:
        """Accept nobody: clients wait in the kernel's queue."""
        self._port.pauseProducing()

    def open(self) -> None:
        """Accept again."""
        self._port.resumeProducing()

    def accept_at_most(self, count: int) -> None:
        """Bound the connections accepted in one turn of the reactor. Twisted lets the number grow again."""
        self._port.numberAccepts = min(self._port.numberAccepts, count)
