"""The contract of an archive with events: in any order, however often they come, history shows the same."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import msgspec

from imd.contracts.archive import Archive, Asked, ChangesQuery, HistoryQuery, Scope, left_out, of_version
from imd.protocol.conversation import room_conversation_id
from imd.protocol.events import Edit, Event, React, Recall, RoomEvent, RoomMessage, encode_event
from imd.protocol.ids import MessageIds, ServerClock
from imd.protocol.message import IMessage, conversation_id, encode_message
from tests.contract.support import Waiting, Writing

ROOM = "r-" + "5f" * 16
DATA = msgspec.Raw(b'{"b" : [1, 2.50],"a":"\\u00e9 \xc3\xa9"}')
REACTIONS = ("👍", "❤️", "🎉")


class Item(msgspec.Struct):
    """A message or an event, with what goes to the archive beside its body."""

    content: IMessage | Event
    agent: str = ""
    version: int = 0
    """the room's version that its message was placed under"""
    without: Sequence[str] = ()
    """recipients of a list whom blocks leave out"""

    @property
    def body(self) -> bytes:
        if isinstance(self.content, IMessage):
            return encode_message(self.content)
        return encode_event(self.content)

    @property
    def archived(self) -> bytes:
        if self.without:
            return left_out(sorted(self.without))
        return of_version(self.version) if self.version else b""


class Expected:
    """How history must show messages after all of these events."""

    def __init__(self, items: Sequence[Item]) -> None:
        contents = [item.content for item in items]
        self.messages = [one for one in contents if isinstance(one, IMessage | RoomMessage)]
        self.events = [one for one in contents if not isinstance(one, IMessage | RoomMessage)]
        self.recalls: dict[str, int] = {}
        for one in self.events:
            if isinstance(one, Recall):
                self.recalls[one.of] = min(one.send_time, self.recalls.get(one.of, one.send_time))

    def entry(self, message: IMessage | RoomMessage) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(Item(message).body)
        edits = [one for one in self.events if isinstance(one, Edit) and one.of == message.id]
        if message.id in self.recalls:
            for name in ("contentType", "mentions", "data"):
                shown.pop(name, None)
            shown |= {"msg": "", "recalled": self.recalls[message.id]}
        elif edits:
            last = max(edits, key=lambda one: one.id)
            for name in ("contentType", "mentions", "data"):
                shown.pop(name, None)
                if name in (now := json.loads(Item(last).body)):
                    shown[name] = now[name]
            shown |= {"msg": last.msg, "edited": {"id": last.id, "time": last.send_time}}
        return shown | self._reactions(message.id)

    def _reactions(self, message_id: str) -> dict[str, Any]:
        last: dict[tuple[str, str], React] = {}
        for one in sorted(self.events, key=lambda one: one.id):
            if isinstance(one, React) and one.of == message_id:
                last[one.user_id, one.reaction] = one
        if not last:
            return {}
        users: dict[str, list[str]] = {}
        for one in sorted(last.values(), key=lambda one: one.id):
            if one.on is not False:
                users.setdefault(one.reaction, []).append(one.user_id)
        present = [{"reaction": name, "count": len(own), "users": own[:20]} for name, own in users.items()]
        return {"reactions": present, "reactionsUpTo": max(one.id for one in last.values())}

    def change(self, event: Event) -> dict[str, Any]:
        change: dict[str, Any] = json.loads(Item(event).body)
        if isinstance(event, Edit) and event.of in self.recalls:
            for name in ("contentType", "mentions", "data"):
                change.pop(name, None)
            change["msg"] = ""
        return change


class EventsHarness(Writing, Waiting):
    """Short words for messages and events that are archived. A backend's tests give the hooks."""

    archive: Archive

    assertEqual: Any
    assertNotIn: Any
    assertIn: Any

    # hooks

    async def make_archive(self) -> Archive:
        """A started and empty one, that the test ends."""
        raise NotImplementedError

    async def put(self, *items: Item) -> None:
        """Archive them together, the way that accepted messages and events go."""
        raise NotImplementedError

    async def put_all(self, batches: Sequence[Sequence[Item]]) -> None:
        """Archive batches at the same time, as several consumers of the queue do."""
        raise NotImplementedError

    # words

    async def begin(self) -> None:
        self.ids = MessageIds(ServerClock())
        self.archive = await self.make_archive()

    def room_message(self, sender: str, version: int, msg: str = "hi", **more: Any) -> RoomMessage:
        message_id, now = self.ids.next()
        return RoomMessage(
            id=message_id, client_msg_id=f"c-{message_id}", user_id=sender, from_user_type="USER_TYPE",
            room=ROOM, room_version=version, msg=msg, send_time=now, **more,
        )  # fmt: skip

    def room_event(self, version: int, action: str = "add", **more: Any) -> RoomEvent:
        event_id, now = self.ids.next()
        return RoomEvent(
            id=event_id, client_msg_id=f"r-{event_id}", user_id="alice", from_user_type="USER_TYPE",
            room=ROOM, version=version, action=action, count=version, send_time=now, **more,
        )  # fmt: skip

    def of(self, kind: Any, message: IMessage | RoomMessage, actor: str, **more: Any) -> Item:
        """An event of a message by one who may read it."""
        event_id, now = self.ids.next()
        fields: dict[str, Any] = {
            "id": event_id,
            "of": message.id,
            "client_msg_id": f"e-{event_id}",
            "user_id": actor,
            "from_user_type": "VISITOR_TYPE" if actor.startswith("visitor-") else "USER_TYPE",
            "send_time": now,
            **more,
        }
        if isinstance(message, RoomMessage):
            return Item(kind(room=message.room, **fields), version=message.room_version)
        if actor.startswith("visitor-"):
            return Item(kind(is_visitor=True, **fields), agent="sam")
        people = [message.user_id, *([message.to] if message.to else message.group or ())]
        others = [one for one in dict.fromkeys(people) if one != actor]
        if message.group:
            return Item(kind(group=others, **fields))
        return Item(kind(to=others[0] if others else actor, **fields))

    def any_event(self, rng: random.Random, message: IMessage | RoomMessage, readers: Sequence[str]) -> Item:
        choice = rng.random()
        if choice < 0.4:
            more = rng.choice(
                [{}, {"content_type": "text/x"}, {"mentions": ["bob"], "data": DATA}, {"data": DATA}]
            )
            return self.of(Edit, message, message.user_id, msg=f"edited {rng.random()}", **more)
        if choice < 0.5:
            return self.of(Recall, message, message.user_id)
        on = rng.choice([None, True, False, False])
        return self.of(React, message, rng.choice(readers), reaction=rng.choice(REACTIONS), on=on)

    async def entries(self, viewer: str, conversation: str | None, **query: Any) -> list[dict[str, Any]]:
        found = await self.archive.history(HistoryQuery(viewer, conversation, **query))
        return [json.loads(body) for body in found.messages]

    async def page(self, viewer: str, conversation: str | None, **query: Any) -> tuple[list[str], bool, bool]:
        found = await self.archive.history(HistoryQuery(viewer, conversation, **query))
        return [json.loads(body)["id"] for body in found.messages], found.more, found.more_after

    async def events(self, viewer: str, conversation: str | None, **query: Any) -> list[dict[str, Any]]:
        found = await self.archive.changes(ChangesQuery(viewer, conversation, **query))
        return [json.loads(body) for body in found.events]


class EventsContract(EventsHarness):
    """Inherit it before unittest.TestCase."""

    # tests

    async def test_any_order(self) -> None:
        """Edits, recalls and reactions give the same, in whatever order, batches and number they come."""
        await self.begin()
        for seed in range(25):
            rng = random.Random(seed)
            pair = (f"ann{seed}", f"ben{seed}")
            three = (*pair, f"cyd{seed}")
            messages: list[IMessage | RoomMessage] = [
                self.message(pair[0], pair[1], "first", client_msg_id=f"a-{seed}", mentions=["x"], data=DATA),
                self.message(pair[1], pair[0], "second", client_msg_id=f"b-{seed}", reply_to="00" * 14),
                self.message(three[2], group=list(pair), msg="third", client_msg_id=f"c-{seed}"),
                self.room_message(pair[0], 2, f"fourth {seed}", content_type="text/plain", data=DATA),
            ]
            await self.put(*[Item(message) for message in messages])
            changes = []
            for _ in range(rng.randint(4, 14)):
                message = rng.choice(messages)
                changes.append(self.any_event(rng, message, three if message in messages[2:] else pair))
            again = changes + rng.sample(changes, len(changes) // 2)
            rng.shuffle(again)
            batches: list[list[Item]] = [[]]
            for item in again:
                batches[-1].append(item)
                if rng.random() < 0.4:
                    batches.append([])
            await self.put_all([batch for batch in batches if batch])
            expected = Expected([*map(Item, messages), *changes])
            for members, own in ((pair, messages[:2]), (three, messages[2:3])):
                conversation = conversation_id(sorted(members))
                wanted = [expected.entry(message) for message in own]
                self.assertEqual(await self.entries(pair[0], conversation), wanted, f"seed {seed}")
                await self._check_changes(expected, pair[0], conversation, own, f"seed {seed}")
            (entry,) = await self.archive.messages([messages[3].id], pair[0])
            self.assertEqual(json.loads(entry.body), expected.entry(messages[3]), f"seed {seed}")
            await self._check_changes(expected, pair[0], None, messages[:3], f"seed {seed}")

    async def _check_changes(
        self, expected: Expected, viewer: str, conversation: str | None, of: Sequence[Any], why: str
    ) -> None:
        ids = {message.id for message in of}
        own = [one for one in expected.events if not isinstance(one, RoomEvent) and one.of in ids]
        own.sort(key=lambda one: one.id)
        self.assertEqual(await self.events(viewer, conversation), [expected.change(one) for one in own], why)

    async def test_data_and_mentions(self) -> None:
        """`data` comes back byte for byte; an edit replaces it, and everything but `replyTo`."""
        await self.begin()
        more = {"content_type": "text/x", "reply_to": "ab" * 14, "mentions": ["bob", "bob"], "data": DATA}
        message = self.message("alice", "bob", **more)
        await self.put(Item(message))
        (body,) = (await self.archive.history(HistoryQuery("bob", None))).messages
        self.assertEqual(body, encode_message(message))
        await self.put(self.of(Edit, message, "alice", msg="new", data=msgspec.Raw(b'{"n":1.0}')))
        (body,) = (await self.archive.history(HistoryQuery("bob", None))).messages
        self.assertIn(b'"data":{"n":1.0}', body)
        self.assertIn(b'"replyTo"', body)
        for gone in (b"mentions", b"contentType", b"u00e9"):
            self.assertNotIn(gone, body)

    async def test_recalled_text_is_nowhere(self) -> None:
        """The text of a recalled message and of its edits is on no page and in no event, even if an edit is
        archived after the recall. Reactions stay."""
        await self.begin()
        message = self.message("alice", "bob", "secret-1", client_msg_id="c-1", data=DATA)
        first = self.of(Edit, message, "alice", msg="secret-2", mentions=["secret-3"])
        late = self.of(Edit, message, "alice", msg="secret-4", data=msgspec.Raw(b'{"x":"secret-5"}'))
        react = self.of(React, message, "bob", reaction="👍")
        recall = self.of(Recall, message, "alice")
        await self.put(Item(message), first)
        await self.put(react, recall)
        await self.put(late)
        pages = await self.archive.history(HistoryQuery("bob", None))
        changes = await self.archive.changes(ChangesQuery("bob", conversation_id(["alice", "bob"])))
        entries = await self.archive.messages([message.id], "bob")
        everything = b"".join([*pages.messages, *changes.events, *(entry.body for entry in entries)])
        self.assertNotIn(b"secret", everything)
        self.assertNotIn(b"u00e9", everything)
        (entry,) = map(json.loads, pages.messages)
        self.assertEqual((entry["msg"], entry["recalled"]), ("", recall.content.send_time))
        self.assertEqual(entry["reactions"], [{"reaction": "👍", "count": 1, "users": ["bob"]}])
        kinds = [json.loads(event)["kind"] for event in changes.events]
        self.assertEqual(kinds, ["edit", "edit", "react", "recall"])
        stored = await self.stored_text()
        self.assertNotIn("secret", stored)

    async def stored_text(self) -> str:
        """Everything that is stored, as text."""
        raise NotImplementedError

    async def test_message_that_is_gone(self) -> None:
        """An event whose message is not there is kept, and makes no message."""
        await self.begin()
        message = self.message("alice", "bob")
        for item in (
            self.of(Edit, message, "alice", msg="x"),
            self.of(React, message, "bob", reaction="👍"),
            self.of(Recall, message, "alice"),
        ):
            await self.put(item)
        self.assertEqual(await self.entries("bob", None), [])
        self.assertEqual([e["kind"] for e in await self.events("bob", None)], ["edit", "react", "recall"])
        self.assertEqual(await self.archive.targets([Asked(message.id, "alice")]), {})

    async def test_reactions(self) -> None:
        """Each is counted, and the first twenty users are named, or nineteen and the viewer."""
        await self.begin()
        people = [f"u{number:02}" for number in range(24)]
        # To MongoDB a word that begins so is a field.
        people.append("$_id.of")
        message = self.message("alice", group=people)
        reacts = [self.of(React, message, user, reaction="👍") for user in people]
        other = self.of(React, message, "alice", reaction="🎉")
        gone = self.of(React, message, people[0], reaction="👍", on=False)
        await self.put(Item(message), *reacts, other, gone)
        (entry,) = await self.entries("alice", None)
        self.assertEqual(
            entry["reactions"],
            [
                {"reaction": "👍", "count": 24, "users": people[1:21]},
                {"reaction": "🎉", "count": 1, "users": ["alice"]},
            ],
        )
        self.assertEqual(entry["reactionsUpTo"], gone.content.id)
        first = people[1:21]
        for viewer, wanted in (
            (people[0], first),
            (people[1], first),
            (people[20], first),
            (people[21], [*first[:-1], people[21]]),
            (people[24], [*first[:-1], people[24]]),
        ):
            (entry,) = await self.entries(viewer, None)
            self.assertEqual(entry["reactions"][0], {"reaction": "👍", "count": 24, "users": wanted})
            (single,) = await self.archive.messages([message.id], viewer)
            self.assertEqual(json.loads(single.body), entry)

    async def test_targets(self) -> None:
        """A target tells everything that rights and limits are judged by."""
        await self.begin()
        first = self.message("alice", group=["bob", "carol"])
        second = self.room_message("bob", 7)
        visit = self.message("visitor-1")
        gone = self.message("alice", "bob")
        await self.put(Item(first), Item(second), Item(visit, agent="sam"), Item(gone))
        await self.put(
            self.of(React, first, "bob", reaction="👍"),
            self.of(React, first, "bob", reaction="🎉"),
            self.of(React, first, "carol", reaction="❤️"),
            self.of(React, first, "carol", reaction="👍", on=False),
            recall := self.of(Recall, gone, "alice"),
            Item(event := self.room_event(3)),
        )
        asked = [
            Asked(first.id, "bob"), Asked(first.id, "carol"), Asked(second.id, "carol"),
            Asked(visit.id, "sam"), Asked(gone.id, "alice"), Asked(event.id, "alice"),
            Asked(recall.content.id, "alice"), Asked("ff" * 14, "bob"), Asked("00" * 14, "bob"),
        ]  # fmt: skip
        found = await self.archive.targets(asked)
        targets = {message_id: target for message_id, target in found.items() if target is not None}
        self.assertEqual(sorted(targets), sorted([first.id, second.id, visit.id, gone.id]))
        # Events are there, and are no messages.
        self.assertEqual(sorted(set(found).difference(targets)), sorted([event.id, recall.content.id]))
        # A message of others is there, too.
        self.assertIn(gone.id, await self.archive.targets([Asked(gone.id, "eve")]))
        target = targets[first.id]
        self.assertEqual((target.author, target.to, target.group), ("alice", "", ("bob", "carol")))
        self.assertEqual((target.send_time, target.recalled), (first.send_time, False))
        members = ("alice", "bob", "carol")
        self.assertEqual(target.scope, Scope(conversation_id(list(members)), members))
        self.assertEqual(target.reactions, {"bob": frozenset({"👍", "🎉"}), "carol": frozenset({"❤️"})})
        self.assertEqual(target.different, frozenset({"👍", "🎉", "❤️"}))
        room = targets[second.id]
        self.assertEqual(room.scope, Scope(room_conversation_id(ROOM), room=ROOM, version=7))
        self.assertEqual((room.author, dict(room.reactions)), ("bob", {}))
        visited = targets[visit.id]
        self.assertEqual((visited.is_visitor, visited.scope.visitor), (True, "visitor-1"))
        self.assertEqual(visited.scope.participants, ("sam", "visitor-1"))
        self.assertEqual(targets[gone.id].recalled, True)

    async def test_messages(self) -> None:
        """Messages come by id, with where they belong; unknown ids, and those of events, are left out."""
        await self.begin()
        pair, room = self.message("alice", "bob"), self.room_message("alice", 2)
        made = self.room_event(2)
        await self.put(Item(pair), Item(made), Item(room), edit := self.of(Edit, pair, "alice", msg="new"))
        ids = [room.id, "00" * 14, pair.id, made.id, edit.content.id]
        entries = await self.archive.messages(ids, "bob")
        self.assertEqual([e.message_id for e in entries], [pair.id, room.id, made.id])
        self.assertEqual([e.kind for e in entries], ["", "message", "room"])
        self.assertEqual([e.scope.room for e in entries], ["", ROOM, ROOM])
        self.assertEqual([e.scope.version for e in entries], [0, 2, 2])
        self.assertEqual(json.loads(entries[0].body)["msg"], "new")

    async def test_after_and_around(self) -> None:
        """Pages in both directions have no holes and no repeats, and tell what is left on both sides."""
        await self.begin()
        rng = random.Random(1)
        people = ["alice", "bob", "carol"]
        items = []
        for _ in range(60):
            sender = rng.choice(people)
            others = [one for one in people if one != sender]
            if rng.random() < 0.5:
                items.append(Item(self.message(sender, group=others)))
            else:
                items.append(Item(self.message(sender, rng.choice(others))))
        waiting = list(items)
        rng.shuffle(waiting)
        while waiting:
            count = rng.randint(1, 8)
            await self.put(*waiting[:count])
            waiting = waiting[count:]
        unknown = self.ids.next()[0]
        conversations = [None, conversation_id(people), conversation_id(["alice", "bob"])]
        for conversation in conversations:
            own = [item.content for item in items if self._is_of("bob", conversation, item.content)]
            ids = [message.id for message in own]
            for bound in [*ids[::7], ids[-1], items[3].content.id, "00" * 14, "ff" * 14, unknown]:
                for limit in (1, 4, 200):
                    await self._check_pages(conversation, ids, bound, limit)

    @staticmethod
    def _is_of(viewer: str, conversation: str | None, message: Any) -> bool:
        people = sorted({message.user_id, *([message.to] if message.to else message.group)})
        return viewer in people and conversation in (None, conversation_id(people))

    async def _check_pages(self, conversation: str | None, ids: list[str], bound: str, limit: int) -> None:
        older = [one for one in ids if one < bound]
        newer = [one for one in ids if one > bound]
        itself = [one for one in ids if one == bound]
        why = f"{conversation} {bound} {limit}"
        self.assertEqual(
            await self.page("bob", conversation, before=bound, limit=limit),
            (older[-limit:], len(older) > limit, bool(itself + newer)),
            why,
        )
        self.assertEqual(
            await self.page("bob", conversation, after=bound, limit=limit),
            (newer[:limit], bool(older + itself), len(newer) > limit),
            why,
        )
        half = older[-(limit // 2) :] if limit > 1 else []
        rest = limit - len(half)
        behind = itself + newer
        self.assertEqual(
            await self.page("bob", conversation, around=bound, limit=limit),
            (half + behind[:rest], len(older) > len(half), len(behind) > rest),
            why,
        )

    async def test_rooms(self) -> None:
        """A room's page has messages and changes; a version bounds it. Pages of all have no rooms."""
        await self.begin()
        conversation = room_conversation_id(ROOM)
        entries: list[Any] = [self.room_event(1, "create")]
        entries += [self.room_message("alice", 1, f"one {n}") for n in range(3)]
        entries += [self.room_event(2), self.room_message("bob", 2, "two"), self.room_event(3)]
        entries += [self.room_message("alice", 3, f"three {n}") for n in range(3)]
        private = self.message("alice", "bob")
        await self.put(*map(Item, entries), Item(private))
        edits = [self.of(Edit, entries[n], entries[n].user_id, msg=f"new {n}") for n in (2, 5, 8)]
        await self.put(*edits)
        ids = [one.id for one in entries]
        self.assertEqual(await self.page("x", conversation), (ids, False, False))
        self.assertEqual(await self.page("x", conversation, from_version=2), (ids[4:], False, False))
        self.assertEqual(await self.page("x", conversation, from_version=3, limit=2), (ids[8:], True, False))
        self.assertEqual(
            await self.page("x", conversation, from_version=2, before=ids[6], limit=3),
            (ids[4:6], False, True),
        )
        self.assertEqual(
            await self.page("x", conversation, from_version=3, after="00" * 14, limit=2),
            (ids[6:8], False, True),
        )
        self.assertEqual(await self.page("x", conversation, from_version=9), ([], False, False))
        self.assertEqual(await self.page("alice", None), ([private.id], False, False))
        self.assertEqual(await self.page("bob", None), ([private.id], False, False))
        whole = [one.content.id for one in edits]
        made = [entries[0].id, entries[4].id, entries[6].id]
        self.assertEqual([e["id"] for e in await self.events("x", conversation)], made + whole)
        since = await self.events("x", conversation, from_version=2)
        self.assertEqual([e["id"] for e in since], made[1:] + whole[1:])
        self.assertEqual(await self.events("alice", None), [])
        self.assertEqual(
            [json.loads(Item(one).body) for one in entries[4:5]], (await self.entries("x", conversation))[4:5]
        )

    async def test_changes_page_by_page(self) -> None:
        """Events come oldest first, behind `after`; `more` says whether to go on."""
        await self.begin()
        message = self.message("alice", "bob")
        edits = [self.of(Edit, message, "alice", msg=str(n)) for n in range(5)]
        await self.put(Item(message), *edits)
        conversation = conversation_id(["alice", "bob"])
        ids = [one.content.id for one in edits]
        for viewer, wanted in (("alice", conversation), ("bob", None)):
            query = ChangesQuery(viewer, wanted, limit=2)
            found = await self.archive.changes(query)
            self.assertEqual([json.loads(e)["id"] for e in found.events], ids[:2])
            self.assertEqual(found.more, True)
            query.after = ids[1]
            query.limit = 3
            found = await self.archive.changes(query)
            self.assertEqual([json.loads(e)["id"] for e in found.events], ids[2:])
            self.assertEqual(found.more, False)
        self.assertEqual(await self.events("carol", None), [])
        self.assertEqual(await self.events("alice", None, limit=0), [])

    async def test_visitors(self) -> None:
        """An event in a visitor's conversation is shown to the visitor, and to the agents who got it."""
        await self.begin()
        message = self.message("visitor-1", "", "hello")
        await self.put(Item(message, agent="sam"))
        edit = self.of(Edit, message, "visitor-1", msg="hello!")
        answer = self.of(React, self.message("sam", "visitor-1"), "sam", reaction="👍")
        await self.put(edit, answer)
        conversation = conversation_id(["visitor-1"])
        both = [edit.content.id, answer.content.id]
        self.assertEqual([e["id"] for e in await self.events("visitor-1", conversation)], both)
        self.assertEqual([e["id"] for e in await self.events("sam", None)], both)
        self.assertEqual(await self.events("tim", conversation, only_own=True), [])
        self.assertEqual([e["id"] for e in await self.events("sam", conversation, only_own=True)], both)

    async def test_newest_id(self) -> None:
        """The id of an event counts as well: later ids have to be higher."""
        await self.begin()
        message = self.message("alice", "bob")
        edit = self.of(Edit, message, "alice", msg="x")
        await self.put(Item(message), edit)
        self.assertEqual(await self.archive.newest_id(), edit.content.id)
        made = self.room_event(1)
        await self.put(Item(made))
        self.assertEqual(await self.archive.newest_id(), made.id)
