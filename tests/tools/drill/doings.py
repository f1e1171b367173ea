"""The next thing that a device does: a message to somebody, a list or a room, or a change of one of these."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.tools.drill.history import Answer, Message

if TYPE_CHECKING:
    from tests.tools.drill.client import Device


class Shares(NamedTuple):
    """How much of what a user's device does is that. The rest are messages to a user or a list."""

    to_a_room: float = 0.2
    of_a_room: float = 0.07
    of_a_message: float = 0.13


USUAL = Shares()
TO_A_LIST = 0.2
"""of the rest"""
TO_A_STRANGE_ROOM = 0.1
# A slow frame holds up the frames behind it, so few are under way.
MAX_EVENTS = 3
AT_ONCE = 0.5
"""of edits and rulings are done on the user's other device as well, at once"""
ORPHAN = "orphan"
"""the name of a room that devices leave alone"""
REACTIONS = ("👍", "🎉", "👀")
LATELY = 12


@dataclass
class RoomGuess:
    """A room as far as answers tell; the answers to changes may come in any order."""

    room: str
    owner: str
    members: dict[str, str] = field(default_factory=dict)
    joining: str = "invite"
    posting: str = "all"
    lately: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=LATELY))
    """authors and ids of messages"""


class Knowledge:
    """Rooms, and messages that may be changed, by which devices choose. It may be out of date."""

    def __init__(self) -> None:
        self.rooms: dict[str, RoomGuess] = {}
        self.own: dict[str, deque[str]] = {}
        """by author: ids of messages that were accepted lately"""

    def accepted(self, message: Message, answer: Answer) -> None:
        if message.kind == "room":
            self._changed(message, answer)
        elif message.kind == "recall":
            for ids in self.own.values():
                if message.of in ids:
                    ids.remove(message.of)
        elif message.kind in ("", "message"):
            self.own.setdefault(message.sender, deque(maxlen=LATELY)).append(answer.message_id)
            if message.room in self.rooms:
                self.rooms[message.room].lately.append((message.sender, answer.message_id))

    def _changed(self, message: Message, answer: Answer) -> None:
        frame = message.frame
        action = frame["action"]
        users = {user["userId"]: user.get("role", "member") for user in frame.get("users", ())}
        if frame.get("name") == ORPHAN:
            return
        if action == "create":
            members = {message.sender: "owner", **users}
            guess = RoomGuess(answer.room, message.sender, members, frame.get("joining", "invite"))
            self.rooms[answer.room] = guess
            return
        guess = self.rooms.get(message.room)
        if guess is None:
            return
        if action in ("add", "role"):
            guess.members |= users
        elif action == "join":
            guess.members[message.sender] = "member"
        elif action in ("remove", "leave"):
            for user in users or [message.sender]:
                guess.members.pop(user, None)
        elif action == "close":
            del self.rooms[message.room]
        elif action == "set":
            guess.posting = frame.get("posting", guess.posting)


def do_something(device: Device) -> None:
    """Choose by the device's own chance."""
    rng, world, shares = device.rng, device.world, device.world.shares
    if device.role == "visitor":
        if _may_change(device) and rng.random() < shares.of_a_message:
            change_a_message(device)
        else:
            device.say(None)
    elif device.role == "agent":
        _serve(device)
    elif device.role == "prober":
        device.say([rng.choice([one.user for one in world.probers if one is not device])])
    else:
        draw = rng.random() if _may_change(device) else 1.0
        if draw < shares.to_a_room:
            _write_to_a_room(device)
        elif draw < shares.to_a_room + shares.of_a_room:
            change_a_room(device)
        elif draw < sum(shares):
            change_a_message(device)
        else:
            _write(device)


def extras_for(device: Device, may_answer: bool) -> dict[str, Any]:
    """The fields beside the text: some messages have data, mentions, or a message that they answer."""
    extras: dict[str, Any] = {}
    if device.world.has_events:
        if device.number % 3 == 0:
            extras["data"] = {"é": [device.number, 2.5, None]}
        if device.number % 4 == 0:
            extras["mentions"] = device.world.users[:2]
        if device.number % 5 == 0 and may_answer and device.heard:
            extras["replyTo"] = device.heard[-1]
    return extras


def _may_change(device: Device) -> bool:
    return device.world.has_events and device.unanswered_events < MAX_EVENTS


def _serve(device: Device) -> None:
    visitors = [user for user in device.world.visitors if user]
    if _may_change(device) and device.rng.random() < device.world.shares.of_a_message:
        change_a_message(device)
    elif visitors:
        device.say([device.rng.choice(visitors)])


def _write(device: Device) -> None:
    rng = device.rng
    others = [user for user in device.world.users if user != device.user]
    if rng.random() < TO_A_LIST:
        device.say(rng.sample(others, min(len(others), rng.randint(2, 5))), group=True)
    else:
        device.say([rng.choice(others)])


def _write_to_a_room(device: Device) -> None:
    rng, rooms = device.rng, device.world.known.rooms
    chosen = [guess.room for guess in rooms.values() if device.user in guess.members]
    if not chosen or rng.random() < TO_A_STRANGE_ROOM:
        chosen = list(rooms)
    if chosen:
        device.do("message", room=rng.choice(chosen))


def create_a_room(device: Device, number: int) -> None:
    """Each second one is open, and shows all of its history to those who come."""
    others = [user for user in device.world.users if user != device.user]
    users = device.rng.sample(others, max(1, len(others) * 2 // 3))
    more = {"joining": "open", "history": "all"} if number % 2 else {}
    device.do("room", action="create", name=f"room {number}", users=_named(users), **more)


def change_a_room(device: Device) -> None:
    """Its owner does this or that; others leave, and join again where they may."""
    rng, user = device.rng, device.user
    rooms = list(device.world.known.rooms.values())
    owned = [guess for guess in rooms if guess.owner == user]
    if owned:
        guess = rng.choice(owned)
        _rule(device, guess)
        if (sibling := _sibling(device)) is not None:
            _rule(sibling, guess)
        return
    for guess in rng.sample(rooms, len(rooms)):
        if guess.joining == "open":
            device.do("room", action="leave" if user in guess.members else "join", room=guess.room)
            return


def _rule(device: Device, guess: RoomGuess) -> None:
    rng = device.rng
    members = [user for user in guess.members if user != guess.owner]
    others = [user for user in device.world.users if user not in guess.members]
    draw = rng.random()
    fields: dict[str, Any]
    if draw < 0.4 and others:
        fields = {"action": "add", "users": _named(rng.sample(others, 1))}
    elif draw < 0.7 and len(members) > 2:
        fields = {"action": "remove", "users": _named(rng.sample(members, 1))}
    elif draw < 0.85 and members:
        member = rng.choice(members)
        role = "member" if guess.members[member] == "admin" else "admin"
        fields = {"action": "role", "users": [{"userId": member, "role": role}]}
    elif draw < 0.89:
        fields = {"action": "close"}
    elif draw < 0.95:
        fields = {"action": "set", "name": f"name {rng.randrange(1000)}"}
    else:
        fields = {"action": "set", "posting": "all" if guess.posting == "admins" else "admins"}
    device.do("room", room=guess.room, **fields)


def change_a_message(device: Device) -> None:
    """Edit or recall one of one's own, or react to another's."""
    rng = device.rng
    own = device.world.known.own.get(device.user)
    draw = rng.random()
    if draw < 0.55 and own:
        of = rng.choice(own)
        device.do("edit", id=of)
        if (sibling := _sibling(device)) is not None:
            sibling.do("edit", id=of)
    elif draw < 0.7 and own:
        device.do("recall", id=rng.choice(own))
    elif device.heard:
        on = {} if rng.random() < 0.6 else {"on": False}
        device.do("react", id=rng.choice(device.heard), reaction=rng.choice(REACTIONS), **on)


def _sibling(device: Device) -> Device | None:
    """At times the user's other device, if it has time."""
    if device.rng.random() > AT_ONCE:
        return None
    for one in device.world.devices:
        if one.user == device.user and one is not device and one.live and _may_change(one):
            return one
    return None


def react_to_a_change(message: Message, devices: list[Device], known: Knowledge) -> None:
    """A removed user writes to the room all the same, and so does its owner to a closed one, which another
    follows; what newcomers have not seen is edited."""
    action = message.frame.get("action")
    named = {user["userId"] for user in message.frame.get("users", ())}
    if action == "close":
        for device in devices:
            if device.user == message.sender and device.name == message.device:
                device.do("message", room=message.room)
                create_a_room(device, device.rng.randrange(1000))
    elif action == "remove":
        for device in devices:
            if device.user in named:
                device.do("message", room=message.room)
    elif action == "add" and message.room in known.rooms:
        lately = {author: message_id for author, message_id in known.rooms[message.room].lately}
        for device in devices:
            if device.user in lately and device.unanswered_events < MAX_EVENTS:
                device.do("edit", id=lately[device.user])
                break


def _named(users: list[str]) -> list[dict[str, str]]:
    return [{"userId": user} for user in users]
