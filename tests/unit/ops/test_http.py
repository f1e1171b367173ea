from __future__ import annotations

import json
import re
import socket
from typing import Any
from urllib.parse import urljoin

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial import unittest
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers

from imd.config.settings import Auth, Http, Settings, Websocket
from imd.ops.http import REQUEST_SECONDS, make_site
from imd.ops.pages import FOLDER, client_settings, read_files


class HttpTests(unittest.TestCase):
    timeout = 300

    def setUp(self) -> None:
        self.problems: dict[str, str] = {}
        self.site = self.make_site()
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.pool = HTTPConnectionPool(reactor, persistent=False)
        self.addCleanup(self.pool.closeCachedConnections)
        self.agent = Agent(reactor, pool=self.pool, connectTimeout=20)

    def make_site(self) -> Any:
        return make_site(lambda: self.problems)

    @inlineCallbacks
    def ask(self, path: str, method: bytes = b"GET", **headers: str) -> Any:
        """Status, headers (lower case) and body of an answer."""
        url = f"http://127.0.0.1:{self.port.getHost().port}{path}"
        given = Headers({name.replace("_", "-"): [value] for name, value in headers.items()})
        response = yield self.agent.request(method, url.encode(), given)
        body = yield readBody(response)
        answered = {
            name.decode().lower(): values[0].decode() for name, values in response.headers.getAllRawHeaders()
        }
        return response.code, answered, body

    @inlineCallbacks
    def test_health(self) -> Any:
        """200 while the process lives, ready or not."""
        for self.problems in ({}, {"redis": "down"}):
            status, headers, body = yield self.ask("/healthz")
            self.assertEqual((status, json.loads(body)), (200, {"status": "ok"}))
            self.assertEqual(headers["content-type"], "application/json")

    @inlineCallbacks
    def test_serving(self) -> Any:
        """200 while there is no reason against it, whatever /readyz says."""
        reasons: list[str | None] = [None]
        self.problems = {"redis": "down"}
        yield self.port.stopListening()
        site = make_site(lambda: self.problems, reason_not_to_serve=lambda: reasons[0])
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        status, _, body = yield self.ask("/serving")
        self.assertEqual((status, json.loads(body)), (200, {"serving": True}))
        reasons[0] = "draining"
        status, _, body = yield self.ask("/serving")
        self.assertEqual((status, json.loads(body)), (503, {"serving": False, "reason": "draining"}))
        status, _, body = yield self.ask("/serving", b"HEAD")
        self.assertEqual((status, body), (503, b""))

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
        """The metrics of the process, in Prometheus' text format."""
        status, headers, body = yield self.ask("/metrics")
        self.assertEqual(status, 200)
        self.assertTrue(headers["content-type"].startswith("text/plain"))
        self.assertIn(b"\nprocess_open_fds ", body)

    @inlineCallbacks
    def test_page(self) -> Any:
        """Without web pages, the root says what is served here."""
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
        """A connection without a request is closed after a while."""
        self.assertEqual(self.site.timeOut, REQUEST_SECONDS)
        self.site.timeOut = 0.2
        address = ("127.0.0.1", self.port.getHost().port)

        def wait_for_the_end() -> bytes:
            with socket.create_connection(address, timeout=60) as client:
                return client.recv(1)

        received = yield deferToThread(wait_for_the_end)
        self.assertEqual(received, b"")


class PageTests(HttpTests):
    """The same, with web pages beside it."""

    def make_site(self) -> Any:
        self.settings = Settings()
        self.websocket_port: int | None = 9000
        return make_site(
            lambda: self.problems,
            read_files(),
            lambda headers: (
                client_settings(self.settings, self.websocket_port, headers) if self.websocket_port else None
            ),
        )

    @inlineCallbacks
    def test_page(self) -> Any:
        """Each page under its path, with a policy that lets in nothing from elsewhere."""
        for path, file in (("/", "chat.html"), ("/agent", "agent.html"), ("/demo", "demo.html")):
            status, headers, body = yield self.ask(path)
            self.assertEqual((status, headers["content-type"]), (200, "text/html; charset=utf-8"))
            self.assertEqual(body, (FOLDER / "pages" / file).read_bytes())
            policy = headers["content-security-policy"]
            self.assertIn("default-src 'none'; script-src 'self'; style-src 'self'", policy)
            for word in ("unsafe", "http:", "https:", "*"):
                self.assertNotIn(word, policy)

    @inlineCallbacks
    def test_headers(self) -> Any:
        """As without pages, but that files may be kept until they change."""
        for path in ("/", "/imd.js", "/healthz", "/client.json", "/x"):
            _, headers, _ = yield self.ask(path)
            kept = "no-cache" if path in ("/", "/imd.js") else "no-store"
            self.assertEqual((headers["x-content-type-options"], headers["cache-control"]), ("nosniff", kept))
            self.assertIn("default-src 'none'", headers["content-security-policy"])
            self.assertEqual(headers["server"], "imd")

    @inlineCallbacks
    def test_types(self) -> Any:
        """Scripts can be used by other sites, and all files are what they are."""
        for path, file, content_type, shared in (
            ("/imd.js", "client/imd.js", "text/javascript; charset=utf-8", "*"),
            ("/client/imd.js", "client/imd.js", "text/javascript; charset=utf-8", "*"),
            ("/widget.js", "widget/widget.js", "text/javascript; charset=utf-8", "*"),
            ("/widget/chat.js", "widget/chat.js", "text/javascript; charset=utf-8", "*"),
            ("/style/style.css", "style/style.css", "text/css; charset=utf-8", None),
            ("/style/icon.svg", "style/icon.svg", "image/svg+xml", None),
        ):
            status, headers, body = yield self.ask(path)
            self.assertEqual((status, headers["content-type"]), (200, content_type))
            self.assertEqual(headers.get("access-control-allow-origin"), shared)
            self.assertEqual(body, (FOLDER / file).read_bytes())

    @inlineCallbacks
    def test_not_modified(self) -> Any:
        """A browser that has the file already gets 304."""
        _, headers, _ = yield self.ask("/app/app.js")
        status, again, body = yield self.ask("/app/app.js", if_none_match=headers["etag"])
        self.assertEqual((status, body, again["etag"]), (304, b"", headers["etag"]))
        status, _, body = yield self.ask("/app/app.js", if_none_match='"another"')
        self.assertEqual(status, 200)
        self.assertNotEqual(body, b"")

    @inlineCallbacks
    def test_nothing_else(self) -> Any:
        """Only what is in the table: no folders, no way out of them, no other spelling."""
        for path in (
            "/imd.d.ts",
            "/client/imd.d.ts",
            "/client",
            "/client/",
            "/pages/chat.html",
            "/widget/widget.js",
            "/../imd/settings.py",
            "/..%2fsettings.py",
            "/web/app/app.js",
            "/./app/app.js",
            "//app/app.js",
            "/%61pp/app.js",
            "/app/app.js/",
            "/app/app.js%00",
        ):
            status, _, _ = yield self.ask(path)
            self.assertEqual(status, 404, path)

    @inlineCallbacks
    def test_head_of_a_file(self) -> Any:
        """HEAD says what GET would, without a body."""
        status, headers, body = yield self.ask("/app/app.js", b"HEAD")
        self.assertEqual((status, body), (200, b""))
        self.assertIn("etag", headers)

    @inlineCallbacks
    def client_settings(self, **headers: str) -> Any:
        status, answered, body = yield self.ask("/client.json", **headers)
        self.assertEqual((status, answered["access-control-allow-origin"]), (200, "*"))
        return json.loads(body)

    @inlineCallbacks
    def test_client_settings(self) -> Any:
        """Where the WebSocket is: a port, behind the same proxy, or where the settings say."""
        found = yield self.client_settings()
        self.assertEqual(found, {"ws": 9000, "tls": False, "authMode": "open", "visitors": True})
        found = yield self.client_settings(x_forwarded_for="192.0.2.1")
        self.assertEqual(found["ws"], "/ws")
        self.settings = Settings(
            http=Http(websocket_url="wss://chat.example.com/ws"),
            websocket=Websocket(listen="ssl:9000"),
            auth=Auth(mode="jwt", visitors=False),
        )
        found = yield self.client_settings(via="1.1 proxy")
        expected = {"ws": "wss://chat.example.com/ws", "tls": True, "authMode": "jwt", "visitors": False}
        self.assertEqual(found, expected)
        self.websocket_port = None
        status, _, _ = yield self.ask("/client.json")
        self.assertEqual(status, 503)

    def test_files_name_what_is_there(self) -> None:
        """Each file that a page or module asks for is served, below a proxy's path too. Nothing is inline."""
        files = read_files()
        place = "http://node/some/path"
        asked: set[bytes] = set()
        for path, file in files.items():
            text = file.body.decode()
            page = text.startswith("<!doctype")
            before = r"(?:src|href)=" if page else r"(?:from |import\(new URL\(|WORKER = new URL\()"
            for name in re.findall(before + r'"([\w./-]+)"', text):
                where = urljoin(place + path.decode(), name)
                self.assertTrue(where.startswith(place), (path, name))
                asked.add(where.removeprefix(place).encode())
        self.assertEqual(asked - set(files), set())
        self.assertIn(b"/widget/chat.js", asked)
        self.assertEqual(set(files) - asked, {b"/", b"/demo", b"/imd.js"})
        for path, file in files.items():
            text = file.body.decode()
            if text.startswith("<!doctype"):
                self.assertNotRegex(text, r"<style|style=|<script>|\son\w+=", path)
