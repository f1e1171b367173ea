"""Actions make new rooms of rooms, or are refused."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.contracts import room_rules
from imd.contracts.room_rules import Decided, Stamp
from imd.contracts.rooms import ADMIN, LARGE_ROOM, MAX_REMOVED, OWNER, Room
from imd.protocol.errors import Refused
from tests.support.rooms import action

_ids = count(1)
LIMIT = 20


def stamp(ms: int | None = None) -> Stamp:
    """A new id; each a second later than the one before, if no time is given."""
    n = next(_ids)
    return Stamp(f"{n:028x}", 1000 * n if ms is None else ms)


def made(*users: Any, creator: str = "olga", limit: int = LIMIT, **fields: Any) -> Room:
    fields.setdefault("name", "Weekend")
    return room_rules.create(action(creator, "create", users=users, **fields), stamp(), limit).room


class RoomRulesTests(unittest.TestCase):
    """A room of olga (owner), adam (admin), mary and mike (members)."""

    def setUp(self) -> None:
        self.room = made(("adam", "admin"), "mary", "mike")

    def do(self, user: str, what: str, users: Any = (), /, **fields: Any) -> Decided | None:
        decided = room_rules.change(self.room, action(user, what, users=users, **fields), stamp(), LIMIT)
        if decided is not None:
            self.room = decided.room
        return decided

    def refused(self, code: str, user: str, what: str, users: Any = (), /, **fields: Any) -> None:
        error = self.assertRaises(Refused, self.do, user, what, users, **fields)
        self.assertEqual(error.code, code)

    def roles(self) -> dict[str, str]:
        return {member.user: member.role for member in self.room.members}

    def told(self, decided: Decided | None) -> dict[str, dict[str, Any]]:
        """user → the event that the user gets"""
        assert decided is not None
        return {user: json.loads(body.body) for body in decided.entry.bodies for user in body.users}

    # create

    def test_create(self) -> None:
        """The creator is the owner, the others have the role that was named; everybody else is told all."""
        decided = room_rules.create(
            action("olga", "create", users=["mary", ("adam", "admin")], name="Weekend", data='{"a": 1}'),
            stamp(),
            LIMIT,
        )
        self.assertEqual(
            [(m.user, m.role, m.joined) for m in decided.room.members],
            [("olga", "owner", 1), ("mary", "member", 1), ("adam", "admin", 1)],
        )
        told = self.told(decided)
        self.assertEqual(sorted(told), ["adam", "mary"])
        self.assertEqual(
            {k: v for k, v in told["mary"].items() if k not in ("id", "sendTime", "clientMsgId")},
            {
                "kind": "room",
                "room": "r-1",
                "version": 1,
                "action": "create",
                "userId": "olga",
                "fromUserType": "USER_TYPE",
                "users": [{"userId": "mary", "role": "member"}, {"userId": "adam", "role": "admin"}],
                "count": 3,
                "name": "Weekend",
                "posting": "all",
                "history": "joined",
                "joining": "invite",
                "data": {"a": 1},
            },
        )

    def test_create_names_the_first_50(self) -> None:
        """The event of a large room names 50 users, and counts all."""
        decided = room_rules.create(
            action("olga", "create", users=[f"u{n}" for n in range(80)], name="x"), stamp(), 100
        )
        event = self.told(decided)["u79"]
        self.assertEqual((len(event["users"]), event["count"]), (50, 81))

    def test_create_refused(self) -> None:
        """No right, too many members, too many rooms."""
        for code, full, fields in (
            ("forbidden", (), {"may_create": False}),
            ("too_large", (), {"users": [f"u{n}" for n in range(LIMIT)]}),
            ("too_large", ("olga",), {}),
        ):
            wanted = action("olga", "create", name="x", **fields)
            error = self.assertRaises(Refused, room_rules.create, wanted, stamp(), LIMIT, full)
            self.assertEqual(error.code, code)

    def test_full_users_are_left_out(self) -> None:
        """A user who is in too many rooms is not let in, and nobody is told."""
        room = room_rules.create(
            action("olga", "create", users=["mary"], name="x"), stamp(), LIMIT, {"mary"}
        ).room
        self.assertIsNone(room.member("mary"))
        self.assertIsNone(
            room_rules.change(room, action("olga", "add", users=["mary"]), stamp(), LIMIT, {"mary"})
        )

    # the others

    def test_nobody(self) -> None:
        """To those who are not in it, everything about a room is not_found."""
        for name in ("add", "remove", "role", "set", "leave", "close", "join"):
            self.refused("not_found", "eve", name, [("mary", "admin")])
            error = self.assertRaises(Refused, room_rules.change, None, action("eve", name), stamp(), LIMIT)
            self.assertEqual(error.code, "not_found")

    def test_rights(self) -> None:
        """Each action has its roles."""
        for user, name, users in (
            ("mary", "add", ["zoe"]),
            ("mary", "remove", ["mike"]),
            ("mary", "role", [("mike", "admin")]),
            ("adam", "role", [("mike", "admin")]),
            ("mary", "set", ()),
            ("mary", "close", ()),
            ("adam", "close", ()),
            ("adam", "add", [("zoe", "owner")]),
            ("adam", "remove", ["olga"]),
            ("adam", "remove", ["mike", "olga"]),
        ):
            self.refused("forbidden", user, name, users)

    def test_add(self) -> None:
        """Newcomers are told name and rules, the others who came; somebody present keeps the role."""
        told = self.told(self.do("adam", "add", ["zoe", ("mary", "admin"), ("yan", "admin")]))
        self.assertEqual(sorted(told), ["mary", "mike", "olga", "yan", "zoe"])
        users = [{"userId": "zoe", "role": "member"}, {"userId": "yan", "role": "admin"}]
        for user, event in told.items():
            self.assertEqual((event["version"], event["users"], event["count"]), (2, users, 6))
            self.assertEqual("name" in event, user in ("zoe", "yan"))
        self.assertEqual(self.roles()["mary"], "member")
        self.assertIsNone(self.do("olga", "add", ["zoe", "yan"]))

    def test_add_too_many(self) -> None:
        """Past the limit nobody is added."""
        self.refused("too_large", "olga", "add", [f"u{n}" for n in range(LIMIT - 3)])
        self.assertEqual(len(self.room.members), 4)

    def test_remove(self) -> None:
        """The removed are told, too; users who are not there are passed over."""
        told = self.told(self.do("adam", "remove", ["mary", "nobody"]))
        self.assertEqual(sorted(told), ["mary", "mike", "olga"])
        self.assertEqual(told["mary"]["users"], [{"userId": "mary", "role": "member"}])
        self.assertIsNone(self.do("olga", "remove", ["mary"]))

    def test_remembers_who_was_removed(self) -> None:
        """The removed cannot join an open room until they are added; who left can. 1,000 are remembered."""
        self.do("olga", "set", joining="open")
        self.do("olga", "remove", ["mary"])
        self.do("mike", "leave")
        self.refused("not_found", "mary", "join")
        self.assertEqual(
            self.told(self.do("mike", "join"))["olga"]["users"], [{"userId": "mike", "role": "member"}]
        )
        self.do("olga", "add", ["mary"])
        self.do("mary", "leave")
        self.assertIsNotNone(self.do("mary", "join"))
        for n in range(MAX_REMOVED + 5):
            self.do("olga", "add", [f"u{n}"])
            self.do("olga", "remove", [f"u{n}"])
        self.assertEqual((len(self.room.removed), self.room.removed[0]), (MAX_REMOVED, "u5"))

    def test_join(self) -> None:
        """Only where joining is open; somebody present changes nothing; the joiner's devices are told all."""
        self.refused("not_found", "zoe", "join")
        self.do("olga", "set", joining="open")
        decided = self.do("zoe", "join")
        assert decided is not None
        self.assertEqual(json.loads(decided.entry.bodies[-1].body)["name"], "Weekend")
        self.assertNotIn("zoe", self.told(decided))
        self.assertIsNone(self.do("zoe", "join"))

    def test_leave(self) -> None:
        """The last owner leaves last; nobody joins a room that everybody has left: it would have no owner."""
        self.do("olga", "set", joining="open")
        self.refused("conflict", "olga", "leave")
        self.do("olga", "role", [("adam", "owner")])
        self.assertEqual(sorted(self.told(self.do("olga", "leave"))), ["adam", "mary", "mike"])
        for user in ("mary", "mike", "adam"):
            self.do(user, "leave")
        self.assertEqual(self.room.members, ())
        self.refused("not_found", "zoe", "join")

    def test_role(self) -> None:
        """A stranger's role is not_found, and then nothing changes; a room has an owner."""
        self.refused("not_found", "olga", "role", [("mary", "admin"), ("eve", "admin")])
        self.refused("conflict", "olga", "role", [("olga", "admin")])
        self.assertIsNone(self.do("olga", "role", [("mary", "member")]))
        self.do("olga", "role", [("mary", "owner"), ("olga", "member"), ("mike", "member")])
        self.assertEqual((self.roles()["mary"], self.roles()["olga"]), (OWNER, "member"))

    def test_set(self) -> None:
        """Only what changes is told; history opens, and never closes."""
        event = self.told(self.do("adam", "set", name="Sunday", posting="all", data="{}"))["mary"]
        self.assertEqual((event["name"], event["data"]), ("Sunday", {}))
        self.assertNotIn("posting", event)
        self.assertIsNone(self.do("adam", "set", name="Sunday"))
        self.do("adam", "set", history="all")
        self.refused("invalid_message", "adam", "set", history="joined")

    def test_close(self) -> None:
        """Of a closed room everything but leaving is a conflict."""
        self.do("olga", "close")
        for name, users in (("add", ["zoe"]), ("remove", ["mary"]), ("set", ()), ("close", ()), ("join", ())):
            self.refused("conflict", "olga", name, users)
        self.refused("forbidden", "mary", "add", ["zoe"])
        self.assertIsNotNone(self.do("mary", "leave"))

    def test_version(self) -> None:
        """Another present version is a conflict, even for what changes nothing."""
        self.refused("conflict", "olga", "add", ["mary"], version=2)
        self.assertIsNotNone(self.do("olga", "add", ["zoe"], version=1))

    def test_pace(self) -> None:
        """Five changes a second, whoever makes them; what changes nothing does not count."""
        for n in range(5):
            decided = room_rules.change(
                self.room, action("olga", "add", users=[f"u{n}"]), stamp(50_000_000 + n), LIMIT
            )
            assert decided is not None
            self.room = decided.room
        late = action("adam", "add", users=["zoe"])
        error = self.assertRaises(Refused, room_rules.change, self.room, late, stamp(50_000_400), LIMIT)
        self.assertEqual((error.code, error.retry_after_ms), ("rate_limited", 600))
        nothing = action("adam", "add", users=["mary"])
        self.assertIsNone(room_rules.change(self.room, nothing, stamp(50_000_400), LIMIT))
        self.assertIsNotNone(room_rules.change(self.room, late, stamp(50_001_000), LIMIT))

    def test_resends(self) -> None:
        """A change is remembered under its clientMsgId, for dedup_seconds; other content is a mistake."""
        wanted = action("olga", "add", users=["zoe"], client_msg_id="c-x")
        decided = room_rules.change(self.room, wanted, stamp(90_000_000), LIMIT)
        assert decided is not None
        past = room_rules.remembered(decided.room, wanted, 90_000_500, 1000)
        assert past is not None
        self.assertEqual((past.id, past.version), (decided.entry.id, 2))
        self.assertIsNone(room_rules.remembered(decided.room, wanted, 90_001_000, 1000))
        other = action("olga", "add", users=["yan"], client_msg_id="c-x")
        self.assertRaises(Refused, room_rules.remembered, decided.room, other, 90_000_500, 1000)

    def test_large_rooms(self) -> None:
        """Past 200 members, comings and goings are told to those concerned, owner and admins."""
        users = [f"u{n}" for n in range(LARGE_ROOM)]
        room = made(("adam", "admin"), *users, limit=1000)
        for name, fields, told in (
            ("add", {"users": ["zoe"]}, ["adam", "zoe"]),
            ("remove", {"users": ["u7"]}, ["adam", "u7"]),
            ("role", {"users": [("u8", ADMIN)]}, ["adam", "u8"]),
        ):
            decided = room_rules.change(room, action("olga", name, **fields), stamp(), 1000)
            self.assertEqual(sorted(self.told(decided)), told)
        everybody = room_rules.change(room, action("olga", "set", name="y"), stamp(), 1000)
        self.assertEqual(len(self.told(everybody)), LARGE_ROOM + 1)


_USERS = [f"u{n}" for n in range(6)]
_ACTIONS = st.tuples(
    st.sampled_from(_USERS),
    st.sampled_from(["add", "remove", "role", "set", "join", "leave", "close"]),
    st.lists(
        st.tuples(st.sampled_from(_USERS), st.sampled_from([None, "owner", "admin", "member"])), max_size=3
    ),
    st.sampled_from([{}, {"joining": "open"}, {"history": "all"}, {"posting": "admins"}, {"name": "y"}]),
)


class RoomStoryTests(unittest.TestCase):
    """Some things stay true in every story of a room."""

    @given(st.lists(_ACTIONS, max_size=40))
    def test_story(self, steps: list[Any]) -> None:
        room = made("u1", "u2", creator="u0", limit=5)
        for user, name, users, fields in steps:
            named = tuple({one: (one, role) for one, role in users}.values())
            wanted = action(user, name, users=named, **(fields if name == "set" else {}))
            before = room
            try:
                decided = room_rules.change(room, wanted, stamp(), 5)
            except Refused:
                continue
            if decided is None:
                continue
            room = decided.room
            self.check(before, decided, wanted.user)

    def check(self, before: Room, decided: Decided, actor: str) -> None:
        room, entry = decided
        users = [member.user for member in room.members]
        earlier = {member.user for member in before.members}
        self.assertEqual((room.version, entry.version), (before.version + 1, before.version + 1))
        self.assertEqual(len(set(users)), len(users))
        self.assertLessEqual(len(users), 5)
        self.assertTrue(not users or any(member.role == OWNER for member in room.members))
        self.assertFalse(set(users) & set(room.removed))
        for member in room.members:
            self.assertEqual(member.joined == room.version, member.user not in earlier)
        told = [user for body in entry.bodies for user in body.users]
        self.assertEqual(sorted(told), sorted((earlier | set(users)) - {actor}))
        event = json.loads(entry.bodies[0].body)
        self.assertEqual(event["count"], len(users))
        self.assertFalse(before.closed and event["action"] != "leave")
