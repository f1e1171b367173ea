"""Rooms, for programs: actions go through the outbox, questions are answered by promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from imd.client.events import MemberPage, RoomPage
from imd.client.numbered import Member
from imd.client.outgoing import Outgoing

Users = str | Member | Iterable[str | Member]


class Rooms:
    """An action returns its entry of the outbox; `client.accepted(entry)` waits for the answer.

    `version`: the action is refused (`conflict`) if the room has another one by then. Actions raise
    OutboxFull, ValueError, and Refused (`unsupported`) in a cluster that has no rooms.
    """

    def __init__(self, post: Callable[[Outgoing], Outgoing], ask: Callable[..., Awaitable[Any]]) -> None:
        self._post = post
        self._ask = ask

    def create(
        self,
        name: str,
        users: Users = (),
        *,
        posting: str | None = None,
        history: str | None = None,
        joining: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Outgoing:
        """Make a room. Once it is accepted, the entry's `room` is its id."""
        if not name:
            raise ValueError("a name is expected")
        rules = {"posting": posting, "history": history, "joining": joining, "data": data}
        return self._act("create", "", None, name=name, users=_users(users) or None, **rules)

    def add(self, room: str, users: Users, *, version: int | None = None) -> Outgoing:
        return self._act("add", room, version, users=_users(users))

    def remove(self, room: str, users: Users, *, version: int | None = None) -> Outgoing:
        return self._act("remove", room, version, users=_users(users))

    def role(self, room: str, users: Users, *, version: int | None = None) -> Outgoing:
        """Give roles: `users` are Members."""
        return self._act("role", room, version, users=[_user(each, roles=True) for each in _each(users)])

    def set(
        self,
        room: str,
        *,
        name: str | None = None,
        posting: str | None = None,
        history: str | None = None,
        joining: str | None = None,
        data: Mapping[str, Any] | None = None,
        version: int | None = None,
    ) -> Outgoing:
        """Change what is given."""
        rules = {"posting": posting, "history": history, "joining": joining, "data": data}
        return self._act("set", room, version, name=name, **rules)

    def join(self, room: str, *, version: int | None = None) -> Outgoing:
        return self._act("join", room, version)

    def leave(self, room: str, *, version: int | None = None) -> Outgoing:
        return self._act("leave", room, version)

    def close(self, room: str, *, version: int | None = None) -> Outgoing:
        return self._act("close", room, version)

    def list(self, *, after: str | None = None, limit: int = 50) -> Awaitable[RoomPage]:
        """One's own rooms, by id, after a room's id. Raises Refused, Unanswered or Ended."""
        return self._ask("rooms", after=after, limit=limit)

    def members(self, room: str, *, after: str | None = None, limit: int = 200) -> Awaitable[MemberPage]:
        """A room's members, by user id, after a user's. Raises Refused, Unanswered or Ended."""
        return self._ask("members", room=room, after=after, limit=limit)

    def _act(self, action: str, room: str, version: int | None, **fields: Any) -> Outgoing:
        if not room and action != "create":
            raise ValueError("a room's id is expected")
        fields = {name: value for name, value in fields.items() if value is not None}
        if version is not None:
            fields["version"] = version
        return self._post(Outgoing("", kind="room", action=action, room=room, fields=fields))


def _each(users: Users) -> Iterable[str | Member]:
    return [users] if isinstance(users, str | Member) else users


def _user(user: str | Member, roles: bool = False) -> dict[str, str]:
    if isinstance(user, str):
        if roles:
            raise ValueError("Members with a role are expected")
        return {"userId": user}
    return {"userId": user.user_id, "role": user.role}


def _users(users: Users) -> list[dict[str, str]]:
    return [_user(each) for each in _each(users)]
