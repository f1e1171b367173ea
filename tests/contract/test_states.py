"""Marks and settings of the cluster, and of the embedded backend, keep the contract."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial import unittest

from imd.contracts.inbox import InboxOptions
from imd.contracts.state import StateStore
from imd.store.mongo.archive import MongoArchive
from imd.store.state import ClusterStates
from tests.contract.embedded_harness import EmbeddedHarness
from tests.contract.state_contract import StateContract
from tests.support.servers import shared


class EmbeddedStateContractTests(StateContract, EmbeddedHarness):
    async def make_states(self) -> StateStore:
        await self.make_inbox(InboxOptions())
        return self.store.states

    async def begin(self) -> None:  # type: ignore[override]
        await StateContract.begin(self)


class ClusterStateContractTests(StateContract, unittest.TestCase):
    async def make_states(self) -> ClusterStates:
        self.archive = MongoArchive(reactor, shared().mongo_url())
        self.addCleanup(self.archive.stop)
        await self.archive.start()
        return await self.make_node()

    async def make_node(self) -> ClusterStates:
        """The states of one more node on the same servers."""
        states = ClusterStates(reactor, self.archive, 30)
        self.addCleanup(states.stop)
        await states.start()
        return states
