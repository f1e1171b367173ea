"""The contract of the list of conversations: it shows what a look at every message would show."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import msgspec

from imd.contracts.rooms import RoomPart
from imd.contracts.talks import MOST_UNREAD, Place, PlacesQuery, Talk, TalksQuery, Wanted
from imd.protocol.conversation import room_conversation_id
from imd.protocol.events import React, Recall, RoomMessage
from imd.protocol.message import IMessage, conversation_id, conversation_members
from tests.contract.events_contract import EventsHarness, Expected, Item

SEEDS = 8


class Model:
    """All that was archived, and one user's marks: the list by looking at every message."""

    def __init__(self, viewer: str, items: Sequence[Item], parts: Sequence[RoomPart] = ()) -> None:
        self.viewer = viewer
        self.parts = {room_conversation_id(part.room): part for part in parts}
        self.shown = Expected(items)
        self.read: dict[str, str] = {}
        self.cleared: dict[str, str] = {}
        self.all: dict[str, list[Item]] = {}
        self.came = {
            (room_conversation_id(one.room), one.version): one.id
            for one in self.shown.events
            if not isinstance(one, React | Recall) and hasattr(one, "version")
        }
        for item in items:
            if isinstance(item.content, IMessage | RoomMessage):
                self.all.setdefault(conversation_of(item), []).append(item)

    def visible(self, conversation: str) -> list[Item]:
        return [one for one in self.all.get(conversation, []) if self._sees(conversation, one)]

    def _sees(self, conversation: str, item: Item) -> bool:
        content = item.content
        if isinstance(content, RoomMessage):
            part = self.parts.get(conversation)
            return part is not None and content.room_version >= part.reads_from
        assert isinstance(content, IMessage)
        members = conversation_members(content)
        return self.viewer in members and self.viewer not in item.without

    def places(self) -> list[tuple[str, str]]:
        """(at, conversation), newest first."""
        places = []
        for conversation in {*self.all, *self.parts}:
            ids = [item.content.id for item in self.visible(conversation)]
            part = self.parts.get(conversation)
            if ids:
                places.append((max(ids), conversation))
            elif part is not None:
                places.append((self.came[conversation, part.joined], conversation))
        return sorted(places, reverse=True)

    def talk(self, conversation: str) -> tuple[Any, int]:
        """The last message and the count of unread ones."""
        seen = [item.content for item in self.visible(conversation)]
        last = max(seen, key=lambda one: one.id)
        own = [one.content.id for one in self.all[conversation] if one.content.user_id == self.viewer]
        cleared = self.cleared.get(conversation, "")
        mark = max(self.read.get(conversation, ""), cleared, *own, "")
        unread = sum(one.id > mark and one.user_id != self.viewer for one in seen)
        entry = None
        if last.id > cleared:
            assert isinstance(last, IMessage | RoomMessage)
            entry = self.shown.entry(last)
        return entry, min(unread, MOST_UNREAD)

    def wanted(self, place: Place) -> Wanted:
        name = place.conversation
        from_version = place.room.reads_from if place.room is not None else 0
        return Wanted(name, place.at, self.read.get(name, ""), self.cleared.get(name, ""), from_version)


def conversation_of(item: Item) -> str:
    content = item.content
    if isinstance(content, RoomMessage):
        return room_conversation_id(content.room)
    assert isinstance(content, IMessage)
    return conversation_id(conversation_members(content))


class TalksContract(EventsHarness):
    """Inherit it before unittest.TestCase."""

    assertTrue: Any
    assertFalse: Any
    assertIsNone: Any

    # words

    async def places(self, viewer: str, **query: Any) -> list[Place]:
        return (await self.archive.talks.places(PlacesQuery(viewer, **query))).found

    async def talks(self, viewer: str, wanted: Sequence[Wanted]) -> list[Talk]:
        return await self.archive.talks.talks(TalksQuery(viewer, wanted))

    async def talk(self, viewer: str, conversation: str, **marks: Any) -> tuple[Any, int]:
        """The last message and the count of unread ones of a conversation in the user's list."""
        (place,) = [one for one in await self.places(viewer) if one.conversation == conversation]
        (talk,) = await self.talks(viewer, [Wanted(conversation, place.at, **marks)])
        return talk.last and json.loads(talk.last), talk.unread

    def in_room(self, room: str, sender: str, version: int) -> Item:
        return Item(msgspec.structs.replace(self.room_message(sender, version), room=room))

    def joins(self, room: str, version: int) -> Item:
        return Item(msgspec.structs.replace(self.room_event(version), room=room))

    async def check(self, model: Model, why: str) -> None:
        """The whole list, in one piece and in pages, is that of the model."""
        rooms = list(model.parts.values())
        expected = model.places()
        places = await self.places(model.viewer, rooms=rooms, limit=50)
        self.assertEqual([place[:2] for place in places], expected, why)
        paged: list[Place] = []
        more = True
        while more:
            before = paged[-1].at if paged else None
            query = PlacesQuery(model.viewer, rooms, before=before, limit=3)
            page, more = await self.archive.talks.places(query)
            paged += page
        self.assertEqual(paged, places, why)
        only = [place.conversation for place in places[::2]]
        pinned = await self.places(model.viewer, rooms=rooms, limit=50, only=only)
        self.assertEqual(pinned, places[::2], why)
        full = [place for place in places if not place.is_empty]
        talks = await self.talks(model.viewer, [model.wanted(place) for place in full])
        for place, talk in zip(full, talks, strict=True):
            found = talk.last and json.loads(talk.last), talk.unread
            self.assertEqual(found, model.talk(place.conversation), f"{why}: {place}")
        for place in places:
            self.assertEqual(place.is_empty, not model.visible(place.conversation), why)
            if place.room is None:
                members = sorted({model.viewer, *place.others})
                self.assertEqual(conversation_id(members), place.conversation, why)

    # tests

    async def test_any_history(self) -> None:
        """After any sends, recalls, marks, joins and blocks the list is that of a look at all messages."""
        await self.begin()
        for seed in range(SEEDS):
            rng = random.Random(seed)
            users = [f"u{n}-{seed}" for n in range(5)]
            rooms = [f"r-{seed:02x}{n:030x}" for n in range(3)]
            versions = dict.fromkeys(rooms, 1)
            items = [self.joins(room, 1) for room in rooms]
            joined = {(user, room): 1 for user in users[:3] for room in rooms}
            for _ in range(rng.randint(20, 60)):
                items.append(self._any_item(rng, users, rooms, versions, joined, items))
            # Nobody recalls what is not archived.
            recalls = [item for item in items if isinstance(item.content, Recall)]
            others = [item for item in items if not isinstance(item.content, Recall)]
            for some in (others, recalls):
                rng.shuffle(some)
                await self.put_all([some[n::4] for n in range(4) if some[n::4]])
            ids = [item.content.id for item in items]
            for user in users:
                parts = [
                    RoomPart(room, "a room", versions[room], version, rng.choice([0, version, version]))
                    for (member, room), version in joined.items()
                    if member == user
                ]
                model = Model(user, items, parts)
                for conversation in model.all:
                    if rng.random() < 0.6:
                        model.read[conversation] = rng.choice(ids)
                    if rng.random() < 0.3:
                        model.cleared[conversation] = rng.choice(ids)
                await self.check(model, f"seed {seed}, {user}")

    def _any_item(
        self,
        rng: random.Random,
        users: Sequence[str],
        rooms: Sequence[str],
        versions: dict[str, int],
        joined: dict[tuple[str, str], int],
        items: Sequence[Item],
    ) -> Item:
        choice = rng.random()
        sender, room = rng.choice(users), rng.choice(rooms)
        if choice < 0.35:
            return Item(self.message(sender, rng.choice(users)))
        if choice < 0.55:
            others = rng.sample([user for user in users if user != sender], 3)
            without = rng.sample(others, rng.choice([0, 0, 1, 2]))
            return Item(self.message(sender, group=others), without=without)
        if choice < 0.6:
            others = [user for user in users if user != sender] + [f"x{n}" for n in range(20)]
            return Item(self.message(sender, group=others))
        if choice < 0.7:
            versions[room] += 1
            joined[sender, room] = versions[room]
            return self.joins(room, versions[room])
        messages = [item.content for item in items if isinstance(item.content, IMessage | RoomMessage)]
        if choice < 0.8 and messages:
            message = rng.choice(messages)
            return self.of(Recall, message, message.user_id)
        # Some are placed late, under a version that is no longer the newest.
        return self.in_room(room, sender, rng.choice([versions[room], rng.randint(1, versions[room])]))

    async def test_places_move(self) -> None:
        """A conversation stands where its newest message is; one that is archived late moves nothing."""
        await self.begin()
        older, newer = self.message("alice", "bob"), self.message("alice", "carol")
        late, newest = self.message("bob", "alice"), self.message("bob", "alice")
        await self.put(Item(older), Item(newer))
        self.assertEqual([place.others for place in await self.places("alice")], [("carol",), ("bob",)])
        await self.put(Item(newest))
        await self.put(Item(late))
        self.assertEqual([place.at for place in await self.places("alice")], [newest.id, newer.id])
        self.assertEqual(await self.places("nobody"), [])

    async def test_count_ends(self) -> None:
        """100 stands for more. Own messages end the count, and so do both marks."""
        await self.begin()
        messages = [self.message("alice", "bob") for _ in range(MOST_UNREAD + 20)]
        await self.put(*map(Item, messages))
        pair = conversation_id(["alice", "bob"])
        self.assertEqual((await self.talk("bob", pair))[1], MOST_UNREAD)
        self.assertEqual((await self.talk("bob", pair, read=messages[30].id))[1], MOST_UNREAD - 11)
        self.assertEqual((await self.talk("alice", pair))[1], 0)
        await self.put(Item(self.message("bob", "alice")), Item(self.message("alice", "bob")))
        self.assertEqual((await self.talk("bob", pair, read=messages[-5].id))[1], 1)
        last, unread = await self.talk("bob", pair, cleared="f" * 28)
        self.assertEqual((last, unread), (None, 0))

    async def test_many_left_out(self) -> None:
        """The count goes on below many messages that one may not see."""
        await self.begin()
        people = ["bob", "carol"]
        seen = [Item(self.message("alice", group=people)) for _ in range(5)]
        unseen = [Item(self.message("alice", group=people), without=["bob"]) for _ in range(MOST_UNREAD + 50)]
        last = Item(self.message("carol", group=["alice", "bob"]))
        after = Item(self.message("alice", group=people), without=["bob"])
        for batch in (seen, unseen[:80], unseen[80:], [last], [after]):
            await self.put(*batch)
        three = conversation_id(["alice", "bob", "carol"])
        shown, unread = await self.talk("bob", three)
        self.assertEqual((shown["id"], unread), (last.content.id, 6))
        self.assertEqual((await self.talk("carol", three))[0]["id"], after.content.id)
        (place,) = await self.places("bob")
        self.assertEqual((place.at, place.others), (last.content.id, ("alice", "carol")))

    async def test_visitors_are_not_listed(self) -> None:
        """A visitor's conversation is in no list: neither the agent's nor that of whoever writes to it."""
        await self.begin()
        await self.put(Item(self.message("visitor-1"), agent="sam"))
        await self.put(Item(self.message("sam", "visitor-1")))
        for user in ("sam", "visitor-1"):
            self.assertEqual(await self.places(user), [])

    async def test_reactions_are_shown(self) -> None:
        """The last message is the one that history shows, with the marks of its changes. A viewer who reacted
        is named."""
        await self.begin()
        message = self.message("alice", "bob")
        react = self.of(React, message, "bob", reaction="👍")
        await self.put(Item(message))
        await self.put(react)
        pair = conversation_id(["alice", "bob"])
        last, unread = await self.talk("bob", pair)
        self.assertEqual([last], await self.entries("bob", pair))
        self.assertEqual(last["reactionsUpTo"], react.content.id)
        self.assertEqual(unread, 1)
        people = [f"u{number:02}" for number in range(21)]
        message = self.message("alice", group=people)
        await self.put(Item(message))
        await self.put(*[self.of(React, message, user, reaction="👍") for user in people])
        last, _ = await self.talk(people[20], conversation_id(["alice", *people]))
        self.assertEqual(
            last["reactions"], [{"reaction": "👍", "count": 21, "users": [*people[:19], people[20]]}]
        )

    async def test_cleared(self) -> None:
        """Pages and events show nothing that its user has cleared, of one conversation and of all; an event
        counts by its message. For others nothing changes."""
        await self.begin()
        pair = [self.message("alice", "bob", f"{n}") for n in range(30)]
        three = [self.message("bob", group=["alice", "carol"]) for _ in range(4)]
        room = [self.in_room("r-" + "1" * 32, "alice", 1) for _ in range(4)]
        events = [
            self.of(React, message, "alice", reaction="👍") for message in (pair[3], pair[28], three[0])
        ]
        await self.put(*map(Item, [*pair, *three]), *room)
        await self.put(*events)
        names = [conversation_id(["alice", "bob"]), conversation_id(["alice", "bob", "carol"])]
        in_room = room_conversation_id("r-" + "1" * 32)
        cleared = {names[0]: pair[26].id, names[1]: three[0].id, in_room: room[1].content.id}
        left = [message.id for message in (*pair[27:], *three[1:])]
        more: dict[str, Any] = {"cleared": cleared}
        self.assertEqual((await self.page("bob", names[0], **more))[0], left[:3])
        self.assertEqual((await self.page("bob", names[0], **more, limit=2))[:2], (left[1:3], True))
        self.assertEqual((await self.page("bob", names[0], **more, before=left[2]))[:2], (left[:2], False))
        self.assertEqual((await self.page("bob", names[0], **more, after=pair[5].id, limit=2))[0], left[:2])
        self.assertEqual((await self.page("bob", in_room, **more))[0], [one.content.id for one in room[2:]])
        self.assertEqual((await self.page("bob", None, **more))[:2], (left, False))
        self.assertEqual(
            (await self.page("bob", None, **more, limit=4, before=left[5]))[:2], (left[1:5], True)
        )
        self.assertEqual((await self.page("bob", None, **more, limit=2, after=pair[0].id))[0], left[:2])
        for conversation in (names[0], None):
            found = await self.events("bob", conversation, **more)
            self.assertEqual([one["id"] for one in found], [events[1].content.id])
        self.assertEqual(len((await self.page("bob", None))[0]), 34)
        self.assertEqual(len(await self.events("bob", None)), 3)
