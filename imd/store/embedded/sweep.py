"""Deletes old rows of the embedded backend, a few at each call."""

from __future__ import annotations

import msgspec

from imd.store.embedded.desk import AGENT_KEPT_MS
from imd.store.embedded.devices import Devices
from imd.store.embedded.drift import Drift
from imd.store.embedded.state import SILENT, State, User
from imd.store.embedded.visitors import Visitors

ROWS_PER_SWEEP = 2000
USERS_PER_SWEEP = 200
PURGE_EVERY = 60
"""sweeps"""


class Sweep:
    """Deletes expired rows to make room. Readers check times themselves, and do not depend on it."""

    def __init__(self, state: State, devices: Devices, visitors: Visitors, drift: Drift) -> None:
        self._state = state
        self._drift = drift
        self._devices = devices
        self._visitors = visitors
        self._uid = 0
        self._calls = 0
        self._last_use = 0

    def sweep(self) -> None:
        """One slice of the work."""
        now = self._state.clock.now_ms()
        self._state.write()
        self._drift.note()
        self._forget_sent(now)
        self._visitors.forget(now)
        self._sweep_users(now)
        self._calls += 1
        if self._calls % PURGE_EVERY == 0:
            self._state.channels.purge(now - 2 * self._state.lease_ms, now)

    def _forget_sent(self, now: int) -> None:
        # At least twice the rows that were added since the last sweep, so that the table does not grow.
        connection = self._state.connection
        last_use = connection.execute("SELECT MAX(use) FROM sent").fetchone()[0] or 0
        rows = max(ROWS_PER_SWEEP, 2 * (last_use - self._last_use))
        self._last_use = last_use
        connection.execute(
            "DELETE FROM sent WHERE use IN "
            "(SELECT use FROM (SELECT use, used FROM sent ORDER BY use LIMIT ?) WHERE used < ?)",
            (rows, now - self._state.dedup_ms),
        )

    def _sweep_users(self, now: int) -> None:
        """Trim the inboxes of the next users: old messages leave, devices unseen for long are dropped."""
        state = self._state
        first, last = self._uid + 1, self._uid + USERS_PER_SWEEP
        names = state.connection.execute(
            "SELECT json_group_array(name) FROM user u WHERE u.uid BETWEEN :first AND :last AND ("
            f"(u.agent IS NOT NULL AND u.agent_used < :silent AND u.owed <> {SILENT}) OR "
            "(u.owed > 0 AND u.agent_used < :old) OR "
            "EXISTS (SELECT 1 FROM device d WHERE d.uid = u.uid AND d.seen < :old) OR "
            "EXISTS (SELECT 1 FROM inbox i JOIN message m ON m.number = i.message "
            "WHERE i.uid = u.uid AND i.seq = u.low + 1 AND m.send_time < :old))",
            {"first": first, "last": last, "old": now - state.keep_ms, "silent": now - AGENT_KEPT_MS},
        ).fetchone()[0]
        for name in msgspec.json.decode(names, type=list[str]):
            user = state.user(name)
            self._forget_agent(user, now)
            self._devices.trim_acknowledged(user, now)
            last_old = state.connection.execute(
                "SELECT MIN(i.seq) FROM inbox i JOIN message m ON m.number = i.message "
                "WHERE i.uid = ? AND i.seq BETWEEN ? AND ? AND m.send_time >= ?",
                (user.uid, user.low + 1, user.low + ROWS_PER_SWEEP, now - state.keep_ms),
            ).fetchone()[0]
            state.trim(user, min(user.low + ROWS_PER_SWEEP, user.seq) if last_old is None else last_old - 1)
        highest = state.connection.execute("SELECT MAX(uid) FROM user").fetchone()[0] or 0
        self._uid = last if last < highest else 0

    def _forget_agent(self, user: User, now: int) -> None:
        """A visitor that has long been silent leaves its agent, or is no load if it is owed an answer."""
        state = self._state
        if user.owed and user.agent_used < now - state.keep_ms:
            state.settle(user, state.last_number())
        if user.agent is not None and user.agent_used < now - AGENT_KEPT_MS:
            if user.owed:
                state.lay_aside(user)
            else:
                state.assign(user, None)
