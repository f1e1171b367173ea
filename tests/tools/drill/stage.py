"""The stage of a drill with a crowd: servers, nodes, talkers beside the crowd, and their metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import hiredis
import pymongo

from tests.protocol.clusters import RawRedis
from tests.support.nodes import Ini, NodeServer
from tests.support.paths import ROOT
from tests.support.servers import (
    MongoServer,
    RabbitServer,
    RedisServer,
    Server,
    ServerError,
    end_group,
    spawn,
)

SPARE_FILES = 200


def raise_file_limit(clients: int) -> None:
    """So many sockets, or SystemExit with what to do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + SPARE_FILES
    if soft < wanted <= hard or hard == resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < wanted:
        raise SystemExit(f"{clients} clients need {wanted} open files, {hard} are allowed: ulimit -Hn")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


class Scene(Protocol):
    """A run of a drill: what it found out is in `report`; `crowd.wrong` are broken promises."""

    report: dict[str, Any]
    crowd: Any

    async def run(self) -> None: ...


def perform(scene: Scene, as_json: bool) -> int:
    """Run it and print its report. Gives the exit code."""
    try:
        asyncio.run(scene.run())
    except (TimeoutError, ServerError) as error:
        say(str(error))
        scene.report["failed"] = str(error)
    if as_json:
        print(json.dumps(scene.report))
    else:
        show(scene.report)
    return 1 if "failed" in scene.report or scene.crowd.wrong else 0


def show(report: dict[str, Any], indent: str = "") -> None:
    for name, value in report.items():
        if isinstance(value, dict):
            print(f"{indent}{name}:")
            show(value, indent + "    ")
        else:
            print(f"{indent}{name}: {value}")


class Stage:
    """Private servers and nodes of one cluster, in a temporary folder; all gone when the block is left."""

    def __init__(self, nodes: int, ini: Ini) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="imd-drill-"))
        self.redis = RedisServer(self.folder / "redis", appendonly=False)
        self.rabbit = RabbitServer(self.folder / "rabbitmq")
        self.mongo = MongoServer(self.folder / "mongodb")
        common: dict[str, Mapping[str, object]] = {
            "node": {"backend": "cluster"},
            "redis": {"url": self.redis.url},
            "rabbitmq": {"url": self.rabbit.url},
            "mongodb": {"url": self.mongo.url},
            **ini,
        }
        self.nodes = [NodeServer(self.folder / f"node{n}", common, name=f"node{n}") for n in range(nodes)]
        self._talkers: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Stage:
        say("starting the servers and nodes")
        # So that the block is left in good order then, too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            for server in self._servers():
                server.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._talkers is not None:
            end_group(self._talkers, signal.SIGTERM, 5)
        for server in reversed(self._servers()):
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _servers(self) -> list[Server]:
        return [self.redis, self.rabbit, self.mongo, *self.nodes]

    # those who chat meanwhile, in a process of their own: its clock must not stand still when others' do

    def start_talkers(self, nodes: list[NodeServer], pairs: int, per_second: float) -> None:
        """Pairs that write to each other all the time, from node to node."""
        self._log = self.folder / "talkers"
        urls = [node.url for node in nodes]
        talkers = [sys.executable, "-m", "tests.tools.drill.talkers"]
        command = [*talkers, str(self._log), str(pairs), str(per_second)]
        self._talkers = spawn([*command, *urls], self.folder / "talkers.log", cwd=ROOT)

    def latencies(self, begin: float, end: float) -> dict[str, float]:
        """Of what was sent between two moments (monotonic): count, and milliseconds."""
        if self._talkers is None or self._talkers.poll() is not None:
            raise ServerError(f"the talkers have ended:\n{(self.folder / 'talkers.log').read_text()}")
        found = []
        for line in self._log.read_text().splitlines()[:-1]:
            sent, took = map(float, line.split())
            if begin <= sent < end:
                found.append(took * 1000)
        if len(found) < 2:
            return {"count": len(found)}
        centiles = statistics.quantiles(found, n=100)
        return {
            "count": len(found),
            "p50_ms": round(centiles[49], 1),
            "p99_ms": round(centiles[98], 1),
            "max_ms": round(max(found), 1),
        }

    # looking on

    def counts(self) -> dict[str, int]:
        """Commands to Redis and MongoDB so far, by kind."""
        redis = RawRedis(self.redis.url)
        try:
            info = redis("INFO", "commandstats").decode()
        except hiredis.ReplyError as error:
            raise ServerError(str(error)) from None
        finally:
            redis.close()
        found = {}
        for line in info.splitlines():
            if line.startswith("cmdstat_"):
                name, _, rest = line.removeprefix("cmdstat_").partition(":")
                found[f"redis {name}"] = int(rest.split(",", 1)[0].removeprefix("calls="))
        with pymongo.MongoClient(self.mongo.url, serverSelectionTimeoutMS=5000) as client:
            counters: dict[str, Any] = client.admin.command("serverStatus")["opcounters"]
        for kind in ("query", "insert", "update", "getmore"):
            found[f"mongodb {kind}"] = int(counters[kind])
        return found


def rss_mb(node: NodeServer) -> float:
    """The resident memory of the node, MB."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return round(int(line.split()[1]) / 1024, 1)


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """The counters that have grown, and by how much."""
    return {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
