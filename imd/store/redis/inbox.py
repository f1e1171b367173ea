"""The inbox, the channel registry and the desk in Redis. The work is done by the scripts in lua/."""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
from prometheus_client import Gauge, Histogram
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.contracts.inbox import (
    Ack,
    ConnectOutcome,
    ConnectRequest,
    Delivery,
    Head,
    InboxOptions,
    Lease,
    Leave,
    Outcome,
    Page,
    Registered,
    Submission,
    Superseded,
    TooManyChannels,
)
from imd.protocol.errors import Unavailable
from imd.protocol.ids import ServerClock
from imd.store.redis.accept import accept_items, encode_id, read_outcomes, read_served
from imd.store.redis.pair import RedisPair
from imd.store.redis.reasons import plain_reason

SCRIPT_SECONDS = Histogram(
    "imd_redis_script_seconds",
    "Time until Redis answered a script call.",
    ["script"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
WAITING_CALLS = Gauge("imd_redis_waiting_items", "Items that wait for a script call, by script.", ["script"])

MAX_WAITING_ITEMS = 200_000
# Redis does nothing else while a script runs: calls stay short. A connect and a pull also bring a page each.
MAX_ITEMS_PER_CALL = {"connect": 50, "pull": 50, "ack": 250, "renew": 250, "leave": 100}
MAX_CALLS_IN_FLIGHT = 2
# Which part of these scripts' answers is empty when they have put nothing into inboxes.
_PLACED_BY = {"accept": 1, "desk": 0}

_pack = msgspec.msgpack.Encoder().encode
_unpack_accept = msgspec.msgpack.Decoder(tuple[int, int, list[str], list[int], Any, int, int]).decode
_unpack_desk = msgspec.msgpack.Decoder(tuple[int, int, list[Any], int, int]).decode
_unpack_run = msgspec.msgpack.Decoder(tuple[int, int]).decode
_unpack_list = msgspec.msgpack.Decoder(tuple[int, int, list[Any]]).decode


class _ScriptCalls:
    """Calls one script with as many items as wait: a call is never half full while another is under way."""

    def __init__(self, owner: RedisInbox, script: str, read: Callable[[Any], Any]) -> None:
        self._owner = owner
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
            self._owner.reactor.callLater(0, self._flush)
        return done

    def _flush(self) -> None:
        self._scheduled = False
        if self._flushing:
            # A call that failed at once: the loop goes on with the next, not a loop within it.
            return
        self._flushing = True
        while self._waiting and self._in_flight < MAX_CALLS_IN_FLIGHT:
            count = min(len(self._waiting), self._per_call)
            batch = [self._waiting.popleft() for _ in range(count)]
            self._in_flight += 1
            call = self._owner.call(self._script, [item for item, _ in batch], _unpack_list)
            call.addCallbacks(self._answered, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))
        self._flushing = False
        self._gauge.set(len(self._waiting))

    def _answered(self, content: list[Any], batch: list[tuple[Any, Deferred[Any]]]) -> None:
        self._in_flight -= 1
        self._flush()
        for reply, (_, done) in zip(content[0], batch, strict=True):
            if isinstance(reply, str):
                done.errback(Failure(Unavailable(f"redis: {reply}")))
            else:
                done.callback(self._read(reply))

    def _failed(self, failure: Failure, batch: list[tuple[Any, Deferred[Any]]]) -> None:
        self._in_flight -= 1
        self._flush()
        for _, done in batch:
            done.errback(Failure(Unavailable(failure.getErrorMessage())))


class RedisInbox:
    """Implements imd.contracts.inbox.Inbox."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        url: str,
        options: InboxOptions,
        clock: ServerClock,
        *,
        lossless: bool = False,
        timeout_seconds: float = 5.0,
    ) -> None:
        self.reactor = reactor
        self._clock = clock
        self._options = options
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
        ]
        nothing = _pack([self._packed_options, []])
        self._redis = RedisPair(
            reactor, url, clock, nothing, lossless=lossless, timeout_seconds=timeout_seconds
        )
        self._connect = _ScriptCalls(self, "connect", _read_connect)
        self._pull = _ScriptCalls(self, "pull", _read_page)
        self._ack = _ScriptCalls(self, "ack", _read_head)
        self._renew = _ScriptCalls(self, "renew", _read_head)
        self._leave = _ScriptCalls(self, "leave", lambda reply: None)

    # Backend

    def start(self) -> Deferred[None]:
        return self._redis.start()

    def stop(self) -> Deferred[None]:
        return self._redis.stop()

    def problem(self) -> str | None:
        return self._redis.problem()

    def call(self, script: str, items: Sequence[Any], decode: Callable[[bytes], Any]) -> Deferred[Any]:
        """Run a script; gives what follows time and run in its reply. The time has set the clock right."""
        asked_at = self._clock.monotonic()
        done = self._redis.run_script(script, _pack([self._packed_options, items]))
        return done.addCallback(self._read_reply, script, asked_at, decode)

    def _read_reply(self, reply: bytes, script: str, asked_at: float, decode: Callable[[bytes], Any]) -> Any:
        SCRIPT_SECONDS.labels(script).observe(self._clock.monotonic() - asked_at)
        now_ms, run, *content = decode(reply)
        self._clock.correct(now_ms, asked_at)
        place = _PLACED_BY.get(script)
        self._redis.answered(run, placed=place is not None and bool(content[place]))
        return content

    # messages on their way in

    def accept(self, batch: Sequence[Submission]) -> Deferred[list[Outcome]]:
        done = self.call("accept", accept_items(batch), _unpack_accept)
        return done.addCallback(read_outcomes, batch)

    def probe(self) -> Deferred[None]:
        # One that is back already may be lost again before the next look.
        if lost := self._redis.lost_since_asked():
            return fail(Unavailable(f"redis: {plain_reason(lost)}"))
        # No message: Redis refuses the call, or not, as if there were one.
        return self.call("accept", accept_items([]), _unpack_accept).addCallback(lambda _: None)

    # channels and their devices

    def connect(self, request: ConnectRequest) -> Deferred[ConnectOutcome]:
        return self._connect(
            encode_id(request.user),
            request.device,
            request.channel,
            "-" if request.attempt is None else str(request.attempt),
            "" if request.epoch is None else request.epoch or "-",
            request.seq,
            request.ephemeral,
            request.answers_visitors,
            request.page,
            request.resume,
        )

    def pull(self, user: str, epoch: str, after: int, limit: int) -> Deferred[Page]:
        return self._pull(encode_id(user), epoch, after, limit)

    def ack(self, ack: Ack) -> Deferred[Head]:
        return self._ack(encode_id(ack.user), ack.device, ack.channel, ack.epoch, ack.seq, ack.told)

    def renew(self, lease: Lease) -> Deferred[Head]:
        return self._renew(
            encode_id(lease.user),
            lease.device,
            lease.channel,
            lease.answers_visitors,
            lease.renew,
        )

    def leave(self, leave: Leave) -> Deferred[None]:
        return self._leave(
            encode_id(leave.user), leave.device, leave.channel, leave.epoch, leave.seq, leave.ephemeral
        )

    def era(self) -> Deferred[str]:
        # Another run may have forgotten some of what the last one was told.
        return self.call("run", [], _unpack_run).addCallback(lambda _: str(self._redis.run))

    # the desk and its visitors

    def serve_desk(self) -> Deferred[list[Delivery]]:
        return self.call("desk", [], _unpack_desk).addCallback(read_served)

    def agent_of(self, visitor: str) -> Deferred[str]:
        return self._redis.general.command("GET", f"imd:{{{encode_id(visitor)}}}:agent").addCallback(
            lambda agent: unquote(agent.decode()) if agent else ""
        )

    def remember_visitor(self, visitor: str, token_hash: str) -> Deferred[None]:
        return self._redis.general.command(
            "SET", _visitor_key(visitor), token_hash, "EX", self._visitor_seconds()
        ).addCallback(lambda _: None)

    def knows_visitor(self, visitor: str, token_hash: str) -> Deferred[bool]:
        def compare(stored: bytes | None) -> bool | Deferred[bool]:
            if stored is None or not secrets.compare_digest(stored, token_hash.encode()):
                return False
            used = self._redis.general.command("EXPIRE", _visitor_key(visitor), self._visitor_seconds())
            return used.addCallback(lambda _: True)

        return self._redis.general.command("GET", _visitor_key(visitor)).addCallback(compare)

    def _visitor_seconds(self) -> int:
        return math.ceil(self._options.visitor_days * 86400)


def _visitor_key(visitor: str) -> str:
    return f"imd:{{{encode_id(visitor)}}}:visitor"


def _read_messages(flat: list[Any]) -> list[tuple[int, bytes]]:
    pairs = iter(flat)
    return [(seq, body.encode()) for seq, body in zip(pairs, pairs, strict=True)]


def _read_page(reply: list[Any]) -> Page:
    epoch, head, flat = reply
    return Page(epoch, head, _read_messages(flat))


def _read_connect(reply: list[Any]) -> ConnectOutcome:
    if reply[0] == 1:
        return Superseded()
    if reply[0] == 2:
        return TooManyChannels()
    _, seq, recovered, replaced, epoch, head, flat = reply
    return Registered(seq, recovered, replaced, Page(epoch, head, _read_messages(flat)))


def _read_head(reply: list[Any]) -> Head:
    return Head(*reply)
