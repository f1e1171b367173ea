"""One server process: start, stop, kill, pause and restart on the same port and data."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

from tests.support.servers.errors import ServerError
from tests.support.servers.ports import HOST, free_port
from tests.support.servers.process import Process, end_group, is_stopped, spawn, tail, wait_until


class Server:
    """A server in a folder of its own, the leader of its own process group."""

    name = "server"
    start_seconds = 180.0
    stop_seconds = 60.0

    def __init__(self, folder: str | Path, port: int | None = None) -> None:
        self.folder = Path(folder)
        self.port = port or free_port()
        self.process: Process | None = None

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The server's process id. Raises ServerError when it was not started."""
        if self.process is None:
            raise ServerError(f"{self.name} was not started")
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start and return when it really answers. Raises ServerError, with nothing left running."""
        if self.running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        self.process = process = self._spawn()
        try:
            wait_until(
                lambda: process.poll() is not None or self.answers(),
                self.start_seconds,
                f"{self.name} on port {self.port} did not answer",
            )
            if process.poll() is not None:
                raise ServerError(f"{self.name} on port {self.port} ended with {process.returncode}")
        except ServerError as error:
            self.kill()
            raise ServerError(f"{error}\n{tail(self.log)}") from None
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in its own way, or by SIGKILL when that takes longer than `stop_seconds`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the whole process group, at once."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop, and start again on the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay, nothing answers."""
        os.killpg(self.pid, signal.SIGSTOP)
        # A thread that is at work on another processor goes on for a moment.
        wait_until(lambda: is_stopped(self.pid), 180, f"{type(self).__name__} stands still")

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        os.killpg(self.pid, signal.SIGCONT)

    def answers(self) -> bool:
        """True if it answers a first question of its protocol within a second."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.settimeout(1)
                connection.sendall(self._question())
                return self._is_answer(connection.recv(64))
        except OSError:
            return False

    def _end(self, signum: int) -> None:
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            end_group(process, signum, self.stop_seconds)

    def _spawn(self) -> Process:
        return spawn(self._command(), self.log, self._environment(), self.folder)

    def _prepare(self) -> None:
        """Make the files that the process needs."""

    def _command(self) -> list[str | Path]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str] | None:
        return None

    def _question(self) -> bytes:
        raise NotImplementedError

    def _is_answer(self, data: bytes) -> bool:
        return bool(data)
