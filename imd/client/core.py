"""The client without its I/O: a state machine that connects, notices silence, and comes back.

A shell calls the inputs (`start`, `opened`, `received`, `closed`, `tick` …), then performs the `effects`
in order, and calls `tick` at `deadline`. Connections are numbered; an input about an older one is ignored.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

from imd.client import events
from imd.client.acks import Acks
from imd.client.agenda import Agenda
from imd.client.catchup import CatchUp
from imd.client.effects import AskToken, Dial, Drop, Effect, HangUp
from imd.client.events import State
from imd.client.identity import Identity
from imd.client.incoming import Incoming
from imd.client.link import Link
from imd.client.messenger import LIVE_KINDS, Messenger
from imd.client.numbered import Message
from imd.client.options import Options
from imd.client.outbox import Outbox
from imd.client.outgoing import Outgoing, Refusal
from imd.client.receiving import Hole, Receiving
from imd.client.reconnect import Backoff, Comeback, Verdict, judge
from imd.client.requests import KINDS, Requests, question
from imd.client.sending import Sending
from imd.client.silence import Silence
from imd.client.store import Store
from imd.client.tokens import AGAIN_SECONDS, Tokens
from imd.protocol.errors import BAD_FRAME, CLOSE_UNAUTHORIZED, INVALID_MESSAGE, UNKNOWN_TYPE

CLOSE_SECONDS = 3.0  # deadline of the closing handshake
STABLE_SECONDS = 5.0
"""a connection that lasted so long resets the backoff"""


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
        self.outbox = Outbox(store, saved.outbox, options.max_outbox)
        self.connection = 0
        """the number of the present connection"""
        self._seconds = seconds
        self._agenda = Agenda(seconds)
        self._link = Link()
        self._receiving = Receiving(store, saved)
        self._acks = Acks(self._agenda, self._link, self._receiving)
        busy = Backoff(0.5, 15.0, chance)
        self._sending = Sending(self._agenda, self._link, self.outbox, options, busy, wall)
        self._requests = Requests(self._agenda, self._link, busy)
        parts = (self._agenda, self._link, self._requests, self._receiving)
        self._catch_up = CatchUp(*parts, store, saved, options, self._sending.recalled)
        self.messenger = Messenger(self._agenda, self._link, busy, store, saved, options)
        numbered = (self._agenda, self._acks, self._catch_up, self._receiving, self._sending, self.messenger)
        self._incoming = Incoming(*numbered, "events" in options.features)
        self._silence = Silence(self._agenda, self._link, options.pong_seconds, self._not_answered)
        self._tokens = Tokens()
        self._comeback = Comeback(options.min_backoff, options.max_backoff, chance)
        """between two connections"""
        self._identity = Identity(options, store, saved, wall)
        self._leaving: float | None = None
        """the node leaves: seconds until the client comes back"""
        self._stopping = False

    @property
    def device(self) -> str:
        return self._identity.device

    @property
    def features(self) -> tuple[str, ...]:
        """The features that the cluster has granted; empty before the first `connected`."""
        return self._link.features or ()

    @property
    def limits(self) -> dict[str, Any]:
        """As the node gave them."""
        return self._link.limits

    # ---- for the shell

    @property
    def hint(self) -> str | None:
        """The user to put into the URL of the next connection; None: nobody."""
        return self._identity.hint(self._tokens.current, self.user_id)

    def effects(self) -> list[Effect]:
        """Everything that is to be done now, in this order; given once."""
        return self._agenda.take()

    def deadline(self) -> float | None:
        """When to call `tick` at the latest, by `seconds`; None: not before the next input."""
        times = (self._agenda.deadline(), self._requests.deadline())
        return min((at for at in times if at is not None), default=None)

    def tick(self) -> None:
        self._agenda.run_timers()
        self._requests.end_overdue()

    # ---- from the program

    def start(self) -> None:
        if self.state in (State.IDLE, State.CLOSED):
            self._stopping = False
            self._tokens = Tokens()
            self._comeback.reset()
            self._identity.begin()
            self._connect()

    def stop(self) -> None:
        """Acknowledge what was handled, and close. The outbox stays as it is."""
        if self.state in (State.IDLE, State.CLOSED):
            return
        self._stopping = True
        if self.state is State.OPEN:
            self._acks.send()
            self._link.is_open = False
            self._agenda.add(HangUp())
            self._agenda.cancel_all()
            self._agenda.later("closing", CLOSE_SECONDS, self._not_closed)
        else:
            self._not_closed()

    def _not_closed(self) -> None:
        self._agenda.add(Drop())
        self._end(None, "stopped")

    def post(self, outgoing: Outgoing) -> Outgoing:
        """Put an entry into the outbox; gives the one that is kept. Raises as Sending.post."""
        return self._sending.post(outgoing)

    def next_reply(self, message: Message) -> str:
        """A clientMsgId for an answer. That of an unhandled message is the same after a restart."""
        return self._receiving.next_reply(message.id) or ""

    def cancel(self, client_msg_id: str) -> bool:
        return self.outbox.cancel(client_msg_id)

    def retry(self, client_msg_id: str) -> bool:
        return self._sending.retry(client_msg_id)

    def handled(self, message_id: str) -> None:
        """The program is done with an entry: it is acknowledged, a little later and with others."""
        self._acks.moved(self._receiving.handled(message_id))
        self._catch_up.handled(message_id)

    def ask(self, kind: str, **fields: Any) -> str:
        """Ask a question of `requests.KINDS`; gives the ref that the `Answer` will name."""
        return self._requests.ask(question(kind, **fields), self.options.history_seconds)

    # ---- from the shell: tokens

    def token_given(self, token: str) -> None:
        if self.state is State.CONNECTING and self._tokens.current is None:
            if self._tokens.is_refused(token):
                self._end(CLOSE_UNAUTHORIZED, self._tokens.why, permanent=True)
                return
            self._tokens.current = token
            self._agenda.add(Dial(self.connection))
        elif self.state is State.OPEN and self._tokens.offer(token):
            self._agenda.transmit({"type": "token", "token": token})
        elif self.state is State.OPEN:
            self._plan_token(AGAIN_SECONDS)

    def token_failed(self, reason: str) -> None:
        if self.state is State.CONNECTING and self._tokens.current is None:
            self._come_back(None, f"no token: {reason}")
        elif self.state is State.OPEN:
            self._agenda.later("token", AGAIN_SECONDS, self._ask_token)

    # ---- from the shell: one connection

    def opened(self, connection: int) -> None:
        """The WebSocket is open."""
        if connection != self.connection or self.state is not State.CONNECTING:
            return
        cursor = (self._receiving.epoch, self._receiving.seq)
        known = self.messenger.signal_fields()
        self._agenda.transmit(self._identity.connect_signal(self._tokens.current, cursor, known))

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
                self._incoming.numbered(frame, self.user_id)
            elif kind in _HANDLERS:
                _HANDLERS[kind](self, frame)
        except (ValueError, TypeError, KeyError, Hole) as error:
            # The frame makes no sense. A new connection starts from the cursor.
            self._agenda.add(Drop())
            self.closed(connection, None, f"{type(error).__name__}: {error}")

    def closed(self, connection: int, code: int | None, reason: str) -> None:
        """The WebSocket is closed, or could not be opened. `code` is None if none came."""
        if connection != self.connection or self.state not in (State.CONNECTING, State.OPEN):
            return
        if self.state is State.OPEN and self._seconds() - self._link.opened_at >= STABLE_SECONDS:
            self._comeback.reset()
        if self._stopping:
            self._end(code, "stopped")
            return
        verdict = judge(code)
        if verdict is Verdict.NEVER or (verdict is Verdict.NEW_TOKEN and not self._may_ask_again(reason)):
            self._end(code, reason, permanent=True)
        else:
            self._come_back(code, reason, verdict)

    def _may_ask_again(self, reason: str) -> bool:
        """After 4001: True if the client may be let in with another token, or as a new visitor."""
        if self._identity.become_new():
            return True
        if self.options.has_token:
            # Most likely it has expired, or clocks differ. Another token may serve; the same one would not.
            self._tokens.refused(reason)
        return self.options.has_token

    # ---- from the node: frames

    def _on_connected(self, frame: dict[str, Any]) -> None:
        if self.state is not State.CONNECTING:
            return
        self.user_id = frame["userId"]
        self._link.described(frame, self._seconds(), self.options.ping_seconds)
        other = self._identity.confirmed(frame["userId"], frame.get("visitorToken"))
        if other is not None:
            self._forget()
            self._sending.refuse_all(other)
        self._receiving.start_at(frame["epoch"], frame["seq"])
        self._agenda.cancel_all()
        self._tokens.connected(frame.get("exp"))
        if "exp" in frame:
            self._plan_token()
        self._link.is_open = True
        self._set_state(State.OPEN)
        self._watch()
        self._agenda.emit(events.Connected(frame["userId"], frame["recovered"], frame))
        if not frame["recovered"]:
            self._report_gap()
        self._sending.flush()
        self._requests.flush()
        self._catch_up.opened(gap=not frame["recovered"])
        self.messenger.opened(frame["userId"])

    def _forget(self) -> None:
        """Another user."""
        for part in (self._receiving, self._catch_up, self.messenger):
            part.forget()

    def _on_reset(self, frame: dict[str, Any]) -> None:
        self._receiving.start_at(frame["epoch"], frame["seq"])
        self._report_gap()
        self._catch_up.gap()

    def _report_gap(self) -> None:
        self._agenda.emit(events.Gap())
        self._acks.confirm_start()

    def _on_accepted(self, frame: dict[str, Any]) -> None:
        self._incoming.accepted(frame, "sync" in self.features)

    def _on_error(self, frame: dict[str, Any]) -> None:
        refusal = Refusal(frame["code"], frame.get("reason") or "")
        temporary = bool(frame.get("temporary"))
        retry_seconds = (frame.get("retryAfterMs") or 0) / 1000
        if "clientMsgId" in frame:
            self._sending.refused(frame["clientMsgId"], refusal, temporary, retry_seconds)
        elif frame.get("ref") in self._requests:
            self._requests.refused(frame["ref"], refusal, temporary, retry_seconds)
        elif self.messenger.refused(frame.get("ref"), refusal, temporary, retry_seconds):
            pass
        elif self.state is State.CONNECTING and refusal.code in (BAD_FRAME, INVALID_MESSAGE, UNKNOWN_TYPE):
            # The connect signal is wrong, and the next one would be the same.
            self._agenda.add(Drop())
            self._end(None, f"{refusal.code}: {refusal.reason}", permanent=True)
        else:
            if self.state is State.CONNECTING:
                self._comeback.at_least(retry_seconds)
            if "ref" not in frame and self._tokens.not_renewed():
                # Nothing else is unanswered: most likely this answers the newer token. The old one stands.
                self._plan_token(max(retry_seconds, AGAIN_SECONDS))
            elif refusal.code == BAD_FRAME and "ref" not in frame:
                self._sending.not_read(refusal)
            self._agenda.emit(refusal)

    def _on_token(self, frame: dict[str, Any]) -> None:
        self._tokens.renewed(frame.get("exp"))
        self._plan_token()

    def _on_leaving(self, frame: dict[str, Any]) -> None:
        self._leaving = frame["reconnectMs"] / 1000
        self._link.is_open = False
        self._agenda.emit(events.Leaving(self._leaving))

    # ---- timers

    def _not_connected(self) -> None:
        self._agenda.add(Drop())
        self._come_back(None, "not connected in time")

    def _not_answered(self) -> None:
        self._agenda.add(Drop())
        self.closed(self.connection, None, "the node is silent")

    def _watch(self) -> None:
        self._silence.heard(self.state is State.OPEN and not self._stopping)

    def _plan_token(self, least: float = 0.0) -> None:
        """Ask for a newer token in good time, but not before `least` seconds."""
        if self.options.has_token:
            server_ms = self._seconds() * 1000 + self._link.server_ahead_ms
            self._agenda.later("token", max(least, self._tokens.ask_in(server_ms)), self._ask_token)

    def _ask_token(self) -> None:
        self._agenda.add(AskToken())

    # ---- from one state to another

    def _connect(self) -> None:
        self.connection += 1
        self._tokens.begin()
        self._leaving = None
        self._agenda.cancel_all()
        self._agenda.later("connect", self.options.connect_seconds, self._not_connected)
        self._set_state(State.CONNECTING)
        self._agenda.add(AskToken() if self.options.has_token else Dial(self.connection))

    def _come_back(self, code: int | None, reason: str, verdict: Verdict = Verdict.BACK_OFF) -> None:
        seconds = self._comeback.after(verdict, self._leaving)
        self._lost()
        self._agenda.later("reconnect", seconds, self._connect)
        self._set_state(State.WAITING, code, reason, retry_seconds=seconds)

    def _end(self, code: int | None, reason: str, permanent: bool = False) -> None:
        self._lost()
        self._set_state(State.CLOSED, code, reason, permanent=permanent)
        self._requests.end_all(events.Ended(code, reason, permanent))

    def _lost(self) -> None:
        """The connection is gone. Later inputs about it have an old number, and are ignored."""
        self.connection += 1
        self._link.is_open = False
        self._agenda.cancel_all()
        self._acks.lost()
        self._sending.lost()
        self._requests.lost()
        self._catch_up.lost()
        self.messenger.lost()

    def _set_state(self, state: State, code: int | None = None, reason: str = "", **more: Any) -> None:
        self.state = state
        self._agenda.emit(events.StateChanged(state, code, reason, **more))


_HANDLERS: dict[str, Callable[[Core, dict[str, Any]], None]] = {
    "connected": Core._on_connected,
    "reset": Core._on_reset,
    "accepted": Core._on_accepted,
    "error": Core._on_error,
    "token": Core._on_token,
    "leaving": Core._on_leaving,
    **dict.fromkeys(KINDS, lambda core, frame: core._requests.answered(frame)),
    **dict.fromkeys(LIVE_KINDS, lambda core, frame: core.messenger.got(frame)),
}
"""by a frame's type; a frame of another type is only a sign of life"""
