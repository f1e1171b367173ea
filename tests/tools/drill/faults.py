"""The faults: what each does, for how long, and how it is undone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import pika

from tests.support.servers import Server
from tests.tools.drill.cluster import ARCHIVE_QUEUE, Cluster
from tests.tools.drill.gateway_faults import (
    haproxy_kill,
    haproxy_old_map,
    sync_stops,
    table_flush,
    two_haproxies,
)
from tests.tools.drill.replication import failback, failover
from tests.tools.drill.room_faults import room_cold, room_orphan
from tests.tools.drill.wire import Wire
from tests.tools.drill.world import World


class Stage:
    """The things that a fault may touch."""

    def __init__(self, cluster: Cluster, world: World, rng: random.Random, lease_seconds: float) -> None:
        self.cluster = cluster
        self.world = world
        self.history = world.history
        self.ways = world.ways
        self.rng = rng
        self.lease_seconds = lease_seconds
        self.poisoned = 0

    async def hold(self, least: float, most: float) -> None:
        """Let some seconds go by."""
        await asyncio.sleep(self.rng.uniform(least, most))

    def losing(self) -> contextlib.AbstractContextManager[None]:
        """Redis loses data within."""
        return _noted(self.history.losses)

    def split(self) -> None:
        """Two primaries of Redis take writes from now on."""
        self.history.splits.append((time.monotonic(), math.inf))

    def healed(self, at: float) -> None:
        """All nodes are at the primary that stayed: the coming of the last one has healed Redis."""
        self.history.splits[:] = [(first, min(last, at)) for first, last in self.history.splits]


@contextlib.contextmanager
def _noted(times: list[tuple[float, float]]) -> Iterator[None]:
    began = time.monotonic()
    place = len(times)
    times.append((began, float("inf")))
    try:
        yield
    finally:
        times[place] = (began, time.monotonic())


class Fault(NamedTuple):
    """`on` names the targets, one word each. Faults that share a target never run at the same time."""

    name: str
    on: str
    what: str
    run: Callable[[Stage], Awaitable[str]]
    short_lease: bool = False
    needs_clock: bool = False
    needs_gateway: bool = False
    needs_proxy: bool = False


async def _node_kill(stage: Stage) -> str:
    node = stage.rng.choice(stage.cluster.nodes)
    await asyncio.to_thread(node.kill)
    await stage.hold(0.2, 2.0)
    await asyncio.to_thread(node.start)
    return node.name


async def _node_hang(stage: Stage) -> str:
    node = stage.rng.choice(stage.cluster.nodes)
    node.pause()
    try:
        await stage.hold(stage.lease_seconds + 1, stage.lease_seconds + 3)
    finally:
        node.resume()
    return node.name


def _server(stage: Stage, name: str) -> Server:
    return getattr(stage.cluster.backends, name)  # type: ignore[no-any-return]


def _kill(name: str) -> Callable[[Stage], Awaitable[str]]:
    async def run(stage: Stage) -> str:
        server = _server(stage, name)
        forgets = name == "redis" and not stage.cluster.backends.redis_is_durable
        with stage.losing() if forgets else contextlib.nullcontext():
            await asyncio.to_thread(server.kill)
            await stage.hold(0.2, 3.0)
            await asyncio.to_thread(server.start)
        return name

    return run


def _hang(name: str, least: float = 3.0, most: float = 7.0) -> Callable[[Stage], Awaitable[str]]:
    async def run(stage: Stage) -> str:
        server = _server(stage, name)
        server.pause()
        try:
            await stage.hold(least, most)
        finally:
            server.resume()
        return name

    return run


async def _redis_cut(stage: Stage) -> str:
    for _ in range(3):
        await asyncio.to_thread(stage.cluster.redis, "CLIENT", "KILL", "TYPE", "normal")
        await stage.hold(0.1, 0.8)
    return "three times"


async def _redis_flush(stage: Stage) -> str:
    """With messages in it that clients have not got: half of them do not read, and are gone afterwards."""
    wires = _deafen(stage, 0.5)
    await stage.hold(0.2, 0.4)
    with stage.losing():
        await asyncio.to_thread(stage.cluster.redis, "FLUSHALL")
    for wire in wires:
        wire.abort()
    return f"{len(wires)} connections did not read"


def _deafen(stage: Stage, part: float) -> list[Wire]:
    """Let this part of the clients read nothing more; gives their connections."""
    devices = stage.world.devices
    chosen = stage.rng.sample(devices, int(len(devices) * part))
    return [wire for device in chosen if (wire := device.deafen()) is not None]


async def _redis_full(stage: Stage) -> str:
    await asyncio.to_thread(stage.cluster.redis, "CONFIG", "SET", "maxmemory", "1mb")
    try:
        await stage.hold(2.0, 4.0)
    finally:
        await asyncio.to_thread(stage.cluster.redis, "CONFIG", "SET", "maxmemory", "0")
    return ""


async def _rabbit_cut(stage: Stage) -> str:
    rabbit = stage.cluster.backends.rabbit
    await asyncio.to_thread(
        rabbit.rabbitctl, "close_all_connections", "--vhost", stage.cluster.vhost, "the drill does this"
    )
    return ""


async def _rabbit_alarm(stage: Stage) -> str:
    rabbit = stage.cluster.backends.rabbit
    await asyncio.to_thread(rabbit.rabbitctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        await stage.hold(2.0, 5.0)
    finally:
        await asyncio.to_thread(rabbit.rabbitctl, "set_vm_memory_high_watermark", "absolute", "1GB")
    return ""


def _fail_writes(cluster: Cluster, data: dict[str, Any] | None, mode: Any) -> None:
    with cluster.mongo() as client:
        command: dict[str, Any] = {"configureFailPoint": "failCommand", "mode": mode}
        if data is not None:
            command["data"] = {"failCommands": ["insert", "update"], **data}
        client.admin.command(command)


# The server's own state, a code that imd does not know, an unmet write concern, a lost connection. Not among
# them: codes that say of a document that it is bad. imd believes MongoDB there. Nor does 13 meet updates:
# without the right to update the list of conversations, messages are archived, and the list stays behind.
_WRITE_ERRORS: tuple[dict[str, Any], ...] = (
    {"errorCode": 11600},
    {"errorCode": 10107},
    {"errorCode": 13, "failCommands": ["insert"]},
    {"errorCode": 8000},
    {"errorCode": 91},
    {"errorCode": 189},
    {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}},
    {"closeConnection": True},
)


async def _mongo_errors(stage: Stage) -> str:
    try:
        for data in stage.rng.sample(_WRITE_ERRORS, len(_WRITE_ERRORS)):
            times = {"times": stage.rng.randint(1, 6)}
            await asyncio.to_thread(_fail_writes, stage.cluster, data, times)
            await stage.hold(0.3, 0.9)
    finally:
        await asyncio.to_thread(_fail_writes, stage.cluster, None, "off")
    return f"{len(_WRITE_ERRORS)} kinds"


async def _poison(stage: Stage) -> str:
    """Documents that can never be written, alone and in the middle of what looks like a batch."""
    bodies = [b"not json", b'{"an": "object"}', b"[1, 2]", b'[{"msg": "no id"}]', b"\xff\xfe[]"]
    for body in bodies:
        await asyncio.to_thread(stage.cluster.publish, body)
        stage.poisoned += 1
    huge = json.dumps(
        [{"id": "0" * 28, "userId": "poison", "clientMsgId": "poison-1", "to": {"not": "text"}}]
    )
    await asyncio.to_thread(stage.cluster.publish, huge.encode())
    return f"{len(bodies) + 1} of them"


def _die_with_batches(url: str, times: int) -> int:
    """Take batches from the archive queue and die with them, `times` times; gives how many were taken."""
    taken = 0
    for _ in range(times):
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        for _ in range(50):
            method, _, _ = channel.basic_get(ARCHIVE_QUEUE)
            taken += method is not None
            if method is None:
                break
        # No leave taken: the broker finds the socket closed, and gives the batches back.
        connection._impl._transport.abort()
        with contextlib.suppress(Exception):
            connection.process_data_events(0.01)
    return taken


async def _consumer_dies(stage: Stage) -> str:
    """MongoDB stands still, so that batches wait; another consumer takes them and dies, again and again."""
    mongo = stage.cluster.backends.mongo
    mongo.pause()
    try:
        await asyncio.sleep(1.5)
        taken = await asyncio.to_thread(_die_with_batches, stage.cluster.amqp_url, 30)
    finally:
        mongo.resume()
    return f"30 deaths with {taken} batches"


def _net(backend: str, how: str) -> Callable[[Stage], Awaitable[str]]:
    async def run(stage: Stage) -> str:
        number = stage.rng.randrange(len(stage.cluster.nodes))
        proxy = stage.cluster.proxies[number, backend]
        if how == "cut":
            proxy.cut()
        elif how == "hole":
            proxy.swallow()
        try:
            await stage.hold(1.0, 6.0)
        finally:
            if how == "hole" and stage.rng.random() < 0.5:
                proxy.drop()
            proxy.mend()
        return f"node{number}"

    return run


async def _clock(stage: Stage) -> str:
    node = stage.rng.choice(stage.cluster.nodes)
    for step in (3600, -3600, 0):
        # The node's clock follows within a second.
        node.step_clock(step)
        await stage.hold(2.0, 3.0)
    return f"{node.name}: +1 h, -1 h, back"


async def _clients_vanish(stage: Stage) -> str:
    """No client reads for a moment, then all connections are gone: what was written is read by nobody."""
    wires = _deafen(stage, 1.0)
    await stage.hold(0.3, 0.8)
    for wire in wires:
        wire.abort()
    return f"{len(wires)} connections"


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("node-kill", "nodes", "kill -9 of a node, and a restart", _node_kill, short_lease=True),
        Fault("node-hang", "nodes", "a node stands still past its leases, and goes on", _node_hang, True),
        Fault("redis-kill", "redis", "kill -9 of Redis, and a restart", _kill("redis")),
        Fault("redis-hang", "redis", "Redis stands still", _hang("redis")),
        Fault("redis-cut", "redis", "Redis closes all connections, three times", _redis_cut),
        Fault("redis-flush", "redis", "Redis loses everything (FLUSHALL), much of it unread", _redis_flush),
        Fault("redis-failback", "redis", "Redis takes over what a replica has, and leads again", failback),
        Fault(
            "redis-failover",
            "redis nodes",
            "nodes move to a replica one by one, and back",
            failover,
            needs_proxy=True,
        ),
        Fault("redis-full", "redis", "Redis is full (maxmemory)", _redis_full),
        Fault("rabbit-kill", "rabbit", "kill -9 of RabbitMQ, and a restart", _kill("rabbit")),
        Fault("rabbit-hang", "rabbit", "RabbitMQ stands still", _hang("rabbit")),
        Fault("rabbit-cut", "rabbit", "RabbitMQ closes all connections", _rabbit_cut),
        Fault("rabbit-alarm", "rabbit", "RabbitMQ's memory alarm: publishers are blocked", _rabbit_alarm),
        Fault("mongo-kill", "mongo", "kill -9 of mongod, and a restart", _kill("mongo")),
        Fault("mongo-hang", "mongo", "mongod stands still", _hang("mongo")),
        Fault("mongo-errors", "mongo", "MongoDB's writes fail in eight ways", _mongo_errors),
        Fault("poison", "rabbit", "documents in the archive queue that can never be written", _poison),
        Fault(
            "consumer-dies", "mongo", "a consumer dies again and again with the same batches", _consumer_dies
        ),
        *(
            Fault(f"net-{short}-{how}", short, what, _net(backend, how), needs_proxy=True)
            for short, backend, name in (
                ("redis", "redis", "Redis"),
                ("rabbit", "rabbitmq", "RabbitMQ"),
                ("mongo", "mongodb", "MongoDB"),
            )
            for how, what in (
                ("cut", f"a node's connections to {name} are cut"),
                ("hole", f"nothing passes between a node and {name}"),
            )
        ),
        Fault(
            "room-cold",
            "redis nodes mongo",
            "Redis forgets the copies of all rooms, three times",
            room_cold,
        ),
        Fault(
            "room-orphan",
            "nodes mongo",
            "a node is killed when a room's change is in MongoDB alone",
            room_orphan,
            short_lease=True,
        ),
        Fault("clients-vanish", "clients", "no client reads, then all connections break", _clients_vanish),
        Fault("clock", "nodes", "a node's clock steps by an hour, forth and back", _clock, needs_clock=True),
        *(
            Fault(name, on, what, run, needs_gateway=True)
            for name, on, what, run in (
                ("table-flush", "table nodes haproxy", "the table of nodes is lost, twice", table_flush),
                ("haproxy-kill", "haproxy", "kill -9 of HAProxy, and a restart", haproxy_kill),
                (
                    "haproxy-old-map",
                    "table nodes haproxy",
                    "HAProxy is reloaded with maps that lack a node, and sync stands still",
                    haproxy_old_map,
                ),
                (
                    "two-haproxies",
                    "table nodes haproxy",
                    "a second HAProxy, whose maps have a node that drains; then kill -9",
                    two_haproxies,
                ),
                ("sync-stops", "table nodes haproxy", "sync stands still while a node restarts", sync_stops),
            )
        ),
    )
}
