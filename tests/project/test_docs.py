"""The documentation is true: its examples are played, its links lead somewhere, its tables are complete."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import sqlite3
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import jwt
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.scripts.twistd import ServerOptions
from twisted.trial import unittest

import imd
from imd.config.settings import Settings, load
from imd.contracts.inbox import ConnectRequest, InboxOptions, Submission
from imd.protocol import errors
from imd.protocol.ids import MessageIds, ServerClock
from imd.protocol.message import IMessage, encode_message
from imd.store.embedded.backend import EmbeddedStore
from tests.support.nodes import NodeServer
from tests.support.paths import ROOT
from tests.support.rabbit import Broker, until
from tests.support.servers import shared
from tests.support.ws_client import WsClient

PROTOCOL = ROOT / "docs" / "protocol.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DECISIONS = ROOT / "docs" / "decisions"
REFERENCE = ROOT / "docs" / "reference"
DEAD_LETTERS = ROOT / "docs" / "how-to" / "dead-letters.md"
BACKUP = ROOT / "docs" / "how-to" / "backup.md"
SECRET = "only for the examples of the protocol"

_FENCE = re.compile(r"^```(.*)$")
_LINE = re.compile(r"^([\w-]+) ([→←]) (.*)$")
_REST = "…"


# ---- reading


@dataclass
class Block:
    """A fenced block: what stands after its fence, its text, and the line that it begins at."""

    info: str
    line: int
    text: str


@dataclass
class Step:
    """One line of an example. `frame` is text; what it means is decided when it is played."""

    line: int
    connection: str
    sends: bool
    frame: str


@dataclass
class Known:
    """The values of words such as `…epoch`, as far as they have been seen."""

    values: dict[str, Any] = field(default_factory=dict)

    def fill_in(self, frame: Any) -> Any:
        """The frame with its words replaced by their values."""
        if isinstance(frame, dict):
            return {key: self.fill_in(value) for key, value in frame.items()}
        if isinstance(frame, list):
            return [self.fill_in(value) for value in frame]
        if isinstance(frame, str) and frame.startswith(_REST):
            return self.values[frame]
        return frame

    def matches(self, expected: Any, found: Any) -> bool:
        """True if `found` is what `expected` stands for; what new words stand for is learned."""
        if expected == _REST:
            return True
        if isinstance(expected, str) and expected.startswith(_REST):
            return bool(self.values.setdefault(expected, found) == found)
        if isinstance(expected, dict) and isinstance(found, dict):
            fields = {key: value for key, value in expected.items() if key != _REST}
            if _REST not in expected and fields.keys() != found.keys():
                return False
            return fields.keys() <= found.keys() and all(
                self.matches(value, found[key]) for key, value in fields.items()
            )
        if isinstance(expected, list) and isinstance(found, list):
            return len(expected) == len(found) and all(map(self.matches, expected, found))
        return type(expected) is type(found) and bool(expected == found)


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text."""
    found: list[Block] = []
    inside: Block | None = None
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if fence is None:
            if inside is not None:
                inside.text += line + "\n"
        elif inside is None:
            inside = Block(fence[1].strip(), number, "")
        else:
            found.append(inside)
            inside = None
    assert inside is None, f"the fence of line {inside and inside.line} is not closed"
    return found


def steps(block: Block) -> list[Step]:
    """The lines of an example; one that begins with a blank goes on with the one before."""
    found: list[Step] = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        match = _LINE.match(line)
        if match is not None:
            found.append(Step(number, match[1], match[2] == "→", match[3]))
        elif line.startswith(" ") and found:
            found[-1].frame += " " + line.strip()
        else:
            raise ValueError(f"line {number} is no line of an example: {line}")
    return found


def documents() -> list[Path]:
    """All Markdown files of the project."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def headings(text: str) -> set[str]:
    """What `#…` in a link may be: GitHub's names of the headings."""
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", without_code, re.MULTILINE)
    }


def token(sub: str, seconds: int) -> str:
    """A JWT of an agent."""
    claims = {
        "sub": sub,
        "exp": int(time.time()) + seconds,
        "loginType": "USER_TYPE",
        "isCustomerService": True,
    }
    return jwt.encode(claims, SECRET, algorithm="HS256")


# ---- the protocol


class ExampleReaderTests(unittest.TestCase):
    def test_matching(self) -> None:
        """Exactly what is written, but for `…`; a word means one value."""
        known = Known()
        self.assertTrue(known.matches({"a": "…", "b": "…x"}, {"a": 1, "b": 2}))
        self.assertTrue(known.matches({"…": "…", "b": "…x"}, {"a": 1, "b": 2}))
        self.assertFalse(known.matches({"b": "…x"}, {"b": 3}))
        self.assertFalse(known.matches({"a": 1}, {"a": 1, "b": 2}))
        self.assertFalse(known.matches({"a": 1, "b": "…"}, {"a": 1}))
        self.assertFalse(known.matches({"a": True}, {"a": 1}))
        self.assertFalse(known.matches([1], [1, 2]))
        self.assertEqual(known.fill_in({"c": ["…x"]}), {"c": [2]})

    def test_steps(self) -> None:
        """Lines, continued ones among them, with their numbers."""
        [block] = blocks('text\n```json example\na → {"b":\n     1}\na ← close 4003\n```\n')
        self.assertEqual(steps(block), [Step(3, "a", True, '{"b": 1}'), Step(5, "a", False, "close 4003")])
        self.assertRaises(ValueError, steps, Block("json example", 1, "no arrow\n"))


class ProtocolExampleTests(unittest.TestCase):
    timeout = 300

    async def start(self, ini: dict[str, dict[str, object]]) -> NodeServer:
        """An embedded node of its own."""
        folder = Path(tempfile.mkdtemp(prefix="imd docs "))
        self.addCleanup(shutil.rmtree, folder)
        node = NodeServer(folder, ini)
        self.addCleanup(deferToThread, node.stop)
        await deferToThread(node.start)
        return node

    async def test_all(self) -> None:
        """Every example of protocol.md, one after the other on the same node."""
        open_node = await self.start({})
        jwt_node = await self.start({"auth": {"mode": "jwt", "secret": SECRET}})
        urls = {"json example": open_node.url, "json example jwt": jwt_node.url}
        known = Known()
        self.know_tokens(known)
        played = 0
        for block in blocks(PROTOCOL.read_text()):
            self.assertIn(block.info, urls, f"line {block.line}")
            await self.play(block, urls[block.info], known)
            played += 1
        self.assertGreater(played, 10)

    def know_tokens(self, known: Known) -> None:
        """The tokens that the examples speak of."""
        known.values["…alices-token"] = token("alice", 600)
        known.values["…alices-newer-token"] = token("alice", 1200)
        known.values["…bobs-token"] = token("bob", 600)

    async def play(self, block: Block, url: str, known: Known) -> None:
        """Be all the clients of an example."""
        connections: dict[str, WsClient] = {}
        try:
            for step in steps(block):
                where = f"protocol.md, line {step.line}"
                if step.connection not in connections:
                    connections[step.connection] = await WsClient.open(url)
                client = connections[step.connection]
                if step.sends:
                    await self.send(client, step, known)
                elif step.frame.startswith("close "):
                    self.assertEqual(f"close {await client.wait_closed()}", step.frame, where)
                    self.assertEqual(list(client.frames), [], where)
                else:
                    found = await client.next()
                    self.assertTrue(
                        known.matches(json.loads(step.frame), found), f"{where}: {found} for {step.frame}"
                    )
                    self.assertIn(next(iter(found)), ("type", "seq"), where)
            for name, client in connections.items():
                if not client.closed:
                    await client.quiet()
                    self.assertEqual(list(client.frames), [], f"{name}, after line {block.line}")
        finally:
            for client in connections.values():
                await client.close()

    async def send(self, client: WsClient, step: Step, known: Known) -> None:
        """What an example's client does."""
        if step.frame == "close":
            await client.close()
        elif step.frame.startswith("{"):
            client.send(known.fill_in(json.loads(step.frame)))
        else:
            client.send_raw(step.frame.encode())

    def test_all_codes(self) -> None:
        """Each error code and close code that there is has its row."""
        text = PROTOCOL.read_text()
        for code in errors.ERROR_CODES:
            self.assertRegex(text, rf"(?m)^\| `{code}` \|", code)
        for name, code in vars(errors).items():
            if name.startswith("CLOSE_"):
                self.assertRegex(text, rf"(?m)^\| {code} \|", name)


# ---- what operators are told to do


class OperationsTests(unittest.TestCase):
    timeout = 120

    async def test_dead_letters(self) -> None:
        """The example looks at dead letters without taking them, and replays them when told to."""
        [example] = [b.text for b in blocks(DEAD_LETTERS.read_text()) if b.info == "python"]
        url = await deferToThread(shared().amqp_url)
        example = example.replace("amqp://guest:guest@127.0.0.1:5672/", url)
        broker = Broker(url)
        self.addCleanup(broker.close)
        for queue in ("imd.archive", "imd.archive.dead"):
            broker.channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        broker.put("imd.archive.dead", b'{"id":"1"}')
        broker.put("imd.archive.dead", b'{"id":"2"}')
        await until(lambda: broker.length("imd.archive.dead") == 2, "both are there")
        await deferToThread(self.run_example, example)
        await until(lambda: broker.length("imd.archive.dead") == 2, "both are there again")
        await deferToThread(self.run_example, example.replace("REPLAY = False", "REPLAY = True"))
        await until(lambda: broker.length("imd.archive") == 2, "both are replayed")
        self.assertEqual(broker.length("imd.archive.dead"), 0)
        taken = broker.take("imd.archive")
        assert taken is not None
        self.assertEqual(json.loads(taken[1]), [{"id": "1"}])

    def run_example(self, source: str) -> None:
        """Run it as a script, without what it prints."""
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, DEAD_LETTERS.name, "exec"), {})

    async def test_restored_backup(self) -> None:
        """After the statement for a restored file, a device whose numbers are given out again is told so."""
        [statement] = re.findall(r'"(UPDATE user SET [^"]*)"', BACKUP.read_text())
        folder = Path(self.mktemp())
        store = await self.open_store(folder)
        await store.accept([submission("alice", ["bob"])])
        await store.stop()
        copy = (folder / "imd.db").read_bytes()
        store = await self.open_store(folder)
        await store.accept([submission("alice", ["bob"])])
        before = await store.connect(ConnectRequest("bob", "phone", "one"))
        self.assertEqual([seq for seq, _ in before.page.messages], [1, 2])
        await store.stop()
        (folder / "imd.db").write_bytes(copy)
        with contextlib.closing(sqlite3.connect(folder / "imd.db")) as file:
            file.execute(statement)
            file.commit()
        store = await self.open_store(folder)
        self.addCleanup(store.stop)
        await store.accept([submission("alice", ["bob"])])
        after = await store.connect(ConnectRequest("bob", "phone", "two", epoch=before.page.epoch, seq=2))
        self.assertIs(after.recovered, False)
        self.assertEqual([seq for seq, _ in after.page.messages], [1, 2])

    async def open_store(self, folder: Path) -> EmbeddedStore:
        store = EmbeddedStore(str(folder), InboxOptions(), ServerClock(), reactor)
        await store.start()
        return store


def submission(sender: str, recipients: list[str]) -> Submission:
    """A message."""
    message_id, now_ms = MessageIds(ServerClock()).next()
    body = encode_message(IMessage(message_id, user_id=sender, to=recipients[0], msg="hi", send_time=now_ms))
    return Submission(sender, "default", None, "-", message_id, now_ms, recipients, body)


# ---- everything


def links(path: Path) -> list[tuple[str, Path, str]]:
    """The relative links of a document: as written, their file or folder, and the heading or nothing."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = []
    for link in re.findall(r"(?:\]\(|src=\")([^)\s\"]+)[)\"]", text):
        if not re.match(r"[a-z]+:", link):
            name, _, heading = link.partition("#")
            found.append((link, (path.parent / name).resolve() if name else path, heading))
    return found


class LinkTests(unittest.TestCase):
    def test_relative_links(self) -> None:
        """Each leads to a file of the project, and to a heading if it names one."""
        for path in documents():
            for link, target, heading in links(path):
                where = f"{path.relative_to(ROOT)}: {link}"
                self.assertTrue(target.exists() and target.is_relative_to(ROOT), where)
                if heading:
                    self.assertIn(heading, headings(target.read_text()), where)

    def test_contents(self) -> None:
        """The list of headings at the top of a document names all of them, in their order."""
        for path in documents():
            text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
            listed = re.findall(r"(?m)^- \[.*\]\(#(.*)\)$", text)
            if listed:
                titles = re.findall(r"(?m)^## .*$", text)
                anchors = [anchor for title in titles for anchor in headings(title)]
                self.assertEqual(listed, anchors, path.name)

    def test_reachable(self) -> None:
        """Each file in docs/ is reached by links that begin at docs/README.md."""
        reached = {ROOT / "docs" / "README.md"}
        ahead = list(reached)
        while ahead:
            path = ahead.pop()
            if path.suffix == ".md":
                found = {target for _, target, _ in links(path) if target.is_file()} - reached
                reached |= found
                ahead += found
        there = {path for path in (ROOT / "docs").rglob("*") if path.is_file()}
        self.assertEqual(sorted(str(path.relative_to(ROOT)) for path in there - reached), [])

    def test_files_named(self) -> None:
        """Files and folders named in backquotes by their path exist."""
        pattern = r"`((?:imd|tests|docs|etc|scripts)/[\w./@-]+)`"
        for path in documents():
            for name in re.findall(pattern, path.read_text()):
                self.assertTrue((ROOT / name).exists(), f"{path.relative_to(ROOT)}: {name}")

    def test_named_in_code(self) -> None:
        """Documents that comments, messages and scripts name exist."""
        named = set()
        for folder in ("imd", "tests", "scripts", "etc", "examples"):
            for path in (ROOT / folder).rglob("*"):
                if path.suffix in (".py", ".js", ".ts", ".lua", ".ini", ".sh", "") and path.is_file():
                    names = re.findall(r"docs/[\w/-]+\.md", path.read_text(errors="replace"))
                    named |= {(name, str(path.relative_to(ROOT))) for name in names}
        self.assertGreater(len(named), 5)
        self.assertEqual([names for names in sorted(named) if not (ROOT / names[0]).exists()], [])

    def test_tests_named(self) -> None:
        """A test that a document refers to, as `module.Class.test`, is there."""
        for path in documents():
            for module, rest in re.findall(r"`(tests(?:\.\w+)*?\.test_\w+)((?:\.\w+)*)`", path.read_text()):
                where = f"{path.relative_to(ROOT)}: {module}{rest}"
                source = ROOT / f"{module.replace('.', '/')}.py"
                self.assertTrue(source.exists(), where)
                for name in filter(None, rest.split(".")):
                    self.assertRegex(source.read_text(), rf"(class|def) {name}\b", where)

    def test_decisions_are_listed(self) -> None:
        """The index of decisions has each of them, by its number and title."""
        index = (DECISIONS / "README.md").read_text()
        listed = re.findall(r"(?m)^(\d+)\. \[(.*)\]\((.*)\)$", index)
        there = []
        for path in sorted(DECISIONS.glob("[0-9]*.md")):
            title = re.match(r"# (\d+)\. (.*)\n", path.read_text())
            assert title is not None, path.name
            there.append((title[1], title[2], path.name))
        self.assertEqual(listed, there)


class ReadmeTests(unittest.TestCase):
    def test_starting_a_node(self) -> None:
        """The lines that start one, as they stand there: twistd takes their options and the configuration."""
        lines = re.findall(r"(?m)^    (twistd .*)$", (ROOT / "README.md").read_text())
        self.assertIn("twistd imd --config etc/node.ini", lines)
        for line in lines:
            options = ServerOptions()
            before = os.getcwd()
            os.chdir(ROOT)
            try:
                options.parseOptions(line.split()[1:])
            finally:
                os.chdir(before)
            self.assertEqual(options.subCommand, "imd")
            self.assertEqual(options.subOptions.settings, load(str(ROOT / "etc" / "node.ini")))


class CompletenessTests(unittest.TestCase):
    def test_every_key(self) -> None:
        """The reference has a row for each configuration key, in its section's table, with its default."""
        sections = re.split(r"(?m)^## ", (REFERENCE / "configuration.md").read_text())
        tables = {match[1]: part for part in sections if (match := re.match(r"`\[(\w+)\]`", part))}
        for name, section in get_type_hints(Settings).items():
            for key in dataclasses.fields(section):
                row = re.search(rf"(?m)^\| `{key.name}` \| ([^|]*) \|", tables.get(name, ""))
                self.assertIsNotNone(row, f"[{name}] {key.name}")
                assert row is not None
                default = key.default
                if isinstance(default, bool):
                    shown = "yes" if default else "no"
                elif default in ("", ()):
                    shown = "empty"
                elif isinstance(default, (int, float)):
                    shown = f"{default:.12g}"
                else:
                    shown = default
                self.assertEqual(row[1].strip().strip("`"), shown, f"[{name}] {key.name}")

    def test_every_metric(self) -> None:
        """The reference has a row for each metric of the code, and no others."""
        text = (REFERENCE / "metrics.md").read_text()
        rows = re.findall(r"(?m)^\| (`imd_.*?) \|", text)
        named = {name for row in rows for name in re.findall(r"`(imd_[a-z_]+)", row)}
        there = set()
        for path in (ROOT / "imd").rglob("*.py"):
            there |= set(re.findall(r"\(\s*\"(imd_[a-z_]+)\"", path.read_text()))
        self.assertEqual(named, there)
        for path in documents():
            for name in re.findall(r"`(imd_[a-z_]+)[`{]", path.read_text()):
                self.assertIn(name, there, path.name)

    def test_bounds(self) -> None:
        """The constants that the table of queues names are in their modules."""
        text = (REFERENCE / "limits.md").read_text()
        named = re.findall(r"`((?:[a-z_]+\.)+)([A-Z][A-Z_]+)`", text)
        self.assertGreater(len(named), 20)
        modules = list((ROOT / "imd").rglob("*.py"))
        for module, constant in named:
            ending = "/" + module.rstrip(".").replace(".", "/") + ".py"
            found = [path.read_text() for path in modules if str(path).endswith(ending)]
            self.assertTrue(any(re.search(rf"(?m)^{constant}\b", text) for text in found), module + constant)

    def test_every_module(self) -> None:
        """architecture.md says what each module is for."""
        text = ARCHITECTURE.read_text()
        for path in (ROOT / "imd").rglob("*"):
            if path.suffix in (".py", ".lua") and path.name != "__init__.py":
                self.assertIn(f"`{path.name}`", text, path.name)

    def test_version(self) -> None:
        """NEWS.md begins with the version at hand."""
        self.assertRegex((ROOT / "NEWS.md").read_text(), rf"(?m)\A# .*\n\n## {re.escape(imd.__version__)}\b")

    def test_python_examples(self) -> None:
        """Examples in Python can be compiled."""
        for path in documents():
            for block in blocks(path.read_text()):
                if block.info == "python":
                    compile(block.text, f"{path.name}:{block.line}", "exec")
