"""Copies of rooms in Redis, by which messages are placed; and rooms' events on their way into inboxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
from twisted.internet.defer import Deferred

from imd.contracts.inbox import Delivery, TooManyNew
from imd.contracts.rooms import ADMIN, MEMBER, OWNER, Membership, Room, RoomEntry
from imd.store.redis.accept import encode_id, sent_name
from imd.store.redis.script_calls import BatchedScript, ScriptCalls
from imd.store.shared_metrics import OVERFLOWN

_ROLE_OF = {"o": OWNER, "a": ADMIN, "m": MEMBER}
_LETTER_OF = {role: letter for letter, role in _ROLE_OF.items()}

_unpack = msgspec.msgpack.Decoder(tuple[int, int, list[int], int, int, list[Any]]).decode


class Seen(NamedTuple):
    """The run of Redis that a reader of a document knew before it read, and the time, in ms."""

    run: int
    at: int


class Brought(NamedTuple):
    """`stale`: the document was read in another run of Redis, or too long ago; nothing more was done."""

    stale: bool
    deliveries: Sequence[Delivery]


class RoomCopies:
    """Writes copies of rooms, and reads them."""

    def __init__(self, calls: ScriptCalls) -> None:
        self._calls = calls
        self._member = BatchedScript(calls, "member", _read_membership)
        self._admit = BatchedScript(calls, "admit", _read_admitted)

    @property
    def run(self) -> int:
        """The run of Redis, as far as the node knows."""
        return self._calls.redis.run

    def seen(self) -> Seen:
        return Seen(self._calls.redis.run, self._calls.now_ms())

    def admit(self, user: str, newcomers: Sequence[str]) -> Deferred[TooManyNew | None]:
        """Count the inboxes that no device has ever opened and that the user would begin; or the refusal."""
        return self._admit(encode_id(user), [encode_id(one) for one in newcomers])

    async def bring(self, room: Room, entries: Sequence[RoomEntry], seen: Seen) -> Brought:
        """Place the events that no inbox has yet, and write the copy unless a newer one is there.

        `room` and `entries` are of one document, which was read after `seen`. Fails with Unavailable.
        """
        item = _item(room, entries, seen)
        deliveries: list[Delivery] = []
        while True:
            parts = await self._calls.call("room", item, _unpack)
            _, state, overflown, told = parts
            OVERFLOWN.inc(overflown)
            deliveries += [
                Delivery(unquote(user), epoch, seq, channels.split(), entries[n].bodies[k].body.encode())
                for user, epoch, seq, channels, n, k in told
            ]
            if state != 1:
                return Brought(state == 2, deliveries)

    def membership(self, room: str, user: str) -> Deferred[Membership | int | None]:
        """The user's part in the room; for a user who is not in it, how many are; None without a copy."""
        return self._member(room, encode_id(user))


def _item(room: Room, entries: Sequence[RoomEntry], seen: Seen) -> list[Any]:
    rules = ("a" if room.posting == "admins" else "-") + ("a" if room.history == "all" else "j")
    return [
        room.id,
        seen.run,
        seen.at,
        room.version,
        [encode_id(m.user) for m in room.members],
        [m.joined for m in room.members],
        "".join(_LETTER_OF[m.role] for m in room.members),
        rules + str(int(room.closed)),
        [_entry(entry) for entry in entries],
    ]


def _entry(entry: RoomEntry) -> list[Any]:
    packed: list[Any] = [
        entry.version,
        sent_name(entry.actor, entry.device, entry.client_msg_id),
        f"{entry.id} {entry.at} {entry.checksum}",
        sent_name(entry.actor, entry.device, ""),
    ]
    for body in entry.bodies:
        packed += (body.body, [encode_id(user) for user in body.users])
    return packed


def _read_admitted(reply: list[Any]) -> TooManyNew | None:
    if not reply:
        return None
    return TooManyNew(reply[1] if reply[0] == 8 else None)


def _read_membership(reply: list[Any]) -> Membership | int | None:
    if len(reply) <= 2:
        return int(reply[1]) if len(reply) == 2 else None
    role, joined, history, closed, members = reply
    return Membership(_ROLE_OF[role], joined, "all" if history == "a" else "joined", closed, members)
