"""Changes of state for devices, on this node and on others. A lost one is found by reconciling."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.signals import Signals
from imd.chat.state_feed import Feeds
from imd.contracts.aim import AimStore
from imd.contracts.state import Changes
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable

STATE = "state"
MAX_PAYLOAD_BYTES = 16 << 10
"""a larger one is left out: devices are told of the version, and ask"""
MAX_USERS = 10_000
"""whose channels are being looked up; past it only this node's devices are told"""


class StateNews:
    """Tells devices of changes that this node has made, and of those that other nodes tell of."""

    log = Seldom(Logger())

    def __init__(self, feeds: Feeds, aims: AimStore, signals: Signals, *, has_others: bool) -> None:
        """`has_others`: there may be other nodes."""
        self._feeds = feeds
        self._aims = aims
        self._signals = signals
        self._has_others = has_others
        self._asked = 0
        signals.take(STATE, self._came)

    def changed(self, changes: Sequence[Changes]) -> None:
        """The store has made these changes."""
        self._feeds.changed(changes)
        by_user = {one.user: one for one in changes}
        if not by_user or not self._has_others or self._asked + len(by_user) > MAX_USERS:
            return
        for one in changes:
            if by_user[one.user] is not one:
                # Several of one user: one word that there is something to ask for.
                newest = max(one.version, by_user[one.user].version)
                by_user[one.user] = Changes(one.user, newest, newest)
        self._asked += len(by_user)
        asked = self._aims.channels(list(by_user))
        asked.addBoth(self._looked_up, len(by_user)).addCallbacks(
            self._send, self._not_sent, callbackArgs=(by_user,)
        )
        asked.addErrback(lambda failure: self.log.failure("news of state was not sent", failure))

    def _looked_up(self, result: object, users: int) -> object:
        self._asked -= users
        return result

    def _send(self, channels: dict[str, Sequence[str]], by_user: dict[str, Changes]) -> None:
        for user, theirs in channels.items():
            away = [channel for channel in theirs if self._feeds.of(channel) is None]
            if away:
                self._signals.send(STATE, {user: away}, _payload(by_user[user]))

    def _not_sent(self, failure: Failure) -> None:
        # Reconciling finds it.
        if failure.check(Unavailable) is None:
            self.log.failure("channels could not be looked up", failure)

    def _came(self, channels: Sequence[str], payload: bytes) -> None:
        """From another node."""
        try:
            changes = msgspec.msgpack.decode(payload, type=Changes)
        except msgspec.DecodeError as error:
            self.log.warn("news of state that cannot be read: {error}", error=error)
            return
        self._feeds.changed([changes])


def _payload(changes: Changes) -> bytes:
    payload = msgspec.msgpack.encode(changes)
    if len(payload) > MAX_PAYLOAD_BYTES:
        payload = msgspec.msgpack.encode(Changes(changes.user, changes.version, changes.version))
    return payload
