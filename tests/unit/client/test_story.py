"""Random steps of a client and a node: nothing is lost, nothing comes twice."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from imd.client import Outgoing, SqliteStore, effects
from tests.unit.client.support import WINDOW, Clock, Pipe


@dataclass
class FakeNode:
    """One user's inbox, and a connection that loses its frames on the way when it breaks."""

    epoch: str = "e1"
    low: int = 0
    messages: list[dict[str, Any]] = field(default_factory=list)
    """without their numbers; the first has low + 1"""
    cursor: int = 0
    accepted: dict[str, str] = field(default_factory=dict)
    """clientMsgId → text, in the order of acceptance"""
    copied: set[str] = field(default_factory=set)
    """texts of the user's own messages that are in the inbox, too"""
    up: list[dict[str, Any]] = field(default_factory=list)
    down: list[dict[str, Any]] = field(default_factory=list)
    on: bool = False
    sent: int = 0
    stumbles: int = 0
    """so many messages are answered `unavailable`; every other one is placed all the same"""

    @property
    def head(self) -> int:
        return self.low + len(self.messages)

    def lose_connection(self) -> None:
        self.up, self.down, self.on = [], [], False

    def forget(self) -> None:
        """A new epoch: unacknowledged messages get other numbers."""
        rest = self.messages[self.cursor - self.low :]
        self.epoch = f"e{int(self.epoch[1:]) + 1}"
        self.low, self.messages = 100 * int(self.epoch[1:]), rest
        self.cursor = self.low
        if self.on:
            self.sent = self.low
            self.down.append({"type": "reset", "epoch": self.epoch, "seq": self.low, "recovered": False})
            self.push()

    def push(self) -> None:
        while self.on and self.sent < self.head and self.sent - self.cursor < WINDOW:
            self.sent += 1
            self.down.append({"seq": self.sent} | self.messages[self.sent - self.low - 1])

    def hear(self) -> None:
        frame = self.up.pop(0)
        if frame.get("isConnect"):
            cursor = frame.get("cursor") or {"epoch": self.epoch, "seq": self.cursor}
            good = cursor["epoch"] == self.epoch and self.cursor <= cursor["seq"] <= self.head
            self.sent = cursor["seq"] if good else self.cursor
            self.cursor = self.sent
            self.on = True
            limits = {"ackWindow": WINDOW}
            self.down.append(
                {"type": "connected", "userId": "alice", "epoch": self.epoch, "seq": self.sent}
                | {"recovered": good, "serverTime": 1, "limits": limits, "pingSeconds": 25}
                | {"features": ["sync"]}
            )
            self.push()
        elif frame.get("type") == "ack":
            if frame["epoch"] == self.epoch:
                assert frame["seq"] <= self.sent, "acknowledged what was never sent"
                self.cursor = max(self.cursor, frame["seq"])
                self.push()
        elif frame.get("type") == "ping":
            self.down.append({"type": "pong"})
        else:
            self.message(frame)

    def message(self, frame: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"clientMsgId": frame["clientMsgId"]}
        self.stumbles = max(0, self.stumbles - 1)
        if not self.stumbles or self.stumbles % 2:
            known = self.accepted.setdefault(frame["clientMsgId"], frame["msg"])
            assert known == frame["msg"]
            if frame["msg"] not in self.copied:
                # The user has another device.
                self.copied.add(frame["msg"])
                self.messages.append({"userId": "alice", "id": f"id {known}", "sendTime": 1} | frame)
        if self.stumbles:
            answer |= {"type": "error", "code": "unavailable", "reason": "down", "temporary": True}
        else:
            answer |= {"type": "accepted", "id": f"id {frame['msg']}", "sendTime": 1}
        self.down.append(answer)
        self.push()


STEPS = st.sampled_from(
    ["send", "arrive", "arrive", "up", "up", "down", "down", "handle", "break", "wait", "restart", "forget",
     "stumble", "elsewhere"]
)  # fmt: skip


class Story:
    def __init__(self) -> None:
        self.clock, self.node, self.store = Clock(), FakeNode(), SqliteStore(":memory:")
        self.handled: list[str] = []
        self.said = self.arrived = self.elsewhere = 0
        self.begin()

    def begin(self) -> None:
        """Start a process that knows what is in the store."""
        self.pipe = Pipe(self.clock, self.store)
        self.given = 0
        self.pipe.core.start()
        self.dial()

    def dial(self) -> None:
        """Perform the core's effects."""
        while todo := self.pipe.core.effects():
            for effect in todo:
                if isinstance(effect, effects.Dial):
                    self.node.lose_connection()
                    self.pipe.core.opened(effect.connection)
                elif isinstance(effect, effects.Drop):
                    self.node.lose_connection()
                elif isinstance(effect, effects.Transmit):
                    self.node.up.append(json.loads(effect.text))
                elif isinstance(effect, effects.Deliver):
                    self.pipe.delivered.append(effect.entry)

    def step(self, name: str) -> None:
        core, node = self.pipe.core, self.node
        if name == "send":
            self.said += 1
            core.post(Outgoing("", f"s{self.said}", "bob"))
        elif name == "arrive":
            self.arrived += 1
            arrived = f"m{self.arrived}"
            node.messages.append(
                {"id": arrived, "userId": "bob", "to": "alice", "msg": arrived, "sendTime": 1}
            )
            node.push()
        elif name == "elsewhere":
            self.elsewhere += 1
            sent = f"e{self.elsewhere}"
            copy = {
                "id": sent,
                "userId": "alice",
                "to": "bob",
                "msg": sent,
                "clientMsgId": sent,
                "sendTime": 1,
            }
            node.messages.append(copy)
            node.push()
        elif name == "up" and node.up:
            node.hear()
        elif name == "down" and node.down:
            core.received(core.connection, json.dumps(node.down.pop(0)))
        elif name == "handle" and self.given < len(self.pipe.delivered):
            message = self.pipe.delivered[self.given]
            self.given += 1
            self.handled.append(message.id)
            core.handled(message.id)
        elif name == "break":
            node.lose_connection()
            core.closed(core.connection, None, "broken")
        elif name == "wait":
            self.clock.now += 1.0
            core.tick()
        elif name == "restart":
            node.lose_connection()
            self.begin()
        elif name == "forget":
            node.forget()
        elif name == "stumble":
            node.stumbles = 4
        self.dial()

    def settle(self) -> None:
        for _ in range(2000):
            if self.node.up:
                self.step("up")
            elif self.node.down:
                self.step("down")
            elif self.given < len(self.pipe.delivered):
                self.step("handle")
            elif self.pipe.core.outbox.waiting or self.node.cursor < self.node.head:
                self.step("wait")
            else:
                return
        raise AssertionError(f"not settled: {self.pipe.core.state}, {self.node}")


class StoryTests(unittest.TestCase):
    @given(st.lists(STEPS, max_size=80))
    @example(["arrive", "up", "down", "down", "break", "handle", "forget", "wait", "up", "down", "restart"])
    @example(["up", "down", "send", "up", "down", "restart"])
    @example(["up", "down", "arrive", "send", "up", "down", "down", "restart", "handle", "handle"])
    @settings(deadline=None, max_examples=150)
    def test_nothing_lost_nothing_twice(self, names: list[str]) -> None:
        """All sent messages are accepted once, and all others are handled once, in order, but no copies."""
        story = Story()
        try:
            for name in names:
                story.step(name)
            story.settle()
            self.assertEqual(list(story.node.accepted.values()), [f"s{n + 1}" for n in range(story.said)])
            of_others = [message for message in story.handled if message.startswith("m")]
            self.assertEqual(of_others, [f"m{n + 1}" for n in range(story.arrived)])
            of_own = [message for message in story.handled if not message.startswith("m")]
            self.assertEqual(of_own, [f"e{n + 1}" for n in range(story.elsewhere)])
        finally:
            story.store.close()
