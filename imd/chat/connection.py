"""One client: its frames, from the connect signal to the end. No socket, no WebSocket.

Frames that come before the connect signal is through wait; every frame gets its answer; the answers to
messages come in the order of the messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from prometheus_client import Counter
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.accept import Entry, Refusal
from imd.chat.compose import check, compose, cost
from imd.chat.login import connected
from imd.chat.services import Services
from imd.chat.session import Session
from imd.contracts.inbox import Registered, TooManyChannels
from imd.contracts.timer import Cancellable
from imd.entry.admission import Admission, admit, check_visitor, connect_request
from imd.entry.allowance import ERROR, IDLE_ACK, MAX_STRANGERS_ERRORS, PING, Allowance, cost_of
from imd.entry.auth import Identity
from imd.entry.ratelimit import TokenBucket
from imd.observe.metrics import Tally
from imd.observe.seldom import Seldom
from imd.observe.trace import TRACE
from imd.protocol import frames
from imd.protocol.errors import (
    BAD_FRAME,
    CLOSE_BAD_FRAMES,
    CLOSE_NO_CONNECT,
    CLOSE_OVERLOADED,
    CLOSE_REPLACED,
    CLOSE_UNAUTHORIZED,
    FORBIDDEN,
    RATE_LIMITED,
    UNAVAILABLE,
    Closing,
    Refused,
    Unavailable,
)

ERRORS = Counter("imd_errors_total", "Error frames sent, by code.", ["code"])
CLOSES = Counter("imd_closes_total", "Connections closed by the node, by code.", ["code"])
FRAMES = Tally("imd_frames_total", "Frames from clients, by type.", "type")
_MESSAGES = FRAMES.labels("message")

# So many frames in a row that cannot be read, and the client is told not to come back.
MAX_BAD_FRAMES = 32
# Past this a connection is no longer read from, until its answers have caught up.
MAX_PENDING = 512
MAX_HISTORY_PENDING = 4
# Between two looks at whether a token has expired: this machine's clock may be set.
EXPIRY_LOOK_SECONDS = 300.0


class Outgoing(Protocol):
    """Where a connection's frames go."""

    @property
    def writable(self) -> bool:
        """False while what was sent last is still waiting for the socket."""

    def send(self, payload: bytes, rest: memoryview | None = None) -> None: ...


class Wire(Protocol):
    """What a connection needs of its WebSocket."""

    def ping(self) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def logged_in(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Connection:
    """`bearer` is the token of the handshake's Authorization header."""

    __slots__ = (
        "_admission",
        "_allowance",
        "_bad_frames",
        "_bearer",
        "_bucket",
        "_deadline",
        "_early",
        "_histories",
        "_leaving",
        "_opening",
        "_outgoing",
        "_paused",
        "_pending",
        "_services",
        "_state",
        "_strangers_errors",
        "_wire",
        "send",
        "session",
    )

    log = Seldom(Logger())

    # the states
    NEW, OPENING, OPEN, CLOSED = range(4)

    def __init__(self, services: Services, wire: Wire, outgoing: Outgoing, bearer: str | None) -> None:
        limits = services.settings.limits
        self._services = services
        self._wire = wire
        self._outgoing = outgoing
        self.send = outgoing.send
        """write a frame; a session's way to its device, too"""
        self._bearer = bearer
        self._state = self.NEW
        self._early: list[bytes] = []
        self._allowance: Allowance | None = None
        """there once something was taken from it"""
        self._bad_frames = 0
        self._strangers_errors = 0
        self._pending = 0
        self._paused = False
        self._leaving = False
        self._histories = 0
        self._deadline: Cancellable | None = services.call_later(
            services.settings.websocket.connect_seconds, self._no_connect
        )
        self._opening: Deferred[None] | None = None
        self._admission: Admission
        """whose connection this is; there from OPENING on"""
        self._bucket = TokenBucket(limits.messages_per_second, limits.burst, services.clock.monotonic)
        self.session: Session | None = None

    # from the WebSocket

    def frame_received(self, payload: bytes) -> None:
        """A text frame came."""
        if self._state == self.OPENING:
            if not self._early:
                self._wire.pause_reading()
            self._early.append(payload)
            return
        if self._state == self.CLOSED:
            return
        try:
            frame = frames.decode(payload)
        except frames.BadFrame as bad:
            FRAMES.labels("unreadable").n += 1
            self._bad_frame(bad)
            return
        self._bad_frames = 0
        if type(frame) is frames.MessageFrame and self._state == self.OPEN:
            _MESSAGES.n += 1
            self._message(frame)
        else:
            self._dispatch(frame)

    def binary_received(self) -> None:
        """A binary frame came."""
        if self._state != self.CLOSED:
            FRAMES.labels("unreadable").n += 1
            self._bad_frame(frames.BadFrame(BAD_FRAME, "a text frame is expected"))

    def spend(self, cost: float) -> None:
        """Something came that is no message: it costs a little. With nothing left, close with 4100."""
        if self._allowance is None:
            self._allowance = Allowance(self._services.clock.monotonic)
        if not self._allowance.spend(cost):
            self.close(CLOSE_OVERLOADED, "too many frames that are no messages")

    def ping_mark(self) -> bytes:
        """The payload for the next WebSocket ping: `ponged` gets it back."""
        return self.session.ping_mark() if self.session is not None else b"imd"

    def ponged(self, mark: bytes) -> None:
        if self.session is not None:
            self.session.ponged(mark)

    def writable_again(self) -> None:
        if self.session is not None:
            self.session.writable_again()

    def peer_leaves(self) -> None:
        """The client has begun to close: what is sent from now on does not reach it, and must not count."""
        self._state = self.CLOSED
        if self.session is not None:
            self.session.ended = True

    def lost(self, clean: bool) -> None:
        """The WebSocket is gone. `clean`: in good order, and the client had what was written to it."""
        self._state = self.CLOSED
        self._early.clear()
        self._cancel_call()
        if self.session is not None:
            self._end_session(clean)

    # from the acceptor

    def message_accepted(self, client_msg_id: str | None, message_id: str, send_time: int) -> None:
        self._pending -= 1
        if self._paused:
            self._read_on_if_answered()
        if self._state == self.OPEN:
            self.send(frames.accepted(client_msg_id, message_id, send_time))

    def message_refused(self, client_msg_id: str | None, refused: Refused) -> None:
        self._pending -= 1
        if self._paused:
            self._read_on_if_answered()
        if self._state != self.CLOSED:
            self._send_error(refused, client_msg_id)

    # from the node

    @property
    def is_new(self) -> bool:
        """No connect signal has come yet."""
        return self._state == self.NEW

    @property
    def early_bytes(self) -> int:
        """Size of the frames that wait until the login is through."""
        return sum(map(len, self._early))

    def leaving(self, reconnect_ms: int) -> None:
        """The node stops: nothing more is read, what is under way is still answered."""
        if self._state == self.OPEN:
            self.send(frames.encode(frames.Leaving(reconnect_ms)))
        self._leaving = True
        self._wire.pause_reading()

    def close(self, code: int, reason: str) -> None:
        """End the connection; the WebSocket says when it is gone."""
        if self._state != self.CLOSED:
            self._state = self.CLOSED
            self._cancel_call()
            CLOSES.labels(str(code)).inc()
            self._wire.close(code, reason)

    # what a session needs of its connection

    @property
    def writable(self) -> bool:
        return self._state == self.OPEN and self._outgoing.writable

    def ping(self) -> None:
        self._wire.ping()

    # frames

    def _dispatch(self, frame: Any) -> None:
        name, handle = self._HANDLERS[type(frame)]
        FRAMES.labels(name).n += 1
        if self._state == self.NEW and type(frame) is not frames.ConnectFrame:
            client_msg_id = getattr(frame, "client_msg_id", None)
            self._send_error(Refused(FORBIDDEN, "the connect signal comes first"), client_msg_id)
            self._stranger_erred()
            return
        try:
            handle(self, frame)
        except Refused as refused:
            self._send_error(refused, ref=getattr(frame, "ref", None))
            if self._state == self.NEW:
                self._stranger_erred()
            elif cost := cost_of(refused):
                self.spend(cost)
        except Closing as closing:
            self._close_for(closing)

    def _message(self, frame: frames.MessageFrame) -> None:
        limits = self._services.settings.limits
        author = self._admission.author
        never: Refused | None = None
        try:
            check(frame, author, message_bytes=limits.message_bytes, group_members=limits.group_members)
            price = cost(frame)
        except Refused as refused:
            # To send it later would not help, so its size is not charged.
            never, price = refused, 1.0
        early = self._bucket.take(price) if limits.messages_per_second else 0.0
        if early:
            self._refuse_message(frame.client_msg_id, _too_fast(limits.messages_per_second, early))
            return
        if never is not None:
            self._refuse_message(frame.client_msg_id, never)
            return
        submission = compose(frame, author, self._services.ids)
        if TRACE.on and self.session is not None:
            TRACE.received(submission, self.session.channel)
        submission.origin = self
        self._submit(submission)

    def _bad_frame(self, bad: frames.BadFrame) -> None:
        self._refuse_message(bad.client_msg_id, bad)
        if bad.code == BAD_FRAME:
            self._bad_frames += 1
            if self._bad_frames >= MAX_BAD_FRAMES:
                self.close(CLOSE_BAD_FRAMES, "bad_frame, again and again")
        elif self._state == self.NEW:
            self._stranger_erred()
        self.spend(ERROR)

    def _stranger_erred(self) -> None:
        """Before the login nothing but errors is to be had, and those not without end."""
        self._strangers_errors += 1
        if self._strangers_errors >= MAX_STRANGERS_ERRORS:
            self.close(CLOSE_BAD_FRAMES, "errors before the connect signal, again and again")

    def _refuse_message(self, client_msg_id: str | None, refused: Refused) -> None:
        """Answer with an error, after the answers that earlier messages still wait for."""
        if self._pending:
            self._submit(Refusal(self, client_msg_id, refused))
        else:
            self._send_error(refused, client_msg_id)

    def _submit(self, entry: Entry) -> None:
        self._pending += 1
        if self._pending >= MAX_PENDING and not self._paused:
            self._paused = True
            self._wire.pause_reading()
        self._services.acceptor.submit(entry)

    def _read_on_if_answered(self) -> None:
        if self._pending <= MAX_PENDING // 2:
            self._paused = False
            self._read_on()

    def _read_on(self) -> None:
        if self._state == self.OPEN and not self._leaving and not self._paused:
            self._wire.resume_reading()

    def _ack(self, frame: frames.AckFrame) -> None:
        session = self.session
        if session is not None:
            before = session.acked
            session.acknowledge(frame.seq, frame.epoch)
            if session.acked == before:
                self.spend(IDLE_ACK)

    def _ping(self, frame: frames.PingFrame) -> None:
        self.spend(PING)
        self.send(frames.encode(frames.Pong(self._services.clock.now_ms())))

    def _history(self, frame: frames.HistoryFrame) -> None:
        limits = self._services.settings.limits
        frames.check_history(frame, limits.group_members)
        early = self._bucket.take(1.0)
        if early:
            raise _too_fast(limits.messages_per_second, early)
        if self._histories >= MAX_HISTORY_PENDING:
            why = f"{MAX_HISTORY_PENDING} pages of history at a time"
            raise Refused(RATE_LIMITED, why, retry_after_ms=100)
        self._histories += 1
        page = self._services.historian.page(self._admission.author, frame)
        page.addBoth(self._history_came).addCallbacks(
            self._wire_send_if_open, self._history_failed, errbackArgs=(frame.ref,)
        )

    def _history_came(self, result: Any) -> Any:
        self._histories -= 1
        return result

    def _wire_send_if_open(self, payload: bytes) -> None:
        if self._state == self.OPEN:
            self.send(payload)

    def _history_failed(self, failure: Failure, ref: str | None) -> None:
        if failure.check(Unavailable) is None:
            self.log.failure("history", failure)
        if self._state == self.OPEN:
            refused = Refused(UNAVAILABLE, failure.getErrorMessage(), retry_after_ms=1000)
            self._send_error(refused, ref=ref)

    def _token(self, frame: frames.TokenFrame) -> None:
        self.spend(PING)
        assert self._allowance is not None
        self._allowance.spend_for_token()
        try:
            identity = self._services.authenticator.renew(frame.token, self._admission.identity)
        except Refused:
            self._allowance.token_refused()
            raise
        self._watch_expiry(identity)
        self.send(frames.encode(frames.TokenRenewed(int((identity.exp or 0) * 1000))))

    # the connect signal

    def _connect(self, frame: frames.ConnectFrame) -> None:
        if self._state != self.NEW:
            raise Refused(BAD_FRAME, "this connection is connected already")
        services = self._services
        self._admission = admit(frame, self._bearer, services.settings.auth, services.authenticator)
        self._state = self.OPENING
        self._opening = Deferred.fromCoroutine(self._open(frame, self._admission))
        self._opening.addErrback(self._open_failed)

    async def _open(self, frame: frames.ConnectFrame, admission: Admission) -> None:
        gate = self._services.gate
        wait = self._services.replacing.wait_seconds(admission.author.user, admission.author.device)
        if wait:
            waited: Deferred[None] = Deferred()
            self._services.call_later(wait, waited.callback, None)
            await waited
            if self._state == self.CLOSED:
                return
        await gate.enter()
        try:
            if self._state != self.CLOSED:
                await self._register(frame, admission)
        finally:
            gate.leave()

    async def _register(self, frame: frames.ConnectFrame, admission: Admission) -> None:
        services = self._services
        await check_visitor(admission, services.inbox)
        if self._state == self.CLOSED:
            return
        request = connect_request(frame, admission.author)
        window = services.settings.limits.ack_window
        session = Session(services.inbox, self, request, acknowledges=bool(frame.ack), window=window)
        # Before the inbox is asked: a hint that comes while it answers must find the session.
        services.sessions[request.channel] = self.session = session
        outcome = await services.inbox.connect(request)
        if isinstance(outcome, TooManyChannels):
            why = f"{services.settings.limits.connections_per_user} connections a user"
            raise Closing(CLOSE_OVERLOADED, why, Refused(RATE_LIMITED, why, retry_after_ms=10_000))
        if not isinstance(outcome, Registered):
            raise Closing(CLOSE_REPLACED, "a newer connection of this device is here")
        if outcome.replaced:
            services.router.tell_replaced(outcome.replaced)
            services.replacing.replaced(admission.author.user, admission.author.device)
        if self._state == self.CLOSED:
            # The client went, or began to, while it was being registered.
            services.sessions.pop(session.channel, None)
            self.session = None
            session.epoch, session.acked = outcome.page.epoch, outcome.seq
            services.leave(session.leave(clean=False))
            return
        self._opened(outcome, session, admission)

    def _opened(self, registered: Registered, session: Session, admission: Admission) -> None:
        services = self._services
        self._state = self.OPEN
        self._opening = None
        self._wire.logged_in()
        self.send(connected(admission, session, registered, services.settings, services.clock.now_ms()))
        self._watch_expiry(admission.identity)
        session.begin(registered)
        if session.answers_visitors:
            services.desk_changed()
        self._read_on()
        early, self._early = self._early, []
        for payload in early:
            self.frame_received(payload)

    def _open_failed(self, failure: Failure) -> None:
        self._opening = None
        session, self.session = self.session, None
        if session is not None:
            self._services.sessions.pop(session.channel, None)
            if failure.check(Unavailable):
                # It may have been registered all the same.
                self._services.leave(session.leave(clean=False))
            session.ended = True
        if self._state == self.CLOSED:
            return
        if isinstance(failure.value, Closing):
            self._close_for(failure.value)
            return
        if failure.check(Unavailable) is None:
            self.log.failure("a connect failed", failure)
        refused = Refused(UNAVAILABLE, failure.getErrorMessage(), retry_after_ms=1000)
        self._send_error(refused)
        self.close(CLOSE_OVERLOADED, "a backend is down")

    # time and the end

    def _close_for(self, closing: Closing) -> None:
        if closing.refused is not None:
            self._send_error(closing.refused)
        self.close(closing.code, closing.reason)

    def _no_connect(self) -> None:
        if self._state == self.NEW:
            self.close(CLOSE_NO_CONNECT, "no connect frame in time")
        elif self._state == self.OPENING:
            # It did what it had to: it is this node that is late.
            self.close(CLOSE_OVERLOADED, "the login took too long")

    def _watch_expiry(self, identity: Identity) -> None:
        self._cancel_call()
        if identity.exp is not None:
            end = identity.exp + self._services.settings.auth.leeway_seconds
            self._look_at_expiry(end)

    def _look_at_expiry(self, end: float) -> None:
        """Close at `end`, in seconds of the wall clock, which may be set meanwhile."""
        left = end - self._services.unix_seconds()
        if left <= 0:
            self._deadline = None
            self.close(CLOSE_UNAUTHORIZED, "the token has expired")
            return
        soon = min(left, EXPIRY_LOOK_SECONDS)
        self._deadline = self._services.call_later(soon, lambda: self._look_at_expiry(end))

    def _cancel_call(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _end_session(self, clean: bool) -> None:
        session = self.session
        assert session is not None
        self._services.sessions.pop(session.channel, None)
        if session.epoch:
            # The two hold each other: they are to go now, not when somebody looks for garbage.
            self.session = None
            self._services.leave(session.leave(clean))
        else:
            session.ended = True

    def _send_error(self, refused: Refused, client_msg_id: str | None = None, ref: str | None = None) -> None:
        ERRORS.labels(refused.code).inc()
        self.send(frames.error(refused, client_msg_id, ref))

    _HANDLERS: dict[type, tuple[str, Callable[[Connection, Any], None]]] = {
        frames.ConnectFrame: ("connect", _connect),
        frames.MessageFrame: ("message", _message),
        frames.AckFrame: ("ack", _ack),
        frames.HistoryFrame: ("history", _history),
        frames.PingFrame: ("ping", _ping),
        frames.TokenFrame: ("token", _token),
    }


def _too_fast(per_second: float, early_seconds: float) -> Refused:
    return Refused(
        RATE_LIMITED, f"{per_second} messages a second", retry_after_ms=max(1, int(early_seconds * 1000))
    )
