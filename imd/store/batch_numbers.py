"""The numbers of batches: the mark that each batch carries, and sets of numbers as bits. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from imd.contracts.level import FIRST

BLOCK = 1024
"""numbers in a block"""
WINDOW = 128
"""earlier numbers that a mark tells of; more than can be unconfirmed at a time"""
MAX_UNTOLD_BLOCKS = 8192

_WINDOW_BITS = (1 << WINDOW) - 1
_MAX_NAME = 100
_unusable = re.compile(r"[^A-Za-z0-9_.@-]")
_read = re.compile(r"imd:([A-Za-z0-9_.@-]{1,100}):([0-9]{1,15}):([0-9a-f]{1,32})").fullmatch

Bits = dict[tuple[str, int], int]
"""(publisher, block) → which of the block's numbers: bit i is number `block * BLOCK + i`"""


class Mark(NamedTuple):
    """A batch's publisher and number."""

    publisher: str
    number: int
    before: int
    """bit i: its publisher knew that number `number - 1 - i` was confirmed"""


def read_mark(message_id: object) -> Mark | None:
    """The mark in an AMQP message's `message_id`; None for any other id."""
    found = _read(message_id) if isinstance(message_id, str) else None
    return None if found is None else Mark(found[1], int(found[2]), int(found[3], 16))


def add_number(bits: Bits, publisher: str, number: int) -> None:
    block, bit = divmod(number, BLOCK)
    bits[publisher, block] = bits.get((publisher, block), 0) | 1 << bit


def add_before(bits: Bits, mark: Mark) -> None:
    """Add the numbers that `mark.before` tells of."""
    left, number = mark.before, mark.number - 1
    while left and number > 0:
        if left & 1:
            add_number(bits, mark.publisher, number)
        left, number = left >> 1, number - 1


def numbers_of(block: int, bits: int) -> Iterator[int]:
    number = block * BLOCK
    while bits:
        if bits & 1:
            yield number
        bits, number = bits >> 1, number + 1


def ranges(numbers: list[int], at_most: int = 8) -> str:
    """Sorted numbers as a short text: `3, 5-9`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    said = [str(first) if first == last else f"{first}-{last}" for first, last in spans[:at_most]]
    return ", ".join(said) + (" and others" if len(spans) > at_most else "")


def publisher_name(address: str) -> str:
    """The name under which a node with this address publishes."""
    return _unusable.sub("_", address)[-_MAX_NAME:]


class Numbers:
    """One publisher's numbers: each batch gets the next one; confirmed numbers are collected for the ledger.

    The number of a batch that was refused, returned or not confirmed in time is not collected: its messages
    were not accepted. At the first level none is collected: nodes of 0.1 write batches, and note nothing.
    """

    def __init__(self, publisher: str) -> None:
        """`publisher` differs after each start."""
        self.publisher = publisher_name(publisher)
        self._last = 0
        self._before = 0
        self._collects = True
        self._untold: dict[int, int] = {}

    def set_level(self, level: int) -> None:
        """The cluster's level, before the first batch and when it changes."""
        self._collects = level > FIRST

    @property
    def collects(self) -> bool:
        """Confirmed numbers are collected: there are no nodes of 0.1."""
        return self._collects

    def next(self) -> tuple[int, str]:
        """A number, and the `message_id` that carries it."""
        self._last += 1
        message_id = f"imd:{self.publisher}:{self._last}:{self._before:x}"
        self._before = self._before << 1 & _WINDOW_BITS
        return self._last, message_id

    def confirmed(self, number: int) -> None:
        if not self._collects:
            return
        age = self._last - number
        if age < WINDOW:
            self._before |= 1 << age
        block, bit = divmod(number, BLOCK)
        self._add(block, 1 << bit)

    def take_untold(self) -> Bits:
        """Numbers that were confirmed since the last call. Give them back if they cannot be noted."""
        untold, self._untold = self._untold, {}
        return {(self.publisher, block): bits for block, bits in untold.items()}

    def give_back(self, untold: Bits) -> None:
        for (_, block), bits in untold.items():
            self._add(block, bits)

    def _add(self, block: int, bits: int) -> None:
        self._untold[block] = self._untold.get(block, 0) | bits
        if len(self._untold) > MAX_UNTOLD_BLOCKS:
            # Without a note in the ledger, a lost batch of the oldest block goes unnoticed.
            del self._untold[min(self._untold)]
