"""Calls of the scripts: packed, measured, and batched where many items wait."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from prometheus_client import Gauge, Histogram
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from imd.contracts.inbox import NEWCOMER_SECONDS, InboxOptions
from imd.contracts.level import NEWEST
from imd.protocol.errors import Unavailable
from imd.protocol.ids import ServerClock
from imd.store.redis.pair import RedisPair

SCRIPT_SECONDS = Histogram(
    "imd_redis_script_seconds",
    "Time until Redis answered a script call.",
    ["script"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
WAITING_CALLS = Gauge("imd_redis_waiting_items", "Items that wait for a script call, by script.", ["script"])

MAX_WAITING_ITEMS = 200_000
# Redis does nothing else while a script runs, so calls stay short. Connects and pulls also read a page each.
MAX_ITEMS_PER_CALL = {
    "connect": 50,
    "pull": 50,
    "ack": 250,
    "renew": 250,
    "leave": 100,
    "sent": 250,
    "member": 50,
    "admit": 5,
    "aim": 20,
    "channels": 250,
    "look": 100,
    "hidden": 20,
    "block": 4,
}
MAX_CALLS_IN_FLIGHT = 2
# Whether a reply's parts tell of something that the next primary must not lack: messages were placed, or a
# list of blocked users is there. A list that was there before counts as well, since the caller relies on it
# now, and the node that wrote it may have died.
_HAS_WRITTEN: Mapping[str, Callable[[Sequence[Any]], bool]] = {
    "accept": lambda parts: bool(parts[1]),
    "desk": lambda parts: bool(parts[0]),
    "room": lambda parts: bool(parts[0]),
    "block": lambda parts: 0 in parts[0],
}

_pack = msgspec.msgpack.Encoder().encode
_unpack_list = msgspec.msgpack.Decoder(tuple[int, int, list[Any]]).decode


def newcomer_seconds(options: InboxOptions) -> int:
    """How long Redis keeps a visitor that has neither written nor got a message."""
    return min(NEWCOMER_SECONDS, math.ceil(options.visitor_days * 86400))


class ScriptCalls:
    """Packs requests, unpacks replies, and keeps the clock and the run by them."""

    def __init__(
        self,
        reactor: Any,
        url: str,
        options: InboxOptions,
        clock: ServerClock,
        *,
        lossless: bool,
        timeout_seconds: float,
    ) -> None:
        self.reactor = reactor
        self.watched: Callable[[Sequence[str]], None] = _ignore
        """told of a user, percent-encoded, and of the nodes that watch it: the user has come or gone"""
        self._clock = clock
        # In the order of lua/request.lua.
        self._packed_options = [
            options.max_messages,
            math.ceil(options.dedup_seconds),
            math.ceil(options.keep_days * 86400),
            math.ceil(options.lease_seconds),
            options.devices,
            options.channels_per_user,
            math.ceil(options.desk_grace_seconds),
            options.unopened_messages,
            options.new_ids,
            math.ceil(options.visitor_days * 86400),
            newcomer_seconds(options),
            NEWEST,
        ]
        nothing = _pack([self._packed_options, []])
        self.redis = RedisPair(
            reactor, url, clock, nothing, lossless=lossless, timeout_seconds=timeout_seconds
        )

    def set_level(self, level: int) -> None:
        """The cluster's level, for the scripts."""
        self._packed_options[-1] = level

    def now_ms(self) -> int:
        """Redis' time."""
        return self._clock.now_ms()

    def call(self, script: str, items: Sequence[Any], decode: Callable[[bytes], Any]) -> Deferred[Any]:
        """Run a script; gives the parts of its reply behind time and run. The time sets the clock right."""
        asked_at = self._clock.monotonic()
        done = self.redis.run_script(script, _pack([self._packed_options, items]))
        return done.addCallback(self._read_reply, script, asked_at, decode)

    def _read_reply(self, reply: bytes, script: str, asked_at: float, decode: Callable[[bytes], Any]) -> Any:
        SCRIPT_SECONDS.labels(script).observe(self._clock.monotonic() - asked_at)
        now_ms, run, *parts = decode(reply)
        self._clock.correct(now_ms, asked_at)
        has_written = _HAS_WRITTEN.get(script, _writes_nothing)
        self.redis.answered(run, wrote=has_written(parts))
        return parts


class BatchedScript:
    """Calls one script with all items that wait, up to a bound; few calls are in flight at a time."""

    def __init__(self, calls: ScriptCalls, script: str, read: Callable[[Any], Any]) -> None:
        """`read` makes an item's result of its outcome."""
        self._calls = calls
        self._script = script
        self._read = read
        self._waiting: deque[tuple[Sequence[Any], Deferred[Any]]] = deque()
        self._in_flight = 0
        self._scheduled = False
        self._flushing = False
        self._per_call = MAX_ITEMS_PER_CALL[script]
        self._gauge = WAITING_CALLS.labels(script)

    def __call__(self, *item: Any) -> Deferred[Any]:
        if len(self._waiting) >= MAX_WAITING_ITEMS:
            return fail(Unavailable(f"redis: {MAX_WAITING_ITEMS} items wait for {self._script} already"))
        done: Deferred[Any] = Deferred()
        self._waiting.append((item, done))
        if not self._scheduled and self._in_flight < MAX_CALLS_IN_FLIGHT:
            self._scheduled = True
            self._calls.reactor.callLater(0, self._flush)
        return done

    def _flush(self) -> None:
        self._scheduled = False
        if self._flushing:
            # Re-entrant: a call failed at once; the outer loop continues.
            return
        self._flushing = True
        while self._waiting and self._in_flight < MAX_CALLS_IN_FLIGHT:
            count = min(len(self._waiting), self._per_call)
            batch = [self._waiting.popleft() for _ in range(count)]
            self._in_flight += 1
            call = self._calls.call(self._script, [item for item, _ in batch], _unpack_list)
            call.addCallbacks(self._answered, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))
        self._flushing = False
        self._gauge.set(len(self._waiting))

    def _answered(self, parts: list[Any], batch: list[tuple[Any, Deferred[Any]]]) -> None:
        self._in_flight -= 1
        self._flush()
        for outcome, (_, done) in zip(parts[0], batch, strict=True):
            if isinstance(outcome, str):
                done.errback(Failure(Unavailable(f"redis: {outcome}")))
            else:
                done.callback(self._read(outcome))

    def _failed(self, failure: Failure, batch: list[tuple[Any, Deferred[Any]]]) -> None:
        self._in_flight -= 1
        self._flush()
        for _, done in batch:
            done.errback(Failure(Unavailable(failure.getErrorMessage())))


def _writes_nothing(parts: Sequence[Any]) -> bool:
    return False


def _ignore(told: Sequence[str]) -> None:
    """Used until somebody listens."""
