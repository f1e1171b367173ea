"""The login: from a connect signal that was admitted to a registered channel and its session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.features import STATE, SYNC
from imd.chat.live import Device
from imd.chat.outlet import Outlet
from imd.chat.refusals import refusal_of
from imd.chat.services import Services
from imd.chat.session import Session
from imd.config.settings import Settings
from imd.contracts.inbox import Registered, TooManyChannels
from imd.entry.admission import Admission, check_visitor, connect_request, flags_of
from imd.observe.seldom import Seldom
from imd.protocol import frames
from imd.protocol.data import MAX_DATA_BYTES
from imd.protocol.errors import (
    CLOSE_OVERLOADED,
    CLOSE_REPLACED,
    RATE_LIMITED,
    UNAVAILABLE,
    Closing,
    Refused,
    Unavailable,
)


class Caller(Outlet, Device, Protocol):
    """The part of a connection that a login needs."""

    session: Session | None

    @property
    def is_closed(self) -> bool:
        """True once the connection has been closed, or the client has gone or begun to go."""

    def opened(self, registered: Registered, session: Session) -> None:
        """The login succeeded. Frames that came meanwhile still wait."""

    def go_on(self) -> None:
        """Handle the frames that came meanwhile."""

    def close_for(self, closing: Closing) -> None:
        """Send the error that `closing` holds, then close."""


class Login:
    """One connection's login. It calls `opened`, or closes the connection, or finds that it is closed."""

    log = Seldom(Logger())

    def __init__(
        self, services: Services, caller: Caller, frame: frames.ConnectFrame, admission: Admission
    ) -> None:
        self._services = services
        self._caller = caller
        self._frame = frame
        self._admission = admission
        self._session: Session | None = None
        self._done: Deferred[None] | None = None

    def start(self) -> None:
        self._done = Deferred.fromCoroutine(self._run())
        self._done.addErrback(self._failed)

    async def _run(self) -> None:
        services = self._services
        author = self._admission.author
        wait = services.replacing.wait_seconds(author.user, author.device)
        if wait:
            waited: Deferred[None] = Deferred()
            services.call_later(wait, waited.callback, None)
            await waited
            if self._caller.is_closed:
                return
        await services.gate.enter()
        try:
            if not self._caller.is_closed:
                await self._register()
        finally:
            services.gate.leave()

    async def _register(self) -> None:
        services = self._services
        caller = self._caller
        author = self._admission.author
        await check_visitor(self._admission, services.inbox)
        if caller.is_closed:
            return
        request = connect_request(self._frame, author)
        features = caller.features or ()
        request.sync = SYNC in features
        if services.level() >= 2:
            request.flags = flags_of(self._frame, author, has_state=STATE in features)
        window = services.settings.limits.ack_window
        session = Session(services.inbox, caller, request, acknowledges=bool(self._frame.ack), window=window)
        # Before the inbox is asked: a hint that comes while it answers must find the session.
        services.sessions[request.channel] = caller.session = self._session = session
        outcome = await services.inbox.connect(request)
        if isinstance(outcome, TooManyChannels):
            why = f"{services.settings.limits.connections_per_user} connections a user"
            raise Closing(CLOSE_OVERLOADED, why, Refused(RATE_LIMITED, why, retry_after_ms=10_000))
        if not isinstance(outcome, Registered):
            raise Closing(CLOSE_REPLACED, "a newer connection of this device is here")
        if outcome.replaced:
            services.router.tell_replaced(outcome.replaced)
            services.replacing.replaced(author.user, author.device)
        if caller.is_closed:
            # The client left while its channel was being registered.
            services.sessions.pop(session.channel, None)
            caller.session = None
            services.leave(session.leave(clean=False))
            return
        caller.opened(outcome, session)
        services.live.opened(caller, self._frame, session.channel)
        caller.go_on()

    def _failed(self, failure: Failure) -> None:
        session, self._caller.session = self._session, None
        if session is not None:
            self._services.sessions.pop(session.channel, None)
            if failure.check(Unavailable):
                # The inbox may have registered the channel all the same.
                self._services.leave(session.leave(clean=False))
            session.ended = True
        if failure.check(Unavailable) or _is_unavailable(failure.value):
            self._services.door.unavailable(self._admission)
        if self._caller.is_closed:
            return
        if isinstance(failure.value, Closing):
            self._caller.close_for(failure.value)
            return
        refused = refusal_of(failure, self.log, "a connect failed")
        self._caller.close_for(Closing(CLOSE_OVERLOADED, "a backend is down", refused))


def _is_unavailable(error: object) -> bool:
    refused = error.refused if isinstance(error, Closing) else None
    return refused is not None and refused.code == UNAVAILABLE


def connected(
    admission: Admission,
    session: Session,
    registered: Registered,
    services: Services,
    features: Sequence[str] | None,
) -> bytes:
    """The encoded `connected` frame."""
    author, exp = admission.author, admission.identity.exp
    ping_seconds = services.settings.websocket.ping_seconds
    return frames.encode(
        frames.Connected(
            v=1,
            user_id=author.user,
            from_user_type=author.type.value,
            device=author.device,
            channel=session.channel,
            epoch=registered.page.epoch,
            seq=registered.seq,
            recovered=registered.recovered,
            server_time=services.clock.now_ms(),
            limits=_limits(services.settings, services.level()),
            ping_seconds=int(ping_seconds) if ping_seconds == int(ping_seconds) else ping_seconds,
            visitor_token=admission.visitor_token,
            exp=int(exp * 1000) if exp is not None else None,
            features=list(features) if features is not None else None,
        )
    )


def _limits(settings: Settings, level: int) -> frames.Limits:
    limits = settings.limits
    told = frames.Limits(
        limits.message_bytes, limits.group_members, limits.ack_window, limits.messages_per_second
    )
    if level >= 2:
        told.data_bytes = MAX_DATA_BYTES
        told.room_members = limits.room_members
        told.edit_seconds = settings.messages.edit_seconds
        told.recall_seconds = settings.messages.recall_seconds
    return told
