"""Instructions for each message of the path in pure Python, counted by valgrind: the same on every machine.

    python -m tests.tools.bench.instructions MESSAGES

runs that many messages from frame to frame through one node's objects; the backends answer from memory.
Two counts are taken, and their difference leaves out what a start costs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from imd.config.settings import Limits, Settings
from imd.contracts.archive import Record
from imd.contracts.inbox import Ack, Delivery, Head, Outcome, Placed, Submission
from imd.node.backends import Backends
from imd.node.node import Node
from imd.protocol.ids import ServerClock
from tests.support.doubles import (
    AimsDouble,
    ArchiveDouble,
    BlocksDouble,
    InboxDouble,
    QueueDouble,
    RoomsDouble,
    StatesDouble,
)
from tests.support.paths import ROOT
from tests.tools.bench.clients import ACK_EVERY, Wrong, masked_frame
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row
from tests.tools.bench.rig import Rig

PAIRS = 50
_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:9000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# Whole rounds of acknowledgements.
FEW, MANY = PAIRS * ACK_EVERY, 3 * PAIRS * ACK_EVERY
COUNT_SECONDS = 300


class QuickInbox(InboxDouble):
    """Numbers messages and forgets them: what the inbox itself costs is not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.seqs: dict[str, int] = {}
        self.places: dict[str, tuple[str, list[str]]] = {}
        self.placed: deque[Callable[[], None]] = deque()

    def know(self, users: Sequence[str]) -> None:
        """Look up once where these users are."""
        for user in users:
            held = self.of(user)
            self.seqs[user] = held.head
            self.places[user] = (held.epoch, [channel for channel, _ in held.channels.values()])

    def accept(self, batch: Sequence[Submission]) -> Deferred[list[Outcome]]:
        outcomes: list[Outcome] = []
        for submission in batch:
            [user] = submission.recipients
            self.seqs[user] += 1
            epoch, channels = self.places[user]
            delivery = Delivery(user, epoch, self.seqs[user], channels, submission.body)
            outcomes.append(Placed([delivery], agent=""))
        answer: Deferred[list[Outcome]] = Deferred()
        self.placed.append(lambda: answer.callback(outcomes))
        return answer

    def ack(self, ack: Ack) -> Deferred[Head]:
        return succeed(Head(True, self.places[ack.user][0], self.seqs[ack.user]))


class QuickQueue(QueueDouble):
    def publish(self, records: Sequence[Record]) -> Deferred[None]:
        return succeed(None)


class HotPath:
    """A node's objects between frames in and frames out; nothing but calls, no socket, no time."""

    def __init__(self, pairs: int) -> None:
        self.clock = Clock()
        self.inbox = QuickInbox()
        backends = Backends(
            inbox=self.inbox,
            queue=QuickQueue(),
            archive=ArchiveDouble(),
            rooms=RoomsDouble(),
            states=StatesDouble(),
            aims=AimsDouble(),
            presence=AimsDouble(),
            blocks=BlocksDouble(),
            bus=None,
        )
        settings = Settings(limits=Limits(messages_per_second=0))
        node = Node(self.clock, settings, ServerClock(), backends)
        self.factory = node.parts.make_factory(10 * pairs)
        self.factory.doStart()
        self.senders = [self.connected(f"amy{number}") for number in range(pairs)]
        self.recipients = [self.connected(f"bob{number}") for number in range(pairs)]
        self.inbox.know([f"bob{number}" for number in range(pairs)])
        self.frames = [
            masked_frame(f'{{"clientMsgId":"c{number:012d}","to":"bob{number}","msg":"{"x" * 60}"}}'.encode())
            for number in range(pairs)
        ]

    def connected(self, user: str) -> Any:
        """The server's side of a WebSocket whose client has connected."""
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 50000))
        transport = StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 50000))
        transport.setTcpNoDelay = lambda on: None
        protocol.makeConnection(transport)
        protocol.dataReceived(_HANDSHAKE)
        self.clock.pump([0.01] * 5)
        protocol.dataReceived(
            masked_frame(
                f'{{"isConnect":true,"userId":"{user}","loginType":"USER_TYPE","ack":true}}'.encode()
            )
        )
        self.clock.pump([0.01] * 5)
        self.inbox.settle()
        self.clock.pump([0.01] * 5)
        assert b'"connected"' in transport.value(), transport.value()
        transport.clear()
        return protocol

    def run(self, messages: int) -> None:
        """That many messages, a batch of one from each sender at a time. Checks that all came out."""
        written = 0
        pairs = len(self.senders)
        for turn in range(messages // pairs):
            for sender, frame in zip(self.senders, self.frames, strict=True):
                sender.dataReceived(frame)
            for _ in range(3):
                self.clock.advance(0)
                while self.inbox.placed:
                    self.inbox.placed.popleft()()
            if turn % ACK_EVERY == ACK_EVERY - 1:
                for number, recipient in enumerate(self.recipients):
                    seq = self.inbox.seqs[f"bob{number}"]
                    recipient.dataReceived(masked_frame(b'{"type":"ack","seq":%d}' % seq))
            if turn % 10 == 9:
                written += self.count()
        written += self.count()
        assert written == 2 * (messages // pairs) * pairs, f"{written} frames for {messages} messages"

    def count(self) -> int:
        """Frames written since the last time: messages and answers."""
        frames = 0
        for protocol in (*self.senders, *self.recipients):
            value = protocol.transport.value()
            frames += value.count(b'{"seq":') + value.count(b'{"type":"accepted"')
            protocol.transport.clear()
        return frames


def counted(messages: int) -> int:
    """Instructions of a whole process that passes on that many messages."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    command += [sys.executable, "-m", "tests.tools.bench.instructions", str(messages)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"},
        capture_output=True,
        text=True,
        timeout=COUNT_SECONDS,
    )
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if done.returncode or found is None:
        raise Wrong(f"valgrind: {done.stderr[-2000:]}")
    return int(found[1].replace(",", ""))


def _performance() -> str:
    return (ROOT / "docs" / "performance.md").read_text()


async def instructions(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """Needs valgrind; says so and measures nothing without it."""
    row = Row("instructions", "from frame to frames, backends left out", "thousand instructions/message")
    if shutil.which("valgrind") is None:
        say("valgrind is not installed (as root: apt-get install valgrind)")
        return []
    few, many = counted(FEW), counted(MANY)
    row.values.append((many - few) / (MANY - FEW) / 1000)
    releases = re.findall(r"(?m)^\| (\d+\.\d+\.\d+) \| ([\d.]+) \|", _performance())
    if releases:
        version, thousands = releases[-1]
        row.reference.append(float(thousands))
        row.notes.append(f"the reference: release {version}, by docs/performance.md")
    say(f"{row.values[0]:.1f} thousand instructions a message")
    return [row]


if __name__ == "__main__":
    HotPath(PAIRS).run(int(sys.argv[1]))
