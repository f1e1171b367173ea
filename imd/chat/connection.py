"""One client's frames, from the connect signal to the end; no socket.

Frames that arrive during the login wait for its end. Each frame gets an answer; messages, in their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client import Counter
from twisted.internet.defer import Deferred, succeed

from imd.chat.batch import Answer, Entry, Refusal
from imd.chat.features import chosen_features
from imd.chat.fence import Fence
from imd.chat.handlers import HANDLERS
from imd.chat.login import Login, connected
from imd.chat.patience import Patience
from imd.chat.posting import post
from imd.chat.questions import Questions
from imd.chat.services import Services
from imd.chat.session import Session
from imd.chat.token_deadline import watch_token
from imd.chat.wire import Outgoing, Wire
from imd.contracts.inbox import Registered
from imd.contracts.timer import Cancellable
from imd.entry.admission import Admission
from imd.entry.allowance import ERROR, Allowance, cost_of
from imd.entry.auth import Identity
from imd.entry.ratelimit import TokenBucket
from imd.observe.metrics import Tally
from imd.protocol import frames
from imd.protocol.author import Author
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
# A frame that waits takes this much memory beside its bytes.
HELD_FRAME_BYTES = 48
# A connection's states. Globals, since a look at a class attribute costs each message more.
_NEW, _OPENING, _OPEN, _CLOSED = range(4)
# A binary frame's stand-in among the frames that wait. No text frame is this object.
_BINARY = b"a binary frame"


class Connection:
    """`bearer` is the token of the handshake's Authorization header."""

    __slots__ = (
        "_bearer",
        "_deadline",
        "_decode",
        "_held",
        "_holds",
        "_leaving",
        "_outgoing",
        "_patience",
        "_paused",
        "_pending",
        "_state",
        "_wire",
        "admission",
        "bucket",
        "early_bytes",
        "features",
        "questions",
        "send",
        "services",
        "session",
    )

    def __init__(self, services: Services, wire: Wire, outgoing: Outgoing, bearer: str | None) -> None:
        limits, websocket = services.settings.limits, services.settings.websocket
        self.services = services
        self._wire = wire
        self._outgoing = outgoing
        self.send = outgoing.send
        """write a frame; a session's way to its device, too"""
        self._bearer = bearer
        self._state = _NEW
        self._decode = frames.decode if services.level() >= 2 else frames.decode_at_level_1
        self._holds = 0
        """the login and slow frames that are under way: later frames wait"""
        self._held: deque[bytes] | None = None
        """these frames"""
        self.early_bytes = 0
        """the memory that they take"""
        self._patience = Patience(services.clock.monotonic)
        self._pending = 0
        self._paused = False
        self._leaving = ""
        """why the client is to go; empty: it is not"""
        self.questions: Questions | None = None
        """created by the first request"""
        self._deadline: Cancellable | None = services.call_later(websocket.connect_seconds, self._no_connect)
        self.admission: Admission
        """the user and device, from OPENING on"""
        self.features: Sequence[str] | None = None
        """that the client asked for and gets; None if it asked for none"""
        self.bucket = TokenBucket(limits.messages_per_second, limits.burst, services.clock.monotonic)
        self.session: Session | None = None

    # from the WebSocket

    def frame_received(self, payload: bytes) -> None:
        if self._holds:
            self._hold_back(payload)
            return
        if self._state == _CLOSED:
            return
        try:
            frame = self._decode(payload)
        except frames.BadFrame as bad:
            self._bad_frame(bad)
            return
        self._patience.bad_frames = 0
        if type(frame) is frames.MessageFrame and self._state == _OPEN:
            _MESSAGES.n += 1
            post(self, frame)
        else:
            self._dispatch(frame)

    def binary_received(self) -> None:
        if self._holds:
            self._hold_back(_BINARY)
        elif self._state != _CLOSED:
            self._bad_frame(frames.BadFrame(BAD_FRAME, "a text frame is expected"))

    def spend(self, cost: float) -> None:
        """Take the cost of a frame that is no message. Closes with 4100 when the allowance is spent."""
        self._close_if(self._patience.spend(cost))

    def ping_mark(self) -> bytes:
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
        self._drop_held()
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

    def frame_answered(self, payload: bytes) -> None:
        self._pending -= 1
        if self._state == _OPEN:
            self.send(payload)
        if self._paused:
            self._go_on_if_answered()

    # from the node

    @property
    def is_new(self) -> bool:
        return self._state == _NEW

    def leaving(self, reconnect_ms: int, why: str) -> None:
        """The client is to go: nothing more is read, and 4200 follows the answers to its messages."""
        if self._leaving:
            return
        if self._state == _OPEN:
            self.send(frames.encode(frames.Leaving(reconnect_ms)))
        self._leaving, self._paused = why, True
        self._wire.pause_reading()
        self._go_on_if_answered()

    def close(self, code: int, reason: str) -> None:
        """End the connection; the WebSocket says when it is gone."""
        if self._state != _CLOSED:
            self._state = _CLOSED
            self._drop_held()
            self._cancel_call()
            CLOSES.labels(str(code)).inc()
            self._wire.close(code, reason)

    # from the session, the login and the handlers of frames

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

    @property
    def author(self) -> Author:
        """The user and device, once the connect signal was there."""
        return self.admission.author

    @property
    def allowance(self) -> Allowance:
        return self._patience.allowance

    def hold(self) -> Callable[[], None]:
        """Later frames wait until the function that this returns is called, once."""
        self._holds += 1
        return self._release

    def submit(self, entry: Entry) -> None:
        """Have a frame answered in its turn."""
        self._pending += 1
        if self._pending >= MAX_PENDING and not self._paused:
            self._paused = True
            self._wire.pause_reading()
        self.services.acceptor.submit(entry)

    def caught_up(self) -> Deferred[None]:
        """Fires when all frames that were submitted before have been answered."""
        if not self._pending:
            return succeed(None)
        fence = Fence()
        self.services.acceptor.submit(fence.entry())
        return fence.passed

    def refuse(self, client_msg_id: str | None, refused: Refused, ref: str | None = None) -> None:
        """Answer with an error, after the answers that earlier messages wait for; a question's at once."""
        if not self._pending or (client_msg_id is None and ref is not None):
            self.send_error(refused, client_msg_id, ref)
        elif ref is None:
            self.submit(Refusal(self, client_msg_id, refused))
        else:
            ERRORS.labels(refused.code).inc()
            self.submit(Answer(self, client_msg_id, frames.error(refused, client_msg_id, ref)))

    def _hold_back(self, payload: bytes) -> None:
        is_first = not self._held
        if self._held is None:
            self._held = deque()
        self._held.append(payload)
        self.early_bytes += len(payload) + HELD_FRAME_BYTES
        if is_first:
            self._wire.pause_reading()
            # Last: it may close this connection.
            self._wire.frames_wait()

    def _drop_held(self) -> None:
        self._held = None
        self.early_bytes = 0

    # frames

    def _dispatch(self, frame: Any) -> None:
        name, handle = self._HANDLERS[type(frame)]
        FRAMES.labels(name).n += 1
        client_msg_id = getattr(frame, "client_msg_id", None)
        if self._state == _NEW and type(frame) is not frames.ConnectFrame:
            refused = Refused(FORBIDDEN, "the connect signal comes first")
            self.send_error(refused, client_msg_id, getattr(frame, "ref", None))
            self._close_if(self._patience.stranger_erred())
            return
        try:
            handle(self, frame)
        except Refused as refused:
            ref = getattr(frame, "ref", None)
            if client_msg_id is not None:
                self.refuse(client_msg_id, refused, ref)
            else:
                self.send_error(refused, ref=ref)
            if self._state == _NEW:
                self._close_if(self._patience.stranger_erred())
            elif cost := cost_of(refused):
                self.spend(cost)
        except Closing as closing:
            self.close_for(closing)

    def _bad_frame(self, bad: frames.BadFrame) -> None:
        FRAMES.labels("unreadable").n += 1
        self.refuse(bad.client_msg_id, bad, bad.ref)
        if bad.code == BAD_FRAME:
            self._close_if(self._patience.bad_frame())
        if self._state == _NEW:
            self._close_if(self._patience.stranger_erred())
        self.spend(ERROR)

    def _go_on_if_answered(self) -> None:
        if self._leaving and not self._pending and (not self._holds or self._state == _OPENING):
            self.close(CLOSE_LEAVING, self._leaving)
        elif not self._leaving and self._pending <= MAX_PENDING // 2:
            self._paused = False
            self._read_on()

    def _read_on(self) -> None:
        if self._state == _OPEN and not (self._leaving or self._paused or self._holds):
            self._wire.resume_reading()

    def _release(self) -> None:
        """The login, or a slow frame, is through."""
        self._holds -= 1
        if self._leaving:
            self._go_on_if_answered()
            return
        had_waiting = bool(self._held)
        while not self._holds and self._held:
            payload = self._held.popleft()
            self.early_bytes -= len(payload) + HELD_FRAME_BYTES
            if payload is _BINARY:
                self.binary_received()
            else:
                self.frame_received(payload)
        if had_waiting:
            self._wire.frames_passed()
        self._read_on()

    # the connect signal

    def _connect(self, frame: frames.ConnectFrame) -> None:
        if self._state != _NEW:
            raise Refused(BAD_FRAME, "this connection is connected already")
        services = self.services
        self.admission = services.door.admit(frame, self._bearer, self._wire.visitors_from)
        if services.level() >= 2:
            self.features = chosen_features(frame)
        self._state = _OPENING
        self.hold()
        Login(services, self, frame, self.admission).start()

    # from the login

    def opened(self, registered: Registered, session: Session) -> None:
        """The channel is registered."""
        services, admission = self.services, self.admission
        self._state = _OPEN
        self._wire.logged_in()
        self.send(connected(admission, session, registered, services, self.features))
        self.watch_expiry(admission.identity)
        session.begin(registered)
        if session.answers_visitors:
            services.desk_changed()
        if services.homecoming is not None:
            services.homecoming.arrived(self, admission.author, self._wire.hint)

    def go_on(self) -> None:
        """The login is through, for all parts of the node."""
        self._release()

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

    def watch_expiry(self, identity: Identity) -> None:
        self._cancel_call()
        self._deadline = watch_token(identity, self.services, self._token_expired)

    def _token_expired(self) -> None:
        self.close(CLOSE_UNAUTHORIZED, "the token has expired")

    def _cancel_call(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _end_session(self, session: Session, clean: bool) -> None:
        self.services.sessions.pop(session.channel, None)
        self.services.live.ended(session.channel)
        if self.services.homecoming is not None:
            self.services.homecoming.left(self)
        if session.epoch:
            # Break the reference cycle with the session.
            self.session = None
            self.services.leave(session.leave(clean))
        else:
            session.ended = True

    _HANDLERS: Mapping[type, tuple[str, Callable[[Connection, Any], None]]] = {
        **HANDLERS,
        frames.ConnectFrame: ("connect", _connect),
    }
