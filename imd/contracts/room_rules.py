"""The rules of rooms: an action makes a new room of a room, and an event that tells of it.

They are pure, and the same for every backend.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from imd.contracts.inbox import TooManyNew
from imd.contracts.rooms import (
    ADMIN,
    LARGE_ROOM,
    MAX_PAST,
    MAX_REMOVED,
    MEMBER,
    OWNER,
    RANK,
    Action,
    EventBody,
    Member,
    Past,
    Room,
    RoomEntry,
)
from imd.protocol.errors import (
    CONFLICT,
    FORBIDDEN,
    INVALID_MESSAGE,
    NOT_FOUND,
    RATE_LIMITED,
    TOO_LARGE,
    Refused,
)
from imd.protocol.events import Concerned, RoomEvent

CHANGES_PER_SECOND = 5
NAMED_AT_CREATION = 50

_encode = msgspec.json.Encoder().encode


class Stamp(NamedTuple):
    """The id of an event, and the time, in ms."""

    id: str
    time: int


class Decided(NamedTuple):
    """The room as it is now, and the event of it."""

    room: Room
    entry: RoomEntry


class _Step(NamedTuple):
    """A change before it has a version. `users`: those concerned; `came`: those of them who just came."""

    room: Room
    users: tuple[Concerned, ...] = ()
    came: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


def remembered(room: Room, action: Action, now_ms: int, dedup_ms: int) -> Past | None:
    """The change that this action has made before; None for a new one.

    Raises Refused (`invalid_message`) if the clientMsgId was used for another change of the room.
    """
    for past in reversed(room.past):
        if (
            past.client_msg_id == action.client_msg_id
            and past.user == action.user
            and past.device == action.device
            and past.time + dedup_ms > now_ms
        ):
            check_same(past, action)
            return past
    return None


def check_same(past: Past, action: Action) -> None:
    """Raise Refused (`invalid_message`) unless the action is the one that was made."""
    if past.checksum != action.checksum:
        raise Refused(INVALID_MESSAGE, "the clientMsgId was used for another frame")


def too_many_new(refused: TooManyNew) -> Refused:
    """The refusal of a change that would begin too many inboxes that no device has ever opened."""
    who = "ids that have never connected"
    if refused.retry_after_ms is None:
        return Refused(TOO_LARGE, f"users: too many {who}")
    return Refused(RATE_LIMITED, f"too many {who}", retry_after_ms=refused.retry_after_ms)


def made_by(action: Action) -> str:
    """The name that a `create` is remembered under, for ever."""
    name = _encode([action.user, action.device, action.client_msg_id])
    return blake2b(name, digest_size=16).hexdigest()


def create(action: Action, stamp: Stamp, most_members: int, full: Collection[str] = ()) -> Decided:
    """A new room. `full`: users who can be in no more rooms, or block the creator. Raises Refused."""
    if not action.may_create:
        raise Refused(FORBIDDEN, "rooms are not for these users to create")
    if action.user in full:
        raise Refused(TOO_LARGE, "this user is in as many rooms as there may be")
    named = [
        (user, role or MEMBER) for user, role in action.users if user != action.user and user not in full
    ]
    if len(named) + 1 > most_members:
        raise Refused(TOO_LARGE, f"users: a room has at most {most_members} members")
    members = (Member(action.user, OWNER, 1), *(Member(user, role, 1) for user, role in named))
    made = _past(action, stamp, 1)
    room = Room(
        action.room,
        action.name or "",
        action.posting or "all",
        action.history or "joined",
        action.joining or "invite",
        action.data or "",
        False,
        0,
        members,
        made,
    )
    users = tuple(Concerned(user, role) for user, role in named[:NAMED_AT_CREATION])
    fields = ("name", "posting", "history", "joining", "data")
    return _decided(action, stamp, _Step(room, users, fields=fields))


def change(
    room: Room | None, action: Action, stamp: Stamp, most_members: int, full: Collection[str] = ()
) -> Decided | None:
    """The room after an action other than `create`; None if it changes nothing.

    `room` is None for one that does not exist. `full`: users who can be in no more rooms, or block the
    actor. Raises Refused.
    """
    member = room.member(action.user) if room is not None else None
    if room is None or (member is None and not _may_join(room, action)):
        raise Refused(NOT_FOUND, "no such room")
    _check_right(room, member, action)
    if room.closed and action.action != "leave":
        raise Refused(CONFLICT, "the room is closed")
    if action.version is not None and action.version != room.version:
        raise Refused(CONFLICT, f"the room has version {room.version}")
    step = _STEPS[action.action](room, action, full)
    if step is None:
        return None
    if len(step.room.members) > max(most_members, len(room.members)):
        raise Refused(TOO_LARGE, f"users: a room has at most {most_members} members")
    _check_pace(room, stamp.time)
    return _decided(action, stamp, step)


def newcomers(room: Room | None, action: Action) -> list[str]:
    """Users whom the action would let in, who therefore must not be in too many rooms."""
    if action.action == "join":
        return [action.user]
    if action.action == "create":
        return [action.user, *(user for user, _ in action.users)]
    if action.action != "add":
        return []
    present = {member.user for member in room.members} if room is not None else ()
    return [user for user, _ in action.users if user not in present]


# rights


def _may_join(room: Room, action: Action) -> bool:
    # A room that everybody has left would have a member again, and no owner for ever.
    is_open = room.joining == "open" and bool(room.members)
    return action.action == "join" and is_open and action.user not in room.removed


def _check_right(room: Room, member: Member | None, action: Action) -> None:
    """Raise Refused (`not_found`, `forbidden`) unless the present member, or who joins, may do this."""
    name = action.action
    if member is None or name in ("join", "leave"):
        return
    rank = RANK[member.role]
    roles = {one.user: one.role for one in room.members}
    if name == "role" and any(user not in roles for user, _ in action.users):
        raise Refused(NOT_FOUND, "users: no such member")
    needed = OWNER if name in ("role", "close") else ADMIN
    if rank < RANK[needed]:
        raise Refused(FORBIDDEN, f"{name}: for {'the owner' if needed == OWNER else 'owner and admins'} only")
    if name == "add" and any(RANK[role or MEMBER] > rank for _, role in action.users):
        raise Refused(FORBIDDEN, "role: none above one's own")
    above = [user for user, _ in action.users if RANK[roles.get(user, MEMBER)] > 0]
    if name == "remove" and rank < RANK[OWNER] and above:
        raise Refused(FORBIDDEN, "remove: an admin removes members only")
    if name == "set" and action.history == "joined" and room.history == "all":
        raise Refused(INVALID_MESSAGE, "history: it does not go back from all to joined")


def _check_pace(room: Room, now_ms: int) -> None:
    if len(room.past) < CHANGES_PER_SECOND:
        return
    fifth = room.past[-CHANGES_PER_SECOND].time
    if 0 <= now_ms - fifth < 1000:
        why = f"{CHANGES_PER_SECOND} changes of a room in a second"
        raise Refused(RATE_LIMITED, why, retry_after_ms=fifth + 1000 - now_ms)


# the actions. Each gives None if it changes nothing.


def _add(room: Room, action: Action, full: Collection[str]) -> _Step | None:
    present = {member.user for member in room.members}
    new = [(user, role or MEMBER) for user, role in action.users if user not in present and user not in full]
    if not new:
        return None
    names = {user for user, _ in new}
    version = room.version + 1
    changed = replace(
        room,
        members=(*room.members, *(Member(user, role, version) for user, role in new)),
        removed=tuple(user for user in room.removed if user not in names),
    )
    return _Step(changed, tuple(Concerned(*one) for one in new), came=tuple(user for user, _ in new))


def _remove(room: Room, action: Action, full: Collection[str]) -> _Step | None:
    named = {user for user, _ in action.users}
    gone = [member for member in room.members if member.user in named]
    if not gone:
        return None
    users = tuple(member.user for member in gone)
    kept = tuple(user for user in room.removed if user not in named)
    changed = replace(_without(room, named), removed=(*kept, *users)[-MAX_REMOVED:])
    if changed.members and not _has_owner(changed):
        raise Refused(CONFLICT, "a room has an owner")
    return _Step(changed, _told(gone), gone=users)


def _leave(room: Room, action: Action, full: Collection[str]) -> _Step | None:
    gone = [member for member in room.members if member.user == action.user]
    changed = _without(room, {action.user})
    if changed.members and gone[0].role == OWNER and not _has_owner(changed):
        raise Refused(CONFLICT, "the last owner stays while others are members")
    return _Step(changed, _told(gone), gone=(action.user,))


def _join(room: Room, action: Action, full: Collection[str]) -> _Step | None:
    if room.member(action.user) is not None:
        return None
    if action.user in full:
        raise Refused(TOO_LARGE, "this user is in as many rooms as there may be")
    changed = replace(room, members=(*room.members, Member(action.user, MEMBER, room.version + 1)))
    return _Step(changed, (Concerned(action.user, MEMBER),), came=(action.user,))


def _role(room: Room, action: Action, full: Collection[str]) -> _Step | None:
    wanted = dict(action.users)
    members, users = [], []
    for member in room.members:
        role = wanted.get(member.user)
        if role is not None and role != member.role:
            member = replace(member, role=role)
            users.append(Concerned(member.user, role))
        members.append(member)
    if not users:
        return None
    changed = replace(room, members=tuple(members))
    if not _has_owner(changed):
        raise Refused(CONFLICT, "a room has an owner")
    return _Step(changed, tuple(users))


def _set(room: Room, action: Action, full: Collection[str]) -> _Step | None:
    fields = {}
    for field in ("name", "posting", "history", "joining", "data"):
        value = getattr(action, field)
        if value is not None and value != getattr(room, field):
            fields[field] = value
    return _Step(replace(room, **fields), fields=tuple(fields)) if fields else None


def _close(room: Room, action: Action, full: Collection[str]) -> _Step | None:
    return _Step(replace(room, closed=True))


_STEPS: dict[str, Callable[[Room, Action, Collection[str]], _Step | None]] = {
    "add": _add,
    "remove": _remove,
    "leave": _leave,
    "join": _join,
    "role": _role,
    "set": _set,
    "close": _close,
}


def _without(room: Room, users: Collection[str]) -> Room:
    return replace(room, members=tuple(member for member in room.members if member.user not in users))


def _told(members: Iterable[Member]) -> tuple[Concerned, ...]:
    return tuple(Concerned(member.user, member.role) for member in members)


def _has_owner(room: Room) -> bool:
    return any(member.role == OWNER for member in room.members)


# the event


def _past(action: Action, stamp: Stamp, version: int) -> Past:
    return Past(
        action.user, action.device, action.client_msg_id, action.checksum, stamp.id, stamp.time, version
    )


def _decided(action: Action, stamp: Stamp, step: _Step) -> Decided:
    version = step.room.version + 1
    past = (*step.room.past, _past(action, stamp, version))[-MAX_PAST:]
    room = replace(step.room, version=version, past=past)
    event = RoomEvent(
        id=stamp.id,
        client_msg_id=action.client_msg_id,
        room=room.id,
        version=version,
        action=action.action,
        user_id=action.user,
        from_user_type=action.user_type,
        users=list(step.users) or None,
        count=len(room.members),
        send_time=stamp.time,
        **_shown(room, step.fields),
    )
    came = [user for user in step.came if user != action.user]
    others = [user for user in _recipients(action, room, step) if user != action.user and user not in came]
    bodies = [EventBody(_encode(event).decode(), tuple(others))]
    if step.came:
        whole = replace(event, **_shown(room, ("name", "posting", "history", "joining", "data")))
        bodies.append(EventBody(_encode(whole).decode(), tuple(came)))
        if action.user not in step.came:
            # The actor's own devices get the common form, which is told by the last place.
            bodies.append(EventBody(bodies[0].body, ()))
    entry = RoomEntry(
        version,
        stamp.time,
        action.user,
        action.device,
        action.client_msg_id,
        action.checksum,
        stamp.id,
        tuple(bodies),
    )
    return Decided(room, entry)


def _recipients(action: Action, room: Room, step: _Step) -> Iterable[str]:
    """Users who get the event: members, and those who just left. In large rooms not all members."""
    if len(room.members) <= LARGE_ROOM or action.action in ("create", "set", "close"):
        return (*(member.user for member in room.members), *step.gone)
    concerned = {user.user_id for user in step.users}
    told = (m.user for m in room.members if RANK[m.role] > 0 or m.user in concerned)
    return (*told, *step.gone)


def _shown(room: Room, fields: Iterable[str]) -> dict[str, Any]:
    """These fields of the room as an event has them."""
    shown: dict[str, Any] = {}
    for field in fields:
        value = getattr(room, field)
        if field != "data":
            shown[field] = value
        elif value:
            shown[field] = msgspec.Raw(value.encode())
    return shown
