"""The table of nodes in Redis: each row has a lease of its own, and a table that is new is not acted upon.

The scripts run through anything that takes a command's words and gives the reply, so a node (over its
connection) and a command (over a blocking client) use the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred

from imd.gateway.nodes import Row, decode

KEY = "imd:nodes"
LEASE_SECONDS = 10.0
BEAT_SECONDS = 1.0
"""between two announcements of a node"""
CURRENT_SECONDS = 2.0
"""the newest reading of a node that announces itself is no older, while all is well"""
SILENT_SECONDS = 3.0
"""a row whose node is this silent may be taken over by a node at the same address, before its lease ends"""


def _script(name: str) -> str:
    folder = files("imd.gateway") / "lua"
    flags, text = (folder / f"{name}.lua").read_text().split("\n", 1)
    return f"{flags}\n{(folder / 'lib.lua').read_text()}\n{text}"


_ANNOUNCE, _READ, _LEAVE, _WISH = map(_script, ("announce", "read", "leave", "wish"))
_LEASE_MS = round(LEASE_SECONDS * 1000)
_SILENT_MS = round(SILENT_SECONDS * 1000)

Words = tuple[str | int, ...]
"""of one command of Redis"""


class Reading(NamedTuple):
    """The table at one moment: how long it has existed in this run of Redis, and its live rows by name."""

    age_seconds: float
    rows: dict[str, Row]
    broken: tuple[str, ...] = ()
    """names of rows that cannot be read"""

    @property
    def stands(self) -> bool:
        """False: nothing may act on it. Nodes that are alive may be missing from it still."""
        return bool(self.rows) and self.age_seconds >= LEASE_SECONDS


class Announced(NamedTuple):
    """The answer to a node that has announced itself."""

    taken: bool
    """another live node has the name; nothing was written"""
    wish: str
    """`drain` or `undo`, if an operator has asked this run of the node for it; else empty"""
    reading: Reading


class NodeTable(Protocol):
    """The table, for a node. Deferreds fail with imd.protocol.errors.Unavailable, within half a lease."""

    def announce(self, row: Row) -> Deferred[Announced]:
        """Write the row and renew its lease."""

    def leave(self, row: Row) -> Deferred[None]:
        """Remove the row, unless another run of the node has the name by now."""


def announce(row: Row) -> Words:
    """Write a row and renew its lease; the reply is for `announced`. To be run every BEAT_SECONDS.

    Runs when Redis is full, too: the row is small, and takes its own place.
    """
    text = row.encode().decode()
    return ("EVAL", _ANNOUNCE, 1, KEY, _LEASE_MS, row.name, row.bus, row.websocket, text, _SILENT_MS)


def announced(reply: Any) -> Announced:
    """The reply to `announce`. Raises ValueError if it is none."""
    state, wish, *rest = _list(reply)
    return Announced(state == b"taken", wish.decode(), reading(rest))


def read() -> Words:
    """Look at the table; the reply is for `reading`."""
    return ("EVAL", _READ, 1, KEY, _LEASE_MS)


def reading(reply: Any) -> Reading:
    """The reply to `read`. Raises ValueError if it is none."""
    age_ms, *flat = _list(reply)
    rows, broken = {}, []
    for name, text in zip(flat[::2], flat[1::2], strict=True):
        try:
            row = decode(text)
        except ValueError:
            broken.append(name.decode(errors="replace"))
        else:
            rows[row.name] = row
    return Reading(int(age_ms) / 1000, rows, tuple(broken))


def leave(row: Row) -> Words:
    """Remove a row, unless another run of the node has the name by now. The reply is 1 or 0."""
    return ("EVAL", _LEAVE, 1, KEY, _LEASE_MS, row.name, row.bus)


def wish(name: str, what: str) -> Words:
    """Ask a live node to `drain`, or to `undo` that. The reply is its bus address; None: no such node.

    The node hears it with its next announcement; the wish ends with this run of the node.
    """
    return ("EVAL", _WISH, 1, KEY, _LEASE_MS, name, what)


def _list(reply: Any) -> list[Any]:
    if not isinstance(reply, list) or not reply:
        raise ValueError(f"not a reply of the table's script: {reply!r:.80}")
    return reply


class LastTable:
    """The last table that could be acted upon: a Redis that forgot, or is away, does not change it."""

    def __init__(self) -> None:
        self.rows: Mapping[str, Row] = {}
        self._members: frozenset[str] = frozenset()
        self._changed_at = 0.0
        self._current_until = float("-inf")
        self._runs: frozenset[tuple[str, str]] = frozenset()
        self.changes = 0
        """how often other nodes, or other runs of the same nodes, have got the slots"""

    def take(self, reading: Reading, now: float) -> bool:
        """Keep a reading if it stands; True if it does. `now` is a monotonic clock's, in seconds."""
        if not reading.stands:
            self._current_until = float("-inf")
            return False
        self._current_until = now + CURRENT_SECONDS
        self.rows = reading.rows
        members = frozenset(serving(reading.rows.values()))
        runs = frozenset((name, reading.rows[name].bus) for name in members)
        if runs != self._runs:
            self._members, self._runs, self._changed_at = members, runs, now
            self.changes += 1
        return True

    @property
    def members(self) -> frozenset[str]:
        """Names of the nodes that have slots."""
        return self._members

    def unchanged_seconds(self, now: float) -> float:
        """How long the same runs of the same nodes have had the slots. 0 while that is not known: the newest
        reading does not stand, or is more than CURRENT_SECONDS old."""
        return now - self._changed_at if now <= self._current_until else 0.0


def serving(rows: Iterable[Row]) -> list[str]:
    """Names of the rows that have slots: routable ones that do not drain, or if all drain, all of them.

    Somebody has to be home, and a node that drains still serves until its socket is closed.
    """
    routable = [row for row in rows if row.is_routable()]
    return [row.name for row in routable if not row.draining] or [row.name for row in routable]
