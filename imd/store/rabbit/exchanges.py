"""The exchanges of the bus, and `imd.search`, which only nodes of 0.1 bind their queues to.

Nodes of 0.1 declare `imd.search` as a fanout exchange, publish to it and listen to it. While the cluster's
level is theirs, it is joined with `imd.all` in both directions; the broker gives each queue one copy of a
message, whichever way leads to it. From level 2 on it has another type, so that the broker refuses their
declaration: they never get ready. Nodes of this version do not need it themselves.
"""

from __future__ import annotations

from typing import Any

from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.level import FIRST, NO_WORD
from imd.observe.seldom import Seldom
from imd.store.rabbit.connection import RabbitConnection
from imd.store.rabbit.link import Link

ALL_EXCHANGE = "imd.all"
NODE_EXCHANGE = "imd.node"
OLD_EXCHANGE = "imd.search"
OLD_TYPE = "fanout"
"""of OLD_EXCHANGE at the first level"""
CLOSED_TYPE = "topic"
"""of OLD_EXCHANGE from level 2 on"""
LOOK_SECONDS = 10.0
"""between two looks at OLD_EXCHANGE"""
_PRECONDITION_FAILED = 406


async def declare_exchanges(link: Link, channel: TwistedChannel) -> None:
    for exchange, kind in ((ALL_EXCHANGE, "fanout"), (NODE_EXCHANGE, "direct")):
        await link.call(channel.exchange_declare(exchange, kind, durable=True), "exchange.declare")


class OldExchange:
    """Keeps OLD_EXCHANGE as the level wants it. Nodes of this version do without it when that fails."""

    log = Logger()

    def __init__(self, clock: Any, connection: RabbitConnection) -> None:
        """Add it after the users that declare ALL_EXCHANGE."""
        self._level = NO_WORD
        self._link: Link | None = None
        self._looking: Deferred[None] | None = None
        self._seldom = Seldom(self.log, clock.seconds)
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        connection.add_user(self._set_up, self._lost)

    # from the node

    def set_level(self, level: int) -> None:
        self._level = level
        if not self._loop.running:
            self._loop.start(LOOK_SECONDS, now=False).addErrback(self._failed)
        self._look()

    def stop(self) -> None:
        self._link = None
        if self._loop.running:
            self._loop.stop()

    # from the connection

    async def _set_up(self, link: Link) -> None:
        self._link = link
        self._look()

    def _lost(self) -> None:
        self._link = None

    # from within

    def _look(self) -> None:
        if self._link is None or self._level == NO_WORD or self._looking is not None:
            return
        work = self._join(self._link) if self._level == FIRST else self._close(self._link)
        self._looking = ensureDeferred(work)
        self._looking.addErrback(self._failed).addBoth(self._looked)

    def _looked(self, _: object) -> None:
        self._looking = None

    def _failed(self, failure: Failure) -> None:
        if self._link is not None and not failure.check(AMQPError):
            self._seldom.failure("{exchange} could not be looked after", failure, exchange=OLD_EXCHANGE)

    async def _join(self, link: Link) -> None:
        """Nodes of 0.1 and of this version hear one another."""
        if not await self._declare(link, OLD_TYPE):
            # The level is being raised or lowered.
            return
        channel = await link.channel(vital=False)
        for destination, source in ((OLD_EXCHANGE, ALL_EXCHANGE), (ALL_EXCHANGE, OLD_EXCHANGE)):
            await link.call(channel.exchange_bind(destination, source), "exchange.bind")
        channel.close()

    async def _close(self, link: Link) -> None:
        """Nodes of 0.1 are refused. The broker may be new, or one of them was there before this node."""
        if await self._declare(link, CLOSED_TYPE):
            return
        self._seldom.warn(
            "{exchange} is open to nodes of 0.1, and is closed: does one run?", exchange=OLD_EXCHANGE
        )
        channel = await link.channel(vital=False)
        await link.call(channel.exchange_delete(OLD_EXCHANGE), "exchange.delete")
        channel.close()
        await self._declare(link, CLOSED_TYPE)

    async def _declare(self, link: Link, kind: str) -> bool:
        """Declare OLD_EXCHANGE; False if it has another type.

        RabbitMQ (3.10) accepts and ignores this while another node deletes the exchange. Then the next look
        declares it.
        """
        # On a channel of its own, since a refused declaration closes the channel.
        channel = await link.channel(vital=False)
        try:
            declared = channel.exchange_declare(OLD_EXCHANGE, kind, durable=True)
            await link.call(declared, "exchange.declare")
        except ChannelClosedByBroker as refused:
            if refused.reply_code != _PRECONDITION_FAILED:
                raise
            return False
        channel.close()
        return True
