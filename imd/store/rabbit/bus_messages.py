"""The messages that nodes send each other: MessagePack arrays whose first element names the kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated

import msgspec

from imd.contracts.bus import Hint, Signal

MESSAGE_BYTES = 512 * 1024
_HINT_OVERHEAD_BYTES = 24
_CHANNEL_BYTES = 140

_Seq = Annotated[int, msgspec.Meta(ge=0)]
_Group = tuple[bytes | None, list[tuple[str, str, _Seq]]]
"""a message's body, and the channel, epoch and seq of each hint for it"""


class Hints(msgspec.Struct, array_like=True, tag="hints"):
    sender: str
    groups: list[_Group]


class Search(msgspec.Struct, array_like=True, tag="search"):
    sender: str
    groups: list[_Group]


class Found(msgspec.Struct, array_like=True, tag="found"):
    sender: str
    channels: list[str]


class Replaced(msgspec.Struct, array_like=True, tag="replaced"):
    sender: str
    channels: list[str]


class Back(msgspec.Struct, array_like=True, tag="back"):
    """The sender hears again: searches that it did not answer may be repeated."""

    sender: str


class Asking(msgspec.Struct, array_like=True, tag="asking"):
    """The sender gets no answers from Redis, and asks the others whether they do."""

    sender: str


class Well(msgspec.Struct, array_like=True, tag="well"):
    """The sender gets answers from Redis."""

    sender: str


class Signals(msgspec.Struct, array_like=True, tag="signals"):
    """Unnumbered frames, and news that is looked up again when it is lost."""

    sender: str
    signals: list[tuple[str, bytes, list[str]]]
    """the kind, the payload and the channels of each"""


class Looks(msgspec.Struct, array_like=True, tag="looks"):
    """Users who may have come or gone."""

    sender: str
    users: list[str]


BusMessage = Hints | Search | Found | Replaced | Back | Asking | Well | Signals | Looks

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(BusMessage).decode


class Malformed(Exception):
    """Bytes on the bus that no node sends."""


def decode(body: bytes) -> BusMessage:
    """A node's message. Raises Malformed for other bytes."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(str(error)) from None


def group_hints(hints: Sequence[Hint]) -> list[_Group]:
    """The hints in their order; neighbours with the same body share one group."""
    return [
        (body, [(hint.channel, hint.epoch, hint.seq) for hint in same])
        for body, same in groupby(hints, key=lambda hint: hint.body)
    ]


def ungroup_hints(groups: Sequence[_Group]) -> list[Hint]:
    """The hints of groups, in their order."""
    return [Hint(channel, epoch, seq, body) for body, same in groups for channel, epoch, seq in same]


def split_hints(hints: list[Hint]) -> Iterator[list[Hint]]:
    """Parts of about MESSAGE_BYTES at most, with one hint at least. Nearly always there is one part."""
    start = size = 0
    body: bytes | None = None
    for index, hint in enumerate(hints):
        added = len(hint.channel) + len(hint.epoch) + _HINT_OVERHEAD_BYTES
        if hint.body is not None and hint.body is not body:
            added += len(hint.body)
        if index > start and size + added > MESSAGE_BYTES:
            yield hints[start:index]
            start, size = index, 0
            added = len(hint.channel) + len(hint.epoch) + _HINT_OVERHEAD_BYTES + len(hint.body or b"")
        body = hint.body
        size += added
    if start < len(hints):
        yield hints[start:]


def split_channels(channels: list[str]) -> Iterator[list[str]]:
    step = MESSAGE_BYTES // _CHANNEL_BYTES
    for start in range(0, len(channels), step):
        yield channels[start : start + step]


def split_signals(signals: Sequence[Signal]) -> Iterator[list[Signal]]:
    """Parts of about MESSAGE_BYTES at most, with one signal at least."""
    part: list[Signal] = []
    size = 0
    for signal in signals:
        added = len(signal.payload) + _CHANNEL_BYTES * len(signal.channels)
        if part and size + added > MESSAGE_BYTES:
            yield part
            part, size = [], 0
        part.append(signal)
        size += added
    if part:
        yield part
