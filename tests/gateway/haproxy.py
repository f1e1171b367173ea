"""A real HAProxy, and plain HTTP servers that stand for nodes."""

from __future__ import annotations

import http.client
import http.server
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from imd.gateway.haproxy import Server as HaproxyServer
from imd.gateway.nodes import Row
from imd.gateway.runtime import Runtime, RuntimeProblem
from tests.gateway.support import row, until
from tests.support.servers import HOST, Server, free_port
from tests.support.servers.process import program as find_program


def folder() -> Path:
    """A short path, for sockets; to be removed by whoever asked."""
    return Path(tempfile.mkdtemp(prefix="imd-gw-"))


class FakeNode:
    """Answers every request with its name and the headers it got; `/serving` as it is told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = 200
        self.port = free_port()
        self._server: http.server.ThreadingHTTPServer | None = None
        self.headers: list[list[tuple[str, str]]] = []

    def start(self) -> None:
        node = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                serving = self.path == "/serving"
                if not serving:
                    node.headers.append(self.headers.items())
                body = node.name.encode()
                self.send_response(node.status if serving else 200)
                self.send_header("content-length", str(len(body)))
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """A checker that does not wait for the end of an answer."""

        self._server = Quiet((HOST, self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def server(self, **others: object) -> HaproxyServer:
        return HaproxyServer(self.name, HOST, self.port, HOST, self.port, **others)  # type: ignore[arg-type]

    def row(self, **others: object) -> Row:
        return row(self.name, self.port, self.port, **others)


class Haproxy(Server):
    """HAProxy on the configuration of a folder, in master-worker mode, so that it can be reloaded."""

    name = "haproxy"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def runtime(self) -> Runtime:
        return Runtime(self.folder / "haproxy.sock", 60)

    def reload(self) -> None:
        """Returns when the new worker answers on the socket, and it alone."""
        before = self.worker()
        asked_at = 0.0

        def reloaded() -> bool:
            nonlocal asked_at
            # A master that has only just begun does not hear its first signal.
            if time.monotonic() - asked_at > 3:
                asked_at = time.monotonic()
                os.kill(self.pid, signal.SIGUSR2)
            return self.worker() not in (0, before)

        until(reloaded, "another worker of HAProxy")
        if before:
            # They share what they listen on: until then the former one may take a connection as well.
            stopped = re.compile(rf"\({before}\) : .*\bProxy imd stopped")
            until(lambda: stopped.search(self.log.read_text()), "the former worker listens no more")

    def worker(self) -> int:
        try:
            return int(self.runtime.info()["Pid"])
        except (RuntimeProblem, ValueError, KeyError):
            return 0

    def answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1):
                return self.worker() != 0
        except OSError:
            return False

    def get(self, path: str, headers: dict[str, str] | None = None) -> str:
        """Which node answered; the status if none did."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            body = answer.read().decode()
            return body if answer.status == 200 else str(answer.status)
        finally:
            connection.close()

    def leads_home(self, user_path: str, home: str) -> None:
        """A request comes to this node.

        On a busy machine a check may fail, and users of that server are elsewhere until the next ones pass.
        """
        got: list[str] = []

        def comes_home() -> bool:
            got[:] = [self.get(user_path)]
            return got == [home]

        try:
            until(comes_home, user_path, 60)
        except AssertionError:
            raise AssertionError(f"{user_path} leads to {got}, not to {home}") from None

    def states(self) -> dict[str, str]:
        """`up`, `down` or what else HAProxy holds of each server."""
        return {name: "up" if held.up else "down" for name, held in self.runtime.servers("imd").items()}

    def _command(self) -> list[str | Path]:
        program = find_program("haproxy", "Debian package haproxy")
        return [program, "-W", "-f", self.folder / "haproxy.cfg"]


def check(path: Path) -> tuple[int, str]:
    """Exit code and output of `haproxy -c`."""
    program = find_program("haproxy", "Debian package haproxy")
    done = subprocess.run([program, "-c", "-f", str(path)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr
