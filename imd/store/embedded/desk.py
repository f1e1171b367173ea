"""The desk of the embedded backend: assigns visitors to agents, and moves their messages."""

from __future__ import annotations

import msgspec

from imd.contracts.inbox import Delivery, NotAllowed
from imd.store.embedded.events import NO_PAGE
from imd.store.embedded.formats import UNANSWERED
from imd.store.embedded.state import State, User
from imd.store.shared_metrics import OVERFLOWN, VISITORS_WAITING

VISITORS_PER_CALL = 50
MESSAGES_PER_CALL = 5000
DELIVERIES_PER_VISITOR = 50
AGENT_KEPT_MS = 86_400_000
"""a visitor silent for longer is no load on its agent, and leaves it unless it is owed an answer"""


class Desk:
    """Visitors and agents. All methods run in the open transaction."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._grown: dict[int, User] = {}

    # for placing messages

    def present_agent(self, visitor: User, now: int) -> str | None:
        """The visitor's agent. None if the agent has been gone for longer than the grace period, or if the
        visitor has been silent for long and is owed no answer."""
        state = self._state
        kept_ms = state.keep_ms if visitor.owed else AGENT_KEPT_MS
        if visitor.agent is None or visitor.agent_used < now - kept_ms:
            return None
        return None if state.channels.is_gone(visitor.agent, now, state.grace_ms) else visitor.agent

    def agent_for(
        self, visitor: User, wanted: str, now: int
    ) -> NotAllowed | tuple[User | None, list[Delivery]]:
        """The agent that gets the visitor's message, and the deliveries of messages that waited for it.

        A visitor without an agent is assigned to one. None: no agent is online. NotAllowed, without any
        change, if `wanted` names another agent.
        """
        state = self._state
        present = self.present_agent(visitor, now)
        name = present or self._least_loaded(now)
        if wanted and wanted != name:
            return NotAllowed("a visitor writes to its agent only")
        if present is None and visitor.agent is not None:
            self._release([visitor], now)
        if name is None:
            return None, []
        agent = state.user(name)
        if present is None:
            return agent, self._hand_over(visitor, agent, now)
        state.touch(visitor)
        return agent, []

    def answered(self, visitor: User, number: int) -> None:
        """The visitor's agent has written to it, so earlier messages need no other agent's answer."""
        self._state.settle(visitor, number)
        visitor.agent_used = self._state.clock.now_ms()

    def wait(self, visitor: User, number: int, size: int) -> None:
        """Append a message to the visitor's waiting ones."""
        state = self._state
        state.waiting += (visitor.uid, number, number, size)
        state.set_waiting(visitor, True)
        self._grown[visitor.uid] = visitor

    def cap_waiting(self) -> None:
        """Call after a batch: of a visitor's waiting messages, the newest `max_messages` stay."""
        grown, self._grown = self._grown, {}
        for visitor in grown.values():
            self._cap(visitor)

    # serving

    def serve(self) -> list[Delivery]:
        """See imd.contracts.inbox.Inbox.serve_desk."""
        state = self._state
        now = state.clock.now_ms()
        left = VISITORS_PER_CALL
        for agent in [name for name in state.loads() if state.channels.is_gone(name, now, state.grace_ms)]:
            if left <= 0:
                break
            visitors = self._visitors_of(agent, left)
            if not visitors:
                del state.loads()[agent]
            left -= len(visitors)
            self._release(visitors, now)
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
        """Assign the visitor, and put its messages since the last answer into the agent's inbox: the newest
        that other agents have got, and all that no agent has got. This agent gets no message twice.

        Only the last deliveries are returned: their numbers show that there are others.
        """
        state = self._state
        state.assign(visitor, agent.name)
        state.set_waiting(visitor, False)
        state.write()
        connection = state.connection
        connection.execute(
            "INSERT OR IGNORE INTO moving SELECT u.message, u.size FROM "
            "(SELECT message, size FROM unanswered WHERE uid = :visitor ORDER BY message DESC "
            "LIMIT MAX(0, :most - (SELECT COUNT(*) FROM waiting WHERE uid = :visitor))) u "
            "JOIN message m ON m.number = u.message "
            "WHERE NOT EXISTS (SELECT 1 FROM participant WHERE uid = :agent AND id = m.id) "
            "AND NOT EXISTS (SELECT 1 FROM event_reader WHERE uid = :agent AND id = m.id) "
            "UNION ALL SELECT message, size FROM waiting WHERE uid = :visitor",
            {"visitor": visitor.uid, "agent": agent.uid, "most": UNANSWERED},
        )
        moved = connection.execute(
            "INSERT INTO inbox (uid, seq, message, size) "
            "SELECT ?, ? + ROW_NUMBER() OVER (ORDER BY message), message, size FROM moving",
            (agent.uid, agent.seq),
        ).rowcount
        if moved <= 0:
            return []
        for table, which in (("participant", "!="), ("event_reader", "=")):
            connection.execute(
                f"INSERT OR IGNORE INTO {table} (uid, id, message) SELECT ?, m.id, m.number "
                f"FROM moving w JOIN message m ON m.number = w.message WHERE m.conversation {which} ?",
                (agent.uid, NO_PAGE),
            )
        newest = "SELECT message, size FROM moving ORDER BY message DESC LIMIT ?"
        for number, size in connection.execute(newest, (UNANSWERED,)).fetchall():
            state.owe(visitor, number, size)
        connection.execute("DELETE FROM moving")
        connection.execute("DELETE FROM waiting WHERE uid = ?", (visitor.uid,))
        agent.seq += moved
        state.changed(agent)
        low = agent.seq - state.options.max_messages
        OVERFLOWN.inc(max(0, low - agent.low))
        state.trim(agent, low)
        channels = state.channels.live(agent.name, now)
        return [
            Delivery(agent.name, agent.epoch, seq, channels, body)
            for seq, body in self._bodies(agent, agent.seq - min(moved, DELIVERIES_PER_VISITOR))
        ]

    def _release(self, visitors: list[User], now: int) -> None:
        """Take visitors from their agent. A visitor waits for another agent if it is owed an answer, or if
        one is online; otherwise it has none until it writes again."""
        online = bool(self._state.channels.agents_online(now))
        for visitor in visitors:
            self._state.assign(visitor, None)
            if visitor.owed or online:
                self._state.set_waiting(visitor, True)

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
