"""Support for the tests of the pages: nodes, names, tokens, foreign sites, and the browser's thread."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from functools import wraps
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from playwright.sync_api import Browser
from twisted.internet.defer import Deferred
from twisted.trial import unittest

from tests.protocol.support import JWT_SECRET, new_folder, started
from tests.support.group_end import group_cache
from tests.support.nodes import Ini, NodeServer
from tests.web.browser import Visitors, browser_thread

_numbers = itertools.count(1)


@group_cache
def node(kind: str) -> NodeServer:
    """A node with these settings, shared by the tests of this process."""
    ini: Ini = {
        "open": {},
        # The scenes that are pictured have the same few names each: nobody else is on their node.
        "scenes": {},
        "troubles": {},
        "jwt": {"auth": {"mode": "jwt", "secret": JWT_SECRET, "leeway_seconds": 1}},
        "sites": {"websocket": {"origins": "http://localhost:* http://127.0.0.1:*"}},
    }[kind]
    return started(NodeServer(new_folder(), ini))


def name(who: str) -> str:
    """A name that no other test of this process uses."""
    return f"{who}{next(_numbers)}"


def token(sub: str, seconds: int = 600, **claims: Any) -> str:
    claims = {"sub": sub, "exp": int(time.time()) + seconds, "loginType": "USER_TYPE", **claims}
    return jwt.encode(claims, JWT_SECRET, algorithm="HS256")


class Site:
    """A foreign site, at another host name than the node. `files`: path → content type and text."""

    def __init__(self, files: Mapping[str, tuple[str, str]], policy: str, host: str = "localhost") -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content_type, text = files.get(self.path, ("text/plain", ""))
                self.send_response(200)
                self.send_header("content-type", content_type)
                self.send_header("content-security-policy", policy)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://{host}:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def in_browser(test: Callable[..., None]) -> Callable[[unittest.TestCase], Deferred[None]]:
    """Run a test in the browser's thread. It fails if a page logs an error or a violated policy."""

    @wraps(test)
    def run(self: unittest.TestCase) -> Deferred[None]:
        def there(browser: Browser) -> None:
            visitors = Visitors(browser)
            try:
                test(self, visitors)
                self.assertEqual(visitors.complaints, [])
            finally:
                visitors.close()

        return browser_thread().run(there)

    return run
