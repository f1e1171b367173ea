"""Handlers of the frames that ask the archive: history, messages and changes."""

from __future__ import annotations

from imd.chat.features import EVENTS
from imd.chat.peer import Peer
from imd.chat.questions import Questions
from imd.protocol.questions import check_changes, check_history, check_messages
from imd.protocol.requests import ChangesFrame, HistoryFrame, MessagesFrame


def ask_history(peer: Peer, frame: HistoryFrame) -> None:
    """Raises Refused, as do all of these."""
    services, author = peer.services, peer.author
    level = services.level()
    group_members = services.settings.limits.group_members
    check_history(frame, group_members, is_visitor=author.is_visitor, level=level)
    events = _wants_events(peer)
    questions_of(peer).ask(
        frame.ref, lambda: services.historian.page(author, frame, events=events, level=level)
    )


def ask_messages(peer: Peer, frame: MessagesFrame) -> None:
    ids = check_messages(frame)
    historian, author, events = peer.services.historian, peer.author, _wants_events(peer)
    questions_of(peer).ask(frame.ref, lambda: historian.messages(author, ids, frame, events=events))


def ask_changes(peer: Peer, frame: ChangesFrame) -> None:
    author = peer.author
    check_changes(frame, peer.services.settings.limits.group_members, is_visitor=author.is_visitor)
    historian = peer.services.historian
    questions_of(peer).ask(frame.ref, lambda: historian.changes(author, frame))


def questions_of(peer: Peer) -> Questions:
    """The questions of this connection."""
    if peer.questions is None:
        peer.questions = Questions(peer)
    return peer.questions


def _wants_events(peer: Peer) -> bool:
    return EVENTS in (peer.features or ())
