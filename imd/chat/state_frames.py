"""Handlers of the frames `read` and `settings`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from prometheus_client import Counter, Histogram
from twisted.internet.defer import Deferred

from imd.chat.peer import Peer
from imd.chat.state_feed import state_frame
from imd.chat.state_form import Named, read_marks, read_setting
from imd.contracts.state import Changes, Entry, Mark, Setting
from imd.contracts.together import together
from imd.protocol.errors import FORBIDDEN, NOT_FOUND, Refused
from imd.protocol.selector import Target
from imd.protocol.state_frames import ReadFrame, SettingsFrame

CHANGES = Counter("imd_state_changes_total", "Frames that set marks and settings, by kind.", ["kind"])
SECONDS = Histogram(
    "imd_state_seconds",
    "Time until a mark or a setting was stored.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2),
)


def set_marks(peer: Peer, frame: ReadFrame) -> None:
    """Raises Refused, as does the other handler."""
    latest_ms = peer.services.ids.latest_ms()
    named = read_marks(frame, peer.author, peer.services.settings.limits.group_members, latest_ms)
    _ask(peer, frame.ref, "read", 1 + len(named) / 10, lambda: _read(peer, named, frame.ref))


def set_settings(peer: Peer, frame: SettingsFrame) -> None:
    latest_ms = peer.services.ids.latest_ms()
    group_members = peer.services.settings.limits.group_members
    target, setting = read_setting(frame, peer.author, group_members, latest_ms)
    if peer.author.is_visitor:
        raise Refused(FORBIDDEN, "visitors have no settings")
    _ask(peer, frame.ref, "settings", 1, lambda: _set(peer, target, setting, frame.ref))


def _ask(
    peer: Peer, ref: str | None, kind: str, cost: float, work: Callable[[], Coroutine[Any, Any, bytes]]
) -> None:
    monotonic = peer.services.clock.monotonic

    async def timed() -> bytes:
        began = monotonic()
        answer = await work()
        CHANGES.labels(kind).inc()
        SECONDS.observe(monotonic() - began)
        return answer

    peer.services.asks.ask(peer, ref, cost, timed)


async def _read(peer: Peer, named: Sequence[Named], ref: str | None) -> bytes:
    services, user = peer.services, peer.author.user
    await _check_rooms(peer, [one.target.room for one in named])
    marks = [await _mark(peer, one) for one in named]
    if peer.author.is_visitor and not marks[0].peer:
        # Nothing is kept of a visitor whom nobody answers yet.
        version = (await services.states.versions([user]))[user]
        entry = Entry(marks[0].conversation, marks[0].selector, read=marks[0].up_to)
        return state_frame(Changes(user, version, version, (entry,)), ref)
    return await _change(peer, marks, None, ref)


async def _set(peer: Peer, target: Target | None, setting: Setting, ref: str | None) -> bytes:
    if target is not None:
        await _check_rooms(peer, [target.room])
    return await _change(peer, (), setting, ref)


async def _check_rooms(peer: Peer, rooms: Sequence[str]) -> None:
    """Raises Refused (`not_found`) for a room of others, and Unavailable."""
    user, store = peer.author.user, peer.services.rooms
    asked: list[Deferred[Any]] = [store.membership(room, user) for room in dict.fromkeys(rooms) if room]
    if not all(await together(asked)):
        raise Refused(NOT_FOUND, "no such room")


async def _mark(peer: Peer, named: Named) -> Mark:
    """The mark, with the user who may see it."""
    target, author = named.target, peer.author
    other = ""
    if target.visitor:
        agent = await peer.services.inbox.agent_of(target.visitor)
        if author.is_visitor:
            other = agent
        elif agent == author.user:
            other = target.visitor
    elif target.selector.with_ != author.user:
        other = target.selector.with_
    return Mark(target.conversation, target.selector, named.up_to, other)


async def _change(peer: Peer, marks: Sequence[Mark], setting: Setting | None, ref: str | None) -> bytes:
    services, user = peer.services, peer.author.user
    feed = services.feeds.of(peer.session.channel) if peer.session is not None else None
    if feed is None:
        return state_frame(_changed(await services.states.change(user, marks, setting, None)), ref)
    feed.answers += 1
    since = feed.version
    try:
        changes = _changed(await services.states.change(user, marks, setting, since))
        return services.feeds.answer(feed, changes, since, ref)
    finally:
        services.feeds.answered(feed)


def _changed(outcome: Changes | Refused) -> Changes:
    if isinstance(outcome, Refused):
        raise outcome
    return outcome
