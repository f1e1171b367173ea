"""The rights to edit, recall and react to a message, and the users who hear of it. No I/O, no clock."""

from __future__ import annotations

from typing import NamedTuple

from imd.chat.change_form import Change
from imd.chat.compose import EVERYBODY
from imd.config.settings import Messages
from imd.contracts.archive import Target
from imd.protocol.errors import CONFLICT, FORBIDDEN, TOO_LARGE, Refused
from imd.protocol.events import Edit, React, Recall

MAX_OWN_REACTIONS = 3
"""of one user on a message"""
MAX_DIFFERENT_REACTIONS = 50
"""on a message"""

_ALWAYS, _NEVER = -1, 0


class Actor(NamedTuple):
    """The user who wants to change a message that they may read."""

    user: str
    is_visitor: bool = False
    leads: bool = False
    """owner or admin of the message's room"""
    closed: bool = False
    """the message's room is"""
    members: int = 1
    """of the message's room"""


def judge(change: Change, target: Target, actor: Actor, now_ms: int, windows: Messages) -> bool:
    """True if the change is one; False if the message is so already.

    Raises Refused: `forbidden`, `conflict` for a message that is recalled or in a closed room, `too_large`
    for too many reactions.
    """
    if isinstance(change, Edit):
        _check_edit(change, target, actor, now_ms, windows.edit_seconds)
    elif isinstance(change, Recall):
        if actor.user != target.author and not actor.leads:
            raise Refused(FORBIDDEN, "only its author, or an owner or admin of its room, recalls a message")
        if not _in_time(target, now_ms, windows.recall_seconds):
            raise Refused(FORBIDDEN, _too_late("recalled", windows.recall_seconds))
        return not target.recalled
    if actor.closed:
        raise Refused(CONFLICT, "the room is closed")
    if target.recalled:
        raise Refused(CONFLICT, "the message is recalled")
    return not isinstance(change, React) or _is_news(change, target, actor)


def _check_edit(change: Edit, target: Target, actor: Actor, now_ms: int, seconds: int) -> None:
    if actor.user != target.author:
        raise Refused(FORBIDDEN, "only its author edits a message")
    if not _in_time(target, now_ms, seconds):
        raise Refused(FORBIDDEN, _too_late("edited", seconds))
    if change.mentions == EVERYBODY and not actor.leads:
        raise Refused(FORBIDDEN, f"mentions: {EVERYBODY[0]} is for owners and admins of a room")


def _in_time(target: Target, now_ms: int, seconds: int) -> bool:
    if seconds in (_ALWAYS, _NEVER):
        return seconds == _ALWAYS
    return now_ms - target.send_time <= seconds * 1000


def _too_late(done: str, seconds: int) -> str:
    if seconds == _NEVER:
        return f"messages are not {done} here"
    return f"a message is {done} within {seconds} seconds"


def _is_news(change: React, target: Target, actor: Actor) -> bool:
    own = target.reactions.get(actor.user, frozenset())
    if change.on is False:
        return change.reaction in own
    if change.reaction in own:
        return False
    if len(own) >= MAX_OWN_REACTIONS:
        raise Refused(TOO_LARGE, f"at most {MAX_OWN_REACTIONS} reactions of one user to a message")
    if change.reaction not in target.different and len(target.different) >= MAX_DIFFERENT_REACTIONS:
        raise Refused(TOO_LARGE, f"at most {MAX_DIFFERENT_REACTIONS} different reactions to a message")
    return True


def address(change: Change, target: Target, actor: Actor) -> list[str]:
    """Give the change the fields that name its conversation, as a message of the actor would have them.

    Returns its recipients, each once, without those whom a block left out of the message. There are none for
    a visitor's change, as the desk finds its agent, and none in a room, whose members the store knows.
    """
    scope = target.scope
    if scope.room:
        change.room = scope.room
        return []
    if actor.is_visitor:
        change.is_visitor = True
        return []
    if scope.visitor:
        change.to = scope.visitor
    elif target.to:
        change.to = target.to if actor.user == target.author else target.author
    else:
        own = actor.user == target.author
        everybody = sorted((*scope.participants, *scope.without))
        others = [user for user in everybody if user != actor.user]
        change.group = list(target.group or ()) if own else others
        return [user for user in dict.fromkeys(change.group) if user not in scope.without]
    return [change.to]


def is_of_list(target: Target) -> bool:
    """True for a message to several. A list of one other user is the pair's."""
    scope = target.scope
    is_list = not scope.room and not scope.visitor and not target.to
    return is_list and len({*scope.participants, *scope.without}) > 2
