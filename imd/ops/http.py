"""The http port: health, readiness and metrics for operators, and the web pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from twisted.web.http import CACHED, NOT_ALLOWED, NOT_FOUND, OK, SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from imd.ops.http_site import BoundedSite
from imd.ops.pages import File

REQUEST_SECONDS = 30
"""how long a connection may stay without a whole request"""

_PAGE = b"""imd, an instant-messaging daemon

/healthz  200 while the process lives
/readyz   200 when a message would be accepted, else 503 and the reasons
/serving  200 when a load balancer is to send clients here, else 503 and the reason
/metrics  for Prometheus
"""

CLIENT_SETTINGS_PATH = b"/client.json"

ClientSettings = Callable[[Mapping[str, str]], bytes | None]
"""from a request's headers to the settings of a page, as JSON; None: not known yet"""

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"


class _Root(Resource):
    """Everything on this port, by path."""

    isLeaf = True

    def __init__(
        self,
        problems: Callable[[], dict[str, str]],
        metrics: Any,
        files: Mapping[bytes, File],
        client_settings: ClientSettings | None,
        reason_not_to_serve: Callable[[], str | None],
    ) -> None:
        super().__init__()
        self._reason_not_to_serve = reason_not_to_serve
        self._problems = problems
        self._metrics = metrics
        self._files = files
        self._client_settings = client_settings
        self._answers: dict[bytes, Callable[[], tuple[int, bytes, bytes]]] = {
            b"/": lambda: (OK, _TEXT, _PAGE),
            b"/healthz": lambda: (OK, _JSON, b'{"status":"ok"}'),
            b"/readyz": self._readiness,
            b"/serving": self._serving,
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
        file = self._files.get(request.path)
        if file is not None:
            return _answer_with_file(request, file)
        if request.path == CLIENT_SETTINGS_PATH and self._client_settings is not None:
            return self._answer_with_client_settings(request, self._client_settings)
        answer = self._answers.get(request.path)
        if answer is None:
            return _answer(request, NOT_FOUND, _JSON, b'{"error":"not found"}')
        return _answer(request, *answer())

    def _answer_with_client_settings(self, request: Request, client_settings: ClientSettings) -> bytes:
        # The widget asks from the site that it is on.
        request.setHeader(b"access-control-allow-origin", b"*")
        names = {name.decode("latin-1").lower(): "" for name, _ in request.requestHeaders.getAllRawHeaders()}
        body = client_settings(names)
        if body is None:
            return _answer(request, SERVICE_UNAVAILABLE, _JSON, b'{"error":"not ready"}')
        return _answer(request, OK, _JSON, body)

    def _readiness(self) -> tuple[int, bytes, bytes]:
        reasons = self._problems()
        if reasons:
            body = msgspec.json.encode({"ready": False, "reasons": reasons})
            return SERVICE_UNAVAILABLE, _JSON, body
        return OK, _JSON, b'{"ready":true}'

    def _serving(self) -> tuple[int, bytes, bytes]:
        reason = self._reason_not_to_serve()
        if reason is not None:
            return SERVICE_UNAVAILABLE, _JSON, msgspec.json.encode({"serving": False, "reason": reason})
        return OK, _JSON, b'{"serving":true}'


def _answer_with_file(request: Request, file: File) -> bytes:
    for name, value in file.headers:
        request.setHeader(name, value)
    if request.setETag(file.etag) is CACHED or request.method == b"HEAD":
        return b""
    return file.body


def _answer(request: Request, status: int, content_type: bytes, body: bytes) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", content_type)
    return b"" if request.method == b"HEAD" else body


def make_site(
    problems: Callable[[], dict[str, str]],
    files: Mapping[bytes, File] | None = None,
    client_settings: ClientSettings | None = None,
    reason_not_to_serve: Callable[[], str | None] = lambda: None,
) -> Site:
    """The site that the http port serves.

    `problems` gives the reasons why the node is not ready, by part; empty: ready. `files` are the web pages,
    `client_settings` answers /client.json for them; without `files` there are no pages.
    `reason_not_to_serve` says why load balancers are to send clients elsewhere; None if they are not.
    """
    # Imported here because it asks for the reactor.
    from prometheus_client.twisted import MetricsResource

    root = _Root(problems, MetricsResource(), files or {}, client_settings, reason_not_to_serve)
    return BoundedSite(root, timeout=REQUEST_SECONDS)
