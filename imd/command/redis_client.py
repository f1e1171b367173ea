"""A plain, blocking Redis client for looking: one command at a time, each with a deadline."""

from __future__ import annotations

import socket
import ssl
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis


class RedisError(Exception):
    """An answer that says no; the text is Redis' own."""


class RedisClient:
    """`url` is as in [redis] url. Raises OSError when there is no connection, or no answer in `seconds`."""

    def __init__(self, url: str, seconds: float) -> None:
        parts = urlsplit(url)
        self._reader = hiredis.Reader(replyError=RedisError)
        self._socket: socket.socket = socket.create_connection(
            (parts.hostname or "127.0.0.1", parts.port or 6379), timeout=seconds
        )
        try:
            if parts.scheme == "rediss":
                context = ssl.create_default_context()
                self._socket = context.wrap_socket(self._socket, server_hostname=parts.hostname)
            if parts.password:
                user = [unquote(parts.username)] if parts.username else []
                self("AUTH", *user, unquote(parts.password))
            number = parts.path.strip("/")
            if number:
                self("SELECT", number)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> RedisClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __call__(self, *words: str | int) -> Any:
        """The reply, bytes being bytes. Raises RedisError."""
        self._socket.sendall(hiredis.pack_command(cast(Any, tuple(map(str, words)))))
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the connection was closed")
            self._reader.feed(data)
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def info(self) -> dict[str, str]:
        """All that INFO says."""
        lines = self("INFO").decode(errors="replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def config(self, name: str) -> str | None:
        """A configuration value; None if it may not be asked for."""
        try:
            answer = self("CONFIG", "GET", name)
        except RedisError:
            return None
        return answer[1].decode() if len(answer) == 2 else None

    def pairs(self, *words: str | int) -> dict[str, str]:
        """The reply of HGETALL and its like."""
        flat = [part.decode(errors="replace") for part in self(*words)]
        return dict(zip(flat[::2], flat[1::2], strict=True))
