"""Presence, typing and signals: what is told live, and kept nowhere. No I/O."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from imd.client.agenda import Agenda
from imd.client.conversation import Conversation, of_frame
from imd.client.events import FrameRefused, Presence, Signal, Typing
from imd.client.link import Link
from imd.client.outgoing import Refusal
from imd.client.reconnect import Backoff
from imd.client.sound import check_sound

MOST_WATCHED = 200
ANSWER_SECONDS = 30.0
TYPING_PACE_SECONDS = 2.0
"""between two frames about one conversation"""
TYPING_SECONDS = 6.0
"""after so long without another one, somebody has stopped"""
MOST_KEPT = 64
"""conversations whose last `typing` is known; signals that an error may still name"""


class Watching:
    """The users whose presence the program wants to know: the list is sent again on each connection."""

    def __init__(self, agenda: Agenda, link: Link, backoff: Backoff) -> None:
        self._agenda = agenda
        self._link = link
        self._backoff = backoff
        self._wanted: tuple[str, ...] = ()
        self._told: tuple[str, ...] = ()
        """the list that the node has"""
        self._frame: dict[str, Any] | None = None
        """without an answer"""
        self._paused = False
        self.present: dict[str, bool] = {}
        """by user; empty while it is unknown"""

    def watch(self, users: Iterable[str]) -> None:
        """Raises ValueError for more than 200 users, and for what is no id."""
        wanted = tuple(dict.fromkeys(users))
        if len(wanted) > MOST_WATCHED:
            raise ValueError(f"at most {MOST_WATCHED} users can be watched")
        if not all(wanted):
            raise ValueError("ids of users are expected")
        check_sound({"users": wanted})
        self._wanted = wanted
        self.present = {user: online for user, online in self.present.items() if user in wanted}
        self.flush()

    def flush(self) -> None:
        may = self._link.is_open and self._link.knows_events and self._frame is None and not self._paused
        if may and self._wanted != self._told:
            self._told = self._wanted
            self._frame = {"type": "watch", "ref": uuid.uuid4().hex[:12], "users": list(self._wanted)}
            self._agenda.later("watch", ANSWER_SECONDS, self._again)
            self._agenda.transmit(self._frame)

    def got(self, frame: Mapping[str, Any]) -> None:
        """A frame `presence`: an answer has all watched users, another those that have changed."""
        wanted = set(self._wanted)
        users = {each["userId"]: bool(each["online"]) for each in frame["users"] if each["userId"] in wanted}
        answers = self._frame is not None and self._frame["ref"] == frame.get("ref")
        if answers:
            self._frame, self.present = None, users
            self._agenda.cancel("watch")
            self._backoff.reset()
        else:
            self.present |= users
        if users or answers:
            self._agenda.emit(Presence(users, answers))
        self.flush()

    def refused(self, ref: str, refusal: Refusal, temporary: bool, retry_seconds: float) -> bool:
        """False if the error answers another frame."""
        if self._frame is None or self._frame["ref"] != ref:
            return False
        frame, self._frame = self._frame, None
        if temporary:
            self._told, self._paused = (), True
            self._agenda.later("watch", max(retry_seconds, self._backoff.next()), self._again)
        else:
            if self._wanted == self._told:
                self._wanted = ()
            self._told = ()
            self._agenda.cancel("watch")
            self._agenda.emit(FrameRefused(frame, refusal))
            self.flush()
        return True

    def lost(self) -> None:
        """Nobody's presence is known any more."""
        self._told, self._frame, self._paused = (), None, False
        self.present = {}

    def forget(self) -> None:
        self._wanted = ()

    def _again(self) -> None:
        self._told, self._frame, self._paused = (), None, False
        self.flush()


class TypingHints:
    """The user is writing, and others are."""

    def __init__(self, agenda: Agenda, link: Link) -> None:
        self._agenda = agenda
        self._link = link
        self._said: dict[str, float] = {}
        """the time of the last `typing` of each conversation, by key; oldest first"""
        self._heard: dict[tuple[str, str], tuple[float, Typing]] = {}
        """until when somebody is writing, by user and key"""

    def say(self, about: Conversation) -> None:
        """Dropped while the client is not connected, and within 2 seconds of the one before."""
        now, key = self._agenda.seconds(), about.key
        if (
            not may_hint(self._link)
            or now - self._said.get(key, now - TYPING_PACE_SECONDS) < TYPING_PACE_SECONDS
        ):
            return
        self._said.pop(key, None)
        self._said[key] = now
        if len(self._said) > MOST_KEPT:
            del self._said[next(iter(self._said))]
        self._agenda.transmit({"type": "typing"} | about.selector)

    def got(self, frame: Mapping[str, Any]) -> None:
        about, user = of_frame(frame), frame["userId"]
        key = (user, about.key)
        event = Typing(user, about.with_, about.group, about.room)
        if key not in self._heard:
            self._agenda.emit(event)
        self._heard[key] = self._agenda.seconds() + TYPING_SECONDS, event
        self._plan()

    def wrote(self, user: str, about: Conversation) -> None:
        """A message has come: its sender has stopped for now."""
        self._end([(user, about.key)])

    def sent(self, about: Conversation) -> None:
        """The user has sent a message: the next `typing` is news."""
        self._said.pop(about.key, None)

    def lost(self) -> None:
        self._end(list(self._heard))
        self._said.clear()

    def _end(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            heard = self._heard.pop(key, None)
            if heard is not None:
                event = heard[1]
                self._agenda.emit(Typing(event.user_id, event.with_, event.group, event.room, on=False))

    def _plan(self) -> None:
        if self._heard:
            first = min(until for until, _ in self._heard.values())
            self._agenda.later("typing", first - self._agenda.seconds(), self._look)

    def _look(self) -> None:
        now = self._agenda.seconds()
        self._end([key for key, (until, _) in self._heard.items() if until <= now])
        self._plan()


class Signals:
    """The program's own signals, which nobody stores."""

    def __init__(self, agenda: Agenda, link: Link) -> None:
        self._agenda = agenda
        self._link = link
        self._sent: dict[str, dict[str, Any]] = {}
        """the last frames, by ref: only an error answers one"""

    def send(self, about: Conversation, name: str, data: Mapping[str, Any] | None) -> bool:
        """False while the client is not connected: then nothing is sent.

        Raises ValueError for a name or `data` that no node would take.
        """
        ref = uuid.uuid4().hex[:12]
        frame = {"type": "signal", "ref": ref} | about.selector | {"name": name}
        if data is not None:
            frame["data"] = dict(data)
        check_sound(frame, self._link.limits)
        if not may_hint(self._link):
            return False
        self._sent[ref] = frame
        if len(self._sent) > MOST_KEPT:
            del self._sent[next(iter(self._sent))]
        self._agenda.transmit(frame)
        return True

    def got(self, frame: Mapping[str, Any]) -> None:
        about = of_frame(frame)
        names = about.with_, about.group, about.room
        self._agenda.emit(Signal(frame["userId"], frame["name"], frame.get("data"), *names))

    def refused(self, ref: str, refusal: Refusal) -> bool:
        """False if the error answers another frame."""
        frame = self._sent.pop(ref, None)
        if frame is not None:
            self._agenda.emit(FrameRefused(frame, refusal))
        return frame is not None

    def lost(self) -> None:
        self._sent.clear()


def may_hint(link: Link) -> bool:
    return link.is_open and "state" in (link.features or ())
