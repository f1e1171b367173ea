"""Readers that stand still: some leave everything in the socket, some never acknowledge; then all go on.

python -m tests.tools.drill.slow [--clients N] [--messages N] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

from tests.support.servers import ServerError
from tests.tools.drill.crowd import Client, Crowd
from tests.tools.drill.stage import Stage, perform, raise_file_limit, rss_mb, say

TALKING_PAIRS, MESSAGES_A_SECOND = 20, 200.0
CALM_SECONDS = 8.0
SENDERS, WINDOW = 8, 4
GROUP = 25
LOGIN_SECONDS = 60.0
FILL_SECONDS = 900.0


class Sender:
    """Sends one message to each of its groups in turn, as fast as they are accepted."""

    def __init__(self, client: Client, groups: list[list[str]], rounds: int, size: int) -> None:
        self.client = client
        self.groups = groups
        self.text = "x" * size
        self.left = rounds * len(groups)
        self.under_way = 0
        self.sent = 0
        client.on_accepted = self.answered

    def go_on(self) -> None:
        while self.left and self.under_way < WINDOW:
            self.left -= 1
            self.under_way += 1
            self.sent += 1
            group = self.groups[self.sent % len(self.groups)]
            self.client.send({"group": group, "msg": self.text, "clientMsgId": str(self.sent)})

    def answered(self) -> None:
        self.under_way -= 1
        self.go_on()
        self.client.crowd.changed.set()

    @property
    def done(self) -> bool:
        return not self.left and not self.under_way


class Slow:
    """One run: `report` is what it found out."""

    def __init__(self, stage: Stage, count: int, messages: int, size: int) -> None:
        self.stage = stage
        self.node = stage.nodes[0]
        self.messages = messages
        self.size = size
        self.crowd = Crowd(lambda: [self.node.url])
        # The readers do not acknowledge: only the socket holds messages back from them.
        self.readers = [Client(self.crowd, f"r{n}", acks=False, announces=bool(n % 2)) for n in range(count)]
        self.report: dict[str, Any] = {"readers": count, "messages for each": messages, "bytes": size}

    async def run(self) -> None:
        # Half of those who chat are on the readers' node, half on the other.
        await asyncio.to_thread(self.stage.start_talkers, self.stage.nodes, TALKING_PAIRS, MESSAGES_A_SECOND)
        say(f"{len(self.readers)} readers log in")
        for reader in self.readers:
            reader.start()
        everybody = len(self.readers)
        await self.crowd.until(lambda: self.crowd.online == everybody, LOGIN_SECONDS, "the readers log in")
        for reader in self.readers[::2]:
            reader.pause_reading()
        await self.phase("before", asyncio.sleep(CALM_SECONDS))
        say(f"{self.messages} messages for each")
        await self.phase("while they stand still", self.fill())
        await self.phase("all have everything waiting", asyncio.sleep(CALM_SECONDS))
        self.report["blocked"] = {
            name: self.node.metric(name)
            for name in ("imd_blocked_connections", "imd_blocked_bytes", "imd_choked_connections")
        }
        say("the readers go on")
        began = time.monotonic()
        await self.phase("while they catch up", self.catch_up())
        seconds = time.monotonic() - began
        self.report["caught up"] = {
            "seconds": round(seconds, 1),
            "messages a second": round(everybody * self.messages / seconds),
        }
        await self.phase("after", asyncio.sleep(CALM_SECONDS))
        self.report["seen by readers"] = dict(self.crowd.seen)
        self.report["broken promises"] = self.crowd.wrong[:10]
        for reader in self.readers:
            await reader.stop()

    async def phase(self, name: str, work: Any) -> None:
        """See how much memory the node has while `work` runs, and what the others notice of it."""
        begin = time.monotonic()
        most = rss_mb(self.node)
        task = asyncio.ensure_future(work)
        while not (await asyncio.wait([task], timeout=0.5))[0]:
            most = max(most, rss_mb(self.node))
        await task
        self.report[name] = {
            "node's memory, MB": rss_mb(self.node),
            "at most": most,
            "seconds": round(time.monotonic() - begin, 1),
            "latency of others": self.stage.latencies(begin, time.monotonic()),
        }
        say(f"{name}: {self.report[name]}")

    async def fill(self) -> None:
        users = [reader.user for reader in self.readers]
        groups = [users[start : start + GROUP] for start in range(0, len(users), GROUP)]
        crowd = Crowd(lambda: [self.stage.nodes[1].url])
        count = min(SENDERS, len(groups))
        clients = [Client(crowd, f"sender-{number}") for number in range(count)]
        for client in clients:
            client.start()
        await crowd.until(lambda: crowd.online == count, LOGIN_SECONDS, "the senders log in")
        senders = [
            Sender(client, groups[n::count], self.messages, self.size) for n, client in enumerate(clients)
        ]
        for sender in senders:
            sender.go_on()
        await crowd.until(lambda: all(sender.done for sender in senders), FILL_SECONDS, "all are sent")
        for client in clients:
            await client.stop()
        if crowd.seen:
            raise ServerError(f"the senders saw {dict(crowd.seen)}")

    async def catch_up(self) -> None:
        for reader in self.readers:
            reader.acks = reader.announces
            reader.resume_reading()
            if reader.acks:
                reader.acknowledge()
        waiting = list(self.readers)

        def done() -> bool:
            waiting[:] = [reader for reader in waiting if reader.seq < self.messages]
            return not waiting

        await self.crowd.until(done, FILL_SECONDS, "all have caught up")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/drill slow", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=500, metavar="N", help="slow readers (500)")
    parser.add_argument("--messages", type=int, default=10_000, metavar="N", help="waiting for each (10000)")
    parser.add_argument("--bytes", type=int, default=60, metavar="N", help="of a message's text (60)")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    options = parser.parse_args(argv)
    raise_file_limit(options.clients)
    ini = {
        "limits": {"messages_per_second": 0},
        "inbox": {"max_messages": options.messages + 1000},
        # Clients that do not read do not answer pings either; they are not to be closed for it here.
        "websocket": {"ping_seconds": 3600, "pong_seconds": 3600},
    }
    with Stage(2, ini) as stage:
        return perform(Slow(stage, options.clients, options.messages, options.bytes), options.json)


if __name__ == "__main__":
    sys.exit(main())
