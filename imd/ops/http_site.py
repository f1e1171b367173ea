"""HTTP for operators and pages, with bounds: how many clients there are, and what they may send."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from prometheus_client import Counter
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

DROPPED = Counter(
    "imd_http_dropped_total", "Connections to the http port or the control socket dropped for newer ones."
)

# Open files are reserved for them: process.RESERVED_FILES.
MAX_CLIENTS = 256
MAX_BODY_BYTES = 65_536

_TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class BoundedRequest(Request):
    """A request whose body is too large, or has no length, is answered with 413 and not read."""

    _refused = False

    def gotLength(self, length: int | None) -> None:
        self._refused = length is None or length > MAX_BODY_BYTES
        super().gotLength(0 if self._refused else length)
        if self._refused:
            transport: Any = self.channel.transport
            transport.write(_TOO_LARGE)
            transport.loseConnection()

    def handleContentChunk(self, data: bytes) -> None:
        if not self._refused:
            super().handleContentChunk(data)


class _Channel(HTTPChannel):
    factory: BoundedSite
    transport: Any

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.came(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.gone(self)
        super().connectionLost(reason)


class BoundedSite(Site):
    """Past the bound of clients, the client that has had no answer for longest is dropped."""

    noisy = False
    protocol: Any = _Channel

    def __init__(self, resource: Any, timeout: float) -> None:
        super().__init__(resource, requestFactory=BoundedRequest, timeout=timeout)
        self._clients: OrderedDict[_Channel, None] = OrderedDict()

    def came(self, client: _Channel) -> None:
        self._clients[client] = None
        if len(self._clients) > MAX_CLIENTS:
            oldest, _ = self._clients.popitem(last=False)
            DROPPED.inc()
            oldest.transport.abortConnection()

    def gone(self, client: _Channel) -> None:
        self._clients.pop(client, None)

    def log(self, request: Any) -> None:
        """An answer is written. There is no access log, as probes would fill it."""
        if request.channel in self._clients:
            self._clients.move_to_end(request.channel)
