"""The reference: a bare Autobahn relay. It passes messages on and keeps nothing.

    python -m tests.tools.bench.relay PORT

It speaks enough of imd's protocol to serve the same clients: it answers the connect signal, gives each
message an id and a number, sends it to its recipient's connection and `accepted` to its sender. No checks,
no limits, no store: what is left is what Autobahn, msgspec and the sockets cost.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor


class FrameIn(msgspec.Struct, rename="camel"):
    is_connect: bool = False
    type: str | None = None
    user_id: str | None = None
    client_msg_id: str | None = None
    to: str | None = None
    msg: str | None = None


class FrameOut(msgspec.Struct, rename="camel"):
    seq: int
    id: str
    client_msg_id: str | None
    user_id: str
    from_user_type: str
    to: str
    msg: str
    send_time: int


class Accepted(msgspec.Struct, rename="camel", tag="accepted", tag_field="type"):
    client_msg_id: str | None
    id: str
    send_time: int


class Connected(msgspec.Struct, rename="camel", tag="connected", tag_field="type"):
    user_id: str
    epoch: str = "relay"
    seq: int = 0


decode = msgspec.json.Decoder(FrameIn).decode
encode = msgspec.json.Encoder().encode
channels: dict[str, Channel] = {}
sent = 0


class Channel(WebSocketServerProtocol):
    """One connection."""

    user = ""
    seq = 0

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        global sent
        frame = decode(payload)
        if frame.is_connect:
            self.user = frame.user_id or ""
            channels[self.user] = self
            self.sendMessage(encode(Connected(self.user)))
            return
        if frame.type is not None:
            return
        now = time.time_ns() // 1_000_000
        sent += 1
        message_id = f"{now:012x}{sent:016x}"
        to = channels.get(frame.to or "")
        if to is not None:
            to.seq += 1
            message = FrameOut(
                to.seq, message_id, frame.client_msg_id, self.user, "USER_TYPE", to.user, frame.msg or "", now
            )
            to.sendMessage(encode(message))
        self.sendMessage(encode(Accepted(frame.client_msg_id, message_id, now)))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        channels.pop(self.user, None)


def main() -> None:
    loop: Any = reactor
    factory = WebSocketServerFactory()
    factory.protocol = Channel
    loop.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1", backlog=1000)
    loop.run()


if __name__ == "__main__":
    main()
