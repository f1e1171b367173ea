"""A connection to RabbitMQ: it reconnects by itself, sets everything up anew, and says why it is down.

A ClientService would not do: a connection counts only when all setups on it are done, each within a
deadline, and it may be lost meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pika
from prometheus_client import Counter
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.observe.seldom import Seldom
from imd.protocol.errors import ConfigurationError
from imd.store.backoff import backoff
from imd.store.rabbit.link import AmqpProtocol, Link
from imd.store.rabbit.reasons import plain_reason, reason_of
from imd.store.tls import ServerTls

CONNECTS = Counter("imd_rabbitmq_connects_total", "Connections made to RabbitMQ and set up.", ["connection"])
FAILURES = Counter(
    "imd_rabbitmq_failures_total", "Connections to RabbitMQ that failed or were lost.", ["connection"]
)

HEARTBEAT_SECONDS = 15
BLOCKED_SECONDS = 60.0
CONNECT_SECONDS = 10.0
SETUP_SECONDS = 30.0
CONGESTED_BYTES = 4 << 20
FILLING_BYTES = CONGESTED_BYTES // 2
TYPING_BYTES = 8 << 10
_retry_seconds = backoff(0.25, 15.0, 1.7)

Setup = Callable[[Link], Awaitable[None]]


def _no_words(_: object) -> str | None:
    return None


class _Factory(Factory):
    noisy = False

    def __init__(self, build: Callable[[], AmqpProtocol]) -> None:
        self._build = build

    def buildProtocol(self, addr: object) -> AmqpProtocol:
        return self._build()


class RabbitConnection:
    """`url` is amqp[s]://[user:password@]host[:port]/[vhost][?heartbeat=s]; `name` is for logs and metrics.

    Several users share a connection: each adds its setup before the start, starts it and stops it; it
    ends when the last has. A setup that fails, and a vital channel that closes, drop the connection.
    """

    log = Logger()

    def __init__(self, reactor: Any, url: str, name: str) -> None:
        """Raises ConfigurationError for a url that cannot be used."""
        self._reactor = reactor
        self._seldom = Seldom(self.log, reactor.seconds)
        self._url = url
        self.name = name
        parameters = self._parameters()
        endpoint: Any = HostnameEndpoint(reactor, parameters.host, parameters.port, timeout=CONNECT_SECONDS)
        explain: Callable[[object], str | None] = _no_words
        if parameters.ssl_options is not None:
            tls = ServerTls(parameters.host)
            explain = tls.reason
            endpoint = wrapClientTLS(cast(Any, tls), endpoint)
        self._endpoint = endpoint
        self._factory = _Factory(lambda: AmqpProtocol(reactor, self._parameters(), name, explain))
        self._setups: list[tuple[Setup, Callable[[], None]]] = []
        self._users = 0
        self._running: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._link: Link | None = None
        self._attempt: Link | None = None
        self._blocked = False
        self._freed: list[Callable[[], None]] = []
        self._reason = "not connected yet"
        self._failures = 0

    # from its users

    def add_user(self, setup: Setup, lost: Callable[[], None]) -> None:
        """`setup(link)` is awaited on each new connection, in order of adding, within SETUP_SECONDS in all.

        `lost()` is called each time after that, when the connection is gone or could not be set up.
        """
        self._setups.append((setup, lost))

    def when_freed(self, call: Callable[[], None]) -> None:
        """`call()` each time that the broker reads again after it had blocked the connection."""
        self._freed.append(call)

    def start(self) -> Deferred[None]:
        """Connect, and go on for ever. Fires when the connection has been set up for the first time."""
        self._users += 1
        if self._running is None:
            self._running = ensureDeferred(self._run())
            self._running.addErrback(self._ended_badly)
        if self._link is not None:
            return succeed(None)
        ready: Deferred[None] = Deferred()
        self._waiting.append(ready)
        return ready

    async def stop(self) -> None:
        """The last user's stop closes the connection, within a few seconds."""
        self._users = max(0, self._users - 1)
        if self._users or self._running is None:
            return
        running = self._running
        if self._link is not None:
            self._link.close()
        else:
            running.cancel()
        await running
        self._running = None
        self._waiting.clear()

    def problem(self) -> str | None:
        """Why it cannot be used; None when it can."""
        if self._link is None:
            return f"RabbitMQ ({self.name}): {plain_reason(self._reason)}"
        if self._blocked:
            return f"RabbitMQ ({self.name}): blocked by the broker (memory or disk alarm)"
        return None

    @property
    def blocked(self) -> bool:
        """The broker has stopped reading from this connection."""
        return self._blocked

    @property
    def congested(self) -> bool:
        """More than CONGESTED_BYTES wait to be sent."""
        return self._link is not None and self._link.unsent_bytes > CONGESTED_BYTES

    @property
    def filling(self) -> bool:
        """More than FILLING_BYTES wait to be sent: the least important has to make room."""
        return self._link is not None and self._link.unsent_bytes > FILLING_BYTES

    @property
    def behind(self) -> bool:
        """More than TYPING_BYTES wait to be sent: hints would wait behind whatever is sent for little."""
        return self._link is not None and self._link.unsent_bytes > TYPING_BYTES

    # its life

    def _parameters(self) -> pika.URLParameters:
        """Made anew for each connection, since pika writes the negotiated values into them."""
        try:
            if urlsplit(self._url).scheme not in ("amqp", "amqps"):
                raise ValueError(self._url)
            parameters = pika.URLParameters(self._url)
            options = parse_qs(urlsplit(self._url).query)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ConfigurationError(
                "rabbitmq url: amqp[s]://[user:password@]host[:port]/[vhost] is expected"
            ) from None
        if "heartbeat" not in options:
            parameters.heartbeat = HEARTBEAT_SECONDS
        if "blocked_connection_timeout" not in options:
            parameters.blocked_connection_timeout = BLOCKED_SECONDS
        parameters.client_properties = {"connection_name": f"imd {self.name}"}
        return parameters

    async def _run(self) -> None:
        while self._users:
            try:
                link = await self._connect()
            except Exception as error:
                reason = (self._attempt.reason if self._attempt is not None else None) or reason_of(error)
            else:
                self._usable(link)
                await link.lost
                reason = link.reason or "lost"
            self._link = self._attempt = None
            self._blocked = False
            for _, lost in self._setups:
                lost()
            if not self._users:
                break
            await self._failed(reason)
        self._reason = "stopped"

    def _ended_badly(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("RabbitMQ ({name}): no longer connects", failure, name=self.name)

    async def _connect(self) -> Link:
        """A link on which all setups are done. After a failure nothing is left open."""
        protocol = await self._endpoint.connect(self._factory)
        self._attempt = link = Link(self._reactor, protocol)
        work = ensureDeferred(self._set_up(protocol, link))
        link.lost.addCallback(lambda _: work.cancel())
        work.addTimeout(SETUP_SECONDS, self._reactor)
        try:
            await work
        except BaseException as error:
            link.drop(error)
            await link.lost
            raise
        return link

    async def _set_up(self, protocol: AmqpProtocol, link: Link) -> None:
        if protocol.ready is not None:
            await link.call(protocol.ready, "handshake")
        # A first channel gives access to the broker's properties, which setups need.
        await link.channel()
        link.watch_blocked(self._on_blocked)
        for setup, _ in self._setups:
            await setup(link)

    def _usable(self, link: Link) -> None:
        self._link = link
        CONNECTS.labels(self.name).inc()
        if self._failures:
            self._seldom.info(
                "RabbitMQ ({name}): back after {failures} failures", name=self.name, failures=self._failures
            )
        self._failures = 0
        waiting, self._waiting = self._waiting, []
        for ready in waiting:
            ready.callback(None)

    async def _failed(self, reason: str) -> None:
        """Log the first failure of a streak, then wait: longer after each failure, with jitter."""
        self._reason = reason
        FAILURES.labels(self.name).inc()
        if not self._failures:
            self._seldom.warn("RabbitMQ ({name}): {reason}; trying again", name=self.name, reason=reason)
        delay = _retry_seconds(self._failures)
        self._failures += 1
        pause: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._reactor.callLater(delay, pause.callback, None)
        await pause

    def _on_blocked(self, blocked: bool) -> None:
        if blocked != self._blocked:
            self._blocked = blocked
            state = "blocked by the broker (memory or disk alarm)" if blocked else "no longer blocked"
            self._seldom.warn("RabbitMQ ({name}): {state}", name=self.name, state=state)
            if not blocked:
                for call in self._freed:
                    call()
