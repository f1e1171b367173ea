"""Both shells of the client, and the examples, on a real node that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jwt
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.client import Ended, Failed, Message, Refused, SqliteStore, State
from imd.client.asyncio import Client as AsyncioClient
from imd.client.twisted import Client as TwistedClient
from tests.support.nodes import NodeServer
from tests.support.paths import ROOT
from tests.support.servers import HOST, spawn, wait_until

SECONDS = 180
SECRET = "a secret that only this test knows of"
QUICK = {"min_backoff": 0.05, "max_backoff": 0.5}

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


# A program that sets its time of day back as soon as its client is connected, and prints the client's states.
SET_BACK = """
import asyncio, sys, time
from imd.client import State, StateChanged

def set_back(event):
    print(event.state.value, event.reason, flush=True)
    if event.state is State.OPEN:
        earlier = real() - 3600
        time.time = lambda: earlier
        if sys.argv[1] == "twisted":
            reactor.seconds = time.time

real = time.time
quick = {"ping_seconds": 0.5, "pong_seconds": 0.5, "connect_seconds": 2, "max_backoff": 0.5}

def start():
    client = Client(sys.argv[2], user_id=f"alice-{sys.argv[1]}", **quick)
    client.on(StateChanged, set_back)
    client.start()

async def main():
    start()
    await asyncio.Event().wait()

if sys.argv[1] == "twisted":
    from twisted.internet import reactor
    from imd.client.twisted import Client
    reactor.callWhenRunning(start)
    reactor.run()
else:
    from imd.client.asyncio import Client
    asyncio.run(main())
"""


async def take(client: Any, count: int) -> list[Message]:
    """Take the next messages and handle them."""
    found = []
    async for message in client.messages():
        found.append(message)
        if len(found) == count:
            client.handled(message)
            break
    return found


async def nothing_lost(make: Any, node: NodeServer, in_thread: InThread, name: str) -> None:
    """Two clients and a node that is killed: every message arrives once, in order, and is in the history."""
    store = SqliteStore(node.folder / f"{name}.db")
    bobs = f"bob-{name}"
    alice = make(node.url, user_id=f"alice-{name}", store=store, **QUICK)
    bob = make(node.url, user_id=bobs, **QUICK)
    alice.start()
    bob.start()
    await bob.connected()
    for n in range(60):
        outgoing = alice.send(f"{n}", to=bobs)
        if n == 20:
            await alice.accepted(outgoing)
            await in_thread(node.kill)
        elif n == 40:
            await in_thread(node.start)
    found = await take(bob, 60)
    assert [message.msg for message in found] == [str(n) for n in range(60)]
    await alice.drained()
    assert (await alice.accepted(outgoing)).id == found[-1].id, "said once more"
    await bob.stop()
    await alice.stop()
    store.close()

    # New clients of the same users continue where the first ones stopped.
    alice = make(node.url, user_id=f"alice-{name}", **QUICK)
    bob = make(node.url, user_id=bobs, **QUICK)
    alice.start()
    bob.start()
    accepted = await alice.accepted(alice.send("last", to=bobs))
    [last] = await take(bob, 1)
    assert (last.msg, last.id) == ("last", accepted.id)
    page = await bob.history(f"alice-{name}", limit=2)
    assert ([message.msg for message in page.messages], page.more) == (["59", "last"], True)
    page = await bob.history(f"alice-{name}", before=page.messages[0].id, limit=200)
    assert ([message.msg for message in page.messages], page.more) == ([str(n) for n in range(59)], False)
    await alice.stop()
    await bob.stop()


async def refusals(make: Any, node: NodeServer) -> None:
    """Refused messages, and the end of a client by a newer connection of its device."""
    alice = make(node.url, user_id="alice", **QUICK)
    failed: list[Failed] = []
    alice.on(Failed, failed.append)
    alice.start()
    zoe = make(node.url, user_id=f"zoe-{make.__module__}", **QUICK)
    zoe.start()
    await zoe.connected()
    # JSON escapes each of these characters as six bytes, in both directions.
    await alice.accepted(alice.send("\x01" * 65_536, to=zoe.user_id))
    [escaped] = await take(zoe, 1)
    assert escaped.msg == "\x01" * 65_536
    await zoe.stop()
    outgoing = alice.send("x" * 70_000, to="bob")
    try:
        await alice.accepted(outgoing)
        raise AssertionError("too large, and accepted")
    except Refused as refused:
        assert refused.refusal.code == "too_large", refused
    assert failed[0].outgoing is outgoing and alice.cancel(outgoing)
    other = make(node.url, user_id="alice", **QUICK)
    other.start()
    try:
        async for _ in alice.messages():
            raise AssertionError("a message?")
        raise AssertionError("it ended as if it had been stopped")
    except Ended as ended:
        assert ended.code == 4003, ended
    assert alice.state is State.CLOSED
    await other.stop()
    async for _ in other.messages():
        raise AssertionError("a message after the end?")


async def strangers(make: Any, node: NodeServer, user: str) -> None:
    """A sender past `new_ids` goes on writing to users that have connected."""
    alice = make(node.url, user_id=user, **QUICK)
    alice.start()
    await alice.connected()
    alice.send("one new recipient", to=f"{user}-x")
    held = alice.send("one too many", to=f"{user}-y")
    # Answers come in order: after the first acceptance, the refusal is known.
    for _ in range(2):
        await alice.accepted(alice.send("to a user that is there", to=user))
    assert held.state == "waiting", held
    assert alice.cancel(held)
    await alice.stop()


async def desk(make: Any, node: NodeServer) -> None:
    """A visitor, an agent, and an answer."""
    agent = make(node.url, user_id="sam", customer_service=True, **QUICK)
    visitor = make(node.url, visitor=True, **QUICK)
    agent.start()
    visitor.start()
    await agent.connected()
    await visitor.accepted(visitor.send("is anyone there?"))
    [question] = await take(agent, 1)
    assert question.is_visitor and question.user_id == visitor.user_id
    agent.reply(question, "I am")
    [answer] = await take(visitor, 1)
    assert (answer.msg, answer.user_id) == ("I am", "sam")
    await agent.stop()
    await visitor.stop()


async def tokens(make: Any, node: NodeServer, user: str) -> None:
    """Tokens are renewed on the open connection before they expire, and asked for after 4001."""
    asked: list[float] = []

    def token() -> str:
        asked.append(time.monotonic())
        life = -5 if len(asked) == 1 else 600
        claims = {"sub": user, "exp": time.time() + life, "loginType": "USER_TYPE"}
        return jwt.encode(claims, SECRET, "HS256")

    alice = make(node.url, token=token, **QUICK)
    alice.start()
    await alice.connected()
    assert (alice.user_id, len(asked)) == (user, 2)
    connection = alice._core.connection
    # As if its time had come: a new token is sent, and the node answers with its expiry.
    agenda = alice._core._agenda
    agenda.later("token", 0.0, alice._core._ask_token)
    alice._pump()
    end = time.monotonic() + SECONDS
    while len(asked) < 3 or not agenda.waits_for("token"):
        assert time.monotonic() < end
        await alice.accepted(alice.send("still here", to=user))
        await take(alice, 1)
    assert alice._core.connection == connection
    await alice.stop()


async def clocks(make: Any, node: NodeServer, user: str) -> None:
    """Tokens of an issuer whose clock is ahead: new ones are asked for; a refused one ends the client."""
    now, tokens = time.time(), []

    def token() -> str:
        nonlocal now
        now = now if tokens else time.time()
        claims = {"sub": user, "jti": len(tokens), "nbf": now + 8, "exp": now + 600, "loginType": "USER_TYPE"}
        tokens.append(jwt.encode(claims, SECRET, "HS256"))
        return tokens[-1]

    alice = make(node.url, token=token, **QUICK)
    alice.start()
    await alice.connected()
    assert len(tokens) >= 3, tokens
    await alice.stop()

    claims = {"sub": user, "nbf": now + 400, "exp": now + 600, "loginType": "USER_TYPE"}
    late = jwt.encode(claims, SECRET, "HS256")
    alice = make(node.url, token=lambda: late, **QUICK)
    alice.start()
    try:
        await alice.connected()
        raise AssertionError("before its time")
    except Ended as ended:
        assert (ended.code, ended.permanent) == (4001, True), ended
        assert ended.reason == "unauthorized: token not valid yet", ended


async def hints(make: Any, heard: Heard, in_thread: InThread) -> None:
    """The user stands in the URL, by name or by token; or not at all."""
    token = jwt.encode({"sub": "小明"}, SECRET, "HS256")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"user_id": "alice"}, "&user=alice"),
        ({"user_id": "a b/+&"}, "&user=a%20b%2F%2B%26"),
        ({"token": lambda: token}, "&user=%E5%B0%8F%E6%98%8E"),
        ({"token": lambda: "opaque"}, ""),
        ({"visitor": True}, ""),
        ({"user_id": "alice", "hint": False}, ""),
    ]
    for number, (options, hint) in enumerate(cases):
        mark = f"/ws?n={make.__module__}{number}"
        # A URL from a function is hinted as well.
        client = make(lambda mark=mark: heard.url + mark, **QUICK, **options)
        client.start()
        await in_thread(lambda mark=mark: wait_until(lambda: heard.path(mark), SECONDS, mark))
        await client.stop()
        assert heard.path(mark) == mark + hint, options


async def visitor_hints(make: Any, node: NodeServer) -> None:
    """A visitor that comes back is named by its token; a new one by nothing."""
    store = SqliteStore(node.folder / f"{make.__module__}.db")
    client = make(node.url, visitor=True, store=store, **QUICK)
    assert client._core.hint is None
    client.start()
    await client.connected()
    visitor = client.user_id
    await client.stop()
    again = make(node.url, visitor=True, store=store, **QUICK)
    assert again._core.hint == visitor
    assert again._place() == f"{node.url}?user={visitor}"
    store.close()


class Heard:
    """A server that reads the first line of each connection, and hangs up."""

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._listener = socket.create_server((HOST, 0))
        self.url = f"ws://{HOST}:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, connection.makefile("rb") as lines, contextlib.suppress(ConnectionError):
                    # Empty, if it was given up.
                    self._paths += lines.readline().decode().split()[1:2]

    def path(self, mark: str) -> str:
        """The path that begins so; empty until somebody has asked for it."""
        return next((path for path in self._paths if path.startswith(mark)), "")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(SECONDS)


class ShellTests(unittest.TestCase):
    """Each story with each kind of client, on one node: Twisted's here, asyncio's in a thread."""

    timeout = 5 * SECONDS

    async def start_node(self, **ini: Any) -> NodeServer:
        node = NodeServer(Path.cwd() / self.mktemp(), {"limits": {"burst": 1000}, **ini})
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        return node

    def in_asyncio(self, story: Callable[..., Any], *more: Any) -> Deferred[None]:
        async def bounded() -> None:
            async with asyncio.timeout(SECONDS):
                await story(AsyncioClient, *more)

        return deferToThread(asyncio.run, bounded())

    async def test_nothing_lost(self) -> None:
        node = await self.start_node()
        await nothing_lost(TwistedClient, node, deferToThread, "twisted")
        await self.in_asyncio(nothing_lost, node, asyncio.to_thread, "asyncio")

    async def test_refusals_and_desk(self) -> None:
        node = await self.start_node()
        for story in (refusals, desk):
            await story(TwistedClient, node)
            await self.in_asyncio(story, node)

    async def test_strangers(self) -> None:
        node = await self.start_node(limits={"new_ids": 1})
        await self.in_asyncio(strangers, node, "bob")
        await strangers(TwistedClient, node, "alice")

    async def test_tokens(self) -> None:
        node = await self.start_node(auth={"mode": "jwt", "secret": SECRET, "leeway_seconds": 1})
        for story in (tokens, clocks):
            asyncios = self.in_asyncio(story, node, "bob")
            await story(TwistedClient, node, "alice")
            await asyncios

    async def test_hints(self) -> None:
        heard = Heard()
        self.addCleanup(heard.close)
        await hints(TwistedClient, heard, deferToThread)
        await self.in_asyncio(hints, heard, asyncio.to_thread)
        node = await self.start_node()
        await visitor_hints(TwistedClient, node)
        await self.in_asyncio(visitor_hints, node)


class ClockTests(unittest.TestCase):
    timeout = 5 * SECONDS

    async def test_set_back(self) -> None:
        """The time of day is set back an hour: a node that hangs is noticed, left and found again."""
        node = NodeServer(Path.cwd() / self.mktemp(), {})
        self.addCleanup(deferToThread, node.kill)
        await deferToThread(node.start)
        logs = {}
        for kind in ("twisted", "asyncio"):
            logs[kind] = node.folder / f"{kind}.log"
            program = spawn([sys.executable, "-c", SET_BACK, kind, node.url], logs[kind])
            self.addCleanup(program.wait)
            self.addCleanup(program.kill)

        def said(what: str, times: int = 1) -> bool:
            return all(log.read_text().count(what) >= times for log in logs.values())

        await deferToThread(wait_until, lambda: said("open"), SECONDS, "connected")
        await deferToThread(node.pause)
        await deferToThread(wait_until, lambda: said("the node is silent"), SECONDS, "found out")
        await deferToThread(wait_until, lambda: said("not connected in time"), SECONDS, "given up")
        await deferToThread(node.resume)
        await deferToThread(wait_until, lambda: said("open", 2), SECONDS, "connected again")


class ExampleTests(unittest.TestCase):
    timeout = 5 * SECONDS

    async def test_both(self) -> None:
        self.node = NodeServer(Path.cwd() / self.mktemp(), {})
        self.addCleanup(deferToThread, self.node.kill)
        await deferToThread(self.node.start)
        await self.echo()
        await self.faq()

    def start(self, name: str) -> None:
        """Run an example as a program that talks to the node."""
        source = (ROOT / "examples" / name).read_text()
        self.assertIn("ws://127.0.0.1:9000/ws", source)
        self.program = self.node.folder / name
        self.program.write_text(source.replace("ws://127.0.0.1:9000/ws", self.node.url))
        self.begin()

    def begin(self) -> None:
        self.bot = spawn([sys.executable, self.program], self.node.folder / "bot.log")
        self.addCleanup(self.bot.wait)
        self.addCleanup(self.bot.kill)

    async def echo(self) -> None:
        """A bot that is killed answers each message once all the same. README shows this program."""
        self.start("echo_bot.py")
        alice = TwistedClient(self.node.url, user_id="alice", **QUICK)
        alice.start()
        for n in range(9):
            alice.send(f"{n}", to="echo")
            if n == 3:
                await take(alice, 1)
                self.bot.kill()
                self.bot.wait()
                self.begin()
        answers = await take(alice, 8)
        self.assertEqual([answer.msg for answer in answers], [f"{n}" for n in range(1, 9)])
        await alice.stop()
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        self.assertIn((ROOT / "examples" / "echo_bot.py").read_text(), blocks)

    async def faq(self) -> None:
        """A visitor's question finds its answer."""
        self.start("faq_bot.py")
        visitor = TwistedClient(self.node.url, visitor=True, **QUICK)
        visitor.start()
        visitor.send("When are you open?")
        visitor.send("And why?")
        answers = [answer.msg for answer in await take(visitor, 2)]
        self.assertEqual(answers, ["We are open from nine to five.", "Somebody will write to you soon."])
        await visitor.stop()
