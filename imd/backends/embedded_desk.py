"""The desk of the embedded backend: which agent a visitor has, and what waits for one."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from imd.backends.embedded_state import State, User
from imd.backends.fullness import VISITORS_WAITING
from imd.interfaces import Delivery

VISITORS_PER_CALL = 50
MESSAGES_PER_CALL = 5000
DELIVERIES_PER_VISITOR = 50
AGENT_KEPT_MS = 86_400_000
"""of a visitor's silence: after that it belongs to nobody, and is no load on its agent"""


class Desk:
    """Visitors and agents. All methods run in the open transaction."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._grown: dict[int, User] = {}

    # for placing messages

    def present_agent(self, visitor: User, now: int) -> str | None:
        """The visitor's agent, if it has one that is not gone for good and it has written to of late."""
        state = self._state
        if visitor.agent is None or visitor.agent_used < now - AGENT_KEPT_MS:
            return None
        return None if state.channels.is_gone(visitor.agent, now, state.grace_ms) else visitor.agent

    def agent_for(self, visitor: User, wanted: str, now: int) -> tuple[User | None, list[Delivery]]:
        """The agent who gets the visitor's message, claimed if need be (None: nobody is online), and
        where that put what the visitor had waiting.

        Raises PermissionError, and changes nothing, if `wanted` is not empty and not that agent.
        """
        state = self._state
        present = self.present_agent(visitor, now)
        name = present or self._least_loaded(now)
        if wanted and wanted != name:
            raise PermissionError("a visitor may write to its own agent only")
        if present is None and visitor.agent is not None:
            self._release(visitor.agent, [visitor], now)
        if name is None:
            return None, []
        agent = state.user(name)
        if present is None:
            return agent, self._hand_over(visitor, agent, now)
        visitor.agent_used = now
        state.changed(visitor)
        return agent, []

    def wait(self, visitor: User, number: int, size: int) -> None:
        """Put a message at the end of what the visitor has waiting."""
        state = self._state
        state.waiting += (visitor.uid, number, number, size)
        state.set_waiting(visitor, True)
        self._grown[visitor.uid] = visitor

    def cap_waiting(self) -> None:
        """Call after a batch: past `max_messages` the oldest of what a visitor has waiting leave."""
        grown, self._grown = self._grown, {}
        for visitor in grown.values():
            self._cap(visitor)

    # serving

    def serve(self) -> list[Delivery]:
        """See imd.interfaces.Inbox.serve_desk."""
        state = self._state
        now = state.clock.now_ms()
        left = VISITORS_PER_CALL
        for agent in [name for name in state.loads() if state.channels.is_gone(name, now, state.grace_ms)]:
            if left <= 0:
                break
            visitors = self._visitors_of(agent, left)
            left -= len(visitors)
            self._release(agent, visitors, now)
        deliveries = self._serve_waiting(now)
        state.write()
        count = "SELECT COUNT(*) FROM user WHERE waiting IS NOT NULL"
        VISITORS_WAITING.set(state.connection.execute(count).fetchone()[0])
        return deliveries

    def _serve_waiting(self, now: int) -> list[Delivery]:
        state = self._state
        if not state.channels.agents_online(now):
            return []
        state.write()
        rows = state.connection.execute(
            "SELECT json_group_array(name) FROM "
            "(SELECT name FROM user WHERE waiting IS NOT NULL ORDER BY waiting LIMIT ?)",
            (VISITORS_PER_CALL,),
        ).fetchone()[0]
        visitors = [state.user(name) for name in msgspec.json.decode(rows, type=list[str])]
        visitors.sort(key=lambda visitor: visitor.waiting or 0)
        deliveries: list[Delivery] = []
        moved = 0
        for visitor in visitors:
            name = self._least_loaded(now)
            if name is None or moved >= MESSAGES_PER_CALL:
                break
            agent = state.user(name)
            before = agent.seq
            deliveries += self._hand_over(visitor, agent, now)
            moved += agent.seq - before
        return deliveries

    def _least_loaded(self, now: int) -> str | None:
        online = self._state.channels.agents_online(now)
        if not online:
            return None
        loads = self._state.loads()
        return min(online, key=lambda name: loads.get(name, 0))

    def _visitors_of(self, agent: str, limit: int) -> list[User]:
        state = self._state
        state.write()
        rows = state.connection.execute(
            "SELECT json_group_array(name) FROM (SELECT name FROM user WHERE agent = ? ORDER BY uid LIMIT ?)",
            (agent, limit),
        ).fetchone()[0]
        return [state.user(name) for name in msgspec.json.decode(rows, type=list[str])]

    # moving

    def _hand_over(self, visitor: User, agent: User, now: int) -> list[Delivery]:
        """Assign the visitor, and move what it has waiting into the agent's inbox.

        Of very many messages only the last are returned: their numbers tell of the others.
        """
        state = self._state
        state.assign(visitor, agent.name)
        state.set_waiting(visitor, False)
        state.write()
        connection = state.connection
        moved = connection.execute(
            "INSERT INTO inbox (uid, seq, message, size) "
            "SELECT ?, ? + ROW_NUMBER() OVER (ORDER BY position), message, size FROM waiting WHERE uid = ?",
            (agent.uid, agent.seq, visitor.uid),
        ).rowcount
        if moved <= 0:
            return []
        connection.execute(
            "INSERT OR IGNORE INTO participant (uid, id, message) "
            "SELECT ?, m.id, m.number FROM waiting w JOIN message m ON m.number = w.message WHERE w.uid = ?",
            (agent.uid, visitor.uid),
        )
        connection.execute("DELETE FROM waiting WHERE uid = ?", (visitor.uid,))
        agent.seq += moved
        state.changed(agent)
        state.trim(agent, agent.seq - state.options.max_messages)
        channels = state.channels.live(agent.name, now)
        return [
            Delivery(agent.name, agent.epoch, seq, channels, body)
            for seq, body in self._bodies(agent, agent.seq - min(moved, DELIVERIES_PER_VISITOR))
        ]

    def _release(self, agent_name: str, visitors: list[User], now: int) -> None:
        """Take visitors back from their agent.

        What no device of the agent has acknowledged is put before what they have waiting. It stays in
        the agent's inbox as well: an inbox has no holes. A visitor waits for another agent if it has
        such messages or somebody is online; else it is free until it writes again.
        """
        state = self._state
        agent = state.user(agent_name)
        cursors = [d.seq for d in state.devices(agent).values() if d.epoch == agent.epoch]
        state.write()
        rows = state.connection.execute(
            "SELECT json_group_array(json_array(m.sender, i.seq, i.message, i.size)) "
            "FROM inbox i JOIN message m ON m.number = i.message WHERE i.uid = ? AND i.seq > ?",
            (agent.uid, max([agent.low, *cursors])),
        ).fetchone()[0]
        unread: dict[int, dict[int, int]] = defaultdict(dict)
        for sender, _, number, size in sorted(
            msgspec.json.decode(rows, type=list[tuple[int, int, int, int]]), key=lambda row: row[1]
        ):
            # A visitor that came back to the same agent has its messages there twice.
            unread[sender].setdefault(number, size)
        online = bool(state.channels.agents_online(now))
        for visitor in visitors:
            state.assign(visitor, None)
            messages = unread.get(visitor.uid, {})
            if messages:
                first = self._first_position(visitor) - len(messages)
                for position, (number, size) in enumerate(messages.items(), first):
                    state.waiting += (visitor.uid, position, number, size)
                self._cap(visitor)
            if messages or online:
                state.set_waiting(visitor, True)

    def _first_position(self, visitor: User) -> int:
        """Of what the visitor has waiting; where the next would come if nothing does."""
        self._state.write()
        first = self._state.connection.execute(
            "SELECT MIN(position) FROM waiting WHERE uid = ?", (visitor.uid,)
        ).fetchone()[0]
        return 0 if first is None else first

    def _cap(self, visitor: User) -> None:
        self._state.write()
        self._state.connection.execute(
            "DELETE FROM waiting WHERE uid = ? AND position <= (SELECT position FROM waiting WHERE uid = ? "
            "ORDER BY position DESC LIMIT 1 OFFSET ?)",
            (visitor.uid, visitor.uid, self._state.options.max_messages),
        )

    def _bodies(self, user: User, after: int) -> list[tuple[int, bytes]]:
        rows = self._state.connection.execute(
            "SELECT json_group_array(json_array(i.seq, m.body)) "
            "FROM inbox i JOIN message m ON m.number = i.message WHERE i.uid = ? AND i.seq > ?",
            (user.uid, after),
        ).fetchone()[0]
        found = msgspec.json.decode(rows, type=list[tuple[int, str]])
        return sorted((seq, body.encode()) for seq, body in found)

    def agent_of(self, visitor: str) -> str:
        """The visitor's present agent; empty if it has none."""
        if self._state.uid_of(visitor) is None:
            return ""
        return self.present_agent(self._state.user(visitor), self._state.clock.now_ms()) or ""
