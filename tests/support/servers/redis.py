"""A private Redis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.servers.ports import HOST, free_port
from tests.support.servers.process import program
from tests.support.servers.server import Server


class RedisServer(Server):
    """Redis, with an append-only file unless told otherwise, and noeviction."""

    name = "redis"

    def __init__(
        self,
        folder: str | Path,
        port: int | None = None,
        *,
        appendonly: bool = True,
        appendfsync: str = "everysec",
        databases: int = 1024,
        options: Sequence[str] = (),
    ) -> None:
        """`options` are further words of redis-server's command line, such as `--maxmemory`, `10mb`."""
        super().__init__(folder, port)
        self.appendonly = appendonly
        self.appendfsync = appendfsync
        self.databases = databases
        self.options = list(options)
        if "--cluster-enabled" in options:
            # By default its bus has a port that connections of others may have.
            self.options += ["--cluster-port", str(free_port())]

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, db: int) -> str:
        return f"redis://{HOST}:{self.port}/{db}"

    def _command(self) -> list[str | Path]:
        return [
            program("redis-server", "Debian package redis-server"),
            *("--bind", HOST, "--port", str(self.port), "--dir", self.folder),
            *("--save", "", "--maxmemory-policy", "noeviction", "--databases", str(self.databases)),
            *("--appendonly", "yes" if self.appendonly else "no", "--appendfsync", self.appendfsync),
            *self.options,
        ]

    def _question(self) -> bytes:
        return b"PING\r\n"

    def _is_answer(self, data: bytes) -> bool:
        return data.startswith(b"+PONG")
