"""One client's frames, from the connect signal to the end; no socket.

Frames that arrive during the login wait for its end. Each frame gets an answer; messages, in their order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import Counter

from imd.chat.accept import Entry, Refusal
from imd.chat.compose import check, compose
from imd.chat.history_requests import HistoryRequests
from imd.chat.login import Login, connected
from imd.chat.patience import Patience
from imd.chat.rate import rate_cost, too_fast
from imd.chat.renewal import renew
from imd.chat.services import Services
from imd.chat.session import Session
from imd.chat.token_deadline import watch_token
from imd.chat.wire import Outgoing, Wire
from imd.contracts.inbox import Registered
from imd.contracts.timer import Cancellable
from imd.entry.admission import Admission
from imd.entry.allowance import ERROR, IDLE_ACK, PING, cost_of
from imd.entry.auth import Identity
from imd.entry.ratelimit import TokenBucket
from imd.observe.metrics import Tally
from imd.observe.trace import TRACE
from imd.protocol import frames
from imd.protocol.errors import (
    BAD_FRAME,
    CLOSE_LEAVING,
    CLOSE_NO_CONNECT,
    CLOSE_OVERLOADED,
    CLOSE_UNAUTHORIZED,
    FORBIDDEN,
    Closing,
    Refused,
)

ERRORS = Counter("imd_errors_total", "Error frames sent, by code.", ["code"])
CLOSES = Counter("imd_closes_total", "Connections closed by the node, by code.", ["code"])
FRAMES = Tally("imd_frames_total", "Frames from clients, by type.", "type")
_MESSAGES = FRAMES.labels("message")

# Past this a connection is no longer read from, until its answers have caught up.
MAX_PENDING = 512
# A connection's states. Globals, since a look at a class attribute costs each message more.
_NEW, _OPENING, _OPEN, _CLOSED = range(4)


class Connection:
    """`bearer` is the token of the handshake's Authorization header."""

    __slots__ = (
        "_admission",
        "_bearer",
        "_bucket",
        "_deadline",
        "_early",
        "_history_requests",
        "_leaving",
        "_outgoing",
        "_patience",
        "_paused",
        "_pending",
        "_services",
        "_state",
        "_wire",
        "send",
        "session",
    )

    def __init__(self, services: Services, wire: Wire, outgoing: Outgoing, bearer: str | None) -> None:
        limits, websocket = services.settings.limits, services.settings.websocket
        self._services = services
        self._wire = wire
        self._outgoing = outgoing
        self.send = outgoing.send
        """write a frame; a session's way to its device, too"""
        self._bearer = bearer
        self._state = _NEW
        self._early: list[bytes] = []
        self._patience = Patience(services.clock.monotonic)
        self._pending = 0
        self._paused = False
        self._leaving = False
        self._history_requests: HistoryRequests | None = None
        """created by the first request"""
        self._deadline: Cancellable | None = services.call_later(websocket.connect_seconds, self._no_connect)
        self._admission: Admission
        """the user and device, from OPENING on"""
        self._bucket = TokenBucket(limits.messages_per_second, limits.burst, services.clock.monotonic)
        self.session: Session | None = None

    # from the WebSocket

    def frame_received(self, payload: bytes) -> None:
        """A text frame came."""
        if self._state == _OPENING:
            if not self._early:
                self._wire.pause_reading()
            self._early.append(payload)
            return
        if self._state == _CLOSED:
            return
        try:
            frame = frames.decode(payload)
        except frames.BadFrame as bad:
            self._bad_frame(bad)
            return
        self._patience.bad_frames = 0
        if type(frame) is frames.MessageFrame and self._state == _OPEN:
            _MESSAGES.n += 1
            self._message(frame)
        else:
            self._dispatch(frame)

    def binary_received(self) -> None:
        """A binary frame came."""
        if self._state != _CLOSED:
            self._bad_frame(frames.BadFrame(BAD_FRAME, "a text frame is expected"))

    def spend(self, cost: float) -> None:
        """Take the cost of a frame that is no message. Closes with 4100 when the allowance is spent."""
        self._close_if(self._patience.spend(cost))

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
        """The client has begun to close. Later frames do not reach it, and must not count as delivered."""
        self._state = _CLOSED
        if self.session is not None:
            self.session.ended = True

    def lost(self, clean: bool) -> None:
        """The WebSocket is gone. `clean`: it was closed in good order, and the client has read all frames."""
        self._state = _CLOSED
        self._early.clear()
        self._cancel_call()
        if self.session is not None:
            self._end_session(self.session, clean)

    # from the acceptor

    def message_accepted(self, client_msg_id: str | None, message_id: str, send_time: int) -> None:
        self._pending -= 1
        if self._state == _OPEN:
            self.send(frames.accepted(client_msg_id, message_id, send_time))
        if self._paused:
            self._go_on_if_answered()

    def message_refused(self, client_msg_id: str | None, refused: Refused) -> None:
        self._pending -= 1
        if self._state != _CLOSED:
            self.send_error(refused, client_msg_id)
        if self._paused:
            self._go_on_if_answered()

    # from the node

    @property
    def is_new(self) -> bool:
        """No connect signal has come yet."""
        return self._state == _NEW

    @property
    def early_bytes(self) -> int:
        """Size of the frames that wait until the login is through."""
        return sum(map(len, self._early))

    def leaving(self, reconnect_ms: int) -> None:
        """The client is to go: nothing more is read, and 4200 follows the answers to its messages."""
        if self._leaving:
            return
        if self._state == _OPEN:
            self.send(frames.encode(frames.Leaving(reconnect_ms)))
        self._leaving = self._paused = True
        self._wire.pause_reading()
        self._go_on_if_answered()

    def close(self, code: int, reason: str) -> None:
        """End the connection; the WebSocket says when it is gone."""
        if self._state != _CLOSED:
            self._state = _CLOSED
            self._cancel_call()
            CLOSES.labels(str(code)).inc()
            self._wire.close(code, reason)

    # from the session, the login and history requests

    @property
    def is_open(self) -> bool:
        """The login is through, and the connection has not ended."""
        return self._state == _OPEN

    @property
    def is_closed(self) -> bool:
        """The connection has been closed, or the client has gone or begun to go."""
        return self._state == _CLOSED

    def send_error(self, refused: Refused, client_msg_id: str | None = None, ref: str | None = None) -> None:
        ERRORS.labels(refused.code).inc()
        self.send(frames.error(refused, client_msg_id, ref))

    @property
    def writable(self) -> bool:
        return self._state == _OPEN and self._outgoing.writable

    def ping(self) -> None:
        self._wire.ping()

    # frames

    def _dispatch(self, frame: Any) -> None:
        name, handle = self._HANDLERS[type(frame)]
        FRAMES.labels(name).n += 1
        if self._state == _NEW and type(frame) is not frames.ConnectFrame:
            client_msg_id = getattr(frame, "client_msg_id", None)
            self.send_error(Refused(FORBIDDEN, "the connect signal comes first"), client_msg_id)
            self._close_if(self._patience.stranger_erred())
            return
        try:
            handle(self, frame)
        except Refused as refused:
            self.send_error(refused, ref=getattr(frame, "ref", None))
            if self._state == _NEW:
                self._close_if(self._patience.stranger_erred())
            elif cost := cost_of(refused):
                self.spend(cost)
        except Closing as closing:
            self.close_for(closing)

    def _message(self, frame: frames.MessageFrame) -> None:
        limits = self._services.settings.limits
        author = self._admission.author
        try:
            check(frame, author, limits)
        except Refused as refused:
            # It can never become a message, so its size is not charged.
            early = self._bucket.take(1.0)
            answer = too_fast(limits.messages_per_second, early) if early else refused
            self._refuse_message(frame.client_msg_id, answer)
            return
        early = self._bucket.take(rate_cost(frame)) if limits.messages_per_second else 0.0
        if early:
            self._refuse_message(frame.client_msg_id, too_fast(limits.messages_per_second, early))
            return
        submission = compose(frame, author, self._services.ids)
        if TRACE.on and self.session is not None:
            TRACE.received(submission, self.session.channel)
        submission.origin = self
        self._submit(submission)

    def _bad_frame(self, bad: frames.BadFrame) -> None:
        FRAMES.labels("unreadable").n += 1
        self._refuse_message(bad.client_msg_id, bad)
        if bad.code == BAD_FRAME:
            self._close_if(self._patience.bad_frame())
        elif self._state == _NEW:
            self._close_if(self._patience.stranger_erred())
        self.spend(ERROR)

    def _refuse_message(self, client_msg_id: str | None, refused: Refused) -> None:
        """Answer with an error, after the answers that earlier messages still wait for."""
        if self._pending:
            self._submit(Refusal(self, client_msg_id, refused))
        else:
            self.send_error(refused, client_msg_id)

    def _submit(self, entry: Entry) -> None:
        self._pending += 1
        if self._pending >= MAX_PENDING and not self._paused:
            self._paused = True
            self._wire.pause_reading()
        self._services.acceptor.submit(entry)

    def _go_on_if_answered(self) -> None:
        if self._leaving and not self._pending:
            self.close(CLOSE_LEAVING, "the node is leaving")
        elif not self._leaving and self._pending <= MAX_PENDING // 2:
            self._paused = False
            self._read_on()

    def _read_on(self) -> None:
        if self._state == _OPEN and not self._leaving and not self._paused:
            self._wire.resume_reading()

    def _ack(self, frame: frames.AckFrame) -> None:
        if (session := self.session) is not None:
            before = session.cursor.acked
            session.acknowledge(frame.seq, frame.epoch)
            if session.cursor.acked == before:
                self.spend(IDLE_ACK)

    def _ping(self, frame: frames.PingFrame) -> None:
        self.spend(PING)
        self.send(frames.encode(frames.Pong(self._services.clock.now_ms())))

    def _history(self, frame: frames.HistoryFrame) -> None:
        if self._history_requests is None:
            author = self._admission.author
            self._history_requests = HistoryRequests(self._services, self, author, self._bucket)
        self._history_requests.ask(frame)

    def _token(self, frame: frames.TokenFrame) -> None:
        self.spend(PING)
        authenticator = self._services.authenticator
        identity = renew(frame, self._admission.identity, authenticator, self._patience.allowance)
        self._watch_expiry(identity)
        self.send(frames.encode(frames.TokenRenewed(int((identity.exp or 0) * 1000))))

    # the connect signal

    def _connect(self, frame: frames.ConnectFrame) -> None:
        if self._state != _NEW:
            raise Refused(BAD_FRAME, "this connection is connected already")
        services = self._services
        self._admission = services.door.admit(frame, self._bearer, self._wire.visitors_from)
        self._state = _OPENING
        Login(services, self, frame, self._admission).start()

    # from the login

    def opened(self, registered: Registered, session: Session) -> None:
        """The channel is registered."""
        services, admission = self._services, self._admission
        self._state = _OPEN
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

    def close_for(self, closing: Closing) -> None:
        """Send the error that `closing` holds, then close."""
        if closing.refused is not None:
            self.send_error(closing.refused)
        self.close(closing.code, closing.reason)

    def _close_if(self, closing: Closing | None) -> None:
        if closing is not None:
            self.close_for(closing)

    # time and the end

    def _no_connect(self) -> None:
        if self._state == _NEW:
            self.close(CLOSE_NO_CONNECT, "no connect frame in time")
        elif self._state == _OPENING:
            # The client did its part: this node is late.
            self.close(CLOSE_OVERLOADED, "the login took too long")

    def _watch_expiry(self, identity: Identity) -> None:
        self._cancel_call()
        self._deadline = watch_token(identity, self._services, self._token_expired)

    def _token_expired(self) -> None:
        self.close(CLOSE_UNAUTHORIZED, "the token has expired")

    def _cancel_call(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _end_session(self, session: Session, clean: bool) -> None:
        self._services.sessions.pop(session.channel, None)
        if session.epoch:
            # Break the reference cycle with the session.
            self.session = None
            self._services.leave(session.leave(clean))
        else:
            session.ended = True

    _HANDLERS: dict[type, tuple[str, Callable[[Connection, Any], None]]] = {
        frames.ConnectFrame: ("connect", _connect),
        frames.MessageFrame: ("message", _message),
        frames.AckFrame: ("ack", _ack),
        frames.HistoryFrame: ("history", _history),
        frames.PingFrame: ("ping", _ping),
        frames.TokenFrame: ("token", _token),
    }
