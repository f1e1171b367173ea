"""The contract of rooms: changes, their events, and messages to rooms."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from imd.contracts.inbox import (
    Closed,
    Conflict,
    Duplicate,
    NotAllowed,
    NotMember,
    Outcome,
    Placed,
    RoomAim,
    Submission,
)
from imd.contracts.rooms import Action, Changed, RoomOptions, RoomStore, Unchanged
from imd.protocol.errors import Refused
from imd.protocol.events import MESSAGE, RoomMessage, split_at_version
from tests.contract.support import InboxHarness
from tests.support.rooms import action

_numbers = count(1)


def room_id() -> str:
    return f"r-{next(_numbers):032x}"


class RoomHarness(InboxHarness):
    """Short words for what tests of rooms do over and over."""

    rooms: RoomStore
    assertEqual: Any
    assertIsInstance: Any
    assertIsNone: Any
    assertTrue: Any
    assertFalse: Any
    patch: Any

    async def make_rooms(self, options: RoomOptions) -> RoomStore:
        """Called after `make_inbox`."""
        raise NotImplementedError

    async def begin_rooms(self, members: int = 1000, **options: Any) -> None:
        await self.begin(**options)
        self.rooms = await self.make_rooms(RoomOptions(members, options.get("dedup_seconds", 3600)))
        self.hints: list[Any] = []
        self.rooms.deliver_to(self.hints.extend)
        self.at = 0

    def stamp(self) -> tuple[str, int]:
        """A new id, and a time that is a second after the one before."""
        message_id, now = self.ids.next()
        self.at += 1000
        return message_id, now + self.at

    async def do(self, wanted: Action) -> Any:
        outcome = await self.rooms.change(wanted, self.stamp)
        if isinstance(outcome, Changed) and outcome.settle:
            await self.rooms.settle(outcome.room, outcome.settle)
        return outcome

    async def make(self, *users: Any, creator: str = "olga", **fields: Any) -> str:
        """A room; gives its id."""
        fields.setdefault("name", "Weekend")
        outcome = await self.do(action(creator, "create", room_id(), users, **fields))
        assert isinstance(outcome, Changed), outcome
        return outcome.room

    async def change(self, room: str, user: str, what: str, users: Any = (), /, **fields: Any) -> Any:
        return await self.do(action(user, what, room, users, **fields))

    async def refused(
        self, code: str, room: str, user: str, what: str, users: Any = (), **fields: Any
    ) -> None:
        outcome = await self.change(room, user, what, users, **fields)
        assert isinstance(outcome, Refused), outcome
        self.assertEqual(outcome.code, code)

    def to_room(self, room: str, sender: str, msg: str = "hi", **aim: Any) -> Submission:
        """A message to a room."""
        device, client_msg_id = aim.pop("device", "phone"), aim.pop("client_msg_id", None)
        message_id, now = self.ids.next()
        message = RoomMessage(
            id=message_id,
            client_msg_id=client_msg_id,
            user_id=sender,
            from_user_type="USER_TYPE",
            room=room,
            msg=msg,
            send_time=now,
        )
        checksum = message.checksum()
        head, tail = split_at_version(message)
        return Submission(
            sender,
            device,
            client_msg_id,
            checksum,
            message_id,
            now,
            (),
            head + tail,
            kind=MESSAGE,
            room=RoomAim(room, head, tail, **aim),
        )

    async def write(self, room: str, sender: str, msg: str = "hi", **aim: Any) -> Outcome:
        await self.rooms.warm(room)
        (outcome,) = await self.inbox.accept([self.to_room(room, sender, msg, **aim)])
        return outcome

    async def events(self, user: str) -> list[dict[str, Any]]:
        """Everything in the user's inbox."""
        return [json.loads(body) for _, body in (await self.read(user)).messages]

    async def told(self, user: str) -> list[Any]:
        """The user's inbox in short: texts of messages, actions and versions of rooms' events."""
        return [
            event["msg"] if event["kind"] == "message" else (event["action"], event["version"])
            for event in await self.events(user)
        ]


class RoomContract(RoomHarness):
    """Rooms of a store."""

    # changes

    async def test_create(self) -> None:
        """A room has an id, version 1 and an event that all but its creator get; the creator owns it."""
        await self.begin_rooms()
        wanted = action(
            "olga", "create", room_id(), ["mary", ("adam", "admin")], name="Wö", data='{"a": [1, 2]}'
        )
        outcome = await self.do(wanted)
        self.assertIsInstance(outcome, Changed)
        self.assertEqual((outcome.room, outcome.version), (wanted.room, 1))
        self.assertEqual(await self.told("olga"), [])
        for user in ("mary", "adam"):
            (event,) = await self.events(user)
            self.assertEqual(event["id"], outcome.event_id)
            self.assertEqual(event["sendTime"], outcome.send_time)
            self.assertEqual((event["name"], event["data"], event["count"]), ("Wö", {"a": [1, 2]}, 3))
        bodies = [body for _, body in (await self.read("mary")).messages]
        self.assertEqual(list(outcome.bodies), bodies[: len(outcome.bodies)])
        found = await self.rooms.membership(wanted.room, "adam")
        assert found is not None
        self.assertEqual(
            (found.role, found.joined, found.history, found.reads_from), ("admin", 1, "joined", 1)
        )
        self.assertIsNone(await self.rooms.membership(wanted.room, "eve"))
        self.assertIsNone(await self.rooms.membership(room_id(), "olga"))

    async def test_create_again(self) -> None:
        """The same create makes one room for ever, and tells its present version; another is refused."""
        await self.begin_rooms(dedup_seconds=1)
        first = action("olga", "create", room_id(), ["mary"], name="x", client_msg_id="c-1")
        made = await self.do(first)
        await self.change(made.room, "olga", "set", name="y")
        again = action("olga", "create", room_id(), ["mary"], name="x", client_msg_id="c-1")
        outcome = await self.do(again)
        self.assertEqual((outcome.room, outcome.version), (made.room, 2))
        self.assertEqual((outcome.event_id, outcome.send_time), (made.event_id, made.send_time))
        self.assertEqual(await self.told("mary"), [("create", 1), ("set", 2)])
        other = action("olga", "create", room_id(), ["mary"], name="z", client_msg_id="c-1")
        self.assertEqual((await self.do(other)).code, "invalid_message")
        tablet = action("olga", "create", room_id(), ["mary"], name="x", client_msg_id="c-1", device="tablet")
        self.assertEqual((await self.do(tablet)).room, tablet.room)

    async def test_each_action(self) -> None:
        """Versions rise by 1; each member gets the events from the one on that let it in."""
        await self.begin_rooms()
        room = await self.make("mary", ("adam", "admin"))
        self.assertEqual((await self.change(room, "adam", "add", ["mike"])).version, 2)
        self.assertEqual((await self.change(room, "olga", "role", [("mike", "admin")])).version, 3)
        self.assertEqual((await self.change(room, "mike", "set", name="Sunday", joining="open")).version, 4)
        self.assertEqual((await self.change(room, "zoe", "join")).version, 5)
        self.assertEqual((await self.change(room, "mike", "remove", ["mary"])).version, 6)
        self.assertEqual((await self.change(room, "zoe", "leave")).version, 7)
        self.assertEqual((await self.change(room, "olga", "close")).version, 8)
        first = [("create", 1), ("add", 2), ("role", 3), ("set", 4), ("join", 5), ("remove", 6)]
        self.assertEqual(await self.told("mary"), first)
        self.assertEqual(await self.told("adam"), [*first[:1], *first[2:], ("leave", 7), ("close", 8)])
        self.assertEqual(await self.told("mike"), [*first[1:3], ("join", 5), ("leave", 7), ("close", 8)])
        self.assertEqual(await self.told("zoe"), [("remove", 6)])
        self.assertEqual(await self.told("olga"), [*first[1:2], *first[3:], ("leave", 7)])
        (added, *_) = await self.events("mike")
        self.assertEqual(
            (added["name"], added["posting"], added["users"]),
            ("Weekend", "all", [{"userId": "mike", "role": "member"}]),
        )

    async def test_refusals(self) -> None:
        """Strangers find nothing, members without the right are told so; nothing changes."""
        await self.begin_rooms(members=5)
        room = await self.make("mary", ("adam", "admin"))
        for what in ("add", "remove", "role", "set", "join", "leave", "close"):
            await self.refused("not_found", room, "eve", what, [("mary", "member")])
            await self.refused("not_found", room_id(), "olga", what, [("mary", "member")])
        for user, what, users in (
            ("mary", "add", ["zoe"]),
            ("mary", "remove", ["adam"]),
            ("adam", "remove", ["olga"]),
            ("adam", "role", [("mary", "admin")]),
            ("adam", "add", [("zoe", "owner")]),
            ("mary", "set", ()),
            ("adam", "close", ()),
        ):
            await self.refused("forbidden", room, user, what, users)
        await self.refused("too_large", room, "olga", "add", ["a", "b", "c"])
        await self.refused("conflict", room, "olga", "leave")
        await self.refused("conflict", room, "olga", "role", [("olga", "member")])
        await self.refused("conflict", room, "olga", "add", ["zoe"], version=7)
        await self.refused("not_found", room, "olga", "role", [("zoe", "admin")])
        self.assertEqual(await self.change(room, "olga", "add", ["mary"]), Unchanged(room, 1))
        self.assertEqual(await self.change(room, "olga", "remove", ["zoe"]), Unchanged(room, 1))
        self.assertEqual(await self.told("mary"), [("create", 1)])
        await self.change(room, "olga", "close")
        await self.refused("conflict", room, "olga", "add", ["zoe"])
        self.assertEqual((await self.change(room, "mary", "leave")).version, 3)

    async def test_pace(self) -> None:
        """A room changes five times a second at most."""
        await self.begin_rooms()
        room = await self.make()
        now = self.stamp()[1] + 5000
        for n in range(6):
            wanted = action("olga", "add", room, [f"u{n}"])
            outcome = await self.rooms.change(wanted, lambda: (self.ids.next()[0], now))
        assert isinstance(outcome, Refused)
        self.assertEqual((outcome.code, outcome.retry_after_ms), ("rate_limited", 1000))

    async def test_resent_changes(self) -> None:
        """A change that is sent again is answered as it was, whatever was changed since, and tells nobody."""
        await self.begin_rooms()
        room = await self.make("mary", ("adam", "admin"))
        wanted = action("adam", "add", room, ["zoe"], client_msg_id="c-1")
        first = await self.do(wanted)
        await self.change(room, "olga", "remove", ["adam", "zoe"])
        again = await self.do(wanted)
        self.assertEqual(again[:4], first[:4])
        self.assertEqual(await self.told("zoe"), [("add", 2), ("remove", 3)])
        other = action("adam", "add", room, ["yan"], client_msg_id="c-1")
        self.assertEqual((await self.do(other)).code, "invalid_message")

    async def test_clientmsgid_of_a_message(self) -> None:
        """A change uses its clientMsgId up for messages, too."""
        await self.begin_rooms()
        room = await self.make("mary")
        await self.do(action("olga", "set", room, name="y", client_msg_id="c-1"))
        self.assertEqual(await self.write(room, "olga", client_msg_id="c-1"), Conflict())
        used = await self.inbox.sent_before("olga", "phone", "c-1")
        self.assertTrue(used is not None)

    async def test_too_many_rooms(self) -> None:
        """A user in 1,000 rooms is left out silently, and makes and joins none."""
        await self.begin_rooms()
        module = __import__(self.rooms_module, fromlist=["MAX_ROOMS_OF_USER"])
        self.patch(module, "MAX_ROOMS_OF_USER", 2)
        for _ in range(2):
            await self.make("mary")
        room = await self.make("mary", creator="adam")
        self.assertIsNone(await self.rooms.membership(room, "mary"))
        self.assertEqual(await self.change(room, "adam", "add", ["mary"]), Unchanged(room, 1))
        await self.change(room, "adam", "set", joining="open")
        await self.refused("too_large", room, "mary", "join")
        outcome = await self.do(action("mary", "create", room_id(), (), name="x"))
        self.assertEqual(outcome.code, "too_large")
        self.assertEqual(await self.told("mary"), [("create", 1)] * 2)

    rooms_module = ""

    async def test_users_who_never_connected(self) -> None:
        """Letting in begins inboxes, of which there are so many in an hour; resends are not counted again."""
        await self.begin_rooms(new_ids=3)
        first = action("olga", "create", room_id(), ["a", "b"], name="x")
        made = await self.do(first)
        self.assertIsInstance(made, Changed)
        await self.connect("known")
        for users, code in ((["c", "d"], "rate_limited"), (["c", "d", "e", "f"], "too_large")):
            outcome = await self.change(made.room, "olga", "add", users)
            self.assertEqual((outcome.code, outcome.retry_after_ms is None), (code, code == "too_large"))
        self.assertIsInstance(await self.change(made.room, "olga", "add", ["c", "known"]), Changed)
        outcome = await self.do(action("olga", "create", room_id(), ["d"], name="y"))
        self.assertEqual(outcome.code, "rate_limited")
        self.assertIsInstance(await self.do(first), Changed)
        self.assertIsInstance(await self.change(made.room, "olga", "add", ["a"]), Unchanged)
        self.assertEqual(await self.told("d"), [])

    # messages

    async def test_message(self) -> None:
        """All members but the sender get it, with the room's version; those with channels are told."""
        await self.begin_rooms()
        room = await self.make("mary", "mike")
        await self.connect("mary", channel="m1")
        await self.change(room, "olga", "set", name="y")
        outcome = await self.write(room, "mary", "hi all")
        assert isinstance(outcome, Placed)
        self.assertEqual((outcome.version, outcome.members, outcome.deliveries), (2, 3, []))
        outcome = await self.write(room, "mike", "you too")
        assert isinstance(outcome, Placed)
        ((delivery),) = outcome.deliveries
        self.assertEqual((delivery.user, list(delivery.channels)), ("mary", ["m1"]))
        event = json.loads(delivery.body)
        self.assertEqual((event["room"], event["roomVersion"], event["msg"]), (room, 2, "you too"))
        page = await self.read("mary")
        self.assertEqual(page.messages[-1], (delivery.seq, delivery.body))
        self.assertEqual(await self.told("mary"), [("create", 1), ("set", 2), "you too"])
        self.assertEqual(await self.told("olga"), ["hi all", "you too"])

    async def test_message_of_nobody(self) -> None:
        """Strangers, the removed and those who left do not get a word in."""
        await self.begin_rooms()
        room = await self.make("mary", "mike")
        self.assertEqual(await self.write(room, "eve"), NotMember())
        await self.change(room, "olga", "remove", ["mary"])
        await self.change(room, "mike", "leave")
        for user in ("mary", "mike"):
            self.assertEqual(await self.write(room, user), NotMember())
        await self.write(room, "olga", "alone")
        self.assertEqual(await self.told("mary"), [("create", 1), ("remove", 2)])

    async def test_rules_of_messages(self) -> None:
        """Posting, closing and mentions of everybody, for those whom they bind."""
        await self.begin_rooms()
        room = await self.make("mary", ("adam", "admin"), posting="admins")
        self.assertIsInstance(await self.write(room, "mary"), NotAllowed)
        self.assertIsInstance(await self.write(room, "mary", posts=False), Placed)
        self.assertIsInstance(await self.write(room, "adam", by_admins=True), Placed)
        await self.change(room, "olga", "set", posting="all")
        self.assertIsInstance(await self.write(room, "mary"), Placed)
        self.assertIsInstance(await self.write(room, "mary", by_admins=True), NotAllowed)
        await self.change(room, "olga", "close")
        self.assertEqual(await self.write(room, "mary"), Closed())
        self.assertIsInstance(await self.write(room, "mary", when_closed=True), Placed)
        self.assertEqual(await self.write(room, "eve"), NotMember())

    async def test_only_those_of_a_version(self) -> None:
        """An event of an old message goes to those who were there, or to all where history is open."""
        await self.begin_rooms()
        room = await self.make("mary")
        await self.change(room, "olga", "add", ["mike"])
        await self.write(room, "olga", "old", of_version=1)
        await self.write(room, "olga", "new", of_version=2)
        await self.change(room, "olga", "set", history="all")
        await self.write(room, "olga", "open", of_version=1)
        self.assertEqual(
            await self.told("mary"), [("create", 1), ("add", 2), "old", "new", ("set", 3), "open"]
        )
        self.assertEqual(await self.told("mike"), [("add", 2), "new", ("set", 3), "open"])

    async def test_resent_messages(self) -> None:
        """A resend is answered as the first was, with its version, by one who was removed since."""
        await self.begin_rooms()
        room = await self.make("mary", "mike")
        first = self.to_room(room, "mary", client_msg_id="c-1")
        await self.rooms.warm(room)
        outcomes = await self.inbox.accept([first, self.to_room(room, "mary", client_msg_id="c-1")])
        self.assertIsInstance(outcomes[0], Placed)
        self.assertEqual(outcomes[1], Duplicate(first.message_id, first.send_time, "", 1))
        await self.change(room, "olga", "remove", ["mary"])
        again = await self.write(room, "mary", client_msg_id="c-1")
        self.assertEqual(again, Duplicate(first.message_id, first.send_time, "", 1))
        self.assertEqual(await self.write(room, "mary", "other", client_msg_id="c-1"), Conflict())
        used = await self.inbox.sent_before("mary", "phone", "c-1")
        self.assertEqual((used.message_id, used.version), (first.message_id, 1))
        self.assertEqual(await self.told("mike"), [("create", 1), "hi", ("remove", 2)])

    async def test_large_batch(self) -> None:
        """Messages of many senders to two rooms, and to users, in one batch: each inbox in the same order."""
        await self.begin_rooms()
        users = [f"u{n}" for n in range(30)]
        one, two = await self.make(*users), await self.make(*users[::2], creator="adam")
        for room in (one, two):
            await self.rooms.warm(room)
        batch = [self.to_room((one, two)[n % 2], users[n * 2 % 30], f"m{n}") for n in range(40)]
        outcomes = await self.inbox.accept(batch)
        self.assertEqual({type(outcome) for outcome in outcomes}, {Placed})
        for n, user in enumerate(users):
            texts = [text for text in await self.told(user) if isinstance(text, str)]
            expected = [
                f"m{k}" for k in range(40) if users[k * 2 % 30] != user and (k % 2 == 0 or n % 2 == 0)
            ]
            self.assertEqual(texts, expected)

    async def test_strange_names(self) -> None:
        """Names may hold what separates or quotes elsewhere."""
        await self.begin_rooms()
        names = ["a b", "a:b", "{a}", "ä%41", "'a\"", "😀", "a\\b", "$a.b", "#"]
        room = await self.make(*names)
        await self.write(room, "😀", "hi")
        for name in names:
            self.assertEqual(await self.told(name), [("create", 1)] + ["hi"] * (name != "😀"))
            self.assertEqual((await self.rooms.membership(room, name)).role, "member")
        page = await self.rooms.members_of(room, "ä%41", "", 100)
        self.assertEqual([m.user for m in page.members], sorted([*names, "olga"]))

    # questions

    async def test_lists(self) -> None:
        """One's own rooms by id, a room's members by user id, in pages."""
        await self.begin_rooms()
        rooms = [await self.make("mary", name=f"n{n}", data='{"n":1}') for n in range(5)]
        await self.make(creator="adam")
        first, more = await self.rooms.rooms_of("mary", "", 3)
        self.assertEqual(([one.room for one in first], more), (rooms[:3], True))
        self.assertEqual(first[0][1:], ("n0", "member", 2, 1, "all", "joined", "invite", '{"n":1}', False))
        rest, more = await self.rooms.rooms_of("mary", first[-1].room, 3)
        self.assertEqual(([one.room for one in rest], more), (rooms[3:], False))
        await self.change(rooms[0], "olga", "add", ["zoe", "adam", "bob"])
        page = await self.rooms.members_of(rooms[0], "mary", "", 3)
        self.assertEqual(
            ([m.user for m in page.members], page.more, page.version), (["adam", "bob", "mary"], True, 2)
        )
        page = await self.rooms.members_of(rooms[0], "mary", "mary", 3)
        self.assertEqual(
            ([(m.user, m.role) for m in page.members], page.more),
            ([("olga", "owner"), ("zoe", "member")], False),
        )
        await self.change(rooms[0], "olga", "remove", ["mary"])
        self.assertIsNone(await self.rooms.members_of(rooms[0], "mary", "", 3))
        self.assertIsNone(await self.rooms.members_of(room_id(), "mary", "", 3))
        self.assertEqual([one.room for one in (await self.rooms.rooms_of("mary", "", 50))[0]], rooms[1:])
        self.assertEqual(await self.rooms.rooms_of("nobody", "", 50), ([], False))

    async def test_list_with_a_closed_room(self) -> None:
        """A closed room stays in its members' lists, which say that it is closed."""
        await self.begin_rooms()
        closed, open_ = await self.make("mary"), await self.make("mary")
        await self.change(closed, "olga", "close")
        await self.write(open_, "olga")
        for user in ("olga", "mary"):
            found, _ = await self.rooms.rooms_of(user, "", 50)
            self.assertEqual([(one.room, one.version, one.closed) for one in found],
                             [(closed, 2, True), (open_, 1, False)])  # fmt: skip
        await self.change(closed, "mary", "leave")
        self.assertEqual([one.room for one in (await self.rooms.rooms_of("mary", "", 50))[0]], [open_])

    async def test_known_rooms(self) -> None:
        """A room that is warm has a size; one that does not exist cannot be warmed."""
        await self.begin_rooms()
        self.assertFalse(await self.rooms.warm(room_id()))
        room = await self.make("mary", "mike")
        self.assertTrue(await self.rooms.warm(room))
        self.assertTrue(self.rooms.is_warm(room))
        self.assertEqual(self.rooms.size(room), 3)
