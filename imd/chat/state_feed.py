"""Feeds of state: each connected device with the feature gets the changes of its user's state, none left out.

A frame says which version the device has then. So changes are sent only to a device whose version they begin
at or below; any other device's feed asks the store for all that it lacks. A lost hint does no more harm than
that: reconciling (state_upkeep.py) finds it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Counter, Gauge
from twisted.logger import Logger
from twisted.python.failure import Failure

from imd.chat.live import Device
from imd.contracts.state import Changes, Entry, StateStore
from imd.contracts.timer import Cancellable
from imd.observe.seldom import Seldom
from imd.protocol.errors import Unavailable
from imd.protocol.frames import ConnectFrame, encode, given
from imd.protocol.state_out import Conversation, StateFrame, UserSettings

FRAMES = Counter("imd_state_frames_total", "Frames of state sent, by reason.", ["why"])
WAITING = Gauge("imd_state_feeds_waiting", "Devices whose state is to be read (bound: those connected).")

MAX_ASKED = 400
"""feeds that the store is asked for at a time"""
RETRY_SECONDS = 5.0
UNKNOWN = -1
"""the version of a device that names none: it gets everything"""


class Feed:
    """One device. `version` is the one that it was told last."""

    __slots__ = ("answers", "asks", "device", "ended", "heard", "receipts", "user", "version", "why")

    def __init__(self, device: Device, version: int) -> None:
        self.device = device
        self.user = device.author.user
        self.version = version
        self.receipts: bool | None = None
        """as the device was told last, if it was"""
        self.heard = 0
        """the highest version heard of"""
        self.answers = 0
        """frames of the device that the store works on: changes wait for the answer, which has them"""
        self.asks = False
        """the store is asked, or will be"""
        self.why = "connect"
        """of the frame that the store's answer makes"""
        self.ended = False


class Feeds:
    """The feeds of a node."""

    log = Seldom(Logger())

    def __init__(self, states: StateStore, call_later: Callable[..., Cancellable]) -> None:
        self._states = states
        self._call_later = call_later
        self._feeds: dict[str, Feed] = {}
        self._of_user: dict[str, list[Feed]] = {}
        self._waiting: deque[Feed] = deque()
        self._asked = 0
        self._pause: Cancellable | None = None

    # from live.py

    def opened(self, channel: str, device: Device, frame: ConnectFrame) -> None:
        feed = self._feeds[channel] = Feed(device, UNKNOWN if frame.state is None else frame.state)
        self._of_user.setdefault(feed.user, []).append(feed)
        self.ask(feed, "connect")

    def ended(self, channel: str) -> None:
        feed = self._feeds.pop(channel, None)
        if feed is not None:
            feed.ended = True
            others = self._of_user[feed.user]
            others.remove(feed)
            if not others:
                del self._of_user[feed.user]

    # from the store, and from other nodes

    def changed(self, changes: Iterable[Changes]) -> None:
        """Tell the devices that are connected here."""
        for one in changes:
            payload = None
            for feed in self._of_user.get(one.user, ()):
                feed.heard = max(feed.heard, one.version)
                if one.version <= feed.version or feed.answers or feed.asks:
                    continue
                if one.base > feed.version:
                    self.ask(feed, "live")
                elif feed.device.writable:
                    payload = payload or state_frame(one)
                    self._send(feed, payload, one, "live")

    # from the handlers of frames

    def of(self, channel: str) -> Feed | None:
        return self._feeds.get(channel)

    def answer(self, feed: Feed, changes: Changes, since: int, ref: str | None) -> bytes:
        """The answer to a frame of the device. `changes` are those after `since`, its version then."""
        if _is_overtaken(changes, since, feed):
            # The device has had all of that, and newer values.
            receipts = changes.receipts if feed.receipts is None else feed.receipts
            receipts = None if changes.receipts is None else receipts
            changes = Changes(changes.user, changes.base, feed.version, (), receipts)
        _has(feed, changes)
        FRAMES.labels("answer").inc()
        return state_frame(changes, ref)

    def answered(self, feed: Feed) -> None:
        """A frame has been answered, or could not be."""
        feed.answers -= 1
        self._catch_up(feed)

    # from state_upkeep.py

    def all(self) -> Sequence[Feed]:
        return list(self._feeds.values())

    def ask(self, feed: Feed, why: str) -> None:
        """Have the store asked for all that the device lacks."""
        if not feed.asks:
            feed.asks, feed.why = True, why
            self._waiting.append(feed)
            self._ask_next()

    # from within

    def _ask_next(self) -> None:
        while self._waiting and self._asked < MAX_ASKED and self._pause is None:
            feed = self._waiting.popleft()
            if not feed.ended:
                self._asked += 1
                asked = self._states.since(feed.user, feed.version)
                asked.addBoth(self._came).addCallbacks(
                    self._found,
                    self._not_found,
                    callbackArgs=(feed, feed.version, feed.heard),
                    errbackArgs=(feed,),
                )
                asked.addErrback(lambda failure: self.log.failure("state was not sent", failure))
        WAITING.set(len(self._waiting))

    def _came(self, result: Changes | Failure) -> Changes | Failure:
        self._asked -= 1
        return result

    def _found(self, changes: Changes, feed: Feed, since: int, heard: int) -> None:
        feed.asks = False
        is_news = changes.all or changes.version > feed.version
        if is_news and not feed.ended and not _is_overtaken(changes, since, feed):
            self._send(feed, state_frame(changes), changes, feed.why)
        if feed.heard == heard:
            # Asking again at once would give the same; reconciling looks again.
            feed.heard = min(heard, feed.version)
        self._catch_up(feed)
        self._ask_next()

    def _not_found(self, failure: Failure, feed: Feed) -> None:
        if failure.check(Unavailable) is None:
            self.log.failure("the state of {user} could not be read", failure, user=feed.user)
        self._waiting.append(feed)
        if self._pause is None:
            self._pause = self._call_later(RETRY_SECONDS * random.uniform(0.5, 1), self._try_again)

    def _try_again(self) -> None:
        self._pause = None
        self._ask_next()

    def _catch_up(self, feed: Feed) -> None:
        if feed.heard > feed.version and not (feed.answers or feed.asks or feed.ended):
            self.ask(feed, "live")

    def _send(self, feed: Feed, payload: bytes, changes: Changes, why: str) -> None:
        _has(feed, changes)
        if feed.device.is_open:
            FRAMES.labels(why).inc()
            feed.device.send(payload)


def _has(feed: Feed, changes: Changes) -> None:
    """The device is told of these changes."""
    feed.version = changes.version
    if changes.receipts is not None:
        feed.receipts = changes.receipts


def _is_overtaken(changes: Changes, since: int, feed: Feed) -> bool:
    """Whether the device was told newer values while the store read these, which are after `since`.

    A lower version without that is of a store that went back, and `all` takes the device back, too.
    """
    return changes.version < feed.version and (not changes.all or since != feed.version)


def state_frame(changes: Changes, ref: str | None = None) -> bytes:
    """The frame that tells a device of changes."""
    frame = StateFrame(version=changes.version, conversations=list(map(_conversation, changes.entries)))
    frame.ref = given(ref)
    if changes.all:
        frame.all = True
    if changes.receipts is not None:
        frame.user = UserSettings(changes.receipts)
    return encode(frame)


def _conversation(entry: Entry) -> Conversation:
    selector = entry.selector
    return Conversation(
        selector.with_,
        selector.group,
        selector.room,
        entry.read,
        entry.peer,
        entry.muted,
        entry.pinned,
        entry.hidden,
        entry.cleared,
        entry.marked,
    )
