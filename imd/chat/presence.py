"""The users that each connection watches, and the frames that tell it of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from prometheus_client import Counter
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.sightings import Sightings
from imd.contracts.presence import PresenceStore
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable
from imd.protocol.frames import encode
from imd.protocol.state_out import PresenceFrame, Present

STAFF = "staff"
"""the setting `visible` by which staff see staff"""
BLOCKS = "blocks"
"""the kind of signal that says: whom a user blocks has changed"""
BLOCKS_SECONDS = 60.0
"""between two questions who of a list is hidden by a block"""
TICK_SECONDS = 1.0
LISTS_PER_TICK = 200

ASKED = Counter(
    "imd_presence_blocks_asked_total", "Questions who of a connection's list is hidden by a block."
)


class _List:
    """The users whom one connection watches. `hidden`: a block is between.

    `owed`: the device is to be told of these again, since it did not take the last frame.
    """

    __slots__ = ("hidden", "owed", "user", "users")

    def __init__(self, user: str, users: Sequence[str], hidden: frozenset[str]) -> None:
        self.user = user
        self.users = users
        self.hidden = hidden
        self.owed: dict[str, None] = {}


class Presence:
    """`visible`: whose presence is shown at all: of `staff` to staff, of `all`, of `none`."""

    log = Logger()

    def __init__(
        self,
        clock: Any,
        sightings: Sightings,
        store: PresenceStore,
        send: Callable[[str, bytes], bool],
        visible: str,
    ) -> None:
        """`send` sends a frame to the device of a channel; False: the device does not take it now."""
        self._clock = clock
        self._sightings = sightings
        self._store = store
        self._send = send
        self._visible = visible
        self._seldom = Seldom(self.log, clock.seconds)
        self._lists: dict[str, _List] = {}
        """by channel"""
        self._channels: dict[str, dict[str, None]] = {}
        """user → the channels that watch it"""
        self._turns: dict[str, int] = {}
        """channel → the number of its newest `watch`"""
        self._asked_at: dict[str, float] = {}
        """channel → when its blocks were asked for; the oldest first"""
        self._owing: dict[str, None] = {}
        """channels whose devices are owed a frame; the longest untried first"""
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        sightings.listen(self._changed, staff_only=visible == STAFF)

    # from the node

    def start(self) -> None:
        self._sightings.start()
        self._loop.start(TICK_SECONDS, now=False).addErrback(
            lambda failure: self.log.failure("presence is no longer looked after", failure)
        )

    def stop(self) -> None:
        self._sightings.stop()
        if self._loop.running:
            self._loop.stop()

    # from the connections

    def ended(self, channel: str) -> None:
        self._turns.pop(channel, None)
        self._replace(channel, None)

    async def watch(
        self, channel: str, user: str, users: Sequence[str], *, is_staff: bool
    ) -> Sequence[Present]:
        """Watch these users instead of those before. Gives all of them, as they are shown now.

        Raises Unavailable and Refused; then the former list stays.
        """
        turn = self._turns[channel] = self._turns.get(channel, 0) + 1
        if not users or self._visible == "none" or (self._visible == STAFF and not is_staff):
            self._replace(channel, None)
            return [Present(user, False) for user in users]
        await self._sightings.watch(users)
        try:
            hidden = frozenset(await self._store.hidden(user, users))
        except BaseException:
            self._sightings.unwatch(users)
            raise
        watched = _List(user, users, hidden)
        shown = [Present(one, self._is_shown(watched, one)) for one in users]
        if self._turns.get(channel) == turn:
            self._replace(channel, watched)
        else:
            # The connection has ended, or has sent a newer list.
            self._sightings.unwatch(users)
        return shown

    def blocks_changed(self, channels: Sequence[str], payload: bytes) -> None:
        """The users of these channels block others than before, or are blocked by others."""
        for channel in channels:
            if channel in self._lists:
                self._ask(channel)

    # from within

    def _replace(self, channel: str, watched: _List | None) -> None:
        """The list of a channel; None: it watches nobody."""
        former = self._lists.pop(channel, None)
        self._asked_at.pop(channel, None)
        self._owing.pop(channel, None)
        if watched is not None:
            self._lists[channel] = watched
            self._asked_at[channel] = self._clock.seconds()
            for user in watched.users:
                self._channels.setdefault(user, {})[channel] = None
        if former is None:
            return
        kept = frozenset(watched.users) if watched is not None else frozenset()
        for user in former.users:
            if user not in kept:
                channels = self._channels[user]
                del channels[channel]
                if not channels:
                    del self._channels[user]
        self._sightings.unwatch(former.users)

    def _is_shown(self, watched: _List, user: str) -> bool:
        return user not in watched.hidden and self._sightings.is_shown(user)

    def _changed(self, users: list[str]) -> None:
        """The shown values of these users have changed."""
        for_channel: dict[str, list[str]] = {}
        for user in users:
            for channel in self._channels.get(user, ()):
                if user not in self._lists[channel].hidden:
                    for_channel.setdefault(channel, []).append(user)
        for channel, changed in for_channel.items():
            self._tell(channel, changed)

    def _tell(self, channel: str, users: Iterable[str]) -> None:
        """Tell a device of these users, and of those that it is owed."""
        watched = self._lists[channel]
        users = {**watched.owed, **dict.fromkeys(users)}
        if not users:
            return
        shown = [Present(user, self._is_shown(watched, user)) for user in users]
        self._owing.pop(channel, None)
        if self._send(channel, encode(PresenceFrame(users=shown))):
            watched.owed.clear()
        else:
            watched.owed = users
            self._owing[channel] = None

    # once in a while

    def _tick(self) -> None:
        for channel in list(islice(self._owing, LISTS_PER_TICK)):
            self._tell(channel, ())
        before = self._clock.seconds() - BLOCKS_SECONDS
        due: list[str] = []
        for channel, asked_at in self._asked_at.items():
            if asked_at > before or len(due) >= LISTS_PER_TICK:
                break
            due.append(channel)
        for channel in due:
            self._ask(channel)

    def _ask(self, channel: str) -> None:
        """Ask who of a list is hidden by a block."""
        watched = self._lists[channel]
        self._asked_at.pop(channel)
        self._asked_at[channel] = self._clock.seconds()
        ASKED.inc()
        asked: Deferred[Sequence[str]] = self._store.hidden(watched.user, watched.users)
        asked.addCallbacks(self._found, self._failed, (channel, watched))
        asked.addErrback(lambda failure: self.log.failure("presence was not told", failure))

    def _found(self, hidden: Sequence[str], channel: str, watched: _List) -> None:
        if self._lists.get(channel) is not watched:
            return
        before = {user: self._is_shown(watched, user) for user in watched.hidden.symmetric_difference(hidden)}
        watched.hidden = frozenset(hidden)
        self._tell(
            channel, [user for user, shown in before.items() if self._is_shown(watched, user) != shown]
        )

    def _failed(self, failure: Failure) -> None:
        # Asked again within a minute.
        if failure.check(Unavailable) is None:
            self._seldom.failure("blocks could not be asked for", failure)
