"""Nodes that begin as a fork of a process that has imported imd, `template.py`."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.servers.errors import ServerError
from tests.support.servers.process import spawn, tail

PROGRAM = Path(__file__).with_name("template.py")
# For a template to import all, on a busy machine.
SECONDS = 120.0


class ForkedProcess:
    """A child of a template, as a `Process`."""

    def __init__(self, template: Template, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._template = template
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """As Popen's; -SIGKILL if the template itself is gone, and its children with it."""
        with self._lock:
            if self.returncode is None:
                self.returncode = self._template.poll(self.pid)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As Popen's. Raises subprocess.TimeoutExpired."""
        with self._lock:
            # Until it is polled the number belongs to nobody else.
            ended = os.pidfd_open(self.pid) if self.returncode is None else None
        if ended is not None:
            try:
                # Not select(): a worker of the suite has more than a thousand files open.
                ready = select.poll()
                ready.register(ended, select.POLLIN)
                if not ready.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            finally:
                os.close(ended)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)


class Template:
    """A process that forks itself into nodes; all of them end with it, and it with this process."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        self._log = log
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._wire = ours
        self._wire.settimeout(SECONDS)
        self._lock = threading.Lock()
        with its:
            command: list[str | Path] = [sys.executable, PROGRAM, str(its.fileno())]
            self._process = spawn(command, log, env, keep=[its.fileno()])

    def fork(
        self, module: str, words: Sequence[str | Path], log: Path, env: Mapping[str, str], cwd: Path
    ) -> ForkedProcess:
        """A node: `run` of this module, with these words as `sys.argv`.

        Raises ServerError if the template has died.
        """
        words = [str(word) for word in words]
        asked = {"module": module, "words": words, "log": str(log), "env": dict(env), "cwd": str(cwd)}
        pid = self._ask(asked)
        if pid is None:
            raise ServerError(f"the template of nodes ended with {self._process.wait()}\n{tail(self._log)}")
        return ForkedProcess(self, pid)

    def poll(self, pid: int) -> int | None:
        """The exit code of a child, or None while it runs."""
        code = self._ask({"poll": pid})
        return -signal.SIGKILL if code is None and self._process.poll() is not None else code

    def end(self) -> None:
        """End it, and the nodes that still run."""
        self._wire.close()
        self._process.wait(SECONDS)

    def _ask(self, asked: dict[str, Any]) -> int | None:
        with self._lock:
            try:
                self._wire.send(json.dumps(asked).encode())
                answer: int | None = json.loads(self._wire.recv(4096) or b"null")
            except OSError:
                self._process.wait(SECONDS)
                return None
        return answer


@cache
def template(python_path: str, log: Path) -> Template:
    """The template of this process for code that is found there; it ends with this process."""
    made = Template({**os.environ, "PYTHONPATH": python_path}, log)
    atexit.register(made.end)
    return made
