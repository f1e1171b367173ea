"""Message ids, channel ids, and the common clock of all servers, which message ids are made by."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable

_MAX_COUNT = 0xFFFFFF
# Seconds by which two machines' clocks may part in a second. A correct clock drifts by less than 0.0001.
DRIFT = 0.0002
# An id of another node that is further ahead of the clock is not gone on from: one node whose clock is wrong
# must not pull all others along, and how late a message may be placed is judged by its id.
MAX_LEAD_MS = 1000
# So much of a body has its id: that is the first member of a message, and the second of an event.
BEGINNING_BYTES = 72

_is_id = re.compile("[0-9a-f]{28}").fullmatch


class ServerClock:
    """The servers' common time in milliseconds, corrected by a backend's clock.

    The clock runs on the monotonic one: a step of this machine's wall clock does not move it. Each answer of
    the server tells two bounds: its time was not reached when it was asked, and is past when the answer is
    here. The clock goes by the middle between the closest bounds (Marzullo's intersection, as in NTP). The
    bounds part slowly, as clocks drift.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = self._first_offset = wall() - monotonic()
        self._bounds: tuple[float, float] | None = None
        self._bounded_at = 0.0
        self._before_set_back_ms = 0

    def now_ms(self) -> int:
        return int((self._monotonic() + self._offset) * 1000)

    def latest_ms(self) -> int:
        """The latest time that the servers' clock has shown. It is ahead of `now_ms` after that was set back,
        until it has caught up.
        """
        return max(self.now_ms(), self._before_set_back_ms)

    def set_by_ms(self) -> int:
        """How far this machine's clock was set since this object was made; below 0 if it was set back."""
        return int((self._wall() - self._monotonic() - self._first_offset) * 1000)

    def monotonic(self) -> float:
        """Seconds on the monotonic clock; `correct` takes them as `asked_at`."""
        return self._monotonic()

    def correct(self, server_ms: int, asked_at: float) -> None:
        """Use a server's answer, `server_ms`, to a question that was asked at `asked_at`.

        An answer that contradicts the earlier ones replaces them: the server's clock was set.
        """
        now = self._monotonic()
        low, high = server_ms / 1000 - now, (server_ms + 1) / 1000 - asked_at
        if self._bounds is not None:
            drift = (now - self._bounded_at) * DRIFT
            closest = max(low, self._bounds[0] - drift), min(high, self._bounds[1] + drift)
            if closest[0] <= closest[1]:
                low, high = closest
        offset = (low + high) / 2
        # Before the first answer it was this machine's time, which no other server went by.
        if offset < self._offset and self._bounds is not None:
            self._before_set_back_ms = self.latest_ms()
        self._bounds, self._bounded_at = (low, high), now
        self._offset = offset


class WallClock(ServerClock):
    """The time of this machine, for a node without other servers. It follows when the clock is set, and does
    not notice: its `latest_ms` is `now_ms`.
    """

    def now_ms(self) -> int:
        return int(self._wall() * 1000)

    def correct(self, server_ms: int, asked_at: float) -> None:
        """Ignored: no other clock is better."""


class MessageIds:
    """Message ids: 28 hexadecimal digits that rise with time.

    12 digits are milliseconds, 6 a counter, and 10 the node's random part. Ids of one node rise strictly, in
    the order of the calls. Ids of two nodes differ in the random part. While the clock is behind the last id,
    only the counter rises.
    """

    def __init__(self, clock: ServerClock) -> None:
        self._clock = clock
        self._node = secrets.token_hex(5)
        # Enough for nearly every millisecond.
        self._tails = [f"{count:06x}{self._node}" for count in range(256)]
        self._last_ms = 0
        self._prefix = ""
        self._count = 0

    def continue_after(self, newest: str) -> None:
        """Make all later ids higher than this one. Ignored if it has not the shape of an id."""
        if _is_id(newest) and newest > f"{self._prefix}{self._count:06x}{self._node}":
            self._last_ms = int(newest[:12], 16)
            self._count = int(newest[12:18], 16)
            self._prefix = newest[:12]

    def continue_after_given(self, given: str) -> None:
        """As `continue_after`, for an id that a device was given: its answer to that message has a higher id.
        Ignored if the id is more than MAX_LEAD_MS ahead of the clock.
        """
        if _is_id(given) and int(given[:12], 16) <= self._clock.now_ms() + MAX_LEAD_MS:
            self.continue_after(given)

    def latest_ms(self) -> int:
        """A time that no id is far beyond, on whichever node it was made. It is the clock's, or a later one
        after the clock was set back.

        This node knows its own ids, and the newest of those before it started. Other nodes go by the same
        clock, so theirs go on from the latest time that it has shown.
        """
        return max(self._clock.latest_ms(), self._last_ms)

    def next(self) -> tuple[str, int]:
        """A new id, and the time in milliseconds. The id has that time unless the clock was set back."""
        now = self._clock.now_ms()
        if now > self._last_ms:
            self._last_ms = now
            self._prefix = f"{now:012x}"
            self._count = 0
        else:
            self._count += 1
            if self._count > _MAX_COUNT:
                self._last_ms += 1
                self._prefix = f"{self._last_ms:012x}"
                self._count = 0
            if self._count >= len(self._tails):
                return f"{self._prefix}{self._count:06x}{self._node}", now
        return self._prefix + self._tails[self._count], now


def id_in(body: bytes) -> str:
    """The id of a message or an event, from the beginning of its JSON; empty if there is none."""
    _, found, rest = body[:BEGINNING_BYTES].partition(b'"id":"')
    return rest.partition(b'"')[0].decode(errors="replace") if found else ""


def is_message_id(text: str) -> bool:
    """True for the id of a message or an event, whether there is one or not."""
    return _is_id(text) is not None


def of_one_node(one: str, other: str) -> bool:
    """True for two ids that the same node has made since it started."""
    return one[18:] == other[18:]


def is_older(message_id: str, than_ms: int) -> bool:
    """True for an id that was made before that time; False also for a text that is no id."""
    try:
        return int(message_id[:12], 16) < than_ms
    except ValueError:
        return False


def new_channel_id() -> str:
    """A channel id. It is random: it does not tell which node the channel is on."""
    return secrets.token_hex(10)
