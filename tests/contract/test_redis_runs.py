"""Redis that fails over and back, restarts, reloads: whether it is the same run, and who is told."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial import unittest

from imd.contracts.inbox import Ack, ConnectRequest, InboxOptions, Lease, NotAllowed, Placed
from imd.contracts.level import FIRST
from imd.protocol.errors import ConfigurationError, Unavailable
from imd.protocol.ids import ServerClock
from imd.store import blocks as cluster_blocks
from imd.store.blocks import ClusterBlocks
from imd.store.mongo import archive as mongo_archive
from imd.store.mongo.archive import MongoArchive
from imd.store.redis import connection as redis_connection
from imd.store.redis.blocks import BlockCopies
from imd.store.redis.inbox import RedisInbox
from tests.contract.redis_harness import ANSWER_SECONDS
from tests.contract.test_inbox_redis import submission
from tests.protocol.clusters import RawRedis
from tests.protocol.support import new_folder
from tests.support.primaries import Address, Primary
from tests.support.rabbit import until
from tests.support.servers import HOST, RedisServer, shared


class RunHarness(unittest.TestCase):
    """Two servers, the second one a replica that has stopped following when a story begins."""

    timeout = 300

    def server(self, *options: str, **more: Any) -> Primary:
        server = Primary(new_folder(), *options, **more)
        self.addCleanup(server.kill)
        server.start()
        return server

    async def address(self, server: RedisServer) -> Address:
        address = Address(server)
        self.addCleanup(address.end)
        return address

    async def node(self, url: str, *, lossless: bool = False) -> RedisInbox:
        inbox = RedisInbox(
            reactor, url, InboxOptions(), ServerClock(), lossless=lossless, timeout_seconds=ANSWER_SECONDS
        )
        self.addCleanup(inbox.stop)
        await inbox.start()
        return inbox

    async def connected(self, *inboxes: RedisInbox) -> None:
        """They have answers, also those that have not noticed yet that they were cut off."""
        end = time.monotonic() + 180
        for inbox in inboxes:
            while True:
                try:
                    await inbox.era()
                    break
                except Unavailable:
                    self.assertLess(time.monotonic(), end)
                    await deferLater(reactor, 0.05)

    async def send(self, inbox: RedisInbox, user: str, count: int, first: int = 1) -> None:
        batch = [submission("alice", [user], msg=str(n)) for n in range(first, first + count)]
        for outcome in await inbox.accept(batch):
            self.assertIsInstance(outcome, Placed)

    async def register(self, inbox: RedisInbox, user: str, channel: str, **more: Any) -> Any:
        return await inbox.connect(ConnectRequest(user, "phone", channel, **more))

    async def has_read(self, inbox: RedisInbox, user: str, count: int) -> str:
        """A device that gets so many messages, and acknowledges them; gives its epoch."""
        epoch: str = (await self.register(inbox, user, "first")).page.epoch
        await self.send(inbox, user, count)
        head = await inbox.ack(Ack(user, "phone", "first", epoch, count, start_confirmed=True))
        self.assertEqual((head.epoch, head.seq), (epoch, count))
        return epoch


Story = Callable[[], Awaitable[None]]


class StoryTests(RunHarness):
    """Each story, with one node and with three, for devices that are away and for connected ones."""

    nodes = 1
    lossless = False

    async def setUp(self) -> None:
        self.r1, self.r2 = self.server(), self.server()
        self.place = await self.address(self.r1)
        self.inboxes = [await self.node(self.place.url, lossless=self.lossless) for _ in range(self.nodes)]

    async def begin(self) -> None:
        """r2 has half of what r1 has; a device of each node has read all of it."""
        self.epochs = {}
        for number, inbox in enumerate(self.inboxes):
            for user in (f"away{number}", f"here{number}"):
                await self.has_read(inbox, user, 5)
        self.r2.follow(self.r1)
        self.r2.lead()
        for number, inbox in enumerate(self.inboxes):
            for user in (f"away{number}", f"here{number}"):
                await self.send(inbox, user, 5, 6)
                epoch = (await inbox.pull(user, "", 0, 0)).epoch
                await inbox.ack(Ack(user, "phone", "first", epoch, 10))
                self.epochs[user] = epoch
        self.era = await self.inboxes[0].era()

    async def renew(self, number: int) -> Any:
        inbox = self.inboxes[number]
        return await inbox.renew(Lease(f"here{number}", "phone", "first", False, True))

    async def all_are_told(self) -> None:
        """Nobody takes the numbers of this run for those of another."""
        await self.connected(*self.inboxes)
        # The messages that would be missed come first, as from a client that is faster than all else.
        for number, inbox in enumerate(self.inboxes):
            await self.send(inbox, f"away{number}", 5, 11)
        eras = {await inbox.era() for inbox in self.inboxes}
        self.assertEqual(len(eras), 1)
        self.assertNotIn(self.era, eras)
        for number in range(len(self.inboxes)):
            self.assertNotEqual((await self.renew(number)).epoch, self.epochs[f"here{number}"])
            user = f"away{number}"
            back = await self.register(
                self.inboxes[number - 1], user, "again", epoch=self.epochs[user], seq=10
            )
            self.assertIs(back.recovered, False)
            self.assertNotEqual(back.page.epoch, self.epochs[user])
        self.assertEqual({await inbox.era() for inbox in self.inboxes}, eras)

    async def nobody_is_told(self) -> None:
        await self.connected(*self.inboxes)
        self.assertEqual({await inbox.era() for inbox in self.inboxes}, {self.era})
        for number, inbox in enumerate(self.inboxes):
            user = f"away{number}"
            await self.send(inbox, user, 5, 11)
            head = await self.renew(number)
            self.assertEqual((head.held, head.epoch, head.seq), (True, self.epochs[f"here{number}"], 10))
            back = await self.register(inbox, user, "again", epoch=self.epochs[user], seq=10)
            self.assertEqual((back.recovered, back.page.epoch), (True, self.epochs[user]))
            self.assertEqual([seq for seq, _ in back.page.messages], list(range(11, 16)))

    def fail_back(self) -> None:
        """r1 takes over what r2 has, and is a primary again; a matter of milliseconds."""
        self.r1.follow(self.r2)
        self.r1.lead()

    # the same run

    async def test_first_replica_attaches(self) -> None:
        await self.begin()
        replid = self.r1.replication()["master_replid"]
        r3 = self.server()
        # The backlog that the first replica left has to go first.
        self.r1.ask("CONFIG", "SET", "repl-backlog-ttl", "1")
        await self.ask_until(lambda: self.r1.replication()["repl_backlog_active"] == "0")
        r3.follow(self.r1)
        self.assertNotEqual(self.r1.replication()["master_replid"], replid)
        await self.nobody_is_told()

    async def test_backlog_ends(self) -> None:
        await self.begin()
        replid = self.r1.replication()["master_replid"]
        self.r1.ask("CONFIG", "SET", "repl-backlog-ttl", "1")
        await self.ask_until(lambda: self.r1.replication()["master_replid"] != replid)
        await self.nobody_is_told()

    async def ask_until(self, condition: Callable[[], bool]) -> None:
        """Twice a second, as nodes do."""
        end = time.monotonic() + 180
        while not condition():
            self.assertLess(time.monotonic(), end)
            for inbox in self.inboxes:
                await inbox.era()
            await deferLater(reactor, 0.05)

    async def test_reloaded(self) -> None:
        await self.begin()
        self.r1.ask("DEBUG", "RELOAD")
        await self.nobody_is_told()

    async def test_file_loaded_again(self) -> None:
        await self.begin()
        self.r1.ask("DEBUG", "LOADAOF")
        await self.nobody_is_told()

    # another run

    async def test_failback(self) -> None:
        """Nodes have followed to r2, and come back."""
        await self.begin()
        self.place.lead_to(self.r2)
        self.place.cut()
        await self.all_are_told()
        self.era = await self.inboxes[0].era()
        for number, inbox in enumerate(self.inboxes):
            for user in (f"away{number}", f"here{number}"):
                self.epochs[user] = (await inbox.pull(user, "", 0, 0)).epoch
        self.r1.follow(self.r2)
        self.place.lead_to(self.r1)
        self.place.cut()
        self.r1.lead()
        await self.all_are_told()

    async def test_flip(self) -> None:
        """Nodes notice nothing: their connections to r1 survive."""
        await self.begin()
        self.fail_back()
        await self.all_are_told()

    async def test_two_flips(self) -> None:
        await self.begin()
        self.fail_back()
        self.fail_back()
        await self.all_are_told()

    async def test_failover(self) -> None:
        await self.begin()
        self.place.lead_to(self.r2)
        self.r1.kill()
        await self.all_are_told()

    async def test_failover_by_command(self) -> None:
        """Redis hands over in good order and loses nothing, but that cannot be seen."""
        await self.begin()
        self.r2.follow(self.r1)
        self.place.lead_to(self.r2)
        self.r1.ask("FAILOVER", "TO", HOST, self.r2.port)
        await until(lambda: self.r2.replication()["role"] == "master", "r2 leads")
        self.place.cut()
        await self.all_are_told()

    async def test_failback_of_a_restarted_one(self) -> None:
        """Both: the process is another, and was a replica."""
        await self.begin()
        await deferToThread(self.r1.restart)
        self.fail_back()
        await self.all_are_told()

    async def test_failback_without_full_synchronisation(self) -> None:
        """r1 is not ahead of r2, and gets only what it lacks."""
        await self.begin()
        self.r2.follow(self.r1)
        full = int(self.r2.ask("INFO", "stats").split(b"sync_full:")[1].split()[0])
        self.r2.lead()
        self.fail_back()
        self.assertEqual(int(self.r2.ask("INFO", "stats").split(b"sync_full:")[1].split()[0]), full)
        await self.all_are_told()

    async def test_failback_while_all_nodes_are_down(self) -> None:
        await self.begin()
        for inbox in self.inboxes:
            await inbox.stop()
        self.fail_back()
        self.inboxes = [await self.node(self.place.url, lossless=self.lossless) for _ in self.inboxes]
        await self.all_are_told()

    async def test_promotion_hidden_by_the_end_of_the_backlog(self) -> None:
        await self.begin()
        for server in (self.r1, self.r2):
            server.ask("CONFIG", "SET", "repl-backlog-ttl", "1")
        for inbox in self.inboxes:
            await inbox.stop()
        self.fail_back()
        await until(lambda: set(self.r1.replication()["master_replid2"]) == {"0"}, "the backlog ends")
        self.inboxes = [await self.node(self.place.url, lossless=self.lossless) for _ in self.inboxes]
        await self.all_are_told()

    async def test_failover_hidden_by_the_end_of_the_backlog(self) -> None:
        await self.begin()
        self.r2.ask("CONFIG", "SET", "repl-backlog-ttl", "1")
        for inbox in self.inboxes:
            await inbox.stop()
        self.r1.kill()
        await until(lambda: set(self.r2.replication()["master_replid2"]) == {"0"}, "the backlog ends")
        self.place.lead_to(self.r2)
        self.inboxes = [await self.node(self.place.url, lossless=self.lossless) for _ in self.inboxes]
        await self.all_are_told()

    async def test_flushall(self) -> None:
        await self.begin()
        self.r1.ask("FLUSHALL")
        await self.all_are_told()

    async def test_restart(self) -> None:
        await self.begin()
        await deferToThread(self.r1.restart)
        await (self.nobody_is_told() if self.lossless else self.all_are_told())


class ThreeNodesTests(StoryTests):
    nodes = 3


class LosslessTests(StoryTests):
    """A failover shows although the operator says that there is none."""

    lossless = True


class LosslessThreeNodesTests(LosslessTests):
    nodes = 3


class OtherProcessTests(RunHarness):
    """With `lossless`, a process that is new to `imd:run`: a restart is the same run, a promotion is not."""

    async def is_same(self, server: Primary, at: int) -> bool:
        """Whether it still is the run, if it was seen last at that time, in ms, as another process."""
        era, _, replid, _, began = server.ask("GET", "imd:run").decode().split()
        server.ask("SET", "imd:run", f"{era} {'f' * 40} {replid} {at} {began}")
        return await (await self.node(server.url, lossless=True)).era() == era

    def started(self, server: Primary) -> int:
        """The second in which the server was started."""
        info = dict(line.split(":", 1) for line in server.ask("INFO").decode().splitlines() if ":" in line)
        return int(info["server_time_usec"]) // 1_000_000 - int(info["uptime_in_seconds"])

    async def test_start(self) -> None:
        """It counts as a restart from the second on in which Redis was seen last."""
        server = self.server()
        await self.node(server.url, lossless=True)
        started = self.started(server)
        self.assertIs(await self.is_same(server, started * 1000 - 3_600_000), True)
        self.assertIs(await self.is_same(server, started * 1000 + 999), True)
        self.assertIs(await self.is_same(server, started * 1000 + 1000), False)

    async def test_former_replica(self) -> None:
        """It tells by what it got as a replica, whatever the clocks say; else by its start."""
        r1, r2 = self.server(), self.server()
        await self.node(r1.url, lossless=True)
        for server in (r1, r2):
            server.ask("CONFIG", "SET", "repl-backlog-ttl", "1")
        r2.follow(r1)
        r2.lead()
        await until(lambda: set(r2.replication()["master_replid2"]) == {"0"}, "the backlog ends")
        started = self.started(r2)
        # By r1's clock, which is an hour behind, r2 was started afterwards.
        self.assertIs(await self.is_same(r2, started * 1000 - 3_600_000), False)
        r2.ask("CONFIG", "RESETSTAT")
        self.assertIs(await self.is_same(r2, started * 1000 + 1000), False)


class HeadsOfOldNodesTests(RunHarness):
    """Nodes of 0.1 note the process of Redis in heads, not the run."""

    async def test_restarts(self) -> None:
        """With `lossless` they keep their epochs over restarts of Redis, but not into another run."""
        server = self.server()
        inbox = await self.node(server.url, lossless=True)
        inbox.set_level(FIRST)
        run_id = server.ask("INFO", "server").decode().split("run_id:")[1].split()[0]
        for user in ("bob", "carol"):
            server.ask("HSET", f"imd:{{{user}}}:head", "epoch", "e0", "seq", "7", "run", run_id)
        for _ in range(2):
            await deferToThread(server.restart)
            await self.connected(inbox)
        self.assertEqual((await inbox.pull("bob", "", 0, 0)).epoch, "e0")
        server.ask("DEL", "imd:run")
        await self.connected(inbox)
        for user in ("bob", "carol"):
            self.assertNotEqual((await inbox.pull(user, "", 0, 0)).epoch, "e0", user)


class TwoPrimariesHarness(RunHarness):
    """Two nodes, and a replica that may lead beside its primary."""

    async def setUp(self) -> None:
        self.r1, self.r2 = self.server(), self.server()
        self.to_a, self.to_b = await self.address(self.r1), await self.address(self.r1)
        self.a, self.b = await self.node(self.to_a.url), await self.node(self.to_b.url)
        self.epoch = await self.has_read(self.a, "bob", 5)
        self.r2.follow(self.r1)

    async def move(self, inbox: RedisInbox, address: Address, server: RedisServer) -> None:
        address.lead_to(server)
        address.cut()
        await self.connected(inbox)


class TwoPrimariesTests(TwoPrimariesHarness):
    """For a moment two servers take messages."""

    async def test_write_to_the_old_one(self) -> None:
        """Bob has been told by r2 already when r1 accepts what r2 will never have: he is told again."""
        self.r2.lead()
        await self.move(self.b, self.to_b, self.r2)
        told = await self.register(self.b, "bob", "chan", epoch=self.epoch, seq=5)
        self.assertIs(told.recovered, False)
        await self.send(self.a, "bob", 1)
        era = await self.b.era()
        await self.move(self.a, self.to_a, self.r2)
        self.assertNotEqual(await self.b.era(), era)
        head = await self.b.renew(Lease("bob", "phone", "chan", False, True))
        self.assertNotEqual(head.epoch, told.page.epoch)
        self.assertEqual(await self.a.era(), await self.b.era())

    async def test_clocks_that_differ(self) -> None:
        """Numbers of runs may be far from the time: r1's clock was an hour ahead when it began."""
        _, *rest = self.r1.ask("GET", "imd:run").decode().split()
        ahead = f"{int(time.time() * 1000) + 3_600_000} {' '.join(rest)}"
        self.r1.ask("SET", "imd:run", ahead)
        self.r2.follow(self.r1)
        await self.test_write_to_the_old_one()
        self.assertGreater(int(await self.a.era()), int(ahead.split()[0]))

    async def test_connection_lost_in_between(self) -> None:
        """The last write counts, however often the node connects anew before it has moved."""
        self.r2.lead()
        await self.move(self.b, self.to_b, self.r2)
        await self.send(self.a, "bob", 1)
        await self.move(self.a, self.to_a, self.r1)
        r3 = self.server()
        r3.follow(self.r2)
        self.to_a.lead_to(r3)
        self.to_a.cut()
        await until(lambda: "READONLY" in (self.a.problem() or ""), "a has met a replica")
        era = await self.b.era()
        self.to_a.lead_to(self.r2)
        self.to_a.cut()
        await self.connected(self.a)
        self.assertNotEqual(await self.b.era(), era)

    async def test_no_more_than_once(self) -> None:
        """A node that has come writes, and moves nobody to yet another run."""
        self.r2.lead()
        await self.move(self.b, self.to_b, self.r2)
        await self.send(self.a, "bob", 1)
        await self.send(self.b, "bob", 1)
        await self.move(self.a, self.to_a, self.r2)
        era = await self.a.era()
        for _ in range(3):
            await self.send(self.a, "bob", 1)
            await self.send(self.b, "bob", 1)
        self.assertEqual((await self.a.era(), await self.b.era()), (era, era))

    async def test_no_write_to_the_old_one(self) -> None:
        """A node that was only slow to move is no reason to tell anybody anything."""
        await self.send(self.a, "bob", 1)
        # A minute ago: the node takes some time to tell how long ago it was, which counts as later.
        pair = self.a.calls.redis
        assert pair._wrote is not None
        pair._wrote = pair._wrote._replace(at=pair._wrote.at - 60)
        self.r2.lead()
        await self.move(self.b, self.to_b, self.r2)
        era = await self.b.era()
        await self.a.pull("bob", "", 0, 10)
        await self.move(self.a, self.to_a, self.r2)
        self.assertEqual((await self.a.era(), await self.b.era()), (era, era))

    async def test_back_to_the_one_with_less(self) -> None:
        """A node that has seen a later run takes an earlier one's data for what they are: old."""
        self.r2.lead()
        await self.move(self.b, self.to_b, self.r2)
        await self.send(self.b, "bob", 3)
        era, old = await self.b.era(), await self.a.era()
        self.assertGreater(int(era), int(old))
        await self.move(self.b, self.to_b, self.r1)
        self.assertGreater(int(await self.b.era()), int(era))
        self.assertEqual(await self.a.era(), await self.b.era())

    async def test_connections_to_different_servers(self) -> None:
        """Neither is used before both lead to the same; and when one goes, both go."""
        self.r2.lead()
        alone = self.to_b.clients[-1]
        self.to_b.lead_to(self.r2)
        alone.transport.abortConnection()
        await until(lambda: self.b.problem() is not None, "the loss is noticed")
        await self.connected(self.b)
        await self.send(self.b, "bob", 1)
        self.assertEqual(len((await self.a.pull("bob", self.epoch, 0, 10)).messages), 0)
        self.assertEqual(int(self.r2.ask("HGET", "imd:{bob}:head", "seq")), 6)

    async def test_room_for_one_connection(self) -> None:
        """The one that got in waits for the other, whose trouble is named; both go on later, or stop."""
        one, two = (RedisInbox(reactor, self.to_a.url, InboxOptions(), ServerClock()) for _ in range(2))
        admin = RawRedis(self.r1.url)
        self.addCleanup(admin.close)
        most = int(admin("INFO", "clients").split(b"connected_clients:")[1].split()[0]) + 1
        admin("CONFIG", "SET", "maxclients", most)
        for inbox in (one, two):
            self.addCleanup(inbox.stop)
            inbox.start()
            await until(lambda inbox=inbox: "max number of clients" in (inbox.problem() or ""), "the problem")
        await self.assertFailure(one.accept([submission("alice", ["bob"])]), Unavailable)
        await two.stop()
        admin("CONFIG", "SET", "maxclients", 100)
        await self.connected(one)
        await self.send(one, "bob", 1)

    async def test_url_that_leads_to_two(self) -> None:
        """As behind a balancer that has both: nothing is accepted, and the problem says why."""
        self.r2.lead()
        ports = [self.r1.port, self.r2.port]

        class Alternating(Address):
            def buildProtocol(self, addr: Any) -> Any:
                ports.reverse()
                self.port = ports[0]
                return super().buildProtocol(addr)

        address = Alternating(self.r1)
        self.addCleanup(address.end)
        inbox = RedisInbox(reactor, address.url, InboxOptions(), ServerClock())
        self.addCleanup(inbox.stop)
        inbox.start()
        await until(lambda: "leads to two servers" in (inbox.problem() or ""), "the problem is named")
        await self.assertFailure(inbox.accept([submission("alice", ["bob"])]), Unavailable)


class BlocksOfTwoPrimariesTests(TwoPrimariesHarness):
    """For a moment two servers are told whom users block."""

    async def blocks(self, inbox: RedisInbox, archive: MongoArchive) -> ClusterBlocks:
        blocks = ClusterBlocks(reactor, archive, BlockCopies(inbox.calls))
        self.addCleanup(blocks.stop)
        await blocks.start()
        return blocks

    async def test_block_by_the_old_one(self) -> None:
        """The new one has been brought all lists already when the old one gets another: it learns of it."""
        self.patch(cluster_blocks, "ANSWER_SECONDS", ANSWER_SECONDS)
        self.patch(cluster_blocks, "LOOK_SECONDS", 0.05)
        self.patch(cluster_blocks, "SECOND_WALK_MS", 0)
        self.patch(mongo_archive, "SELECTION_SECONDS", ANSWER_SECONDS)
        archive = MongoArchive(reactor, shared().mongo_url(), timeout_seconds=ANSWER_SECONDS)
        self.addCleanup(archive.stop)
        await archive.start()
        at_a, at_b = await self.blocks(self.a, archive), await self.blocks(self.b, archive)
        self.r2.lead()
        await self.move(self.b, self.to_b, self.r2)
        era = await self.b.era()
        done = (int(era), cluster_blocks.WALKS)
        await until(lambda: at_b._walked[:2] == done, "all lists are brought, and nobody brings them again")
        self.assertIs(await at_a.block("alice", "eve", True), True)
        await self.move(self.a, self.to_a, self.r2)
        self.assertNotEqual(await self.b.era(), era)
        await until(lambda: at_a.loaded() and at_b.loaded(), "all lists are brought again")
        for inbox in (self.a, self.b):
            (outcome,) = await inbox.accept([submission("eve", ["alice"])])
            self.assertIsInstance(outcome, NotAllowed)

    async def test_list_that_the_old_one_has(self) -> None:
        """A node relies on that answer as well. The node that brought the list may have died."""
        copies = BlockCopies(self.a.calls)
        await copies.bring("alice", 1, ["eve"], copies.seen())
        self.become_idle()
        self.r2.lead()
        await self.move(self.b, self.to_b, self.r2)
        era = await self.b.era()
        self.assertIs(await copies.bring("alice", 1, ["eve"], copies.seen()), False)
        await self.move(self.a, self.to_a, self.r2)
        self.assertNotEqual(await self.b.era(), era)

    async def test_refused_list(self) -> None:
        """Nothing was done then, so nothing can be missing."""
        self.become_idle()
        self.r2.lead()
        await self.move(self.b, self.to_b, self.r2)
        era = await self.b.era()
        copies = BlockCopies(self.a.calls)
        seen = copies.seen()
        self.assertIs(await copies.bring("alice", 1, ["eve"], seen._replace(at=seen.at - 31_000)), True)
        await self.move(self.a, self.to_a, self.r2)
        self.assertEqual((await self.a.era(), await self.b.era()), (era, era))

    def become_idle(self) -> None:
        """Have the node take its last write for one of long ago."""
        self.a.calls.redis._wrote = None


class RefusedTests(RunHarness):
    """The Redis that imd needs, and the commands that it must allow."""

    async def test_cluster(self) -> None:
        """It is refused at the start, in words."""
        cluster = self.server("--cluster-enabled", "yes", databases=1)
        inbox = RedisInbox(reactor, cluster.url, InboxOptions(), ServerClock())
        self.addCleanup(inbox.stop)
        error = await self.assertFailure(inbox.start(), ConfigurationError)
        self.assertIn("Redis Cluster", str(error))

    async def test_info_is_denied_to_scripts(self) -> None:
        """Scripts may not ask, as their user may not: nothing is accepted, and the problem says why."""
        server = self.server()
        server.ask("ACL", "SETUSER", "imd", "on", ">pw", "~*", "+@all")
        inbox = await self.node(f"redis://imd:pw@{HOST}:{server.port}/0")
        await self.send(inbox, "bob", 1)
        server.ask("ACL", "SETUSER", "imd", "-info")
        error = await self.assertFailure(inbox.accept([submission("alice", ["bob"])]), Unavailable)
        self.assertIn("NOPERM scripts may not run INFO", str(error))
        server.ask("CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: "NOPERM" in (inbox.problem() or ""), "the problem is named")
        server.ask("ACL", "SETUSER", "imd", "+info")
        await self.connected(inbox)
        await self.send(inbox, "bob", 1)

    async def test_config_is_denied(self) -> None:
        """Then the backlog may have ended ten seconds after the last look."""
        server, replica = self.server(), self.server()
        server.ask("ACL", "SETUSER", "imd", "on", ">pw", "~*", "+@all", "-config")
        inbox = await self.node(f"redis://imd:pw@{HOST}:{server.port}/0")
        await self.send(inbox, "bob", 1)
        era = await inbox.era()
        replica.follow(server)
        self.assertEqual(await inbox.era(), era)
        for older_ms, expected in ((5_000, True), (11_000, False)):
            era, *rest = server.ask("GET", "imd:run").decode().split()
            at = int(rest[2]) - older_ms
            server.ask("SET", "imd:run", f"{era} {rest[0]} {'0' * 40} {at} {rest[3]}")
            inbox = await self.node(f"redis://imd:pw@{HOST}:{server.port}/0")
            self.assertEqual(await inbox.era() == era, expected)

    async def test_address_that_leads_to_a_replica(self) -> None:
        """Nothing is accepted, and the problem says why, until it leads to a primary."""
        r1, r2 = self.server(), self.server()
        address = await self.address(r1)
        inbox = await self.node(address.url)
        r2.follow(r1)
        address.lead_to(r2)
        address.cut()
        await until(lambda: "READONLY" in (inbox.problem() or ""), "the problem is named")
        await self.assertFailure(inbox.accept([submission("alice", ["bob"])]), Unavailable)
        r2.lead()
        await self.connected(inbox)
        await self.send(inbox, "bob", 1)

    async def test_replica_that_may_be_written_to(self) -> None:
        """A message that it accepted would be gone with the next synchronisation."""
        r1, r2 = self.server(), self.server("--replica-read-only", "no")
        inbox = await self.node(r2.url)
        await self.send(inbox, "bob", 1)
        r2.follow(r1)
        error = await self.assertFailure(inbox.accept([submission("alice", ["bob"])]), Unavailable)
        self.assertIn("READONLY", str(error))
        r2.lead()
        await self.connected(inbox)
        await self.send(inbox, "bob", 1)

    async def test_replicas_of_one_that_loses_nothing(self) -> None:
        """One warning while they follow."""
        self.patch(redis_connection, "SETTINGS_SECONDS", 0.05)
        told: list[Any] = []
        globalLogPublisher.addObserver(told.append)
        self.addCleanup(globalLogPublisher.removeObserver, told.append)

        def warnings() -> list[str]:
            texts = [event["log_format"] for event in told if event.get("log_level") == LogLevel.warn]
            return [text for text in texts if "lossless" in text]

        server, replica = self.server(), self.server()
        await self.node(server.url, lossless=True)
        await self.node(server.url)
        self.assertEqual(warnings(), [])
        replica.follow(server)
        await until(warnings, "the replica is seen")
        await deferLater(reactor, 0.3)
        self.assertEqual(len(warnings()), 1)

    async def test_rubbish_for_a_run(self) -> None:
        """Any rubbish there makes it another run, and the node goes on."""
        server = self.server()
        inbox = await self.node(server.url)
        await self.send(inbox, "bob", 1)
        for rubbish in (("SET", "imd:run", "1 2 3"), ("SET", "imd:run", ""), ("HSET", "imd:run", "n", "1")):
            era = await inbox.era()
            server.ask("DEL", "imd:run")
            server.ask(*rubbish)
            self.assertGreater(int(await inbox.era()), int(era))

    async def test_heads_of_the_version_before(self) -> None:
        """They name Redis' run id, from which nothing follows: each gets a new epoch, once."""
        server = self.server()
        inbox = await self.node(server.url)
        epoch = await self.has_read(inbox, "bob", 3)
        server.ask("HDEL", "imd:{bob}:head", "n")
        server.ask("HSET", "imd:{bob}:head", "run", "0" * 40)
        back = await self.register(inbox, "bob", "again", epoch=epoch, seq=3)
        self.assertIs(back.recovered, False)
        self.assertEqual(back.seq, 3)
        again = await self.register(inbox, "bob", "c3", epoch=back.page.epoch, seq=3)
        self.assertEqual((again.recovered, again.page.epoch), (True, back.page.epoch))
