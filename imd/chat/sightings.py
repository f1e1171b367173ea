"""The users that connections of this node watch: looking at them, and the value that is shown.

A look reads the registry, and leases the interest of this node on the way. It is due when another node says
so, when the last lease of the user ends, and once a minute. A value is shown a little late: a user who goes
may come back at once, and a device that comes and goes shows at most one change in three seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import Counter, Gauge
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.presence import PresenceStore, Seen
from imd.observe.seldom import Seldom
from imd.protocol.errors import UNAVAILABLE, Refused, Unavailable

MAX_WATCHED = 100_000
TICK_SECONDS = 0.25
LOOKS_PER_TICK = 500
"""looks begun in a tick, and the most that may be under way before it"""
RENEW_SECONDS = 60.0
"""between two looks at the latest; half of the interest's lease"""
BUS_DOWN_SECONDS = 15.0
"""the same while other nodes cannot say that a look is due"""
FAILED_SECONDS = 5.0
AFTER_LEASE_SECONDS = 0.5
PAUSE_SECONDS = 3.0
"""between two changes that are shown"""
GONE_SECONDS = 2.0
"""a user who has left is shown offline so long after"""
QUIET_SECONDS = 15.0
"""nobody is shown offline for so long after the registry has forgotten channels"""

WATCHED = Gauge("imd_presence_watched", f"Users that connections here watch (bound: {MAX_WATCHED:,}).")
CHANGES = Counter("imd_presence_changes_total", "Users shown online or offline.", ["to"])
LOOKS = Counter("imd_presence_looks_total", "Looks at users in the registry, by their reason.", ["why"])
HELD = Counter("imd_presence_held_total", "Changes that were not shown at once.")


class _Watched:
    """A user, and how many lists of connections name it."""

    __slots__ = (
        "again",
        "due",
        "ends",
        "gone_at",
        "lists",
        "looking",
        "seen",
        "shown",
        "shown_at",
    )

    def __init__(self) -> None:
        self.lists = 0
        self.seen = False
        """looked at, at least once"""
        self.ends = 0.0
        """when the last lease ends, as far as it is known"""
        self.shown = False
        self.shown_at = float("-inf")
        self.gone_at: float | None = None
        """since when the user is offline, while online is shown"""
        self.due = 0.0
        self.looking = False
        self.again = False
        """one more look is due, as news came during one"""


class Sightings:
    """`address`: of this node on the bus; empty where there is none."""

    log = Logger()

    def __init__(
        self,
        clock: Any,
        store: PresenceStore,
        bus_problem: Callable[[], str | None],
        address: str,
    ) -> None:
        self._clock = clock
        self._store = store
        self._bus_problem = bus_problem
        self._address = address
        self._seldom = Seldom(self.log, clock.seconds)
        self._changed: Callable[[list[str]], None] = lambda users: None
        self._staff_only = False
        self._watched: dict[str, _Watched] = {}
        self._due: list[tuple[float, str]] = []
        """a heap; entries of another time than their user's are void"""
        self._under_way = 0
        self._run = store.registry_run()
        self._quiet_until = float("-inf")
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock

    # from the node

    def listen(self, changed: Callable[[list[str]], None], *, staff_only: bool = False) -> None:
        """Have `changed` told of users whose shown value has changed.

        `staff_only`: a user counts as online while a connection as staff is there; so a user whose type
        changes comes or goes.
        """
        self._changed = changed
        self._staff_only = staff_only

    def start(self) -> None:
        self._loop.start(TICK_SECONDS, now=False).addErrback(
            lambda failure: self.log.failure("presence is no longer looked at", failure)
        )

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def look_again(self, users: Sequence[str]) -> None:
        """These may have come or gone, as somebody says."""
        for user in users:
            one = self._watched.get(user)
            if one is not None:
                one.again = one.looking
                if not one.looking:
                    LOOKS.labels("signal").inc()
                    self._set_due(user, one, self._clock.seconds())

    # from the lists of connections

    def is_shown(self, user: str) -> bool:
        """Whether the user is shown online."""
        one = self._watched.get(user)
        return one is not None and one.shown

    async def watch(self, users: Sequence[str]) -> None:
        """Watch these users for one more list. Afterwards their shown values are known.

        Raises Unavailable, and Refused if this node watches too many; then nothing is watched more.
        """
        new = sum(user not in self._watched for user in users)
        if len(self._watched) + new > MAX_WATCHED:
            raise Refused(UNAVAILABLE, "this node watches too many users", retry_after_ms=5000)
        for user in users:
            self._watched.setdefault(user, _Watched()).lists += 1
        WATCHED.set(len(self._watched))
        unknown = [user for user in users if not self._watched[user].seen]
        try:
            if unknown:
                LOOKS.labels("watch").inc(len(unknown))
                self._saw(await self._store.look(unknown, self._address), unknown)
        except BaseException:
            self.unwatch(users)
            raise

    def unwatch(self, users: Iterable[str]) -> None:
        """One list fewer names these users. The node's interest ends by itself."""
        for user in users:
            one = self._watched[user]
            one.lists -= 1
            if not one.lists:
                del self._watched[user]
        WATCHED.set(len(self._watched))

    # from within

    def _set_due(self, user: str, one: _Watched, due: float) -> None:
        one.due = due
        heapq.heappush(self._due, (due, user))

    def _tick(self) -> None:
        now = self._clock.seconds()
        run = self._store.registry_run()
        if run != self._run:
            if self._run:
                self._registry_forgot(now)
            self._run = run
        users: list[str] = []
        while self._due and self._due[0][0] <= now and len(users) + self._under_way < LOOKS_PER_TICK:
            due, user = heapq.heappop(self._due)
            one = self._watched.get(user)
            if one is not None and one.due == due and not one.looking:
                one.looking = True
                users.append(user)
        if users:
            self._look(users)

    def _registry_forgot(self, now: float) -> None:
        """Sessions register again within a moment, so nobody flickers."""
        self._quiet_until = now + QUIET_SECONDS
        for user, one in self._watched.items():
            self._set_due(user, one, now)

    def _look(self, users: list[str]) -> None:
        LOOKS.labels("due").inc(len(users))
        self._under_way += len(users)
        looked: Deferred[list[Seen]] = self._store.look(users, self._address)
        looked.addCallbacks(self._saw, self._failed, (users,), errbackArgs=(users,))
        looked.addErrback(lambda failure: self.log.failure("a look at presence failed", failure))
        looked.addCallback(self._looked, len(users))

    def _looked(self, _: object, count: int) -> None:
        self._under_way -= count

    def _failed(self, failure: Failure, users: list[str]) -> None:
        if failure.check(Unavailable) is None:
            self._seldom.failure("a look at presence failed", failure)
        now = self._clock.seconds()
        for user in users:
            one = self._watched.get(user)
            if one is not None:
                one.looking = one.again = False
                self._set_due(user, one, now + FAILED_SECONDS)

    def _saw(self, seen: Sequence[Seen], users: Sequence[str]) -> None:
        now = self._clock.seconds()
        longest = BUS_DOWN_SECONDS if self._bus_problem() is not None else RENEW_SECONDS
        changed = []
        for user, sight in zip(users, seen, strict=True):
            one = self._watched.get(user)
            if one is None:
                continue
            is_online = sight.lasts_ms > 0 and (sight.is_staff or not self._staff_only)
            if not one.seen:
                one.seen, one.shown = True, is_online
            due = now + longest
            if is_online:
                due = min(due, now + sight.lasts_ms / 1000 + AFTER_LEASE_SECONDS)
            if is_online == one.shown:
                one.gone_at = None
            else:
                shows_at = self._shows_at(one, now)
                if shows_at <= now:
                    one.shown, one.shown_at, one.gone_at = not one.shown, now, None
                    CHANGES.labels("online" if one.shown else "offline").inc()
                    changed.append(user)
                else:
                    due = min(due, shows_at)
                    HELD.inc()
            if is_online:
                one.ends = now + sight.lasts_ms / 1000
            self._set_due(user, one, now if one.again else due)
            one.looking = one.again = False
        if changed:
            self._changed(changed)

    def _shows_at(self, one: _Watched, now: float) -> float:
        """When the other value may be shown."""
        at = one.shown_at + PAUSE_SECONDS
        if not one.shown:
            return at
        if one.gone_at is None:
            # A lease that ended by itself is no short absence.
            one.gone_at = now - (GONE_SECONDS if one.ends <= now else 0)
        return max(at, one.gone_at + GONE_SECONDS, self._quiet_until)
