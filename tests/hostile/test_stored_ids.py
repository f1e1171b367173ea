"""Ids in real stores: two ids that differ share nothing, whatever characters they have."""

from __future__ import annotations

from twisted.trial import unittest

from imd.contracts.inbox import ConnectRequest, Duplicate, Placed, Registered
from imd.protocol.message import conversation_id, decode_message
from imd.store.redis.accept import encode_id
from tests.contract.embedded_harness import EmbeddedHarness
from tests.contract.redis_harness import RedisHarness
from tests.contract.support import InboxHarness
from tests.hostile.support import LOOK_ALIKES

# A node admits only some of these. A store keeps all of them apart.
IDS = (
    *LOOK_ALIKES,
    *("joe\n", "joe\r\n", "joe\0", "joe\0x", "\t", "a\r\nb", "$1", "%", "%25", "%%", "~", "joe~", "joe%7E"),
    *("}:head", "joe}:inbox", "*}:inbox", "imd:{joe}:head", "desk", "desk:online", "-", "0", "1"),
)


class StoredIdRules(InboxHarness):
    """The rules for both stores. Their harnesses have `assertEqual` and the like."""

    async def test_users(self) -> None:
        """Each user gets its own messages, numbered from its own first; no other channel is hinted."""
        await self.begin()
        channels = {}
        for number, user in enumerate(IDS):
            outcome = await self.connect(user, channel=f"channel-of-{number}")
            assert isinstance(outcome, Registered), user
            channels[user] = f"channel-of-{number}"
        for user in IDS:
            (outcome,) = await self.send(self.message("sender", user, msg=f"for {user}"))
            assert isinstance(outcome, Placed), (user, outcome)
            (delivery,) = outcome.deliveries
            assert (delivery.user, delivery.seq, list(delivery.channels)) == (user, 1, [channels[user]]), (
                delivery
            )
        for user in IDS:
            page = await self.read(user)
            found = [(seq, decode_message(body).msg) for seq, body in page.messages]
            assert found == [(1, f"for {user}")], (user, found)

    async def test_devices(self) -> None:
        """A device that leaves or acknowledges changes no other device."""
        await self.begin(devices=1000, channels_per_user=1000)
        for user in ("joe", "{joe}"):
            for number, device in enumerate(IDS):
                outcome = await self.connect(user, device, channel=f"{user}-{number}", attempt=number)
                assert isinstance(outcome, Registered), device
                assert outcome.replaced == "", device
        assert len(await self.channels_told("joe")) == len(IDS)
        await self.ack("joe", 1, "*")
        await self.leave("joe", "*", 1, ephemeral=True)
        told = await self.channels_told("joe")
        assert told == sorted(f"joe-{n}" for n, device in enumerate(IDS) if device != "*"), told
        assert len(await self.channels_told("{joe}")) == len(IDS)
        for device in ("joe", "#", "joe*"):
            outcome = await self.connect("joe", device, attempt=1000)
            assert (outcome.seq, outcome.recovered) == (0, True), (device, outcome)

    async def test_client_msg_ids(self) -> None:
        """A resend has the same user, device and clientMsgId; any other combination is a new message."""
        await self.begin()
        triples = [
            *(("a", "b", "c"), ("a:b", "c", "c"), ("a", "b:c", "c"), ("a", "b", "c:c"), ("a:b:c", "", "c")),
            *(("a", "b%3Ac", "c"), ("a", "b}", "c"), ("a}", "b", "c"), ("a", "B", "c"), ("a", "b", "C")),
            *(("a", "b", "c\n"), ("a", "b", "c "), ("a", "*", "c"), ("a", "b", "*"), ("*", "b", "c")),
        ]
        for sender, device, client_msg_id in triples:
            message = self.message(sender, "x", msg="same", client_msg_id=client_msg_id)
            (outcome,) = await self.send(message, device=device)
            assert isinstance(outcome, Placed), (sender, device, client_msg_id)
        for sender, device, client_msg_id in triples:
            message = self.message(sender, "x", msg="same", client_msg_id=client_msg_id)
            (outcome,) = await self.send(message, device=device)
            assert isinstance(outcome, Duplicate), (sender, device, client_msg_id)

    async def test_cursors(self) -> None:
        """A client may name any text as epoch; none of these is an epoch that a store has made."""
        await self.begin()
        await self.send_many("sender", "joe", 3)
        for number, epoch in enumerate(
            ("", " ", "-", "a b c d", "x" * 10_000, "\n", "*", "0", "é", "\0", "?")
        ):
            for seq in (-1, 0, 2, 2**53):
                request = ConnectRequest("joe", f"device {number}", "c", epoch=epoch, seq=seq)
                outcome = await self.inbox.connect(request)
                assert isinstance(outcome, Registered), epoch
                assert outcome.recovered is False, (epoch, seq, outcome)
                assert outcome.page.epoch != epoch
        again = await self.connect("joe", "device 0")
        assert isinstance(again, Registered)

    async def test_visitors_tokens(self) -> None:
        """A token's hash belongs to its visitor alone."""
        await self.begin()
        visitors = [f"visitor-{suffix}" for suffix in ("a", "A", "a}", "*", "a b", "a:agent")]
        for visitor in visitors:
            await self.inbox.remember_visitor(visitor, f"hash of {visitor}")
        for visitor in visitors:
            for other in visitors:
                known = await self.inbox.knows_visitor(visitor, f"hash of {other}")
                assert known is (visitor == other), (visitor, other)
        for wrong in ("", "*", "hash of visitor-a\n"):
            assert not await self.inbox.knows_visitor("visitor-a", wrong)


class RedisTests(StoredIdRules, RedisHarness):
    """On a real Redis."""

    async def test_keys(self) -> None:
        """Each user's keys have a hash tag of their own, of letters, digits and `._@%-` only."""
        await self.begin()
        for n, user in enumerate(IDS):
            await self.send(self.message("sender", user, client_msg_id=f"c-{n}"))
        keys = [key.decode() for key in await self.redis.command("KEYS", "*")]
        tags = {key.partition("{")[2].partition("}")[0] for key in keys if "{" in key}
        self.assertEqual(tags, {encode_id(user) for user in (*IDS, "sender")})
        for key in keys:
            self.assertRegex(key, r"\Aimd:(\{[A-Za-z0-9._@%-]*\}:[a-z]+|sent(:[0-9]+)?|desk:[a-z]+|run)\Z")


class EmbeddedTests(StoredIdRules, EmbeddedHarness):
    """In a real file."""


class ConversationTests(unittest.SynchronousTestCase):
    def test_archive_keys(self) -> None:
        """Two different sets of members never share a conversation."""
        sets = [[user] for user in IDS] + [[user, "other"] for user in IDS]
        sets += [["a", "b"], ["a,b"], ['a","b'], ["ab"], ["a", "b", "c"], ["a", "bc"], ["ab", "c"], []]
        self.assertEqual(len({conversation_id(sorted(members)) for members in sets}), len(sets))
