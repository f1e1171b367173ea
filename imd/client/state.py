"""Marks and settings of the user's conversations, kept in step with the node. No I/O.

A mark or a setting counts at once for the program, is kept as the latest of its conversation, and is sent
until the node has confirmed or refused it. One such frame is unanswered at a time, so they arrive in order.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from imd.client.agenda import Agenda
from imd.client.conversation import Conversation, as_frame, merged, of_frame
from imd.client.events import ConversationsChanged, FrameRefused
from imd.client.link import Link
from imd.client.options import Options
from imd.client.outgoing import Refusal
from imd.client.reconnect import Backoff
from imd.client.sound import check_sound
from imd.client.store import Saved, Store
from imd.client.wishes import USER, Wishes
from imd.protocol.ids import is_message_id

READ_SECONDS = 1.0
"""between two frames with marks; later marks of a conversation replace earlier ones meanwhile"""
ANSWER_SECONDS = 30.0
MOST_MARKS = 200
"""in one frame"""
ABOUT_IDS = ("hidden", "cleared")


class _Sent(NamedTuple):
    """The frame without an answer."""

    frame: dict[str, Any]
    parts: list[tuple[str, str, dict[str, Any]]]
    """key, mark and settings of each conversation in it"""


class States:
    def __init__(
        self, agenda: Agenda, link: Link, backoff: Backoff, store: Store, saved: Saved, options: Options
    ) -> None:
        self._agenda = agenda
        self._link = link
        self._backoff = backoff
        self._store = store
        self._options = options
        self._version = saved.state_version
        self._receipts = saved.receipts
        self._known: dict[str, Conversation] = {}
        for text in saved.conversations:
            known = of_frame(json.loads(text))
            self._known[known.key] = known
        self._own: dict[str, str] = {}
        """the newest message of one's own, by key"""
        self._wishes = Wishes(store, saved.wishes)
        self._sent: _Sent | None = None
        self._paused = False
        self._read_at = 0.0
        """marks are not sent before this time"""
        self._alone: set[str] = set()
        """keys whose mark was refused together with others: each is sent in a frame of its own"""

    # ---- for the program

    @property
    def receipts(self) -> bool:
        wish = self._wishes.get(USER)
        return self._receipts if wish is None else wish.fields["receipts"]

    @property
    def all(self) -> list[Conversation]:
        """Conversations that have a mark or a setting."""
        wished = {key: wish.about for key, wish in self._wishes if key != USER}
        return [self.shown(about) for about in (wished | self._known).values()]

    def shown(self, about: Conversation) -> Conversation:
        """The conversation as the program sees it: with what is not confirmed yet."""
        key = about.key
        known, wish = self._known.get(key) or about.plain, self._wishes.get(key)
        if wish is not None:
            known = wish.over(known)
        return replace(known, mark=max(known.read, self._own.get(key, "")))

    def read(self, about: Conversation, up_to: str) -> None:
        """Raises ValueError for what is no id."""
        if not is_message_id(up_to):
            raise ValueError("up_to: the id of a message is expected")
        shown = self.shown(about)
        if up_to <= shown.read and not shown.marked:
            return
        self._wishes.read(about.key, about, up_to)
        self._tell([about], [shown])
        self.flush()

    def set(self, about: Conversation, fields: dict[str, Any]) -> None:
        """`fields` under the protocol's names. Raises ValueError for what no node would take."""
        for name in ABOUT_IDS:
            if fields.get(name) and not is_message_id(fields[name]):
                raise ValueError(f"{name}: the id of a message is expected")
        if not fields:
            raise ValueError("nothing to set")
        check_sound(fields)
        shown = self.shown(about)
        self._wishes.set(about.key, about, fields)
        self._tell([about], [shown])
        self.flush()

    def set_receipts(self, receipts: bool) -> None:
        before = self.receipts
        self._wishes.set(USER, Conversation(), {"receipts": receipts})
        if before != receipts:
            self._tell([], [], changed=True)
        self.flush()

    # ---- from the core

    def signal_fields(self) -> dict[str, Any]:
        """For the connect signal."""
        if "state" not in self._options.features or self._version is None:
            return {}
        return {"state": self._version}

    def opened(self) -> None:
        self.flush()

    def lost(self) -> None:
        self._sent, self._paused = None, False

    def forget(self) -> None:
        """Another user."""
        self._version, self._receipts, self._sent = None, True, None
        self._known.clear()
        self._own.clear()
        self._alone.clear()
        self._wishes.clear()

    def wrote(self, about: Conversation, message_id: str) -> None:
        """The user has written a message, here or elsewhere."""
        self._own[about.key] = max(self._own.get(about.key, ""), message_id)

    def hides(self, about: Conversation, message_id: str) -> bool:
        """True for a message that the user has cleared away."""
        return message_id <= self.shown(about).cleared

    def got(self, frame: Mapping[str, Any]) -> None:
        """A frame `state`: an answer, or a change. Raises KeyError."""
        whole, version = bool(frame.get("all")), frame["version"]
        found = [of_frame(each) for each in frame["conversations"]]
        about = list(self._known.values()) + found if whole else found
        before, receipts = [self.shown(each) for each in about], self.receipts
        if whole or self._version is None or version >= self._version:
            self._take(frame, found, whole, version)
        answered = self._sent is not None and self._sent.frame["ref"] == frame.get("ref")
        if answered:
            self._settle()
            self._backoff.reset()
        self._tell(about, before, whole, changed=receipts != self.receipts)
        if answered:
            self.flush()

    def _take(self, frame: Mapping[str, Any], found: list[Conversation], whole: bool, version: int) -> None:
        if whole:
            self._known.clear()
        if whole or self._version is not None:
            # Without a version, an answer alone does not say which changes came before it.
            self._version = version
        if "user" in frame:
            self._receipts = bool(frame["user"]["receipts"])
        for each in found:
            self._known[each.key] = merged(self._known.get(each.key), each)
        texts = {each.key: json.dumps(as_frame(self._known[each.key])) for each in found}
        self._store.put_state(self._version, self._receipts, texts, whole)

    def refused(self, ref: str, refusal: Refusal, temporary: bool, retry_seconds: float) -> bool:
        """False if the error answers another frame."""
        sent = self._sent
        if sent is None or sent.frame["ref"] != ref:
            return False
        if temporary:
            self._sent, self._paused = None, True
            self._agenda.later("state", max(retry_seconds, self._backoff.next()), self._resume)
        elif len(sent.parts) > 1:
            # One of the marks is refused, and the others with it.
            self._alone |= {key for key, _, _ in sent.parts}
            self._sent, self._read_at = None, 0.0
            self.flush()
        else:
            wish = self._wishes.get(sent.parts[0][0])
            about = [] if wish is None or sent.parts[0][0] == USER else [wish.about]
            before = [self.shown(each) for each in about]
            self._settle()
            self._agenda.emit(FrameRefused(sent.frame, refusal))
            self._tell(about, before, changed="receipts" in sent.frame)
            self.flush()
        return True

    # ---- from within

    def _settle(self) -> None:
        """The frame without an answer has got one: what it said is no wish any more."""
        assert self._sent is not None
        for key, read, fields in self._sent.parts:
            self._wishes.done(key, read, fields)
            self._alone.discard(key)
        self._sent = None
        self._agenda.cancel("state")

    def _tell(
        self,
        about: Iterable[Conversation],
        before: list[Conversation],
        whole: bool = False,
        changed: bool = False,
    ) -> None:
        """Tell the program of conversations that look different. `changed`: so do the user's own settings."""
        after = [self.shown(each) for each in about]
        different = {new.key: new for old, new in zip(before, after, strict=True) if old != new}
        if different or whole or changed:
            changed_ones = tuple(different[key] for key in sorted(different))
            self._agenda.emit(ConversationsChanged(changed_ones, whole, self.receipts))

    def flush(self) -> None:
        """Send what may be sent now."""
        may = self._link.is_open and "state" in (self._link.features or ())
        if not may or self._sent is not None or self._paused or not len(self._wishes):
            return
        marks = [key for key, wish in self._wishes if wish.read]
        settings = [key for key, wish in self._wishes if wish.fields]
        now = self._agenda.seconds()
        if marks and (settings or now >= self._read_at):
            # A setting waits for the marks before it: they would end `marked`.
            self._send_marks(next(([key] for key in marks if key in self._alone), marks[:MOST_MARKS]))
        elif marks:
            self._agenda.later("state", self._read_at - now, self.flush)
        else:
            self._send_settings(settings[0])

    def _send_marks(self, keys: list[str]) -> None:
        wishes = [wish for key in keys if (wish := self._wishes.get(key)) is not None]
        marks = [wish.about.selector | {"upTo": wish.read} for wish in wishes]
        self._read_at = self._agenda.seconds() + READ_SECONDS
        parts: list[tuple[str, str, dict[str, Any]]] = [(wish.about.key, wish.read, {}) for wish in wishes]
        self._send("read", marks[0] if len(marks) == 1 else {"marks": marks}, parts)

    def _send_settings(self, key: str) -> None:
        wish = self._wishes.get(key)
        assert wish is not None
        fields = dict(wish.fields)
        # No mark is waiting, so an empty one is not taken for a mark that was answered.
        self._send("settings", wish.about.selector | fields, [(key, "", fields)])

    def _send(self, kind: str, fields: dict[str, Any], parts: list[tuple[str, str, dict[str, Any]]]) -> None:
        frame = {"type": kind, "ref": uuid.uuid4().hex[:12], **fields}
        self._sent = _Sent(frame, parts)
        self._agenda.later("state", ANSWER_SECONDS, self._not_answered)
        self._agenda.transmit(frame)

    def _not_answered(self) -> None:
        self._sent = None
        self.flush()

    def _resume(self) -> None:
        self._paused = False
        self.flush()
