"""The operator's port: health, readiness, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.web.http import NOT_ALLOWED, NOT_FOUND, OK, SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

REQUEST_SECONDS = 30
"""how long a connection may stay without a whole request"""

_PAGE = b"""imd, an instant-messaging daemon

/healthz  200 while the process lives
/readyz   200 when it takes connections and its backends answer, else 503 and the reasons
/metrics  for Prometheus
"""

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"


class _Root(Resource):
    """Everything on this port, by path."""

    isLeaf = True

    def __init__(self, problems: Callable[[], dict[str, str]], metrics: Any) -> None:
        super().__init__()
        self._problems = problems
        self._metrics = metrics
        self._answers: dict[bytes, Callable[[], tuple[int, bytes, bytes]]] = {
            b"/": lambda: (OK, _TEXT, _PAGE),
            b"/healthz": lambda: (OK, _JSON, b'{"status":"ok"}'),
            b"/readyz": self._readiness,
        }

    def render(self, request: Request) -> Any:
        for name, value in (
            (b"server", b"imd"),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"content-security-policy", b"default-src 'none'; connect-src ws: wss:; frame-ancestors 'none'"),
        ):
            request.setHeader(name, value)
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"allow", b"GET, HEAD")
            return _answer(request, NOT_ALLOWED, _JSON, b'{"error":"only GET and HEAD"}')
        if request.path == b"/metrics":
            if request.method == b"HEAD":
                return _answer(request, OK, _TEXT, b"")
            return self._metrics.render(request)
        answer = self._answers.get(request.path)
        if answer is None:
            return _answer(request, NOT_FOUND, _JSON, b'{"error":"not found"}')
        return _answer(request, *answer())

    def _readiness(self) -> tuple[int, bytes, bytes]:
        reasons = self._problems()
        if reasons:
            body = msgspec.json.encode({"ready": False, "reasons": reasons})
            return SERVICE_UNAVAILABLE, _JSON, body
        return OK, _JSON, b'{"ready":true}'


def _answer(request: Request, status: int, content_type: bytes, body: bytes) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", content_type)
    return b"" if request.method == b"HEAD" else body


class _Site(Site):
    noisy = False

    def log(self, request: object) -> None:
        """No access log: probes would be all there is in it."""


def make_site(problems: Callable[[], dict[str, str]]) -> Site:
    """What to listen with. `problems` gives what keeps the node from being ready, by part; empty: ready."""
    # Imported here because it asks for the reactor.
    from prometheus_client.twisted import MetricsResource

    return _Site(_Root(problems, MetricsResource()), timeout=REQUEST_SECONDS)
