"""`twistd imd`: options, and the one place that names concrete backends."""

from __future__ import annotations

import secrets
import sys
import time
from typing import TYPE_CHECKING, Any

from twisted.python import usage

import imd
from imd.config.settings import Settings, load, node_name
from imd.contracts.backend import Backend
from imd.contracts.inbox import InboxOptions
from imd.contracts.rooms import RoomOptions
from imd.entry.auth import Authenticator
from imd.node.backends import Backends
from imd.node.node import Node
from imd.node.service import NodeService
from imd.ops.process import on_hangup
from imd.protocol.errors import ConfigurationError
from imd.protocol.ids import ServerClock, WallClock
from imd.wire.twisted_internals import use_monotonic_clock

if TYPE_CHECKING:
    from imd.store.archiver.writer import ArchiveWriter
    from imd.store.mongo.archive import MongoArchive
    from imd.store.redis.inbox import RedisInbox


class Options(usage.Options):
    """Options of `twistd imd`."""

    synopsis = "[twistd options] imd --config FILE"
    longdesc = "Runs one node of imd, an instant-messaging daemon."
    optParameters = [["config", "c", None, "The node's configuration (INI). Without one, all defaults."]]
    settings: Settings

    def opt_version(self) -> None:
        """Print imd's version and exit."""
        sys.stdout.write(f"imd {imd.__version__}\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        try:
            self.settings = load(self["config"]) if self["config"] else Settings()
            Authenticator(self.settings.auth, time.time)
        except ConfigurationError as error:
            raise usage.UsageError(str(error)) from None


def makeService(options: Options) -> NodeService:
    """A service for the node that `options` describe."""
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    return NodeService(lambda: make_node(reactor, options.settings), on_hangup(reactor))


def make_node(reactor: Any, settings: Settings) -> Node:
    """A node with the backends that the settings name."""
    if settings.node.backend == "cluster":
        clock = ServerClock()
        return Node(reactor, settings, clock, _cluster(reactor, settings, clock))
    clock = WallClock()
    return Node(reactor, settings, clock, _embedded(reactor, settings, clock))


def inbox_options(settings: Settings) -> InboxOptions:
    return InboxOptions(
        keep_days=settings.inbox.keep_days,
        max_messages=settings.inbox.max_messages,
        unopened_messages=settings.inbox.unopened_messages,
        new_ids=settings.limits.new_ids,
        dedup_seconds=settings.inbox.dedup_seconds,
        lease_seconds=settings.node.lease_seconds,
        devices=settings.limits.devices,
        channels_per_user=settings.limits.connections_per_user,
        desk_grace_seconds=settings.desk.grace_seconds,
        visitor_days=settings.auth.visitor_days,
    )


def room_options(settings: Settings) -> RoomOptions:
    return RoomOptions(settings.limits.room_members, settings.inbox.dedup_seconds)


def _embedded(reactor: Any, settings: Settings, clock: ServerClock) -> Backends:
    from imd.store.embedded.backend import EmbeddedStore

    # The times of the store go by a clock that is not set while it runs.
    options = inbox_options(settings), ServerClock(), reactor, room_options(settings), clock.now_ms
    store = EmbeddedStore(settings.node.data, *options)
    return Backends(
        inbox=store,
        queue=store,
        archive=store,
        rooms=store.rooms,
        aims=store.aims,
        states=store.states,
        presence=store.aims,
        blocks=store.blocks,
        bus=None,
        complete=store.complete,
    )


def _inbox(reactor: Any, settings: Settings, clock: ServerClock) -> RedisInbox:
    from imd.store.redis.inbox import RedisInbox

    return RedisInbox(
        reactor,
        settings.redis.url,
        inbox_options(settings),
        clock,
        lossless=settings.redis.lossless,
        timeout_seconds=settings.redis.timeout_seconds,
    )


def _writer(
    reactor: Any, settings: Settings, connections: tuple[Any, Any], archive: MongoArchive
) -> ArchiveWriter:
    """`connections`: the one that consumes, and the one that publishes dead letters."""
    from imd.store.archiver.writer import ArchiveWriter

    bounds = settings.archive
    return ArchiveWriter(reactor, *connections, archive, queue_bytes=bounds.queue_bytes, batch=bounds.batch)


def _cluster(reactor: Any, settings: Settings, clock: ServerClock) -> Backends:
    from imd.store.archiver.audit import ArchiveAudit
    from imd.store.batch_numbers import Numbers
    from imd.store.blocks import ClusterBlocks
    from imd.store.mongo.archive import MongoArchive
    from imd.store.mongo.level import MongoLevel
    from imd.store.rabbit.archive_queue import RabbitArchiveQueue
    from imd.store.rabbit.bus import RabbitBus
    from imd.store.rabbit.connection import RabbitConnection
    from imd.store.redis.aims import RedisAims
    from imd.store.redis.blocks import BlockCopies
    from imd.store.redis.level import RedisLevel
    from imd.store.redis.node_table import RedisNodeTable
    from imd.store.redis.rooms import RoomCopies
    from imd.store.rooms import ClusterRooms
    from imd.store.state import ClusterStates
    from imd.store.unwritten import Unwritten

    inbox = _inbox(reactor, settings, clock)
    # Under a memory alarm the broker stops reading from publishers; acks must still get through.
    publisher = RabbitConnection(reactor, settings.rabbitmq.url, "publisher")
    consumer = RabbitConnection(reactor, settings.rabbitmq.url, "consumer")
    # A boot id in the node's address: nothing meant for its predecessor reaches it.
    bus = RabbitBus(reactor, publisher, consumer, node_name(settings), secrets.token_hex(4))
    archive = MongoArchive(reactor, settings.mongodb.url, timeout_seconds=settings.mongodb.timeout_seconds)
    numbers = Numbers(bus.address)
    unwritten = Unwritten(clock.monotonic)
    queue = RabbitArchiveQueue(
        reactor,
        publisher,
        confirm_seconds=settings.rabbitmq.confirm_seconds,
        queue_bytes=settings.archive.queue_bytes,
        numbers=numbers,
        unwritten=unwritten,
    )
    writer = _writer(reactor, settings, (consumer, publisher), archive) if settings.archive.consume else None
    audit = ArchiveAudit(reactor, archive, numbers, writer, unwritten)
    workers: list[Backend] = [audit] if writer is None else [writer, audit]
    aims = RedisAims(inbox.calls)
    blocks = ClusterBlocks(reactor, archive, BlockCopies(inbox.calls))
    rooms = ClusterRooms(reactor, archive, RoomCopies(inbox.calls), room_options(settings))
    return Backends(
        inbox=inbox,
        queue=queue,
        archive=archive,
        rooms=rooms,
        states=ClusterStates(reactor, archive, settings.auth.visitor_days),
        aims=aims,
        presence=aims,
        blocks=blocks,
        bus=bus,
        nodes=RedisNodeTable(reactor.callLater, inbox.command),
        workers=workers,
        levels={"Redis": RedisLevel(inbox.command), "MongoDB": MongoLevel(archive)},
        hear_level=tuple(one.set_level for one in (inbox, bus, numbers, unwritten, blocks)),
        progress=audit,
    )
