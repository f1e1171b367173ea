"""Two connections to one Redis that are used together or not at all, and the run of Redis behind them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from prometheus_client import Counter
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.together import together
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable
from imd.protocol.ids import ServerClock
from imd.store.redis.connection import Owner, RedisConnection

RUNS = Counter("imd_redis_runs_total", "Times that Redis was found to be another run, and devices were told.")

_unpack_run = msgspec.msgpack.Decoder(tuple[int, int]).decode


class _Write(NamedTuple):
    """The last reply to a call that wrote what users count on. `at`: when it came, in monotonic seconds."""

    run_id: bytes
    run: int
    at: float


class RedisPair(Owner):
    """Placing messages has a connection of its own, so that no reply waits while a large page is parsed.

    Both are used only once they are connected to the same process, and a first script has told the run of
    Redis. If one is lost, both are dropped. So no message is placed on one primary after the node has learned
    from another that messages may be missing.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        url: str,
        clock: ServerClock,
        nothing: bytes,
        *,
        lossless: bool,
        timeout_seconds: float,
    ) -> None:
        """`nothing`: a script's request without items."""
        self._clock = clock
        self._seldom = Seldom(self.log, clock.monotonic)
        self._nothing = nothing
        self._lossless = b"1" if lossless else b""
        self.accepting, self.general = (
            RedisConnection(reactor, url, name, timeout_seconds, self) for name in ("accept", "general")
        )
        self._waiting: dict[RedisConnection, Deferred[None]] = {}
        self.run = 0
        """the highest run number of any reply"""
        self._wrote: _Write | None = None
        self._has_replicas = False

    def start(self) -> Deferred[None]:
        both = together([self.accepting.start(), self.general.start()])
        return both.addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        both = gatherResults([self.accepting.stop(), self.general.stop()])
        self._refuse(Failure(Unavailable("stopped")))
        return both.addCallback(lambda _: None)

    def problem(self) -> str | None:
        # A connection that waits for the other one does not know the cause.
        waiting = self._waiting
        for connection in sorted((self.accepting, self.general), key=lambda one: one in waiting):
            if connection.problem() is not None:
                return connection.problem()
        return None

    def lost_since_asked(self) -> str:
        """Why a connection was lost since the last call; empty if none was."""
        why = self.accepting.lost_because or self.general.lost_because
        self.accepting.lost_because = self.general.lost_because = ""
        return why

    def run_script(self, name: str, request: bytes) -> Deferred[bytes]:
        """Run a script on its connection. Fails with Unavailable."""
        connection = self.accepting if name == "accept" else self.general
        return connection.run_script(name, *self._arguments(connection, request))

    def answered(self, run: int, *, wrote: bool) -> None:
        """Note that a script has answered from this run.

        `wrote`: it has put messages into inboxes, or has a list of blocked users. The next primary must not
        lack them silently.
        """
        if run > self.run:
            if self.run:
                RUNS.inc()
                self._seldom.warn(
                    "redis: run {run} follows {before}: Redis may have forgotten messages, devices are told",
                    run=run,
                    before=self.run,
                )
            self.run = run
        if wrote:
            self._wrote = _Write(self.general.run_id, run, self._clock.monotonic())

    def _arguments(self, connection: RedisConnection, request: bytes) -> list[bytes]:
        """In the order of lua/request.lua."""
        chance = secrets.token_hex(6).encode()
        return [
            connection.run_id,
            self._lossless,
            connection.backlog_ttl,
            b"%d" % self.run,
            chance,
            request,
        ]

    # from the connections

    def admit(self, connection: RedisConnection) -> Deferred[None]:
        admitted: Deferred[None] = Deferred()
        self._waiting[connection] = admitted
        if len(self._waiting) == 2:
            self._meet()
        return admitted

    def gone(self, connection: RedisConnection) -> None:
        admitted = self._waiting.pop(connection, None)
        if admitted is not None:
            admitted.errback(Failure(Unavailable("the connection was lost")))
        other = self.general if connection is self.accepting else self.accepting
        # Both go together, for the same reason.
        other.drop(connection.why)

    def looked(self, info: Mapping[bytes, bytes]) -> None:
        replicas = int(info.get(b"connected_slaves", b"0"))
        if replicas and self._lossless and not self._has_replicas:
            self.log.warn(
                "[redis] lossless = yes, and {replicas} replicas follow: if one is restarted and takes over, "
                "messages that it had not got are missed silently",
                replicas=replicas,
            )
        self._has_replicas = bool(replicas)

    # from within

    def _meet(self) -> None:
        one, other = self.accepting.run_id.decode(), self.general.run_id.decode()
        if one != other:
            text = f"the url leads to two servers, now to this and now to that (run ids {one} and {other})"
            self._refuse(Failure(Unavailable(text)))
            return
        arguments = self._arguments(self.general, self._nothing)
        wrote = self._wrote
        if wrote is not None and wrote.run_id != self.general.run_id:
            ms_ago = (self._clock.monotonic() - wrote.at) * 1000
            arguments += [b"%d" % wrote.run, b"%d" % ms_ago]
        asked_at = self._clock.monotonic()
        met = self.general.run_script_first("run", *arguments)
        met.addCallbacks(self._met, self._refuse, callbackArgs=(asked_at,))

    def _met(self, reply: bytes, asked_at: float) -> None:
        now_ms, run = _unpack_run(reply)
        # Before the first message, since this machine's clock may be wrong.
        self._clock.correct(now_ms, asked_at)
        self.answered(run, wrote=False)
        if self._wrote is not None and self._wrote.run_id != self.general.run_id:
            # The script has taken the write on another process into account.
            self._wrote = None
        waiting, self._waiting = self._waiting, {}
        # Empty if a connection was lost meanwhile: `gone` has dropped both.
        for admitted in waiting.values():
            admitted.callback(None)

    def _refuse(self, failure: Failure) -> None:
        waiting, self._waiting = self._waiting, {}
        for admitted in waiting.values():
            admitted.errback(failure)
