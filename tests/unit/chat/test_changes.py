"""Edits, recalls and reactions of one connection: deadlines, order, batches."""

from __future__ import annotations

from typing import Any

from imd.chat.slow import SLOW_SECONDS
from imd.chat.targets import MAX_IN_QUERY, MAX_WAITING, Targets
from imd.contracts.archive import Asked, Scope, Target
from imd.contracts.rooms import Membership
from imd.protocol.errors import UNAVAILABLE, Refused, Unavailable
from tests.support.doubles import ArchiveDouble
from tests.unit.chat.support import START, Client, ConnectionTestCase

ID = f"{START * 1000 - 5000:012x}" + "0" * 16
ROOM = "r-" + "5f" * 16


def target(**fields: Any) -> Target:
    values: dict[str, Any] = {
        "message_id": ID,
        "author": "alice",
        "from_user_type": "USER_TYPE",
        "send_time": START * 1000 - 5000,
        "to": "bob",
        "group": None,
        "is_visitor": False,
        "recalled": False,
        "scope": Scope("c", ("alice", "bob")),
        "reactions": {},
        "different": frozenset(),
    }
    return Target(**values | fields)


class ChangesTestCase(ConnectionTestCase):
    def find_one(self) -> None:
        """The oldest question of the archive is answered, and everything of the other stores."""
        self.assertTrue(self.archive.find())
        self.settle()

    def find(self) -> None:
        """All stores answer."""
        for _ in range(20):
            self.settle()
            if not self.archive.find():
                return
        raise AssertionError("the archive is asked for ever")


class ChangeTests(ChangesTestCase):
    def test_it_holds_later_frames(self) -> None:
        """The frames behind it wait until its answer is on its way; answers keep their order."""
        self.archive.known[ID] = target()
        alice, bob = self.connected("alice"), self.connected("bob")
        alice.send(type="edit", clientMsgId="1", id=ID, msg="new")
        alice.send(clientMsgId="2", to="bob", msg="behind")
        self.settle()
        self.assertEqual((alice.take(), bob.take()), ([], []))
        self.find()
        self.assertEqual(alice.brief(), [("accepted", "1", None), ("accepted", "2", None)])
        self.assertEqual([frame.get("kind") for frame in bob.take()], ["edit", None])

    def test_archive_hangs(self) -> None:
        """After 2 seconds: unavailable; then the frames behind it are read."""
        alice = self.connected("alice")
        alice.send(type="recall", clientMsgId="1", id=ID)
        alice.send(clientMsgId="2", to="bob", msg="behind")
        self.settle()
        self.clock.advance(SLOW_SECONDS - 0.1)
        self.settle()
        self.assertEqual(alice.take(), [])
        self.clock.advance(0.2)
        self.settle()
        self.assertEqual(alice.brief(), [("error", "1", "unavailable"), ("accepted", "2", None)])
        # The late answer is nobody's.
        self.find()
        self.assertEqual(alice.take(), [])

    def test_stores_known_to_be_down(self) -> None:
        """Unavailable at once, without a question, whichever store it is."""
        alice = self.connected("alice")
        for store in (self.archive, self.inbox, self.queue):
            store.down = "down"
            alice.send(type="recall", clientMsgId="1", id=ID)
            [error] = alice.take()
            self.assertEqual((error["code"], error["temporary"]), ("unavailable", True))
            self.assertGreater(error["retryAfterMs"], 0)
            store.down = None
        self.assertEqual(self.archive.wanted, [])

    def test_archive_fails(self) -> None:
        alice = self.connected("alice")
        alice.send(type="recall", clientMsgId="1", id=ID)
        self.settle()
        [(_, found)] = self.archive.wanted
        found.errback(Unavailable("MongoDB: gone"))
        self.settle()
        self.assert_error(alice, "unavailable", "1")

    def test_not_archived_yet(self) -> None:
        """Young: unavailable. Older: by what is known to be complete, which is asked before a second look."""
        old = f"{START * 1000 - 600_001:012x}" + "0" * 16
        for message_id, complete, code in (
            (ID, "f" * 28, "unavailable"),
            (old, "", "unavailable"),
            (old, "0" * 28, "unavailable"),
            (old, old, "not_found"),
            (old, "f" * 28, "not_found"),
            ("f" * 28, "", "not_found"),
        ):
            self.archive.complete_id = complete
            alice = self.connected("alice")
            alice.send(type="recall", clientMsgId="1", id=message_id)
            self.find()
            self.assert_error(alice, code, "1")
        self.archive.complete_id = "f" * 28
        alice = self.connected("alice")
        alice.send(type="recall", clientMsgId="1", id=old)
        self.settle()
        self.archive.find()
        self.archive.known[old] = target(message_id=old)
        self.find()
        self.assertEqual(alice.brief(), [("accepted", "1", None)])

    def test_resend_comes_before_rights(self) -> None:
        """Recalled, out of time, out of the room: the first answer again, and to the archive again."""
        self.archive.known[ID] = target()
        alice = self.connected("alice")
        frame = {"type": "edit", "clientMsgId": "1", "id": ID, "msg": "new"}
        alice.send(**frame)
        self.find()
        [first] = alice.take()
        self.archive.known[ID] = target(recalled=True, send_time=0, scope=Scope("c", ("bob",)))
        alice.send(**frame)
        self.find()
        self.assertEqual(alice.take(), [first])
        self.assertEqual(self.queue.bodies(0), self.queue.bodies(1))
        alice.send(**{**frame, "msg": "other"})
        self.find()
        self.assert_error(alice, "invalid_message", "1")

    def test_resend_after_the_message_has_gone(self) -> None:
        """Gone, or no longer to be found by this user: the first answer."""
        alice = self.connected("alice")
        frame = {"type": "recall", "clientMsgId": "1", "id": ID}
        self.archive.known[ID] = target()
        alice.send(**frame)
        self.find()
        [first] = alice.take()
        self.archive.known[ID] = None
        alice.send(**frame)
        self.find()
        del self.archive.known[ID]
        alice.send(**frame)
        self.find()
        self.assertEqual(alice.take(), [first, first])

    def test_first_copy_is_on_its_way(self) -> None:
        """A resend that is looked up before the first copy was placed, and judged after it, is one."""
        self.archive.known[ID] = target()
        alice, bob = self.connected("alice"), self.connected("bob")
        again = self.connected("bob", device="other")
        again.connection.admission.author.device = bob.connection.admission.author.device
        frame = {"type": "react", "clientMsgId": "1", "id": ID, "reaction": "👍"}
        bob.send(**frame)
        self.settle()
        again.send(**frame)
        self.inbox.settle()
        self.find_one()
        [first] = bob.take()
        thumbs = frozenset("👍")
        self.archive.known[ID] = target(reactions={"bob": thumbs}, different=thumbs)
        self.find()
        self.assertEqual(again.take(), [first])
        self.assertEqual([frame["id"] for frame in alice.take()], [first["id"]])

    def test_one_query_for_all(self) -> None:
        """Frames of several connections that wait are one query."""
        self.archive.known[ID] = target()
        clients = [self.connected("alice", device=f"d{n}") for n in range(5)]
        for client in clients:
            client.send(type="react", clientMsgId="1", id=ID, reaction="👍")
        self.settle()
        [(asked, _)] = self.archive.wanted
        self.assertEqual(asked, [Asked(ID, "alice")] * 5)
        self.find()
        self.assertEqual([client.brief()[0][0] for client in clients], ["accepted"] * 5)

    def test_the_client_goes(self) -> None:
        """A change whose client has gone is made all the same, and answers nobody."""
        self.archive.known[ID] = target()
        alice, bob = self.connected("alice"), self.connected("bob")
        alice.send(type="edit", clientMsgId="1", id=ID, msg="new")
        self.settle()
        alice.connection.lost(clean=False)
        self.find()
        self.assertEqual([frame["kind"] for frame in bob.take()], ["edit"])


class RoomChangeTests(ChangesTestCase):
    def change(self, client: Client, member: Membership | None, **frame: Any) -> Any:
        """The submission for a change of a message of alice's in a room; None if it is refused."""
        self.archive.known[ID] = target(to="", scope=Scope("c", room=ROOM, version=5))
        if member is not None:
            self.rooms.members[ROOM, "alice"] = member
        self.rooms.sizes[ROOM] = 3
        client.send(id=ID, **frame)
        self.find()
        batches = [batch for name, batch in self.inbox.asked if name == "accept"]
        return batches[-1][0] if batches else None

    def test_aim(self) -> None:
        """Members who may read it get it, whatever `posting` says; a recall passes in a closed room."""
        alice = self.connected("alice")
        member = Membership("member", 2, "joined", closed=True, members=3)
        sent = self.change(alice, member, type="recall", clientMsgId="1")
        aim = sent.room
        self.assertEqual((aim.room, aim.of_version, aim.posts, aim.when_closed), (ROOM, 5, False, True))
        self.assertEqual((aim.tail, aim.to_nobody, sent.mirror), (b"", False, True))
        self.assertEqual(sent.archived, b'"ofVersion":5')

    def test_reaction_in_a_large_room(self) -> None:
        alice = self.connected("alice")
        for members, to_nobody in ((200, False), (201, True)):
            member = Membership("member", 2, "joined", members=members)
            frame = {"type": "react", "clientMsgId": str(members), "reaction": "👍"}
            sent = self.change(alice, member, **frame)
            self.assertEqual((sent.room.to_nobody, sent.mirror), (to_nobody, not to_nobody))

    def test_not_readable(self) -> None:
        """Joined later, or not there: not_found. Closed: conflict."""
        alice = self.connected("alice")
        for member, code in (
            (Membership("member", 6, "joined"), "not_found"),
            (Membership("member", 6, "all", closed=True), "conflict"),
        ):
            self.assertIsNone(self.change(alice, member, type="react", clientMsgId="1", reaction="👍"))
            self.assert_error(alice, code, "1")


class TargetsTests(ConnectionTestCase):
    def test_bounds(self) -> None:
        """Two queries at a time, of so many messages; past the bound it is unavailable."""
        archive = ArchiveDouble()
        soon: list[Any] = []
        targets = Targets(archive, soon.append)
        waiting = [targets.read(Asked(ID, "alice")) for _ in range(MAX_WAITING)]
        while soon:
            soon.pop(0)()
        self.assertEqual([len(asked) for asked, _ in archive.wanted], [MAX_IN_QUERY] * 2)
        refused: Any = self.failureResultOf(targets.read(Asked(ID, "alice")), Refused).value
        self.assertEqual(refused.code, UNAVAILABLE)
        # A frame that gives up makes room.
        waiting[-1].cancel()
        self.failureResultOf(waiting[-1])
        late = targets.read(Asked(ID, "alice"))
        while archive.find():
            while soon:
                soon.pop(0)()
        self.assertEqual({len(self.successResultOf(found)) for found in [*waiting[:-1], late]}, {0})
