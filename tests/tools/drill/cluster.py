"""Servers, nodes, a proxy between each node and each backend, and a gateway if there is to be one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pika
import pymongo

from imd.gateway.table import KEY
from tests.gateway.gateway import Gateway
from tests.protocol.clusters import RawRedis
from tests.support.nodes import Ini, NodeServer
from tests.support.old_version import old_environment
from tests.support.paths import ROOT
from tests.support.primaries import Primary
from tests.support.servers import HOST, MongoServer, RabbitServer, Server, free_port, tail
from tests.tools.drill import archived
from tests.tools.drill.history import History
from tests.tools.drill.proxy import Proxy
from tests.tools.drill.seams import times_noted
from tests.tools.drill.ways import SECRET

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
ARCHIVE_QUEUE, DEAD_QUEUE = "imd.archive", "imd.archive.dead"
# Until a server that has to be there answers the drill itself.
ANSWER_SECONDS = 60
BACKENDS = ("redis", "rabbitmq", "mongodb")
ROUTINGS = ("search", "gateway", "mixed")
"""of a cluster; `mixed`: its first node searches, the others ask homes"""


class DrillMongo(MongoServer):
    """mongod with fail points."""

    def _command(self) -> list[str | Path]:
        return [*super()._command(), "--setParameter", "enableTestCommands=1"]


# Keys that 0.1.0 refuses.
NEW_KEYS = {("limits", "visitors_per_address")}


class DrillNode(NodeServer):
    """A node that may have a clock of its own, be a broken build, or be of 0.1.0 as long as `old` is true."""

    old = False
    own_program = "tests.tools.drill.broken"

    def __init__(self, folder: Path, ini: Ini, name: str, build: str, own_clock: bool) -> None:
        super().__init__(folder, ini, name=name)
        self.build = build
        self.own_clock = own_clock

    @property
    def clock_file(self) -> Path:
        return self.folder / "clock"

    @property
    def notes(self) -> Path:
        """Where each broken build notes, under its name, each time that it does wrong."""
        return self.folder / "sabotaged"

    def step_clock(self, seconds: int) -> None:
        """Let the node's wall clock be so far off from now on."""
        self.clock_file.write_text(f"{seconds:+d}\n")

    def _prepare(self) -> None:
        given = self.ini
        if self.old:
            self.ini = {
                section: {key: value for key, value in keys.items() if (section, key) not in NEW_KEYS}
                for section, keys in given.items()
            }
        super()._prepare()
        self.ini = given
        if self.own_clock and not self.clock_file.exists():
            self.step_clock(0)

    def _command(self) -> list[str | Path]:
        if not self.build:
            return super()._command()
        twistd = ["-n", "--pidfile=", "imd", "--config", self.folder / "node.ini"]
        return [sys.executable, "-m", self.own_program, self.build, self.notes, *twistd]

    def _environment(self) -> dict[str, str] | None:
        env = old_environment() if self.old else {**os.environ, "PYTHONPATH": str(ROOT)}
        if self.own_clock:
            env |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock_file),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        return env


class Backends:
    """The three servers of a drill, in one folder; they serve several runs, one after another."""

    def __init__(self, folder: Path, appendfsync: str = "always") -> None:
        self.folder = folder
        persistent = appendfsync != "off"
        self.redis_is_durable = appendfsync == "always"
        self.spare = Primary(folder / "spare", appendonly=False)
        """a replica of Redis, for faults that need one"""
        self.redis = Primary(
            folder / "redis", appendonly=persistent, appendfsync=appendfsync if persistent else "no"
        )
        self.rabbit = RabbitServer(folder / "rabbitmq")
        self.mongo = DrillMongo(folder / "mongodb")
        self.runs = 0

    def start(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.start(), self.all))

    def stop(self) -> None:
        for server in (*self.all, self.spare):
            server.kill()

    @property
    def all(self) -> list[Server]:
        return [self.redis, self.rabbit, self.mongo]


class Cluster:
    """The nodes of one run, on a database number, a virtual host and a database of its own."""

    def __init__(
        self,
        backends: Backends,
        ini: Ini,
        *,
        nodes: int,
        build: str = "",
        own_clocks: bool = False,
        routing: str = "search",
        is_proxied: bool = True,
        old: bool = False,
    ) -> None:
        """With any `routing` but `search` there is a gateway, and nodes want tokens. `is_proxied`: there is a
        proxy between each node and each server. `old`: the nodes are of 0.1.0, until they are replaced."""
        self.old = old
        self.backends = backends
        backends.runs += 1
        self.number = backends.runs
        self.vhost = ""
        self.ini = ini
        self.count = nodes
        self.build = build
        self.own_clocks = own_clocks
        self.routing = routing
        self.is_proxied = is_proxied
        self.nodes: list[DrillNode] = []
        self.gateways: list[Gateway] = []
        self.proxies: dict[tuple[int, str], Proxy] = {}

    @property
    def redis_url(self) -> str:
        return self.backends.redis.url_of(self.number)

    @property
    def amqp_url(self) -> str:
        return self.backends.rabbit.url_of(self.vhost)

    @property
    def mongo_url(self) -> str:
        return self.backends.mongo.url_of(f"run{self.number}")

    async def start(self, classic_queue: bool = False) -> None:
        self.vhost = await asyncio.to_thread(self.backends.rabbit.new_vhost)
        if classic_queue:
            await asyncio.to_thread(self._declare_classic)
        for number in range(self.count):
            await self._add_node(number)
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in self.nodes))
        if self.routing != "search":
            await self.add_gateway()

    async def add_gateway(self) -> Gateway:
        """One more HAProxy with its sync, which reads the table as one of the nodes does."""
        number = len(self.gateways)
        ini = self.nodes[number % len(self.nodes)].folder / "node.ini"
        gateway = Gateway(self.folder / f"gateway{number}", ini, f"gateway{number}")
        self.gateways.append(gateway)
        await asyncio.to_thread(gateway.start, self.names)
        return gateway

    async def end_gateway(self, gateway: Gateway) -> None:
        """Kill it and its sync."""
        self.gateways.remove(gateway)
        await asyncio.to_thread(gateway.kill)
        shutil.rmtree(gateway.folder)

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.nodes]

    @property
    def folder(self) -> Path:
        return self.backends.folder / f"run{self.number}"

    async def stop(self) -> None:
        for gateway in self.gateways:
            await asyncio.to_thread(gateway.kill)
        for node in self.nodes:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(node.kill)
        for proxy in self.proxies.values():
            await proxy.stop()
        if self.backends.redis.running:
            await asyncio.to_thread(self.redis, "FLUSHALL")

    async def _add_node(self, number: int) -> None:
        servers = {
            "redis": self.backends.redis,
            "rabbitmq": self.backends.rabbit,
            "mongodb": self.backends.mongo,
        }
        urls = {"redis": self.redis_url, "rabbitmq": self.amqp_url, "mongodb": self.mongo_url}
        sections: dict[str, dict[str, object]] = {key: dict(value) for key, value in self.ini.items()}
        for name, server in servers.items():
            port = server.port
            if self.is_proxied:
                proxy = self.proxies[number, name] = Proxy(free_port(), server.port)
                await proxy.start()
                port = proxy.port
            extra = sections.get(name, {}).pop("options", "")
            url = urls[name].replace(f":{server.port}/", f":{port}/") + str(extra)
            sections.setdefault(name, {})["url"] = url
        sections.setdefault("node", {})["backend"] = "cluster"
        if self.routing != "search":
            searches = self.routing == "mixed" and number == 0
            sections["cluster"] = {"routing": "search" if searches else "gateway"}
            sections["websocket"] = {"trusted_proxies": HOST}
            sections["auth"] = {"mode": "jwt", "secret": SECRET}
        folder = self.folder / f"node{number}"
        node = DrillNode(folder, sections, f"node{number}", self.build, self.own_clocks)
        node.old = self.old
        self.nodes.append(node)

    def _declare_classic(self) -> None:
        with contextlib.closing(self._broker()) as connection:
            connection.channel().queue_declare(ARCHIVE_QUEUE, durable=True)

    # looking in and meddling, all of it blocking

    def redis(self, *words: str | int) -> Any:
        connection = RawRedis(self.backends.redis.url)
        try:
            return connection(*words)
        finally:
            connection.close()

    def forget_nodes(self) -> None:
        """The table of nodes is lost, and nothing else."""
        connection = RawRedis(self.redis_url)
        try:
            connection("DEL", KEY, f"{KEY}:wishes")
        finally:
            connection.close()

    def mongo(self) -> Any:
        return pymongo.MongoClient(
            self.mongo_url, serverSelectionTimeoutMS=1000 * ANSWER_SECONDS, tz_aware=True
        )

    def _broker(self) -> pika.BlockingConnection:
        parameters = pika.URLParameters(self.amqp_url)
        parameters.socket_timeout = parameters.stack_timeout = ANSWER_SECONDS
        return pika.BlockingConnection(parameters)

    def publish(self, body: bytes) -> None:
        """Put something into the archive queue past the nodes."""
        with contextlib.closing(self._broker()) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish("", ARCHIVE_QUEUE, body, pika.BasicProperties(delivery_mode=2))

    def archived_ids(self) -> set[str]:
        """Of messages and events."""
        with self.mongo() as client:
            return archived.ids(client.get_default_database())

    def state_versions(self) -> dict[str, int]:
        """By user, as MongoDB has them."""
        with self.mongo() as client:
            return archived.state_versions(client.get_default_database())

    def read_archive(self, history: History) -> None:
        """Put all that MongoDB holds into the history."""
        with self.mongo() as client:
            archived.read(client.get_default_database(), history)

    def dead(self) -> list[str]:
        """The keys of messages and events among the dead letters; what is not ours is left out."""
        keys = []
        with contextlib.closing(self._broker()) as connection:
            channel = connection.channel()
            while True:
                method, _, body = channel.basic_get(DEAD_QUEUE, auto_ack=True)
                if method is None:
                    return keys
                with contextlib.suppress(ValueError):
                    found = json.loads(body)
                    # A batch is there as a whole if the broker has moved it.
                    for one in found if isinstance(found, list) else [found]:
                        key = one.get("clientMsgId", "") if isinstance(one, dict) else ""
                        if key and not key.startswith("poison"):
                            keys.append(key)

    def sabotaged(self) -> dict[str, int]:
        """How often the nodes, broken on purpose, did wrong, by build."""
        return {
            name: sum(times_noted(Path(f"{node.notes}-{name}")) for node in self.nodes)
            for name in filter(None, self.build.split("+"))
        }

    def ready(self) -> bool:
        """All nodes say so, and each gateway leads to all of them."""
        if not all(node.running and node.answers() for node in self.nodes):
            return False
        return all(gateway.leads_to(self.names) for gateway in self.gateways)

    async def until_ready(self, seconds: float) -> float:
        """When all nodes were ready, monotonic. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not await asyncio.to_thread(self.ready):
            if time.monotonic() > end:
                reasons = {node.name: node.http("readyz") for node in self.nodes if node.running}
                reasons |= {one.name: (one.haproxy.states(), tail(one.sync.log, 5)) for one in self.gateways}
                raise TimeoutError(f"nodes are not ready after {seconds:g} s: {reasons}")
            await asyncio.sleep(0.05)
        return time.monotonic()


def have_faketime() -> bool:
    """True if libfaketime is installed and works."""
    if not FAKETIME.exists():
        return False
    env = {**os.environ, "LD_PRELOAD": str(FAKETIME), "FAKETIME": "+1h"}
    said = subprocess.run(["date", "+%s"], env=env, capture_output=True, text=True, check=False).stdout
    return said.strip().isdigit() and int(said) > time.time() + 3000
