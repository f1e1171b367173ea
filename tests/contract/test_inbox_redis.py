"""The Redis inbox keeps the contract, and what Redis may do to it: lose its data, be full, hold rubbish."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from imd.contracts.inbox import (
    NEWCOMER_SECONDS,
    Ack,
    ConnectRequest,
    Duplicate,
    Failed,
    InboxOptions,
    Lease,
    Leave,
    Page,
    Placed,
    Submission,
)
from imd.protocol.errors import Unavailable
from imd.protocol.ids import ServerClock
from imd.protocol.message import IMessage, encode_message
from imd.store.redis import connection as redis_connection
from imd.store.redis.inbox import RedisInbox
from tests.contract.accept_contract import AcceptContract
from tests.contract.desk_contract import DeskContract
from tests.contract.device_contract import DeviceContract
from tests.contract.newcomer_contract import VISITOR, NewcomerContract
from tests.contract.opening_contract import OpeningContract
from tests.contract.own_devices_contract import OwnDevicesContract
from tests.contract.redis_harness import RedisHarness
from tests.contract.unanswered_contract import UnansweredContract
from tests.support.rabbit import until


class RedisAcceptTests(AcceptContract, RedisHarness):
    """Placing messages."""


class RedisDeviceTests(DeviceContract, RedisHarness):
    """Devices, cursors and channels."""


class RedisOwnDevicesTests(OwnDevicesContract, RedisHarness):
    """The rules of what one's own other devices get."""


class RedisDeskTests(DeskContract, RedisHarness):
    """The desk."""

    async def test_clock_set_back(self) -> None:
        """Redis' clock is set back by an hour, and a node dies: its agents are gone after a lease."""
        await self.begin()
        await self.agent("anna")
        await self.advance(-3600)
        *run, at, began = (await self.redis.command("GET", "imd:run")).decode().split()
        set_back = [*run, str(int(at) + 3_600_000), str(int(began) + 3_600_000)]
        await self.redis.command("SET", "imd:run", " ".join(set_back))
        (_, outcome) = await self.ask("visitor-1")
        self.assertEqual(outcome.agent, "anna")
        await self.advance(InboxOptions().lease_seconds + 1)
        (_, outcome) = await self.ask("visitor-2")
        self.assertEqual(outcome.agent, "")


class RedisUnansweredTests(UnansweredContract, RedisHarness):
    """Unanswered messages."""


class RedisOpeningTests(OpeningContract, RedisHarness):
    """Inboxes that no device has opened."""

    async def traces_of(self, user: str) -> int:
        return len(await self.redis.command("KEYS", f"imd:{{{user}}}:*"))


class RedisNewcomerTests(NewcomerContract, RedisHarness):
    """Visitors that never wrote."""

    async def traces_of(self, visitor: str) -> int:
        return len(await self.redis.command("KEYS", f"imd:{{{visitor}}}:*"))

    async def longest(self) -> int:
        """The seconds after which nothing of the visitor is left."""
        keys = await self.redis.command("KEYS", f"imd:{{{VISITOR}}}:*")
        ends = [await self.redis.command("TTL", key) for key in keys]
        self.assertGreater(min(ends), 0)
        return max(ends)

    async def test_another_run(self) -> None:
        """A head that is written anew in another run of Redis lasts no longer than a newcomer."""
        await self.come()
        for ask in (
            lambda: self.renew(VISITOR),
            lambda: self.renew(VISITOR, renew=False),
            lambda: self.inbox.pull(VISITOR, "", 0, 1),
            lambda: self.ack(VISITOR, 0),
            lambda: self.connect(VISITOR),
            lambda: self.leave(VISITOR),
        ):
            await self.redis.command("DEL", "imd:run")
            await ask()
            self.assertLessEqual(await self.longest(), NEWCOMER_SECONDS)

    async def test_forgotten_while_connected(self) -> None:
        """Redis lost all: its channel registers again, and a first message is kept as any."""
        await self.come()
        await self.redis.command("FLUSHALL")
        self.assertFalse((await self.renew(VISITOR)).held)
        await self.connect(VISITOR, resume=True)
        self.assertLessEqual(await self.longest(), NEWCOMER_SECONDS)
        await self.redis.command("FLUSHALL")
        await self.ask(VISITOR)
        await self.connect(VISITOR, resume=True)
        await self.go()
        self.assertGreater(await self.longest(), 20 * 86_400)

    async def test_broken_token(self) -> None:
        """A token that cannot be read keeps nobody's message back."""
        await self.come()
        for key in ("newcomer", "visitor"):
            await self.redis.command("DEL", f"imd:{{{VISITOR}}}:{key}")
            await self.redis.command("RPUSH", f"imd:{{{VISITOR}}}:{key}", "rubbish")
        asked, told = (self.message(VISITOR), self.message("anna", VISITOR))
        outcomes = await self.send(asked, told, self.message("alice", "bob"))
        self.assertEqual([type(outcome) for outcome in outcomes], [Placed] * 3)
        self.assertEqual((await self.read("bob")).head, 1)

    async def test_clock_set_back(self) -> None:
        """Redis' clock was set back: an hour is an hour again when the channel is renewed."""
        await self.come()
        for key in await self.redis.command("KEYS", f"imd:{{{VISITOR}}}:*"):
            await self.redis.command("EXPIRE", key, 2 * 86_400)
        await self.renew(VISITOR)
        self.assertLessEqual(await self.longest(), NEWCOMER_SECONDS)

    async def test_known_before(self) -> None:
        """A visitor with a token of the version before is no newcomer."""
        await self.begin()
        await self.redis.command("SET", f"imd:{{{VISITOR}}}:visitor", "hash", "EX", 86_400)
        self.assertTrue(await self.known())
        await self.connect(VISITOR)
        self.assertGreater(await self.longest(), 20 * 86_400)


_numbers = itertools.count(1)


def submission(
    sender: str,
    recipients: Sequence[str],
    *,
    client_msg_id: str | None = None,
    msg: str = "hi",
    device: str = "default",
    visitor_to: str = "",
) -> Submission:
    """A message on its way in; without recipients it is a visitor's."""
    number = next(_numbers)
    now_ms = int(time.time() * 1000)
    message = IMessage(
        id=f"{now_ms:012x}{number:016x}",
        client_msg_id=client_msg_id,
        user_id=sender,
        from_user_type="USER_TYPE" if recipients else "VISITOR_TYPE",
        to=visitor_to or (recipients[0] if len(recipients) == 1 else ""),
        group=list(recipients) if len(recipients) > 1 else None,
        msg=msg,
        send_time=now_ms + number,
        is_visitor=not recipients,
    )
    return Submission(
        sender=sender,
        device=device,
        client_msg_id=client_msg_id,
        checksum=message.checksum(),
        message_id=message.id,
        send_time=message.send_time,
        recipients=recipients,
        body=encode_message(message),
        visitor_to=visitor_to,
    )


def texts(page: Page) -> list[tuple[int, str]]:
    return [(seq, json.loads(body)["msg"]) for seq, body in page.messages]


class RedisFaultTests(RedisHarness):
    """Cases that only Redis has."""

    async def make(self, lossless: bool = False, **options: Any) -> RedisInbox:
        return await self.make_inbox(InboxOptions(**options), lossless=lossless)

    async def register(
        self, inbox: Any, user: str, channel: str, device: str = "default", **more: Any
    ) -> Any:
        return await inbox.connect(ConnectRequest(user, device, channel, **more))

    async def fill(self, inbox: Any, user: str, count: int) -> None:
        """Messages "1" to "count" in a fresh inbox."""
        batch = [submission("alice", [user], msg=str(number)) for number in range(1, count + 1)]
        outcomes = await inbox.accept(batch)
        assert all(isinstance(outcome, Placed) for outcome in outcomes), outcomes

    async def sizes(self, users: list[str]) -> list[int]:
        return [await self.redis.command("ZCARD", f"imd:{{{user}}}:inbox") for user in users]

    async def restart(self, inbox: RedisInbox) -> None:
        """Restart Redis on the same data, and wait until the inbox is usable again.

        Not by kill -9: with `everysec` a write may wait for up to 2 s while the disk is busy.
        """
        self.server.stop()
        # The server is the other tests', too.
        self.addCleanup(self._see_it_runs)
        await until(lambda: inbox.problem() is not None, "the loss is noticed")
        self.server.start()
        await until(lambda: inbox.problem() is None, "Redis is back")
        await until(lambda: self.redis.problem() is None, "Redis is back for the test")

    async def test_every_key_expires(self) -> None:
        """Also an inbox that was emptied, and begins anew after expiry was put off for that day."""
        inbox = await self.make()
        registered = await self.register(inbox, "bob", "chan")
        for seq in (1, 2):
            await self.fill(inbox, "bob", 1)
            await inbox.ack(Ack("bob", "default", "chan", registered.page.epoch, seq))
        await self.fill(inbox, "bob", 1)
        await inbox.pull("nobody", "", 0, 10)
        ends = {key: await self.redis.command("TTL", key) for key in await self.redis.command("KEYS", "*")}
        self.assertIn(b"imd:{bob}:inbox", ends)
        self.assertEqual([key for key, seconds in ends.items() if seconds <= 0], [])

    def test_down_with_thousands_waiting(self) -> None:
        """Each of them learns it, however many calls they would have been."""
        clock = Clock()
        inbox = RedisInbox(clock, self.server.url, InboxOptions(), ServerClock())
        answers = [inbox.pull("bob", "", 0, 1) for _ in range(20_000)]
        clock.advance(0)
        for answer in answers:
            self.failureResultOf(answer, Unavailable)

    async def test_broken_user_fails_alone(self) -> None:
        """The other items of the same call are answered all the same."""
        inbox = await self.make()
        epoch = (await self.register(inbox, "bob", "chan")).page.epoch
        await self.redis.command("SET", "imd:{carol}:channels", "rubbish")
        await self.redis.command("SET", "imd:{carol}:head", "rubbish")
        for ask in (
            lambda user: self.register(inbox, user, "chan"),
            lambda user: inbox.pull(user, epoch, 0, 10),
            lambda user: inbox.ack(Ack(user, "default", "chan", epoch, 0)),
            lambda user: inbox.renew(Lease(user, "default", "chan", False, True)),
            lambda user: inbox.leave(Leave(user, "default", "chan", epoch, 0, False)),
        ):
            broken, good = (ensureDeferred(ask(user)) for user in ("carol", "bob"))
            await good
            with self.assertRaises(Unavailable):
                await broken

    async def test_thousands_leave_at_once(self) -> None:
        """By an acknowledgement, or by a bound that has become smaller."""
        inbox = await self.make()
        epoch = (await self.register(inbox, "bob", "chan")).page.epoch
        await self.fill(inbox, "bob", 1500)
        await inbox.ack(Ack("bob", "default", "chan", epoch, 700))
        self.assertEqual(await self.redis.command("ZCARD", "imd:{bob}:inbox"), 800)
        smaller = await self.make(max_messages=10)
        await self.fill(smaller, "bob", 1)
        page = await inbox.pull("bob", epoch, 1400, 100)
        self.assertEqual([seq for seq, _ in page.messages], list(range(1492, 1502)))

    async def test_number_that_is_none(self) -> None:
        """A head that holds rubbish fails its messages, each time anew, and no others."""
        inbox = await self.make()
        await self.fill(inbox, "bob", 1)
        await self.redis.command("HSET", "imd:{bob}:head", "seq", "rubbish")
        for _ in range(2):
            broken, good = await inbox.accept(
                [
                    submission("alice", ["bob"], client_msg_id="c-1", msg="same"),
                    submission("alice", ["carol"]),
                ]
            )
            self.assertIsInstance(broken, Failed)
            self.assertIsInstance(good, Placed)

    async def test_keys_are_as_documented(self) -> None:
        """Everything of a user is under its hash tag, in the documented shapes."""
        inbox = await self.make()
        registered = await self.register(inbox, "bob", "chan", "phone")
        await inbox.accept([submission("al ice", ["bob"], client_msg_id="c/1", device="d 1")])
        keys = sorted(await self.redis.command("KEYS", "*"))
        expected = ["channels", "cursors", "devices", "head", "inbox"]
        of_bob = [f"imd:{{bob}}:{name}".encode() for name in expected]
        self.assertEqual(keys, sorted([*of_bob, b"imd:run", b"imd:sent", b"imd:sent:1"]))
        channel, ends = (await self.redis.command("HGET", "imd:{bob}:channels", "phone")).split()
        self.assertEqual(channel, b"chan")
        self.assertGreater(int(ends), 1_700_000_000)
        head = dict(zip(*[iter(await self.redis.command("HGETALL", "imd:{bob}:head"))] * 2, strict=True))
        self.assertEqual(head[b"epoch"].decode(), registered.page.epoch)
        number, run_id, replid, at, began = (await self.redis.command("GET", "imd:run")).split()
        self.assertEqual((head[b"seq"], head[b"n"]), (b"1", number))
        self.assertEqual((run_id, len(replid)), (self.redis.run_id, 40))
        self.assertLessEqual(int(began), int(at))
        scores = await self.redis.command("ZRANGE", "imd:{bob}:inbox", 0, -1, "WITHSCORES")
        self.assertEqual(scores[1], b"1")
        self.assertEqual(await self.redis.command("HGET", "imd:{bob}:cursors", "phone"), b"0")
        self.assertEqual(await self.redis.command("GET", "imd:sent"), b"1")
        remembered = await self.redis.command("HGET", "imd:sent:1", "al%20ice:d%201:c/1")
        self.assertEqual(len(remembered.split()), 3)

    async def test_client_message_ids_in_turns(self) -> None:
        """Each clientMsgId is known for as long as promised, with any resends, and two hashes hold all."""
        chance = random.Random(1)
        inbox = await self.make(dedup_seconds=100)
        now = 0
        used: dict[str, int] = {}
        for _ in range(120):
            step = chance.choice((0, 0, 7, 30, 60))
            await self.advance(step)
            now += step
            names = [f"c{chance.randrange(12)}" for _ in range(3)]
            outcomes = await inbox.accept(
                [submission("alice", ["bob"], client_msg_id=name, msg=name) for name in names]
            )
            for name, outcome in zip(names, outcomes, strict=True):
                age = now - used.get(name, -1000)
                # Redis' own clock goes on meanwhile, and times are told in whole milliseconds.
                if abs(age - 100) > 20:
                    self.assertEqual(type(outcome), Duplicate if age < 100 else Placed, (name, age))
                used[name] = now
            keys = await self.redis.command("KEYS", "imd:sent:*")
            self.assertLessEqual(len(keys), 2)
            for key in [*keys, b"imd:sent"]:
                self.assertGreater(await self.redis.command("TTL", key), 0)

    async def test_client_message_ids_for_longer(self) -> None:
        """When dedup_seconds is raised, the turn that has begun is kept for longer as well."""
        inbox = await self.make(dedup_seconds=60)
        old, new = (submission("alice", ["bob"], client_msg_id=name) for name in ("old", "new"))
        self.assertIsInstance((await inbox.accept([old]))[0], Placed)
        await self.advance(40)
        inbox = await self.make(dedup_seconds=3600)
        await self.advance(130)
        self.assertEqual([type(outcome) for outcome in await inbox.accept([new, old])], [Placed, Duplicate])
        await self.advance(3500)
        self.assertEqual(
            [type(outcome) for outcome in await inbox.accept([new, old])], [Duplicate, Duplicate]
        )

    async def test_turn_without_an_end(self) -> None:
        """A turn that is over goes when the one after the next begins, or by itself."""
        inbox = await self.make(dedup_seconds=60)
        for turn in range(1, 4):
            await inbox.accept([submission("alice", ["bob"], client_msg_id=str(turn))])
            keys = await self.redis.command("KEYS", "imd:sent:*")
            wanted = {b"imd:sent:%d" % of for of in range(max(1, turn - 1), turn + 1)}
            self.assertEqual(set(keys), wanted)
            await self.advance(110)
        await self.advance(200)
        self.assertEqual(await self.redis.command("KEYS", "imd:sent*"), [])

    async def test_thousands_of_client_message_ids(self) -> None:
        """More of them in one call than Lua passes at once are remembered, and found again."""
        inbox = await self.make(max_messages=100)
        batch = [submission("alice", [f"u{i % 9}"], client_msg_id=f"c{i}") for i in range(4500)]
        self.assertEqual({type(outcome) for outcome in await inbox.accept(batch)}, {Placed})
        self.assertEqual(await inbox.accept(batch), [Duplicate(s.message_id, s.send_time) for s in batch])

    async def test_broken_memory_of_client_message_ids(self) -> None:
        """Rubbish where they are remembered fails those that have one, not the others."""
        inbox = await self.make()
        await self.redis.command("SET", "imd:sent:0", "rubbish")
        broken, good = await inbox.accept(
            [submission("alice", ["bob"], client_msg_id="c-1"), submission("alice", ["bob"])]
        )
        self.assertIsInstance(broken, Failed)
        self.assertIsInstance(good, Placed)

    async def test_body_that_cannot_be_shared(self) -> None:
        """A message that fails so is not remembered: it may come again."""
        inbox = await self.make()
        message = submission("a", [f"u{i}" for i in range(8)], client_msg_id="c-1")
        await self.redis.command("SET", f"imd:shared:{message.message_id}", "rubbish")
        self.assertIsInstance((await inbox.accept([message]))[0], Failed)
        await self.redis.command("DEL", f"imd:shared:{message.message_id}")
        self.assertIsInstance((await inbox.accept([message]))[0], Placed)

    async def test_rubbish_for_the_last_shared_message(self) -> None:
        """A broken head costs nobody a message, when inboxes overflow."""
        inbox = await self.make(max_messages=2)
        await inbox.accept([submission("a", ["bob"]) for _ in range(2)])
        await self.redis.command("HSET", "imd:{bob}:head", "shared", "rubbish")
        outcomes = await inbox.accept([submission("a", [user]) for user in ("carol", "bob", "dave")])
        self.assertEqual([type(outcome) for outcome in outcomes], [Placed] * 3)

    async def test_inboxes_become_skip_lists_one_after_another(self) -> None:
        """Redis turns all members of an inbox at once: a thousand inboxes would turn in the same call."""
        inbox = await self.make()
        users = [f"u{i}" for i in range(64)]
        keys = [f"imd:{{{user}}}:inbox" for user in users]
        turned = []
        for _ in range(13):
            await inbox.accept([submission("a", users) for _ in range(10)])
            kinds = [await self.redis.command("OBJECT", "ENCODING", key) for key in keys]
            turned.append(sum(kind == b"skiplist" for kind in kinds))
        self.assertEqual((turned[5], turned[-1]), (0, 64))
        self.assertLessEqual(max(after - before for before, after in pairwise(turned)), 20)
        for key in keys:
            scores = (await self.redis.command("ZRANGE", key, 0, -1, "WITHSCORES"))[1::2]
            self.assertEqual([int(score) for score in scores], list(range(1, 131)))

    async def test_full_inboxes_make_room_one_after_another(self) -> None:
        """For several messages at once, not all in the same call; the newest are always there."""
        inbox = await self.make(unopened_messages=1000)
        users = [f"u{i}" for i in range(14)]
        for _ in range(5):
            await inbox.accept([submission("a", users) for _ in range(198)])
        before = await self.sizes(users)
        made_room = []
        for _ in range(30):
            await inbox.accept([submission("a", users)])
            sizes = await self.sizes(users)
            made_room.append(sum(size <= old for size, old in zip(sizes, before, strict=True)))
            self.assertLessEqual(max(sizes), 1006)
            self.assertGreaterEqual(min(sizes), min(1000, 990 + len(made_room)))
            before = sizes
        # Numbers in a row have a turn each of seven.
        self.assertEqual(made_room, [0] * 10 + [2] * 20)
        oldest = (await self.redis.command("ZRANGE", "imd:{u0}:inbox", 0, 0, "WITHSCORES"))[1]
        self.assertEqual(int(oldest), 1020 - before[0] + 1)

    async def test_no_inbox_holds_more_than_it_may(self) -> None:
        """The limit holds from any state before, in batches of any size; an opened one holds just as many."""
        chance = random.Random(2)
        users = [f"u{i}" for i in range(12)]
        full = await self.make(max_messages=1000, unopened_messages=1000)
        for user in users[:3]:
            await self.register(full, user, f"c-{user}")
        # These are full to the brim, as earlier versions left them.
        for user in users[::2]:
            held = [word for number in range(1, 1001) for word in (number, f"body {number}")]
            await self.redis.command("ZADD", f"imd:{{{user}}}:inbox", *held)
            await self.redis.command("HSET", f"imd:{{{user}}}:head", "seq", 1000)
        for most, unopened in ((1000, 1000), (1000, 999), (1000, 500), (600, 500), (600, 600)):
            inbox = await self.make(max_messages=most, unopened_messages=unopened)
            for step in range(30):
                to = users if step % 3 else users[:2]
                count = 1 if step < 5 else chance.choice((1, 2, 9, 40))
                await inbox.accept([submission("a", to) for _ in range(count)])
                if step < 10 and (most, unopened) != (1000, 1000):
                    # A limit that was lowered holds from an unopened inbox's next turn.
                    continue
                for user, size in zip(users, await self.sizes(users), strict=True):
                    if user in users[:3]:
                        seq = await self.redis.command("HGET", f"imd:{{{user}}}:head", "seq")
                        self.assertEqual(size, min(int(seq), most), (user, most, unopened))
                    else:
                        self.assertLessEqual(size, min(unopened + 6, most), (user, most, unopened))

    async def test_expiry_of_many_is_put_off_over_several_calls(self) -> None:
        """The first message of a day lets no inbox expire early, and does not all of the work in one call."""
        inbox = await self.make()
        users = [f"u{i}" for i in range(110)]
        await inbox.accept([submission("a", users)])
        today = int(time.time() / 86400)
        (before,) = {await self.redis.command("HGET", f"imd:{{{user}}}:head", "day") for user in users[:100]}
        self.assertEqual(int(before), today)
        # Nobody has got a message for days, the last one for longer than anything may be put off.
        for n, user in enumerate(users):
            days = 3 if n < 109 else 4
            await self.redis.command("HSET", f"imd:{{{user}}}:head", "day", today - days)
            for name, spare in (("head", 5), ("inbox", 4)):
                left = (30 + spare - days) * 86400 - 60
                await self.redis.command("EXPIRE", f"imd:{{{user}}}:{name}", left)

        async def put_off() -> int:
            for user in users:
                for name in ("head", "inbox"):
                    left = await self.redis.command("TTL", f"imd:{{{user}}}:{name}")
                    self.assertGreater(left, 30 * 86400, f"{user}: {name}")
            days = [await self.redis.command("HGET", f"imd:{{{user}}}:head", "day") for user in users]
            return sum(int(day) == today for day in days)

        for expected in (100, 110):
            await inbox.accept([submission("a", users)])
            self.assertEqual(await put_off(), expected)

    async def test_message_to_many_is_kept_once(self) -> None:
        """It goes with the last inbox that holds it, however it leaves."""
        inbox = await self.make(max_messages=3)
        users = [f"u{i}" for i in range(8)]
        (outcome,) = await inbox.accept([submission("a", users)])
        (key,) = await self.redis.command("KEYS", "imd:shared:*")
        self.assertEqual(await self.redis.command("HGET", key, "left"), b"8")
        self.assertGreater(await self.redis.command("TTL", key), 30 * 86400)
        held = await self.redis.command("ZRANGE", "imd:{u0}:inbox", 0, -1)
        self.assertEqual(held, [b"@" + key.removeprefix(b"imd:shared:")])
        for user in users[:7]:
            registered = await self.register(inbox, user, f"c-{user}")
            self.assertEqual([body for _, body in registered.page.messages], [outcome.deliveries[0].body])
            await inbox.ack(Ack(user, "default", f"c-{user}", registered.page.epoch, 1))
        self.assertEqual(await self.redis.command("HGET", key, "left"), b"1")
        await self.fill(inbox, "u7", 3)
        self.assertEqual(await self.redis.command("KEYS", "imd:shared:*"), [])

    async def test_messages_to_many_are_counted(self) -> None:
        """A shared message always counts the inboxes that hold it, and exists as long as one does."""
        chance = random.Random(1)
        inbox = await self.make(max_messages=20, devices=2, channels_per_user=4)
        users = [f"u{number}" for number in range(12)]
        channels: dict[tuple[str, str], tuple[str, str, int]] = {}
        sent: list[Submission] = []
        for step in range(150):
            at = chance.choice(users), chance.choice("abcd")
            what = chance.choice(("send", "send", "connect", "ack", "ack", "leave", "desk"))
            if what == "send":
                batch = [submission("visitor-1", [])] if chance.random() < 0.3 else []
                for _ in range(3):
                    to = chance.sample(users, chance.choice((1, 7, 8, 12)))
                    batch.append(submission(chance.choice(users), to, client_msg_id=f"{step}"))
                sent += batch
                await inbox.accept([*batch, chance.choice(sent)])
            elif what == "connect":
                registered = await self.register(
                    inbox, at[0], f"c{step}", at[1], ephemeral=step % 3 == 0, answers_visitors=step % 4 == 0
                )
                channels[at] = (f"c{step}", registered.page.epoch, registered.page.head)
            elif what == "desk":
                await inbox.serve_desk()
            elif channels:
                (user, device), (channel, epoch, head) = chance.choice(list(channels.items()))
                if what == "ack":
                    await inbox.ack(Ack(user, device, channel, epoch, chance.randint(0, head + 20)))
                else:
                    del channels[user, device]
                    await inbox.leave(Leave(user, device, channel, epoch, head, step % 2 == 0))
        held: Counter[bytes] = Counter()
        for key in await self.redis.command("KEYS", "imd:{*}:inbox"):
            held.update(m for m in await self.redis.command("ZRANGE", key, 0, -1) if m.startswith(b"@"))
        left = {
            b"@" + key.removeprefix(b"imd:shared:"): int(await self.redis.command("HGET", key, "left"))
            for key in await self.redis.command("KEYS", "imd:shared:*")
        }
        self.assertTrue(left)
        self.assertEqual(left, dict(held))

    async def test_message_to_many_that_has_expired(self) -> None:
        """Pages end where one is gone, and begin behind it: a hole that a session sees."""
        inbox = await self.make()
        await self.fill(inbox, "u0", 1)
        await inbox.accept([submission("a", [f"u{i}" for i in range(8)])])
        await self.fill(inbox, "u0", 1)
        (key,) = await self.redis.command("KEYS", "imd:shared:*")
        await self.redis.command("DEL", key)
        registered = await self.register(inbox, "u0", "c1")
        self.assertEqual([seq for seq, _ in registered.page.messages], [1])
        page = await inbox.pull("u0", registered.page.epoch, 1, 10)
        self.assertEqual(([seq for seq, _ in page.messages], page.head), ([3], 3))
        await inbox.ack(Ack("u0", "default", "c1", registered.page.epoch, 3))
        self.assertEqual(await self.redis.command("KEYS", "imd:shared:*"), [])

    async def test_flushall_draws_a_new_epoch(self) -> None:
        """After FLUSHALL no old number counts."""
        inbox = await self.make()
        registered = await self.register(inbox, "bob", "c1")
        await self.fill(inbox, "bob", 3)
        await self.redis.command("FLUSHALL")
        await self.fill(inbox, "bob", 1)
        again = await self.register(inbox, "bob", "c2", epoch=registered.page.epoch, seq=3)
        self.assertNotEqual(again.page.epoch, registered.page.epoch)
        self.assertEqual((again.seq, again.recovered, texts(again.page)), (0, False, [(1, "1")]))

    async def test_era(self) -> None:
        """The same for all nodes; another one after FLUSHALL."""
        await self.begin()
        one, two = self.inbox, await self.make_inbox(InboxOptions())
        before = await one.era()
        self.assertEqual((await two.era(), await one.era()), (before, before))
        await self.redis.command("FLUSHALL")
        after = await two.era()
        self.assertNotEqual(after, before)
        self.assertEqual(await one.era(), after)

    async def test_another_run_draws_a_new_epoch(self) -> None:
        """A restarted Redis may have lost its last writes: its numbers are of a new epoch."""
        inbox = await self.make()
        registered = await self.register(inbox, "bob", "c1")
        await self.fill(inbox, "bob", 3)
        await inbox.ack(Ack("bob", "default", "c1", registered.page.epoch, 2))
        await self.restart(inbox)
        again = await self.register(inbox, "bob", "c2", epoch=registered.page.epoch, seq=3)
        self.assertNotEqual(again.page.epoch, registered.page.epoch)
        self.assertEqual((again.seq, again.recovered), (2, False))
        again = await self.register(inbox, "bob", "c3")
        self.assertEqual((again.seq, again.recovered), (2, False))
        await inbox.ack(Ack("bob", "default", "c3", again.page.epoch, 2, start_confirmed=True))
        self.assertTrue((await self.register(inbox, "bob", "c4")).recovered)
        (placed,) = await inbox.accept([submission("a", ["bob"])])
        self.assertEqual(placed.deliveries[0].seq, 4)

    async def test_lossless_restart_keeps_the_epoch(self) -> None:
        """Where the operator vouches for Redis, a restart is no break."""
        inbox = await self.make(lossless=True)
        registered = await self.register(inbox, "bob", "c1")
        await self.fill(inbox, "bob", 3)
        await self.restart(inbox)
        again = await self.register(inbox, "bob", "c2", epoch=registered.page.epoch, seq=2)
        self.assertEqual((again.page.epoch, again.seq, again.recovered), (registered.page.epoch, 2, True))

    async def test_down_means_unavailable_at_once(self) -> None:
        """While Redis is away everything fails at once, with the project's own error."""
        inbox = await self.make()
        self.server.kill()
        self.addCleanup(self._see_it_runs)
        await until(lambda: inbox.problem() is not None, "the loss is noticed")
        failed: Deferred[Any] = inbox.accept([submission("a", ["bob"])])
        self.assertTrue(failed.called)
        await self.assertFailure(failed, Unavailable)
        await self.assertFailure(inbox.pull("bob", "e", 0, 1), Unavailable)

    def _see_it_runs(self) -> None:
        if not self.server.running:
            self.server.start()

    async def test_full_redis_refuses_and_still_drains(self) -> None:
        """With maxmemory reached nothing is accepted, but what is there can be read and acknowledged."""
        inbox = await self.make()
        await self.fill(inbox, "bob", 3)
        await self.redis.command("CONFIG", "SET", "maxmemory", "1mb")
        try:
            refused = inbox.accept([submission("a", ["bob", "carol"])])
            error = await self.assertFailure(refused, Unavailable)
            self.assertIn("redis: full, maxmemory is reached", str(error))
            registered = await self.register(inbox, "bob", "c1")
            self.assertEqual(len(registered.page.messages), 3)
            await inbox.ack(Ack("bob", "default", "c1", registered.page.epoch, 3))
            page = await inbox.pull("bob", registered.page.epoch, 0, 10)
            self.assertEqual(list(page.messages), [])
        finally:
            await self.redis.command("CONFIG", "SET", "maxmemory", "0")
        (outcome,) = await inbox.accept([submission("a", ["bob"])])
        self.assertIsInstance(outcome, Placed)

    async def test_broken_key_fails_its_own_message_only(self) -> None:
        """A recipient whose keys hold rubbish fails that message, whole, and not its batch."""
        inbox = await self.make()
        await self.redis.command("SET", "imd:{bad}:inbox", "rubbish")
        bad = ["bob", "bad"]
        outcomes = await inbox.accept(
            [submission("a", ["bob"]), submission("a", bad), submission("b", bad), submission("a", ["bob"])]
        )
        self.assertEqual([type(o) for o in outcomes], [Placed, Failed, Failed, Placed])
        del outcomes[2]
        self.assertEqual(outcomes[2].deliveries[0].seq, 2)

    async def test_eviction_policy_is_not_ready(self) -> None:
        """A Redis that may evict keys may lose messages: such a node is not ready, and says why."""
        await self.redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            inbox = await self.make()
            self.assertIn("allkeys-lru", inbox.problem() or "")
        finally:
            await self.redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")

    async def test_eviction_policy_that_is_changed_later(self) -> None:
        """The policy is looked at again and again: a change shows, and so does that it was taken back."""
        self.patch(redis_connection, "SETTINGS_SECONDS", 0.1)
        inbox = await self.make()
        try:
            await self.redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            await until(lambda: "allkeys-lru" in (inbox.problem() or ""), "the change is seen")
            await self.redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await until(lambda: inbox.problem() is None, "the change back is seen")
        finally:
            await self.redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")

    async def test_scripts_that_are_gone_are_loaded_again(self) -> None:
        """SCRIPT FLUSH costs one refusal, not the node."""
        inbox = await self.make()
        await self.redis.command("SCRIPT", "FLUSH")
        await self.assertFailure(inbox.accept([submission("a", ["bob"])]), Unavailable)
        await until(lambda: inbox.problem() is None, "connected again")
        (outcome,) = await inbox.accept([submission("a", ["bob"])])
        self.assertIsInstance(outcome, Placed)
