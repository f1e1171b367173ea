"""Switching the live trace of a running node on and off, over its control socket."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlencode

from imd.config.endpoints import place_of
from imd.config.settings import Settings
from imd.protocol.errors import ConfigurationError


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("imd", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(settings: Settings, method: str, form: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The state of the trace after `method`. Raises OSError, or ConfigurationError for what is refused."""
    if not settings.node.control:
        raise ConfigurationError(
            "[node] control: a live trace needs a socket, such as unix:imd.control:mode=600"
        )
    path = place_of(settings.node.control).path
    connection = _UnixConnection(path, seconds)
    try:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        connection.request(method, "/trace", urlencode(form, doseq=True), headers)
        answer = connection.getresponse()
        content: dict[str, Any] = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise OSError(f"no node answers at {path}: {error}") from None
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise ConfigurationError(str(content.get("error")))
    return content
