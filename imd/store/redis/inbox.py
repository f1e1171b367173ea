"""The inbox, the channel registry and the desk in Redis: each method calls a script of lua/."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

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
    Sent,
    Submission,
    Superseded,
    TooManyChannels,
)
from imd.contracts.level import FIRST, NEWEST
from imd.protocol.errors import Unavailable
from imd.protocol.ids import ServerClock
from imd.store.redis.accept import accept_items, encode_id, read_names, read_outcomes, read_served, sent_name
from imd.store.redis.reasons import plain_reason
from imd.store.redis.script_calls import BatchedScript, ScriptCalls, newcomer_seconds

_unpack_accept = msgspec.msgpack.Decoder(tuple[int, int, list[str], list[int], Any, int, int]).decode
_unpack_desk = msgspec.msgpack.Decoder(tuple[int, int, list[Any], int, int]).decode
_unpack_run = msgspec.msgpack.Decoder(tuple[int, int]).decode


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
        self._level = NEWEST
        self._visitor_seconds = math.ceil(options.visitor_days * 86400)
        self._newcomer_seconds = newcomer_seconds(options)
        self.calls = calls = ScriptCalls(
            reactor, url, options, clock, lossless=lossless, timeout_seconds=timeout_seconds
        )
        self._redis = calls.redis
        self._connect = BatchedScript(calls, "connect", self._read_connect)
        self._pull = BatchedScript(calls, "pull", _read_page)
        self._ack = BatchedScript(calls, "ack", _read_head)
        self._renew = BatchedScript(calls, "renew", self._read_renewed)
        self._sent = BatchedScript(calls, "sent", _read_sent)
        self._leave = BatchedScript(calls, "leave", lambda reply: self._tell_watched(reply[1:]))

    # Backend

    def start(self) -> Deferred[None]:
        return self._redis.start()

    def stop(self) -> Deferred[None]:
        return self._redis.stop()

    def problem(self) -> str | None:
        return self._redis.problem()

    def command(self, *parts: bytes | str | int) -> Deferred[Any]:
        """Run one command for another store of the node. Fails with Unavailable."""
        return self._redis.general.command(*parts)

    def set_level(self, level: int) -> None:
        """The cluster's level, before the first message and when it changes."""
        self._level = level
        self.calls.set_level(level)

    # messages on their way in

    def accept(self, batch: Sequence[Submission]) -> Deferred[list[Outcome]]:
        done = self.calls.call("accept", accept_items(batch), _unpack_accept)
        return done.addCallback(read_outcomes, batch)

    def sent_before(self, user: str, device: str, client_msg_id: str) -> Deferred[Sent | None]:
        return self._sent(sent_name(user, device, client_msg_id))

    def probe(self) -> Deferred[int]:
        # A connection that was lost and is back already may be lost again before the next look.
        if lost := self._redis.lost_since_asked():
            return fail(Unavailable(f"redis: {plain_reason(lost)}"))
        # A call without messages: Redis refuses it on the same grounds as one with messages.
        looked = self.calls.call("accept", accept_items([]), _unpack_accept)
        return looked.addCallback(lambda _: self._redis.run)

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
            request.sync,
            request.flags,
        )

    def pull(self, user: str, epoch: str, after: int, limit: int) -> Deferred[Page]:
        return self._pull(encode_id(user), epoch, after, limit)

    def ack(self, ack: Ack) -> Deferred[Head]:
        user = encode_id(ack.user)
        return self._ack(user, ack.device, ack.channel, ack.epoch, ack.seq, ack.start_confirmed)

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
        # Another run may have forgotten channels.
        return self.calls.call("run", [], _unpack_run).addCallback(lambda _: str(self._redis.run))

    def _read_connect(self, reply: list[Any]) -> ConnectOutcome:
        if reply[0] == 1:
            return Superseded()
        if reply[0] == 2:
            return TooManyChannels()
        _, seq, recovered, replaced, epoch, head, flat, *watched = reply
        self._tell_watched(watched)
        return Registered(seq, recovered, replaced, Page(epoch, head, _read_messages(flat)))

    def _read_renewed(self, reply: list[Any]) -> Head:
        self._tell_watched(reply[3:])
        return Head(*reply[:3])

    def _tell_watched(self, watched: Sequence[str]) -> None:
        if watched:
            self.calls.watched(watched)

    # the desk and its visitors

    def serve_desk(self) -> Deferred[list[Delivery]]:
        return self.calls.call("desk", [], _unpack_desk).addCallback(read_served)

    def agent_of(self, visitor: str) -> Deferred[str]:
        return self._redis.general.command("GET", f"imd:{{{encode_id(visitor)}}}:agent").addCallback(
            lambda agent: unquote(agent.decode()) if agent else ""
        )

    def remember_visitor(self, visitor: str, token_hash: str) -> Deferred[None]:
        name, seconds = "newcomer", self._newcomer_seconds
        if self._level == FIRST:
            # Nodes of 0.1 look for the token there.
            name, seconds = "visitor", self._visitor_seconds
        return self._redis.general.command(
            "SET", _token_key(visitor, name), token_hash, "EX", seconds
        ).addCallback(lambda _: None)

    def knows_visitor(self, visitor: str, token_hash: str) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._knows_visitor(visitor, token_hash))

    async def _knows_visitor(self, visitor: str, token_hash: str) -> bool:
        command = self._redis.general.command
        # In this order: a first message moves the token from the one key to the other.
        for name, seconds in (("newcomer", self._newcomer_seconds), ("visitor", self._visitor_seconds)):
            key = _token_key(visitor, name)
            stored = await command("GET", key)
            if stored is not None and secrets.compare_digest(stored, token_hash.encode()):
                await command("EXPIRE", key, seconds)
                return True
        return False


def _token_key(visitor: str, name: str) -> str:
    return f"imd:{{{encode_id(visitor)}}}:{name}"


def _read_messages(flat: list[Any]) -> list[tuple[int, bytes]]:
    pairs = iter(flat)
    return [(seq, body.encode()) for seq, body in zip(pairs, pairs, strict=True)]


def _read_page(reply: list[Any]) -> Page:
    epoch, head, flat = reply
    return Page(epoch, head, _read_messages(flat))


def _read_sent(reply: list[Any]) -> Sent | None:
    if not reply:
        return None
    checksum, message_id, send_time, version, left = reply
    return Sent(checksum, message_id, send_time, version, read_names(left))


def _read_head(reply: list[Any]) -> Head:
    return Head(*reply)
