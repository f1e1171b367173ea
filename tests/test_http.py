from __future__ import annotations

import json
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial import unittest
from twisted.web.client import Agent, HTTPConnectionPool, readBody

from imd.http import REQUEST_SECONDS, make_site


class HttpTests(unittest.TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.problems: dict[str, str] = {}
        self.site = make_site(lambda: self.problems)
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.pool = HTTPConnectionPool(reactor, persistent=False)
        self.addCleanup(self.pool.closeCachedConnections)
        self.agent = Agent(reactor, pool=self.pool, connectTimeout=20)

    @inlineCallbacks
    def ask(self, path: str, method: bytes = b"GET") -> Any:
        """Status, headers (lower case) and body of an answer."""
        url = f"http://127.0.0.1:{self.port.getHost().port}{path}"
        response = yield self.agent.request(method, url.encode())
        body = yield readBody(response)
        headers = {
            name.decode().lower(): values[0].decode() for name, values in response.headers.getAllRawHeaders()
        }
        return response.code, headers, body

    @inlineCallbacks
    def test_health(self) -> Any:
        """200 while the process lives, ready or not."""
        for self.problems in ({}, {"redis": "down"}):
            status, headers, body = yield self.ask("/healthz")
            self.assertEqual((status, json.loads(body)), (200, {"status": "ok"}))
            self.assertEqual(headers["content-type"], "application/json")

    @inlineCallbacks
    def test_ready(self) -> Any:
        """200 without problems; with some, 503 and what they are. Asked anew each time."""
        status, _, body = yield self.ask("/readyz")
        self.assertEqual((status, json.loads(body)), (200, {"ready": True}))
        self.problems = {"redis": 'no answer from "h"', "mongodb": "é"}
        status, _, body = yield self.ask("/readyz")
        self.assertEqual((status, json.loads(body)), (503, {"ready": False, "reasons": self.problems}))
        self.problems = {}
        status, _, _ = yield self.ask("/readyz?x=1")
        self.assertEqual(status, 200)

    @inlineCallbacks
    def test_metrics(self) -> Any:
        """What prometheus_client knows, in Prometheus' text format."""
        status, headers, body = yield self.ask("/metrics")
        self.assertEqual(status, 200)
        self.assertTrue(headers["content-type"].startswith("text/plain"))
        self.assertIn(b"\nprocess_open_fds ", body)

    @inlineCallbacks
    def test_page(self) -> Any:
        """The root says what is served here."""
        status, headers, body = yield self.ask("/")
        self.assertEqual((status, headers["content-type"]), (200, "text/plain; charset=utf-8"))
        for path in (b"/healthz", b"/readyz", b"/metrics"):
            self.assertIn(path, body)

    @inlineCallbacks
    def test_anything_else(self) -> Any:
        """404 as JSON."""
        for path in ("/x", "/healthz/", "/healthz/x", "/metrics/x", "/ws", "//", "/..%2f", "/<b>"):
            status, headers, body = yield self.ask(path)
            self.assertEqual((status, json.loads(body)), (404, {"error": "not found"}))
            self.assertEqual(headers["content-type"], "application/json")

    @inlineCallbacks
    def test_head(self) -> Any:
        """HEAD is answered like GET, without a body."""
        for path, expected in (
            ("/healthz", 200),
            ("/readyz", 200),
            ("/metrics", 200),
            ("/", 200),
            ("/x", 404),
        ):
            status, headers, body = yield self.ask(path, b"HEAD")
            self.assertEqual((status, body), (expected, b""))
            self.assertIn("content-type", headers)

    @inlineCallbacks
    def test_other_methods(self) -> Any:
        """Nothing can be changed here."""
        for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"BREW"):
            for path in ("/healthz", "/metrics", "/x"):
                status, headers, _ = yield self.ask(path, method)
                self.assertEqual((status, headers["allow"]), (405, "GET, HEAD"))

    @inlineCallbacks
    def test_headers(self) -> Any:
        """No guessing of types, no caching, and nothing said about what serves it."""
        for path in ("/", "/healthz", "/readyz", "/metrics", "/x"):
            _, headers, _ = yield self.ask(path)
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertEqual(headers["cache-control"], "no-store")
            self.assertIn("default-src 'none'", headers["content-security-policy"])
            self.assertEqual(headers["server"], "imd")

    @inlineCallbacks
    def test_a_failing_check_is_no_page_of_secrets(self) -> Any:
        """An error in the check is a plain 500, without a traceback, and is logged."""
        self.problems = {"x": object()}  # type: ignore[dict-item]
        status, _, body = yield self.ask("/readyz")
        self.assertEqual(status, 500)
        self.assertNotIn(b"Traceback", body)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_no_access_log(self) -> None:
        """Probes leave no lines in the log."""
        lines: list[object] = []
        self.patch(self.site, "_logFile", type("File", (), {"write": lambda _, line: lines.append(line)})())
        done = self.ask("/healthz")
        return done.addCallback(lambda _: self.assertEqual(lines, []))

    @inlineCallbacks
    def test_silent_connections_end(self) -> Any:
        """Who connects and says nothing is let go after a while."""
        self.assertEqual(self.site.timeOut, REQUEST_SECONDS)
        self.site.timeOut = 0.2
        address = ("127.0.0.1", self.port.getHost().port)

        def wait_for_the_end() -> bytes:
            with socket.create_connection(address, timeout=30) as client:
                return client.recv(1)

        received = yield deferToThread(wait_for_the_end)
        self.assertEqual(received, b"")
