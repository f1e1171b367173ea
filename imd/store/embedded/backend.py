"""The embedded backend: inbox, desk and archive in one SQLite file, channels in memory. For one node.

A message that `accept` has placed is in the file, archive row included, and survives kill -9 and a power cut.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.archive import (
    Asked,
    Changes,
    ChangesQuery,
    Entry,
    History,
    HistoryQuery,
    Record,
    Target,
)
from imd.contracts.inbox import (
    Ack,
    ConnectOutcome,
    ConnectRequest,
    Delivery,
    Head,
    InboxOptions,
    Lease,
    Leave,
    Outcome,
    Page,
    Sent,
    Submission,
)
from imd.contracts.rooms import RoomOptions
from imd.observe.seldom import Seldom
from imd.protocol.errors import ConfigurationError
from imd.protocol.ids import ServerClock
from imd.store.embedded.accept import Placing
from imd.store.embedded.aims import Aims, EmbeddedAims
from imd.store.embedded.archive import read_history, read_last_id, read_newest_id
from imd.store.embedded.blocks import BlockTables, EmbeddedBlocks
from imd.store.embedded.changes import read_changes, read_messages, read_targets
from imd.store.embedded.desk import Desk
from imd.store.embedded.devices import Devices
from imd.store.embedded.drift import Drift, mend_times
from imd.store.embedded.group import Group, Operation
from imd.store.embedded.inboxes import Inboxes
from imd.store.embedded.marks import MarkTables
from imd.store.embedded.probe import Probe
from imd.store.embedded.room_store import EmbeddedRooms
from imd.store.embedded.rooms import RoomTables
from imd.store.embedded.state import State
from imd.store.embedded.state_store import EmbeddedStates
from imd.store.embedded.sweep import Sweep
from imd.store.embedded.tables import lock_folder, open_file
from imd.store.embedded.talks import EmbeddedTalks
from imd.store.embedded.visitors import Visitors
from imd.store.embedded.worker import Worker

SWEEP_SECONDS = 1.0


class EmbeddedStore:
    """Inbox, ArchiveQueue and Archive (imd.contracts) on `<folder>/imd.db`.

    One object serves as all three: `start` and `stop` may be called once for each of them.
    """

    _log = Logger()

    def __init__(
        self,
        folder: str,
        options: InboxOptions,
        clock: ServerClock,
        reactor: Any = None,
        room_options: RoomOptions | None = None,
        ids_now: Callable[[], int] | None = None,
    ) -> None:
        """`ids_now`: the time of the clock that ids are made by, in ms, if that is not `clock`."""
        if reactor is None:
            from twisted.internet import reactor
        self._folder = folder
        self._options = options
        self._room_options = room_options or RoomOptions()
        self.rooms = EmbeddedRooms(lambda work: self._do(None, lambda: work(self._rooms)))
        """the RoomStore on the same file"""
        self.aims = EmbeddedAims(
            lambda work: self._do(None, lambda: work(self._aims)), lambda: self._state.channels.next_stirred()
        )
        """the AimStore and the PresenceStore on the same registry"""
        self.states = EmbeddedStates(lambda work: self._do(None, lambda: work(self._marks)))
        """the StateStore on the same file"""
        self.talks = EmbeddedTalks(lambda work: self._do(None, lambda: work(self._state)))
        """the TalkStore on the same file"""
        self.blocks = EmbeddedBlocks(lambda work: self._do(None, lambda: work(self._blocks)))
        """the BlockStore on the same file"""
        self._ids_now = ids_now or clock.now_ms
        self._clock = clock
        self._worker = Worker(reactor)
        self._seldom = Seldom(self._log)
        self._sweeping = LoopingCall(self._sweep_once)
        self._sweeping.clock = reactor
        self._starting: list[Deferred[None]] | None = None
        self._started: Failure | bool = False
        """True after the start; a Failure if it failed"""
        # Made in the thread, and used there only.
        self._state: State
        self._desk: Desk
        self._placing: Placing
        self._rooms: RoomTables
        self._aims: Aims
        self._marks: MarkTables
        self._blocks: BlockTables
        self._devices: Devices
        self._visitors: Visitors
        self._sweep: Sweep
        self._probe: Probe
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None

    # Backend

    def start(self) -> Deferred[None]:
        """Fails with ConfigurationError if the folder cannot be used or another process uses it."""
        waiter: Deferred[None] = Deferred()
        if self._starting is None:
            self._starting = [waiter]
            self._worker.start(self._begin).addBoth(self._start_done)
        elif self._started is False:
            self._starting.append(waiter)
        else:
            waiter.callback(None if self._started is True else self._started)
        return waiter

    def _begin(self) -> Group:
        """In the thread."""
        self._lock = lock_folder(self._folder)
        try:
            self._connection = open_file(self._folder)
            mend_times(self._connection)
            state = State(self._connection, self._options, self._clock)
        except sqlite3.Error as error:
            self._end()
            raise ConfigurationError(f"[node] data = {self._folder}: imd.db is not usable: {error}") from None
        except BaseException:
            self._end()
            raise
        self._state = state
        self._desk = Desk(state)
        self._devices = Devices(state)
        drift = Drift(self._connection, self._clock, state.next_number)
        self._marks = MarkTables(self._connection)
        self._visitors = Visitors(state, self._marks.forget)
        self._sweep = Sweep(state, self._devices, self._visitors, drift)
        inboxes = Inboxes(state)
        self._blocks = BlockTables(state)
        self._rooms = RoomTables(state, inboxes, self._room_options, self._blocks)
        self._aims = Aims(state, self._desk, self._rooms)
        self._placing = Placing(state, inboxes, self._desk, self._rooms, self._ids_now)
        group = Group(state, self._placing)
        self._probe = Probe(self._folder, state, group)
        return group

    def _start_done(self, result: Failure | None) -> None:
        self._started = result if result is not None else True
        if self._started is True:
            self._sweeping.start(SWEEP_SECONDS, now=False).addErrback(self._sweep_failed)
        assert self._starting is not None
        for waiter in self._starting:
            waiter.callback(result)

    def stop(self) -> Deferred[None]:
        if self._sweeping.running:
            self._sweeping.stop()
        return self._worker.stop(self._end)

    def _end(self) -> None:
        """In the thread."""
        try:
            if self._connection is not None:
                self._connection.close()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def problem(self) -> str | None:
        return self._worker.problem()

    def _do(self, user: str | None, work: Callable[[], Any]) -> Deferred[Any]:
        """Have `work` done in the thread. `user`: the user whose row and devices it reads."""
        return self._worker.do(Operation(work=work, user=user))

    # Inbox

    def accept(self, batch: Sequence[Submission]) -> Deferred[list[Outcome]]:
        if not batch:
            return succeed([])
        return self._worker.do(Operation(batch=batch))

    def sent_before(self, user: str, device: str, client_msg_id: str) -> Deferred[Sent | None]:
        return self._do(None, lambda: self._placing.sent_before(user, device, client_msg_id))

    def probe(self) -> Deferred[int]:
        looked = self._worker.do(Operation(work=lambda: self._probe.look(), alone=True))
        # One file, as long as the process lives.
        return looked.addCallback(lambda _: 0)

    def connect(self, request: ConnectRequest) -> Deferred[ConnectOutcome]:
        done = self._do(request.user, lambda: self._devices.connect(request))
        return done.addCallback(self.aims.tell_stirred)

    def pull(self, user: str, epoch: str, after: int, limit: int) -> Deferred[Page]:
        return self._do(None, lambda: self._devices.pull(user, epoch, after, limit))

    def ack(self, ack: Ack) -> Deferred[Head]:
        return self._do(ack.user, lambda: self._devices.ack(ack))

    def renew(self, lease: Lease) -> Deferred[Head]:
        done = self._do(lease.user, lambda: self._devices.renew(lease))
        return done.addCallback(self.aims.tell_stirred)

    def leave(self, leave: Leave) -> Deferred[None]:
        done = self._do(leave.user, lambda: self._devices.leave(leave))
        return done.addCallback(self.aims.tell_stirred)

    def era(self) -> Deferred[str]:
        # Channels and their connections end with the process.
        return succeed("")

    def serve_desk(self) -> Deferred[list[Delivery]]:
        return self._do(None, lambda: self._desk.serve())

    def agent_of(self, visitor: str) -> Deferred[str]:
        return self._do(None, lambda: self._desk.agent_of(visitor))

    def remember_visitor(self, visitor: str, token_hash: str) -> Deferred[None]:
        return self._do(None, lambda: self._visitors.remember(visitor, token_hash))

    def knows_visitor(self, visitor: str, token_hash: str) -> Deferred[bool]:
        return self._do(None, lambda: self._visitors.knows(visitor, token_hash))

    # ArchiveQueue

    def publish(self, records: Sequence[Record]) -> Deferred[None]:
        """Fires at once: `accept` has archived the message, or the first copy of a duplicate, in the same
        transaction. The desk adds agents as participants."""
        return succeed(None)

    # Archive

    def history(self, query: HistoryQuery) -> Deferred[History]:
        return self._do(None, lambda: read_history(self._state, query))

    def messages(self, message_ids: Sequence[str], viewer: str) -> Deferred[list[Entry]]:
        return self._do(None, lambda: read_messages(self._state, message_ids, viewer))

    def targets(self, asked: Sequence[Asked]) -> Deferred[dict[str, Target | None]]:
        return self._do(None, lambda: read_targets(self._state, asked))

    def changes(self, query: ChangesQuery) -> Deferred[Changes]:
        return self._do(None, lambda: read_changes(self._state, query))

    def newest_id(self) -> Deferred[str]:
        return self._do(None, lambda: read_newest_id(self._state))

    def complete(self) -> Deferred[str]:
        """The id up to which everything is archived: the last one that was placed."""
        return self._do(None, lambda: read_last_id(self._state))

    # forgetting

    def _sweep_once(self) -> Deferred[None]:
        swept = self._do(None, lambda: self._sweep.sweep())
        return swept.addErrback(self._sweep_failed)

    def _sweep_failed(self, failure: Failure) -> None:
        # The next sweep deletes them.
        self._seldom.warn("old rows could not be deleted: {reason}", reason=failure.getErrorMessage())
