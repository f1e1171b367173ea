"""Messages between two nodes while many users type: their latency, and how much of the typing passes.

Once with the bus as it is, and once through a connection to RabbitMQ that is just wide enough for messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.servers import HOST
from tests.tools.bench.clients import Client, Pair, Recipient, Watch, masked_frame
from tests.tools.bench.load import Pacer, close_pairs, drain, percentile, time_from_now
from tests.tools.bench.plan import Plan, Say
from tests.tools.bench.report import Row, within
from tests.tools.bench.rig import PinnedNode, Rig

# One for a conversation and so many seconds passes.
PACE_SECONDS = 3.0
# Of what messages alone need, beside them.
SPARE = 1.1
LEFT_OUT = [f'imd_signals_dropped_total{{kind="typing",why="{why}"}}' for why in ("congested", "full")]
_CHUNK_BYTES = 4096
_SEGMENT_BYTES = 1448
# After a pause the narrow way makes up for so much: this process has other work.
CREDIT_SECONDS = 0.1


class Hearer(Recipient):
    """A recipient that is told who types."""

    typing = 0

    def arrived(self, payload: bytes) -> None:
        if payload.startswith(b'{"type":"typing"'):
            self.typing += 1
        elif not payload.startswith(b'{"type":"state"'):
            super().arrived(payload)


class Talk(Pair):
    """A sender, and a recipient that is told who types."""

    def __init__(self, watch: Watch, name: str) -> None:
        super().__init__(watch, name)
        self.hearer = Hearer(watch, self.recipient.user, name.encode() + b"-%012d", features=["state"])
        self.recipient = self.hearer


class Narrow:
    """A TCP proxy whose way to the server passes `bytes_per_second` at most on each connection; 0: all."""

    def __init__(self, target: int) -> None:
        self.bytes_per_second = 0.0
        self.passed = 0
        """bytes to the server, of all connections"""
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Gives the port."""
        listening = socket.socket()
        # Bytes that wait have to wait in the node, where it sees them.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _CHUNK_BYTES)
        # Segments of the loopback are larger than this buffer: once it was full, a tenth would pass.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
        listening.bind((HOST, 0))
        self._server = await asyncio.start_server(self._connected, sock=listening, limit=_CHUNK_BYTES)
        return int(listening.getsockname()[1])

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, self._target)
        for task in (self._pass(reader, far_writer, True), self._pass(far_reader, writer, False)):
            self._tasks.add(asyncio.ensure_future(task))

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_narrow: bool
    ) -> None:
        due = time.perf_counter()
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES if is_narrow else 1 << 16):
                writer.write(data)
                await writer.drain()
                if is_narrow:
                    self.passed += len(data)
                    if self.bytes_per_second:
                        due = (
                            max(due, time.perf_counter() - CREDIT_SECONDS) + len(data) / self.bytes_per_second
                        )
                        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        writer.close()


class Typers:
    """Users of one node who type to all recipients, as often as it passes."""

    def __init__(self, watch: Watch, plan: Plan, recipients: Sequence[Recipient]) -> None:
        each = len(recipients) / PACE_SECONDS
        self.clients = [Client(watch, f"typer{n}") for n in range(max(1, round(plan.typing_rate / each)))]
        frames = [
            masked_frame(b'{"type":"typing","with":"%b"}' % recipient.user.encode())
            for recipient in recipients
        ]
        self._turns = itertools.cycle([(client, frame) for frame in frames for client in self.clients])
        self._rate = len(self.clients) * each
        self._watch = watch
        self.sent = 0

    async def run(self) -> None:
        """Until it is cancelled."""
        began, first = time.perf_counter(), self.sent
        while True:
            due = int((time.perf_counter() - began) * self._rate) - self.sent + first
            for client, frame in itertools.islice(self._turns, due):
                client.write(frame)
            self.sent += due
            await self._watch.sleep(0.002)


@dataclass
class Seen:
    """Seconds to the recipients; `typing` that was sent, that came, and that the sender's node left out."""

    latencies: list[float]
    sent: int = 0
    came: int = 0
    left_out: float = 0.0
    hints_lost: float = 0.0
    bytes_per_second: float = 0.0

    def ms(self, percent: float) -> float:
        return percentile(self.latencies, percent) * 1000

    def __str__(self) -> str:
        typing = f"; typing: {self.sent:,} sent, {self.came:,} came, {self.left_out:,.0f} left out"
        return (
            f"p50 {self.ms(50):.2f} ms, p99 {self.ms(99):.2f} ms, {self.bytes_per_second:,.0f} bytes/s"
            f"{typing if self.sent else ''}; hints lost: {self.hints_lost:.0f}"
        )


async def typing(rig: Rig, plan: Plan, say: Say) -> list[Row]:
    """Latencies with typing beside, the reference without; the part of the typing that came."""
    rate = f"{plan.typing_rate:,.0f} typing/s beside {plan.rate:,.0f} messages/s"
    rows: dict[str, Row] = {}
    for turn in range(plan.turns):
        found = await _turn(rig, plan, lambda text, turn=turn: say(f"turn {turn + 1}: {text}"))
        for kind, (alone, beside) in found.items():
            for percent in (50, 99):
                name, what = f"typing-{kind}-p{percent}", f"{rate}, {kind} bus: to another node, p{percent}"
                row = rows.setdefault(name, Row(name, what, "ms", goal=within(15) if percent == 99 else None))
                row.values.append(beside.ms(percent))
                row.reference.append(alone.ms(percent))
            for name, what, value in (
                ("came", "typing that came", 100 * beside.came / beside.sent),
                ("dropped", "typing left out, by its metric", 100 * beside.left_out / beside.sent),
                ("hints", "hints of messages left out", beside.hints_lost),
            ):
                unit = "" if name == "hints" else "%"
                row = rows.setdefault(
                    f"typing-{kind}-{name}", Row(f"typing-{kind}-{name}", f"{rate}, {kind} bus: {what}", unit)
                )
                row.values.append(value)
    return list(rows.values())


async def _turn(rig: Rig, plan: Plan, say: Say) -> dict[str, tuple[Seen, Seen]]:
    """For a wide bus and a narrow one: without typing, and with it."""
    rig.start_services()
    narrow = Narrow(rig.rabbit.port)
    port = await narrow.start()
    try:
        [there] = rig.cluster()
        # In a thread: what it sends comes through this process.
        here = await asyncio.to_thread(rig.another, port)
        watch = Watch()
        talks = [Talk(watch, f"t{number}") for number in range(plan.shape.pairs)]
        for talk in talks:
            await talk.open(here.url, there.url)
        typers = Typers(watch, plan, [talk.recipient for talk in talks])
        for typer in typers.clients:
            await typer.open(here.url)
        run = Run(watch, plan, here, talks, narrow, typers)
        found = {}
        for kind in ("wide", "narrow"):
            found[kind] = alone, beside = await run.pair()
            say(f"{kind}: alone {alone}; beside {beside}")
            narrow.bytes_per_second = SPARE * alone.bytes_per_second
        narrow.bytes_per_second = 0
        await close_pairs(watch, list(talks))
        for typer in typers.clients:
            typer.close()
        return found
    finally:
        await asyncio.to_thread(rig.stop_nodes)
        await narrow.stop()


@dataclass
class Run:
    """Pairs between two nodes, and those who type beside them."""

    watch: Watch
    plan: Plan
    node: PinnedNode
    talks: list[Talk]
    narrow: Narrow
    typers: Typers

    async def pair(self) -> tuple[Seen, Seen]:
        """Without typing, and with it."""
        alone = await self._measured()
        typing = asyncio.ensure_future(self.typers.run())
        try:
            return alone, await self._measured()
        finally:
            typing.cancel()
            await asyncio.gather(typing, return_exceptions=True)

    async def _measured(self) -> Seen:
        pairs: list[Pair] = list(self.talks)
        pacer = Pacer(pairs, self.plan.rate)
        await pacer.run(self.watch, self.plan.warm_seconds)
        time_from_now(pairs)
        before, began = self._counts(), time.perf_counter()
        await pacer.run(self.watch, self.plan.seconds)
        took, after = time.perf_counter() - began, self._counts()
        await drain(self.watch, pairs)
        sent, came, left_out, lost, passed = (now - then for now, then in zip(after, before, strict=True))
        latencies = [one for talk in self.talks for one in talk.recipient.latencies or () if one == one]
        return Seen(latencies, int(sent), int(came), left_out, lost, passed / took)

    def _counts(self) -> tuple[float, ...]:
        return (
            self.typers.sent,
            sum(talk.hearer.typing for talk in self.talks),
            sum(self.node.metric(name) for name in LEFT_OUT),
            self.node.metric("imd_bus_dropped_total"),
            self.narrow.passed,
        )
