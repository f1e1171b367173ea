"""Marks and settings of the cluster, and of the embedded backend, keep the contract."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.trial import unittest

from imd.contracts.inbox import InboxOptions
from imd.contracts.state import Changes, Mark, StateStore
from imd.contracts.state_rules import CUT_AT, CUT_TO, pair_id
from imd.protocol.errors import Unavailable
from imd.protocol.selector import Selector
from imd.store import state as cluster
from imd.store.mongo import archive as mongo_archive
from imd.store.mongo import state_batch
from imd.store.mongo.archive import MongoArchive
from imd.store.mongo.state import StateDocuments
from imd.store.mongo.state_batch import Batch
from imd.store.state import ClusterStates
from tests.contract.embedded_harness import EmbeddedHarness
from tests.contract.state_contract import StateContract, StateHarness, message_id
from tests.support.servers import shared


class EmbeddedStateContractTests(StateContract, EmbeddedHarness):
    async def make_states(self) -> StateStore:
        await self.make_inbox(InboxOptions())
        return self.store.states

    async def begin(self) -> None:  # type: ignore[override]
        await StateContract.begin(self)

    async def block(self, user: str, other: str, on: bool) -> None:
        await self.store.blocks.block(user, other, on)


class ClusterStateHarness(unittest.TestCase):
    """`archive` may be shared by several nodes."""

    async def make_states(self) -> ClusterStates:
        # No test waits for these deadlines.
        self.patch(cluster, "ANSWER_SECONDS", 60.0)
        self.patch(mongo_archive, "SELECTION_SECONDS", 60.0)
        self.archive = MongoArchive(reactor, shared().mongo_url(), timeout_seconds=60)
        self.addCleanup(self.archive.stop)
        await self.archive.start()
        return await self.make_node()

    async def block(self, user: str, other: str, on: bool) -> None:
        change = {"$addToSet" if on else "$pull": {"users": other}}
        await self.archive.run(
            lambda archive: archive.database["im_block"].update_one({"_id": user}, change, upsert=True)
        )

    async def make_node(self) -> ClusterStates:
        """The states of one more node on the same servers."""
        states = ClusterStates(reactor, self.archive, 30)
        self.addCleanup(states.stop)
        await states.start()
        return states


class ClusterStateContractTests(ClusterStateHarness, StateContract):
    pass


class StateDocumentTests(ClusterStateHarness, StateHarness):
    """Documents of MongoDB: several nodes, nodes that die, users with very many conversations."""

    async def document(self, user: str) -> dict[str, Any]:
        found = await self.states._ask(lambda batch: batch._documents._states.find_one({"_id": user}))
        return found or {}

    async def test_nodes_that_race(self) -> None:
        """Changes of the same states by several nodes at a time: none is lost, and versions count them."""
        await self.begin()
        nodes = [self.states, await self.make_node()]
        told: list[Changes] = []
        for node in nodes:
            node.listen(told.extend)
        changes = []
        for n in range(40):
            user, other = [("alice", "bob"), ("bob", "alice"), ("carol", "bob")][n % 3]
            mark = Mark(pair_id(user, other), Selector(with_=other), message_id(n), other)
            changes.append(nodes[n % 2].change(user, [mark], None, None))
        outcomes = await gatherResults(changes)
        self.assertEqual({type(outcome) for outcome in outcomes}, {Changes})
        for user, other, highest in (("alice", "bob", 39), ("bob", "alice", 37), ("carol", "bob", 38)):
            self.assertEqual((await self.all_of(user))[other].read, message_id(highest))
            self.assertEqual(await self.seen(other, user), message_id(highest))
        for user, version in (await self.states.versions(["alice", "bob", "carol"])).items():
            self.assertEqual(max(one.version for one in told if one.user == user), version)

    async def test_overtaken_after_the_peer(self) -> None:
        """Others come between the two writes: the peer is told of what the first one gave."""
        await self.begin()
        told: list[Changes] = []
        self.states.listen(told.extend)
        write, written = StateDocuments.write, []

        def overtaken(documents: StateDocuments, changes: Any) -> bool:
            written.append(None)
            return len(written) != 2 and write(documents, changes)

        self.patch(StateDocuments, "write", overtaken)
        await self.read("alice", "bob", 5)
        self.assertGreater(len(written), 2)
        self.assertEqual(await self.seen("bob", "alice"), message_id(5))
        for user, version in (await self.states.versions(["alice", "bob"])).items():
            self.assertEqual(max((one.version for one in told if one.user == user), default=0), version)

    async def test_dying_before_ones_own(self) -> None:
        """A node that dies between the two writes has told the peer; the mark, sent again, does the rest."""
        await self.begin()
        write, written = StateDocuments.write, []

        def die(documents: StateDocuments, changes: Any) -> bool:
            written.append(None)
            if len(written) == 2:
                raise Unavailable("dead")
            return write(documents, changes)

        self.patch(StateDocuments, "write", die)
        error = await self.assertFailure(ensureDeferred(self.read("alice", "bob", 5)), Unavailable)
        self.assertIn("dead", str(error))
        self.assertEqual(await self.seen("bob", "alice"), message_id(5))
        self.assertEqual(await self.states.versions(["alice", "bob"]), {"alice": 0, "bob": 1})
        await self.read("alice", "bob", 5)
        self.assertEqual(await self.states.versions(["alice", "bob"]), {"alice": 1, "bob": 1})

    async def test_peers_that_are_changed_meanwhile(self) -> None:
        """One's own document is not written before those of all peers are."""
        await self.begin()
        other, write = await self.make_node(), StateDocuments.write
        steps: list[dict[str, int]] = []

        def overtaken(documents: StateDocuments, changes: Any) -> bool:
            if not steps:
                documents._states.update_one({"_id": "bob"}, {"$set": {"v": 5, "c": {}}}, upsert=True)
            done = write(documents, changes)
            steps.append(documents.versions(["alice", "bob"]))
            return done

        self.patch(StateDocuments, "write", overtaken)
        await self.read("alice", "bob", 5)
        self.assertEqual(steps, [{"alice": 0, "bob": 5}, {"alice": 0, "bob": 6}, {"alice": 1, "bob": 6}])
        self.assertEqual(await other.versions(["alice", "bob"]), {"alice": 1, "bob": 6})

    async def test_others_first_for_ever(self) -> None:
        """After a few rounds it is unavailable."""
        await self.begin()
        self.patch(StateDocuments, "write", lambda documents, changes: False)
        await self.assertFailure(ensureDeferred(self.read("alice", "bob", 5)), Unavailable)

    async def test_peers_that_are_owed_word(self) -> None:
        """A node dies before all peers know that receipts are shown again: the next change tells them."""
        await self.begin()
        await self.read("alice", "bob", 5)
        await self.set("alice", receipts=False)
        settle = Batch._settle

        def die(batch: Batch, user: str) -> list[Changes]:
            self.patch(Batch, "_settle", settle)
            raise Unavailable("dead")

        self.patch(Batch, "_settle", die)
        await self.assertFailure(ensureDeferred(self.set("alice", receipts=True)), Unavailable)
        had = (await self.states.versions(["bob"]))["bob"]
        await self.set("alice", "carol", muted=True)
        self.assertEqual((await self.states.versions(["bob"]))["bob"], had + 1)
        self.assertNotIn("owed", await self.document("alice"))
        await self.set("alice", "carol", muted=False)
        self.assertEqual((await self.states.versions(["bob"]))["bob"], had + 1)

    async def test_peers_of_moved_conversations(self) -> None:
        """Peers whose conversation has left the document are told that receipts are shown again, too."""
        await self.begin()
        for other in ("bob", "carol"):
            await self.read("alice", other, 5)
        await self.set("alice", receipts=False)

        def move(batch: Batch) -> None:
            found = batch._documents.whole(["alice"])["alice"]
            entry = found.state.entries[pair_id("alice", "bob")]
            batch._documents.move(found, [entry], lambda user: None)

        await self.states._ask(move)
        had = await self.states.versions(["bob", "carol"])
        self.patch(state_batch, "TOUCHED_AT_ONCE", 1)
        await self.set("alice", receipts=True)
        now = await self.states.versions(["bob", "carol"])
        self.assertEqual(now, {user: version + 1 for user, version in had.items()})
        self.assertEqual(await self.seen("bob", "alice"), message_id(5))

    async def test_very_many_conversations(self) -> None:
        """The oldest are moved, and nothing is forgotten: a mark that was moved does not fall."""
        await self.begin()
        await self.set("alice", "pinned", pinned=True)
        await self.set("alice", "cleared", cleared=message_id(7))
        names = [f"user-{n}" for n in range(CUT_AT - 10)] + [f"visitor-{n}" for n in range(10)]
        for start in range(0, CUT_AT, 200):
            part = names[start : start + 200]
            marks = [Mark(pair_id("alice", one), Selector(with_=one), message_id(9)) for one in part]
            await self.change("alice", *marks)
        document = await self.document("alice")
        # A frame later, as it is done behind the answer.
        while "old" not in document:
            await self.set("alice", "pinned", marked=True)
            document = await self.document("alice")
        self.assertEqual((len(document["c"]), document["weight"]), (CUT_TO, CUT_TO))
        gone = [one for one in names if pair_id("alice", one) not in document["c"]]
        self.assertEqual(len(gone), CUT_AT + 1 - CUT_TO)
        first, last = pair_id("alice", gone[0]), pair_id("alice", names[-1])
        found = await self.states.entries("alice", [first, last, pair_id("alice", "pinned")])
        self.assertEqual([found[name].read for name in (first, last)], [message_id(9)] * 2)
        self.assertEqual(await self.states.cleared("alice"), {pair_id("alice", "cleared"): message_id(7)})
        for changes in (
            await self.states.since("alice", 1),
            await self.set("alice", "pinned", marked=False, since=1),
        ):
            self.assertEqual((changes.all, len(changes.entries)), (True, CUT_AT + 2))
        changes = await self.change("alice", Mark(first, Selector(with_=gone[0]), message_id(8)))
        self.assertEqual([entry.read for entry in changes.entries], [message_id(9)])
        await self.set("alice", gone[0], muted=True)
        self.assertEqual((await self.document("alice"))["c"][first]["r"], message_id(9))

    async def test_moved_twice(self) -> None:
        """Two threads, or nodes, move the same entries: their weight is taken off once."""
        await self.begin()
        for other in ("bob", "carol", "dave"):
            await self.read("alice", other, 5)

        def move_twice(batch: Batch) -> None:
            documents = batch._documents
            found = documents.whole(["alice"])["alice"]
            leaving = [found.state.entries[pair_id("alice", "bob")]]
            for _ in range(2):
                documents.move(found, leaving, lambda user: None)

        await self.states._ask(move_twice)
        document = await self.document("alice")
        self.assertEqual((len(document["c"]), document["weight"]), (2, 2))

    async def test_moved_meanwhile(self) -> None:
        """An entry is moved while a change of it is decided: the change is decided again."""
        await self.begin()
        for other in ("bob", "carol"):
            await self.read("alice", other, 5)
        write = StateDocuments.write

        def overtaken(documents: StateDocuments, changes: Any) -> bool:
            self.patch(StateDocuments, "write", write)
            found = documents.whole(["alice"])["alice"]
            documents.move(found, [found.state.entries[pair_id("alice", "bob")]], lambda user: None)
            return write(documents, changes)

        await self.set("alice", "bob", pinned=True)
        self.patch(StateDocuments, "write", overtaken)
        await self.set("alice", "bob", muted=True)
        self.assertIs(StateDocuments.write, write)
        document = await self.document("alice")
        self.assertEqual((len(document["c"]), document["weight"]), (2, 2))
        name = pair_id("alice", "bob")
        entry = (await self.states.entries("alice", [name]))[name]
        self.assertEqual((entry.selector.with_, entry.read, entry.pinned), ("bob", message_id(5), True))

    async def test_visitors_end(self) -> None:
        """A visitor's document ends by itself, its days after the last change; nobody else's does."""
        await self.begin()
        await self.read("visitor-1", "anna", 5)
        left = (await self.document("visitor-1"))["exp"].replace(tzinfo=UTC) - datetime.now(UTC)
        self.assertTrue(29.9 < left.total_seconds() / 86_400 <= 30, left)
        self.assertNotIn("exp", await self.document("anna"))

    async def test_mongodb_away(self) -> None:
        """Everything is unavailable at once."""
        archive = MongoArchive(reactor, "mongodb://127.0.0.1:1/imd")
        states = ClusterStates(reactor, archive, 30)
        self.addCleanup(states.stop)
        await states.start()
        mark = Mark(pair_id("alice", "bob"), Selector(with_="bob"), message_id(1), "bob")
        for asked in (
            states.change("alice", [mark], None, None),
            states.since("alice", 1),
            states.versions(["alice"]),
        ):
            self.failureResultOf(asked, Unavailable)
