"""A connection to Redis: it reconnects by itself, runs the scripts, and has a deadline for each command."""

from __future__ import annotations

import random
from collections.abc import Mapping
from hashlib import sha1
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from prometheus_client import Counter
from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from txredisapi import HiredisProtocol, ResponseError

from imd.observe.seldom import Seldom
from imd.protocol.errors import ConfigurationError, Unavailable
from imd.store.redis.reasons import plain_reason
from imd.store.redis.scripts import load_scripts
from imd.store.tls import ServerTls
from imd.store.twisted_internals import QuietClientService

RECONNECTS = Counter("imd_redis_connects_total", "Connections made to Redis.", ["connection"])

# An operator may change settings while Redis runs.
SETTINGS_SECONDS = 60.0

# repl-backlog-ttl in seconds, if the user may not read it.
UNKNOWN_BACKLOG_TTL = b"10"
_ASK_SETTINGS = ("INFO", "memory", "replication")
_ASK_BACKLOG_TTL = ("CONFIG", "GET", "repl-backlog-ttl")

# Short: neither connection of a pair is used before both are back.
_backoff = backoffPolicy(0.1, 3.0, 1.5)

NO_CLUSTER = "this is a Redis Cluster: a batch touches many users, so one primary is needed"

# Errors whose text says enough without their kind.
_PLAIN = (ConfigurationError, Unavailable, ResponseError)
# Answers of a server that cannot be used as it is: reconnecting may lead to another one.
_DROP_ON = ("NOSCRIPT", "READONLY", "LOADING", "MASTERDOWN", "UNBLOCKED", "NOAUTH")


class _Protocol(HiredisProtocol):
    factory: _RedisFactory

    def connectionLost(self, why: Any) -> None:
        # Before the driver reports the loss, since its errors do not say why.
        self.factory.lost_because = why
        super().connectionLost(why)


class _RedisFactory(Factory):
    noisy = False

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self.lost_because: Any = None
        """the Failure that ended the last connection"""

    def buildProtocol(self, addr: object) -> Any:
        self.lost_because = None
        # Replies stay bytes: txredisapi would turn "007" into 7.
        protocol = _Protocol(charset=None, convertNumbers=False, replyTimeout=self._timeout_seconds)
        protocol.factory = self
        return protocol


class Owner:
    """Owner of connections: decides whether they are used. This one always agrees."""

    def admit(self, connection: RedisConnection) -> Deferred[None]:
        """Fires when this new connection may be used; fails if it is to be dropped."""
        return succeed(None)

    def gone(self, connection: RedisConnection) -> None:
        """A connection was lost or dropped, whether it was admitted or not."""

    def looked(self, info: Mapping[bytes, bytes]) -> None:
        """INFO memory and replication, for each new connection and every SETTINGS_SECONDS."""


class RedisConnection:
    """`url` is redis[s]://[user:password@]host[:port][/db].

    Without a connection commands fail at once. After `timeout_seconds` without an answer a command fails, and
    the connection is dropped, so that a late answer is not taken for the next command's.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        url: str,
        name: str,
        timeout_seconds: float,
        owner: Owner | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._reactor = reactor
        self._seldom = Seldom(self.log, reactor.seconds)
        self._name = name
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 6379
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._db = int(parts.path.strip("/") or 0)
        self._timeout_seconds = timeout_seconds
        self._scripts = load_scripts()
        self._hashes = {name: sha1(text).hexdigest() for name, text in self._scripts.items()}
        self._owner = owner or Owner()
        self._prepared: Any = None
        """the protocol of a connection that is being prepared, or waits to be admitted"""
        self._protocol: Any = None
        """the same once it is admitted"""
        self._problem = "not connected yet"
        self._ready: Deferred[None] = Deferred()
        self._stopping = False
        self.lost_because = ""
        """why the last connection was lost; the reader empties it"""
        self._unprepared = 0
        """consecutive connections that were made and could not be prepared"""
        self.run_id = b""
        """of the Redis process at the other end; it changes with a restart or failover"""
        self.backlog_ttl = UNKNOWN_BACKLOG_TTL
        """its repl-backlog-ttl, in seconds"""
        endpoint: Any = HostnameEndpoint(reactor, self._host, self._port, timeout=timeout_seconds)
        self._tls = ServerTls(self._host) if parts.scheme == "rediss" else None
        if self._tls is not None:
            endpoint = wrapClientTLS(cast(Any, self._tls), endpoint)
        self._factory = _RedisFactory(timeout_seconds)
        self._service = QuietClientService(
            endpoint,
            cast(Any, self._factory),
            retryPolicy=self._retry_seconds,
            clock=reactor,
            prepareConnection=self._begin,
        )
        self._looking = LoopingCall(self._look_at_settings)
        self._looking.clock = reactor

    def start(self) -> Deferred[None]:
        """Fires when a connection is ready for the first time.

        Fails with ConfigurationError if the server is one that can never be used.
        """
        self._service.startService()
        self._looking.start(SETTINGS_SECONDS, now=False).addErrback(
            lambda f: self.log.failure("redis {name}: its settings are no longer checked", f, name=self._name)
        )
        return self._ready

    def stop(self) -> Deferred[None]:
        self._stopping = True
        if self._looking.running:
            self._looking.stop()
        self._problem = "stopped"
        self._prepared = self._protocol = None
        stopped: Deferred[None] = self._service.stopService()
        stopped.addTimeout(self._timeout_seconds, self._reactor)
        stopped.addErrback(
            lambda f: self.log.warn("redis {name}: not closed in time", name=self._name, failure=f)
        )
        return stopped

    @property
    def why(self) -> str:
        """Why it cannot be used, in the words of Redis or the driver; empty when it can."""
        return self._problem

    def problem(self) -> str | None:
        return f"redis: {plain_reason(self._problem)}" if self._problem else None

    def _begin(self, protocol: IProtocol) -> None:
        """Returns nothing to wait for: a ClientService fails if the connection is lost while it prepares."""
        self._prepare(protocol)

    def _retry_seconds(self, attempt: int) -> float:
        return _backoff(max(attempt, self._unprepared)) * random.uniform(0.5, 1.0)

    @inlineCallbacks
    def _prepare(self, redis: Any) -> Any:
        """Log in, learn which process this is, and load the scripts; drop the connection if that fails."""
        try:
            redis.transport.setTcpNoDelay(True)
            if self._password:
                yield redis.auth(self._password, self._user or None)
            if self._db:
                yield redis.select(self._db)
            info = _parse_info((yield redis.execute_command("INFO", "server")))
            if info.get(b"redis_mode") == b"cluster":
                raise ConfigurationError(NO_CLUSTER)
            info.update(_parse_info((yield redis.execute_command(*_ASK_SETTINGS))))
            try:
                self._note_backlog_ttl((yield redis.execute_command(*_ASK_BACKLOG_TTL)))
            except ResponseError:
                self.backlog_ttl = UNKNOWN_BACKLOG_TTL
            for text in self._scripts.values():
                yield redis.execute_command("SCRIPT", "LOAD", text)
            self.run_id = info.get(b"run_id", b"")
            if not self.run_id:
                raise Unavailable("INFO has no run_id, so nothing tells one process from another")
            self._prepared = redis
            # `redis` is the service's proxy. whenDisconnected gives the protocol, which is not the same.
            redis.whenDisconnected().addCallback(lambda _: self._lost(redis))
            yield self._owner.admit(self)
        except Exception as error:
            self._unprepared += 1
            if self._prepared is redis:
                self._prepared = None
            if not self._stopping:
                kind = "" if isinstance(error, _PLAIN) else f"{type(error).__name__}: "
                why = self._tls.reason(self._factory.lost_because) if self._tls is not None else None
                self._note_problem(why or f"{kind}{plain_reason(str(error))}")
                if isinstance(error, ConfigurationError) and not self._ready.called:
                    self._ready.errback(Failure(ConfigurationError(f"redis: {error}")))
            redis.transport.abortConnection()
            return
        self._unprepared = 0
        self._protocol = redis
        RECONNECTS.labels(self._name).inc()
        self._seldom.info("redis {name}: connected, run id {run}", name=self._name, run=self.run_id.decode())
        self._judge(info)
        if not self._ready.called:
            self._ready.callback(None)

    def _judge(self, info: Mapping[bytes, bytes]) -> None:
        """Note whether the settings of this Redis allow its use."""
        self._owner.looked(info)
        policy = info.get(b"maxmemory_policy", b"noeviction").decode()
        if policy != "noeviction":
            self._note_problem(f"maxmemory-policy is {policy}; with anything but noeviction messages vanish")
        else:
            if self._problem.startswith("maxmemory-policy"):
                self._seldom.info("redis {name}: maxmemory-policy is {p} again", name=self._name, p=policy)
            self._problem = ""

    def _look_at_settings(self) -> Deferred[None] | None:
        protocol = self._protocol
        if protocol is None:
            return None

        def looked(reply: bytes) -> None:
            if self._protocol is protocol:
                self._judge(_parse_info(reply))

        # A lost connection is noted elsewhere, and the next look comes soon.
        self.command(*_ASK_BACKLOG_TTL).addCallback(self._note_backlog_ttl).addErrback(
            lambda f: f.trap(Unavailable)
        )
        return self.command(*_ASK_SETTINGS).addCallback(looked).addErrback(lambda f: f.trap(Unavailable))

    def _note_backlog_ttl(self, found: list[bytes]) -> None:
        self.backlog_ttl = found[1] if found else UNKNOWN_BACKLOG_TTL

    def _lost(self, protocol: Any) -> None:
        if self._prepared is protocol:
            self._let_go("the connection was lost")

    def drop(self, why: str) -> None:
        """End the connection, if there is one; the service makes the next."""
        protocol = self._prepared
        if protocol is not None:
            self._let_go(why)
            protocol.transport.abortConnection()

    def _let_go(self, why: str) -> None:
        self.lost_because = why
        self._prepared = self._protocol = None
        if not self._stopping:
            self._note_problem(why)
        self._owner.gone(self)

    def _note_problem(self, why: str) -> None:
        if why != self._problem:
            self._problem = why
            self._seldom.warn("redis {name}: {why}", name=self._name, why=plain_reason(why))

    def command(self, *parts: bytes | str | int) -> Deferred[Any]:
        """Run one command. Fails with Unavailable."""
        protocol = self._protocol
        if protocol is None:
            return fail(Unavailable(f"redis: {plain_reason(self._problem or 'not connected')}"))
        try:
            done: Deferred[Any] = protocol.execute_command(*parts)
        except Exception as error:
            return fail(Unavailable(f"redis: {plain_reason(str(error))}"))
        return done.addErrback(self._command_failed, protocol)

    def run_script(self, name: str, *arguments: bytes) -> Deferred[bytes]:
        """Run a script, by its file's name; it makes its keys itself. Fails with Unavailable."""
        return self.command("EVALSHA", self._hashes[name], 0, *arguments)

    def run_script_first(self, name: str, *arguments: bytes) -> Deferred[bytes]:
        """`run_script` on a connection that waits to be admitted. Fails with Redis' or the driver's error."""
        done: Deferred[bytes] = self._prepared.execute_command("EVALSHA", self._hashes[name], 0, *arguments)
        return done

    def _command_failed(self, failure: Failure, protocol: Any) -> Failure:
        text = failure.getErrorMessage()
        if text.startswith(_DROP_ON) and self._protocol is protocol:
            self.drop(text)
        return Failure(Unavailable(f"redis: {plain_reason(text)}"))


def _parse_info(reply: bytes) -> dict[bytes, bytes]:
    return dict(line.split(b":", 1) for line in reply.splitlines() if b":" in line)
