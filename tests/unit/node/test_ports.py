"""Opening the ports of a node."""

from __future__ import annotations

import socket

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.trial import unittest

from imd.node.ports import Ports
from imd.protocol.errors import ConfigurationError


class PortsTests(unittest.TestCase):
    async def test_open(self) -> None:
        port = await Ports(reactor).open("tcp:0:interface=127.0.0.1", Factory())
        self.addCleanup(port.stopListening)
        self.assertGreater(port.getHost().port, 0)

    async def test_cannot_be_opened(self) -> None:
        """The error names the key and the endpoint, whatever the reason."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            for description, key in (
                (f"tcp:{number}:interface=127.0.0.1", "listen"),
                ("unix:/no/such/folder/socket", "[node] control"),
            ):
                with self.assertRaises(ConfigurationError) as raised:
                    await Ports(reactor).open(description, Factory(), key)
                self.assertTrue(str(raised.exception).startswith(f"{key} = {description}: "))
