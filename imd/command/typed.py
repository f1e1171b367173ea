"""Lines that are typed in `imd chat`: text, or an order that begins with a slash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imd.client import Member, Message, Outgoing
from imd.client.twisted import Client
from imd.command.output import harmless

HELP = """/edit TEXT: replace one's last message; /recall: remove it; /reply TEXT: answer another's last one;
/react 👍, /unreact 👍: to it; /rooms; /room NAME USER…: make a room; in a room: /members, /add USER…,
/remove USER…, /role USER owner|admin|member, /name NAME, /leave, /close; //TEXT: a text with a slash"""


class Wrong(Exception):
    """An order that cannot be followed; the text says why."""


class Typed:
    """`room` is the room of this chat, or empty. `say` shows an answer."""

    def __init__(self, client: Client, room: str, say: Callable[[str], None]) -> None:
        self._client = client
        self._room = room
        self._say = say
        self._mine: str = ""
        """the id of one's own last message"""
        self._others: str = ""
        """the id of the last message of others"""
        self._orders: dict[str, Callable[[str], Any]] = {
            "edit": lambda text: client.edit(self._last(), _given(text, "a text")),
            "recall": lambda _: client.recall(self._last()),
            "react": lambda text: client.react(self._last_of_others(), _given(text, "a reaction")),
            "unreact": lambda text: client.react(self._last_of_others(), _given(text, "a reaction"), False),
            "room": self._create,
            "rooms": self._list,
            "members": self._members,
            "add": lambda text: client.rooms.add(self._here(), _words(text)),
            "remove": lambda text: client.rooms.remove(self._here(), _words(text)),
            "role": self._role,
            "name": lambda text: client.rooms.set(self._here(), name=_given(text, "a name")),
            "leave": lambda _: client.rooms.leave(self._here()),
            "close": lambda _: client.rooms.close(self._here()),
            "help": lambda _: say(HELP),
        }

    def noticed(self, message: Message | Outgoing) -> None:
        """A message of this conversation was shown, or one's own was accepted. One may come late."""
        if isinstance(message, Message) and message.user_id != self._client.user_id:
            self._others = max(self._others, message.id)
        else:
            self._mine = max(self._mine, message.id)

    def split(self, line: str) -> tuple[str, str | None]:
        """The text to send, and the id that it replies to; an empty text: the line is an order."""
        if line.startswith("//"):
            return line[1:], None
        if line.startswith("/reply "):
            return _given(line.removeprefix("/reply "), "a text"), self._last_of_others()
        return ("", None) if line.startswith("/") else (line, None)

    async def follow(self, line: str) -> None:
        """Follow an order. Raises Wrong, ValueError and ClientError."""
        name, _, rest = line[1:].partition(" ")
        order = self._orders.get(name)
        if order is None:
            raise Wrong(f"/{name}: unknown; /help names the orders")
        done = order(rest.strip())
        if hasattr(done, "__await__"):
            await done

    def made(self, outgoing: Outgoing) -> None:
        """Say that a room's action was accepted: the actor's own inbox does not."""
        if outgoing.kind != "room":
            return
        if outgoing.action == "create":
            self._say(f"the room is {outgoing.room}")
        elif not outgoing.changed:
            self._say(f"{outgoing.action}: there was nothing to change")
        else:
            self._say(f"{outgoing.action}: done, version {outgoing.version}")

    async def _list(self, _: str) -> None:
        page = await self._client.rooms.list(limit=200)
        for room in page.rooms:
            self._say(f"{room.room} {harmless(room.name)} ({room.count} members, {room.role})")
        self._say("and more" if page.more else f"{len(page.rooms)} rooms")

    async def _members(self, _: str) -> None:
        page = await self._client.rooms.members(self._here())
        self._say(harmless(", ".join(_called(user) for user in page.users) + (" …" if page.more else "")))

    def _create(self, text: str) -> None:
        name, *users = _words(text)
        self._client.rooms.create(name, users)

    def _role(self, text: str) -> None:
        user, role = (*_words(text), "", "")[:2]
        self._client.rooms.role(self._here(), Member(user, _given(role, "a role")))

    def _here(self) -> str:
        if not self._room:
            raise Wrong("this is no room")
        return self._room

    def _last(self) -> str:
        return self._mine or _fail("there is no message of one's own")

    def _last_of_others(self) -> str:
        return self._others or _fail("there is no message of others")


def _called(user: Member) -> str:
    return user.user_id if user.role == "member" else f"{user.user_id} ({user.role})"


def _given(text: str, what: str) -> str:
    return text or _fail(f"{what} is expected")


def _words(text: str) -> list[str]:
    return text.split() or _fail("names are expected")


def _fail(reason: str) -> Any:
    raise Wrong(reason)
