"""Items and outcomes of the scripts accept.lua and desk.lua, and ids as they stand in keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from imd.contracts.inbox import (
    Closed,
    Conflict,
    Delivery,
    Duplicate,
    Failed,
    Late,
    NoRoom,
    NotAllowed,
    NotMember,
    Outcome,
    Placed,
    PlacedPartly,
    RoomAim,
    Submission,
    TooManyNew,
)
from imd.protocol.message import is_visitor_id
from imd.store.redis.reasons import plain_reason
from imd.store.shared_metrics import OPENED, OVERFLOWN, VISITORS_WAITING

_is_plain = re.compile("[A-Za-z0-9._@-]*").fullmatch
_SAFE = "@"  # beside letters, digits and "._-", which quote always leaves alone


@lru_cache(maxsize=100_000)
def encode_id(text: str) -> str:
    """An id as it stands in a key: percent-encoded but for [A-Za-z0-9._@-], so none can end a hash tag."""
    return _encode(text)


def _encode(text: str) -> str:
    return text if _is_plain(text) else quote(text, safe=_SAFE).replace("~", "%7E")


@lru_cache(maxsize=100_000)
def _sent_prefix(user: str, device: str) -> str:
    return f"{_encode(user)}:{_encode(device)}:"


def sent_name(user: str, device: str, client_msg_id: str) -> str:
    """The name that a clientMsgId is remembered under. User and device hold no colon; a clientMsgId may."""
    return _sent_prefix(user, device) + client_msg_id


def accept_items(batch: Sequence[Submission]) -> list[Any]:
    lists: dict[tuple[str, ...], int] = {}
    senders = [_sent_prefix(s.sender, s.device) for s in batch]
    places = {sender: place for place, sender in enumerate(dict.fromkeys(senders), 1)}
    return [
        [
            "" if s.client_msg_id is None else sender + s.client_msg_id
            for s, sender in zip(batch, senders, strict=True)
        ],
        [f"{s.message_id} {s.send_time} {s.checksum}" for s in batch],
        [
            (len(s.recipients) == 1 and not s.of_list and _one_recipient(s.recipients[0]))
            or _recipients(s, place, lists)
            for place, s in enumerate(batch, 1)
        ],
        [s.body.decode() for s in batch],
        list(places),
        [places[sender] if s.mirror else 0 for s, sender in zip(batch, senders, strict=True)],
    ]


@lru_cache(maxsize=100_000)
def _one_recipient(user: str) -> str:
    """As `encode_id`; empty for a visitor."""
    return "" if is_visitor_id(user) else _encode(user)


def _recipients(s: Submission, place: int, lists: dict[tuple[str, ...], int]) -> list[Any] | str | int:
    """Recipients of a message that has not one; for a list that came before in the batch, its place."""
    if s.room is not None:
        return _room(s.room, s.sender)
    if s.for_desk:
        return ["", encode_id(s.sender), encode_id(s.visitor_to) if s.visitor_to else ""]
    if len(s.recipients) == 1 and not s.of_list:
        visitor = encode_id(s.recipients[0])
        # An event about a message is no answer to a visitor.
        return visitor if s.kind else ["<", visitor, encode_id(s.sender)]
    first = lists.setdefault(tuple(s.recipients), place)
    return [encode_id(user) for user in s.recipients] if first == place else first


def _room(aim: RoomAim, sender: str) -> list[Any]:
    """As lua/roomitems.lua has it."""
    rules = "p" * aim.posts + "c" * aim.when_closed + "a" * aim.by_admins + "n" * aim.to_nobody
    of_version = -1 if aim.of_version is None else aim.of_version
    return ["#", aim.room, encode_id(sender), of_version, rules, len(aim.head)]


def _read_delivery(reply: Any) -> Delivery:
    user, epoch, seq, channels, body = reply
    return Delivery(unquote(user), epoch, seq, channels.split(), body.encode())


def read_names(encoded: str) -> Sequence[str]:
    """Ids from a text that has them encoded, with commas between them."""
    return tuple(map(unquote, encoded.split(","))) if encoded else ()


# By the first element of an outcome; 0, 6, 7 and 16 are those of messages to lists.
_OUTCOMES: dict[int, Callable[[list[Any]], Outcome]] = {
    1: lambda reply: Duplicate(reply[1], reply[2], unquote(reply[3]), reply[4], read_names(reply[5])),
    2: lambda reply: Conflict(),
    3: lambda reply: NotAllowed(reply[1]),
    4: lambda reply: Failed(f"redis: {plain_reason(reply[1])}"),
    5: lambda reply: Placed([_read_delivery(d) for d in reply[2]], unquote(reply[1])),
    8: lambda reply: TooManyNew(reply[1]),
    9: lambda reply: TooManyNew(None),
    11: lambda reply: NoRoom(),
    12: lambda reply: NotMember(),
    13: lambda reply: Closed(),
    15: lambda reply: Late(),
}


def read_served(parts: list[Any]) -> list[Delivery]:
    deliveries, waiting, overflown = parts
    VISITORS_WAITING.set(waiting)
    OVERFLOWN.inc(overflown)
    return [_read_delivery(delivery) for delivery in deliveries]


def read_outcomes(parts: list[Any], batch: Sequence[Submission]) -> list[Outcome]:
    inboxes, placed, others, overflown, opened = parts
    OVERFLOWN.inc(overflown)
    OPENED.inc(opened)
    # Epochs and channels alternate. The place of an epoch, counted from 1, is the index of its channels.
    channels_of = [channels.split() for channels in inboxes]
    outcomes: list[Outcome] = []
    lists: dict[int, tuple[list[int], list[int]]] = {}
    numbers = iter(placed)
    other = iter(others)
    for place, at, seq, s in zip(range(1, len(batch) + 1), numbers, numbers, batch, strict=True):
        if at:
            delivery = Delivery(s.recipients[0], inboxes[at - 1], seq, channels_of[at], s.body)
            outcomes.append(Placed([delivery], ""))
            continue
        reply = next(other)
        own = None
        if reply[0] == 10:
            _, own_at, own_seq, reply = reply
            own = Delivery(s.sender, inboxes[own_at - 1], own_seq, channels_of[own_at], s.body)
        kind = reply[0]
        if kind in _OUTCOMES:
            outcome = _OUTCOMES[kind](reply)
        elif kind == 14:
            outcome = _in_room(s, inboxes, channels_of, reply)
        elif kind == 16:
            outcome = _in_part(s, inboxes, channels_of, reply)
        else:
            if kind == 0:
                lists[place] = reply[1::2], reply[2::2]
            else:
                places, seqs = lists[reply[1]]
                lists[place] = places, reply[2:] if kind == 6 else [seq + reply[2] for seq in seqs]
            outcome = _in_list(s, inboxes, channels_of, *lists[place])
        if own is not None and isinstance(outcome, Placed):
            outcome.deliveries = [*outcome.deliveries, own]
        outcomes.append(outcome)
    return outcomes


def _in_list(
    s: Submission, inboxes: list[str], channels_of: list[list[str]], places: list[int], seqs: list[int]
) -> Placed:
    """A message to a list: the places of its inboxes, and its number in each."""
    body = s.body
    return Placed(
        [
            Delivery(user, inboxes[at - 1], seq, channels_of[at], body)
            for user, at, seq in zip(s.recipients, places, seqs, strict=True)
        ],
        "",
    )


def _in_part(
    s: Submission, inboxes: list[str], channels_of: list[list[str]], reply: list[Any]
) -> PlacedPartly:
    """A message to a list without the recipients at some places."""
    _, left, told = reply
    without = set(left)
    getting = [user for place, user in enumerate(s.recipients) if place not in without]
    deliveries = [
        Delivery(user, inboxes[at - 1], seq, channels_of[at], s.body)
        for user, at, seq in zip(getting, told[1::2], told[2::2], strict=True)
    ]
    return PlacedPartly(deliveries, "", without=tuple(s.recipients[place] for place in left))


def _in_room(s: Submission, inboxes: list[str], channels_of: list[list[str]], reply: list[Any]) -> Placed:
    """A message to a room. The members with channels follow its version and the number of its members."""
    assert s.room is not None
    _, version, members, *told = reply
    body = s.room.body(version)
    flat = iter(told)
    deliveries = [
        Delivery(unquote(user), inboxes[at - 1], seq, channels_of[at], body)
        for user, at, seq in zip(flat, flat, flat, strict=True)
    ]
    return Placed(deliveries, "", version, members)
