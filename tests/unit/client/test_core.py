"""The client's core, with a clock that stands still and a node made of lists: nothing lost, nothing twice."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.client import Message, Options, OutboxFull, Refusal, SqliteStore, State, Store, effects, events
from imd.client.core import Core
from imd.client.reconnect import Verdict, judge
from imd.client.store import MemoryStore

WINDOW = 8


class Clock:
    now = 1000.0

    def seconds(self) -> float:
        return self.now


class Pipe:
    """A core and what it does, by hand."""

    def __init__(self, clock: Clock | None = None, store: Store | None = None, **options: Any) -> None:
        self.clock = clock or Clock()
        options = {"user_id": "alice", **options}
        self.core = Core(Options(**options), store or MemoryStore(), self.clock.seconds, chance=lambda: 1.0)
        self.done: list[effects.Effect] = []
        self.sent: list[dict[str, Any]] = []
        self.delivered: list[Message] = []
        self.happened: list[Any] = []

    def run(self) -> None:
        for effect in self.core.effects():
            self.done.append(effect)
            match effect:
                case effects.Transmit(text):
                    self.sent.append(json.loads(text))
                case effects.Deliver(message):
                    self.delivered.append(message)
                case effects.Emit(event):
                    self.happened.append(event)

    def take(self) -> list[dict[str, Any]]:
        """What was sent since it was asked last."""
        self.run()
        sent, self.sent = self.sent, []
        return sent

    def events(self, kind: type) -> list[Any]:
        self.run()
        return [event for event in self.happened if isinstance(event, kind)]

    def gets(self, **frame: Any) -> None:
        self.core.received(self.core.connection, json.dumps(frame))
        self.run()

    def open(self, **fields: Any) -> None:
        """Through the connect signal."""
        if self.core.state is State.IDLE:
            self.core.start()
        self.core.opened(self.core.connection)
        connected = {"userId": "alice", "epoch": "e", "seq": 0, "recovered": True, "serverTime": 5_000_000}
        limits = {"messageBytes": 100_000, "ackWindow": WINDOW}
        self.gets(type="connected", **(connected | {"limits": limits, "pingSeconds": 25} | fields))

    def message(self, seq: int, message_id: str | None = None, **fields: Any) -> None:
        self.gets(seq=seq, id=message_id or f"m{seq}", userId="bob", msg="hi", sendTime=1, **fields)

    def lose(self, code: int | None = None) -> None:
        self.core.closed(self.core.connection, code, "gone")
        self.run()

    def wait(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while (at := self.core.deadline()) is not None and at <= end:
            self.clock.now = max(self.clock.now, at)
            self.core.tick()
            self.run()
        self.clock.now = end


class ConnectTests(unittest.TestCase):
    def test_signal(self) -> None:
        """The connect signal names user, device and cursor, with an attempt that rises."""
        pipe = Pipe(device="phone", customer_service=True)
        pipe.open(seq=7)
        [first] = pipe.take()
        self.assertLessEqual({"isConnect": True, "userId": "alice", "device": "phone"}.items(), first.items())
        self.assertEqual((first["ack"], first["isCustomerService"]), (True, True))
        self.assertNotIn("cursor", first)
        pipe.lose()
        pipe.wait(1)
        pipe.open(seq=7)
        [second] = pipe.take()
        self.assertEqual(second["cursor"], {"epoch": "e", "seq": 7})
        self.assertGreater(second["attempt"], first["attempt"])

    def test_clock_set_back_between_processes(self) -> None:
        """With a store the attempt rises all the same: a node must not take the client for an older one."""
        wall, store, attempts = 1_764_000_000.0, SqliteStore(":memory:"), []
        for _ in range(3):
            pipe = Pipe(store=store)
            pipe.core._wall = lambda: wall  # noqa: B023
            pipe.open()
            attempts.append(pipe.take()[0]["attempt"])
            wall -= 3600
        self.assertEqual(attempts, [1_764_000_000_000 + n for n in range(3)])

    def test_close_codes(self) -> None:
        """By their ranges; a connection that breaks backs off."""
        never, token, off, once = Verdict.NEVER, Verdict.NEW_TOKEN, Verdict.BACK_OFF, Verdict.AT_ONCE
        found = [judge(code) for code in (4000, 4001, 4003, 4099, 4100, 4101, 4200, 4250, None, 1006, 1009)]
        self.assertEqual(found, [never, token, never, never, off, off, once, once, off, off, off])

    def test_never(self) -> None:
        """After 4003 the client is closed, says so, and asks for nothing more."""
        pipe = Pipe()
        pipe.open()
        pipe.lose(4003)
        last = pipe.events(events.StateChanged)[-1]
        self.assertEqual((last.state, last.code, last.permanent), (State.CLOSED, 4003, True))
        self.assertIsNone(pipe.core.deadline())

    def test_back_off(self) -> None:
        """The pause doubles from one second up to the limit; a connection that lasted begins anew."""
        pipe = Pipe(max_backoff=5)
        pipe.core.start()
        pauses = []
        for _ in range(5):
            pipe.lose(4100)
            pauses.append(pipe.events(events.StateChanged)[-1].retry_seconds)
            pipe.wait(pauses[-1])
            self.assertEqual(pipe.core.state, State.CONNECTING)
        self.assertEqual(pauses, [1, 2, 4, 5, 5])
        pipe.open()
        pipe.wait(6)
        pipe.lose()
        self.assertEqual(pipe.events(events.StateChanged)[-1].retry_seconds, 1)

    def test_leaving(self) -> None:
        """Nothing is sent to a node that leaves; the client comes back when it was told to."""
        pipe = Pipe()
        pipe.open()
        pipe.gets(type="leaving", reconnectMs=700)
        pipe.take()
        pipe.core.send("hi", "bob")
        self.assertEqual(pipe.take(), [])
        pipe.lose(4200)
        self.assertEqual(pipe.events(events.StateChanged)[-1].retry_seconds, 0.7)
        pipe.wait(0.7)
        pipe.open()
        self.assertEqual(pipe.take()[-1]["msg"], "hi")

    def test_silence(self) -> None:
        """A node that says nothing is asked, then given up."""
        pipe = Pipe()
        pipe.open()
        pipe.take()
        pipe.wait(25)
        self.assertEqual(pipe.take(), [{"type": "ping"}])
        pipe.gets(type="pong", serverTime=1)
        pipe.wait(25)
        self.assertEqual(pipe.take(), [{"type": "ping"}])
        pipe.wait(10)
        self.assertIn(effects.Drop(), pipe.done)
        self.assertEqual(pipe.core.state, State.WAITING)

    def test_no_answer_to_connect(self) -> None:
        """A socket that opens and then says nothing is given up."""
        pipe = Pipe()
        pipe.core.start()
        pipe.core.opened(pipe.core.connection)
        pipe.wait(20)
        self.assertIn(effects.Drop(), pipe.done)
        self.assertEqual(pipe.core.state, State.WAITING)

    def test_signal_refused(self) -> None:
        """A connect signal that is wrong in form would be wrong again."""
        pipe = Pipe(login_type="WIZARD")
        pipe.core.start()
        pipe.core.opened(pipe.core.connection)
        pipe.gets(type="error", code="invalid_message", reason="loginType", temporary=False)
        self.assertEqual(pipe.core.state, State.CLOSED)

    def test_old_connection(self) -> None:
        """What is said of an earlier connection counts nothing."""
        pipe = Pipe()
        pipe.open()
        old = pipe.core.connection
        pipe.lose()
        pipe.wait(1)
        pipe.core.closed(old, 4003, "late")
        pipe.core.received(old, '{"type": "connected"}')
        self.assertEqual(pipe.core.state, State.CONNECTING)

    def test_nonsense(self) -> None:
        """A node that makes no sense is left, and come back to."""
        for text in (
            "{",
            "[]",
            '{"type": "accepted", "clientMsgId": "x"',
            '{"type": "reset"}',
            '{"seq": "x"}',
        ):
            pipe = Pipe()
            pipe.open()
            pipe.core.received(pipe.core.connection, text)
            pipe.run()
            self.assertEqual(pipe.core.state, State.WAITING, text)

    def test_unknown_frames(self) -> None:
        """Frames and kinds of a later version are skipped; numbered ones are acknowledged."""
        pipe = Pipe()
        pipe.open()
        pipe.gets(type="weather")
        pipe.gets(seq=1, kind="receipt", of="m0")
        pipe.take()
        pipe.wait(1)
        self.assertEqual(pipe.take(), [{"type": "ack", "seq": 1, "epoch": "e"}])
        self.assertEqual(pipe.delivered, [])


class TokenTests(unittest.TestCase):
    def pipe(self) -> Pipe:
        pipe = Pipe(has_token=True, user_id=None)
        pipe.core.start()
        pipe.run()
        return pipe

    def test_asked_at_each_connect(self) -> None:
        """Before it dials; and a new one after 4001."""
        pipe = self.pipe()
        self.assertNotIn(effects.Dial(1), pipe.done)
        pipe.core.token_given("one")
        pipe.open()
        self.assertEqual(pipe.take()[0]["token"], "one")
        pipe.lose(4001)
        pipe.wait(1)
        self.assertEqual(pipe.done[-1], effects.AskToken())
        pipe.core.token_given("two")
        pipe.open()
        self.assertEqual(pipe.take()[0]["token"], "two")

    def refuse(self, pipe: Pipe, token: str) -> float:
        """The node does not take it; how long the client waits before it asks for another."""
        pipe.core.token_given(token)
        pipe.core.opened(pipe.core.connection)
        pipe.lose(4001)
        pause: float = pipe.events(events.StateChanged)[-1].retry_seconds
        pipe.wait(pause)
        self.assertEqual(pipe.done[-1], effects.AskToken())
        return pause

    def test_refused(self) -> None:
        """Others are tried for ever, at once and then backing off; one that was tried before is the end."""
        pipe = self.pipe()
        pauses = [self.refuse(pipe, f"t{n}") for n in range(60)]
        self.assertEqual(pauses[:7], [0, 2, 4, 8, 16, 30, 30])
        pipe.core.token_given("good")
        pipe.open()
        pipe.wait(6)
        self.assertEqual([self.refuse(pipe, token) for token in ("good", "other")], [0, 2])
        pipe.core.token_given("good")
        end = pipe.events(events.StateChanged)[-1]
        self.assertEqual((end.state, end.code, end.reason, end.permanent), (State.CLOSED, 4001, "gone", True))
        self.assertIsNone(pipe.core.deadline())
        # The program may begin anew with any of them, as a clock may have been set right.
        pipe.core.start()
        pipe.core.token_given("good")
        pipe.open()
        self.assertEqual(pipe.core.state, State.OPEN)

    def test_renewal_refused(self) -> None:
        """The old one stands, and a newer one is asked for again: the same may be good by then."""
        pipe = self.pipe()
        pipe.core.token_given("one")
        pipe.open(exp=5_020_000, pingSeconds=1000)
        pipe.wait(16)
        pipe.core.token_given("two")
        pipe.gets(type="error", code="forbidden", reason="unauthorized: token not valid yet")
        pipe.take()
        # It is over, and the node has a leeway.
        for token, sent in (("two", 1), ("two", 1), ("one", 0), ("two", 1)):
            asked = pipe.done.count(effects.AskToken())
            pipe.wait(5)
            self.assertEqual(pipe.done.count(effects.AskToken()), asked + 1)
            pipe.core.token_given(token)
            self.assertEqual(pipe.take(), [{"type": "token", "token": token}] * sent)
            pipe.gets(type="error", code="forbidden", reason="unauthorized: token not valid yet")
        pipe.lose(4001)
        pipe.wait(0)
        pipe.core.token_given("two")
        pipe.open()
        self.assertEqual(pipe.core.state, State.OPEN)

    def test_renewed(self) -> None:
        """Before it expires, a new one is handed in on the open connection."""
        pipe = self.pipe()
        pipe.core.token_given("one")
        pipe.open(serverTime=5_000_000, exp=5_100_000, pingSeconds=1000)
        pipe.take()
        pipe.wait(79)
        self.assertEqual(pipe.done.count(effects.AskToken()), 1)
        pipe.wait(2)
        self.assertEqual(pipe.done.count(effects.AskToken()), 2)
        pipe.core.token_failed("busy")
        pipe.wait(5)
        pipe.core.token_given("two")
        self.assertEqual(pipe.take(), [{"type": "token", "token": "two"}])

    def test_none_to_be_had(self) -> None:
        """Without a token it tries again later."""
        pipe = self.pipe()
        pipe.core.token_failed("busy")
        self.assertEqual(pipe.core.state, State.WAITING)
        pipe.wait(1)
        self.assertEqual(pipe.core.state, State.CONNECTING)

    def test_visitor(self) -> None:
        """A visitor keeps its token; when that is not known any more, it is a new visitor."""
        store = SqliteStore(":memory:")
        self.addCleanup(store.close)
        pipe = Pipe(store=store, visitor=True, user_id=None)
        pipe.open(userId="visitor-1", visitorToken="t1", seq=0)
        pipe.message(1)
        pipe.core.handled("m1")
        self.assertEqual(pipe.core.user_id, "visitor-1")
        pipe = Pipe(store=store, visitor=True, user_id=None)
        pipe.open(userId="visitor-1", visitorToken="t1", seq=1)
        signal = pipe.take()[0]
        self.assertEqual((signal["visitorToken"], signal["cursor"]["seq"]), ("t1", 1))
        self.assertNotIn("loginType", signal)
        pipe.lose(4001)
        pipe.wait(1)
        pipe.open(userId="visitor-2", visitorToken="t2")
        self.assertEqual({"visitorToken", "cursor"} & pipe.take()[0].keys(), set())
        self.assertEqual(store.load().visitor_token, "t2")


class OutboxTests(unittest.TestCase):
    def test_in_order(self) -> None:
        """One of a conversation at a time, each when the one before is answered."""
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
        """What was not answered goes out again under its id, after the next connect."""
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
        """For the moment: again after the pause, and nothing in between. For good: failed, till retried."""
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
        """A full outbox says so; failed ones do not count."""
        pipe = Pipe(max_outbox=1)
        pipe.core.send("1", "bob")
        self.assertRaises(OutboxFull, pipe.core.send, "2", "bob")

    def test_unsendable(self) -> None:
        """What no node would take is refused where it is said; a frame too large is never sent."""
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
        """Waiting and failed messages are there again in a new process."""
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
        """To the sender or the group; under the same id each time until the message has been handled."""
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
        """What was sent so long ago that a node may have forgotten it fails; what never was can wait."""
        pipe = Pipe(dedup_seconds=100)
        pipe.open()
        sent, limited = pipe.core.send("1", "bob"), pipe.core.send("2", "carol")
        pipe.core.send("3", "bob")
        refused = {"clientMsgId": limited.client_msg_id, "reason": "…", "temporary": True}
        pipe.gets(type="error", code="rate_limited", **refused)
        # The time of day here is no matter: it is the nodes that forget, by their clock.
        for hours in (-1, 1):
            pipe.core._wall = lambda hours=hours: 1e9 + 3600 * hours
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
        """The outbox of one user is not sent as another, nor is the cursor used."""
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
        """A visitor that was forgotten takes along what it had not sent yet."""
        pipe = Pipe(visitor=True, user_id=None)
        pipe.open(userId="visitor-1", visitorToken="t1")
        pipe.core.send("sent")
        pipe.core.send("not yet")
        pipe.lose(4001)
        pipe.wait(1)
        pipe.open(userId="visitor-2", visitorToken="t2")
        self.assertEqual([frame["msg"] for frame in pipe.take() if "msg" in frame][-1:], ["not yet"])
        self.assertEqual([failed.outgoing.msg for failed in pipe.events(events.Failed)], ["sent"])


class ReceivingTests(unittest.TestCase):
    def test_acknowledged_when_handled(self) -> None:
        """Together, after a moment, or at once when there are many; never past what is not handled."""
        pipe = Pipe()
        pipe.open()
        for seq in (1, 2, 3):
            pipe.message(seq)
        pipe.take()
        pipe.core.handled("m2")
        pipe.wait(1)
        self.assertEqual(pipe.take(), [])
        pipe.core.handled("m1")
        self.assertEqual(pipe.take(), [{"type": "ack", "seq": 2, "epoch": "e"}])
        pipe.core.handled("m3")
        self.assertEqual(pipe.take(), [])
        pipe.wait(0.2)
        self.assertEqual(pipe.take(), [{"type": "ack", "seq": 3, "epoch": "e"}])

    def test_stop_acknowledges(self) -> None:
        """What was handled is said before the end; a node that does not close is not waited for."""
        pipe = Pipe()
        pipe.open()
        pipe.message(1)
        pipe.core.handled("m1")
        pipe.take()
        pipe.core.stop()
        self.assertEqual(pipe.take(), [{"type": "ack", "seq": 1, "epoch": "e"}])
        self.assertEqual(pipe.done[-1], effects.HangUp())
        pipe.wait(3)
        self.assertEqual((pipe.core.state, pipe.done[-2]), (State.CLOSED, effects.Drop()))

    def test_again(self) -> None:
        """What comes again while the program has it is not given twice, in whatever epoch."""
        pipe = Pipe()
        pipe.open()
        pipe.message(1)
        pipe.lose()
        pipe.wait(1)
        pipe.open(epoch="f", seq=4, recovered=False)
        self.assertEqual(len(pipe.events(events.Gap)), 1)
        self.assertEqual(pipe.take()[-1], {"type": "ack", "seq": 4, "epoch": "f"})
        pipe.message(5, "m1")
        pipe.message(6, "m2")
        self.assertEqual([message.id for message in pipe.delivered], ["m1", "m2"])
        pipe.take()
        pipe.core.handled("m2")
        pipe.core.handled("m1")
        self.assertEqual(pipe.take(), [{"type": "ack", "seq": 6, "epoch": "f"}])

    def test_reset(self) -> None:
        """On an open connection: a gap, and on from the new number."""
        pipe = Pipe()
        pipe.open()
        pipe.message(1)
        pipe.core.handled("m1")
        pipe.gets(type="reset", epoch="f", seq=40, recovered=False)
        pipe.message(41, "m1")
        pipe.take()
        pipe.wait(1)
        self.assertEqual(pipe.take(), [{"type": "ack", "seq": 41, "epoch": "f"}])
        self.assertEqual((len(pipe.delivered), len(pipe.events(events.Gap))), (1, 1))

    def test_hole(self) -> None:
        """A number left out: a new connection, from the cursor; left out there as well, it is a gap."""
        pipe = Pipe()
        pipe.open()
        pipe.message(2)
        self.assertEqual((pipe.core.state, pipe.delivered), (State.WAITING, []))
        pipe.wait(1)
        pipe.open()
        pipe.message(2)
        self.assertEqual([message.seq for message in pipe.delivered], [2])
        self.assertEqual((pipe.core.state, len(pipe.events(events.Gap))), (State.OPEN, 1))
        pipe.take()
        pipe.core.handled("m2")
        self.assertEqual(pipe.take(), [{"type": "ack", "seq": 2, "epoch": "e"}])

    def test_hole_that_was_mended(self) -> None:
        """It is forgotten: the next hole is asked for, too."""
        pipe = Pipe()
        pipe.open()
        for seq in (1, 3, 5):
            pipe.message(seq)
            pipe.core.handled(f"m{seq}")
            pipe.message(seq + 2)
            self.assertEqual(pipe.core.state, State.WAITING)
            pipe.wait(9)
            pipe.open(seq=seq)
            pipe.message(seq + 1)
            pipe.core.handled(f"m{seq + 1}")
        self.assertEqual([message.seq for message in pipe.delivered], [1, 2, 3, 4, 5, 6])
        self.assertEqual(pipe.events(events.Gap), [])


class HistoryTests(unittest.TestCase):
    def test_page(self) -> None:
        """Asked when open, four at a time, again after a broken connection."""
        pipe = Pipe()
        refs = [pipe.core.ask_history(with_="bob", before=f"m{n}") for n in range(5)]
        pipe.open()
        self.assertEqual([frame.get("ref") for frame in pipe.take()[1:]], refs[:4])
        pipe.lose()
        pipe.wait(1)
        pipe.open()
        self.assertEqual(
            pipe.take()[1], {"type": "history", "ref": refs[0], "limit": 50, "with": "bob"} | {"before": "m0"}
        )
        page = [{"id": "a", "userId": "bob", "msg": "hi", "sendTime": 3}]
        pipe.gets(type="history", ref=refs[0], messages=page, more=True)
        self.assertEqual([frame["ref"] for frame in pipe.take()], refs[4:])
        [answer] = [effect for effect in pipe.done if isinstance(effect, effects.Answer)]
        assert isinstance(answer.result, events.Page)
        self.assertEqual((answer.result.messages[0].msg, answer.result.more), ("hi", True))

    def test_refused_and_late(self) -> None:
        """A refusal is the answer; no answer in time is one too; the end answers the rest."""
        pipe = Pipe()
        pipe.open()
        refs = [pipe.core.ask_history(everything=True) for _ in range(3)]
        pipe.gets(type="error", ref=refs[0], code="invalid_message", reason="no", temporary=False)
        pipe.gets(type="error", ref=refs[1], code="unavailable", reason="down", temporary=True)
        pipe.take()
        pipe.wait(1)
        self.assertEqual([frame["ref"] for frame in pipe.take()], [refs[1]])
        pipe.wait(30)
        results = {e.ref: type(e.result) for e in pipe.done if isinstance(e, effects.Answer)}
        self.assertEqual([results[ref] for ref in refs], [events.Refused, *[events.Unanswered] * 2])
        self.assertRaises(ValueError, pipe.core.ask_history)


# ---- a story


@dataclass
class FakeNode:
    """One user's inbox, and connections that lose what is under way when they break."""

    epoch: str = "e1"
    low: int = 0
    messages: list[str] = field(default_factory=list)
    """ids; the first has the number low + 1"""
    cursor: int = 0
    accepted: dict[str, str] = field(default_factory=dict)
    """clientMsgId → text, in the order of acceptance"""
    up: list[dict[str, Any]] = field(default_factory=list)
    down: list[dict[str, Any]] = field(default_factory=list)
    on: bool = False
    sent: int = 0
    stumbles: int = 0
    """so many messages are answered `unavailable`, every other one although it was placed"""

    @property
    def head(self) -> int:
        return self.low + len(self.messages)

    def lose_connection(self) -> None:
        self.up, self.down, self.on = [], [], False

    def forget(self) -> None:
        """A new epoch: what was not acknowledged has other numbers now."""
        rest = self.messages[self.cursor - self.low :]
        self.epoch = f"e{int(self.epoch[1:]) + 1}"
        self.low, self.messages = 100 * int(self.epoch[1:]), rest
        self.cursor = self.low
        if self.on:
            self.sent = self.low
            self.down.append({"type": "reset", "epoch": self.epoch, "seq": self.low, "recovered": False})
            self.push()

    def push(self) -> None:
        while self.on and self.sent < self.head and self.sent - self.cursor < WINDOW:
            self.sent += 1
            message_id = self.messages[self.sent - self.low - 1]
            self.down.append(
                {"seq": self.sent, "id": message_id, "userId": "bob", "msg": message_id, "sendTime": 1}
            )

    def hear(self) -> None:
        frame = self.up.pop(0)
        if frame.get("isConnect"):
            cursor = frame.get("cursor") or {"epoch": self.epoch, "seq": self.cursor}
            good = cursor["epoch"] == self.epoch and self.cursor <= cursor["seq"] <= self.head
            self.sent = cursor["seq"] if good else self.cursor
            self.cursor = self.sent
            self.on = True
            limits = {"ackWindow": WINDOW}
            self.down.append(
                {"type": "connected", "userId": "alice", "epoch": self.epoch, "seq": self.sent}
                | {"recovered": good, "serverTime": 1, "limits": limits, "pingSeconds": 25}
            )
            self.push()
        elif frame.get("type") == "ack":
            if frame["epoch"] == self.epoch:
                assert frame["seq"] <= self.sent, "acknowledged what was never sent"
                self.cursor = max(self.cursor, frame["seq"])
                self.push()
        elif frame.get("type") == "ping":
            self.down.append({"type": "pong"})
        else:
            self.message(frame)

    def message(self, frame: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"clientMsgId": frame["clientMsgId"]}
        self.stumbles = max(0, self.stumbles - 1)
        if not self.stumbles or self.stumbles % 2:
            known = self.accepted.setdefault(frame["clientMsgId"], frame["msg"])
            assert known == frame["msg"]
        if self.stumbles:
            answer |= {"type": "error", "code": "unavailable", "reason": "down", "temporary": True}
        else:
            answer |= {"type": "accepted", "id": "x", "sendTime": 1}
        self.down.append(answer)


STEPS = st.sampled_from(
    ["send", "arrive", "arrive", "up", "up", "down", "down", "handle", "break", "wait", "restart", "forget",
     "stumble"]
)  # fmt: skip


class Story:
    def __init__(self) -> None:
        self.clock, self.node, self.store = Clock(), FakeNode(), SqliteStore(":memory:")
        self.handled: list[str] = []
        self.said = self.arrived = 0
        self.begin()

    def begin(self) -> None:
        """A process: all that it knows is in the store."""
        self.pipe = Pipe(self.clock, self.store)
        self.given = 0
        self.pipe.core.start()
        self.dial()

    def dial(self) -> None:
        """Do what the core wants of the network."""
        while todo := self.pipe.core.effects():
            for effect in todo:
                if isinstance(effect, effects.Dial):
                    self.node.lose_connection()
                    self.pipe.core.opened(effect.connection)
                elif isinstance(effect, effects.Drop):
                    self.node.lose_connection()
                elif isinstance(effect, effects.Transmit):
                    self.node.up.append(json.loads(effect.text))
                elif isinstance(effect, effects.Deliver):
                    self.pipe.delivered.append(effect.message)

    def step(self, name: str) -> None:
        core, node = self.pipe.core, self.node
        if name == "send":
            self.said += 1
            core.send(f"s{self.said}", "bob")
        elif name == "arrive":
            self.arrived += 1
            node.messages.append(f"m{self.arrived}")
            node.push()
        elif name == "up" and node.up:
            node.hear()
        elif name == "down" and node.down:
            core.received(core.connection, json.dumps(node.down.pop(0)))
        elif name == "handle" and self.given < len(self.pipe.delivered):
            message = self.pipe.delivered[self.given]
            self.given += 1
            self.handled.append(message.id)
            core.handled(message.id)
        elif name == "break":
            node.lose_connection()
            core.closed(core.connection, None, "broken")
        elif name == "wait":
            self.clock.now += 1.0
            core.tick()
        elif name == "restart":
            node.lose_connection()
            self.begin()
        elif name == "forget":
            node.forget()
        elif name == "stumble":
            node.stumbles = 4
        self.dial()

    def settle(self) -> None:
        for _ in range(2000):
            if self.node.up:
                self.step("up")
            elif self.node.down:
                self.step("down")
            elif self.given < len(self.pipe.delivered):
                self.step("handle")
            elif self.pipe.core.outbox.waiting or self.node.cursor < self.node.head:
                self.step("wait")
            else:
                return
        raise AssertionError(f"not settled: {self.pipe.core.state}, {self.node}")


class StoryTests(unittest.TestCase):
    @given(st.lists(STEPS, max_size=80))
    @example(["arrive", "up", "down", "down", "break", "handle", "forget", "wait", "up", "down", "restart"])
    @settings(deadline=None, max_examples=150)
    def test_nothing_lost_nothing_twice(self, names: list[str]) -> None:
        """Whatever breaks: what is said is accepted once, what arrives is handled once, in order."""
        story = Story()
        try:
            for name in names:
                story.step(name)
            story.settle()
            self.assertEqual(list(story.node.accepted.values()), [f"s{n + 1}" for n in range(story.said)])
            self.assertEqual(story.handled, [f"m{n + 1}" for n in range(story.arrived)])
        finally:
            story.store.close()
