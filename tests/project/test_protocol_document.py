"""docs/protocol.md is true: its examples are played against a node, its tables of codes are complete."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from imd.chat.handlers import HANDLERS
from imd.protocol import errors
from tests.project.documents import Block, blocks
from tests.support.nodes import NodeServer
from tests.support.paths import ROOT
from tests.support.ws_client import WsClient

PROTOCOL = ROOT / "docs" / "protocol.md"
SECRET = "only for the examples of the protocol"

_LINE = re.compile(r"^([\w-]+) ([→←]) (.*)$")
_REST = "…"


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


def token(sub: str, seconds: int) -> str:
    """A JWT of an agent."""
    claims = {
        "sub": sub,
        "exp": int(time.time()) + seconds,
        "loginType": "USER_TYPE",
        "isCustomerService": True,
    }
    return jwt.encode(claims, SECRET, algorithm="HS256")


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
        """Perform the step of an example's client."""
        if step.frame == "close":
            await client.close()
        elif step.frame.startswith("{"):
            client.send(known.fill_in(json.loads(step.frame)))
        else:
            client.send_raw(step.frame.encode())

    def test_all_frames(self) -> None:
        """The table at the top names each frame of a client, and no others."""
        _, top = PROTOCOL.read_text().split("| client → node | answered by |\n", 1)
        rows = re.findall(r"(?m)^\| (`.*?) \|", top.partition("\n\n")[0])
        named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
        self.assertEqual(sorted([*named, "message"]), sorted(name for name, _ in HANDLERS.values()))

    def test_all_codes(self) -> None:
        """Each error code and close code that there is has its row."""
        text = PROTOCOL.read_text()
        for code in errors.ERROR_CODES:
            self.assertRegex(text, rf"(?m)^\| `{code}` \|", code)
        for name, code in vars(errors).items():
            if name.startswith("CLOSE_"):
                self.assertRegex(text, rf"(?m)^\| {code} \|", name)
