"""The embedded backend's cache of its file, and the changes that are not in the file yet.

Operations change the objects here. `write` puts all changes into the open transaction with a handful of
statements. After a rollback `forget` drops the cache, so that it is read again.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import attrgetter
from typing import Any

import msgspec

from imd.contracts.inbox import NEWCOMER_SECONDS, InboxOptions
from imd.contracts.rooms import Room
from imd.protocol.ids import ServerClock
from imd.store.embedded import tables
from imd.store.embedded.channels import Channels
from imd.store.embedded.events import Pending, apply_events
from imd.store.embedded.talk_rows import TalkRows
from imd.store.embedded.write_ahead import WriteAheadLog

MAX_USERS_IN_MEMORY = 200_000
MAX_ROOMS_IN_MEMORY = 2_000
OWED, SILENT = 1, 2


@dataclass(slots=True)
class Device:
    """A device's cursor; `seen` in ms."""

    epoch: str
    seq: int
    seen: int
    attempt: int | None
    """the highest attempt that it has connected with"""
    ephemeral: bool
    sync: bool
    """it wants what its user's other devices send"""


@dataclass(slots=True)
class User:
    """A row of the table `user`; `devices` is loaded on demand."""

    uid: int
    name: str
    epoch: str
    seq: int = 0
    low: int = 0
    """the inbox holds low + 1 … seq"""
    agent: str | None = None
    agent_used: int = 0
    """when the visitor last wrote to its agent, or was answered, ms"""
    waiting: int | None = None
    owed: int = 0
    """OWED: the visitor's messages have no answer. SILENT: in addition it is no load on its agent"""
    opened: int = 0
    """1 once a device of the user has connected"""
    devices: dict[str, Device] | None = None
    sync: tuple[str, ...] = ()
    """the loaded devices that want what the others send"""
    blocked: frozenset[str] = frozenset()
    """users whom the user blocks, or who block the user; loaded with the devices"""

    def note_sync(self) -> None:
        devices = self.devices or {}
        self.sync = tuple(name for name, device in devices.items() if device.sync)


_columns_of = attrgetter(
    "uid", "name", "epoch", "seq", "low", "agent", "agent_used", "waiting", "owed", "opened"
)
_read_users = msgspec.json.Decoder(
    list[tuple[int, str, str, int, int, str | None, int, int | None, int, int]]
).decode
_read_devices = msgspec.json.Decoder(list[tuple[int, str, str, int, int, int | None, int, int]]).decode


class State:
    """Owned by the thread that owns the connection."""

    def __init__(self, connection: sqlite3.Connection, options: InboxOptions, clock: ServerClock) -> None:
        self.connection = connection
        self.options = options
        self.clock = clock
        self.start_ms = clock.now_ms()
        self.channels = Channels(self.start_ms)
        self.rooms: dict[str, Room] = {}
        """rooms that were read or changed"""
        self.keep_ms = int(options.keep_days * 86_400_000)
        self.lease_ms = int(options.lease_seconds * 1000)
        self.grace_ms = int(options.desk_grace_seconds * 1000)
        self.dedup_ms = int(options.dedup_seconds * 1000)
        self.visitor_ms = int(options.visitor_days * 86_400_000)
        self.newcomer_ms = min(NEWCOMER_SECONDS * 1000, self.visitor_ms)
        self._users: dict[str, User] = {}
        self._loads: dict[str, int] | None = None
        self._next_uid = 1
        self._next_number = 1
        self._next_use = 1
        self._next_place = 1
        # Rows to be written, their columns laid end to end.
        self.messages: list[Any] = []
        self.participants: list[Any] = []
        self.inbox: list[Any] = []
        self.sent: list[Any] = []
        self.waiting: list[Any] = []
        self.unanswered: list[Any] = []
        self.left_out: list[Any] = []
        self.events: list[Pending] = []
        self.talks = TalkRows()
        self._answers: dict[int, int] = {}
        self._new_users: set[int] = set()
        self._changed_users: dict[int, User] = {}
        self._changed_devices: dict[tuple[int, str], Device | None] = {}
        self._trims: dict[int, int] = {}
        self.write_ahead = WriteAheadLog(connection, clock.monotonic)
        self._read_counters()

    def _read_counters(self) -> None:
        def after(column: str, table: str) -> int:
            found = self.connection.execute(f"SELECT MAX({column}) FROM {table}").fetchone()[0]
            return (found or 0) + 1

        self._next_uid = after("uid", "user")
        self._next_number = after("number", "message")
        self._next_use = after("use", "sent")
        self._next_place = after("waiting", "user")

    # numbers

    @property
    def next_number(self) -> int:
        """Of the next message."""
        return self._next_number

    def new_number(self) -> int:
        """For a message."""
        number = self._next_number
        self._next_number = number + 1
        return number

    def last_number(self) -> int:
        """Of the messages."""
        return self._next_number - 1

    def new_use(self) -> int:
        """For a use of a clientMsgId."""
        use = self._next_use
        self._next_use = use + 1
        return use

    # users

    def load(self, names: Iterable[str]) -> Mapping[str, User]:
        """Load these users, creating missing rows; return the cache."""
        users = self._users
        missing = [name for name in dict.fromkeys(names) if name not in users]
        if missing:
            for rows in tables.GET_USERS.read(self.connection, missing):
                for row in _read_users(rows):
                    users[row[1]] = User(*row)
            for name in missing:
                if name not in users:
                    users[name] = user = User(self._next_uid, name, secrets.token_hex(6))
                    self._next_uid += 1
                    self._new_users.add(user.uid)
                    self.changed(user)
        return users

    def unmake(self, user: User) -> None:
        """Forget a user whose row is not written yet, and to whom nothing refers."""
        if user.uid in self._new_users:
            self._new_users.discard(user.uid)
            self._changed_users.pop(user.uid, None)
            self._users.pop(user.name, None)

    def rows_are_gone(self, names: Iterable[str]) -> None:
        """Drop users from the cache whose rows were deleted. They must have no changes to be written."""
        for name in names:
            self._users.pop(name, None)

    def user(self, name: str) -> User:
        return self._users.get(name) or self.load((name,))[name]

    def uid_of(self, name: str) -> int | None:
        """The user's number; None for an unknown user."""
        user = self._users.get(name)
        if user is not None:
            return user.uid
        row = self.connection.execute("SELECT uid FROM user WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def changed(self, user: User) -> None:
        self._changed_users[user.uid] = user

    def trim(self, user: User, low: int) -> None:
        """Remove messages up to `low` from the inbox."""
        if low > user.low:
            user.low = low
            self._trims[user.uid] = low
            self.changed(user)

    # devices

    def load_devices(self, names: Sequence[str]) -> None:
        """Load the devices of these users."""
        users = self.load(names)
        by_uid = {user.uid: user for user in map(users.__getitem__, names) if user.devices is None}
        for user in by_uid.values():
            user.devices = {}
        for rows in tables.GET_DEVICES.read(self.connection, list(by_uid)):
            for uid, name, epoch, seq, seen, attempt, ephemeral, sync in _read_devices(rows):
                devices = by_uid[uid].devices
                assert devices is not None
                devices[name] = Device(epoch, seq, seen, attempt, bool(ephemeral), bool(sync))
        for user in by_uid.values():
            user.note_sync()
        if by_uid:
            self.read_blocked([user.name for user in by_uid.values()])

    def read_blocked(self, names: Sequence[str]) -> None:
        """Load the blocks of these users, as far as they are in memory with their devices."""
        found: dict[str, set[str]] = {}
        for rows in tables.GET_BLOCKED.read(self.connection, names):
            for one, other in msgspec.json.decode(rows, type=list[tuple[str, str]]):
                found.setdefault(one, set()).add(other)
        for name in names:
            user = self._users.get(name)
            if user is not None and user.devices is not None:
                user.blocked = frozenset(found.get(name, ()))

    def devices(self, user: User) -> dict[str, Device]:
        if user.devices is None:
            self.load_devices((user.name,))
        assert user.devices is not None
        return user.devices

    def put_device(self, user: User, name: str, device: Device) -> None:
        devices = self.devices(user)
        before = devices.get(name)
        devices[name] = device
        if device.sync != (before is not None and before.sync):
            user.note_sync()
        self._changed_devices[user.uid, name] = device

    def drop_device(self, user: User, name: str) -> None:
        dropped = self.devices(user).pop(name, None)
        if dropped is not None:
            if dropped.sync:
                user.note_sync()
            self._changed_devices[user.uid, name] = None

    # visitors and agents

    def loads(self) -> dict[str, int]:
        """agent → its visitors, for agents that have any. Silent ones do not count, so it may be 0."""
        if self._loads is None:
            self.write()
            rows = self.connection.execute(
                "SELECT json_group_array(json_array(agent, visitors)) FROM (SELECT agent, "
                f"SUM(owed <> {SILENT}) AS visitors FROM user WHERE agent IS NOT NULL GROUP BY agent)"
            ).fetchone()[0]
            self._loads = dict(msgspec.json.decode(rows, type=list[tuple[str, int]]))
        return self._loads

    def assign(self, visitor: User, agent: str | None) -> None:
        """Assign the visitor to an agent, or to none."""
        loads = self.loads()
        if visitor.agent is not None and visitor.owed != SILENT:
            loads[visitor.agent] -= 1
        if agent is not None:
            loads[agent] = loads.get(agent, 0) + 1
        if visitor.owed == SILENT:
            visitor.owed = OWED
        visitor.agent = agent
        self.touch(visitor)

    def touch(self, visitor: User) -> None:
        """The visitor has written, or was answered or assigned: it counts as its agent's load."""
        if visitor.owed == SILENT and visitor.agent is not None:
            visitor.owed = OWED
            self.loads()[visitor.agent] += 1
        visitor.agent_used = self.clock.now_ms()
        self.changed(visitor)

    def lay_aside(self, visitor: User) -> None:
        """The visitor has long been silent, and is owed an answer: it keeps its agent, but is no load."""
        if visitor.owed == OWED and visitor.agent is not None:
            self.loads()[visitor.agent] -= 1
            visitor.owed = SILENT
            self.changed(visitor)

    def owe(self, visitor: User, number: int, size: int) -> None:
        """Note that an agent has got this message of the visitor, and that it has no answer."""
        self.unanswered += (visitor.uid, number, size)
        visitor.owed = OWED
        self.changed(visitor)

    def settle(self, visitor: User, number: int) -> None:
        """Note that messages of the visitor up to this one need no answer any more."""
        if visitor.owed == SILENT and visitor.agent is not None:
            self.loads()[visitor.agent] += 1
        visitor.owed = 0
        self._answers[visitor.uid] = number
        self.changed(visitor)

    def set_waiting(self, visitor: User, waiting: bool) -> None:
        """Put the visitor at the end of the desk's waiting order (once), or take it out."""
        if waiting and visitor.waiting is None:
            visitor.waiting = self._next_place
            self._next_place += 1
            self.changed(visitor)
        elif not waiting and visitor.waiting is not None:
            visitor.waiting = None
            self.changed(visitor)

    # writing

    def write(self) -> None:
        """Put everything that has changed into the open transaction."""
        connection = self.connection
        if self._changed_users:
            tables.PUT_USERS.write(
                connection,
                list(chain.from_iterable(map(_columns_of, self._changed_users.values()))),
            )
            self._changed_users.clear()
            self._new_users.clear()
        grown = list(dict.fromkeys(self.unanswered[::3]))
        self.talks.write(connection, self.participants)
        for statement, rows in (
            (tables.PUT_MESSAGES, self.messages),
            (tables.PUT_PARTICIPANTS, self.participants),
            (tables.PUT_INBOX, self.inbox),
            (tables.PUT_SENT, self.sent),
            (tables.PUT_WAITING, self.waiting),
            (tables.PUT_UNANSWERED, self.unanswered),
            (tables.PUT_LEFT_OUT, self.left_out),
        ):
            if rows:
                statement.write(connection, rows)
                rows.clear()
        if self.events:
            events, self.events = self.events, []
            self.write_ahead.has_recalled |= apply_events(connection, events)
        if grown:
            tables.CAP_UNANSWERED.write(connection, grown)
        if self._answers:
            tables.DROP_ANSWERED.write(connection, list(chain.from_iterable(self._answers.items())))
            self._answers.clear()
        if self._trims:
            tables.TRIM_INBOX.write(connection, list(chain.from_iterable(self._trims.items())))
            self._trims.clear()
        if self._changed_devices:
            self._write_devices()

    def _write_devices(self) -> None:
        put: list[Any] = []
        drop: list[Any] = []
        for (uid, name), device in self._changed_devices.items():
            if device is None:
                drop += (uid, name)
            else:
                put += (uid, name, device.epoch, device.seq, device.seen, device.attempt)
                put += (device.ephemeral, device.sync)
        tables.PUT_DEVICES.write(self.connection, put)
        tables.DROP_DEVICES.write(self.connection, drop)
        self._changed_devices.clear()

    def committed(self) -> None:
        self.channels.commit()
        if len(self._users) > MAX_USERS_IN_MEMORY:
            for name in list(islice(self._users, MAX_USERS_IN_MEMORY // 2)):
                del self._users[name]
        if len(self.rooms) > MAX_ROOMS_IN_MEMORY:
            self.rooms.clear()

    def forget(self, mark: int = 0) -> None:
        """Drop the cache, which may differ from the file, and undo changes of the registry since `mark`."""
        self.channels.rollback(mark)
        self._users.clear()
        self.rooms.clear()
        self._loads = None
        unwritten = (self.messages, self.participants, self.inbox, self.sent, self.waiting, self.unanswered)
        for rows in (*unwritten, self.left_out):
            rows.clear()
        self.talks.clear()
        self.events.clear()
        self._answers.clear()
        self._new_users.clear()
        self._changed_users.clear()
        self._changed_devices.clear()
        self._trims.clear()
