"""One device's place in its inbox: what it was sent, what it has acknowledged, what it still has to get.

The inbox is the truth. Hints push the next message at once; anything else (a gap, a full window, a slow
socket, a lost hint) makes the session pull from the inbox when it can. `sent` only ever rises by one
within an epoch, so order, no holes and no repeats follow from one counter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prometheus_client import Counter
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.cursor import Cursor
from imd.chat.hint_buffer import REPLAYED, HintBuffer
from imd.chat.outlet import Outlet
from imd.contracts.inbox import (
    Ack,
    ConnectOutcome,
    ConnectRequest,
    Head,
    Inbox,
    Lease,
    Leave,
    Page,
    Registered,
    Superseded,
)
from imd.observe.seldom import Seldom
from imd.observe.trace import TRACE
from imd.protocol import frames
from imd.protocol.errors import CLOSE_OVERLOADED, CLOSE_REPLACED, INVALID_MESSAGE, Refused, Unavailable
from imd.protocol.ids import BEGINNING_BYTES

PULLED = Counter("imd_pulled_messages_total", "Messages delivered by reading the inbox.")
RESETS = Counter("imd_session_resets_total", "Times that a connected device had to be told `reset`.")

PAGE_MESSAGES = 100
# A body of this size or more is sent beside its header, not copied into one frame with it.
LARGE_BYTES = 1024
# A device that never acknowledges is pinged after so many messages, as its pong confirms them.
UNACKED_PING = 64


class Session:
    """`acknowledges` is False for seed clients, who never do: pongs and clean closes count instead."""

    __slots__ = (
        "_early",
        "_hint_buffer",
        "_inbox",
        "_left",
        "_other_epoch",
        "_outlet",
        "_pinged",
        "_pulling",
        "_request",
        "_reset_unread",
        "_starts",
        "acknowledges",
        "answers_visitors",
        "ceiling",
        "channel",
        "cursor",
        "device",
        "ended",
        "ephemeral",
        "epoch",
        "given_last",
        "known",
        "sent",
        "user",
        "window",
    )

    log = Seldom(Logger())

    def __init__(
        self,
        inbox: Inbox,
        outlet: Outlet,
        request: ConnectRequest,
        *,
        acknowledges: bool,
        window: int,
    ) -> None:
        self._inbox = inbox
        self._outlet = outlet
        self._request = request
        self.user = request.user
        self.device = request.device
        self.channel = request.channel
        self.ephemeral = request.ephemeral
        self.answers_visitors = request.answers_visitors
        self.acknowledges = acknowledges
        self.window = window
        self.epoch = ""
        self.sent = 0
        """the last number written to the device"""
        self.known = 0
        """the highest number heard of: from a hint, from connecting, from reconciling"""
        self.ceiling = 0
        """the highest number ever sent to this channel, whatever the epoch"""
        self.given_last = b""
        """the beginning of the body that was written last; empty once the device's ids go on from it"""
        self.ended = False
        self._left = False
        self._pinged = 0
        self._starts = 0
        """how often the device was told where it starts; tells the pings before a reset from those after"""
        self._reset_unread = False
        """acknowledgements that name no epoch may still be about the numbers before the reset"""
        self._pulling = False
        self._hint_buffer: HintBuffer | None = None
        """the messages pushed since the inbox was asked"""
        self.cursor = Cursor()
        self._early: tuple[str, int] | None = None
        """the highest number heard of before the session began"""
        self._other_epoch = False
        """a hint of another epoch came since the inbox was last asked about the channel"""

    # from the connection

    def begin(self, registered: Registered) -> None:
        """The channel is registered; the caller has told the device where it starts."""
        page = registered.page
        self._start_at(page.epoch, registered.seq, page.head, start_confirmed=registered.recovered)
        if not self.cursor.start_confirmed and not self.acknowledges:
            self._outlet.ping()
        if self._early is not None:
            epoch, seq = self._early
            if epoch == page.epoch:
                self.known = max(self.known, seq)
            else:
                self._other_epoch = True
            self._early = None
        self._push(page.messages)
        self.pull_if_behind()

    def acknowledge(self, seq: int, epoch: str | None = None) -> None:
        """The device has everything up to `seq`. Raises Refused for a number that it was never sent.

        One that crossed a reset is ignored. It names another epoch; or it names none, and comes before the
        pong to the ping that followed the reset.
        """
        if epoch and epoch != self.epoch:
            return
        if seq < 0 or seq > self.ceiling:
            raise Refused(INVALID_MESSAGE, f"ack: {seq} was never sent to this channel")
        if not epoch and self._reset_unread:
            return
        cursor = self.cursor
        if cursor.acked < seq <= self.sent or (seq == cursor.acked and not cursor.start_confirmed):
            self._has(seq)
            self.pull_if_behind()

    def ping_mark(self) -> bytes:
        """The payload of a ping: its answer tells that everything up to here has arrived."""
        return b"%d:%d" % (self._starts, self.sent)

    def ponged(self, mark: bytes) -> None:
        """A pong came: a reset before its ping was read. For a seed client it is an acknowledgement, too."""
        start, _, seq = mark.partition(b":")
        if not self.epoch or start != b"%d" % self._starts or not seq.isdigit() or len(seq) > 15:
            return
        self._reset_unread = False
        number = int(seq)
        if not self.acknowledges and self.cursor.acked <= number <= self.sent:
            self._has(number)

    def writable_again(self) -> None:
        self.pull_if_behind()

    def leave(self, clean: bool) -> Leave:
        """End the session; gives the request that removes its channel.

        `clean`: the connection was closed in good order, with nothing left unsent.
        """
        self.ended = self._left = True
        if clean and not self.acknowledges:
            self.cursor.confirm(self.sent)
        if TRACE.on:
            TRACE.acked(self, self.cursor.acked)
            TRACE.left(self)
        epoch = self.epoch if self.cursor.start_confirmed else ""
        return Leave(self.user, self.device, self.channel, epoch, self.cursor.acked, self.ephemeral)

    # from the bus and from reconciling

    def hint(self, epoch: str, seq: int, body: bytes | None) -> bool:
        """The inbox reaches up to `seq`, and this may be that message. True if it was pushed."""
        if epoch != self.epoch:
            if self.epoch:
                self._other_epoch = True
                self.resynchronise()
            elif self._early is None or self._early[0] == epoch:
                self._early = (epoch, max(seq, self._early[1] if self._early else 0))
            else:
                self._early = (epoch, seq)
                self._other_epoch = True
            return False
        if seq > self.known:
            self.known = seq
        sent = self.sent
        if seq <= sent:
            return False
        if body is not None and seq == sent + 1 and not self._pulling and self._space() > 0:
            self._send(seq, body)
            if TRACE.on:
                TRACE.sent("pushed", self, seq, body)
            return True
        if self._pulling and body is not None:
            if self._hint_buffer is None:
                self._hint_buffer = HintBuffer()
            self._hint_buffer.keep(seq, body)
        self.pull_if_behind()
        return False

    def lease(self, renew: bool) -> Lease:
        return Lease(self.user, self.device, self.channel, self.answers_visitors, renew)

    def head_seen(self, head: Head) -> None:
        """The inbox's head, as an answer of the inbox had it."""
        if self.ended or not self.epoch:
            return
        if not head.held or head.epoch != self.epoch:
            self.resynchronise()
        else:
            self.known = max(self.known, head.seq)
            self.pull_if_behind()
            self._store_ack()

    def replaced(self) -> None:
        """A newer channel of the device has taken its place."""
        self._close(CLOSE_REPLACED, "replaced by a newer channel of this device")

    # from within

    def _close(self, code: int, reason: str) -> None:
        """Close the connection. Until it is gone nothing more is asked: it must not register again."""
        if not self.ended:
            self.ended = True
            self._outlet.close(code, reason)

    def _start_at(self, epoch: str, seq: int, head: int, *, start_confirmed: bool) -> None:
        heard_of = self.known if epoch == self.epoch else 0
        self.epoch = epoch
        self.sent = self._pinged = seq
        self.cursor.restart(seq, start_confirmed=start_confirmed)
        self._starts += 1
        self.known = max(seq, head, heard_of)
        self.ceiling = max(self.ceiling, seq)

    def _space(self) -> int:
        """How many messages may be written now."""
        if not self._outlet.writable:
            return 0
        if not self.acknowledges:
            return PAGE_MESSAGES
        return self.window - (self.sent - self.cursor.acked)

    def _send(self, seq: int, body: bytes) -> None:
        self.sent = seq
        self.given_last = body[:BEGINNING_BYTES]
        if seq > self.ceiling:
            self.ceiling = seq
        if len(body) < LARGE_BYTES:
            self._outlet.send(frames.delivered(seq, body))
        else:
            self._outlet.send(frames.numbered(seq), memoryview(body)[1:])
        if not self.acknowledges and seq - self._pinged >= UNACKED_PING:
            self._pinged = seq
            self._outlet.ping()

    def pull_if_behind(self) -> None:
        """Read on from the inbox if there is more, the window is open, and no read is under way."""
        if self._pulling or self.ended or not self.epoch:
            return
        if self._other_epoch:
            self.resynchronise()
            return
        if self.sent >= self.known:
            return
        space = self._space()
        if space <= 0:
            return
        self._pulling = True
        page = self._inbox.pull(self.user, self.epoch, self.sent, min(space, PAGE_MESSAGES))
        page.addCallback(self._pulled, self.epoch, self.known).addErrback(self._pull_failed)

    def _pulled(self, page: Page, asked_epoch: str, asked_known: int) -> None:
        held = self._answered()
        if self.ended or asked_epoch != self.epoch:
            return
        if page.epoch != self.epoch:
            self.resynchronise()
            return
        if page.messages or self.known > asked_known:
            self.known = max(self.known, page.head)
        else:
            # The inbox has no more, so `known` was wrong. Asking again would never end.
            self.known = page.head
        first = page.messages[0][0] if page.messages else page.head + 1
        if first > self.sent + 1:
            # The inbox was trimmed under a device that did not keep up: the archive has the rest.
            self._reset(page.epoch, first - 1, page.head)
        self._push(page.messages)
        if held:
            REPLAYED.inc(sum(self.hint(page.epoch, seq, body) for seq, body in held))
        self.pull_if_behind()

    def _answered(self) -> Sequence[tuple[int, bytes]]:
        """The inbox has answered; gives the messages that were pushed meanwhile."""
        self._pulling = False
        held, self._hint_buffer = self._hint_buffer, None
        return () if held is None else held.take()

    def _push(self, messages: Sequence[tuple[int, bytes]]) -> None:
        pushed = 0
        for seq, body in messages:
            if seq == self.sent + 1 and (not self.acknowledges or seq - self.cursor.acked <= self.window):
                self._send(seq, body)
                pushed += 1
                if TRACE.on:
                    TRACE.sent("pulled", self, seq, body)
        PULLED.inc(pushed)

    def _pull_failed(self, failure: Failure) -> None:
        # Reconciling asks again.
        self._answered()
        if failure.check(Unavailable) is None:
            self.log.failure("reading the inbox of {user} failed", failure, user=self.user)

    def _reset(self, epoch: str, seq: int, head: int) -> None:
        self._start_at(epoch, seq, head, start_confirmed=False)
        RESETS.inc()
        self._outlet.send(frames.encode(frames.Reset(epoch, seq)))
        self._reset_unread = True
        self._outlet.ping()

    def resynchronise(self) -> None:
        """The inbox has another epoch, or does not know this channel: register again."""
        if self._pulling or self.ended:
            return
        self._pulling = True
        self._other_epoch = False
        request = replace(
            self._request, epoch=self.epoch, seq=self.cursor.acked, page=PAGE_MESSAGES, resume=True
        )
        self._inbox.connect(request).addCallback(self._registered_again).addErrback(self._pull_failed)

    def _registered_again(self, outcome: ConnectOutcome) -> None:
        # Hints that came meanwhile may be of an epoch that is over.
        self._answered()
        if self.ended:
            if self._left and isinstance(outcome, Registered):
                # Its leaving may have come before this.
                leave = Leave(self.user, self.device, self.channel, "", 0, self.ephemeral)
                self._inbox.leave(leave).addErrback(self._pull_failed)
            return
        if isinstance(outcome, Superseded):
            self.replaced()
            return
        if not isinstance(outcome, Registered):
            self._close(CLOSE_OVERLOADED, "too many connections of this user")
            return
        if outcome.page.epoch == self.epoch and outcome.recovered:
            self.known = max(self.known, outcome.page.head)
        else:
            self._reset(outcome.page.epoch, outcome.seq, outcome.page.head)
            self._push(outcome.page.messages)
        self.pull_if_behind()

    def _has(self, seq: int) -> None:
        self.cursor.confirm(seq)
        if TRACE.on:
            TRACE.acked(self, seq)
        self._store_ack()

    def _store_ack(self) -> None:
        """Tell the inbox, one call at a time. Later acknowledgements go with the next call."""
        if self.ended:
            return
        ack = self.cursor.begin_to_store(self.user, self.device, self.channel, self.epoch)
        if ack is not None:
            self._inbox.ack(ack).addCallback(self._ack_stored, ack).addErrback(self._ack_failed)

    def _ack_stored(self, head: Head, ack: Ack) -> None:
        self.head_seen(self.cursor.stored_up_to(ack, head))

    def _ack_failed(self, failure: Failure) -> None:
        self.cursor.store_failed()
        if failure.check(Unavailable) is None:
            self.log.failure("an acknowledgement of {user} failed", failure, user=self.user)
