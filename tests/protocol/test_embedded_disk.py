"""An embedded node whose disk takes no more writes: it is not ready, says why, and goes on when it can."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from tests.protocol.support import Rules, new_folder
from tests.support.nodes import NodeServer
from tests.support.ws_client import WsClient


class DiskTests(Rules, unittest.TestCase):
    """Each test has a node of its own."""

    async def begin(self, data: Path | None = None) -> NodeServer:
        node = NodeServer(new_folder(), {"node": {"data": data}} if data is not None else {})
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        self.node = node
        self.alice = await self.login("alice", url=node.url)
        await self.alice.say("bob", "before")
        return node

    async def reasons(self) -> dict[str, str]:
        status, body = await deferToThread(self.node.http, "readyz")
        self.assertEqual(status == 200, json.loads(body)["ready"])
        return json.loads(body).get("reasons", {})

    async def says(self, *words: str) -> None:
        """One of these words, without anybody sending a message."""

        async def said() -> bool:
            reason = (await self.reasons()).get("inbox", "")
            return any(reason.startswith(f"embedded: {word}") for word in words)

        await self.eventually(said, 60)

    async def is_ready(self) -> bool:
        return not await self.reasons()

    async def refused(self, times: int) -> None:
        """Messages are refused; the log does not tell of each."""
        for number in range(times):
            self.alice.send({"clientMsgId": f"no-{number}", "to": "bob", "msg": "x" * 5000})
            answer = await self.alice.next()
            self.assertEqual((answer["type"], answer["code"]), ("error", "unavailable"), answer)
            self.assertEqual(answer["reason"], "SQLite is not available")
        log = self.node.log.read_text()
        self.assertIn(log.count("a batch failed"), (1, 2))
        self.assertIn(log.count("operations failed"), (1, 2))

    async def well_again(self) -> None:
        await self.eventually(self.is_ready, 60)
        await self.alice.say("bob", "after")
        bob: WsClient = await self.login("bob", url=self.node.url, ack=True)
        self.assertEqual([message["msg"] for message in await bob.messages(2)], ["before", "after"])

    async def test_no_more_bytes(self) -> None:
        """The system lets the node's files grow no further. Nothing tells it so but a write."""
        node = await self.begin()
        soft, hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
        size = os.stat(node.folder / "data" / "imd.db-wal").st_size
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (size, hard))
        await self.says("full", "io")
        await self.refused(50)
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (soft, hard))
        await self.well_again()

    def mount(self, *words: str) -> None:
        done = subprocess.run(["mount", *words], capture_output=True, text=True)
        if done.returncode:
            raise unittest.SkipTest(f"mount needs rights that this process lacks: {done.stderr.strip()}")

    async def test_full_disk(self) -> None:
        """Somebody else has filled the disk; somebody makes room."""
        disk = new_folder()
        self.mount("-t", "tmpfs", "-o", "size=8m", "none", str(disk))
        self.addCleanup(subprocess.run, ["umount", "-l", str(disk)], check=True)
        await self.begin(disk / "data")
        filler = disk / "filler"
        with self.assertRaises(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 12))
        await self.says("full")
        await self.refused(50)
        filler.unlink()
        await self.well_again()
        await deferToThread(self.node.kill)
