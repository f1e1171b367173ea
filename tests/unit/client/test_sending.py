"""The outbox: in order, again when there was no answer, never when it could be delivered twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial import unittest

from imd.client import OutboxFull, Refusal, SqliteStore, events
from tests.unit.client.support import Pipe

SCENARIOS = json.loads(Path(__file__).with_name("refusals.json").read_text())
"""`sends`: recipient and text. `refused`: text → retryAfterMs, for its first sending. `cut`: the text that
the connection breaks at, once. `taken`: the texts in the order of acceptance. imd.js passes them, too."""


def taken(scenario: dict[str, Any]) -> list[str]:
    """Run a scenario to the end of its outbox; gives the texts in the order of acceptance."""
    pipe, accepted = Pipe(), []
    refused, cut = dict(scenario["refused"]), scenario.get("cut")
    for to, msg in scenario["sends"]:
        pipe.core.send(msg, to)
    pipe.open()
    end = pipe.clock.now + 20
    while pipe.core.outbox.waiting:
        frames = [frame for frame in pipe.take() if "msg" in frame]
        if not frames:
            assert pipe.clock.now < end, accepted
            pipe.wait(0.1)
        for frame in frames:
            msg, answer = frame["msg"], {"clientMsgId": frame["clientMsgId"]}
            if msg == cut:
                cut = None
                pipe.lose()
                pipe.wait(1)
                pipe.open()
                break
            if msg in refused:
                answer |= {"type": "error", "code": "rate_limited", "reason": "", "temporary": True}
                pipe.gets(**answer, retryAfterMs=refused.pop(msg))
            else:
                accepted.append(msg)
                pipe.gets(**answer, type="accepted", id=msg, sendTime=1)
    return accepted


class OutboxTests(unittest.TestCase):
    def test_pauses(self) -> None:
        """The pause of a refusal is for all messages, or, if it is long, for the refused one's recipients."""
        for scenario in SCENARIOS:
            self.assertEqual(taken(scenario), scenario["taken"], scenario["name"])

    def test_held_message_is_cancelled(self) -> None:
        """A message that is held can be cancelled; the next one to its recipient takes its place."""
        pipe = Pipe()
        pipe.open()
        one, _ = pipe.core.send("1", "new"), pipe.core.send("2", "new")
        refused = {"clientMsgId": one.client_msg_id, "reason": "", "temporary": True}
        pipe.gets(type="error", code="rate_limited", retryAfterMs=3_600_000, **refused)
        pipe.take()
        self.assertTrue(pipe.core.cancel(one.client_msg_id))
        pipe.core.send("3", "bob")
        self.assertEqual([frame["msg"] for frame in pipe.take()], ["2", "3"])

    def test_in_order(self) -> None:
        """One message of each conversation is unanswered at a time."""
        pipe = Pipe()
        first = pipe.core.send("1", "bob")
        pipe.core.send("2", "bob")
        pipe.open()
        self.assertEqual([frame.get("msg") for frame in pipe.take()], [None, "1"])
        pipe.gets(type="accepted", clientMsgId=first.client_msg_id, id="a", sendTime=5)
        self.assertEqual([frame["msg"] for frame in pipe.take()], ["2"])
        [accepted] = pipe.events(events.Accepted)
        self.assertEqual((accepted.outgoing.state, accepted.id), ("accepted", "a"))

    def test_sent_again(self) -> None:
        """After the next connect, messages without an answer are sent again, under the same clientMsgId."""
        pipe = Pipe()
        pipe.open()
        for text, to in (("1", "bob"), ("2", "carol"), ("3", "bob")):
            pipe.core.send(text, to)
        before = [frame for frame in pipe.take() if "msg" in frame]
        self.assertEqual([frame["msg"] for frame in before], ["1", "2"])
        pipe.lose()
        pipe.wait(1)
        pipe.open()
        self.assertEqual([frame for frame in pipe.take() if "msg" in frame], before)

    def test_refused(self) -> None:
        """A temporary refusal: nothing until the pause is over. A final one: failed, until it is retried."""
        pipe = Pipe()
        pipe.open()
        one, _ = pipe.core.send("1", "bob"), pipe.core.send("2", "bob")
        pipe.take()
        refused = {"clientMsgId": one.client_msg_id, "reason": "…"}
        pipe.gets(type="error", code="rate_limited", temporary=True, retryAfterMs=900, **refused)
        pipe.wait(0.8)
        self.assertEqual(pipe.take(), [])
        pipe.wait(0.2)
        self.assertEqual([frame["msg"] for frame in pipe.take()], ["1"])
        pipe.gets(type="error", code="forbidden", temporary=False, **refused)
        self.assertEqual([frame["msg"] for frame in pipe.take()], ["2"])
        [failed] = pipe.events(events.Failed)
        self.assertEqual((failed.outgoing, failed.refusal.code), (one, "forbidden"))
        self.assertFalse(pipe.core.cancel(pipe.core.outbox.all[1].client_msg_id), "it may be in an inbox")
        self.assertTrue(pipe.core.retry(one.client_msg_id))
        self.assertEqual([outgoing.msg for outgoing in pipe.core.outbox.all], ["2", "1"])
        self.assertTrue(pipe.core.cancel(one.client_msg_id))
        self.assertFalse(pipe.core.cancel(one.client_msg_id))

    def test_bound(self) -> None:
        """`send` raises OutboxFull when the outbox is full."""
        pipe = Pipe(max_outbox=1)
        pipe.core.send("1", "bob")
        self.assertRaises(OutboxFull, pipe.core.send, "2", "bob")

    def test_unsendable(self) -> None:
        """`send` refuses a message that no node would take; too large a frame is never sent."""
        pipe = Pipe()
        pipe.open(limits={"messageBytes": 1000})
        pipe.take()
        self.assertRaises(ValueError, pipe.core.send, "", "bob")
        self.assertRaises(ValueError, pipe.core.send, "x")
        self.assertRaises(ValueError, pipe.core.send, "\ud800", "bob")
        pipe.core.send("x" * 75_000, "bob")
        self.assertEqual(pipe.take(), [])
        self.assertEqual(pipe.events(events.Failed)[0].refusal.code, "too_large")

    def test_survives(self) -> None:
        """A new process finds waiting and failed messages in the store."""
        path = self.mktemp()
        store = SqliteStore(path)
        pipe = Pipe(store=store)
        pipe.open()
        bad = pipe.core.send("bad", group=["bob", "carol"], content_type="text/plain")
        pipe.core.send("good", "bob")
        pipe.gets(type="error", clientMsgId=bad.client_msg_id, code="forbidden", reason="no", temporary=False)
        store.close()
        store = SqliteStore(path)
        self.addCleanup(store.close)
        pipe = Pipe(store=store)
        failed, good = pipe.core.outbox.all
        self.assertEqual((failed.error, failed.group), (Refusal("forbidden", "no"), ("bob", "carol")))
        pipe.open()
        self.assertEqual([frame["msg"] for frame in pipe.take() if "msg" in frame], ["good"])
        self.assertEqual(good.state, "sent")

    def test_reply(self) -> None:
        """A reply goes to the sender or the group; its clientMsgId derives from an unhandled message."""
        pipe = Pipe()
        pipe.open()
        pipe.message(1)
        pipe.message(2, group=["alice", "carol"])
        one, two = pipe.delivered
        replies = [pipe.core.reply(one, "a"), pipe.core.reply(one, "b"), pipe.core.reply(two, "c")]
        self.assertEqual([reply.client_msg_id for reply in replies], ["re-m1-1", "re-m1-2", "re-m2-1"])
        self.assertEqual([reply.to for reply in replies], ["bob", "bob", ""])
        self.assertEqual(replies[2].group, ("bob", "carol"))
        pipe.core.handled("m1")
        self.assertEqual(len(pipe.core.reply(one, "d").client_msg_id), 32)

    def test_expired(self) -> None:
        """A message sent so long ago that the nodes may have forgotten it fails; an unsent one can wait."""
        pipe = Pipe(dedup_seconds=100)
        pipe.open()
        sent, limited = pipe.core.send("1", "bob"), pipe.core.send("2", "carol")
        pipe.core.send("3", "bob")
        refused = {"clientMsgId": limited.client_msg_id, "reason": "…", "temporary": True}
        pipe.gets(type="error", code="rate_limited", **refused)
        # The time of day does not matter: it is the nodes that forget, by their clock.
        for hours in (-1, 1):
            pipe.clock.wall_now += 3600 * hours
            pipe.lose()
            pipe.wait(1)
            pipe.open(serverTime=5_000_000 + 80_000)
        self.assertEqual(pipe.events(events.Failed), [])
        pipe.lose()
        pipe.wait(1)
        pipe.take()
        pipe.open(serverTime=5_000_000 + 91_000)
        self.assertEqual([frame.get("msg") for frame in pipe.take()[1:]], ["2", "3"])
        [failed] = pipe.events(events.Failed)
        self.assertEqual((failed.outgoing, failed.refusal.code), (sent, "expired"))

    def test_other_user(self) -> None:
        """Another user's outbox is not sent, and its cursor is not used."""
        store = SqliteStore(":memory:")
        self.addCleanup(store.close)
        pipe = Pipe(store=store)
        pipe.open(seq=5)
        pipe.core.send("1", "bob")
        pipe = Pipe(store=store, user_id=None, has_token=True)
        pipe.core.start()
        pipe.core.token_given("mallorys")
        pipe.open(userId="mallory", epoch="m", seq=0)
        self.assertEqual([frame.get("msg") for frame in pipe.take()[1:]], [])
        self.assertEqual(pipe.events(events.Failed)[0].refusal.code, "other_user")
        self.assertEqual((store.load().user_id, store.load().epoch), ("mallory", "m"))

    def test_new_visitor(self) -> None:
        """A new visitor sends the unsent messages of the forgotten one."""
        pipe = Pipe(visitor=True, user_id=None)
        pipe.open(userId="visitor-1", visitorToken="t1")
        pipe.core.send("sent")
        pipe.core.send("not yet")
        pipe.lose(4001)
        pipe.wait(1)
        pipe.open(userId="visitor-2", visitorToken="t2")
        self.assertEqual([frame["msg"] for frame in pipe.take() if "msg" in frame][-1:], ["not yet"])
        self.assertEqual([failed.outgoing.msg for failed in pipe.events(events.Failed)], ["sent"])
