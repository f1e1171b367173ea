"""A node for hostile tests, a client that chats through all of them, and a look at the log."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from twisted.trial import unittest

from tests.hostile.raw import RawClient
from tests.nodes import Ini, NodeServer

KINDS: dict[str, Ini] = {
    "plain": {"limits": {"messages_per_second": 0, "message_bytes": 4096}},
}

# What a node that was only ill-treated never logs.
_TROUBLE = re.compile(r"Traceback|Unhandled|Unexpected|#(?:error|critical)\]|Exception|MemoryError")


def resident_bytes(node: NodeServer) -> int:
    """The memory that a node's process has."""
    pages = Path(f"/proc/{node.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


class Bystander(NamedTuple):
    """A node that lives as long as this process, and a well-behaved client of it."""

    node: NodeServer
    client: RawClient


@cache
def bystander(kind: str) -> Bystander:
    """The one of a kind (a key of KINDS), started when first asked for."""
    node = NodeServer(Path(tempfile.mkdtemp(prefix="imd-hostile-")), KINDS[kind])
    atexit.register(shutil.rmtree, node.folder, ignore_errors=True)
    atexit.register(node.kill)
    node.start()
    return Bystander(node, RawClient(node.port).login())


class HostileCase(unittest.SynchronousTestCase):
    """Each test ends with a calm node: the bystander chats, and the log holds no trouble."""

    kind = "plain"

    def setUp(self) -> None:
        self.node, self.bystander = bystander(self.kind)

    def tearDown(self) -> None:
        self.chat()
        text = self.node.log.read_text(errors="replace")
        found = _TROUBLE.search(text)
        if found is not None:
            self.fail(f"the node's log: {text[max(0, found.start() - 300) : found.start() + 2000]}")

    def chat(self) -> None:
        """The bystander writes to itself, and gets what it wrote."""
        self.bystander.say({"to": self.bystander.user, "msg": self.id()})
        kinds = {self.bystander.next_text()["type"], self.bystander.next_text()["type"]}
        self.assertEqual(kinds, {"accepted", "message"})

    def raw(self, receive_buffer: int | None = None) -> RawClient:
        """A connection, nothing sent yet; closed when the test is over."""
        client = RawClient(self.node.port, receive_buffer)
        self.addCleanup(client.socket.close)
        return client

    def login(self, receive_buffer: int | None = None) -> RawClient:
        return self.raw(receive_buffer).login()
