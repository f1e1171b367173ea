"""Makes embedded stores for tests, in folders of the test's own and with a clock that it steps."""

from __future__ import annotations

import time
from typing import Any

from twisted.trial import unittest

from imd.contracts.inbox import Inbox, InboxOptions
from imd.protocol.ids import ServerClock
from imd.store.embedded.backend import EmbeddedStore
from tests.contract.support import InboxHarness


class SteppedClock(ServerClock):
    """Time goes by when the test says so."""

    def __init__(self, seconds: float = 0.0, set_by: float = 0.0) -> None:
        self.seconds = seconds
        self.set_by = set_by
        """seconds by which somebody has set the wall clock"""
        now = time.time()
        super().__init__(lambda: now + self.seconds + self.set_by, lambda: self.seconds)


class EmbeddedHarness(InboxHarness, unittest.TestCase):
    """Makes stores in folders of the test's own, with a clock that it steps."""

    timeout = 300

    def setUp(self) -> None:
        self.folder = self.mktemp()
        self.clock = SteppedClock()

    def new_store(self, **options: Any) -> EmbeddedStore:
        """Not started; on the same folder each time, stopped when the test is over."""
        store = EmbeddedStore(self.folder, InboxOptions(**options), self.clock)
        self.addCleanup(store.stop)
        return store

    def id_clock(self) -> ServerClock:
        return self.clock

    async def make_inbox(self, options: InboxOptions) -> Inbox:
        self.store = EmbeddedStore(self.folder, options, self.clock)
        self.addCleanup(self.store.stop)
        await self.store.start()
        return self.store

    async def advance(self, seconds: float) -> None:
        self.clock.seconds += seconds

    async def begin_again(self, **options: Any) -> None:
        """The next life of the process."""
        await self.store.stop()
        await self.begin(**options)
