"""The rights of Redis' user that an operator pastes from the guide suffice, and each of them is needed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from twisted.internet import reactor
from twisted.trial import unittest

from imd.contracts.aim import Aim, Aimed
from imd.contracts.inbox import InboxOptions, NotAllowed, Placed
from imd.contracts.level import FIRST, NEWEST
from imd.gateway import table
from imd.protocol.errors import Unavailable
from imd.protocol.ids import ServerClock
from imd.store.redis import connection
from imd.store.redis.aims import RedisAims
from imd.store.redis.inbox import RedisInbox
from imd.store.redis.level import RedisLevel
from imd.store.redis.node_table import RedisNodeTable
from tests.contract.aim_contract import to_list, to_room, to_user
from tests.contract.block_contract import BlockHarness
from tests.contract.desk_contract import DAY_SECONDS, DeskWords
from tests.contract.redis_harness import ANSWER_SECONDS, RedisHarness
from tests.contract.support import ids_of
from tests.contract.test_blocks import ClusterBlocksHarness
from tests.gateway.support import row
from tests.support.paths import ROOT
from tests.support.rabbit import until
from tests.support.servers import HOST

IMD = ROOT / "imd"
GUIDE = ROOT / "docs" / "how-to" / "cluster.md"
PASSWORD = "pw"

STATEMENT = re.compile(r"^    ACL SETUSER imd (.*)$", re.MULTILINE)
LUA_CALL = re.compile(r"redis\.p?call\(\s*'([A-Z]+)'")
# Redis allows it to everybody.
FREE = {"auth"}
# Run by a new connection only.
OF_A_CONNECTION = {"select", "script|load"}
# Of the txredisapi connection: its methods are commands, too.
DRIVER = {"redis", "protocol"}


def statements() -> list[list[str]]:
    """The guide's rights, statement by statement, with a password in place of the word for it."""
    found = STATEMENT.findall(GUIDE.read_text())
    return [text.replace(">PASSWORD", f">{PASSWORD}").split() for text in found]


def commands_of(lines: Sequence[Sequence[str]]) -> list[str]:
    """The commands that these statements allow."""
    return [word[1:] for line in lines for word in line if word.startswith("+")]


def commands_of_lua(text: str) -> list[str]:
    """The commands that a script runs. Each has to be named where it is run."""
    code = re.sub(r"--[^\n]*", "", text)
    found = LUA_CALL.findall(code)
    assert len(found) == len(re.findall(r"\bredis\.p?call\b", code)), text
    return [name.lower() for name in found]


def commands_of_python(text: str, known: set[str]) -> list[str]:
    """The commands, of those that Redis knows, that begin a call's arguments or a tuple of words."""
    return [name for node in ast.walk(ast.parse(text)) for name in _commands_at(node, known)]


def _commands_at(node: ast.AST, known: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Call):
        words = node.args
        match node.func:
            case ast.Attribute(ast.Name(name), method) if name in DRIVER and method in known:
                yield method
    elif isinstance(node, ast.Tuple | ast.List):
        words = node.elts
    else:
        return
    first, second = [
        word.value.lower()
        if isinstance(word, ast.Constant) and isinstance(word.value, str) and word.value.isupper()
        else ""
        for word in (*words, None, None)[:2]
    ]
    if first in known:
        yield f"{first}|{second}" if f"{first}|{second}" in known else first


class FinderTests(unittest.SynchronousTestCase):
    def test_lua(self) -> None:
        """Commands are found wherever they are run, and not in comments."""
        script = "-- redis.call('A')\nlocal x = redis.call('GET', k) or redis.pcall(\n  'SET', k)\npcall(x)\n"
        self.assertEqual(commands_of_lua(script), ["get", "set"])
        for hidden in ("redis.call(name, k)", "local run = redis.call"):
            self.assertRaises(AssertionError, commands_of_lua, hidden)

    def test_python(self) -> None:
        """Commands, with their second words where they need them, are found in calls and in tuples."""
        known = {"get", "config", "config|get", "info", "eval", "select"}
        module = (
            "ASK = ('INFO', 'memory')\ncommand('CONFIG', 'GET', x)\nawait redis.select(1)\n"
            "def f(): return ('EVAL', s)\nother.select(1)\nf('get', 'HELLO')\nself._command('GET', *y)\n"
        )
        self.assertEqual(
            sorted(commands_of_python(module, known)), ["config|get", "eval", "get", "info", "select"]
        )


class RightsHarness(RedisHarness):
    """Nodes are the guide's user of Redis. `rights`: what it may run; `optional`: the last line of it."""

    async def setUp(self) -> None:
        await super().setUp()
        self.addCleanup(self.redis.command, "ACL", "DELUSER", "imd")
        lines = statements()
        for words in lines:
            await self.redis.command("ACL", "SETUSER", "imd", *words)
        await self.redis.command("ACL", "LOG", "RESET")
        self.rights, self.optional = commands_of(lines), commands_of(lines[-1:])

    async def make_inbox(self, options: InboxOptions, *, lossless: bool = False) -> RedisInbox:
        inbox = self.new_inbox(options)
        await inbox.start()
        return inbox

    def new_inbox(self, options: InboxOptions, db: int = 0) -> RedisInbox:
        """Not started."""
        url = f"redis://imd:{PASSWORD}@{HOST}:{self.server.port}/{db}"
        inbox = RedisInbox(reactor, url, options, ServerClock(), timeout_seconds=ANSWER_SECONDS)
        self.addCleanup(inbox.stop)
        return inbox


class RightsTests(RightsHarness):
    async def test_all_commands(self) -> None:
        """The guide allows what the scripts and the code of imd run, and nothing else."""
        known = {name.decode() for name in await self.redis.command("COMMAND", "LIST")}
        used = {name for path in IMD.rglob("*.lua") for name in commands_of_lua(path.read_text())}
        self.assertLess(used, known)
        used |= {name for path in IMD.rglob("*.py") for name in commands_of_python(path.read_text(), known)}
        self.assertEqual(sorted(self.rights), sorted(used - FREE))

    async def test_each_is_needed(self) -> None:
        """A node whose user lacks one of them says so before it places a message; the optional ones aside."""
        inbox = await self.make_inbox(InboxOptions())
        for name in self.rights:
            await inbox.probe()
            await self.redis.command("ACL", "SETUSER", "imd", f"-{name}")
            if name in self.optional:
                await inbox.probe()
                await self.new_inbox(InboxOptions()).start()
            elif name in OF_A_CONNECTION:
                await self.refused(self.new_inbox(InboxOptions(), db=1))
            else:
                said = await inbox.probe().addErrback(lambda failure: failure.getErrorMessage())
                self.assertIn("redis: noperm", str(said), name)
            await self.redis.command("ACL", "SETUSER", "imd", f"+{name}")
        await self.new_inbox(InboxOptions(), db=1).start()

    async def refused(self, inbox: RedisInbox) -> None:
        inbox.start()
        await until(lambda: "redis: noperm" in (inbox.problem() or ""), "the problem is named")


class StoryTests(RightsHarness, ClusterBlocksHarness, BlockHarness, DeskWords):
    """Messages of all kinds pass with the rights of the guide, and Redis has refused nothing."""

    async def begin_all(self) -> None:
        await self.begin_blocks(
            desk_grace_seconds=1, max_messages=20, unopened_messages=10, lease_seconds=30 * DAY_SECONDS
        )
        assert isinstance(self.inbox, RedisInbox)
        self.node = self.inbox

    async def nothing_refused(self) -> None:
        self.assertEqual(await self.redis.command("ACL", "LOG"), [])

    async def test_one_is_missing(self) -> None:
        """Then the story does not go on, and Redis has refused something."""
        await self.begin_all()
        await self.redis.command("ACL", "SETUSER", "imd", "-smove")
        with self.assertRaises(Unavailable):
            await self.desk()
        with self.assertRaises(self.failureException):
            await self.nothing_refused()

    async def test_messages(self) -> None:
        """To users and lists, read and acknowledged; at the level of 0.1, too."""
        await self.begin_all()
        for level in (FIRST, NEWEST):
            self.node.set_level(level)
            bob = f"bob-{level}"
            registered = await self.connect(bob, sync=True)
            self.assertEqual(registered.page.messages, [])
            first = self.message("alice", bob, client_msg_id="c1")
            [outcome] = await self.send(first)
            self.assertIsInstance(outcome, Placed)
            self.assertEqual(ids_of(await self.read(bob)), [first.id])
            self.assertEqual((await self.ack(bob, 1)).seq, 1)
            await self.renew(bob)
            await self.send_many("alice", bob, 30)
            self.assertEqual(len(ids_of(await self.read(bob))), 20)
            group = [f"u{n}" for n in range(9)]
            [outcome] = await self.send(self.message("alice", group=group))
            self.assertIsInstance(outcome, Placed)
            for user in group:
                await self.visit(user, "phone", 1)
            await self.leave(bob, seq=31)
            await self.advance(2 * DAY_SECONDS)
        [outcome] = await self.send(self.message("alice", "carol", client_msg_id="c2"))
        self.assertIsNotNone(await self.node.sent_before("alice", "phone", "c2"))
        self.assertTrue(await self.node.era())
        await self.nothing_refused()

    async def desk(self) -> None:
        """A visitor is silent for a day, writes again, and goes to another agent."""
        await self.agent("anna")
        await self.node.remember_visitor("visitor-1", "hash")
        await self.ask("visitor-1")
        self.assertTrue(await self.node.knows_visitor("visitor-1", "hash"))
        await self.advance(1.5 * DAY_SECONDS)
        await self.serve()
        await self.ask("visitor-1")
        await self.go_for_good("anna")
        await self.ask("visitor-2")
        await self.serve()
        await self.agent("bert")
        await self.until(lambda: self.served_to("visitor-1", "bert"))
        await self.send(self.message("bert", "visitor-1", "an answer"))
        self.assertEqual(len(ids_of(await self.read("bert"))), 3)

    async def test_desk(self) -> None:
        """Visitors are handed over."""
        await self.begin_all()
        await self.desk()
        await self.nothing_refused()

    async def test_desk_of_the_first_level(self) -> None:
        """The same while nodes of 0.1 serve it, too."""
        await self.begin_all()
        self.node.set_level(FIRST)
        await self.desk()
        await self.nothing_refused()

    async def test_rooms_and_blocks(self) -> None:
        """Rooms are written to, and blocks obeyed, by messages and by typing."""
        await self.begin_all()
        room = await self.make("mary", "mike")
        self.assertIsInstance(await self.write(room, "mary"), Placed)
        await self.change(room, "olga", "remove", ["mike"])
        self.assertEqual(await self.told("olga"), ["hi"])
        self.assertEqual(await self.block("mary", "eve"), True)
        self.assertEqual(await self.try_to_send("eve", "mary"), NotAllowed)
        await self.connect("mary", flags="s")
        aims = RedisAims(self.node.calls)
        for target in (to_room(room), to_user("mary"), to_list("mary", "mike")):
            self.assertIsInstance(await aims.aim(Aim("olga", "olga/phone", target, 50)), Aimed)
        await aims.look(["mary", "eve"], "n.1")
        self.assertEqual(await aims.hidden("eve", ["mary", "mike"]), ["mary"])
        self.assertEqual(list(await aims.channels(["mary", "eve"])), ["mary"])
        await self.leave("mary")
        await self.nothing_refused()

    async def test_of_the_node(self) -> None:
        """Its level, its row in the table and the settings of Redis."""
        await self.begin_all()
        level = RedisLevel(self.node.command)
        self.assertEqual(await level.is_empty(), True)
        self.assertEqual((await level.begin(NEWEST), await level.read()), (NEWEST, NEWEST))
        nodes = RedisNodeTable(self.node.calls.reactor.callLater, self.node.command)
        self.assertFalse((await nodes.announce(row("n1"))).taken)
        self.assertEqual(await self.node.command(*table.wish("n1", "drain")), b"n1.1")
        self.assertEqual(list(table.reading(await self.node.command(*table.read())).rows), ["n1"])
        await nodes.leave(row("n1"))
        self.assertNotEqual(self.node.calls.redis.general.backlog_ttl, connection.UNKNOWN_BACKLOG_TTL)
        await self.nothing_refused()
