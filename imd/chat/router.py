"""Hints: telling the channels of a message's recipients, on this node or on another.

The registry holds channel ids, not nodes. A channel of another node is searched for once, by asking all
nodes. The node that has it answers, and later hints go straight to that node. A channel never moves, so a
learned address stays true until the channel is gone.

Behind a gateway users have a home, and a channel that is not known yet is most likely there: the home alone
is asked first. All nodes are asked when the broker returns that, or when nothing comes within a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import Counter, Gauge

from imd.chat.session import Session
from imd.contracts.bus import Bus, Hint
from imd.contracts.inbox import Delivery
from imd.contracts.timer import Cancellable
from imd.observe.trace import TRACE

DELIVERED = Counter("imd_delivered_messages_total", "Messages pushed by hints, by their path.", ["path"])
SEARCHES = Counter("imd_channel_searches_total", "Channels that all nodes were asked for.")
UNFOUND = Counter("imd_channel_searches_unanswered_total", "Channels that no node said it has.")
SEARCHING = Gauge(
    "imd_unknown_channels", "Channels searched for, and those that nobody said it has.", ["state"]
)
ASKED = Counter(
    "imd_home_hints_total", "Channels that the home of their user was asked for, by the result.", ["result"]
)
LEARNED = Gauge("imd_learned_channels", "Channels of other nodes whose node is known (bound: 200,000).")

_LOCAL = DELIVERED.labels("local")
_DIRECT = DELIVERED.labels("direct")
_SEARCH = DELIVERED.labels("search")
_FOUND = ASKED.labels("found")
_RETURNED = ASKED.labels("returned")
_UNANSWERED = ASKED.labels("unanswered")

ASK_SECONDS = 1.0
SEARCH_SECONDS = 2.0
NOT_AGAIN_SECONDS = 30.0
# The seq of a hint that asks only where its channel is. No message has it.
WHERE = 0
MAX_LEARNED = 200_000
MAX_SEARCHING = 50_000
MAX_UNFOUND = 200_000
MAX_HELD_HINTS = 16
MAX_HELD_SIGNALS = 8


class _Search:
    """A search for a channel, and the hints that wait for its result.

    `first` went with the question to a home. It is kept until all nodes may have to be asked.
    """

    __slots__ = ("asking", "deadline", "first", "held", "latest")

    def __init__(self, deadline: float, first: Hint | None = None) -> None:
        self.deadline = deadline
        self.first = first
        self.held: list[Hint] = []
        self.latest: Hint | None = None
        self.asking: list[Callable[[str], None]] = []
        """to be told the address"""

    def hold(self, hint: Hint) -> None:
        """Keep the first MAX_HELD_HINTS hints whole, and the number of the last one."""
        self.latest = hint
        if len(self.held) < MAX_HELD_HINTS:
            self.held.append(hint)

    def hints(self) -> list[Hint]:
        if self.latest is None or self.held[-1] is self.latest:
            return self.held
        return [*self.held, Hint(self.latest.channel, self.latest.epoch, self.latest.seq, None)]


class Router:
    """`local` maps channel ids to the sessions of this node. `bus` is None where there is no other node.

    `home` gives the address on the bus of a user's home; None for a user without one, or at home here. It is
    None itself where users have no homes.
    """

    def __init__(
        self,
        local: dict[str, Session],
        bus: Bus | None,
        seconds: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        home: Callable[[str], str | None] | None = None,
    ) -> None:
        self._local = local
        self._bus = bus
        self._seconds = seconds
        self._call_later = call_later
        self._home = home
        self._learned: dict[str, str] = {}
        self._searching: dict[str, _Search] = {}
        self._unfound: dict[str, float] = {}
        # In the order of their deadlines, as all have the same time.
        self._asked: dict[str, _Search] = {}
        self._to_ask: dict[str, list[Hint]] = {}
        self._replaced: list[str] = []
        self._tell_call: Cancellable | None = None
        self._sweep_call: Cancellable | None = None
        self._ask_call: Cancellable | None = None
        if bus is not None:
            bus.listen(
                self._hints_came,
                self._search_came,
                self._found_came,
                self._replaced_came,
                self._somebody_back,
                self._returned,
            )

    # from the acceptor and the desk

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Tell every channel of these deliveries, in their order."""
        local = self._local
        pushed = 0
        away: dict[str, list[Hint]] = {}
        searched: list[Hint] = []
        for delivery in deliveries:
            for channel in delivery.channels:
                session = local.get(channel)
                if session is not None:
                    pushed += session.hint(delivery.epoch, delivery.seq, delivery.body)
                elif self._bus is not None:
                    hint = Hint(channel, delivery.epoch, delivery.seq, delivery.body)
                    self._route(delivery.user, hint, away, searched)
        if pushed:
            _LOCAL.inc(pushed)
        if self._bus is not None:
            for address, hints in away.items():
                if TRACE.on:
                    TRACE.hints("hint sent", hints, address)
                self._bus.send_hints(address, hints)
            if self._to_ask:
                self._ask_homes(self._bus)
            if searched:
                self._search(self._bus, searched)

    # from the outbox of signals

    def is_here(self, channel: str) -> bool:
        return channel in self._local

    def where(self, user: str, channel: str, found: Callable[[str], None]) -> str | None:
        """The address of the node that has another node's channel.

        None if it is not known. Then it is searched for, and `found` gets it, if any node answers and not too
        many wait for it.
        """
        address = self._learned.get(channel)
        if address is not None or self._bus is None:
            return address
        away: dict[str, list[Hint]] = {}
        searched: list[Hint] = []
        if self._search_of(channel) is None:
            self._route(user, Hint(channel, "", WHERE, None), away, searched)
            if self._to_ask:
                self._ask_homes(self._bus)
            if searched:
                self._search(self._bus, searched)
        search = self._search_of(channel)
        if search is not None and len(search.asking) < MAX_HELD_SIGNALS:
            search.asking.append(found)
        return None

    # from connections

    def tell_replaced(self, channel: str) -> None:
        """A channel has lost its device to a newer one."""
        session = self._local.get(channel)
        if session is not None:
            session.replaced()
        elif self._bus is not None:
            # Sent to all nodes, so the replacements of one turn share a message.
            if not self._replaced:
                self._tell_call = self._call_later(0, self._tell_away)
            self._replaced.append(channel)

    # from the node

    def stop(self) -> None:
        for call in (self._sweep_call, self._ask_call):
            if call is not None and call.active():
                call.cancel()
        self._sweep_call = self._ask_call = None
        if self._tell_call is not None and self._tell_call.active():
            self._tell_call.cancel()
            self._tell_away()

    # from within

    def _tell_away(self) -> None:
        replaced, self._replaced = self._replaced, []
        if self._bus is not None and replaced:
            self._bus.send_replaced(replaced)

    def _route(self, user: str, hint: Hint, away: dict[str, list[Hint]], searched: list[Hint]) -> None:
        address = self._learned.get(hint.channel)
        if address is not None:
            away.setdefault(address, []).append(hint)
            return
        search = self._search_of(hint.channel)
        if search is not None:
            search.hold(hint)
            return
        if self._bus_is_down():
            # No node would get the search. Unanswered, it would rule out another one for a while.
            return
        now = self._seconds()
        if self._unfound.get(hint.channel, 0.0) > now:
            return
        if len(self._searching) + len(self._asked) >= MAX_SEARCHING:
            return
        address = self._home(user) if self._home is not None else None
        if address is not None:
            self._asked[hint.channel] = _Search(now + ASK_SECONDS, hint)
            self._to_ask.setdefault(address, []).append(hint)
            return
        self._searching[hint.channel] = _Search(now + SEARCH_SECONDS)
        searched.append(hint)

    def _search_of(self, channel: str) -> _Search | None:
        search = self._searching.get(channel)
        if search is None and self._home is not None:
            search = self._asked.get(channel)
        return search

    def _search(self, bus: Bus, hints: list[Hint]) -> None:
        """Ask all nodes for channels that are in `_searching`."""
        if TRACE.on:
            TRACE.hints("searched", hints, "all")
        SEARCHES.inc(len(hints))
        bus.search(hints)
        if self._sweep_call is None:
            self._sweep_call = self._call_later(SEARCH_SECONDS, self._sweep)

    def _ask_homes(self, bus: Bus) -> None:
        asks, self._to_ask = self._to_ask, {}
        for address, hints in asks.items():
            if TRACE.on:
                TRACE.hints("asked", hints, address)
            bus.ask(address, hints)
        if self._ask_call is None:
            self._ask_call = self._call_later(ASK_SECONDS, self._give_up_asking)

    def _give_up_asking(self) -> None:
        """Search for the channels that their homes have not answered for."""
        self._ask_call = None
        now = self._seconds()
        late = []
        for channel, asked in self._asked.items():
            if asked.deadline > now:
                self._ask_call = self._call_later(asked.deadline - now, self._give_up_asking)
                break
            late.append(channel)
        _UNANSWERED.inc(len(late))
        self._search_instead(late)

    def _search_instead(self, channels: list[str]) -> None:
        """The home does not have these channels. Their hints stay held, so the order is kept."""
        hints = []
        deadline = self._seconds() + SEARCH_SECONDS
        for channel in channels:
            search = self._asked.pop(channel)
            first, search.first = search.first, None
            if first is not None and not self._bus_is_down():
                search.deadline = deadline
                self._searching[channel] = search
                hints.append(first)
        if hints and self._bus is not None:
            self._search(self._bus, hints)

    def _bus_is_down(self) -> bool:
        return self._bus is None or self._bus.problem() is not None

    def _sweep(self) -> None:
        """Give up searches that no node has answered. Their messages are in the inboxes."""
        self._sweep_call = None
        now = self._seconds()
        for channel in [c for c, search in self._searching.items() if search.deadline <= now]:
            del self._searching[channel]
            if not self._bus_is_down():
                self._unfound[channel] = now + NOT_AGAIN_SECONDS
            UNFOUND.inc()
        while len(self._unfound) > MAX_UNFOUND:
            del self._unfound[next(iter(self._unfound))]
        for channel in [c for c, until in self._unfound.items() if until <= now]:
            del self._unfound[channel]
        SEARCHING.labels("searching").set(len(self._searching))
        SEARCHING.labels("unfound").set(len(self._unfound))
        if self._searching or self._unfound:
            self._sweep_call = self._call_later(SEARCH_SECONDS / 2, self._sweep)

    def _take_hints(self, hints: list[Hint]) -> tuple[int, list[str]]:
        """Pass hints on to the sessions that are here: how many were pushed, and for which channels."""
        pushed = 0
        here = []
        for hint in hints:
            session = self._local.get(hint.channel)
            if session is not None:
                here.append(hint.channel)
                if hint.seq != WHERE:
                    pushed += session.hint(hint.epoch, hint.seq, hint.body)
        return pushed, here

    # from the bus

    def _hints_came(self, sender: str, hints: list[Hint]) -> None:
        if TRACE.on:
            TRACE.hints("hint received", hints, sender, self._local)
        pushed, _ = self._take_hints(hints)
        _DIRECT.inc(pushed)

    def _search_came(self, sender: str, hints: list[Hint]) -> None:
        if TRACE.on:
            TRACE.hints("search received", hints, sender, self._local)
        pushed, here = self._take_hints(hints)
        _SEARCH.inc(pushed)
        if here and self._bus is not None:
            self._bus.send_found(sender, here)

    def _found_came(self, sender: str, channels: list[str]) -> None:
        for channel in channels:
            self._learned[channel] = sender
            self._unfound.pop(channel, None)
            search = self._searching.pop(channel, None)
            if search is None and self._home is not None:
                search = self._asked.pop(channel, None)
                if search is not None:
                    _FOUND.inc()
            if search is not None and search.latest is not None and self._bus is not None:
                hints = search.hints()
                if TRACE.on:
                    TRACE.hints("hint sent", hints, sender)
                self._bus.send_hints(sender, hints)
            for found in search.asking if search is not None else ():
                found(sender)
        while len(self._learned) > MAX_LEARNED:
            del self._learned[next(iter(self._learned))]
        LEARNED.set(len(self._learned))

    def _replaced_came(self, channels: list[str]) -> None:
        for channel in channels:
            session = self._local.get(channel)
            if session is not None:
                session.replaced()

    def _somebody_back(self) -> None:
        # The node of an unfound channel may have missed the search. It reconciles, so no message is lost.
        # Channels that a home is asked for are searched for in a moment anyway.
        self._searching.clear()
        self._unfound.clear()

    def _returned(self, channels: list[str]) -> None:
        """The home that was asked for these is not on the bus."""
        asked = [channel for channel in channels if channel in self._asked]
        _RETURNED.inc(len(asked))
        self._search_instead(asked)
