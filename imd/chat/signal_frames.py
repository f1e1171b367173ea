"""The frames typing and signal: unnumbered words to the others of a conversation who are connected now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from imd.chat.peer import Peer
from imd.chat.rate import charged_if_refused
from imd.chat.signals import SIGNAL, TYPING
from imd.contracts.aim import Aim, Aimed, AimOutcome, TooMany
from imd.contracts.inbox import Closed, NoRoom, NotAllowed, NotMember
from imd.observe.seldom import Seldom
from imd.protocol import state_out
from imd.protocol.data import read_data
from imd.protocol.errors import (
    CONFLICT,
    FORBIDDEN,
    INVALID_MESSAGE,
    NOT_FOUND,
    TOO_LARGE,
    Refused,
    Unavailable,
    unavailable,
)
from imd.protocol.message import is_room_id
from imd.protocol.selector import Selector, Target, read_selector
from imd.protocol.state_frames import SignalFrame, TypingFrame

MAX_MEMBERS = 50
"""in a list or a room of more there is neither typing nor a signal"""
MAX_NAME_CHARS = 64
TYPING_COST = 0.1

_log = Seldom(Logger())


def tell_typing(peer: Peer, frame: TypingFrame) -> None:
    """Pass it on, or not: it is never answered. Raises Refused for a bad selector only."""
    services, author, session = peer.services, peer.author, peer.session
    if session is None or peer.bucket.take(TYPING_COST):
        return
    target = read_selector(frame, author, services.settings.limits.group_members)
    if not services.typing.passes(session.channel, target.conversation):
        return

    def tell(aimed: Aimed) -> None:
        for selector, to in _by_selector(aimed.others, author.user, target):
            services.signals.send(TYPING, to, state_out.typing(author.user, selector))

    told = Deferred.fromCoroutine(_aim(peer, target, session.channel)).addCallback(tell)
    told.addErrback(lambda failure: failure.trap(Refused, Unavailable))
    told.addErrback(lambda failure: _log.failure("typing was not passed on", failure))


def send_signal(peer: Peer, frame: SignalFrame) -> None:
    """Pass a signal on; only a refusal is answered. Raises Refused."""
    session = peer.session
    if session is None:
        return
    with charged_if_refused(peer.bucket):
        target = _read_signal(peer, frame)
    name, data = frame.name or "", frame.data

    async def send() -> None:
        aimed = await _aim(peer, target, session.channel)
        user, signals = peer.author.user, peer.services.signals
        for selector, to in _by_selector(aimed.others, user, target):
            signals.send(SIGNAL, to, state_out.signal(user, selector, name, data))
        if aimed.own:
            own = state_out.signal(user, target.selector, name, data)
            signals.send(SIGNAL, {user: aimed.own}, own)

    peer.services.asks.ask(peer, frame.ref, 1.0, send)


def _read_signal(peer: Peer, frame: SignalFrame) -> Target:
    """The conversation of a signal, which is in good form; its data is made ready. Raises Refused."""
    target = read_selector(frame, peer.author, peer.services.settings.limits.group_members)
    if not 1 <= len(frame.name or "") <= MAX_NAME_CHARS:
        raise Refused(INVALID_MESSAGE, f"name: 1 to {MAX_NAME_CHARS} characters are expected")
    frame.data = read_data(frame.data)
    if len(target.others) > 1:
        raise Refused(INVALID_MESSAGE, "group: a signal goes to one user, or to a room")
    return target


def _by_selector(
    others: Mapping[str, Sequence[str]], sender: str, target: Target
) -> Iterable[tuple[Selector, Mapping[str, Sequence[str]]]]:
    """Channels by the selector that they get."""
    found: dict[Selector, dict[str, Sequence[str]]] = {}
    for user, channels in others.items():
        found.setdefault(seen_from(user, sender, target), {})[user] = channels
    return found.items()


def seen_from(user: str, sender: str, target: Target) -> Selector:
    """The selector of a conversation from the side of one who gets something of `sender`."""
    if target.room:
        return target.selector
    if target.visitor:
        return Selector(with_=target.visitor) if target.visitor == sender else Selector()
    if len(target.others) == 1:
        return Selector(with_=sender)
    return Selector(group=tuple(sorted({sender, *target.others} - {user})))


async def _aim(peer: Peer, target: Target, channel: str) -> Aimed:
    """The channels of the others, if the user may write there. Raises Refused, Unavailable."""
    rooms, room = peer.services.rooms, target.room
    if room and not rooms.is_warm(room) and not (is_room_id(room) and await rooms.warm(room)):
        raise Refused(NOT_FOUND, "no such room")
    outcome = await peer.services.aims.aim(Aim(peer.author.user, channel, target, MAX_MEMBERS))
    if isinstance(outcome, NoRoom):
        # The next one loads it.
        rooms.heard(room, 0)
        raise unavailable("the room is being loaded")
    if not isinstance(outcome, Aimed):
        raise _refusal(outcome)
    return outcome


def _refusal(outcome: AimOutcome) -> Refused:
    match outcome:
        case NotMember():
            return Refused(NOT_FOUND, "no such room")
        case NotAllowed(reason):
            return Refused(FORBIDDEN, reason)
        case Closed():
            return Refused(CONFLICT, "the room is closed")
        case TooMany():
            return Refused(TOO_LARGE, f"at most {MAX_MEMBERS} members")
    raise AssertionError(outcome)
