"""From a room frame to an action in good form: the rules that need no look at the room."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from imd.config.settings import Settings
from imd.contracts.rooms import RANK, Action
from imd.protocol.author import Author
from imd.protocol.data import read_data
from imd.protocol.errors import FORBIDDEN, INVALID_MESSAGE, NOT_FOUND, TOO_LARGE, Refused
from imd.protocol.events import ROOM, checksum_of
from imd.protocol.message import FromUserType, check_id, is_room_id, is_visitor_id
from imd.protocol.requests import NamedUser, RoomFrame

ACTIONS = ("create", "add", "remove", "role", "set", "join", "leave", "close")
MAX_NAME_CHARS = 128
_NAME_USERS = ("create", "add", "remove", "role")
_CHOICES = {"posting": ("all", "admins"), "history": ("joined", "all"), "joining": ("invite", "open")}


def read_action(frame: RoomFrame, author: Author, settings: Settings) -> Action:
    """The action that `frame` asks for, without fields that it does not take.

    Raises Refused: `invalid_message`, `bad_frame`, `too_large` for what can never be an action; `forbidden`
    for a visitor's; `not_found` for an id that no room can have.
    """
    name = frame.action
    if not frame.client_msg_id:
        raise Refused(INVALID_MESSAGE, "clientMsgId: a room frame needs one")
    if name not in ACTIONS:
        raise Refused(INVALID_MESSAGE, f"action: one of {', '.join(ACTIONS)} is expected")
    creates = name == "create"
    if creates == bool(frame.room):
        why = "a new room gets its id from the server" if creates else "the id of a room is expected"
        raise Refused(INVALID_MESSAGE, f"room: {why}")
    if frame.version is not None and frame.version < 1:
        raise Refused(INVALID_MESSAGE, "version: 1 or more is expected")
    fields = _fields(frame) if creates or name == "set" else {}
    users = _users(name, frame.users or (), settings.limits.group_members) if name in _NAME_USERS else ()
    if name == "remove" and any(user == author.user for user, _ in users):
        if len(users) > 1:
            raise Refused(INVALID_MESSAGE, "users: leaving is a frame of its own")
        name, users = "leave", ()
    if author.is_visitor:
        raise Refused(FORBIDDEN, "a visitor is in no room")
    if not creates and not is_room_id(frame.room or ""):
        raise Refused(NOT_FOUND, "no such room")
    version = None if creates else frame.version
    written = (ROOM, name, frame.room or "", version, sorted(users, key=str), sorted(fields.items()))
    return Action(
        room=new_room_id() if creates else frame.room or "",
        action=name,
        user=author.user,
        device=author.device,
        user_type=author.type_name,
        client_msg_id=frame.client_msg_id,
        checksum=checksum_of(repr(written)),
        may_create=author.type is not FromUserType.CUSTOMER_TYPE or settings.rooms.customers_create,
        users=users,
        version=version,
        **fields,
    )


def new_room_id() -> str:
    """A room's id, which nobody can guess."""
    return f"r-{secrets.token_hex(16)}"


def _fields(frame: RoomFrame) -> dict[str, str]:
    """Name, rules and data, as far as they are given."""
    fields: dict[str, str] = {}
    if frame.name:
        if len(frame.name) > MAX_NAME_CHARS:
            raise Refused(INVALID_MESSAGE, f"name: at most {MAX_NAME_CHARS} characters")
        fields["name"] = frame.name
    elif frame.action == "create":
        raise Refused(INVALID_MESSAGE, "name: a room needs one")
    for name, choices in _CHOICES.items():
        value = getattr(frame, name)
        if value:
            if value not in choices:
                raise Refused(INVALID_MESSAGE, f"{name}: {' or '.join(choices)} is expected")
            fields[name] = value
    if data := bytes(read_data(frame.data)):
        fields["data"] = data.decode()
    return fields


def _users(name: str, named: Sequence[NamedUser], most: int) -> tuple[tuple[str, str | None], ...]:
    """Each user once, by the first place that names it."""
    if not named and name != "create":
        raise Refused(INVALID_MESSAGE, "users: at least one is expected")
    if len(named) > most:
        raise Refused(TOO_LARGE, f"users: at most {most}")
    users: dict[str, str | None] = {}
    for one in named:
        check_id("users", one.user_id)
        role = one.role or None
        if name in ("create", "add") and is_visitor_id(one.user_id):
            raise Refused(INVALID_MESSAGE, "users: a visitor is in no room")
        if name == "role" and role is None:
            raise Refused(INVALID_MESSAGE, "users: each needs a role")
        if role is not None and role not in RANK:
            raise Refused(INVALID_MESSAGE, f"role: one of {', '.join(RANK)} is expected")
        users.setdefault(one.user_id, role if name != "remove" else None)
    return tuple(users.items())
