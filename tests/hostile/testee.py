"""An echo server on the node's own WebSocket protocol, for WebSocket conformance suites.

`python -m tests.hostile.testee PORT` serves until it is killed. With Autobahn's test suite (it is on PyPI,
and needs Python 2.7), `wstest -m fuzzingclient -s SPEC` runs its cases against it; SPEC is a JSON file:

    {"servers": [{"agent": "imd", "url": "ws://127.0.0.1:PORT/ws"}], "outdir": "reports",
     "cases": ["*"], "exclude-cases": ["12.*", "13.*"], "exclude-agent-cases": {}}

The cases of 12 and 13 need compression, which is not offered. `tests.hostile.test_conformance` has the
cases that make sense for the protocol, and needs no more than this project.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from twisted.internet import reactor

from imd.config.settings import Settings
from imd.entry.gate import Gate
from imd.wire.autobahn_internals import with_shared_attributes
from imd.wire.listener import ChannelFactory
from imd.wire.outgoing import Outgoing
from imd.wire.websocket import ChannelProtocol

MAX_BYTES = 16 << 20
"""the largest message of Autobahn's cases"""


class Echo:
    """A handler that sends back each text message."""

    is_new = False
    early_bytes = 0

    def __init__(self, protocol: ChannelProtocol, outgoing: Outgoing, bearer: str | None) -> None:
        self.frame_received = outgoing.send

    def __getattr__(self, name: str) -> Callable[..., None]:
        """All other calls are ignored."""
        return lambda *_: None


class EchoProtocol(ChannelProtocol):
    """Binary messages are sent back, too."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if isBinary:
            self.sendMessage(payload, True)
        else:
            super().onMessage(payload, isBinary)


def main() -> None:
    gate = Gate(reactor.seconds, reactor.callLater)
    factory = ChannelFactory(reactor, Settings(), gate, Echo, max_connections=1000)
    factory.setProtocolOptions(maxFramePayloadSize=MAX_BYTES, maxMessagePayloadSize=MAX_BYTES)
    factory.protocol = with_shared_attributes(EchoProtocol, factory)
    reactor.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
