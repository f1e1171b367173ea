"""The processes of the benchmark: nodes and relays on the first core, the three servers on the second."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pymongo import MongoClient

from imd.command.redis_client import RedisClient
from tests.support.nodes import Ini, NodeServer
from tests.support.servers import HOST, MongoServer, RabbitServer, RedisServer, Server, ServerType
from tests.support.servers.process import wait_until
from tests.tools.bench.load import BUSY_LOAD, BUSY_NODE
from tests.tools.bench.machine import LOAD_CORE, NODE_CORE, busy_seconds, cpu_seconds, pinned
from tests.tools.bench.tree import ROOT, environment

CLEAR_SECONDS = 30.0
# Redis remembers its last calls that took longer.
SLOW_MICROS = 1000
SLOW_CALLS = 4096
# A node in valgrind takes twenty times as long for everything.
COUNTED_SECONDS = 300.0
_VALGRIND = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]


class PinnedNode(NodeServer):
    """A node on one core. `module`: what to run in place of `twistd imd`, with the same arguments.

    It runs the code in `tree`. With `counted` valgrind counts its instructions, into its log when it ends.
    """

    core = NODE_CORE
    label = "node"
    module: str | None = None
    tree = ROOT
    counted = False
    stop_seconds = 30.0

    def _command(self) -> list[str | Path]:
        command = super()._command()
        if self.module is not None:
            command = [sys.executable, "-m", self.module, *command[1:]]
        if self.counted:
            self.start_seconds = self.stop_seconds = COUNTED_SECONDS
            command = [*_VALGRIND, sys.executable, *command]
        return pinned(command, self.core)

    def _environment(self) -> dict[str, str] | None:
        return environment(self.tree)


class RelayServer(Server):
    """The bare Autobahn relay, on the node's core."""

    name = "relay"

    @property
    def url(self) -> str:
        return f"ws://{HOST}:{self.port}/ws"

    def _command(self) -> list[str | Path]:
        relay = ROOT / "tests" / "tools" / "bench" / "relay.py"
        return pinned([sys.executable, relay, str(self.port)], NODE_CORE)

    def _question(self) -> bytes:
        # No WebSocket, so that it is told so.
        return b"GET / HTTP/1.1\r\n\r\n"


class Rig:
    """Starts things in a folder of its own, the servers when first needed, and ends all of it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="imd-bench-", dir=folder))
        # As docs/how-to/cluster.md has it: a full load writes 64 MB, the default, in ten seconds.
        self.redis = RedisServer(self.folder / "redis", options=["--auto-aof-rewrite-min-size", "1gb"])
        self.rabbit = RabbitServer(self.folder / "rabbitmq")
        self.mongo = MongoServer(self.folder / "mongodb")
        self._numbers = itertools.count(1)
        self._running: list[Server] = []
        self._client: MongoClient | None = None

    def relay(self) -> RelayServer:
        """A running relay."""
        relay = RelayServer(self.folder / f"relay{next(self._numbers)}")
        return self._start(relay)

    def embedded(self, **sections: dict[str, object]) -> PinnedNode:
        """A running node on its own file."""
        return self._start(self._node({"node": {"backend": "embedded"}}, sections))

    def cluster(
        self,
        count: int = 1,
        module: str | None = None,
        *,
        tree: Path = ROOT,
        counted: bool = False,
        **sections: dict[str, object],
    ) -> list[PinnedNode]:
        """Running nodes of one cluster, whose databases and virtual host nobody has used before.

        The data of the last cluster in Redis and MongoDB are deleted first: one cluster runs at a time. For
        `module`, `tree` and `counted` see PinnedNode.
        """
        self.start_services()
        self._clear()
        number = next(self._numbers)
        self.database = f"bench{number}"
        base = {
            "node": {"backend": "cluster"},
            "redis": {"url": self.redis.url_of(number)},
            "rabbitmq": {"url": self.rabbit.url_of(self.rabbit.new_vhost())},
            "mongodb": {"url": self.mongo.url_of(self.database)},
        }
        self._base = base
        nodes = [self._node(base, sections) for _ in range(count)]
        for node in nodes:
            node.module, node.tree, node.counted = module, tree, counted
        return [self._start(node) for node in nodes]

    def consumer(self) -> PinnedNode:
        """One more node of the cluster that was started last, beside the servers: it writes the archive."""
        node = self._node(self._base, {"archive": {"consume": "yes"}})
        node.core, node.label = LOAD_CORE, "archiver"
        return self._start(node)

    def another(self, rabbit_port: int | None = None) -> PinnedNode:
        """One more node of the cluster that was started last, on the nodes' core.

        `rabbit_port`: where it finds RabbitMQ, if not at its own port.
        """
        sections: dict[str, dict[str, object]] = {}
        if rabbit_port is not None:
            url = str(self._base["rabbitmq"]["url"])
            sections = {"rabbitmq": {"url": url.replace(f":{self.rabbit.port}/", f":{rabbit_port}/")}}
        return self._start(self._node(self._base, sections))

    def _clear(self) -> None:
        with RedisClient(self.redis.url, CLEAR_SECONDS) as redis:
            redis("FLUSHALL")
            # Every page that a script writes during a rewrite is copied first: none may fall into a turn.
            redis("BGREWRITEAOF")
            wait_until(lambda: _no_rewrite(redis.info()), CLEAR_SECONDS, "the rewrite of Redis' file")
        if self._client is not None:
            self._client.drop_database(self.database)

    def start_services(self) -> None:
        for server in (self.redis, self.rabbit, self.mongo):
            if server not in self._running:
                self._start(server)

    def archived(self) -> int:
        """Messages in the archive of the cluster that was started last."""
        if self._client is None:
            self._client = MongoClient(self.mongo.url)
        return self._client[self.database]["im_message"].estimated_document_count()

    def archived_exactly(self) -> int:
        """The same, counted."""
        self.archived()
        assert self._client is not None
        return self._client[self.database]["im_message"].count_documents({})

    def forget_calls(self) -> None:
        """Have `longest_call_ms` begin anew."""
        with RedisClient(self.redis.url, CLEAR_SECONDS) as redis:
            redis("CONFIG", "SET", "slowlog-log-slower-than", SLOW_MICROS)
            redis("CONFIG", "SET", "slowlog-max-len", SLOW_CALLS)
            redis("SLOWLOG", "RESET")

    def longest_call_ms(self) -> float:
        """For how long Redis did nothing but one call, at most; at least SLOW_MICROS."""
        with RedisClient(self.redis.url, CLEAR_SECONDS) as redis:
            calls = redis("SLOWLOG", "GET", SLOW_CALLS)
        return float(max((call[2] for call in calls), default=SLOW_MICROS)) / 1000

    @contextlib.contextmanager
    def redis_first(self) -> Iterator[None]:
        """While the block lasts, Redis' main thread waits for no other work: a call takes the time that it
        needs. Nothing changes where this is not allowed."""
        self.start_services()
        flags = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        with contextlib.suppress(OSError):
            os.sched_setscheduler(self.redis.pid, flags, os.sched_param(1))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(self.redis.pid, os.SCHED_OTHER, os.sched_param(0))

    def forget_rooms(self, rooms: Sequence[str]) -> None:
        """Take the copies of these rooms out of Redis."""
        database = self._base["redis"]["url"]
        with RedisClient(str(database), CLEAR_SECONDS) as redis:
            redis("DEL", *[f"imd:room:{room}" for room in rooms])

    @contextlib.contextmanager
    def reads_of(self, room: str) -> Iterator[Callable[[], int]]:
        """Gives a function that tells, afterwards, how often the room was read from MongoDB meanwhile."""
        self.archived()
        assert self._client is not None
        database = self._client[self.database]
        database.command("profile", 2)
        try:
            yield lambda: database["system.profile"].count_documents(
                {"ns": f"{self.database}.im_room", "command.filter._id": room}
            )
        finally:
            database.command("profile", 0)

    def cpu(self) -> dict[str, float]:
        """Seconds of processor time so far, by process; all nodes together; this process is `load`.

        With them, how long each of the two cores was busy with anything at all.
        """
        seconds: dict[str, float] = {
            "load": time.process_time(),
            BUSY_NODE: busy_seconds(NODE_CORE),
            BUSY_LOAD: busy_seconds(LOAD_CORE),
        }
        for server in self._running:
            name = server.label if isinstance(server, PinnedNode) else server.name
            seconds[name] = seconds.get(name, 0.0) + cpu_seconds(server.pid)
        return seconds

    def stop(self, *servers: Server) -> None:
        """End these, and drop what they have left."""
        for server in servers:
            server.stop()
            self._running.remove(server)
            shutil.rmtree(server.folder, ignore_errors=True)

    def stop_nodes(self) -> None:
        """End whatever a figure that failed has left running, but for the three servers."""
        self.stop(*[one for one in self._running if isinstance(one, (PinnedNode, RelayServer))])

    def end(self) -> None:
        if self._client is not None:
            self._client.close()
        for server in reversed(self._running):
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _node(self, base: Ini, sections: Ini) -> PinnedNode:
        ini: dict[str, dict[str, object]] = {"limits": {"messages_per_second": 0}}
        for part in (base, sections):
            for section, keys in part.items():
                ini.setdefault(section, {}).update(keys)
        number = next(self._numbers)
        return PinnedNode(self.folder / f"node{number}", ini, name=f"node{number}")

    def _start(self, server: ServerType) -> ServerType:
        server.start()
        self._running.append(server)
        return server


def _no_rewrite(info: dict[str, str]) -> bool:
    return info["aof_rewrite_in_progress"] == "0" and info["aof_rewrite_scheduled"] == "0"
