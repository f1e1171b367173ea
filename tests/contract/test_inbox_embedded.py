"""The embedded inbox keeps the contract, and what only a file can do: outlive its process."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.trial import unittest

from imd.backends.embedded import EmbeddedStore
from imd.errors import ConfigurationError
from imd.ids import ServerClock
from imd.interfaces import ArchiveRecord, HistoryQuery, InboxOptions
from tests.contract.inbox_contract import InboxContract, submission, texts


class EmbeddedInboxTests(InboxContract, unittest.TestCase):
    """The contract."""

    async def make(self, options: InboxOptions | None = None, folder: str | None = None) -> Any:
        store = EmbeddedStore(folder or self.mktemp(), options or InboxOptions(), ServerClock(), reactor)
        await store.start()
        self.addCleanup(store.stop)
        return store

    async def test_second_process_is_kept_off(self) -> None:
        """Two stores on one folder would tear it apart: the second does not start."""
        folder = self.mktemp()
        await self.make(folder=folder)
        second = EmbeddedStore(folder, InboxOptions(), ServerClock(), reactor)
        self.addCleanup(second.stop)
        await self.assertFailure(second.start(), ConfigurationError)

    async def test_restart_keeps_everything(self) -> None:
        """Epoch, numbers, cursors, clientMsgIds and the archive outlive the process."""
        folder = self.mktemp()
        store = await self.make(folder=folder)
        first = submission("alice", ["bob"], client_msg_id="c", msg="kept")
        (placed,) = await store.accept([first])
        await store.publish([ArchiveRecord(first.body)])
        await store.stop()
        store = await self.make(folder=folder)
        (again,) = await store.accept([submission("alice", ["bob"], client_msg_id="c", msg="kept")])
        self.assertEqual(again.message_id, first.message_id)
        registered = await self.connect(store, "bob", "c")
        self.assertEqual(registered.page.epoch, placed.deliveries[0].epoch)
        self.assertEqual(texts(registered.page), [(1, "kept")])
        history = await store.history(HistoryQuery("bob", None))
        self.assertEqual(history.messages, [first.body])
