"""The contract of an archive: it keeps every message once, and returns it to the users who took part."""

from __future__ import annotations

from typing import Any

from imd.contracts.archive import Archive, ArchiveQueue, ArchiveRecord, History, HistoryQuery
from imd.protocol.ids import MessageIds, ServerClock
from imd.protocol.message import IMessage, conversation_id, decode_message, encode_message
from imd.store.shared_metrics import FOREIGN
from tests.contract.support import Waiting, Writing


class ArchiveContract(Writing, Waiting):
    """Inherit it before unittest.TestCase. A message may take a while to be readable."""

    queue: ArchiveQueue
    archive: Archive

    assertEqual: Any
    assertFalse: Any

    # hooks

    async def make_archive(self) -> tuple[ArchiveQueue, Archive]:
        """Started and empty ones, that the test ends."""
        raise NotImplementedError

    async def put(self, message: IMessage, agent: str = "") -> None:
        """Archive it the way that accepted messages go; `agent` is who got a visitor's message."""
        raise NotImplementedError

    async def spoil(self, messages: list[IMessage]) -> None:
        """Make what is stored of them something that no node would have written, each in another way."""
        raise NotImplementedError

    # words

    async def begin(self) -> None:
        self.ids = MessageIds(ServerClock())
        self.queue, self.archive = await self.make_archive()

    async def put_many(self, sender: str, to: str, count: int) -> list[IMessage]:
        messages = [self.message(sender, to, f"message {n}") for n in range(count)]
        for message in messages:
            await self.put(message)
        return messages

    async def history(
        self, viewer: str, members: list[str] | None, expected: list[IMessage], **query: Any
    ) -> History:
        """Wait until the page holds just these messages, and check it byte for byte."""
        conversation = None if members is None else conversation_id(sorted(set(members)))
        found = History()
        wanted = [encode_message(message) for message in expected]

        async def complete() -> bool:
            nonlocal found
            found = await self.archive.history(HistoryQuery(viewer, conversation, **query))
            return len(found.messages) >= len(wanted)

        await self.until(complete)
        self.assertEqual([decode_message(body).id for body in found.messages], [m.id for m in expected])
        self.assertEqual(found.messages, wanted)
        return found

    # tests

    async def test_conversation_of_two(self) -> None:
        """Both users get the messages that they wrote to each other, oldest first."""
        await self.begin()
        messages = []
        for sender, to in (("alice", "bob"), ("bob", "alice"), ("alice", "carol"), ("alice", "bob")):
            client_msg_id = f"c-{len(messages)}"
            messages.append(self.message(sender, to, "hé 😀", client_msg_id=client_msg_id, content_type="t"))
            await self.put(messages[-1])
        both = [messages[0], messages[1], messages[3]]
        for viewer in ("alice", "bob"):
            self.assertFalse((await self.history(viewer, ["alice", "bob"], both)).more)
        await self.history("carol", ["carol", "alice"], [messages[2]])

    async def test_foreign_documents(self) -> None:
        """Documents that no node wrote are passed over, and pages stay whole, to the beginning."""
        await self.begin()
        messages = await self.put_many("alice", "bob", 30)
        await self.history("bob", ["alice", "bob"], messages)
        before = FOREIGN._value.get()
        await self.spoil(messages[5:25])
        fit = messages[:5] + messages[25:]
        for members in (["alice", "bob"], None):
            page = await self.history("alice", members, fit[3:], limit=7)
            self.assertTrue(page.more)
            page = await self.history("alice", members, fit[:3], limit=3, before=fit[3].id)
            self.assertFalse(page.more)
            self.assertFalse((await self.history("alice", members, fit)).more)
        self.assertGreaterEqual(FOREIGN._value.get() - before, 40)

    async def test_newest_id(self) -> None:
        """The highest id that is stored, in whatever order they came; none, as long as there is none."""
        await self.begin()
        self.assertEqual(await self.archive.newest_id(), "")
        older, newest = self.message("alice", "bob"), self.message("carol", "bob")
        for message in (newest, older):
            await self.put(message)

        async def stored() -> bool:
            return await self.archive.newest_id() == newest.id

        await self.until(stored)
        await self.history("bob", None, [older, newest])
        self.assertEqual(await self.archive.newest_id(), newest.id)

    async def test_pages(self) -> None:
        """The newest come first; `before` leads back to the beginning, and `more` says whether to go on."""
        await self.begin()
        messages = await self.put_many("alice", "bob", 7)
        await self.history("alice", ["alice", "bob"], messages)
        page = await self.history("bob", ["alice", "bob"], messages[4:], limit=3)
        self.assertEqual(page.more, True)
        page = await self.history("bob", ["alice", "bob"], messages[1:4], limit=3, before=messages[4].id)
        self.assertEqual(page.more, True)
        page = await self.history("bob", ["alice", "bob"], messages[:1], limit=3, before=messages[1].id)
        self.assertEqual(page.more, False)
        page = await self.history("bob", ["alice", "bob"], messages[:3], limit=3, before=messages[3].id)
        self.assertEqual(page.more, False)
        await self.history("bob", ["alice", "bob"], [], before=messages[0].id)

    async def test_before_what_is_not_archived(self) -> None:
        """Pages go by the ids' order: `before` itself need not be there."""
        await self.begin()
        messages = await self.put_many("alice", "bob", 2)
        never_sent = self.ids.next()[0]
        messages += await self.put_many("alice", "bob", 2)
        await self.history("alice", ["alice", "bob"], messages)
        await self.history("alice", ["alice", "bob"], messages[:2], before=never_sent)

    async def test_order_is_that_of_ids(self) -> None:
        """History is ordered by id, not by arrival."""
        await self.begin()
        messages = [self.message("alice", "bob", str(n)) for n in range(4)]
        for n in (2, 0, 3, 1):
            await self.put(messages[n])
        await self.history("alice", ["alice", "bob"], messages)
        await self.history("bob", None, messages)

    async def test_group_conversation(self) -> None:
        """A group list and its sender are one conversation, in any order, apart from those of fewer."""
        await self.begin()
        messages = [
            self.message("alice", group=["bob", "carol"]),
            self.message("carol", group=["alice", "bob"]),
            self.message("bob", group=["carol", "alice", "carol", "bob"]),
        ]
        for message in messages:
            await self.put(message)
        await self.put_many("alice", "bob", 1)
        for viewer in ("alice", "bob", "carol"):
            await self.history(viewer, ["alice", "bob", "carol"], messages)

    async def test_all_conversations(self) -> None:
        """Everything that one sent or got, and nothing of others."""
        await self.begin()
        messages = [
            self.message("alice", "bob"),
            self.message("carol", "dora"),
            self.message("bob", "carol"),
            self.message("dora", group=["alice", "bob"]),
            self.message("dora", group=["alice", "carol"]),
            self.message("bob", "bob"),
        ]
        for message in messages:
            await self.put(message)
        mine = [messages[n] for n in (0, 2, 3, 5)]
        await self.history("bob", None, mine)
        page = await self.history("bob", None, mine[2:], limit=2)
        self.assertEqual(page.more, True)
        page = await self.history("bob", None, mine[:2], limit=2, before=mine[2].id)
        self.assertEqual(page.more, False)

    async def test_strangers(self) -> None:
        """A user who took part in nothing, and a conversation that never was, have no history."""
        await self.begin()
        messages = await self.put_many("alice", "bob", 1)
        await self.history("bob", None, messages)
        await self.history("carol", None, [])
        await self.history("alice", ["alice", "carol"], [])

    async def test_visitors(self) -> None:
        """A visitor's conversation is one, whichever agents answered; an agent that the visitor no longer
        has is shown only what it sent or got."""
        await self.begin()
        visitor = "visitor-1"
        messages = [
            (self.message(visitor, msg="hello?"), "anna"),
            (self.message("anna", visitor, "hello!"), ""),
            (self.message(visitor, msg="still there?"), "bert"),
            (self.message("bert", visitor, "yes"), ""),
        ]
        for message, agent in messages:
            await self.put(message, agent)
        whole = [message for message, _ in messages]
        await self.history(visitor, [visitor], whole)
        await self.history(visitor, None, whole)
        await self.history("bert", [visitor], whole)
        await self.history("anna", [visitor], whole[:2], only_own=True)
        await self.history("bert", [visitor], whole[2:], only_own=True)
        await self.history("carol", [visitor], [], only_own=True)
        await self.history("anna", None, whole[:2])
        page = await self.history("anna", [visitor], whole[1:2], only_own=True, limit=1)
        self.assertEqual(page.more, True)

    async def test_archived_twice(self) -> None:
        """The same message again, which may come after a lost answer, is still one."""
        await self.begin()
        message = self.message("alice", "bob")
        await self.put(message)
        record = ArchiveRecord(encode_message(message))
        await self.queue.publish([record])
        await self.queue.publish([record, record])
        last = self.message("alice", "bob")
        await self.put(last)
        await self.history("alice", ["alice", "bob"], [message, last])
        await self.history("alice", None, [message, last])

    async def test_nothing_to_publish(self) -> None:
        """An empty batch is safe at once, and nothing in the archive."""
        await self.begin()
        await self.queue.publish([])
        await self.history("alice", None, [])
