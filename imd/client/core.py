"""The client without its I/O: a state machine that is told what happens, and says what to do.

A shell calls the inputs (`start`, `opened`, `received`, `closed`, `tick` …), then performs what `effects`
gives, in order, and calls `tick` at `deadline`. Every connection has a number; what is said about an
older one counts nothing.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from imd.client import events
from imd.client.effects import Answer, AskToken, Deliver, Dial, Drop, Effect, Emit, HangUp, Transmit
from imd.client.events import Message, Outgoing, Page, Refusal, State
from imd.client.options import Options
from imd.client.outbox import Outbox
from imd.client.questions import Questions, history_frame
from imd.client.receiving import Hole, Receiving
from imd.client.reconnect import Backoff, Verdict, judge
from imd.client.signal import connect_signal
from imd.client.store import Store
from imd.client.tokens import AGAIN_SECONDS, Tokens
from imd.protocol.errors import (
    BAD_FRAME,
    CLOSE_UNAUTHORIZED,
    INVALID_MESSAGE,
    RATE_LIMITED,
    TOO_LARGE,
    UNAVAILABLE,
    UNKNOWN_TYPE,
)

EXPIRED = "expired"
"""the client's own code: whether the message was accepted cannot be found out any more"""
OTHER_USER = "other_user"
"""the client's own code: the outbox was written as somebody else"""

ACK_SECONDS = 0.1
CLOSE_SECONDS = 3.0
STABLE_SECONDS = 5.0
"""a connection that lasted so long begins the back-off anew"""


class Core:
    """`seconds` rises evenly; `wall` is the time of day; `chance` gives 0 to 1."""

    def __init__(
        self,
        options: Options,
        store: Store,
        seconds: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        saved = store.load()
        self.options = options
        self.state = State.IDLE
        self.user_id = options.user_id
        self.device = options.device or saved.device
        self.limits: dict[str, Any] = {}
        """as the node told them"""
        self.outbox = Outbox(store, saved.outbox, options.max_outbox)
        self.connection = 0
        """the number of the present connection"""
        self._store = store
        self._seconds = seconds
        self._wall = wall
        self._receiving = Receiving(store, saved)
        self._saved_user = saved.user_id
        self._visitor_token = saved.visitor_token
        self._backoff = Backoff(options.min_backoff, options.max_backoff, chance)
        self._sending = Backoff(0.5, 15.0, chance)
        self._effects: list[Effect] = []
        self._timers: dict[str, float] = {}
        self._questions = Questions()
        self._replies: dict[str, int] = {}
        self._attempt = saved.attempt
        self._tokens = Tokens()
        self._opened_at = 0.0
        self._ping_seconds = 25.0
        self._server_ahead_ms = 0.0
        self._unacked = 0
        self._paused = False
        """sending waits for a timer"""
        self._leaving: float | None = None
        """the node leaves: come back after so many seconds"""
        self._stopping = False
        self._refusal: Refusal | None = None
        """what the node said to the connect signal"""

    # ---- for the shell

    def effects(self) -> list[Effect]:
        """What is to be done now, in this order; given once."""
        effects, self._effects = self._effects, []
        return effects

    def deadline(self) -> float | None:
        """When to call `tick` at the latest, by `seconds`; None: when something has happened."""
        times = [*self._timers.values(), self._questions.deadline()]
        return min((at for at in times if at is not None), default=None)

    def tick(self) -> None:
        now = self._seconds()
        for name in [name for name, at in self._timers.items() if at <= now]:
            if self._timers.pop(name, None) is not None:
                getattr(self, f"_{name}_timer")()
        for ref in self._questions.overdue(now):
            self._effects.append(Answer(ref, events.Unanswered("no page of history in time")))

    # ---- from the program

    def start(self) -> None:
        if self.state in (State.IDLE, State.CLOSED):
            self._stopping = False
            self._tokens = Tokens()
            self._backoff.reset()
            self._connect()

    def stop(self) -> None:
        """Tell the node what was handled, and close. What is in the outbox stays there."""
        if self.state in (State.IDLE, State.CLOSED):
            return
        self._stopping = True
        if self.state is State.OPEN:
            self._send_ack()
            self._effects.append(HangUp())
            self._timers = {"closing": self._seconds() + CLOSE_SECONDS}
        else:
            self._effects.append(Drop())
            self._end(None, "stopped")

    def send(
        self,
        msg: str,
        to: str = "",
        group: Sequence[str] = (),
        content_type: str | None = None,
        client_msg_id: str | None = None,
    ) -> Outgoing:
        """Put a message into the outbox. Raises OutboxFull, or ValueError for what no node would take."""
        if not msg or not (to or group or self.options.visitor):
            raise ValueError("a text and a recipient are expected")
        outgoing = Outgoing(client_msg_id or uuid.uuid4().hex, msg, to, tuple(group), content_type)
        outgoing.queued_at = int(self._wall() * 1000)
        try:
            json.dumps(outgoing.frame(), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a lone surrogate cannot be sent") from None
        outgoing = self.outbox.add(outgoing)
        self._flush()
        return outgoing

    def reply(self, message: Message, msg: str, content_type: str | None = None) -> Outgoing:
        """Answer the sender, or all of a group.

        While the message has not been handled, the reply's clientMsgId follows from it: if the program dies
        before that, and gets the message and replies once more, the reply is delivered once.
        """
        client_msg_id = None
        if self._receiving.is_open(message.id):
            count = self._replies[message.id] = self._replies.get(message.id, 0) + 1
            client_msg_id = f"re-{message.id}-{count}"[:64]
        group = sorted({message.user_id, *message.group} - {self.user_id or ""}) if message.group else []
        to = "" if group else message.user_id
        return self.send(msg, to, group, content_type, client_msg_id)

    def cancel(self, client_msg_id: str) -> bool:
        return self.outbox.cancel(client_msg_id)

    def retry(self, client_msg_id: str) -> bool:
        done = self.outbox.retry(client_msg_id)
        self._flush()
        return done

    def handled(self, message_id: str) -> None:
        """The program is done with a message: it is acknowledged, a little later and with others."""
        self._replies.pop(message_id, None)
        self._moved(self._receiving.handled(message_id))

    def ask_history(
        self,
        with_: str | None = None,
        group: Sequence[str] | None = None,
        everything: bool = False,
        before: str | None = None,
        limit: int = 50,
    ) -> str:
        """Ask for a page of a conversation, or of all; the answer comes under the ref that this gives."""
        frame = history_frame(with_, group, everything, before, limit)
        ref = self._questions.add(frame, self._seconds() + self.options.history_seconds)
        self._ask_questions()
        return ref

    # ---- from the shell: tokens

    def token_given(self, token: str) -> None:
        if self.state is State.CONNECTING and self._tokens.current is None:
            if self._tokens.is_refused(token):
                self._end(CLOSE_UNAUTHORIZED, self._tokens.why, permanent=True)
                return
            self._tokens.current = token
            self._effects.append(Dial(self.connection))
        elif self.state is State.OPEN and self._tokens.offer(token):
            self._transmit({"type": "token", "token": token})
        elif self.state is State.OPEN:
            self._plan_token(AGAIN_SECONDS)

    def token_failed(self, reason: str) -> None:
        if self.state is State.CONNECTING and self._tokens.current is None:
            self._come_back(self._backoff.next(), None, f"no token: {reason}")
        elif self.state is State.OPEN:
            self._timers["token"] = self._seconds() + AGAIN_SECONDS

    # ---- from the shell: one connection

    def opened(self, connection: int) -> None:
        """The WebSocket is open."""
        if connection != self.connection or self.state is not State.CONNECTING:
            return
        self._attempt = max(self._attempt + 1, int(self._wall() * 1000))
        self._store.put_attempt(self._attempt)
        cursor = (self._receiving.epoch, self._receiving.seq)
        frame = connect_signal(
            self.options, self.device, self._attempt, self._tokens.current, self._visitor_token, cursor
        )
        self._transmit(frame)

    def received(self, connection: int, text: str | bytes) -> None:
        """A text frame."""
        if connection != self.connection or self.state not in (State.CONNECTING, State.OPEN):
            return
        try:
            frame = json.loads(text)
            if not isinstance(frame, dict):
                raise ValueError("not an object")
            self._watch()
            kind = frame.get("type")
            if kind is None:
                self._message(frame)
            elif kind in _FRAMES:
                getattr(self, f"_{kind}_frame")(frame)
        except (ValueError, TypeError, KeyError, Hole) as error:
            # What the node says makes no sense; a new connection starts from the cursor.
            self._effects.append(Drop())
            self.closed(connection, None, f"{type(error).__name__}: {error}")

    def closed(self, connection: int, code: int | None, reason: str) -> None:
        """The WebSocket is closed, or was never opened. `code` is None if none came."""
        if connection != self.connection or self.state not in (State.CONNECTING, State.OPEN):
            return
        was_open, leaving = self.state is State.OPEN, self._leaving
        if was_open and self._seconds() - self._opened_at >= STABLE_SECONDS:
            self._backoff.reset()
        if self._stopping:
            self._end(code, "stopped")
            return
        verdict = judge(code)
        if verdict is Verdict.NEVER:
            self._end(code, reason, permanent=True)
        elif verdict is Verdict.NEW_TOKEN:
            self._unauthorized(code, reason)
        elif was_open and (leaving is not None or verdict is Verdict.AT_ONCE):
            self._come_back(leaving or 0.0, code, reason)
        else:
            self._come_back(self._backoff.next(), code, reason)

    def _unauthorized(self, code: int | None, reason: str) -> None:
        if self.options.has_token:
            # Expired, most likely, or clocks differ: another is tried, the very same one would be of no use.
            self._tokens.refused(reason)
            first, pause = not self._backoff.failures, self._backoff.next()
            self._come_back(0.0 if first else pause, code, reason)
        elif self.options.visitor and self._visitor_token is not None:
            # Not known any more: a new visitor.
            self._visitor_token = None
            self._store.put_user(self._saved_user, None)
            self._receiving.forget()
            self._come_back(self._backoff.next(), code, reason)
        else:
            self._end(code, reason, permanent=True)

    # ---- what the node says

    def _connected_frame(self, frame: dict[str, Any]) -> None:
        if self.state is not State.CONNECTING:
            return
        now = self._seconds()
        self.user_id = frame["userId"]
        self.limits = dict(frame.get("limits") or {})
        self._opened_at, self._server_ahead_ms = now, frame["serverTime"] - now * 1000
        self._belongs_to(frame["userId"], frame.get("visitorToken"))
        self._receiving.start_at(frame["epoch"], frame["seq"])
        self._timers = {}
        self._tokens.connected(frame.get("exp"))
        if "exp" in frame:
            self._plan_token()
        self._ping_seconds = self.options.ping_seconds or frame.get("pingSeconds") or 25.0
        self._set_state(State.OPEN)
        self._watch()
        self._effects.append(Emit(events.Connected(frame["userId"], frame["recovered"], frame)))
        if not frame["recovered"]:
            self._gap()
        self._flush()
        self._ask_questions()

    def _reset_frame(self, frame: dict[str, Any]) -> None:
        self._receiving.start_at(frame["epoch"], frame["seq"])
        self._gap()

    def _gap(self) -> None:
        """Tell the program; and the node, that it need not say so again."""
        self._effects.append(Emit(events.Gap()))
        self._unacked = 1
        self._send_ack()

    def _belongs_to(self, user_id: str, visitor_token: str | None) -> None:
        """Cursor and outbox are one user's: another one's cursor is forgotten, and the outbox is not sent."""
        old, self._saved_user = self._saved_user, user_id
        if old != user_id or visitor_token != self._visitor_token:
            self._visitor_token = visitor_token
            self._store.put_user(user_id, visitor_token)
        if old is not None and old != user_id:
            self._receiving.forget()
            refusal = Refusal(OTHER_USER, f"written as {old}")
            # A visitor that was forgotten takes along what nobody has seen.
            for outgoing in self.outbox.fail_all(refusal, but_unsent=self.options.visitor):
                self._effects.append(Emit(events.Failed(outgoing, refusal)))

    def _message(self, frame: dict[str, Any]) -> None:
        message = self._receiving.take(frame)
        if self._receiving.gap:
            self._receiving.gap = False
            self._effects.append(Emit(events.Gap()))
        if message is None:
            self._moved(self._receiving.skip())
        else:
            self._effects.append(Deliver(message))

    def _accepted_frame(self, frame: dict[str, Any]) -> None:
        outgoing = self.outbox.accepted(frame.get("clientMsgId") or "")
        self._sending.reset()
        if outgoing is not None:
            outgoing.id, outgoing.send_time = frame["id"], frame["sendTime"]
            self._effects.append(Emit(events.Accepted(outgoing, outgoing.id, outgoing.send_time)))
        self._flush()

    def _error_frame(self, frame: dict[str, Any]) -> None:
        refusal = Refusal(frame["code"], frame.get("reason") or "")
        temporary = bool(frame.get("temporary"))
        retry_ms = frame.get("retryAfterMs")
        if "clientMsgId" in frame:
            self._not_accepted(frame["clientMsgId"], refusal, temporary, retry_ms)
        elif frame.get("ref") in self._questions:
            self._not_answered(frame["ref"], refusal, temporary, retry_ms)
        elif self.state is State.CONNECTING and refusal.code in (BAD_FRAME, INVALID_MESSAGE, UNKNOWN_TYPE):
            # The connect signal is wrong: the node waits for a better one, and there is none.
            self._effects.append(Drop())
            self._end(None, f"{refusal.code}: {refusal.reason}", permanent=True)
        else:
            if self._tokens.not_renewed():
                # It answers nothing else: most likely the newer token. Clocks may differ; the old one stands.
                self._plan_token(max((retry_ms or 0) / 1000, AGAIN_SECONDS))
            self._effects.append(Emit(refusal))

    def _not_accepted(
        self, client_msg_id: str, refusal: Refusal, temporary: bool, retry_ms: int | None
    ) -> None:
        outgoing = self.outbox.refused(client_msg_id, refusal, temporary)
        if outgoing is None:
            return
        if temporary:
            pause = self._sending.next() if refusal.code == UNAVAILABLE else 0.05
            pause = max((retry_ms or 0) / 1000, pause)
            if refusal.code == RATE_LIMITED:
                self.outbox.never_placed(outgoing)
            self._paused = True
            self._timers["send"] = self._seconds() + pause
        else:
            self._effects.append(Emit(events.Failed(outgoing, refusal)))
            self._flush()

    def _not_answered(self, ref: str, refusal: Refusal, temporary: bool, retry_ms: int | None) -> None:
        if temporary:
            self._questions.again(ref)
            self._timers["ask"] = self._seconds() + max((retry_ms or 0) / 1000, self._sending.next())
            return
        self._questions.done(ref)
        self._effects.append(Answer(ref, events.Refused(refusal)))

    def _history_frame(self, frame: dict[str, Any]) -> None:
        ref = frame.get("ref") or ""
        if self._questions.done(ref):
            messages = [Message.of(each) for each in frame["messages"]]
            self._effects.append(Answer(ref, Page(messages, bool(frame["more"]))))
        self._ask_questions()

    def _token_frame(self, frame: dict[str, Any]) -> None:
        self._tokens.renewed(frame.get("exp"))
        self._plan_token()

    def _leaving_frame(self, frame: dict[str, Any]) -> None:
        self._leaving = frame["reconnectMs"] / 1000
        self._effects.append(Emit(events.Leaving(self._leaving)))

    def _pong_frame(self, frame: dict[str, Any]) -> None:
        """A sign of life, as any frame."""

    # ---- timers

    def _reconnect_timer(self) -> None:
        self._connect()

    def _connect_timer(self) -> None:
        self._effects.append(Drop())
        self._come_back(self._backoff.next(), None, "not connected in time")

    def _closing_timer(self) -> None:
        self._effects.append(Drop())
        self._end(None, "stopped")

    def _silence_timer(self) -> None:
        self._transmit({"type": "ping"})
        self._timers["pong"] = self._seconds() + self.options.pong_seconds

    def _pong_timer(self) -> None:
        self._effects.append(Drop())
        self.closed(self.connection, None, "the node is silent")

    def _ack_timer(self) -> None:
        self._send_ack()

    def _send_timer(self) -> None:
        self._paused = False
        self._flush()

    def _ask_timer(self) -> None:
        self._ask_questions()

    def _token_timer(self) -> None:
        self._effects.append(AskToken())

    # ---- from within

    def _connect(self) -> None:
        self.connection += 1
        self._tokens.begin()
        self._leaving = None
        self._timers = {"connect": self._seconds() + self.options.connect_seconds}
        self._set_state(State.CONNECTING)
        self._effects.append(AskToken() if self.options.has_token else Dial(self.connection))

    def _come_back(self, seconds: float, code: int | None, reason: str) -> None:
        self._lost()
        self._timers = {"reconnect": self._seconds() + seconds}
        self._set_state(State.WAITING, code, reason, retry_seconds=seconds)

    def _end(self, code: int | None, reason: str, permanent: bool = False) -> None:
        self._lost()
        self._timers = {}
        self._set_state(State.CLOSED, code, reason, permanent=permanent)
        for ref in self._questions.give_up():
            self._effects.append(Answer(ref, events.Ended(code, reason, permanent)))

    def _lost(self) -> None:
        """There is no connection any more: what is said about it from now on counts nothing."""
        self.connection += 1
        self._unacked = 0
        self._paused = False
        self.outbox.lost()
        self._questions.lost()

    def _set_state(self, state: State, code: int | None = None, reason: str = "", **more: Any) -> None:
        self.state = state
        self._effects.append(Emit(events.StateChanged(state, code, reason, **more)))

    def _transmit(self, frame: dict[str, Any]) -> None:
        self._effects.append(Transmit(json.dumps(frame, ensure_ascii=False, separators=(",", ":"))))

    def _watch(self) -> None:
        """Something came: the node is there."""
        self._timers.pop("pong", None)
        if self.state is State.OPEN and not self._stopping:
            self._timers["silence"] = self._seconds() + self._ping_seconds

    def _can_send(self) -> bool:
        return self.state is State.OPEN and self._leaving is None and not self._stopping

    def _flush(self) -> None:
        while self._can_send() and not self._paused and (outgoing := self.outbox.next()) is not None:
            now_ms = int(self._seconds() * 1000 + self._server_ahead_ms)
            if outgoing.sent_at is not None and now_ms - outgoing.sent_at > 900 * self.options.dedup_seconds:
                # A node may have forgotten that it has it already.
                self._fail(outgoing, Refusal(EXPIRED, "sent, but not answered for too long"))
                continue
            frame = outgoing.frame()
            size = len(json.dumps(frame, ensure_ascii=False).encode())
            if size > 6 * self.limits.get("messageBytes", 65536) + 65536:
                # The node would close the connection, again and again.
                self._fail(outgoing, Refusal(TOO_LARGE, f"a frame of {size} bytes"))
            else:
                self.outbox.note_sent(outgoing, now_ms)
                self._transmit(frame)

    def _fail(self, outgoing: Outgoing, refusal: Refusal) -> None:
        self.outbox.refused(outgoing.client_msg_id, refusal, temporary=False)
        self._effects.append(Emit(events.Failed(outgoing, refusal)))

    def _ask_questions(self) -> None:
        if self._can_send():
            for frame in self._questions.to_send():
                self._transmit(frame)

    def _moved(self, count: int) -> None:
        """The cursor moved: acknowledge, soon or when there is much."""
        if not count or self.state is not State.OPEN:
            return
        self._unacked += count
        if self._unacked >= max(1, self.limits.get("ackWindow", 256) // 4):
            self._send_ack()
        elif "ack" not in self._timers and not self._stopping:
            self._timers["ack"] = self._seconds() + ACK_SECONDS

    def _send_ack(self) -> None:
        self._timers.pop("ack", None)
        if self._unacked and self._leaving is None:
            self._unacked = 0
            self._transmit({"type": "ack", "seq": self._receiving.seq, "epoch": self._receiving.epoch})

    def _plan_token(self, least: float = 0.0) -> None:
        """Ask for a newer token in good time, and not before `least` seconds are over."""
        if self.options.has_token:
            now = self._seconds()
            self._timers["token"] = now + max(least, self._tokens.ask_in(now * 1000 + self._server_ahead_ms))


_FRAMES = frozenset({"connected", "reset", "accepted", "error", "history", "token", "leaving", "pong"})
