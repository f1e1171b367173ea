"""The line between a browser's pages and their node: answers are made up, or it is cut."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import BrowserContext, WebSocketRoute

TEMPORARY = {"temporary": True, "retryAfterMs": 600_000}
"""of a refusal: the client sends again, but not while a test lasts"""


class Line:
    """All WebSockets of a profile. Make it before a page of the profile connects."""

    def __init__(self, context: BrowserContext) -> None:
        self._refusals: dict[str, dict[str, Any]] = {}
        self._sockets: list[WebSocketRoute] = []
        self._held: dict[str, list[tuple[WebSocketRoute, str | bytes]]] = {}
        self._is_cut = False
        context.route_web_socket(re.compile("/ws"), self._through)

    def refuse(self, frame_type: str, code: str, **more: Any) -> None:
        """Answer frames of this type with an error from now on. The node does not get them."""
        self._refusals[frame_type] = {"type": "error", "code": code, "reason": "made up", **more}

    def hold(self, frame_type: str) -> None:
        """The node does not get frames of this type from now on."""
        self._held[frame_type] = []

    def release(self) -> None:
        """The node gets all frames that were held, and later ones."""
        for frames in self._held.values():
            for server, frame in frames:
                server.send(frame)
        self._held.clear()

    def cut(self) -> None:
        """End the connections, and let no other one through."""
        self._is_cut = True
        for socket in self._sockets:
            socket.close()
        self._sockets.clear()

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def _through(self, socket: WebSocketRoute) -> None:
        if self._is_cut:
            socket.close()
            return
        self._sockets.append(socket)
        server = socket.connect_to_server()

        def up(frame: str | bytes) -> None:
            content = json.loads(frame)
            refusal = self._refusals.get(content.get("type"))
            held = self._held.get(content.get("type"))
            if held is not None:
                held.append((server, frame))
            elif refusal is None:
                server.send(frame)
            else:
                socket.send(json.dumps({**refusal, "clientMsgId": content["clientMsgId"]}))

        socket.on_message(up)
