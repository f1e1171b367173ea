"""Presence: who is shown to whom, how soon, and how seldom."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from imd.chat import sightings
from imd.chat.presence import BLOCKS_SECONDS
from imd.chat.sightings import GONE_SECONDS, PAUSE_SECONDS, QUIET_SECONDS, RENEW_SECONDS, TICK_SECONDS
from imd.contracts.presence import Seen
from tests.unit.chat.support import Client, ConnectionTestCase

HERE = Seen(60_000, True)


class PresenceTestCase(ConnectionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.services.presence.start()
        self.addCleanup(self.services.presence.stop)

    def watcher(self, *users: str, user: str = "alice", **fields: Any) -> Client:
        """A client that watches these users, and has its answer."""
        client = self.connected(user, **{"features": ["state"], **fields})
        self.watch(client, *users)
        return client

    def watch(self, client: Client, *users: str) -> dict[str, bool]:
        client.send(type="watch", ref="w-1", users=list(users))
        [answer] = client.take()
        self.assertEqual((answer["type"], answer["ref"]), ("presence", "w-1"), answer)
        return self.shown(answer)

    @staticmethod
    def shown(frame: dict[str, Any]) -> dict[str, bool]:
        return {one["userId"]: one["online"] for one in frame["users"]}

    def told(self, client: Client) -> dict[str, bool]:
        """The changes that a client was told of since the last time."""
        told: dict[str, bool] = {}
        for frame in client.take():
            self.assertNotIn("ref", frame)
            told.update(self.shown(frame))
        return told

    def put(self, user: str, seen: Seen = HERE, *, say: bool = True) -> None:
        """The registry has this from now on; and the nodes that watch are told."""
        self.aims.seen[user] = seen
        if say:
            self.sightings.look_again([user])

    def go_on(self, seconds: float) -> None:
        """Time passes, tick by tick; leases that are not renewed get shorter."""
        for _ in range(int(seconds / TICK_SECONDS)):
            self.clock.advance(TICK_SECONDS)


class WatchTests(PresenceTestCase):
    def test_answer_and_changes(self) -> None:
        """All named users in the answer, each once; later the changed ones."""
        self.put("bob")
        alice = self.watcher()
        self.assertEqual(self.watch(alice, "bob", "carol", "bob"), {"bob": True, "carol": False})
        self.put("carol")
        self.go_on(TICK_SECONDS)
        self.assertEqual(self.told(alice), {"carol": True})
        self.put("bob", Seen())
        self.go_on(PAUSE_SECONDS)
        self.assertEqual(self.told(alice), {"bob": False})

    def test_replaced_list(self) -> None:
        """A new list replaces the former; an empty one watches nobody. Nothing is left of either."""
        alice = self.watcher("bob", "carol")
        self.watch(alice, "carol", "dora")
        for user in ("bob", "carol", "dora"):
            self.put(user)
        self.go_on(1)
        self.assertEqual(self.told(alice), {"carol": True, "dora": True})
        self.assertEqual(self.watch(alice), {})
        self.assertEqual(self.sightings._watched, {})

    def test_known_users_are_not_asked_for(self) -> None:
        """A second watcher of the same users is answered from memory."""
        self.put("bob")
        self.watcher("bob")
        looks = len(self.aims.looked)
        second = self.watcher(user="mary")
        self.assertEqual(self.watch(second, "bob"), {"bob": True})
        self.assertEqual(len(self.aims.looked), looks)

    def test_connection_ends(self) -> None:
        """Its list goes with it."""
        alice, mary = self.watcher("bob"), self.watcher("bob", user="mary")
        alice.connection.lost(True)
        self.put("bob")
        self.go_on(1)
        self.assertEqual(self.told(mary), {"bob": True})
        mary.connection.lost(True)
        self.assertEqual(self.sightings._watched, {})

    def test_device_without_the_feature(self) -> None:
        """It is told of changes, as it has asked for them."""
        old = self.watcher("bob", features=["events"])
        self.put("bob")
        self.go_on(1)
        self.assertEqual(self.told(old), {"bob": True})
        old.connection.lost(True)
        self.assertEqual(self.sightings._watched, {})

    def test_refused(self) -> None:
        """Too many, a bad id, a visitor, a store that is down, a node that is full."""
        alice = self.watcher("bob")
        alice.send(type="watch", users=[f"u{n}" for n in range(201)])
        self.assert_error(alice, "too_large")
        alice.send(type="watch", users=["bob", ""])
        self.assert_error(alice, "invalid_message")
        self.aims.down = True
        alice.send(type="watch", users=["carol"])
        self.assert_error(alice, "unavailable")
        self.aims.down = False
        self.patch(sightings, "MAX_WATCHED", 2)
        alice.send(type="watch", ref="w", users=["carol", "dora"])
        [error] = alice.take()
        self.assertEqual((error["code"], error["retryAfterMs"], error["ref"]), ("unavailable", 5000, "w"))
        self.put("bob")
        self.go_on(1)
        self.assertEqual(self.told(alice), {"bob": True})
        visitor = self.connected(None, isVisitor=True, loginType=None)  # type: ignore[arg-type]
        visitor.send(type="watch", users=["bob"])
        self.assert_error(visitor, "forbidden")
        visitor.send(type="watch", users=["bob"] * 201)
        self.assert_error(visitor, "too_large")

    def test_blocks(self) -> None:
        """A user with a block in either direction looks offline, within a minute or when it is said."""
        self.put("bob")
        self.put("carol")
        self.aims.blocks = [{"alice", "carol"}]
        alice = self.watcher()
        self.assertEqual(self.watch(alice, "bob", "carol"), {"bob": True, "carol": False})
        self.aims.blocks = [{"bob", "alice"}]
        self.go_on(BLOCKS_SECONDS + 2)
        self.assertEqual(self.told(alice), {"bob": False, "carol": True})
        self.aims.blocks = []
        self.services.presence.blocks_changed([self.channel(alice), "gone"], b"")
        self.assertEqual(self.told(alice), {"bob": True})

    def test_slow_socket(self) -> None:
        """A device that takes nothing for a while is told as soon as it does, of blocks, too."""
        alice, mary = self.watcher("bob", "carol", "dora"), self.watcher("bob", user="mary")
        alice.wire.writable = mary.wire.writable = False
        self.put("bob")
        self.put("dora")
        self.go_on(1)
        self.put("dora", Seen())
        self.go_on(30)
        self.assertEqual((self.told(alice), self.told(mary)), ({}, {}))
        alice.wire.writable = True
        self.put("carol")
        self.go_on(1.25)
        self.assertEqual(self.told(alice), {"bob": True, "carol": True, "dora": False})
        alice.wire.writable = False
        self.aims.blocks = [{"bob", "alice"}]
        self.services.presence.blocks_changed([self.channel(alice)], b"")
        self.go_on(2)
        self.assertEqual(self.told(alice), {})
        alice.wire.writable = True
        self.go_on(1.25)
        self.assertEqual(self.told(alice), {"bob": False})
        self.go_on(5)
        self.assertEqual(self.told(alice), {})
        self.assertEqual(list(self.services.presence._owing), [self.channel(mary)])
        mary.connection.lost(True)
        self.go_on(2)
        self.assertEqual(list(self.services.presence._owing), [])

    def test_new_list_for_a_slow_socket(self) -> None:
        """The answer to a new list has all of it, so nothing is owed any more."""
        alice = self.watcher("bob")
        alice.wire.writable = False
        self.put("bob")
        self.go_on(1)
        self.assertEqual(self.watch(alice, "bob"), {"bob": True})
        alice.wire.writable = True
        self.go_on(2)
        self.assertEqual(self.told(alice), {})

    @staticmethod
    def channel(client: Client) -> str:
        assert client.connection.session is not None
        return client.connection.session.channel


class VisibleTests(PresenceTestCase):
    def seen_by(self, user: str, **fields: Any) -> dict[str, bool]:
        return self.watch(self.watcher(user=user, **fields), "bob", "cust")

    def setUp(self) -> None:
        super().setUp()
        self.put("bob")
        self.put("cust", Seen(60_000, False))

    def test_staff(self) -> None:
        """Users and agents see each other; a customer sees nobody, and nobody sees a customer."""
        self.assertEqual(self.seen_by("alice"), {"bob": True, "cust": False})
        self.assertEqual(self.seen_by("gert", isCustomerService=True), {"bob": True, "cust": False})
        self.assertEqual(self.seen_by("c2", loginType="CUSTOMER_TYPE"), {"bob": False, "cust": False})

    def changes_of_type(self, *types: bool) -> list[dict[str, bool]]:
        """The changes that a watcher is told of when `cust` becomes staff, or a customer again."""
        alice = self.watcher("cust")
        told = []
        for is_staff in types:
            self.put("cust", Seen(60_000, is_staff))
            self.go_on(PAUSE_SECONDS)
            told.append(self.told(alice))
        return told

    def test_type_changes(self) -> None:
        """A user who connects as staff beside a customer's connection has come, and the other way round."""
        told = self.changes_of_type(True, False, True)
        self.assertEqual(told, [{"cust": True}, {"cust": False}, {"cust": True}])


class AllVisibleTests(VisibleTests):
    visible = "all"

    def test_staff(self) -> None:
        """Everybody sees everybody."""
        for user, fields in (("alice", {}), ("c2", {"loginType": "CUSTOMER_TYPE"})):
            self.assertEqual(self.seen_by(user, **fields), {"bob": True, "cust": True})

    def test_type_changes(self) -> None:
        """It is all the same who is staff."""
        self.assertEqual(self.changes_of_type(True, False), [{}, {}])


class NoneVisibleTests(VisibleTests):
    visible = "none"

    def test_staff(self) -> None:
        """Nobody sees anybody, and the store is not asked."""
        self.assertEqual(self.seen_by("alice"), {"bob": False, "cust": False})
        self.assertEqual(self.aims.looked, [])

    def test_type_changes(self) -> None:
        self.assertEqual(self.changes_of_type(True, False), [{}, {}])


class ShownTests(PresenceTestCase):
    def test_short_absence(self) -> None:
        """A device that comes back within two seconds was never offline."""
        self.put("bob")
        alice = self.watcher("bob")
        self.put("bob", Seen())
        self.go_on(GONE_SECONDS - 0.5)
        self.put("bob")
        self.go_on(10)
        self.assertEqual(self.told(alice), {})

    def test_flapping(self) -> None:
        """A device that comes and goes shows one change in three seconds, and the present value after."""
        alice = self.watcher("bob")
        at: list[float] = []
        for number in range(60):
            self.put("bob", Seen() if number % 2 else HERE)
            self.go_on(0.5)
            if self.told(alice):
                at.append(self.clock.seconds())
        self.assertTrue(all(later - one >= PAUSE_SECONDS for one, later in pairwise(at)), at)
        self.put("bob", Seen() if self.sightings.is_shown("bob") else HERE)
        self.go_on(PAUSE_SECONDS + 0.5)
        self.assertEqual(len(self.told(alice)), 1)

    def test_lease_ends(self) -> None:
        """A node has died: its users are looked at when their leases end, and shown at once."""
        self.put("bob", Seen(20_000, True))
        alice = self.watcher("bob")
        self.aims.seen["bob"] = Seen()
        self.go_on(20)
        self.assertEqual(self.told(alice), {})
        self.go_on(1)
        self.assertEqual(self.told(alice), {"bob": False})

    def test_lost_word(self) -> None:
        """A word that is lost is found with the next renewal of the interest, sooner without the bus."""
        alice = self.watcher("bob")
        self.put("bob", say=False)
        self.go_on(RENEW_SECONDS + 1)
        self.assertEqual(self.told(alice), {"bob": True})
        self.bus_problem = "down"
        self.go_on(RENEW_SECONDS + 1)
        self.put("bob", Seen(), say=False)
        self.go_on(18)
        self.assertEqual(self.told(alice), {"bob": False})

    def test_registry_forgot(self) -> None:
        """A new run of the registry shows nobody offline for a while; then the truth."""
        self.put("bob")
        self.put("carol")
        alice = self.watcher("bob", "carol")
        self.put("bob", Seen(), say=False)
        self.put("carol", Seen(), say=False)
        self.aims.run = 2
        self.go_on(2)
        self.put("bob")
        self.go_on(QUIET_SECONDS - 2 - 0.5)
        self.assertEqual(self.told(alice), {})
        self.go_on(2)
        self.assertEqual(self.told(alice), {"carol": False})

    def test_store_down(self) -> None:
        """While the store is away the last value stays; afterwards it is looked at again."""
        self.put("bob", Seen(10_000, True))
        alice = self.watcher("bob")
        self.aims.down = True
        self.aims.seen["bob"] = Seen()
        self.go_on(20)
        self.assertEqual(self.told(alice), {})
        self.aims.down = False
        self.go_on(6)
        self.assertEqual(self.told(alice), {"bob": False})
