"""The guides for operators are true: their programs and statements are run."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sqlite3
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.contracts.inbox import ConnectRequest, InboxOptions, Submission
from imd.protocol.ids import MessageIds, ServerClock
from imd.protocol.message import IMessage, encode_message
from imd.store.embedded.backend import EmbeddedStore
from tests.project.documents import blocks
from tests.support.paths import ROOT
from tests.support.rabbit import Broker, until
from tests.support.servers import shared

DEAD_LETTERS = ROOT / "docs" / "how-to" / "dead-letters.md"
BACKUP = ROOT / "docs" / "how-to" / "backup.md"


class GuideTests(unittest.TestCase):
    timeout = 600

    async def test_dead_letters(self) -> None:
        """The example looks at dead letters without taking them, and replays them when told to."""
        [example] = [b.text for b in blocks(DEAD_LETTERS.read_text()) if b.info == "python"]
        url = await deferToThread(shared().amqp_url)
        example = example.replace("amqp://guest:guest@127.0.0.1:5672/", url)
        broker = Broker(url)
        self.addCleanup(broker.close)
        for queue in ("imd.archive", "imd.archive.dead"):
            broker.channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        broker.put("imd.archive.dead", b'{"id":"1"}')
        broker.put("imd.archive.dead", b'{"id":"2"}')
        await until(lambda: broker.length("imd.archive.dead") == 2, "both are there")
        await deferToThread(self.run_example, example)
        await until(lambda: broker.length("imd.archive.dead") == 2, "both are there again")
        for body in (b'{"id":"3","msg":"a secret"}', b'{"id":"4","of":"3","msg":"a secret"}', b"no JSON"):
            broker.put("imd.archive.dead", body)
        await until(lambda: broker.length("imd.archive.dead") == 5, "all are there")
        await deferToThread(self.run_example, example.replace("FORGET = set()", 'FORGET = {"3"}'))
        await until(lambda: broker.length("imd.archive.dead") == 3, "the recalled one is forgotten")
        await deferToThread(self.run_example, example.replace("REPLAY = False", "REPLAY = True"))
        await until(lambda: broker.length("imd.archive") == 2, "both are replayed")
        await until(lambda: broker.length("imd.archive.dead") == 1, "no JSON is left")
        taken = broker.take("imd.archive")
        assert taken is not None
        self.assertEqual(json.loads(taken[1]), [{"id": "1"}])

    def run_example(self, source: str) -> None:
        """Run it as a script, without what it prints."""
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, DEAD_LETTERS.name, "exec"), {})

    async def test_restored_backup(self) -> None:
        """After the statement for a restored file, a device whose numbers are given out again is told so."""
        [statement] = re.findall(r'"(UPDATE user SET [^"]*)"', BACKUP.read_text())
        folder = Path(self.mktemp())
        store = await self.open_store(folder)
        await store.accept([submission("alice", ["bob"])])
        await store.stop()
        copy = (folder / "imd.db").read_bytes()
        store = await self.open_store(folder)
        await store.accept([submission("alice", ["bob"])])
        before = await store.connect(ConnectRequest("bob", "phone", "one"))
        self.assertEqual([seq for seq, _ in before.page.messages], [1, 2])
        await store.stop()
        (folder / "imd.db").write_bytes(copy)
        with contextlib.closing(sqlite3.connect(folder / "imd.db")) as file:
            file.execute(statement)
            file.commit()
        store = await self.open_store(folder)
        self.addCleanup(store.stop)
        await store.accept([submission("alice", ["bob"])])
        after = await store.connect(ConnectRequest("bob", "phone", "two", epoch=before.page.epoch, seq=2))
        self.assertIs(after.recovered, False)
        self.assertEqual([seq for seq, _ in after.page.messages], [1, 2])

    async def open_store(self, folder: Path) -> EmbeddedStore:
        store = EmbeddedStore(str(folder), InboxOptions(), ServerClock(), reactor)
        await store.start()
        return store


def submission(sender: str, recipients: list[str]) -> Submission:
    """A message."""
    message_id, now_ms = MessageIds(ServerClock()).next()
    body = encode_message(IMessage(message_id, user_id=sender, to=recipients[0], msg="hi", send_time=now_ms))
    return Submission(sender, "default", None, "-", message_id, now_ms, recipients, body)
